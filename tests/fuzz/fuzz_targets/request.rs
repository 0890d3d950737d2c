//! The receiver's request path, from the bytes of a Function URL event to the answer and the published message.
//!
//! The first byte of the input chooses whether the rest is a whole event, or the path or body of an otherwise valid event. It
//! also chooses whether the signing keys can be read.

#![no_main]

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json, value::RawValue};
use shared::{events::unverified::UnverifiedRecord, registration::keyring::{KEY_BYTES, Keyring}};

#[expect(dead_code, reason = "the receiver's own tests use the rest")]
#[path = "../../../functions/receiver/tests/it/doubles.rs"]
mod doubles;

use doubles::{Answer, Harness, KEY, Stored, event, path};

/// The events that a body is signed for, chosen by the input's first byte.
const EVENTS: [&str; 3] = ["DatasourceRefreshFailed", "WorkbookCreated", "FlowRunFailed"];

fuzz_target!(|input: &[u8]| {
    let Some((choice, input)) = input.split_first() else { return };
    let (event, is_signed) = match choice % 4 {
        0 => match serde_json::from_slice::<Value>(input) {
            Ok(event) if event.is_object() => (event, false),
            _ => return,
        },
        1 => (event("POST", &String::from_utf8_lossy(input), json!("{}"), false), false),
        2 => (body(*choice, json!(String::from_utf8_lossy(input)), false), true),
        _ => (body(*choice, json!(BASE64_STANDARD.encode(input)), true), true),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let are_readable = *choice < 128;
        let harness = Harness::start(if are_readable { Stored::Key(KEY) } else { Stored::Unavailable }).await;
        // Lambda refuses an input that is no Function URL event.
        let Some(answer) = harness.try_send(event).await else { return };
        let published = harness.topic.published();
        if !are_readable {
            assert!(published.is_empty() && harness.alerts.published().is_empty());
            unverified(&answer, &harness.log(), is_signed.then_some(input));
            return;
        }
        if !is_signed {
            assert_eq!((answer, published.len()), (Answer::empty(404), 0));
            return;
        }
        assert!([200, 413].contains(&answer.status), "{answer:?}");
        assert_eq!(published.len(), usize::from(answer.status == 200));
        for message in published {
            // Its data may hold JSON numbers that are larger than any Rust type.
            let envelope: BTreeMap<String, &RawValue> = serde_json::from_str(&message.body).expect("JSON");
            assert_eq!(envelope["source"].get(), r#""/tableau/marketing""#);
            assert!(message.attributes.len() <= 10 && message.attributes.values().all(|value| !value.is_empty()));
            assert!(message.body.len() <= 256 * 1024);
            if envelope.get("datacontenttype").is_some_and(|data| data.get() == r#""application/json""#) {
                let sent = String::from_utf8_lossy(input);
                assert!(message.body.ends_with(&format!(r#""data":{}}}"#, sent.trim_matches([' ', '\t', '\r', '\n']))));
            }
        }
        for alert in harness.alerts.published() {
            assert!(alert.subject.len() < 100 && alert.subject.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            assert!(serde_json::from_str::<Value>(&alert.body).is_ok_and(|texts| texts.is_object()));
        }
        // One line for the delivery.
        let log = harness.log();
        assert!(log.len() == 1 && log[0]["outcome"].is_string(), "{log:?}");
    });
});

/// Checks the answer and the log of a request that could not be verified, with the body if it was signed.
fn unverified(answer: &Answer, log: &[Value], signed: Option<&[u8]>) {
    assert!([Answer::empty(404), Answer::empty(503)].contains(answer), "{answer:?}");
    let lines = log.iter().filter(|line| line["outcome"] == UnverifiedRecord::OUTCOME);
    let records: Vec<UnverifiedRecord> =
        lines.map(|line| serde_json::from_value(line.clone()).expect("a record")).collect();
    assert!(records.len() <= 1 && log.iter().all(|line| line.to_string().len() < 16 * 1024), "{log:?}");
    let Some(body) = signed else { return };
    assert_eq!(*answer, Answer::empty(503));
    match &records[..] {
        [record] => {
            assert!(record.verify(&Keyring::of([KEY; KEY_BYTES])).is_some());
            // A text was converted to UTF-8 before it was sent.
            let recorded = record.body().expect("a body");
            assert!(recorded == body || recorded == String::from_utf8_lossy(body).as_bytes());
        }
        _ => assert!(
            String::from_utf8_lossy(body).len() > 8 * 1024 && log.iter().any(|line| line["Unrecorded"] == 1.0),
            "{log:?}"
        ),
    }
}

/// Returns a signed delivery of a body.
fn body(choice: u8, body: Value, is_base64: bool) -> Value {
    event("POST", &path("marketing", EVENTS[usize::from(choice / 4) % EVENTS.len()], KEY), body, is_base64)
}
