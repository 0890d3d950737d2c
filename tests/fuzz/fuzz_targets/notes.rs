//! Redaction of a job's notes: any bytes, and secrets in any shape that drivers and tools print.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::{redaction::escapes::readings, refreshes::notes::Notes};

#[path = "../../../shared/tests/it/planted.rs"]
mod planted;

use planted::Planted;

fuzz_target!(|input: &[u8]| {
    let _ = Notes::redacted(&String::from_utf8_lossy(input));
    let Planted { text, secret } = Planted::of(input);
    let Some(notes) = Notes::redacted(&text) else { return };
    for reading in readings(notes.as_str()) {
        assert_eq!(Planted::piece_in(&secret, reading.text()), None, "{secret:?}\n{text:?}\n{notes:?}");
    }
});
