//! What a server quotes of the secrets that it was sent: taken out of each answer before anybody reads it.

use serde_json::Value;
use shared::{redaction::known_secrets::KnownSecrets, registration::signed_url::RegistrationUrl};

/// How much is left of a text. Nobody reads more of one ([`crate::wire`]), and all its readings are in memory at once, which
/// is more than a hundred times as much.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// Learns the secrets that an answer holds at their places, and hides all that are known at every other.
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

/// A member that holds a secret on purpose. Whoever reads it shows it to nobody.
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

/// Calls with every text of an answer. `name` is that of the member which the answer is.
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
    fn of_a_text_without_end_no_more_is_decoded_than_anybody_reads() {
        let mut answer = json!({ "notes": "é%2525&amp;amp;".repeat(100_000), "short": "%41" });
        let mut secrets = KnownSecrets::default();
        secrets.add("k0wn-t0k3n-secret");
        hide(&mut answer, &mut secrets);
        let length = answer["notes"].as_str().map(str::len);
        assert!(length.is_some_and(|length| (MAX_TEXT_BYTES - 2..=MAX_TEXT_BYTES).contains(&length)), "{length:?}");
        assert_eq!(answer["short"], "%41");
    }

    #[test]
    fn secrets_stay_at_their_own_places_and_nowhere_else() {
        let signature = "EE7fdf1T-E0LRhW_mmCTVGnqrv4bnhiwLKhU86Q3yBI";
        let url = format!("https://receiver.example/hooks/marketing/ViewDeleted/{signature}");
        let session = "d36c3d73edfe4d51|8bd5d8c2a1f74a8a";
        let mut answer = json!({
            "credentials": { "token": session, "site": { "id": session } },
            "webhooks": { "webhook": [
                // Quoted before its place is come to.
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
