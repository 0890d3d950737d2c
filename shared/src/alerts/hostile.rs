//! Hostile texts for tests, and the assertion that an alert is safe.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::Value;

use crate::alerts::{data::AlertData, text::plain};

const PIECES: [&str; 36] = [
    "<!channel>",
    "<@U024BE7LH>",
    "<https://evil.example|Click>",
    "[x](https://evil.example)",
    "[x]: https://evil.example",
    "![x](https://evil.example/x.png)",
    "*a*",
    "_b_",
    "__c__",
    "daily_sales",
    "~d~",
    "`e`",
    "```",
    "&lt;!here&gt;",
    "&",
    "<b>",
    "\\",
    "\\`",
    "@here",
    "\u{200e}",
    "\u{200f}",
    "\u{61c}",
    "\u{202a}",
    "\u{202e}",
    "\u{2066}",
    "\u{2069}",
    "\u{2028}",
    "\n",
    "\r\n> quote\n# heading",
    "\t",
    "\u{0}\u{1b}[2J\u{7f}\u{85}",
    "\u{ffff}",
    "📈",
    "\"",
    "Sales",
    " ",
];

/// Any text of such pieces, sometimes a long one.
pub(crate) fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![8 => select(&PIECES[..]).prop_map(str::to_owned), 1 => any::<String>()];
    let times = prop_oneof![29 => Just(1_usize), 1 => Just(500)];
    (vec(piece, 1..8), times).prop_map(|(pieces, times)| pieces.concat().repeat(times))
}

/// Fails if an alert is too large, or a program that shows it could find more than plain text in it.
pub(crate) fn assert_safe(subject: &str, body: &str) {
    assert!(subject.len() < 100 && subject.starts_with("Tableau"), "{subject}");
    assert!(subject.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{subject}");
    assert!(body.len() <= 256 * 1024, "{} bytes", body.len());
    let texts: Value = serde_json::from_str(body).expect("JSON");
    let text = |protocol: &str| texts[protocol].as_str().expect("a text");
    for line in text("email").lines().chain(text("default").lines()) {
        assert_plain(line.trim());
    }
    assert!(!text("email").is_empty());
    assert_plain(text("sms"));
    assert!((1..=140).contains(&text("sms").chars().count()));

    let data: AlertData = serde_json::from_str(text("sqs")).expect("an alert");
    assert_eq!(text("lambda"), text("sqs"));
    for text in [&data.title, &data.text, &data.thread, &data.event_id].into_iter().chain(&data.next_steps) {
        text.lines().for_each(|line| assert_plain(line.trim()));
        assert_no_markup(text);
        assert!((1..=1500).contains(&text.chars().count()), "{text}");
    }
    let resource = data.resource.iter().flat_map(|of| [Some(&of.id), of.name.as_ref(), of.project.as_ref()]);
    resource.flatten().chain(&data.sites).for_each(|text| assert_no_markup(text));

    let card: Value = serde_json::from_str(text("https")).expect("JSON");
    let mut members = vec![&card];
    while let Some(member) = members.pop() {
        match member {
            Value::Array(items) => members.extend(items),
            Value::Object(object) => {
                members.extend(
                    object
                        .iter()
                        .filter(|(name, _)| !["description", "nextSteps"].contains(&&***name))
                        .map(|(_, it)| it),
                );
            }
            Value::String(text) => {
                assert_plain(text);
                assert_no_markup(text);
            }
            other => panic!("{other} in a card"),
        }
    }
    let content = &card["content"];
    assert_eq!(content["textType"], "client-markdown");
    assert!(content["title"].as_str().is_some_and(|title| !title.is_empty() && title.chars().count() <= 250));
    let steps = content["nextSteps"].as_array().expect("a list");
    for markdown in steps.iter().chain([&content["description"]]) {
        let markdown = markdown.as_str().expect("a text");
        assert!((1..=1500).contains(&markdown.chars().count()), "{markdown}");
        let pieces: Vec<_> = markdown.split('`').collect();
        assert!(pieces.len() % 2 == 1 && !markdown.contains("``"), "a code span has no end: {markdown}");
        for (number, piece) in pieces.iter().enumerate() {
            piece.lines().for_each(|line| assert_plain(line.trim()));
            if number % 2 == 0 {
                assert_no_markup(piece);
            } else {
                assert!(!piece.contains(['<', '>', '&', '\n']) && !piece.is_empty(), "{markdown}");
            }
        }
    }
}

/// Fails if a text has control or direction characters.
fn assert_plain(text: &str) {
    let spaces = |text: &str| text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    assert_eq!(spaces(text), spaces(&plain(text)));
}

fn assert_no_markup(text: &str) {
    assert!(!text.contains(['<', '>', '&', '*', '~', '`', '[', ']', '\\', '@']), "{text}");
    let characters: Vec<_> = text.chars().collect();
    for (at, _) in characters.iter().enumerate().filter(|(_, character)| **character == '_') {
        let around = [at.checked_sub(1).map(|at| characters[at]), characters.get(at + 1).copied()];
        assert!(around.iter().all(|it| it.is_some_and(char::is_alphanumeric)), "{text}");
    }
}
