//! Answers as they come: read within bounds of memory, whoever sent them, and with what proxies wrap around them.

use std::{cell::Cell, fmt, io::Read};

use flate2::read::GzDecoder;
use reqwest::{Response, header::CONTENT_ENCODING};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::wire::Unreadable;

/// How many sites may be signed in to at a time: as many as have their share of the memory.
pub const SITES_AT_ONCE: usize = 32;

/// The memory for answers: a quarter of the 256 MiB that the function has.
const MEMORY: usize = 64 * 1024 * 1024;

/// How much of it may be taken by the values of an answer. Of these there is one at a time: nothing is waited for between
/// the reading of an answer and the end of its values, and all sites have one thread.
const VALUES: usize = 16 * 1024 * 1024;

/// How much of it a site has. None waits for another's share.
const SHARE: usize = (MEMORY - VALUES) / SITES_AT_ONCE;

/// How much of its share is for an answer that is no list, while a list is kept: far more than any job says.
pub(crate) const SINGLE: usize = 256 * 1024;

/// How much of its share is for a list: what earlier pages have left, and a page while it is received. A page of a thousand
/// jobs takes 0.4 MiB.
pub(crate) const LIST: usize = SHARE - SINGLE;

/// How much of an answer that is an error is read. The rest is left: it would be shown to nobody.
const ERROR: usize = 64 * 1024;

/// What an item of a list, the first entry of an object, and the text of either take in memory besides themselves: room
/// for growth, a node of a tree with room for eleven entries, and what the allocator needs.
const ITEM: usize = 2 * size_of::<Value>();
const NODE: usize = 11 * (size_of::<String>() + size_of::<Value>()) + 32;
const TEXT: usize = 32;

/// How many entries an object has in its first node, and at least in each that follows.
const FIRST_NODE: usize = 11;
const NEXT_NODE: usize = 5;

const TOO_LARGE: Unreadable = "it does not end within its share of the memory";
const TOO_MANY_VALUES: Unreadable = "it holds more than there is memory for";

/// Why an answer was not read to its end.
pub(crate) enum Interrupted {
    /// The connection broke off, or the time was over.
    Failed(reqwest::Error),
    /// It cannot be read.
    Unreadable(Unreadable),
}

/// Receives the body of an answer of at most `room` bytes, or of an error what is worth it.
pub(crate) async fn receive(response: &mut Response, room: usize) -> Result<Vec<u8>, Interrupted> {
    let is_error = !response.status().is_success();
    let room = if is_error { room.min(ERROR) } else { room };
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if chunk.len() <= room - body.len() => body.extend(chunk),
            Ok(Some(chunk)) if is_error => {
                body.extend(&chunk[..room - body.len()]);
                break;
            }
            Ok(Some(_)) => return Err(Interrupted::Unreadable(TOO_LARGE)),
            Ok(None) => break,
            // Its status says what there is to know.
            Err(_) if is_error => break,
            Err(error) => return Err(Interrupted::Failed(error)),
        }
    }
    let encoding = response.headers().get(CONTENT_ENCODING).and_then(|encoding| encoding.to_str().ok());
    let is_known = encoding.is_none_or(|encoding| ["gzip", "x-gzip", "identity", ""].contains(&encoding.trim()));
    if !is_known && !is_error && !body.is_empty() {
        return Err(Interrupted::Unreadable("it is compressed in a way that was not asked for"));
    }
    unwrapped(body, room, is_error).map_err(Interrupted::Unreadable)
}

/// Takes away what was not asked for: compression and a byte order mark. No text that Tableau writes begins like either.
pub(crate) fn unwrapped(body: Vec<u8>, room: usize, may_be_cut: bool) -> Result<Vec<u8>, Unreadable> {
    let mut body = if body.starts_with(&[0x1f, 0x8b]) {
        let mut text = Vec::new();
        let mut decoder = GzDecoder::new(&body[..]).take(room as u64 + 1);
        let read = decoder.read_to_end(&mut text);
        if text.len() > room && !may_be_cut {
            return Err(TOO_LARGE);
        }
        if read.is_err() && !may_be_cut {
            return Err("it is compressed, and not whole");
        }
        text.truncate(room);
        text
    } else {
        body
    };
    if body.starts_with("\u{feff}".as_bytes()) {
        body.drain(..3);
    }
    Ok(body)
}

/// Reads JSON whose values fit into the memory for them: two bytes of a text can be hundreds of a value.
pub(crate) fn parse(body: &[u8]) -> Result<Value, Unreadable> {
    let room = Cell::new(VALUES);
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Bounded(&room).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|_| if room.get() == 0 { TOO_MANY_VALUES } else { "it is not JSON" })
}

/// A value that takes no more than there is room.
#[derive(Clone, Copy)]
struct Bounded<'a>(&'a Cell<usize>);

impl Bounded<'_> {
    fn take<E: Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(bytes);
        // None left says why.
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
    fn json_is_read_as_it_is_and_whatever_would_take_too_much_memory_is_not() {
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
    fn what_is_wrapped_around_an_answer_is_taken_away_within_its_bounds() {
        let text = br#"{"a":1}"#;
        let marked = ["\u{feff}".as_bytes(), text].concat();
        for body in [text.to_vec(), marked.clone(), gzipped(text), gzipped(&marked)] {
            assert_eq!(unwrapped(body, 100, false).as_deref(), Ok(&text[..]));
        }
        let bomb = gzipped(&vec![b' '; 100 * LIST]);
        assert!(bomb.len() < LIST);
        assert_eq!(unwrapped(bomb.clone(), LIST, false), Err(TOO_LARGE));
        assert_eq!(unwrapped(bomb, 10, true).map(|text| text.len()), Ok(10));
        let cut = &gzipped(text)[..20];
        assert_eq!(unwrapped(cut.to_vec(), 100, false), Err("it is compressed, and not whole"));
        assert!(unwrapped(cut.to_vec(), 100, true).is_ok());
        assert_eq!(unwrapped(vec![0x1f, 0x8b], 100, false), Err("it is compressed, and not whole"));
        assert_eq!(unwrapped(Vec::new(), 0, false), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn any_json_is_read_as_every_other_reader_reads_it(text in "[\\[\\]{}\",:0-9a-z \\\\-]{0,40}") {
            let expected = serde_json::from_str::<Value>(&text).map_err(|_| "it is not JSON");
            prop_assert_eq!(parse(text.as_bytes()), expected);
        }
    }
}
