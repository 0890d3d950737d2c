//! The report about what was simulated.

/// Receives each line as it happens.
pub(in crate::commands) type Report<'a> = &'a mut (dyn FnMut(Line) + Send);

/// A line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) enum Line {
    /// It was done.
    Done(String),
    /// The effect, as it should be.
    Plain(String),
    /// The effect, which deserves a look.
    Notable(String),
    /// The next command, and its effect.
    Next(String, String),
}

impl Line {
    pub(super) fn plain(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }

    pub(super) fn next(command: &str, effect: &str) -> Self {
        Self::Next(command.to_owned(), effect.to_owned())
    }
}
