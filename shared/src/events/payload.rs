//! Tableau's payloads, read tolerantly so that no delivery is lost.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A webhook payload: the JSON object as Tableau wrote it, and the fields that subscribers filter by.
///
/// A field that is missing, empty or not a text is `None`. The JSON keeps it unchanged.
///
/// ```
/// use shared::events::payload::Payload;
///
/// let body =
///     br#"{"event_type":"WorkbookCreated","resource_name":"Regional Sales","resource_luid":""}"#;
/// let payload = Payload::parse(body).ok_or("not an object")?;
/// assert_eq!(payload.resource_name.as_deref(), Some("Regional Sales"));
/// assert_eq!(payload.resource_luid, None);
/// assert_eq!(payload.json.get().as_bytes(), body);
/// # Ok::<_, &str>(())
/// ```
#[derive(Clone, Debug)]
pub struct Payload<'a> {
    /// The object, byte for byte.
    pub json: &'a RawValue,
    /// Tableau's name of the event.
    pub event_type: Option<String>,
    /// Identifier of the resource. Not always a UUID.
    pub resource_luid: Option<String>,
    /// Name of the resource, as a user typed it.
    pub resource_name: Option<String>,
    /// Identifier of the site.
    pub site_luid: Option<String>,
    /// Time of the event, as Tableau wrote it.
    pub created_at: Option<String>,
}

impl<'a> Payload<'a> {
    /// Reads a body; `None` if it is not a JSON object.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let json: &RawValue = serde_json::from_slice(body).ok()?;
        let Fields { event_type, resource_luid, resource_name, site_luid, created_at } =
            serde_json::from_str(json.get()).ok()?;
        Some(Self { json, event_type, resource_luid, resource_name, site_luid, created_at })
    }
}

/// The fields of a payload. Derived deserialization would refuse an object with a duplicate field.
#[derive(Default)]
struct Fields {
    event_type: Option<String>,
    resource_luid: Option<String>,
    resource_name: Option<String>,
    site_luid: Option<String>,
    created_at: Option<String>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                // Raw keys: a key may be a text that JSON allows and Rust does not, such as half a surrogate pair.
                while let Some((key, value)) = entries.next_entry::<&RawValue, &RawValue>()? {
                    let field = match text(key).as_deref() {
                        Some("event_type") => &mut fields.event_type,
                        Some("resource_luid") => &mut fields.resource_luid,
                        Some("resource_name") => &mut fields.resource_name,
                        Some("site_luid") => &mut fields.site_luid,
                        Some("created_at") => &mut fields.created_at,
                        _ => continue,
                    };
                    *field = text(value).filter(|value| !value.is_empty());
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

fn text(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource_name(body: &str) -> Option<Option<String>> {
        Payload::parse(body.as_bytes()).map(|payload| payload.resource_name)
    }

    #[test]
    fn a_field_that_is_empty_or_no_text_is_missing() {
        for value in ["1", "null", "[]", "{}", "\"\"", r#""\ud800""#] {
            assert_eq!(resource_name(&format!(r#"{{"resource_name":{value}}}"#)), Some(None), "{value}");
        }
        assert_eq!(resource_name("{}"), Some(None));
    }

    #[test]
    fn odd_objects_are_payloads() {
        let deep = format!(r#"{{"resource_name":"n","deep":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
        for body in [
            r#"{"resource_name":"m","resource_name":"n"}"#,
            r#"{"\ud800":1,"resource_name":"n"}"#,
            r#"{"resource\u005fname":"n"}"#,
            " {\n\"resource_name\" : \"n\" } ",
            &deep,
        ] {
            assert_eq!(resource_name(body), Some(Some("n".to_owned())), "{}", &body[..20]);
        }
    }

    #[test]
    fn only_an_object_is_a_payload() {
        for body in ["", "null", "[]", "\"text\"", "{", "{}{}", "\u{feff}{}", "{'a':1}"] {
            assert!(Payload::parse(body.as_bytes()).is_none(), "{body:?}");
        }
        assert!(Payload::parse(b"{\"a\":\"\xff\"}").is_none());
    }
}
