//! `cargo infra simulate`: plays the users of the local stack's Tableau and AWS.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use shared::events::catalogue::Event;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use self::{tableau::Tableau, topic::Topic};
use crate::{
    aws::shell_quoted,
    cloud::STACK,
    local_files::{RunningStack, SITE_ENTRY},
    stack_name::StackName,
    terminal::{good, next, print, warning},
};

mod tableau;
mod topic;

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

#[derive(Debug, Subcommand)]
enum Action {
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
        refresh: Refresh,
        /// Tableau's reason.
        #[arg(long, default_value = "[Microsoft][ODBC Driver 17 for SQL Server] Login failed for user 'etl'.")]
        reason: String,
    },
    /// Extract refreshes succeed.
    SucceedRefresh {
        #[command(flatten)]
        refresh: Refresh,
    },
    /// Tableau disables the webhook for an event, as after four failed attempts.
    Disable {
        #[command(flatten)]
        webhook: Webhook,
        /// Tableau's reason.
        #[arg(long)]
        reason: Option<String>,
    },
    /// An administrator deletes the webhook for an event.
    Delete {
        #[command(flatten)]
        webhook: Webhook,
    },
    /// An administrator gives the webhook for an event another name.
    Rename {
        #[command(flatten)]
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
        days: Option<i64>,
    },
    /// An administrator creates another token. Writes a site entry with it.
    NewToken,
    /// The events topic is deleted, so that the receiver cannot publish.
    BreakTopic,
    /// The events topic comes back, with its subscriptions.
    RestoreTopic,
}

#[derive(Debug, Args)]
struct Refresh {
    /// The kind of resource.
    #[arg(long, default_value = "workbook")]
    kind: Kind,
    /// Its name. With --count a number follows.
    #[arg(long, default_value = "Sales")]
    name: String,
    /// Number of refreshes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// How long ago they ended. The reconciler recovers missed events of refreshes that ended 5 minutes ago.
    #[arg(long, value_name = "MINUTES", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=20160))]
    ended_minutes_ago: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Workbook,
    Datasource,
}

#[derive(Debug, Args)]
struct Webhook {
    /// The event.
    #[arg(long)]
    event: Event,
}

/// Runs the command.
///
/// # Errors
///
/// No local stack is running, or it has no such site, webhook or topic.
pub async fn run(arguments: Simulate) -> anyhow::Result<()> {
    let Simulate { action, site, stack, files } = arguments;
    let running = RunningStack::find(files)?;
    let mut entry: Value = serde_json::from_str(&running.read(SITE_ENTRY)?).context("the site entry is no JSON")?;
    if let Some(site) = site {
        entry["site"] = site.into();
    }
    let text = |member: &str| entry[member].as_str().unwrap_or_default().to_owned();
    let tableau = Tableau::new(&running.simulator, text("site"))?;
    let webhook = |webhook: Webhook| format!("{stack}-{}", webhook.event);
    match action {
        Action::Publish { name, event } => publish(&tableau, &event, &name).await,
        Action::FailRefresh { refresh, reason } => run_refreshes(&tableau, &refresh, Some(&reason)).await,
        Action::SucceedRefresh { refresh } => run_refreshes(&tableau, &refresh, None).await,
        Action::Disable { webhook: of, reason } => tableau.disable(&webhook(of), reason.as_deref()).await,
        Action::Delete { webhook: of } => tableau.delete(&webhook(of)).await,
        Action::Rename { webhook: of, name } => tableau.rename(&webhook(of), &name).await,
        Action::AddForeign { name, event } => tableau.add_foreign(&name, &event).await,
        Action::ExpireToken { days: None } => tableau.expire_token(&text("token_name")).await,
        Action::ExpireToken { days: Some(days) } => tableau.expire_token_in(&text("token_name"), days).await,
        Action::NewToken => {
            let (name, secret) = (format!("renewed-{}", &Uuid::new_v4().to_string()[..8]), Uuid::new_v4().to_string());
            tableau.add_token(&name, &secret).await?;
            let site = text("site");
            (entry["token_name"], entry["token_secret"]) = (name.as_str().into(), secret.into());
            let file = running.write(SITE_ENTRY, &entry.to_string())?;
            print(good(format!("An administrator created the token {name}. {file} has it.")));
            next(&format!("cargo infra add-site {site} --overwrite < {file}"), "stores it");
            Ok(())
        }
        Action::BreakTopic => Topic::connect(&running, &stack)?.delete().await,
        Action::RestoreTopic => Topic::connect(&running, &stack)?.restore().await,
    }
}

/// Reads a number of days, such as `7d`.
fn days(text: &str) -> Result<i64, &'static str> {
    let days = text.strip_suffix('d').unwrap_or(text).parse().ok();
    days.filter(|days| (1..=3650).contains(days)).ok_or("expected a number of days, such as 7d")
}

async fn publish(tableau: &Tableau, event: &Event, name: &str) -> anyhow::Result<()> {
    let deliveries = tableau.fire(event, name).await?;
    print(good(format!("{event} happened to {name:?} on the site {}.", tableau.site)));
    match Outcome::of(&deliveries, &[event.to_string()]) {
        Outcome::Delivered => print("The receiver published the event."),
        Outcome::Refused => {
            print("Tableau made four attempts, and disabled the webhook. The receiver's log has the event.");
            next("cargo infra replay 1", "publishes it when SNS is back (`cargo infra simulate restore-topic`)");
        }
        Outcome::NoWebhook => {
            next("cargo infra reconcile apply", "registers or enables the webhook. This event is lost")
        }
    }
    Ok(())
}

async fn run_refreshes(tableau: &Tableau, refresh: &Refresh, reason: Option<&str>) -> anyhow::Result<()> {
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
        print(good(format!("The refresh of the {kind} {name:?} {outcome}{because}")));
    }
    let ended = if reason.is_some() { "Failed" } else { "Succeeded" };
    let events = ["Started", ended].map(|stage| format!("{capital}Refresh{stage}"));
    let (when, is_settled) =
        (format!("{} minutes after the refresh", RECOVERED_AFTER), *ended_minutes_ago >= RECOVERED_AFTER);
    match Outcome::of(&deliveries, &events[1..]) {
        Outcome::Delivered if reason.is_some() => {
            print("The receiver published the events, and an alert of each failure.");
            print("Its reason follows within two minutes, in another alert.");
            next(&succeed(refresh), "lets it succeed");
        }
        Outcome::Delivered => {
            print("The receiver published the events.");
            if works_again {
                next(
                    "cargo infra reconcile apply",
                    "says that it works again, if the reason of its failure has arrived",
                );
            }
        }
        Outcome::Refused => next("cargo infra replay 1", "publishes the event when SNS is back"),
        Outcome::NoWebhook if is_settled => {
            next("cargo infra reconcile apply", "recovers the missed events from Tableau's jobs")
        }
        Outcome::NoWebhook => {
            next("cargo infra reconcile apply", &format!("repairs the webhook, and recovers the event {when}"))
        }
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
    /// Prints the answers to the deliveries, and returns the outcome of the last of these events.
    fn of(deliveries: &[Value], events: &[String]) -> Self {
        let mut outcome = Self::NoWebhook;
        for delivery in deliveries {
            let webhook = delivery["webhook"].as_str().unwrap_or_default();
            let statuses: Vec<_> = delivery["attempts"].as_array().into_iter().flatten().map(status).collect();
            let is_accepted = statuses.last().is_some_and(|status| status.starts_with('2'));
            let line = format!("{webhook}: the receiver answered {}", statuses.join(", "));
            print(if is_accepted { good(line) } else { warning(line) });
            if events.iter().any(|event| webhook.ends_with(event.as_str())) {
                outcome = if is_accepted { Self::Delivered } else { Self::Refused };
            }
        }
        if let (Self::NoWebhook, Some(event)) = (&outcome, events.last()) {
            print(warning(format!("Tableau called nobody: no enabled webhook is registered for {event}.")));
        }
        outcome
    }
}

/// Formats the answer to an attempt.
fn status(attempt: &Value) -> String {
    attempt["status"].as_u64().map_or_else(|| "nothing".to_owned(), |status| status.to_string())
}
