//! `cargo infra simulate`: plays the users of the local stack's Tableau and AWS.

use std::{ops::RangeInclusive, path::PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::events::catalogue::Event;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use self::{
    report::{Line, Report},
    tableau::Tableau,
    topic::Topic,
};
use crate::{
    aws::shell_quoted,
    cloud::STACK,
    local_files::{RunningStack, SITE_ENTRY},
    stack_name::StackName,
    terminal::{good, next, print, warning},
};

pub(super) mod report;
mod tableau;
mod topic;

/// The actor on a running stack.
pub(super) struct Simulation<'a> {
    pub(super) running: &'a RunningStack,
    /// Part of the site's address after /site/, unless it is the stack's site.
    pub(super) site: Option<String>,
    /// Name of the stack.
    pub(super) stack: &'a StackName,
}

/// Plays the users and administrators of a simulated Tableau, and an outage.
///
/// Changes what a running `cargo infra local` simulates.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples, while `cargo infra local` is running:
  cargo infra simulate publish
  cargo infra simulate fail-refresh --name Sales")]
pub struct Simulate {
    #[command(subcommand)]
    action: Action,
    /// Part of the site's address after /site/. By default that of the stack's site.
    #[arg(long, global = true)]
    site: Option<String>,
    /// Name of the stack, with which the names of its webhooks begin.
    #[arg(long, global = true, default_value = STACK)]
    stack: StackName,
    /// The folder that `cargo infra local` got with --files.
    #[arg(long, global = true, value_name = "FOLDER")]
    files: Option<PathBuf>,
}

/// An action of somebody or something.
#[derive(Debug, Subcommand, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub(super) enum Action {
    /// A user publishes a workbook, or causes another event.
    Publish {
        /// Name of the workbook or other resource.
        #[arg(long, default_value = "Regional Sales")]
        name: String,
        /// The event.
        #[arg(long, default_value = "WorkbookCreated")]
        event: Event,
    },
    /// Extract refreshes fail.
    FailRefresh {
        #[command(flatten)]
        #[serde(flatten)]
        refresh: Refresh,
        /// Tableau's reason.
        #[arg(long, default_value = "[Microsoft][ODBC Driver 17 for SQL Server] Login failed for user 'etl'.")]
        reason: String,
    },
    /// Extract refreshes succeed.
    SucceedRefresh {
        #[command(flatten)]
        #[serde(flatten)]
        refresh: Refresh,
    },
    /// Tableau disables the webhook for an event, as after four failed attempts.
    Disable {
        #[command(flatten)]
        #[serde(flatten)]
        webhook: Webhook,
        /// Tableau's reason.
        #[arg(long)]
        #[serde(default)]
        reason: Option<String>,
    },
    /// An administrator deletes the webhook for an event.
    Delete {
        #[command(flatten)]
        #[serde(flatten)]
        webhook: Webhook,
    },
    /// An administrator gives the webhook for an event another name.
    Rename {
        #[command(flatten)]
        #[serde(flatten)]
        webhook: Webhook,
        /// The new name.
        #[arg(long)]
        name: String,
    },
    /// An administrator adds a webhook that is not the stack's.
    AddForeign {
        /// Its name.
        #[arg(long, default_value = "Theirs")]
        name: String,
        /// Its event.
        #[arg(long, default_value = "ViewDeleted")]
        event: Event,
    },
    /// The site's token expires.
    ExpireToken {
        /// The days until then. By default it expires now.
        #[arg(long = "in", value_name = "DAYS", value_parser = days)]
        #[serde(default)]
        days: Option<i64>,
    },
    /// An administrator creates another token. Writes a site entry with it.
    NewToken,
    /// The events topic is deleted, so that the receiver cannot publish.
    BreakTopic,
    /// The events topic comes back, with its subscriptions.
    RestoreTopic,
}

#[derive(Debug, Args, Deserialize)]
pub(super) struct Refresh {
    /// The kind of resource.
    #[arg(long, default_value = "workbook")]
    kind: Kind,
    /// Its name. With --count a number follows.
    #[arg(long, default_value = "Sales")]
    name: String,
    /// Number of refreshes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    #[serde(skip, default = "once")]
    count: u16,
    /// How long ago they ended. The reconciler recovers missed events of refreshes that ended 5 minutes ago.
    #[arg(long, value_name = "MINUTES", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=20160))]
    #[serde(skip)]
    ended_minutes_ago: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    Workbook,
    Datasource,
}

#[derive(Debug, Args, Deserialize)]
pub(super) struct Webhook {
    /// The event.
    #[arg(long)]
    event: Event,
}

fn once() -> u16 {
    1
}

/// Runs the command.
///
/// # Errors
///
/// No local stack is running, or it has no such site, webhook or topic.
pub async fn run(arguments: Simulate) -> anyhow::Result<()> {
    let Simulate { action, site, stack, files } = arguments;
    let running = RunningStack::find(files)?;
    let simulation = Simulation { running: &running, site, stack: &stack };
    let mut show = |line: Line| match line {
        Line::Done(text) => print(good(text)),
        Line::Plain(text) => print(text),
        Line::Notable(text) => print(warning(text)),
        Line::Next(command, effect) => next(&command, &effect),
    };
    simulation.carry_out(action, &mut show).await
}

impl Simulation<'_> {
    /// Does what an action says.
    ///
    /// # Errors
    ///
    /// There is no such site, webhook or topic.
    pub(super) async fn carry_out(&self, action: Action, report: Report<'_>) -> anyhow::Result<()> {
        let Self { running, stack, .. } = self;
        let entry = self.entry()?;
        let text = |member: &str| entry[member].as_str().unwrap_or_default().to_owned();
        let tableau = Tableau::new(&running.simulator, text("site"))?;
        let webhook = |webhook: Webhook| format!("{stack}-{}", webhook.event);
        match action {
            Action::Publish { name, event } => publish(&tableau, &event, &name, report).await,
            Action::FailRefresh { refresh, reason } => run_refreshes(&tableau, &refresh, Some(&reason), report).await,
            Action::SucceedRefresh { refresh } => run_refreshes(&tableau, &refresh, None, report).await,
            Action::Disable { webhook: of, reason } => tableau.disable(&webhook(of), reason.as_deref(), report).await,
            Action::Delete { webhook: of } => tableau.delete(&webhook(of), report).await,
            Action::Rename { webhook: of, name } => tableau.rename(&webhook(of), &name, report).await,
            Action::AddForeign { name, event } => tableau.add_foreign(&name, &event, report).await,
            Action::ExpireToken { days: None } => tableau.expire_token(&text("token_name"), report).await,
            Action::ExpireToken { days: Some(days) } => {
                ensure!(
                    DAYS.contains(&days),
                    "a token ends within {} days. Nothing was changed. Fix: name fewer",
                    DAYS.end()
                );
                tableau.expire_token_in(&text("token_name"), days, report).await
            }
            Action::NewToken => {
                let (name, file) = self.new_token(&tableau).await?;
                report(Line::Done(format!("An administrator created the token {name}. {file} has it.")));
                let add = format!("cargo infra add-site {} --overwrite < {file}", text("site"));
                report(Line::Next(add, "stores it".to_owned()));
                Ok(())
            }
            Action::BreakTopic => Topic::connect(running, stack)?.delete(report).await,
            Action::RestoreTopic => Topic::connect(running, stack)?.restore(report).await,
        }
    }

    /// Reads the entry of the site.
    fn entry(&self) -> anyhow::Result<Value> {
        let entry = self.running.read(SITE_ENTRY)?;
        let mut entry: Value = serde_json::from_str(&entry).context("the site entry is no JSON")?;
        if let Some(site) = &self.site {
            entry["site"] = site.as_str().into();
        }
        Ok(entry)
    }

    /// Creates a token, and writes a site entry with it. Returns the token's name, and the path of the entry.
    async fn new_token(&self, tableau: &Tableau) -> anyhow::Result<(String, String)> {
        let (name, secret) = (format!("renewed-{}", &Uuid::new_v4().to_string()[..8]), Uuid::new_v4().to_string());
        tableau.add_token(&name, &secret).await?;
        let mut entry = self.entry()?;
        (entry["token_name"], entry["token_secret"]) = (name.as_str().into(), secret.into());
        let file = self.running.write(SITE_ENTRY, &entry.to_string())?;
        Ok((name, file))
    }
}

/// The days until a token ends.
const DAYS: RangeInclusive<i64> = 1..=3650;

/// Reads a number of days, such as `7d`.
fn days(text: &str) -> Result<i64, &'static str> {
    let days = text.strip_suffix('d').unwrap_or(text).parse().ok();
    days.filter(|days| DAYS.contains(days)).ok_or("expected a number of days, such as 7d")
}

async fn publish(tableau: &Tableau, event: &Event, name: &str, report: Report<'_>) -> anyhow::Result<()> {
    let deliveries = tableau.fire(event, name).await?;
    report(Line::Done(format!("{event} happened to {name:?} on the site {}.", tableau.site)));
    match Outcome::of(&deliveries, &[event.to_string()], report) {
        Outcome::Delivered => report(Line::plain("The receiver published the event.")),
        Outcome::Refused => {
            let effect = "Tableau made four attempts, and disabled the webhook. The receiver's log has the event.";
            report(Line::plain(effect));
            let effect = "publishes it when SNS is back (`cargo infra simulate restore-topic`)";
            report(Line::next("cargo infra replay 1", effect));
        }
        Outcome::NoWebhook => {
            report(Line::next("cargo infra reconcile apply", "registers or enables the webhook. This event is lost"));
        }
    }
    Ok(())
}

async fn run_refreshes(
    tableau: &Tableau,
    refresh: &Refresh,
    reason: Option<&str>,
    report: Report<'_>,
) -> anyhow::Result<()> {
    let Refresh { kind, name, count, ended_minutes_ago } = refresh;
    let (kind, capital) = match kind {
        Kind::Workbook => ("workbook", "Workbook"),
        Kind::Datasource => ("datasource", "Datasource"),
    };
    let outcome = if reason.is_some() { "failed" } else { "succeeded" };
    let ended_at = OffsetDateTime::now_utc() - Duration::minutes(i64::from(*ended_minutes_ago));
    let (mut deliveries, mut works_again) = (Vec::new(), false);
    for number in 1..=*count {
        let name = if *count == 1 { name.clone() } else { format!("{name} {number}") };
        let refresh = json!({
            "site": tableau.site, "kind": kind, "name": name, "outcome": outcome, "notes": reason,
            "ended_at": ended_at.format(&Rfc3339)?,
        });
        let (delivered, ends_failures) = tableau.refresh(&refresh).await?;
        deliveries.extend(delivered);
        works_again |= ends_failures;
        let because = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        report(Line::Done(format!("The refresh of the {kind} {name:?} {outcome}{because}")));
    }
    let ended = if reason.is_some() { "Failed" } else { "Succeeded" };
    let events = ["Started", ended].map(|stage| format!("{capital}Refresh{stage}"));
    let when = format!("{RECOVERED_AFTER} minutes after the refresh");
    let apply = |effect: &str| Line::next("cargo infra reconcile apply", effect);
    match Outcome::of(&deliveries, &events[1..], report) {
        Outcome::Delivered if reason.is_some() => {
            report(Line::plain("The receiver published the events, and an alert of each failure."));
            report(Line::plain("Its reason follows within two minutes, in another alert."));
            report(Line::next(&succeed(refresh), "lets it succeed"));
        }
        Outcome::Delivered => {
            report(Line::plain("The receiver published the events."));
            if works_again {
                report(apply("says that it works again, if the reason of its failure has arrived"));
            }
        }
        Outcome::Refused => report(Line::next("cargo infra replay 1", "publishes the event when SNS is back")),
        Outcome::NoWebhook if *ended_minutes_ago >= RECOVERED_AFTER => {
            report(apply("recovers the missed events from Tableau's jobs"));
        }
        Outcome::NoWebhook => report(apply(&format!("repairs the webhook, and recovers the event {when}"))),
    }
    Ok(())
}

/// Returns the command with which refreshes succeed.
fn succeed(Refresh { kind, name, count, .. }: &Refresh) -> String {
    let mut command = format!("cargo infra simulate succeed-refresh --name {}", shell_quoted(name));
    if *kind == Kind::Datasource {
        command.push_str(" --kind datasource");
    }
    if *count > 1 {
        command.push_str(&format!(" --count {count}"));
    }
    command
}

/// Minutes after its end in which Tableau may still deliver a refresh. Later the reconciler counts it as missed.
const RECOVERED_AFTER: u32 = 5;

/// The fate of an event.
enum Outcome {
    /// The receiver accepted it.
    Delivered,
    /// The receiver accepted none of the attempts.
    Refused,
    /// No enabled webhook is registered for it.
    NoWebhook,
}

impl Outcome {
    /// Reports the answers to the deliveries, and returns the outcome of the last of these events.
    fn of(deliveries: &[Value], events: &[String], report: Report<'_>) -> Self {
        let mut outcome = Self::NoWebhook;
        for delivery in deliveries {
            let webhook = delivery["webhook"].as_str().unwrap_or_default();
            let statuses: Vec<_> = delivery["attempts"].as_array().into_iter().flatten().map(status).collect();
            let is_accepted = statuses.last().is_some_and(|status| status.starts_with('2'));
            let line = format!("{webhook}: the receiver answered {}", statuses.join(", "));
            report(if is_accepted { Line::Done(line) } else { Line::Notable(line) });
            if events.iter().any(|event| webhook.ends_with(event.as_str())) {
                outcome = if is_accepted { Self::Delivered } else { Self::Refused };
            }
        }
        if let (Self::NoWebhook, Some(event)) = (&outcome, events.last()) {
            let line = format!("Tableau called nobody: no enabled webhook is registered for {event}.");
            report(Line::Notable(line));
        }
        outcome
    }
}

/// Formats the answer to an attempt.
fn status(attempt: &Value) -> String {
    attempt["status"].as_u64().map_or_else(|| "nothing".to_owned(), |status| status.to_string())
}
