//! Secrets in answers: a server may quote those that it received. Hides them before an answer is read.

use serde_json::Value;
use shared::{redaction::known_secrets::KnownSecrets, registration::signed_url::RegistrationUrl};

/// The most bytes kept of a text. [`crate::wire`] reads fewer, and searching a text takes more than a hundred times its size
/// in memory.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// Adds the secrets that an answer holds in their own members to the known ones, and hides all known ones in every other.
pub(crate) fn hide(answer: &mut Value, secrets: &mut KnownSecrets) {
    each_text(answer, "", &mut |place, text| match place {
        Some(Place::Session) => secrets.learn_session(text),
        Some(Place::Address) => secrets.learn_address(&RegistrationUrl::observed(text.clone())),
        None => {}
    });
    each_text(answer, "", &mut |place, text| {
        if place.is_none() {
            text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
            let redacted = secrets.redacted(text);
            if redacted != *text {
                *text = redacted.into_owned();
            }
        }
    });
}

/// A member whose value is a secret. Its reader shows it nowhere.
#[derive(Clone, Copy)]
enum Place {
    Session,
    Address,
}

impl Place {
    fn of(object: &str, member: &str) -> Option<Self> {
        match (object, member) {
            ("credentials", "token") => Some(Self::Session),
            ("webhook-destination-http", "url") => Some(Self::Address),
            _ => None,
        }
    }
}

/// Calls `call` with every text of an answer. `name` is the name of the member that holds the answer.
fn each_text(answer: &mut Value, name: &str, call: &mut impl FnMut(Option<Place>, &mut String)) {
    match answer {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => call(None, text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, name, call)),
        Value::Object(members) => {
            for (member, value) in members {
                match (Place::of(name, member), value) {
                    (Some(place), Value::String(text)) => call(Some(place), text),
                    (_, value) => each_text(value, member, call),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_long_text_is_truncated_before_it_is_searched() {
        let mut answer = json!({ "notes": "é%2525&amp;amp;".repeat(100_000), "short": "%41" });
        let mut secrets = KnownSecrets::default();
        secrets.add("k0wn-t0k3n-secret");
        hide(&mut answer, &mut secrets);
        let length = answer["notes"].as_str().map(str::len);
        assert!(length.is_some_and(|length| (MAX_TEXT_BYTES - 2..=MAX_TEXT_BYTES).contains(&length)), "{length:?}");
        assert_eq!(answer["short"], "%41");
    }

    #[test]
    fn secrets_stay_in_their_own_members_only() {
        let signature = "EE7fdf1T-E0LRhW_mmCTVGnqrv4bnhiwLKhU86Q3yBI";
        let url = format!("https://receiver.example/hooks/marketing/ViewDeleted/{signature}");
        let session = "d36c3d73edfe4d51|8bd5d8c2a1f74a8a";
        let mut answer = json!({
            "credentials": { "token": session, "site": { "id": session } },
            "webhooks": { "webhook": [
                // Quoted before its own member.
                { "id": "1", "name": signature, "statusChangeReason": url },
                { "id": "2", "webhook-destination": { "webhook-destination-http": { "url": url } }, "url": url },
                { "name": "k0wn-t0k3n-secret" },
            ] },
        });
        let mut secrets = KnownSecrets::default();
        secrets.add("k0wn-t0k3n-secret");
        hide(&mut answer, &mut secrets);
        let hidden = "https://receiver.example/hooks/marketing/ViewDeleted/[redacted]";
        let expected = json!({
            "credentials": { "token": session, "site": { "id": "[redacted]" } },
            "webhooks": { "webhook": [
                { "id": "1", "name": "[redacted]", "statusChangeReason": hidden },
                { "id": "2", "webhook-destination": { "webhook-destination-http": { "url": url } }, "url": hidden },
                { "name": "[redacted]" },
            ] },
        });
        assert_eq!(answer, expected);
    }
}
