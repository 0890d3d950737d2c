//! The list of events.

use clap::Args;
use shared::{
    alerts::{phrasing::pluralize, text::plain},
    sites::commands::infra,
};
use time::OffsetDateTime;

use super::cells::{latency, marked, outcome, read};
use crate::{
    connection::StackOptions,
    events::{filter::Filter, history::History, listing::Listing, lookback::Lookback, record::Record},
    terminal::{BOLD, columns, json, print, reserve_stdout, styled},
};

/// The most characters of the column with a resource.
const MAX_RESOURCE: usize = 40;

/// Options of the list.
#[derive(Clone, Debug, Args)]
pub(super) struct List {
    /// How far to look back, in minutes, hours or days: 30m, 24h, 7d.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    since: Lookback,
    #[command(flatten)]
    filter: Filter,
    /// List at most so many events.
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: StackOptions,
}

/// Prints the list.
///
/// # Errors
///
/// The logs cannot be read.
pub(super) async fn run(list: List) -> anyhow::Result<()> {
    let List { since, filter, limit, json: is_json, options } = list;
    if is_json {
        reserve_stdout();
    }
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
    print(format!("For all that is known of one: {}", infra(&format!("events show ID --since {since}"), stack.name())));
    Ok(())
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

fn row(record: &Record) -> [String; 7] {
    let Record { at, site, event, event_id, resource_id, resource_name, .. } = record;
    let resource = resource_name.as_ref().or(resource_id.as_ref()).map(|name| plain(name)).unwrap_or_default();
    let resource = match resource.char_indices().nth(MAX_RESOURCE) {
        Some((end, _)) => format!("{}…", &resource[..end]),
        None => resource,
    };
    [at.to_string(), plain(site), plain(event), resource, outcome(record), latency(record), event_id.to_string()]
}
