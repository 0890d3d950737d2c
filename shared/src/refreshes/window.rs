//! The window of jobs that a run reads, by Tableau's clock and our own.

use time::{Duration, OffsetDateTime};

/// The time after a job's end until its missed event is recovered. By then Tableau has delivered the event, or has failed
/// four times and disabled the webhook. It does not publish the gaps between its attempts.
pub const SETTLED: Duration = Duration::minutes(5);

/// The window of a run: jobs that ended within it are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The earliest end.
    pub from: OffsetDateTime,
    /// The latest end, by the later of the server's clock and our own.
    pub until: OffsetDateTime,
    /// Missed events of jobs that ended before this are recovered.
    pub(crate) settled: OffsetDateTime,
}

/// Our own clock, and how the Tableau server's differs from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The time by our clock.
    pub now: OffsetDateTime,
    /// The server's time minus ours, if an answer had it.
    pub skew: Option<Duration>,
}

impl Clock {
    /// Returns the earlier of the two times.
    pub(crate) fn earliest(self) -> OffsetDateTime {
        self.now + self.skew.unwrap_or_default().min(Duration::ZERO)
    }

    /// Returns the later of the two times.
    pub(crate) fn latest(self) -> OffsetDateTime {
        self.now + self.skew.unwrap_or_default().max(Duration::ZERO)
    }
}
