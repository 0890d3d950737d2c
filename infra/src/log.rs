//! A function's log in CloudWatch Logs.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;

use crate::aws::{Aws, has_code};

/// The most lines in one answer of CloudWatch Logs. A local cloud leaves out the later ones, without a token for them.
const MAX_LINES: usize = 10_000;

/// Returns the name of a function's log group.
pub fn group(function: &str) -> String {
    format!("/aws/lambda/{function}")
}

/// Reads the lines of a function's log since a time that match a filter pattern, as pairs of time and text. A local cloud
/// may return lines that do not match.
///
/// # Errors
///
/// The command fails.
pub async fn lines(aws: &Aws, function: &str, since: OffsetDateTime, pattern: &str) -> anyhow::Result<Value> {
    let (group, mut start_ms) = (group(function), since.unix_timestamp() * 1000);
    let mut all = Vec::new();
    loop {
        let start = start_ms.to_string();
        let filter = ["logs", "filter-log-events", "--log-group-name", &group, "--start-time", &start];
        let query = ["--filter-pattern", pattern, "--query", "events[].[timestamp, message]"];
        let Value::Array(lines) = aws.json(&[&filter[..], &query].concat()).await? else { break };
        let last_ms = lines.last().and_then(|line| line[0].as_i64());
        let is_cut = aws.endpoint().is_some() && lines.len() == MAX_LINES;
        all.extend(lines);
        // The next answer has all lines of the last millisecond, unless that has too many for any answer.
        let Some(last_ms) = last_ms.filter(|last_ms| is_cut && *last_ms > start_ms) else { break };
        all.retain(|line| line[0].as_i64() != Some(last_ms));
        start_ms = last_ms;
    }
    Ok(Value::Array(all))
}

/// Reads the lines as [`lines`] does. `None` if the function has no log: it never ran, or an earlier release has no such
/// function.
///
/// # Errors
///
/// The command fails.
pub async fn lines_if_any(
    aws: &Aws,
    function: &str,
    since: OffsetDateTime,
    pattern: &str,
) -> anyhow::Result<Option<Value>> {
    match lines(aws, function, since, pattern).await {
        Err(error) if has_code(&error, "ResourceNotFoundException") => Ok(None),
        lines => lines.map(Some),
    }
}

/// Returns the lines that are JSON, each with its time.
pub fn in_json(lines: &Value) -> impl Iterator<Item = (OffsetDateTime, Value)> {
    lines.as_array().into_iter().flatten().filter_map(|line| {
        // Milliseconds since 1970.
        let at = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(line[0].as_u64()?);
        Some((at, serde_json::from_str(line[1].as_str()?).ok()?))
    })
}
