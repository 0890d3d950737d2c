//! The window of a running stack: each event, each alert, and each message to a target as it arrives, a line each.

use std::pin::Pin;

use anyhow::Context;
use futures_util::{Stream, TryStreamExt};
use time::OffsetDateTime;

use super::sink::Sink;
use crate::{
    aws::Aws,
    commands::console::feed::Feed,
    stack::Stack,
    tail::{Arrival, Message, Tail, lines::Lines},
    temporary_queues::Topic,
    terminal::print,
};

/// Messages of the topics, as they arrive.
type Arrivals<'a> = Pin<Box<dyn Stream<Item = anyhow::Result<Arrival>> + Send + 'a>>;

/// The window of a stack.
pub(super) struct Window<'a> {
    arrivals: Arrivals<'a>,
    /// The stack ends with the command, and its queues with it.
    _tail: Tail,
}

impl<'a> Window<'a> {
    /// Subscribes to everything that the stack publishes.
    pub(super) async fn open(aws: &'a Aws, stack: &Stack) -> anyhow::Result<Self> {
        let tail = Tail::claim(stack, &[Topic::Events, Topic::Alerts])?;
        Ok(Self { arrivals: Box::pin(tail.open(aws).await?), _tail: tail })
    }

    /// Prints the messages until an error, and passes them on to the console.
    pub(super) async fn show(mut self, sink: &mut Sink, feed: &Feed) -> anyhow::Result<()> {
        let mut lines = Lines::new(true, false);
        loop {
            let arrival = tokio::select! {
                arrival = self.arrivals.try_next() => arrival?.context("the queues have ended")?,
                arrival = sink.arrival() => {
                    let message = Message::Target(arrival?);
                    Arrival { at: OffsetDateTime::now_utc(), message }
                }
            };
            print(lines.format(&arrival));
            feed.push(&arrival);
        }
    }
}
