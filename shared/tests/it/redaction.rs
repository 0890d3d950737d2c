//! Messages of drivers and tools with made-up secrets: redaction hides every secret and keeps helpful words.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use serde::Deserialize;
use shared::{redaction::escapes::readings, refreshes::notes::Notes};

use crate::planted::Planted;

/// Messages contributed by others.
const GIVEN: &str = include_str!("redaction/given.jsonl");

/// The project's own messages.
const CORPUS: &str = include_str!("redaction/corpus.jsonl");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    text: String,
    hidden: Vec<String>,
    kept: Vec<String>,
}

#[expect(clippy::expect_used, reason = "the files are part of the tests")]
fn messages(lines: &str) -> Vec<Message> {
    lines.lines().map(serde_json::from_str).collect::<Result<_, _>>().expect("JSON")
}

fn shown(text: &str) -> String {
    Notes::redacted(text).map(|notes| notes.as_str().to_owned()).unwrap_or_default()
}

#[test]
fn secrets_of_messages_are_hidden_and_helpful_words_are_kept() {
    let mut wrong = Vec::new();
    for Message { text, hidden, kept } in messages(GIVEN).into_iter().chain(messages(CORPUS)) {
        let shown = shown(&text);
        assert!(hidden.iter().chain(&kept).all(|piece| text.contains(piece)), "{text}");
        let secrets = hidden.iter().filter(|secret| shown.contains(*secret)).map(|secret| format!("shown: {secret}"));
        let words = kept.iter().filter(|word| !shown.contains(*word)).map(|word| format!("lost: {word}"));
        let faults: Vec<_> = secrets.chain(words).collect();
        if !faults.is_empty() {
            wrong.push(format!("{}\n{text}\n{shown}\n", faults.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{} messages\n\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_message_without_secrets_stays_as_it_is() {
    let messages = messages(CORPUS);
    let plain = messages.iter().filter(|message| message.hidden.is_empty());
    assert!(plain.clone().count() >= 50 && messages.len() >= 150);
    for message in plain {
        assert_eq!(shown(&message.text), message.text);
    }
}

#[test]
fn redaction_takes_linear_time() {
    // One long text takes as long as eight short ones, also in shapes that could restart a search again and again.
    // Measured in processor time, so that other load on the machine does not count.
    let time = |text: &str, times: usize| {
        let start = processor_time();
        for _ in 0..times {
            shown(text);
        }
        processor_time() - start
    };
    for piece in PIECES {
        let text = |characters: usize| piece.repeat(characters / piece.chars().count());
        let (short, long) = (time(&text(1000), 16), time(&text(8000), 2));
        assert!(long < 4 * short + Duration::from_millis(20), "{piece}: {short:?} in eight, {long:?} in one");
    }
}

/// Returns the processor time of this thread. Linux counts it in ticks of some milliseconds.
#[expect(clippy::expect_used, reason = "Linux has the file")]
fn processor_time() -> Duration {
    let counts = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    Duration::from_nanos(counts.split(' ').next().and_then(|count| count.parse().ok()).expect("nanoseconds"))
}

#[test]
fn a_very_long_text_is_truncated() {
    for piece in PIECES {
        let text = piece.repeat(1_000_000 / piece.len());
        assert!(shown(&text).chars().count() <= 4000, "{piece}");
    }
}

/// Pieces at which searches begin.
const PIECES: [&str; 40] = [
    "a",
    " ",
    "=",
    ":",
    "password=",
    "password='",
    "password: ",
    "x=\"",
    "x=\"b",
    "user=a;pwd={",
    "a://",
    "a://b:c@",
    "a/b@",
    "a:b@",
    "@",
    "-----BEGIN PRIVATE KEY-----",
    "eyJ",
    "eyJ.",
    "Pwd=a b ",
    "<key>",
    "<a b=",
    "['a', ",
    "{\"a\":",
    "((",
    "[[",
    "x: y\n",
    "password\n",
    "-p ",
    "--a b ",
    "Bearer ",
    "\\",
    "\\\"",
    "%25",
    "&amp;",
    "\\u{",
    "identified by ",
    "1:1234:a:",
    "a ",
    "....",
    "日本語=",
];

/// Texts of pieces of drivers' messages, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let others = [
        "Pwd",
        "Token",
        "user",
        "UID",
        ";",
        ",",
        "&",
        "{",
        "}",
        "\"",
        "'",
        "/",
        "abc",
        "Basic ",
        "YES",
        "\n",
        "<password>",
        "</",
        "http",
        "[redacted]",
        "Authorization",
        "é",
        "\\n",
        "\\u0026",
        "%3D",
        "&quot;",
        "=>",
        "host",
        "Q~",
        "==:",
    ];
    let all: Vec<_> = PIECES.into_iter().chain(others).collect();
    vec(prop::sample::select(all), 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_can_be_redacted(text: String, pieces in pieces()) {
        for text in [text, pieces] {
            // The replacement of a secret may be longer.
            prop_assert!(shown(&text).chars().count() <= 11 * text.chars().count());
        }
    }

    #[test]
    fn a_planted_secret_is_never_shown(choices in vec(any::<u8>(), 40..80)) {
        let Planted { text, secret } = Planted::of(&choices);
        let shown = shown(&text);
        for reading in readings(&shown) {
            prop_assert_eq!(Planted::piece_in(&secret, reading.text()), None, "{}\n{}\n{}", secret, text, shown);
        }
    }
}
