//! Formats of names, times, durations, counts and lists in alerts.

use time::{OffsetDateTime, UtcOffset, macros::format_description};

use crate::alerts::text::{MAX_NAME_CHARACTERS, Text, plain, truncate};

/// Display name of a resource.
pub(crate) struct DisplayName {
    /// One short line.
    text: String,
    is_name: bool,
}

impl DisplayName {
    /// Names a resource by its name, else by its identifier, else by its kind.
    pub(crate) fn of(kind: &str, name: Option<&str>, luid: Option<&str>) -> Self {
        let shown = |text: Option<&str>| {
            let text = plain(text.unwrap_or_default());
            (!text.is_empty()).then(|| truncate(&text, MAX_NAME_CHARACTERS))
        };
        match (shown(name), shown(luid)) {
            (Some(text), _) => Self { text, is_name: true },
            (None, Some(luid)) => Self { text: format!("with the id {luid}"), is_name: false },
            (None, None) => Self { text: format!("({kind} without a name)"), is_name: false },
        }
    }

    /// Returns the name alone.
    pub(crate) fn bare(&self) -> Text {
        self.text.clone().into()
    }

    /// Returns the name for a sentence, which sets it off.
    pub(crate) fn in_sentence(&self) -> Text {
        if self.is_name { Text::name(self.text.clone()) } else { self.bare() }
    }
}

/// Formats a time in UTC, to the minute; `None` if it is outside of the calendar's range.
pub fn format_time(at: OffsetDateTime) -> Option<String> {
    let at = at.checked_to_offset(UtcOffset::UTC)?;
    at.format(format_description!("[year]-[month]-[day] at [hour]:[minute]")).ok()
}

/// Formats a time as the end of a sentence; empty if it is outside of the calendar's range.
pub fn on_date(at: OffsetDateTime) -> String {
    format_time(at).map(|at| format!(" on {at} UTC")).unwrap_or_default()
}

/// Joins the first `max` of some texts and the number of the others.
pub(crate) fn join_first(texts: impl ExactSizeIterator<Item = Text>, max: usize, separator: &'static str) -> Text {
    let more = texts.len().saturating_sub(max);
    let more = (more > 0).then(|| format!("and {more} more").into());
    Text::joined(texts.take(max).chain(more), separator)
}

/// Formats a count with its noun.
pub fn pluralize(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Formats a duration with its two largest units.
pub(crate) fn format_duration(seconds: i64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}
