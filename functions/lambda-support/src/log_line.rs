//! The format of every line of a function's log.

use std::io::{self, Write};

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::Level;

/// Takes a line of a log.
pub(crate) type Writer = Box<dyn Fn(&str) + Send + Sync>;

/// A line: the members that all lines have, under the names that Lambda reads, and the line's own.
///
/// Lambda adds a time to a line that has no `timestamp` in RFC 3339, and counts one without a `level` as INFO (AWS Lambda
/// developer guide, "Log-level filtering").
#[derive(Serialize)]
struct LogLine<'a, F> {
    timestamp: String,
    level: &'static str,
    #[serde(rename = "requestId", skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(flatten)]
    fields: &'a F,
}

/// Returns a line. A line of a start has no request id.
#[expect(clippy::expect_used, reason = "fields under fixed names can always be written as JSON")]
pub(crate) fn log_line(
    at: OffsetDateTime,
    level: Level,
    request_id: Option<&str>,
    message: Option<&str>,
    fields: &impl Serialize,
) -> String {
    let timestamp = at.truncate_to_millisecond().format(&Rfc3339).unwrap_or_default();
    let line = LogLine { timestamp, level: level.as_str(), request_id, message, fields };
    serde_json::to_string(&line).expect("a line is JSON")
}

/// Returns a writer to standard output, which Lambda sends to CloudWatch Logs.
pub(crate) fn stdout() -> Writer {
    Box::new(|line| {
        // A log that cannot be written has no place for the error.
        let _ = writeln!(io::stdout().lock(), "{line}");
    })
}
