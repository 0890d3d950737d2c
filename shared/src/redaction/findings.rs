//! Places in a text that redaction hides, and the text that replaces them.

use std::ops::Range;

/// Replaces a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// Places in a text to hide.
#[derive(Default)]
pub(super) struct Findings {
    /// Secrets, always hidden.
    pub(super) secrets: Vec<Range<usize>>,
    /// Names of users, hidden in settings next to a secret only.
    pub(super) users: Vec<Range<usize>>,
}
