//! When the reconciler runs next.

use std::time::Duration;

use serde_json::{Value, json};
use shared::timestamp::Timestamp;
use time::OffsetDateTime;

/// Describes the schedule, with the time before which its next run begins. That time is not known of a `cron` expression.
pub(super) fn next_run(schedule: Option<&str>, last_run: Option<OffsetDateTime>) -> Value {
    let period = schedule.and_then(period);
    let before = last_run.zip(period).and_then(|(at, period)| at.checked_add(period.try_into().ok()?)).map(Timestamp);
    json!({ "schedule": schedule, "at": before })
}

/// Parses the period of a `rate` expression of EventBridge Scheduler, such as `rate(15 minutes)`.
fn period(schedule: &str) -> Option<Duration> {
    let (count, unit) = schedule.strip_prefix("rate(")?.strip_suffix(')')?.trim().split_once(' ')?;
    let seconds = match unit.trim().trim_end_matches('s') {
        "minute" => 60,
        "hour" => 3600,
        "day" => 24 * 3600,
        _ => return None,
    };
    Some(Duration::from_secs(count.parse::<u64>().ok()?.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_next_run_of_a_rate_follows_the_last_run() {
        let last = datetime!(2026-05-21 08:00 UTC);
        for (schedule, expected) in [
            ("rate(15 minutes)", json!("2026-05-21T08:15:00Z")),
            ("rate(1 hour)", json!("2026-05-21T09:00:00Z")),
            ("rate(2 days)", json!("2026-05-23T08:00:00Z")),
            ("cron(0 8 * * ? *)", Value::Null),
            ("rate(many minutes)", Value::Null),
            ("rate(99999999999 days)", Value::Null),
        ] {
            assert_eq!(next_run(Some(schedule), Some(last)), json!({ "schedule": schedule, "at": expected }));
        }
        assert_eq!(next_run(None, Some(last))["at"], Value::Null);
        assert_eq!(next_run(Some("rate(15 minutes)"), None)["at"], Value::Null);
    }
}
