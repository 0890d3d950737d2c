//! Stored state, made older: tests need not wait.

use serde_json::Value;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

/// Returns stored JSON as if it had been stored earlier by `time`: every time in it is moved into the past.
///
/// # Errors
///
/// It is not JSON.
pub fn aged(stored: &str, time: Duration) -> anyhow::Result<String> {
    fn shift(value: &mut Value, time: Duration) {
        match value {
            Value::String(text) => {
                if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
                    *text = (at - time).format(&Rfc3339).unwrap_or_default();
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| shift(value, time)),
            Value::Object(members) => members.values_mut().for_each(|value| shift(value, time)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut value: Value = serde_json::from_str(stored)?;
    shift(&mut value, time);
    Ok(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_long_ago_is_older() -> anyhow::Result<()> {
        let stored = r#"{"groups":[{"seen":"2026-05-21T08:15:00Z","sites":"abcdef"}]}"#;
        let older = r#"{"groups":[{"seen":"2026-05-21T08:00:00Z","sites":"abcdef"}]}"#;
        assert_eq!(aged(stored, Duration::minutes(15))?, older);
        Ok(())
    }
}
