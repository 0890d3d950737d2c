//! The parts of a stack, as read from AWS. None of them is a secret.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use shared::{problems::Problems, sites::token_end::TokenEnd, state::SiteState};
use time::{OffsetDateTime, serde::rfc3339};

use crate::{
    aws::{Aws, Location},
    log,
    stack::{Condition, Stack},
    state_table::{self, StoredSites},
    subscriptions::Subscribers,
    targets::{self, TargetReading},
};

/// Parameter of the template with the hours after which an alarm reports that no run succeeded.
const MAX_HOURS_SETTING: &str = "AlarmAfterHoursWithoutSuccess";

/// Default of that parameter.
const DEFAULT_MAX_HOURS: u64 = 3;

/// How far back to look for the last run and the last event.
pub(in crate::commands) const LOOKBACK: Duration = Duration::from_secs(24 * 3600);

/// How far back to look for an event at first. A busy receiver has many lines in its log, and the newest is enough.
const FIRST_LOOKBACK: Duration = Duration::from_secs(10 * 60);

/// Everything that an overview needs.
#[derive(Debug)]
pub(in crate::commands) struct Readings {
    pub(in crate::commands) stack: StackReading,
    pub(in crate::commands) alarms: Vec<Alarm>,
    pub(in crate::commands) sites: Vec<SiteReading>,
    pub(in crate::commands) last_event: Option<LastEvent>,
    pub(in crate::commands) last_run: Option<LastRun>,
    pub(in crate::commands) subscribers: Subscribers,
    pub(in crate::commands) targets: Vec<TargetReading>,
}

/// The stack itself.
#[derive(Clone, Debug, Serialize)]
pub(in crate::commands) struct StackReading {
    pub(in crate::commands) name: String,
    pub(in crate::commands) state: String,
    /// `None` before 0.1.0.
    pub(in crate::commands) version: Option<String>,
    pub(in crate::commands) account: String,
    pub(in crate::commands) region: String,
    #[serde(skip)]
    pub(in crate::commands) condition: Condition,
    /// The time without a run that is too long.
    #[serde(skip)]
    pub(in crate::commands) max_time_without_run: Duration,
    #[serde(skip)]
    pub(in crate::commands) created_at: Option<OffsetDateTime>,
}

/// An alarm of the stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::commands) struct Alarm {
    pub(in crate::commands) name: String,
    /// `OK`, `ALARM` or `INSUFFICIENT_DATA`.
    pub(in crate::commands) state: String,
    /// CloudWatch's reason for the state.
    pub(in crate::commands) reason: String,
    /// The problem, the effect and the fix.
    #[serde(skip)]
    pub(in crate::commands) description: String,
}

/// A declared site.
#[derive(Clone, Debug, Serialize)]
pub(in crate::commands) struct SiteReading {
    pub(in crate::commands) name: String,
    /// Open problems, and since when, as of the last run.
    pub(in crate::commands) problems: Problems,
    /// When its token ends, if the last run knew.
    pub(in crate::commands) token_ends: Option<TokenEnd>,
}

/// The newest delivery that the receiver published.
#[derive(Clone, Debug, Serialize)]
pub(in crate::commands) struct LastEvent {
    #[serde(with = "rfc3339")]
    pub(in crate::commands) at: OffsetDateTime,
    pub(in crate::commands) site: String,
    pub(in crate::commands) event: String,
}

/// The newest run that may have changed something.
#[derive(Clone, Debug, Serialize)]
pub(in crate::commands) struct LastRun {
    #[serde(with = "rfc3339")]
    pub(in crate::commands) at: OffsetDateTime,
    pub(in crate::commands) action: String,
    pub(in crate::commands) succeeded: bool,
    pub(in crate::commands) message: String,
    /// All members of its line in the log.
    #[serde(skip)]
    pub(in crate::commands) line: Value,
}

impl Readings {
    /// Reads everything, side by side. Returns the sites' state besides.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub(in crate::commands) async fn read(
        aws: &Aws,
        stack: &Stack,
        now: OffsetDateTime,
    ) -> anyhow::Result<(Self, StoredSites)> {
        let (location, alarms, names, stored, last_event, last_run, subscribers, targets) = tokio::try_join!(
            aws.location(),
            alarms(aws, stack),
            declared(aws, stack),
            async { state_table::sites(aws, stack.output("StateTableName")?).await },
            last_event(aws, stack, now),
            last_run(aws, stack, now),
            Subscribers::read(aws, stack),
            targets::read(aws, stack, now),
        )?;
        let targets = targets.iter().map(|target| target.reading(stack)).collect();
        let sites = names.into_iter().map(|name| {
            let state = stored.states.get(&name).and_then(Option::as_ref);
            let problems = state.map(|SiteState { problems, alerting, .. }| {
                problems.iter().chain(alerting).map(|(key, since)| (key.clone(), *since)).collect()
            });
            let token_ends = stored.token_ends.get(&name).copied();
            SiteReading { name, problems: problems.unwrap_or_default(), token_ends }
        });
        let sites = sites.collect();
        let stack = StackReading::of(stack, location);
        Ok((Self { stack, alarms, sites, last_event, last_run, subscribers, targets }, stored))
    }
}

impl StackReading {
    fn of(stack: &Stack, Location { account, region }: Location) -> Self {
        let hours = stack.setting(MAX_HOURS_SETTING).and_then(|hours| hours.parse().ok()).unwrap_or(DEFAULT_MAX_HOURS);
        Self {
            name: stack.name().to_owned(),
            state: stack.state().to_owned(),
            version: stack.output("Version").ok().map(str::to_owned),
            account,
            region,
            condition: stack.condition(),
            max_time_without_run: Duration::from_secs(hours.saturating_mul(3600)),
            created_at: stack.created_at(),
        }
    }
}

/// Reads the stack's alarms, raised ones first.
async fn alarms(aws: &Aws, stack: &Stack) -> anyhow::Result<Vec<Alarm>> {
    let prefix = format!("{}-", stack.name());
    let query = "MetricAlarms[].[StateValue, AlarmName, StateReason, AlarmDescription]";
    let alarms = aws.json(&["cloudwatch", "describe-alarms", "--alarm-name-prefix", &prefix, "--query", query]).await?;
    let alarms = alarms.as_array().into_iter().flatten().map(|alarm| {
        let text = |index: usize| alarm[index].as_str().unwrap_or_default().to_owned();
        Alarm { state: text(0), name: text(1), reason: text(2), description: text(3) }
    });
    let mut alarms: Vec<_> = alarms.collect();
    alarms.sort_by(|a, b| (!a.is_raised(), &a.name).cmp(&(!b.is_raised(), &b.name)));
    Ok(alarms)
}

impl Alarm {
    pub(in crate::commands) fn is_raised(&self) -> bool {
        self.state == "ALARM"
    }
}

/// Lists the names of the declared sites, without their entries.
async fn declared(aws: &Aws, stack: &Stack) -> anyhow::Result<Vec<String>> {
    let path = stack.output("SitesPath")?;
    let list = ["ssm", "get-parameters-by-path", "--path", path, "--query", "Parameters[].Name"];
    let names = aws.json(&list).await?;
    let names = names.as_array().context("no list of parameters")?.iter().filter_map(Value::as_str);
    let mut names: Vec<_> = names.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()).collect();
    names.sort();
    Ok(names)
}

/// Reads the newest delivery from the receiver's log. The metric would have no name of a site, and minutes of delay.
async fn last_event(aws: &Aws, stack: &Stack, now: OffsetDateTime) -> anyhow::Result<Option<LastEvent>> {
    let receiver = stack.output("ReceiverName")?;
    for lookback in [FIRST_LOOKBACK, LOOKBACK] {
        let lines = log::lines(aws, receiver, now - lookback, r#"{ $.outcome = "published" }"#).await?;
        if let Some(event) = newest_event(&lines) {
            return Ok(Some(event));
        }
    }
    Ok(None)
}

/// Finds the newest published delivery.
fn newest_event(lines: &Value) -> Option<LastEvent> {
    let published = log::in_json(lines).filter(|(_, line)| line["outcome"] == "published");
    let (at, line) = published.max_by_key(|(at, _)| *at)?;
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    Some(LastEvent { at, site: text("site"), event: text("event") })
}

/// Reads the newest run from the reconciler's log.
async fn last_run(aws: &Aws, stack: &Stack, now: OffsetDateTime) -> anyhow::Result<Option<LastRun>> {
    let lines = log::lines(aws, stack.output("ReconcilerName")?, now - LOOKBACK, "{ $.Succeeded = * }").await?;
    Ok(newest_run(&lines))
}

/// Finds the newest line with the metrics of a run. A local cloud returns other lines too.
fn newest_run(lines: &Value) -> Option<LastRun> {
    let runs = log::in_json(lines).filter(|(_, run)| run["Succeeded"].is_number());
    let (at, line) = runs.max_by_key(|(at, _)| *at)?;
    let text = |name: &str, default: &str| line[name].as_str().unwrap_or(default).to_owned();
    let (action, message) = (text("action", "run"), text("message", ""));
    Some(LastRun { at, action, message, succeeded: line["Succeeded"].as_f64() == Some(1.0), line })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_run_and_the_newest_published_delivery_are_found() {
        let event = |event: &str, outcome: &str| json!({ "outcome": outcome, "site": "a", "event": event }).to_string();
        let lines = json!([
            [1000, json!({ "message": "it failed", "action": "apply", "Succeeded": 0.0 }).to_string()],
            [500, json!({ "Succeeded": 1.0 }).to_string()],
            [2000, "START"],
            [3000, json!({ "message": "another" }).to_string()],
            [4000, event("ViewDeleted", "published")],
            [3500, event("WorkbookCreated", "published")],
            [5000, event("UserDeleted", "undelivered")],
        ]);
        let run = newest_run(&lines).expect("a run");
        assert_eq!(
            (run.at.unix_timestamp(), &*run.action, run.succeeded, &*run.message),
            (1, "apply", false, "it failed")
        );
        let event = newest_event(&lines).expect("an event");
        assert_eq!((event.at.unix_timestamp(), &*event.site, &*event.event), (4, "a", "ViewDeleted"));
        assert!(newest_run(&json!([])).is_none() && newest_event(&json!([])).is_none());
    }
}
