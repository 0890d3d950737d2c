//! `cargo infra status`: shows the state of a stack and its sites.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    aws::Aws,
    log, reconciler,
    stack::Stack,
    steps::{show, step},
    target::Target,
};

mod recovery;
mod version;

/// How far back to look for the last run. Schedules mostly run at least once a day.
const LOOKBACK: Duration = Duration::from_secs(24 * 3600);

/// Metrics of a run and their names in the output, the most important first.
const COUNTS: [(&str, &str); 11] = [
    ("SitesFailed", "sites failed"),
    ("WebhooksCreated", "created"),
    ("WebhooksUpdated", "moved"),
    ("WebhooksDisabled", "enabled again"),
    ("WebhooksDeleted", "deleted"),
    ("TestsFailed", "tests failed"),
    ("Recovered", "refreshes recovered"),
    ("Explained", "failures explained"),
    ("NotRecovered", "not recovered"),
    ("RecoveryPending", "left to the next run"),
    ("AlertsFailed", "alerts failed"),
];

/// Shows the stack, its alarms, the last run, the recovery of missed refreshes, and the changes that the reconciler would
/// make. Changes nothing.
#[derive(Clone, Debug, Args)]
pub struct Status {
    #[command(flatten)]
    target: Target,
}

/// Runs the command.
///
/// # Errors
///
/// A part of the status could not be read, or the reconciler reports a site that failed.
pub async fn run(arguments: Status) -> anyhow::Result<()> {
    let connection = arguments.target.connect().await?;
    let aws = &connection.aws;
    let title = format!("Stack {}", connection.name);
    let stack = step(&title, async {
        show(&aws.location().await?.to_string());
        let stack = connection.stack().await?;
        show(&format!("state {}", stack.state()));
        version::lines(&stack).iter().for_each(|line| show(line));
        show(&format!("receiver {}", stack.output("ReceiverUrl")?));
        Ok(stack)
    });
    let stack = stack.await?;
    step("Alarms", alarms(aws, &stack)).await?;
    step("Last run that may have changed something", last_run(aws, &stack)).await?;
    let sites = step("Recovery of missed refreshes", async {
        let sites = declared(aws, &stack).await?;
        recovery::lines(aws, &stack, &sites, LOOKBACK).await?.iter().for_each(|line| show(line));
        Ok(sites)
    })
    .await?;
    // Last, since this step fails when a site has a problem.
    step("Sites and their registrations, as the reconciler finds them now", async {
        match sites.as_slice() {
            [] => show("no site is declared. To add one: cargo infra add-site"),
            names => show(&format!("declared under {}: {}", stack.output("SitesPath")?, names.join(", "))),
        }
        reconciler::run(aws, &stack, "plan", &[]).await
    })
    .await
    .map(drop)
}

/// Shows the stack's alarms, raised ones first.
async fn alarms(aws: &Aws, stack: &Stack) -> anyhow::Result<()> {
    let prefix = format!("{}-", stack.name());
    let query = "MetricAlarms[].[StateValue, AlarmName, StateReason]";
    let alarms = aws.json(&["cloudwatch", "describe-alarms", "--alarm-name-prefix", &prefix, "--query", query]).await?;
    let mut alarms: Vec<_> = alarms.as_array().into_iter().flatten().collect();
    alarms.sort_by_key(|alarm| (alarm[0] != "ALARM", alarm[1].as_str()));
    if alarms.is_empty() {
        show("none");
    }
    for alarm in alarms {
        let text = |index: usize| alarm[index].as_str().unwrap_or_default();
        let reason = if text(0) == "ALARM" { format!(": {}", text(2)) } else { String::new() };
        show(&format!("{:17} {}{reason}", text(0), text(1)));
    }
    Ok(())
}

/// Shows the newest run in the log.
async fn last_run(aws: &Aws, stack: &Stack) -> anyhow::Result<()> {
    let since = OffsetDateTime::now_utc() - LOOKBACK;
    let lines = log::lines(aws, stack.output("ReconcilerName")?, since, "{ $.Succeeded = * }").await?;
    match newest_run(&lines) {
        Some((at, run)) => show(&format_run(at, &run)),
        None => show(&format!("none in the last {} h", LOOKBACK.as_secs() / 3600)),
    }
    Ok(())
}

/// Finds the newest line with the metrics of a run. A local cloud returns other lines too.
fn newest_run(lines: &Value) -> Option<(OffsetDateTime, Value)> {
    log::in_json(lines).filter(|(_, run)| run["Succeeded"].is_number()).max_by_key(|(at, _)| *at)
}

fn format_run(at: OffsetDateTime, run: &Value) -> String {
    let count = |name: &str| run[name].as_f64().unwrap_or_default();
    let time = at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default();
    let counts = COUNTS.iter().filter(|(name, _)| count(name) > 0.0);
    let counts: String = counts.map(|(name, label)| format!(", {} {label}", count(name))).collect();
    let message = run["message"].as_str().unwrap_or_default();
    let action = run["action"].as_str().unwrap_or("run");
    format!("{time} {action}: {message} ({} sites{counts}, {:.1} s)", count("Sites"), count("Duration") / 1000.0)
}

/// Lists the names of the declared sites, without their entries.
async fn declared(aws: &Aws, stack: &Stack) -> anyhow::Result<Vec<String>> {
    let path = stack.output("SitesPath")?;
    let list = ["ssm", "get-parameters-by-path", "--path", path, "--query", "Parameters[].Name"];
    let names = aws.json(&list).await?;
    let names = names.as_array().context("no list of parameters")?.iter().filter_map(Value::as_str);
    Ok(names.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_line_with_metrics_is_formatted() {
        let run = json!({ "message": "not every site is as declared", "action": "apply", "Sites": 3.0, "SitesFailed": 1.0,
            "WebhooksDisabled": 2.0, "Succeeded": 0.0, "Duration": 2345.6 });
        let lines = json!([
            [1000, run.to_string()],
            [500, json!({ "Succeeded": 1.0 }).to_string()],
            [2000, "START"],
            [3000, json!({ "message": "another" }).to_string()]
        ]);
        let (at, run) = newest_run(&lines).expect("a run");
        assert_eq!(
            format_run(at, &run),
            "1970-01-01T00:00:01Z apply: not every site is as declared (3 sites, 1 sites failed, 2 enabled again, 2.3 s)"
        );
        assert!(newest_run(&json!([])).is_none());
    }
}
