//! Which jobs a run reads, by the clocks of Tableau and of ours.

use time::{Duration, OffsetDateTime};

/// The age at which the event of a job is recovered, if it was missed. By then Tableau has delivered the event, or has
/// disabled the webhook: it tries four times, at intervals that it does not document.
pub const SETTLED: Duration = Duration::minutes(5);

/// The jobs that a run reads, by their ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The earliest end.
    pub from: OffsetDateTime,
    /// The latest end, by the later of both clocks.
    pub until: OffsetDateTime,
    /// Events of jobs that ended before this are recovered.
    pub(crate) settled: OffsetDateTime,
}

/// The clocks of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The time by our clock.
    pub now: OffsetDateTime,
    /// The clock skew of the server against our clock, if an answer had a date. It is positive if the server's clock is ahead.
    pub skew: Option<Duration>,
}

impl Clock {
    /// Returns the time by the earlier clock.
    pub(crate) fn earliest(self) -> OffsetDateTime {
        self.now + self.skew.unwrap_or_default().min(Duration::ZERO)
    }

    /// Returns the time by the later clock.
    pub(crate) fn latest(self) -> OffsetDateTime {
        self.now + self.skew.unwrap_or_default().max(Duration::ZERO)
    }
}
