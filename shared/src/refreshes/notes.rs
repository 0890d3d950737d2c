//! Notes of a job: Tableau's text about a failure, without the secrets that drivers print.

use std::{fmt, sync::LazyLock};

use regex_lite::Regex;

use crate::{
    alerts::text::{plain, truncate},
    redaction::redacted,
};

/// The most characters that are kept. An error of a database has hundreds, a stack trace thousands.
const MAX_CHARACTERS: usize = 4000;

/// Parts that differ between jobs that failed for one reason: quoted names, identifiers, numbers, times.
static PARTICULARS: LazyLock<Regex> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "a constant pattern, which tests use")]
    Regex::new(r#"'[^'\n]{0,200}'|"[^"\n]{0,200}"|`[^`\n]{0,200}`|[\w-]*[0-9][\w:.-]*"#).expect("a pattern")
});

/// The notes of a job without secrets. [`Notes::redacted`] is the only constructor.
///
/// ```
/// use shared::refreshes::notes::Notes;
///
/// let notes =
///     Notes::redacted("Login failed. Connection: SERVER=db.example;UID=etl;PWD=the-password;");
/// let shown = "Login failed. Connection: SERVER=db.example;UID=[redacted];PWD=[redacted];";
/// assert_eq!(notes.as_ref().map(Notes::as_str), Some(shown));
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Notes(String);

impl Notes {
    /// Removes the secrets from Tableau's notes; `None` if they are empty.
    pub fn redacted(text: &str) -> Option<Self> {
        let text = redacted(text.trim());
        (!text.is_empty()).then(|| Self(truncate(&text, MAX_CHARACTERS)))
    }

    /// Returns the notes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the notes on one line, without the frames of a stack trace. Leaves out the middle of a long text, since the root
    /// cause stands at the end.
    pub(crate) fn reason(&self, characters: usize) -> String {
        let text = self.without_frames();
        let count = text.chars().count();
        if count <= characters {
            return text;
        }
        let end = characters / 3;
        let start: String = text.chars().take(characters - end - 3).collect();
        let end: String = text.chars().skip(count - end).collect();
        format!("{} … {}", start.trim_end(), end.trim_start())
    }

    /// Returns a text that is equal for all failures of one reason.
    pub(crate) fn without_particulars(&self) -> String {
        PARTICULARS.replace_all(&self.without_frames(), "#").to_lowercase()
    }

    fn without_frames(&self) -> String {
        let is_frame = |line: &&str| {
            let line = line.trim_start();
            line.starts_with("at ") && line.contains('(') || line.starts_with("... ") && line.ends_with(" more")
        };
        let lines: Vec<_> = self.0.lines().filter(|line| !is_frame(line)).collect();
        let text = plain(&lines.join("\n"));
        if text.is_empty() { plain(&self.0) } else { text }
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(text: &str) -> Notes {
        Notes::redacted(text).expect("a text")
    }

    #[test]
    fn a_stack_trace_becomes_its_messages() {
        let trace = "java.lang.RuntimeException: The extract could not be made\n\tat com.tableau.A.run(A.java:7)\n\t\
                     at java.lang.Thread.run(Thread.java:834)\nCaused by: java.sql.SQLException: Login failed\n\t... 12 more";
        let reason =
            "java.lang.RuntimeException: The extract could not be made Caused by: java.sql.SQLException: Login failed";
        assert_eq!(notes(trace).reason(200), reason);
        assert_eq!(notes(trace).reason(40), "java.lang.RuntimeExcepti … Login failed");
        assert_eq!(notes("\tat a.B(C.java:1)").reason(40), "at a.B(C.java:1)");
        assert_eq!(Notes::redacted(" \n"), None);
    }

    #[test]
    fn reasons_are_the_same_when_only_names_numbers_and_times_differ() {
        let same = |one: &str, other: &str| notes(one).without_particulars() == notes(other).without_particulars();
        for (one, other) in [
            ("Login failed for user 'a'. (18456)", "Login failed for user 'svc tableau'. (18456)"),
            ("Timeout after 30 s at 2026-05-21T08:00:00.123Z", "timeout after 1800 s at 2026-05-22T09:10:00Z"),
            (
                "Extract \"Sales\" 5998aaaf-c9a2-4d99-84df-73a4138ab502",
                "Extract \"A b\" 11ff7a7e-4ac9-4d99-84df-73a4138ab503",
            ),
            ("Server 10.0.0.7:1433 is down", "Server 10.0.12.8:1433 is down"),
        ] {
            assert!(same(one, other), "{one}");
        }
        assert!(!same("Login failed for user 'a'", "Cannot open database 'a'"));
    }
}
