//! The window of a running stack: each event, each alert, and each message to a target as it arrives, a line each.

use std::pin::pin;

use anyhow::Context;
use futures_util::{Stream, TryStreamExt};
use time::OffsetDateTime;

use super::sink::Sink;
use crate::{
    commands::console::feed::Feed,
    tail::{Arrival, Message, lines::Lines},
    terminal::print,
};

/// Prints the messages until an error, and passes them on to the console.
pub(super) async fn show(
    arrivals: impl Stream<Item = anyhow::Result<Arrival>>,
    sink: &mut Sink,
    feed: &Feed,
) -> anyhow::Result<()> {
    let (mut arrivals, mut lines) = (pin!(arrivals), Lines::new(true, false));
    loop {
        let arrival = tokio::select! {
            arrival = arrivals.try_next() => arrival?.context("the queues have ended")?,
            arrival = sink.arrival() => Arrival { at: OffsetDateTime::now_utc(), message: Message::Target(arrival?) },
        };
        print(lines.format(&arrival));
        feed.push(&arrival);
    }
}
