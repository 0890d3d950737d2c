//! A function's log in CloudWatch Logs.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;

use crate::aws::Aws;

/// Reads the lines of a function's log since a time that match a filter pattern, as pairs of time and text. A local cloud
/// may return lines that do not match.
///
/// # Errors
///
/// The command fails.
pub async fn lines(aws: &Aws, function: &str, since: OffsetDateTime, pattern: &str) -> anyhow::Result<Value> {
    let group = format!("/aws/lambda/{function}");
    let start_ms = (since.unix_timestamp() * 1000).to_string();
    let filter = ["logs", "filter-log-events", "--log-group-name", &group, "--start-time", &start_ms];
    aws.json(&[&filter[..], &["--filter-pattern", pattern, "--query", "events[].[timestamp, message]"]].concat()).await
}

/// Returns the lines that are JSON, each with its time.
pub fn in_json(lines: &Value) -> impl Iterator<Item = (OffsetDateTime, Value)> {
    lines.as_array().into_iter().flatten().filter_map(|line| {
        // Milliseconds since 1970.
        let at = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(line[0].as_u64()?);
        Some((at, serde_json::from_str(line[1].as_str()?).ok()?))
    })
}
