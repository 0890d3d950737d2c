//! Hostile texts for tests.

use proptest::{collection::vec, prelude::*, sample::select};

/// Markup, mentions, links, JSON, templates, and characters that are invisible or large.
const PIECES: [&str; 34] = [
    "<!everyone>",
    "<#C024BE7LR>",
    "<!subteam^SAZ94GDB8>",
    "<mailto:a@evil.example|Mail>",
    "<at>Grace</at>",
    "<script>alert(1)</script>",
    "[page](javascript:alert(1))",
    "![](https://evil.example/pixel)",
    "https://evil.example/?a=1&b=2",
    "**bold**",
    "*bold*",
    "__under__",
    "_italic_",
    "~~gone~~",
    "`code`",
    "```\nblock\n```",
    "\n> quotation",
    "\n# heading",
    "\n- item\n1. item",
    ":rotating_light:",
    "@channel",
    "&lt;!here&gt;",
    "\"}, {\"type\": \"image\"",
    "\\\"",
    "\\",
    "{{ id }}",
    "{% raw %}",
    "{# note #}",
    "{{DATE(2026-01-01T00:00:00Z, SHORT)}}",
    "\u{202e}\u{2066}\u{200f}",
    "\u{0}\u{7}\u{1b}[31m\u{2028}\r",
    "\u{fffd}\u{ffff}",
    "📊👩‍👩‍👧",
    "quarterly_sales ",
];

/// Any text of such pieces, sometimes an endless one.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![9 => select(&PIECES[..]).prop_map(str::to_owned), 1 => any::<String>()];
    let times = prop_oneof![19 => Just(1_usize), 1 => Just(300)];
    (vec(piece, 0..6), times).prop_map(|(pieces, times)| pieces.concat().repeat(times))
}

/// Any JSON value, with hostile texts.
pub(crate) fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        4 => text().prop_map(serde_json::Value::from),
        1 => any::<i64>().prop_map(serde_json::Value::from),
        1 => any::<bool>().prop_map(serde_json::Value::from),
        1 => Just(serde_json::Value::Null),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(serde_json::Value::from),
            vec((text(), inner), 0..3).prop_map(|members| members.into_iter().collect()),
        ]
    })
}
