//! What Tableau notes about a job: the reason of a failure, in Tableau's words and without the secrets that drivers
//! print.

use std::fmt;

use crate::alert::{plain, shortened};

/// The most characters that are kept. A database's complaint has hundreds, a stack trace thousands.
const CHARACTERS: usize = 4000;

/// The notes of a job, without secrets: there is no other way to make them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Notes(String);

impl Notes {
    /// Takes the secrets out of what Tableau notes; `None` if it notes nothing.
    pub fn redacted(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(shortened(text, CHARACTERS)))
    }

    /// The notes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a person wants to read of them, on one line and short.
    pub(crate) fn reason(&self, characters: usize) -> String {
        shortened(&plain(&self.0), characters)
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}
