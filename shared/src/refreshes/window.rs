//! Which jobs a run reads, by the clocks of Tableau and of ours.

use time::{Duration, OffsetDateTime};

/// How long ago a job must have ended for its missed event to be recovered. By then Tableau has delivered the event or has
/// given it up and disabled the webhook: it tries four times, with gaps that are not published.
pub const SETTLED: Duration = Duration::minutes(5);

/// The jobs that a run reads, by their ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The earliest end.
    pub from: OffsetDateTime,
    /// The latest end, by the server's clock or ours, whichever is ahead.
    pub until: OffsetDateTime,
    /// Events of jobs that ended before this are recovered.
    pub(crate) settled: OffsetDateTime,
}

/// The clocks of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The time by our clock.
    pub now: OffsetDateTime,
    /// How far the server's clock is ahead of ours, if an answer has said so.
    pub ahead: Option<Duration>,
}

impl Clock {
    /// The time by the clock that is behind.
    pub(crate) fn earliest(self) -> OffsetDateTime {
        self.now + self.ahead.unwrap_or_default().min(Duration::ZERO)
    }

    /// The time by the clock that is ahead.
    pub(crate) fn latest(self) -> OffsetDateTime {
        self.now + self.ahead.unwrap_or_default().max(Duration::ZERO)
    }
}
