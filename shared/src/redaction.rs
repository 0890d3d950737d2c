//! Redaction: removes secrets from texts that others wrote, such as error messages of database drivers and tools.
//!
//! Sentences stay, and so do error codes, hosts and databases. Settings show a value only if its name is known to be
//! harmless (`names`). Prose is shown, except secrets in a known place (`phrases`, `urls`, `commands`) or of a
//! known form (`tokens`). A text is searched in each of its [`readings`], and a character is shown only if no reading
//! hides it.
//!
//! In doubt redaction hides more than is secret. It takes linear time.

mod commands;
mod context;
pub mod escapes;
mod findings;
pub mod known_secrets;
mod markup;
mod names;
mod phrases;
mod settings;
mod tokens;
mod urls;
mod value_forms;
mod values;

use crate::redaction::{
    escapes::readings,
    findings::{Findings, REDACTED},
};

/// The most characters that are redacted; the rest is dropped. Alerts and events show fewer.
const MAX_CHARACTERS: usize = 8000;

/// Finds what to hide in a text.
fn find(text: &str) -> Findings {
    let mut findings = Findings::default();
    settings::find(text, &mut findings);
    markup::find(text, &mut findings);
    phrases::find(text, &mut findings);
    commands::find(text, &mut findings);
    urls::find(text, &mut findings);
    // Before tokens, since a token alone says nothing about the users next to it.
    if findings.secrets.is_empty() {
        findings.users.clear();
    }
    tokens::find(text, &mut findings);
    findings
}

/// Returns the text with [`REDACTED`] in place of secrets.
pub(crate) fn redacted(text: &str) -> String {
    let end = text.char_indices().nth(MAX_CHARACTERS).map_or(text.len(), |(at, _)| at);
    let text = &text[..end];
    let mut places = Vec::new();
    for reading in readings(text) {
        let Findings { secrets, users } = find(reading.text());
        places.extend(secrets.into_iter().chain(users).map(|place| reading.origin(place)));
    }
    places.sort_unstable_by_key(|place| place.start);
    let (mut shown, mut position) = (String::with_capacity(text.len()), 0);
    for place in places.into_iter().filter(|place| !place.is_empty()) {
        if place.start > position || shown.is_empty() {
            shown.push_str(&text[position..place.start]);
            shown.push_str(REDACTED);
        }
        position = position.max(place.end);
    }
    shown.push_str(&text[position..]);
    shown
}
