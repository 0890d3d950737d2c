//! Problems of a stack that a command found, each with its fix.

use serde::Serialize;

use crate::terminal::{bad, warning};

/// Something that is wrong with a stack, or that deserves a look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether something does not work. Otherwise it only deserves a look.
    #[serde(skip)]
    pub is_wrong: bool,
    /// The description: what happened, and the effect.
    pub what: String,
    /// The fix, mostly a command.
    pub fix: String,
}

impl Finding {
    /// Something does not work.
    pub fn wrong(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { is_wrong: true, what: what.into(), fix: fix.into() }
    }

    /// Something deserves a look.
    pub fn notable(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { is_wrong: false, ..Self::wrong(what, fix) }
    }

    /// Formats it for a terminal, with the fix on a line of its own.
    pub fn lines(&self) -> Vec<String> {
        let Self { is_wrong, what, fix } = self;
        let first = if *is_wrong { bad(what) } else { warning(what) };
        let fix = (!fix.is_empty()).then(|| format!("  Fix: {fix}"));
        [first].into_iter().chain(fix).collect()
    }
}
