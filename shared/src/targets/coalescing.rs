//! One call of a target for all messages that arrived, with a gap between two calls.

use std::time::Duration;

use time::OffsetDateTime;

/// The least time between two calls. Coefficient takes twelve an hour, five minutes apart, and drops more without an answer.
pub const GAP: Duration = Duration::from_secs(5 * 60);

/// The longest wait for the next call inside of an invocation: the schedule may fire some seconds early.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The time of a call for which it is too early.
///
/// ```
/// use std::time::Duration;
///
/// use shared::targets::coalescing::{GAP, Turn};
/// use time::macros::datetime;
///
/// let now = datetime!(2026-05-21 08:00:00 UTC);
/// let next = |until| Turn::of(Some(until), now);
/// assert_eq!(next(datetime!(2026-05-21 08:00:10 UTC)), Turn::Soon(Duration::from_secs(10)));
/// assert_eq!(next(datetime!(2026-05-21 08:00:11 UTC)), Turn::Later(Duration::from_secs(11)));
/// assert_eq!(next(datetime!(2026-05-21 07:59:59 UTC)), Turn::Soon(Duration::from_secs(1)));
/// assert_eq!(next(datetime!(2026-05-22 08:00:00 UTC)), Turn::Later(GAP));
/// assert_eq!(Turn::of(None, now), Turn::Later(GAP));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// After a wait of some seconds.
    Soon(Duration),
    /// After a wait that is left to the next invocation: whole seconds, at least one.
    Later(Duration),
}

impl Turn {
    /// Returns the time of the next call, if another one excludes it until a time.
    pub fn of(until: Option<OffsetDateTime>, now: OffsetDateTime) -> Self {
        let left = until.map_or(GAP, |until| (until - now).try_into().unwrap_or_default());
        // A time far in the future is that of another clock.
        let left = Duration::from_secs(left.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX));
        let left = left.clamp(Duration::from_secs(1), GAP);
        if left <= PATIENCE { Self::Soon(left) } else { Self::Later(left) }
    }
}
