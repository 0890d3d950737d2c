//! Parts of the list and of one event.

use std::time::Duration;

use shared::events::delivery_log::AlertOutcome;

use crate::{
    connection::Connection,
    events::{
        history::History,
        record::{Outcome, Record},
        search::Search,
    },
    stack::Stack,
    steps::with_spinner,
    terminal::{bad, good, print_error, warning},
};

/// Reads the logs. Prints first what a reader should know before it.
pub(super) async fn read(connection: &Connection, lookback: Duration) -> anyhow::Result<(Stack, History)> {
    let stack = connection.stack().await?;
    let search = Search::new(&connection.aws, &stack, lookback).await?;
    search.notes.iter().for_each(|note| print_error(warning(note)));
    let history = with_spinner(History::read(&connection.aws, &stack, search)).await?;
    Ok((stack, history))
}

/// Puts the mark of an event before a text.
pub(super) fn marked(record: &Record, text: &str) -> String {
    if !record.outcome.is_published() && record.outcome != Outcome::Unverified {
        bad(text)
    } else if record.outcome == Outcome::Unverified || record.alert == Some(AlertOutcome::Failed) {
        warning(text)
    } else {
        good(text)
    }
}

/// Formats the outcome of an event and of its alert.
pub(super) fn outcome(record: &Record) -> String {
    let alert = match record.alert {
        Some(AlertOutcome::Sent | AlertOutcome::Duplicate) => ", alert sent",
        Some(AlertOutcome::Failed) => ", alert failed",
        None => "",
    };
    format!("{}{alert}", record.outcome.name())
}

/// Formats the latency of an event, or the delay of one from a job.
pub(super) fn latency(record: &Record) -> String {
    let milliseconds = record.latency_ms.map(|latency| format!("{latency} ms"));
    milliseconds.or(record.delay_s.map(|delay| format!("{delay} s"))).unwrap_or_default()
}
