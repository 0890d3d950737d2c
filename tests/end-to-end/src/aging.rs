//! Makes stored state older, so that tests need not wait.

use serde_json::Value;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

/// Moves every time in a value into the past.
pub fn age(value: &mut Value, by: Duration) {
    match value {
        Value::String(text) => {
            if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
                *text = (at - by).format(&Rfc3339).unwrap_or_default();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| age(value, by)),
        Value::Object(members) => members.values_mut().for_each(|value| age(value, by)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stored_value_is_older() {
        let mut stored =
            json!({ "checked": "2026-05-21T08:15:00Z", "outages": [{ "event": "WorkbookRefreshFailed" }] });
        age(&mut stored, Duration::minutes(15));
        assert_eq!(stored["checked"], "2026-05-21T08:00:00Z");
    }
}
