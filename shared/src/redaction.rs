//! Takes the secrets out of texts that others wrote: error messages of database drivers and tools, with connection
//! strings, addresses, command lines, settings and tokens. The sentence stays, and so do error codes, hosts and databases.
//!
//! In settings only the values of names that are known to be harmless are shown ([`names`]). Prose is shown, but for
//! secrets that stand in a known place ([`phrases`], [`urls`], [`commands`]) or have a known form ([`tokens`]). A text is
//! searched in each of its [`readings`], and a character is shown only if no reading hides it.
//!
//! In doubt more is hidden than is secret. Takes linear time.

mod commands;
pub mod escapes;
pub mod known_secrets;
mod markup;
mod names;
mod phrases;
mod settings;
mod tokens;
mod urls;
mod values;

use std::ops::Range;

use crate::redaction::escapes::readings;

/// What stands where a secret was.
const HIDDEN: &str = "[redacted]";

/// The most characters that are looked at; what follows is dropped. More than is ever shown.
const CHARACTERS: usize = 8000;

/// Places in a text that are not to be shown.
#[derive(Default)]
struct Found {
    secrets: Vec<Range<usize>>,
    /// Names of users, which are hidden in settings beside a secret only.
    users: Vec<Range<usize>>,
}

impl Found {
    fn in_text(text: &str) -> Self {
        let mut found = Self::default();
        settings::find(text, &mut found);
        markup::find(text, &mut found);
        phrases::find(text, &mut found);
        commands::find(text, &mut found);
        urls::find(text, &mut found);
        // The last, since a token alone says nothing about the users beside it.
        if found.secrets.is_empty() {
            found.users.clear();
        }
        tokens::find(text, &mut found);
        found
    }
}

/// The text with [`HIDDEN`] where secrets were.
pub(crate) fn redacted(text: &str) -> String {
    let end = text.char_indices().nth(CHARACTERS).map_or(text.len(), |(at, _)| at);
    let text = &text[..end];
    let mut places = Vec::new();
    for reading in readings(text) {
        let Found { secrets, users } = Found::in_text(reading.text());
        places.extend(secrets.into_iter().chain(users).map(|place| reading.origin(place)));
    }
    places.sort_unstable_by_key(|place| place.start);
    let (mut shown, mut position) = (String::with_capacity(text.len()), 0);
    for place in places.into_iter().filter(|place| !place.is_empty()) {
        if place.start > position || shown.is_empty() {
            shown.push_str(&text[position..place.start]);
            shown.push_str(HIDDEN);
        }
        position = position.max(place.end);
    }
    shown.push_str(&text[position..]);
    shown
}
