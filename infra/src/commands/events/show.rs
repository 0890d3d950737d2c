//! `cargo infra events show`: everything that is known of one event.

use anyhow::bail;
use clap::Args;
use shared::{alerts::text::plain, events::id::EventId, sites::commands::infra};
use time::OffsetDateTime;

use super::cells::{latency, marked, outcome, read};
use crate::{
    connection::StackOptions,
    events::{
        lookback::Lookback,
        record::Record,
        rendering::{AlertTexts, Rendering},
        story::{Story, TargetDelivery},
    },
    stack::Stack,
    terminal::{BOLD, columns, json, print, reserve_stdout, styled},
};

/// Shows everything that is known of one event.
///
/// Its alert, its explanation and its end, what became of it at targets, and the text of one that is not published.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  cargo infra events show 9c63a4d1032bb0ef67f67e5c34b46f43 --since 7d")]
pub(super) struct Show {
    /// Identifier of the event, as `cargo infra events` and subscribers show it.
    id: EventId,
    /// How far to look back, in minutes, hours or days: 30m, 24h, 7d.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    since: Lookback,
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
/// The logs cannot be read, or do not have the event.
pub(super) async fn run(arguments: Show) -> anyhow::Result<()> {
    let Show { id, since, json: is_json, options } = arguments;
    if is_json {
        reserve_stdout();
    }
    let connection = options.connect().await?;
    let (stack, history) = read(&connection, since.duration()).await?;
    let Some(story) = history.story(id, OffsetDateTime::now_utc())? else {
        bail!("no event {id} is in the logs of the last {since}. Nothing is known of it. {}", fix(id, &since, &stack));
    };
    if is_json {
        println!("{}", json(&story)?);
    } else {
        lines(&story)?.iter().for_each(print);
    }
    Ok(())
}

/// Returns what to do about an event that was not found.
fn fix(id: EventId, since: &Lookback, stack: &Stack) -> String {
    let kept = stack.setting("LogRetentionDays").and_then(|days| format!("{days}d").parse::<Lookback>().ok());
    let command = |command: String| infra(&command, stack.name());
    match kept.filter(|kept| kept.duration() > since.duration()) {
        Some(kept) => format!("Fix: look further back with `{}`", command(format!("events show {id} --since {kept}"))),
        None => format!(
            "The logs keep no earlier events. Fix: check the identifier in the list of `{}`",
            command(format!("events --since {since}"))
        ),
    }
}

/// Formats what is known.
fn lines(story: &Story) -> anyhow::Result<Vec<String>> {
    let Story { record, failure, explanation, resolution, undelivered, targets, replay, notes } = story;
    let mut lines = vec![marked(record, &format!("{} of {}", plain(&record.event), plain(&record.site)))];
    lines.extend(indented(&columns(&facts(record))));
    let related = [("failure", failure), ("explanation", explanation), ("resolution", resolution)];
    let related = related.into_iter().filter_map(|(name, record)| Some(related_row(name, record.as_ref()?)));
    lines.extend(section("The same failure", &columns(&related.collect::<Vec<_>>())));
    lines.extend(section("Targets", &columns(&targets.iter().map(target_row).collect::<Vec<_>>())));
    if let Some(Rendering { envelope, attributes, alert }) = undelivered {
        lines.extend(section("The event, which is not published", &text_lines(&json(envelope)?)));
        lines.extend(section("Its attributes", &text_lines(&json(attributes)?)));
        lines.extend(alert.iter().flat_map(alert_lines));
    }
    lines.push(String::new());
    lines.extend(notes.iter().cloned());
    lines.extend(replay.iter().map(|replay| format!("To publish it: {replay}")));
    Ok(lines)
}

fn facts(record: &Record) -> Vec<[String; 2]> {
    let Record { at, event_id, resource_id, resource_name, attempts, error, job, .. } = record;
    let resource = match (resource_name, resource_id) {
        (Some(name), Some(id)) => format!("{name} ({id})"),
        (name, id) => name.as_ref().or(id.as_ref()).cloned().unwrap_or_default(),
    };
    let time = if *attempts > 1 { format!("{at}, the first of {attempts} attempts") } else { at.to_string() };
    let facts = [
        ("id", event_id.to_string()),
        ("time", time),
        ("resource", resource),
        ("outcome", outcome(record)),
        ("latency", latency(record)),
        ("job", job.clone().unwrap_or_default()),
        ("error", error.clone().unwrap_or_default()),
    ];
    let facts = facts.into_iter().filter(|(_, fact)| !fact.is_empty());
    facts.map(|(name, fact)| [name.to_owned(), plain(&fact)]).collect()
}

fn related_row(name: &str, record: &Record) -> [String; 5] {
    let Record { at, event, event_id, .. } = record;
    [name.to_owned(), at.to_string(), plain(event), outcome(record), event_id.to_string()]
}

fn target_row(delivery: &TargetDelivery) -> [String; 6] {
    let TargetDelivery { target, at, outcome, attempts, status, error, .. } = delivery;
    let attempts = attempts.map(|attempts| format!("attempt {attempts}")).unwrap_or_default();
    let status = status.map(|status| format!("status {status}")).unwrap_or_default();
    let error = error.as_deref().map(plain).unwrap_or_default();
    [plain(target), at.to_string(), plain(outcome), attempts, status, error]
}

fn alert_lines(alert: &AlertTexts) -> Vec<String> {
    let AlertTexts { subject, email, sms, card: _ } = alert;
    let email = format!("Subject: {subject}\n\n{email}");
    let plain_lines = |text: &str| text.lines().map(plain).collect::<Vec<_>>();
    [section("Its alert by e-mail", &plain_lines(&email)), section("Its alert by SMS", &plain_lines(sms))].concat()
}

/// Formats lines under a heading; nothing without lines.
fn section(heading: &str, lines: &[String]) -> Vec<String> {
    if lines.is_empty() {
        return Vec::new();
    }
    [String::new(), styled(BOLD, heading)].into_iter().chain(indented(lines)).collect()
}

fn indented(lines: &[String]) -> impl Iterator<Item = String> {
    lines.iter().map(|line| format!("  {line}").trim_end().to_owned())
}

fn text_lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}
