//! Details of a stack: every alarm, the counts of the last run, every subscriber, the recovery, and the plan of each site.

use shared::timestamp::Timestamp;

use super::{
    readings::{LOOKBACK, LastRun, Readings},
    recovery,
};
use crate::{
    aws::Aws,
    reconciler,
    stack::Stack,
    state_table::StoredSites,
    steps::{show, step},
};

/// Metrics of a run and their names in the output, the most important first.
const COUNTS: [(&str, &str); 12] = [
    ("SitesFailed", "sites failed"),
    ("WebhooksCreated", "created"),
    ("WebhooksUpdated", "moved"),
    ("WebhooksDisabled", "enabled again"),
    ("WebhooksDeleted", "deleted"),
    ("TestsFailed", "tests failed"),
    ("Recovered", "refreshes recovered"),
    ("Explained", "failures explained"),
    ("Resolved", "failures resolved"),
    ("NotRecovered", "not recovered"),
    ("RecoveryPending", "left to the next run"),
    ("AlertsFailed", "alerts failed"),
];

/// Shows the details.
///
/// # Errors
///
/// A command fails, or the reconciler reports a site that failed.
pub(super) async fn print(aws: &Aws, stack: &Stack, readings: &Readings, stored: &StoredSites) -> anyhow::Result<()> {
    step("Stack", async {
        stack.outputs().for_each(|(name, value)| show(&format!("{name:14}  {value}")));
        Ok(())
    })
    .await?;
    step("Alarms", async {
        for alarm in &readings.alarms {
            let reason = if alarm.is_raised() { format!(": {}", alarm.reason) } else { String::new() };
            show(&format!("{:17} {}{reason}", alarm.state, alarm.name));
        }
        Ok(())
    })
    .await?;
    step("Subscribers", async {
        readings.subscribers.lines().iter().for_each(|line| show(line));
        Ok(())
    })
    .await?;
    step("Last run that may have changed something", async {
        show(&readings.last_run.as_ref().map_or_else(|| "none in the last 24 h".to_owned(), format_run));
        Ok(())
    })
    .await?;
    step("Recovery of missed refreshes", async {
        let sites: Vec<_> = readings.sites.iter().map(|site| site.name.clone()).collect();
        recovery::lines(aws, stack, stored, &sites, LOOKBACK).await?.iter().for_each(|line| show(line));
        Ok(())
    })
    .await?;
    let plan = reconciler::run(aws, stack, "plan", &[]);
    step("Sites and their registrations, as the reconciler finds them now", plan).await.map(drop)
}

fn format_run(LastRun { at, action, message, line, .. }: &LastRun) -> String {
    let count = |name: &str| line[name].as_f64().unwrap_or_default();
    let counts = COUNTS.iter().filter(|(name, _)| count(name) > 0.0);
    let counts: String = counts.map(|(name, label)| format!(", {} {label}", count(name))).collect();
    let time = Timestamp(*at);
    format!("{time} {action}: {message} ({} sites{counts}, {:.1} s)", count("Sites"), count("Duration") / 1000.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn the_counts_of_a_run_are_formatted() {
        let run = LastRun {
            at: OffsetDateTime::UNIX_EPOCH,
            action: "apply".to_owned(),
            succeeded: false,
            message: "not every site is as declared".to_owned(),
            line: json!({ "Sites": 3.0, "SitesFailed": 1.0, "WebhooksDisabled": 2.0, "Duration": 2345.6 }),
        };
        assert_eq!(
            format_run(&run),
            "1970-01-01T00:00:00Z apply: not every site is as declared (3 sites, 1 sites failed, 2 enabled again, 2.3 s)"
        );
    }
}
