//! Names of targets.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// The most characters of a target's name. An SQS queue's name has at most 80 (Amazon SQS quotas), and a stack's name and two
/// fixed words are in it as well.
const MAX_CHARACTERS: usize = 20;

/// The end of the name of a target's dead-letter queue.
const DEAD: &str = "-dead";

/// Kind of the resource of an alert about a target.
pub(crate) const TARGET: &str = "target";

/// Name of a target: 1 to 20 lower-case letters, digits and hyphens. It does not end in `-dead`, as dead-letter queues do.
///
/// ```
/// use shared::targets::name::TargetName;
///
/// let target: TargetName = "bi-team".parse()?;
/// assert_eq!(target.queue("tableau-fanout"), "tableau-fanout-target-bi-team");
/// assert_eq!(target.dead_letters("tableau-fanout"), "tableau-fanout-target-bi-team-dead");
/// assert!("BI team".parse::<TargetName>().is_err());
/// # Ok::<_, shared::targets::name::InvalidTargetName>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetName(String);

/// The text is not a target's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a target's name consists of 1 to {MAX_CHARACTERS} lower-case letters, digits and hyphens, and does not end in {DEAD}"
)]
pub struct InvalidTargetName;

impl TargetName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the target's queue in a stack.
    pub fn queue(&self, stack: &str) -> String {
        format!("{stack}-target-{self}")
    }

    /// Returns the name of the target's dead-letter queue in a stack.
    pub fn dead_letters(&self, stack: &str) -> String {
        format!("{}{DEAD}", self.queue(stack))
    }
}

impl FromStr for TargetName {
    type Err = InvalidTargetName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_valid = (1..=MAX_CHARACTERS).contains(&text.len()) && text.bytes().all(allowed) && !text.ends_with(DEAD);
        is_valid.then(|| Self(text.to_owned())).ok_or(InvalidTargetName)
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_part_of_the_names_of_two_queues_and_of_no_other() {
        for (text, is_valid) in [
            ("a", true),
            ("bi-team-2", true),
            ("dead", true),
            ("deadline", true),
            ("abcdefghijklmnopqrst", true),
            ("abcdefghijklmnopqrstu", false),
            ("", false),
            ("BI", false),
            ("a_b", false),
            ("a/b", false),
            ("ä", false),
            ("a\n", false),
            // Its queue would be the dead-letter queue of the target `a`.
            ("a-dead", false),
            ("-dead", false),
        ] {
            assert_eq!(text.parse::<TargetName>().is_ok(), is_valid, "{text:?}");
        }
    }
}
