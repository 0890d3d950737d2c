//! How names, times, counts and lists read in alerts.

use time::{OffsetDateTime, UtcOffset, macros::format_description};

use crate::alerts::text::{NAME_CHARACTERS, Text, plain, truncate};

/// What a thing is called.
pub(crate) struct DisplayName {
    /// On one line, and short.
    text: String,
    is_name: bool,
}

impl DisplayName {
    /// The thing by its name, else by its identifier, else by its kind.
    pub(crate) fn of(kind: &str, name: Option<&str>, luid: Option<&str>) -> Self {
        let shown = |text: Option<&str>| {
            let text = plain(text.unwrap_or_default());
            (!text.is_empty()).then(|| truncate(&text, NAME_CHARACTERS))
        };
        match (shown(name), shown(luid)) {
            (Some(text), _) => Self { text, is_name: true },
            (None, Some(luid)) => Self { text: format!("with the id {luid}"), is_name: false },
            (None, None) => Self { text: format!("({kind} without a name)"), is_name: false },
        }
    }

    /// As it stands by itself.
    pub(crate) fn bare(&self) -> Text {
        self.text.clone().into()
    }

    /// As it stands in a sentence.
    pub(crate) fn in_sentence(&self) -> Text {
        if self.is_name { Text::name(self.text.clone()) } else { self.bare() }
    }
}

/// A time as a person writes it, in UTC; `None` if it is beyond what calendars hold.
pub(crate) fn format_time(at: OffsetDateTime) -> Option<String> {
    let at = at.checked_to_offset(UtcOffset::UTC)?;
    at.format(format_description!("[year]-[month]-[day] at [hour]:[minute]")).ok()
}

pub(crate) fn on(at: OffsetDateTime) -> String {
    format_time(at).map(|at| format!(" on {at} UTC")).unwrap_or_default()
}

/// The first of some texts, and how many more there are.
pub(crate) fn join_first(texts: impl ExactSizeIterator<Item = Text>, most: usize, separator: &'static str) -> Text {
    let more = texts.len().saturating_sub(most);
    let more = (more > 0).then(|| format!("and {more} more").into());
    Text::joined(texts.take(most).chain(more), separator)
}

pub(crate) fn pluralize(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A duration as a person says it.
pub(crate) fn format_duration(seconds: i64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}
