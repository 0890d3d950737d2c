//! Bodies of answers: decompresses them and parses JSON within limits of memory.

use std::{cell::Cell, fmt, io::Read};

use flate2::read::GzDecoder;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The reason why an answer cannot be read. Quotes nothing of the answer.
pub(crate) type Unreadable = &'static str;

/// The most sites with a session at a time: each has its share of the memory.
pub const SITES_AT_ONCE: usize = 32;

/// The memory for answers: a quarter of the function's 256 MiB.
const MEMORY: usize = 64 * 1024 * 1024;

/// The part of it for the parsed values of an answer. Only one answer is parsed at a time: parsing and reading never await,
/// and all sites share one thread.
const VALUES: usize = 16 * 1024 * 1024;

/// The part of it for each site, so that no site waits for another.
const SHARE: usize = (MEMORY - VALUES) / SITES_AT_ONCE;

/// The part of a share for an answer that is no list, while a list is kept: far more than a job takes.
pub(crate) const SINGLE: usize = 256 * 1024;

/// The part of a share for a list: its earlier pages, and the page that is received. A page of a thousand jobs takes 0.4 MiB.
pub(crate) const LIST: usize = SHARE - SINGLE;

/// The overhead in memory of an item of a list, of a node of an object, and of a text: space for growth, a tree node with
/// space for eleven entries, and the allocator's own.
const ITEM: usize = 2 * size_of::<Value>();
const NODE: usize = 11 * (size_of::<String>() + size_of::<Value>()) + 32;
const TEXT: usize = 32;

/// The entries in an object's first node, and the fewest in each later one.
const FIRST_NODE: usize = 11;
const NEXT_NODE: usize = 5;

pub(crate) const TOO_LARGE: Unreadable = "it exceeds its share of the memory";
pub(crate) const INCOMPLETE: Unreadable = "it is compressed and incomplete";
const TOO_MANY_VALUES: Unreadable = "its values exceed the memory for them";

/// Removes compression and a byte order mark, which proxies add. No text of Tableau begins like either.
pub(crate) fn decoded(body: Vec<u8>, max_bytes: usize, may_be_cut: bool) -> Result<Vec<u8>, Unreadable> {
    let mut body = if body.starts_with(&[0x1f, 0x8b]) {
        let mut text = Vec::new();
        let mut decoder = GzDecoder::new(&body[..]).take(max_bytes as u64 + 1);
        let read = decoder.read_to_end(&mut text);
        if text.len() > max_bytes && !may_be_cut {
            return Err(TOO_LARGE);
        }
        if read.is_err() && !may_be_cut {
            return Err(INCOMPLETE);
        }
        text.truncate(max_bytes);
        text
    } else {
        body
    };
    if body.starts_with("\u{feff}".as_bytes()) {
        body.drain(..3);
    }
    Ok(body)
}

/// Parses JSON whose values fit into the memory for them: two bytes of text can become hundreds of a value.
pub(crate) fn parse(body: &[u8]) -> Result<Value, Unreadable> {
    let left = Cell::new(VALUES);
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Bounded(&left).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|_| if left.get() == 0 { TOO_MANY_VALUES } else { "it is not JSON" })
}

/// Deserializes a value within the bytes that are left.
#[derive(Clone, Copy)]
struct Bounded<'a>(&'a Cell<usize>);

impl Bounded<'_> {
    fn take<E: Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(bytes);
        // With none left, `parse` knows the reason.
        self.0.set(left.unwrap_or_default());
        left.filter(|left| *left > 0).map(|_| ()).ok_or_else(|| E::custom(TOO_MANY_VALUES))
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.take(value.len() + TEXT)?;
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            self.take(ITEM)?;
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let count = object.len();
            let is_new_node = count == 0 || (count >= FIRST_NODE && (count - FIRST_NODE).is_multiple_of(NEXT_NODE));
            self.take(name.len() + TEXT + if is_new_node { NODE } else { 0 })?;
            object.insert(name, entries.next_value_seed(self)?);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn gzipped(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn json_is_parsed_within_the_memory_for_its_values() {
        for text in ["null", "17", "-1.5", "true", "\"\\u00e9\"", "[]", "{}", r#" {"a":[1,{"b":null}],"c":"d","a":2} "#]
        {
            assert_eq!(parse(text.as_bytes()).ok(), serde_json::from_str(text).ok(), "{text}");
        }
        for text in ["", "{", "[1,]", "nul", "{} {}", "\u{feff}{}", "<html>"] {
            assert_eq!(parse(text.as_bytes()), Err("it is not JSON"), "{text}");
        }
        // Each within the bounds of an answer.
        for unit in ["0", "[]", "{}", r#"{"":0}"#, "\"\"", r#"{"":{"":{"":{}}}}"#] {
            let many = format!("[{unit}{}]", format!(",{unit}").repeat((LIST - 2) / (unit.len() + 1) - 1));
            assert!(many.len() <= LIST);
            assert_eq!(parse(many.as_bytes()), Err(TOO_MANY_VALUES), "{unit}");
        }
        let deep = "[".repeat(LIST / 2) + &"]".repeat(LIST / 2);
        assert_eq!(parse(deep.as_bytes()), Err("it is not JSON"));
        // A page of a thousand jobs, or of nearly two thousand webhooks.
        let job = json!({ "id": "5998aaaf-5998-4998-a998-5998aaaf5998", "status": "Failed", "priority": "50",
            "jobType": "refresh_extracts", "createdAt": "2026-05-21T08:00:00Z", "startedAt": "2026-05-21T08:00:00Z",
            "endedAt": "2026-05-21T08:00:00Z", "title": "t".repeat(255) });
        let webhook = json!({ "id": "5998aaaf-5998-4998-a998-5998aaaf5998", "name": "n".repeat(100), "isEnabled": true,
            "event": "DatasourceRefreshFailed", "statusChangeReason": "", "webhook-source": { "webhook-source-event": {} },
            "webhook-destination": { "webhook-destination-http": { "method": "POST", "url": "u".repeat(150) } },
            "owner": { "id": "5998aaaf-5998-4998-a998-5998aaaf5998", "name": "administrator" } });
        for (item, count) in [(job, 1000), (webhook, 1800)] {
            let page = json!({ "page": vec![item; count] });
            let text = page.to_string();
            assert!(text.len() <= LIST, "{}", text.len());
            assert_eq!(parse(text.as_bytes()), Ok(page));
        }
    }

    #[test]
    fn a_body_is_decoded_within_its_limit() {
        let text = br#"{"a":1}"#;
        let marked = ["\u{feff}".as_bytes(), text].concat();
        for body in [text.to_vec(), marked.clone(), gzipped(text), gzipped(&marked)] {
            assert_eq!(decoded(body, 100, false).as_deref(), Ok(&text[..]));
        }
        let bomb = gzipped(&vec![b' '; 100 * LIST]);
        assert!(bomb.len() < LIST);
        assert_eq!(decoded(bomb.clone(), LIST, false), Err(TOO_LARGE));
        assert_eq!(decoded(bomb, 10, true).map(|text| text.len()), Ok(10));
        let cut = &gzipped(text)[..20];
        assert_eq!(decoded(cut.to_vec(), 100, false), Err("it is compressed and incomplete"));
        assert!(decoded(cut.to_vec(), 100, true).is_ok());
        assert_eq!(decoded(vec![0x1f, 0x8b], 100, false), Err("it is compressed and incomplete"));
        assert_eq!(decoded(Vec::new(), 0, false), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn any_json_is_parsed_as_serde_json_parses_it(text in "[\\[\\]{}\",:0-9a-z \\\\-]{0,40}") {
            let expected = serde_json::from_str::<Value>(&text).map_err(|_| "it is not JSON");
            prop_assert_eq!(parse(text.as_bytes()), expected);
        }
    }
}
