//! Tableau's errors: JSON, XML, an HTML page of a proxy, or an empty body.

use serde_json::Value;
use shared::redaction::known_secrets::KnownSecrets;

use crate::body;

/// The most characters shown of each text of an error.
pub(crate) const MAX_ERROR_CHARACTERS: usize = 200;

/// The most levels of JSON around an error.
const MAX_DEPTH: usize = 4;

/// Reads an error: its code, if it has one, and its text.
pub(crate) fn read_error(text: &str, secrets: &KnownSecrets) -> (Option<String>, String) {
    // A truncated secret would not be recognized.
    let shown = |text: &str| one_line(&secrets.redacted(text));
    if let Ok(answer) = body::parse(text.as_bytes())
        && let Some((code, error)) = find_error(&answer, MAX_DEPTH)
    {
        let member = |name: &str| shown(error[name].as_str().unwrap_or_default());
        return (Some(code), format!("{}: {}", member("summary"), member("detail")));
    }
    let xml_code = text.split_once("<error code=").and_then(|(_, rest)| rest.get(1..)?.split_once(['"', '\'']));
    let code = xml_code.map(|(code, _)| code.to_owned()).filter(|code| is_code(code));
    // The beginning of a page identifies it.
    let shown = shown(text);
    (code, if shown.is_empty() { "no explanation".to_owned() } else { shown })
}

/// Finds an error with a code, which may be a number.
fn find_error(answer: &Value, depth: usize) -> Option<(String, &Value)> {
    let depth = depth.checked_sub(1)?;
    let code = match &answer["code"] {
        Value::String(code) => Some(code.trim().to_owned()),
        Value::Number(code) => Some(code.to_string()),
        _ => None,
    };
    match (code.filter(|code| is_code(code)), answer) {
        (Some(code), _) => Some((code, answer)),
        (None, Value::Object(members)) => members.values().find_map(|member| find_error(member, depth)),
        (None, Value::Array(items)) => items.iter().find_map(|item| find_error(item, depth)),
        (None, _) => None,
    }
}

/// Whether it is a code of Tableau, which has six digits.
fn is_code(code: &str) -> bool {
    code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the beginning of a text, on one line.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        let space = if line.is_empty() { "" } else { " " };
        line.extend(space.chars().chain(word.chars()).take(MAX_ERROR_CHARACTERS));
        if line.chars().count() >= MAX_ERROR_CHARACTERS {
            break;
        }
    }
    line.chars().take(MAX_ERROR_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(body: &str) -> (Option<String>, String) {
        read_error(body, &KnownSecrets::default())
    }

    #[test]
    fn an_error_is_read_from_any_body() {
        let json = r#"{"error":{"summary":"Resource Not Found","detail":"no such site","code":"404000"}}"#;
        assert_eq!(error(json), (Some("404000".to_owned()), "Resource Not Found: no such site".to_owned()));
        let xml = r#"<tsResponse><error code="401002"><summary>Unauthorized</summary></error></tsResponse>"#;
        assert_eq!(error(xml).0.as_deref(), Some("401002"));
        for json in [
            r#"{"error":{"summary":"S","detail":"D","code":404000}}"#,
            r#"{"error":{"summary":"S","detail":"D","code":" 404000 "}}"#,
            r#"{"tsResponse":{"error":{"summary":"S","detail":"D","code":"404000"}}}"#,
            r#"{"status":500,"errors":[{"code":"x"},{"summary":"S","detail":"D","code":"404000"}]}"#,
        ] {
            assert_eq!(error(json), (Some("404000".to_owned()), "S: D".to_owned()), "{json}");
        }
        let xml = "<error code='401002'/>";
        assert_eq!(error(xml).0.as_deref(), Some("401002"));
        for other in [
            r#"{"code":12}"#,
            r#"{"error":{"code":"ECONNREFUSED"}}"#,
            "<error code=\"",
            "<error code=",
            "<error code=é",
            r#"[[[[[{"code":"401002"}]]]]]"#,
        ] {
            assert_eq!(error(other), (None, other.to_owned()), "{other}");
        }
        let long = "ä ".repeat(100_000);
        assert_eq!(error(&long).1.chars().count(), MAX_ERROR_CHARACTERS);
        assert_eq!(error("<html>\n  Bad gateway"), (None, "<html> Bad gateway".to_owned()));
        assert_eq!(error(""), (None, "no explanation".to_owned()));
    }
}
