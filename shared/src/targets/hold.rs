//! Holds of targets: something that must not happen again until a time. The state table has them.

use std::time::Duration;

use time::OffsetDateTime;

use crate::targets::name::TargetName;

/// The beginning of the keys of targets' items in the state table.
pub const TARGET_PREFIX: &str = "target#";

/// The time between two calls of a target that coalesces. Coefficient takes twelve an hour, five minutes apart, and drops more
/// without a sign. Half a minute more is for a first call that took longer to get there. The schedule is every six minutes.
const GAP: Duration = Duration::from_secs(5 * 60 + 30);

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
/// assert_eq!(hold.until, datetime!(2026-05-21 08:05:30 UTC));
/// // A hold that ends then is over after that time.
/// let now = datetime!(2026-05-21 08:05:00.5 UTC);
/// assert_eq!(Hold::left(Some(hold.until), now).as_secs(), 30);
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
        Self::new(now, GAP)
    }

    /// Returns the time until a hold of a call ends, in whole seconds: at least one.
    pub fn left(until: Option<OffsetDateTime>, now: OffsetDateTime) -> Duration {
        let left: Duration = until.map_or(GAP, |until| (until - now).try_into().unwrap_or_default());
        let seconds = left.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX);
        // A time far in the future is that of another clock.
        Duration::from_secs(seconds).clamp(Duration::from_secs(1), GAP)
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
