//! Notes of a job, which hold the reason of a failed refresh.

use serde_json::{Map, Value};
use shared::refreshes::notes::Notes;

/// The most notes read of a job, and the most bytes of each. [`Notes`] keeps fewer of all together.
const MAX_NOTES: usize = 100;
const MAX_NOTES_BYTES: usize = 16_000;

/// Reads the notes of a job in every place and shape seen: a text, a list of texts, or status notes, within the refresh or
/// beside it.
pub(crate) fn read_notes(job: &Map<String, Value>, details: &Value) -> Option<Notes> {
    let mut notes = Vec::new();
    for member in ["notes", "statusNotes"] {
        add_notes(&details[member], &mut notes);
        add_notes(job.get(member).unwrap_or(&Value::Null), &mut notes);
    }
    // Redacts them together, since a secret may span several.
    Notes::redacted(&notes.join("\n"))
}

fn add_notes(value: &Value, notes: &mut Vec<String>) {
    let text = |value: &Value| match value {
        Value::String(text) => {
            let text = text.trim();
            (!text.is_empty()).then(|| text[..text.floor_char_boundary(MAX_NOTES_BYTES)].to_owned())
        }
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let note = match value {
        Value::Array(values) => return values.iter().take(MAX_NOTES).for_each(|value| add_notes(value, notes)),
        Value::Object(members) => match members.get("statusNote") {
            Some(list) => return add_notes(list, notes),
            // Some carry the reason as `text`, others as the `value` of the type `message`.
            None => text(&value["text"]).or_else(|| {
                let reason = text(&value["value"])?;
                Some(text(&value["type"]).map(|kind| format!("{kind}: {reason}")).unwrap_or(reason))
            }),
        },
        value => text(value),
    };
    notes.extend(note.filter(|note| notes.len() < MAX_NOTES && !notes.contains(note)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Reads the notes of a job with these members, and of a job with them within the refresh.
    fn notes(members: &Value) -> [Option<String>; 2] {
        let Value::Object(beside) = members else { panic!("no members") };
        let within = read_notes(&Map::new(), members);
        [read_notes(beside, &Value::Null), within].map(|notes| notes.map(|notes| notes.as_str().to_owned()))
    }

    #[test]
    fn notes_are_read_in_every_place_and_shape() {
        for (members, found) in [
            (json!({ "notes": "Login failed." }), "Login failed."),
            (json!({ "notes": ["Login failed."] }), "Login failed."),
            (json!({ "notes": ["Login failed.", "", null, "At db.", "At db."] }), "Login failed.\nAt db."),
            (json!({ "notes": [{ "text": "Login failed." }] }), "Login failed."),
            (
                json!({ "statusNotes": { "statusNote": [{ "type": "a", "value": "b", "text": "Login failed." }] } }),
                "Login failed.",
            ),
            (
                json!({ "statusNotes": { "statusNote": { "type": "a", "value": "b", "text": "Login failed." } } }),
                "Login failed.",
            ),
            (json!({ "statusNotes": [{ "text": "Login failed." }, { "text": "At db." }] }), "Login failed.\nAt db."),
            (
                json!({ "statusNotes": { "statusNote": [{ "type": "errorCode", "value": 1 },
                    { "type": "message", "value": "Login failed." }] } }),
                "errorCode: 1\nmessage: Login failed.",
            ),
            (
                json!({ "notes": "Login failed.", "statusNotes": { "statusNote": { "text": "At db." } } }),
                "Login failed.\nAt db.",
            ),
            (
                json!({ "notes": "Login failed.", "statusNotes": { "statusNote": { "text": "Login failed." } } }),
                "Login failed.",
            ),
        ] {
            assert_eq!(notes(&members), [Some(found.to_owned()), Some(found.to_owned())], "{members}");
        }
        for members in [
            json!({}),
            json!({ "notes": null, "statusNotes": {} }),
            json!({ "notes": [" ", [], {}, true], "statusNotes": { "statusNote": null } }),
            json!({ "statusNotes": { "statusNote": [{ "type": "line" }] } }),
        ] {
            assert_eq!(notes(&members), [None, None], "{members}");
        }
    }

    #[test]
    fn notes_of_every_shape_are_redacted_and_bounded() {
        let secret = "Zx9kQ2";
        for members in [
            json!({ "notes": format!("server=db;Pwd={secret};") }),
            json!({ "notes": ["Login failed.", format!("server=db;Pwd={secret};")] }),
            json!({ "notes": ["-----BEGIN PRIVATE KEY-----", secret, "-----END PRIVATE KEY-----"] }),
            json!({ "statusNotes": { "statusNote": { "type": "password", "value": secret } } }),
            json!({ "statusNotes": { "statusNote": [{ "text": format!("Authorization: Bearer {secret}") }] } }),
        ] {
            let found = notes(&members);
            assert!(found.iter().flatten().all(|text| !text.contains(secret)), "{members}: {found:?}");
            assert!(found.iter().all(Option::is_some), "{members}");
        }
        for flood in [
            json!("é".repeat(1_000_000)),
            json!(vec!["note"; 1_000_000]),
            json!((0..200_000).map(|number| format!("note {number}")).collect::<Vec<_>>()),
            json!(vec!["é".repeat(10_000); 200]),
        ] {
            for members in [json!({ "notes": flood }), json!({ "statusNotes": { "statusNote": flood } })] {
                let longest = notes(&members).iter().flatten().map(|text| text.chars().count()).max();
                assert!(longest.is_some_and(|characters| characters <= 4000), "{longest:?}");
            }
        }
    }
}
