//! A line of the overview, about a part of the stack.

use crate::{
    findings::Finding,
    terminal::{BAD, GOOD, WARNING, styled},
};

/// The most names in a line.
const MAX_NAMED: usize = 6;

/// Width of the first column.
const LABEL_WIDTH: usize = 11;

/// A line about a part of the stack.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) mark: Mark,
    pub(super) label: &'static str,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    Good,
    Notable,
    Wrong,
}

impl Mark {
    /// The mark of a part with findings.
    pub(super) fn of(findings: &[Finding]) -> Self {
        match findings.iter().map(|finding| finding.is_wrong).max() {
            None => Self::Good,
            Some(false) => Self::Notable,
            Some(true) => Self::Wrong,
        }
    }
}

impl Row {
    /// Formats it for a terminal.
    pub(super) fn line(&self) -> String {
        let Self { mark, label, text } = self;
        let mark = match mark {
            Mark::Good => styled(GOOD, '✓'),
            Mark::Notable => styled(WARNING, '!'),
            Mark::Wrong => styled(BAD, '✗'),
        };
        format!("{mark} {label:LABEL_WIDTH$}  {text}")
    }
}

/// Findings about a part, and the line about it.
pub(super) type Part = (Vec<Finding>, Row);

/// Returns a part whose mark is that of its findings.
pub(super) fn part(label: &'static str, findings: Vec<Finding>, text: String) -> Part {
    let row = Row { mark: Mark::of(&findings), label, text };
    (findings, row)
}

/// Lists names, and the number of those that have no room.
pub(super) fn named<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(MAX_NAMED);
    let named = names.take(MAX_NAMED).collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}
