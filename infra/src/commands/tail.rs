//! `cargo infra tail`: events and alerts of a stack, as they arrive.

use std::io::{ErrorKind, Write, stdout};

use anyhow::Context;
use clap::Args;
use futures_util::TryStreamExt;
use serde::Serialize;
use shared::timestamp::Timestamp;

use crate::{
    aws::Aws,
    connection::StackOptions,
    events::filter::Selection,
    interruption::unless_interrupted,
    steps::step,
    tail::{self, Arrival, Message, lines::Lines},
    temporary_queues::{Topic, sweep},
    terminal::{json_line, print, reserve_stdout, write_line},
};

/// Shows events as they arrive, a line each.
///
/// A queue of its own subscribes to the events topic, and is removed at the end. Events that arrive while the command does not
/// run are in `cargo infra events`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  cargo infra tail
  cargo infra tail --site marketing --event WorkbookRefreshFailed --alerts
  cargo infra tail --json | jq .event.envelope")]
pub struct Tail {
    #[command(flatten)]
    selection: Selection,
    /// Show alerts too. `--event` does not apply to them.
    #[arg(long)]
    alerts: bool,
    /// Print each as a JSON object, a line each.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: StackOptions,
}

/// Whether a message is selected. The names of events do not apply to alerts.
fn selects(selection: &Selection, message: &Message) -> bool {
    match message {
        Message::Event(event) => {
            selection.selects(&event.site(), Some(&event.name()), &event.resource_name(), &event.resource_id())
        }
        Message::Alert(alert) => {
            let resource = alert.data.resource.as_ref();
            let name = resource.and_then(|resource| resource.name.as_deref()).unwrap_or_default();
            let id = resource.map_or("", |resource| &resource.id);
            let mut sites =
                alert.data.sites.iter().map(String::as_str).chain(alert.data.sites.is_empty().then_some(""));
            sites.any(|site| selection.selects(site, None, name, id))
        }
        Message::Target(_) | Message::Other(_) => selection.selects("", Some(""), "", ""),
    }
}

/// Runs the command until it is interrupted.
///
/// # Errors
///
/// A command fails, or the queues could not be removed.
pub async fn run(arguments: Tail) -> anyhow::Result<()> {
    let Tail { selection, alerts, json, options } = arguments;
    if json {
        reserve_stdout();
    }
    let connection = options.connect().await?;
    let (aws, stack) = (&connection.aws, connection.stack().await?);
    sweep(aws, &stack).await;
    let topics = if alerts { &[Topic::Events, Topic::Alerts][..] } else { &[Topic::Events] };
    let tail = tail::Tail::claim(&stack, topics)?;
    let format = Format { lines: Lines::new(alerts, true), json };
    let result = unless_interrupted(follow(aws, &tail, &selection, format)).await;
    let title =
        if alerts { "Remove the queues and their subscriptions" } else { "Remove the queue and its subscription" };
    let removed = step(title, tail.close(aws)).await;
    result?.unwrap_or(Ok(())).and(removed)
}

/// Prints what arrives, until nobody reads it.
async fn follow(aws: &Aws, tail: &tail::Tail, selection: &Selection, mut format: Format) -> anyhow::Result<()> {
    let mut arrivals = step("Subscribe to what the stack publishes, for this command only", tail.open(aws)).await?;
    print("Waiting for events. Ctrl-C ends this command.");
    while let Some(arrival) = arrivals.try_next().await? {
        if selects(selection, &arrival.message) && !format.print(&arrival)? {
            break;
        }
    }
    Ok(())
}

/// The form of the output.
struct Format {
    lines: Lines,
    json: bool,
}

/// An arrival for a program.
#[derive(Serialize)]
struct Arrived<'a> {
    at: Timestamp,
    kind: &'static str,
    #[serde(flatten)]
    message: &'a Message,
}

impl Format {
    /// Prints an arrival. Returns whether there is still a reader.
    fn print(&mut self, arrival: &Arrival) -> anyhow::Result<bool> {
        let written = if self.json {
            let Arrival { at, message } = arrival;
            let arrived = Arrived { at: Timestamp(*at), kind: message.kind(), message };
            writeln!(stdout(), "{}", json_line(&arrived)?)
        } else {
            write_line(&self.lines.format(arrival))
        };
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| true).context("the output cannot be written"),
        }
    }
}
