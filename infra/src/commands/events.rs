//! `cargo infra events`: lists events, and what became of each.

use std::time::Duration;

use clap::{Args, Subcommand};
use shared::{
    alerts::{phrasing::pluralize, text::plain},
    events::delivery_log::AlertOutcome,
    sites::commands::infra,
};
use time::OffsetDateTime;

use crate::{
    connection::{Connection, StackOptions},
    events::{
        filter::Filter,
        history::History,
        listing::Listing,
        lookback::Lookback,
        record::{Outcome, Record},
        search::Search,
    },
    stack::Stack,
    steps::with_spinner,
    terminal::{BOLD, bad, columns, good, json, print, print_error, reserve_stdout, styled, warning},
};

mod show;

/// The most characters of the column with a resource.
const MAX_RESOURCE: usize = 40;

/// Lists the last events of a stack, and what became of each.
///
/// Reads the logs of the functions, and changes nothing.
#[derive(Clone, Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Marks: ✓ published, ! not verified or without its alert, ✗ not published.
Outcomes: published; recovered (from a job, since Tableau did not deliver it); duplicate (published before); undelivered;
too-large; unverified (the signing keys could not be read).
Latency: until SNS had accepted the event; for the events of a job the time since its end.

Examples:
  cargo infra events --since 7d --site marketing --resource sales
  cargo infra events --outcome undelivered
  cargo infra events --json | jq '.events[].event'
  cargo infra events show 9c63a4d1032bb0ef67f67e5c34b46f43"
)]
pub struct Events {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    Show(show::Show),
}

#[derive(Clone, Debug, Args)]
struct List {
    /// How far to look back, in minutes, hours or days: 30m, 24h, 7d.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    since: Lookback,
    /// Only events of this site.
    #[arg(long)]
    site: Option<String>,
    /// Only this event, such as WorkbookRefreshFailed.
    #[arg(long)]
    event: Option<String>,
    /// Only events with this outcome.
    #[arg(long)]
    outcome: Option<Outcome>,
    /// Only events about this resource: a part of its name, or its identifier.
    #[arg(long)]
    resource: Option<String>,
    /// List at most so many events.
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: StackOptions,
}

/// Runs the command.
///
/// # Errors
///
/// The logs cannot be read, or do not have the event to show.
pub async fn run(arguments: Events) -> anyhow::Result<()> {
    match arguments {
        Events { command: Some(Command::Show(show)), .. } => show::run(show).await,
        Events { command: None, list } => run_list(list).await,
    }
}

async fn run_list(list: List) -> anyhow::Result<()> {
    let List { since, site, event, outcome, resource, limit, json: is_json, options } = list;
    if is_json {
        reserve_stdout();
    }
    let filter = Filter { site, event, outcome, resource };
    let connection = options.connect().await?;
    let (stack, history) = read(&connection, since.duration()).await?;
    let now = OffsetDateTime::now_utc();
    let listing = history.listing(&filter, limit, now);
    if is_json {
        println!("{}", json(&listing)?);
        return Ok(());
    }
    let searched = format!("events --since {since}{}", filter.options());
    if listing.total == 0 {
        print(format!("No event found since {}, by `{}`.", listing.since, infra(&searched, stack.name())));
        return Ok(());
    }
    lines(&listing, &history, now).iter().for_each(print);
    let total = pluralize(listing.total, "event", "events");
    if listing.events.len() < listing.total {
        let more = format!("{searched} --limit {}", listing.total);
        print(format!("\n{} of {total}. For more: {}", listing.events.len(), infra(&more, stack.name())));
    } else {
        print(format!("\n{total}."));
    }
    print(format!("For all that is known of one: {}", infra("events show ID", stack.name())));
    Ok(())
}

/// Reads the logs. Prints first what a reader should know before it.
async fn read(connection: &Connection, lookback: Duration) -> anyhow::Result<(Stack, History)> {
    let stack = connection.stack().await?;
    let search = Search::new(&connection.aws, &stack, lookback).await?;
    search.notes.iter().for_each(|note| print_error(warning(note)));
    let history = with_spinner(History::read(&connection.aws, &stack, search)).await?;
    Ok((stack, history))
}

/// Formats the events in aligned columns, with the command for each that can be published.
fn lines(listing: &Listing<'_>, history: &History, now: OffsetDateTime) -> Vec<String> {
    let head = ["time", "site", "event", "resource", "outcome", "latency", "id"].map(str::to_owned);
    let rows: Vec<_> = [head].into_iter().chain(listing.events.iter().map(|record| row(record))).collect();
    let rows = columns(&rows);
    let mut lines: Vec<_> = rows.first().map(|head| styled(BOLD, format!("  {head}"))).into_iter().collect();
    for (record, row) in listing.events.iter().zip(rows.iter().skip(1)) {
        lines.push(marked(record, row));
        lines.extend(history.replay(record, now).map(|replay| format!("  To publish it: {replay}")));
    }
    lines
}

/// Puts the mark of an event before a text.
fn marked(record: &Record, text: &str) -> String {
    if !record.outcome.is_published() && record.outcome != Outcome::Unverified {
        bad(text)
    } else if record.outcome == Outcome::Unverified || record.alert == Some(AlertOutcome::Failed) {
        warning(text)
    } else {
        good(text)
    }
}

fn row(record: &Record) -> [String; 7] {
    let Record { at, site, event, event_id, resource_id, resource_name, .. } = record;
    let resource = resource_name.as_ref().or(resource_id.as_ref()).map(|name| plain(name)).unwrap_or_default();
    let resource = match resource.char_indices().nth(MAX_RESOURCE) {
        Some((end, _)) => format!("{}…", &resource[..end]),
        None => resource,
    };
    [at.to_string(), plain(site), plain(event), resource, outcome(record), latency(record), event_id.to_string()]
}

/// Formats the outcome of an event and of its alert.
fn outcome(record: &Record) -> String {
    let alert = match record.alert {
        Some(AlertOutcome::Sent | AlertOutcome::Duplicate) => ", alert sent",
        Some(AlertOutcome::Failed) => ", alert failed",
        None => "",
    };
    format!("{}{alert}", record.outcome.name())
}

fn latency(record: &Record) -> String {
    let milliseconds = record.latency_ms.map(|latency| format!("{latency} ms"));
    milliseconds.or(record.delay_s.map(|delay| format!("{delay} s"))).unwrap_or_default()
}
