//! The logs to search for events, and how much there is to read.

use std::time::Duration;

use serde_json::Value;
use shared::alerts::phrasing::pluralize;
use time::OffsetDateTime;

use crate::{
    aws::{Aws, is_denied},
    log,
    stack::Stack,
    target_stack,
};

/// The bytes above which the size of a search is announced.
const LARGE: u64 = 1 << 30;

/// How many bytes are read in a second. CloudWatch Logs answers `FilterLogEvents` with at most 1 MB, and a call over a
/// region's network takes some 0.2 s. The AWS CLI makes one call after another.
const BYTES_PER_SECOND: u64 = 5 << 20;

/// The seconds of a day.
const DAY: u64 = 24 * 3600;

/// The logs of a stack since a time.
#[derive(Debug)]
pub struct Search {
    /// The first moment.
    pub since: OffsetDateTime,
    receiver: String,
    reconciler: String,
    forwarder: String,
    /// Remarks for a reader, before the logs are read.
    pub notes: Vec<String>,
}

/// The lines of the three functions.
pub(super) struct Lines {
    pub(super) receiver: Value,
    pub(super) reconciler: Value,
    pub(super) forwarder: Value,
}

/// A log group.
#[derive(Debug)]
struct Group {
    bytes: u64,
    age: Duration,
    /// How long it keeps a line; `None` for ever.
    retention: Option<Duration>,
}

impl Search {
    /// Prepares a search: finds the logs, their size and their retention.
    ///
    /// # Errors
    ///
    /// A command fails, or the stack is another one.
    pub async fn new(aws: &Aws, stack: &Stack, lookback: Duration) -> anyhow::Result<Self> {
        let now = OffsetDateTime::now_utc();
        let name = |output| stack.output(output).map(str::to_owned);
        let (receiver, reconciler) = (name("ReceiverName")?, name("ReconcilerName")?);
        let forwarder = target_stack::forwarder(stack.name());
        let groups = log::group(stack.name()) + "-";
        let query = "logGroups[].[logGroupName, storedBytes, retentionInDays, creationTime]";
        let describe = ["logs", "describe-log-groups", "--log-group-name-prefix", &groups, "--query", query];
        let notes = match aws.json(&describe).await {
            Ok(found) => {
                let wanted = [&receiver, &reconciler, &forwarder].map(|function| log::group(function));
                notes(&groups_of(&found, &wanted, now), lookback)
            }
            Err(error) if is_denied(&error) => {
                vec![
                    "The size of the logs is not known: logs:DescribeLogGroups is denied. The search may take long."
                        .to_owned(),
                ]
            }
            Err(error) => return Err(error),
        };
        Ok(Self { since: now - lookback, receiver, reconciler, forwarder, notes })
    }

    /// Reads the lines about events.
    pub(super) async fn lines(&self, aws: &Aws) -> anyhow::Result<Lines> {
        let read = async |function: &str, pattern: &str| {
            let lines = log::lines_if_any(aws, function, self.since, pattern).await?;
            anyhow::Ok(lines.unwrap_or_default())
        };
        let (receiver, reconciler, forwarder) = tokio::try_join!(
            read(&self.receiver, "{ $.outcome = * }"),
            read(&self.reconciler, "{ $.event_id = * }"),
            read(&self.forwarder, "{ $.event_id = * }"),
        )?;
        Ok(Lines { receiver, reconciler, forwarder })
    }
}

/// Reads the described log groups that are wanted.
fn groups_of(found: &Value, wanted: &[String], now: OffsetDateTime) -> Vec<Group> {
    let groups = found.as_array().into_iter().flatten();
    let groups = groups.filter(|group| wanted.iter().any(|name| group[0] == name.as_str()));
    let group = |group: &Value| {
        let created = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(group[3].as_u64().unwrap_or_default());
        Group {
            bytes: group[1].as_u64().unwrap_or_default(),
            age: (now - created).try_into().unwrap_or_default(),
            retention: group[2].as_u64().map(|days| Duration::from_secs(days * DAY)),
        }
    };
    groups.map(group).collect()
}

/// Returns what a reader should know before the search.
fn notes(groups: &[Group], lookback: Duration) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(kept) = groups.iter().filter_map(|group| group.retention).min().filter(|kept| *kept < lookback) {
        let days = usize::try_from(kept.as_secs() / DAY).unwrap_or(usize::MAX);
        notes.push(format!("The logs keep {}, so earlier events are not found.", pluralize(days, "day", "days")));
    }
    let bytes = groups.iter().map(|group| group.bytes_since(lookback)).fold(0, u64::saturating_add);
    if bytes > LARGE {
        notes.push(format!(
            "About {} GB of logs are searched. CloudWatch Logs does not charge for it. It takes about {}.",
            bytes.div_ceil(LARGE),
            pluralize(
                usize::try_from(bytes.div_ceil(BYTES_PER_SECOND * 60)).unwrap_or(usize::MAX),
                "minute",
                "minutes"
            ),
        ));
    }
    notes
}

impl Group {
    /// Estimates the bytes of a time until now, as if the lines were spread evenly.
    fn bytes_since(&self, lookback: Duration) -> u64 {
        let Self { bytes, age, retention } = self;
        let kept = retention.map_or(*age, |retention| retention.min(*age)).as_secs().max(1);
        let share = u128::from(lookback.as_secs().min(kept));
        u64::try_from(u128::from(*bytes) * share / u128::from(kept)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    /// Returns the notes about a search of the log `/a`, which began 60 days ago.
    fn notes_of(bytes: u64, retention: Option<u64>, lookback_days: u64) -> Vec<String> {
        let now = datetime!(2026-05-21 08:00 UTC);
        let created_ms = (now - Duration::from_secs(60 * DAY)).unix_timestamp() * 1000;
        let found = json!([["/a", bytes, retention, created_ms], ["/other", 100 * LARGE, 1, created_ms]]);
        notes(&groups_of(&found, &["/a".to_owned()], now), Duration::from_secs(lookback_days * DAY))
    }

    #[test]
    fn a_large_search_is_announced_with_its_size_and_time() {
        assert_eq!(notes_of(LARGE, None, 60), [""; 0]);
        let size =
            "About 4 GB of logs are searched. CloudWatch Logs does not charge for it. It takes about 14 minutes.";
        assert_eq!(notes_of(60 * LARGE, None, 4), [size]);
        // A log that keeps 30 days has its bytes in them.
        assert_eq!(notes_of(30 * LARGE, Some(30), 4), [size]);
        assert_eq!(notes_of(0, None, 4), [""; 0]);
    }

    #[test]
    fn a_search_beyond_the_retention_says_how_far_the_logs_reach() {
        assert_eq!(notes_of(1, Some(30), 30), [""; 0]);
        assert_eq!(notes_of(1, Some(7), 30), ["The logs keep 7 days, so earlier events are not found."]);
    }
}
