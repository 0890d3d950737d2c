//! Holds of targets: something that must not happen again until a time. The state table has them.

use std::time::Duration;

use time::OffsetDateTime;

use crate::targets::{coalescing::GAP, name::TargetName};

/// The beginning of the keys of targets' items in the state table.
pub const TARGET_PREFIX: &str = "target#";

/// The time after which an alert about an unsolved problem is repeated.
const REPEAT: Duration = Duration::from_secs(24 * 60 * 60);

/// A hold, from one time to another, in whole seconds.
///
/// ```
/// use shared::targets::hold::{Hold, call_key, problem_key};
/// use time::macros::datetime;
///
/// let hold = Hold::of_call(datetime!(2026-05-21 08:00:00.9 UTC));
/// assert_eq!(hold.since, datetime!(2026-05-21 08:00:00 UTC));
/// assert_eq!(hold.until, datetime!(2026-05-21 08:05:01 UTC));
///
/// let target = "sheet".parse()?;
/// assert_eq!(call_key(&target), "target#sheet");
/// assert_eq!(problem_key(&target), "target#sheet#problem");
/// # Ok::<_, shared::targets::name::InvalidTargetName>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When it began.
    pub since: OffsetDateTime,
    /// When it ends.
    pub until: OffsetDateTime,
}

impl Hold {
    /// Holds further calls of a target that coalesces.
    pub fn of_call(now: OffsetDateTime) -> Self {
        // A second more, since the fraction of this one is left out.
        Self::new(now, GAP + Duration::from_secs(1))
    }

    /// Holds further alerts about a problem of a target.
    pub fn of_problem(now: OffsetDateTime) -> Self {
        Self::new(now, REPEAT)
    }

    fn new(now: OffsetDateTime, time: Duration) -> Self {
        let since = now.truncate_to_second();
        Self { since, until: since + time }
    }
}

/// Returns the key of the hold of a target's next call.
pub fn call_key(target: &TargetName) -> String {
    format!("{TARGET_PREFIX}{target}")
}

/// Returns the key of the hold of alerts about a target's problem.
pub fn problem_key(target: &TargetName) -> String {
    format!("{TARGET_PREFIX}{target}#problem")
}
