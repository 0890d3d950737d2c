//! The job queries of a site within a day, which Tableau Cloud limits.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::timestamp::Timestamp;

/// The most job queries of a day after which failures are still explained each minute. Tableau Cloud allows a site 20,000 a
/// day; the rest is for the runs on the schedule, which keep events from being lost.
pub const MAX_TO_EXPLAIN: u32 = 15_000;

/// The step that is worth a write by itself. A run that reads no job makes one query for each 1,000 listed jobs: in the 1,536
/// runs of a day, a few thousand queries at most are not counted.
const STEP: u32 = 10;

/// The number of job queries since midnight UTC: lists of jobs, and jobs in full.
///
/// ```
/// use shared::refreshes::job_queries::{JobQueries, MAX_TO_EXPLAIN};
/// use time::macros::datetime;
///
/// let mut queries = JobQueries::default();
/// queries.add(MAX_TO_EXPLAIN, datetime!(2026-05-21 23:59 UTC));
/// assert!(!queries.leave_room(datetime!(2026-05-21 23:59 UTC)));
/// assert!(queries.leave_room(datetime!(2026-05-22 00:00 UTC)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobQueries {
    /// The beginning of the day; `None` if there was no query yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    day: Option<Timestamp>,
    /// The number on that day.
    #[serde(default)]
    count: u32,
}

impl JobQueries {
    /// Counts queries that were made at a time.
    pub fn add(&mut self, queries: u32, at: OffsetDateTime) {
        let day = beginning_of_day(at);
        let count = if self.day == Some(day) { self.count } else { 0 };
        *self = Self { day: Some(day), count: count.saturating_add(queries) };
    }

    /// Whether failures are explained each minute at that time.
    pub fn leave_room(&self, at: OffsetDateTime) -> bool {
        self.day != Some(beginning_of_day(at)) || self.count < MAX_TO_EXPLAIN
    }

    /// Whether storing it in place of `before` is worth a write by itself.
    pub fn differ_from(&self, before: &Self) -> bool {
        let earlier = if self.day == before.day { before.count } else { 0 };
        self.count.abs_diff(earlier) >= STEP
    }
}

fn beginning_of_day(at: OffsetDateTime) -> Timestamp {
    Timestamp(at.to_offset(time::UtcOffset::UTC).replace_time(time::Time::MIDNIGHT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{Duration, macros::datetime};

    use super::*;

    proptest! {
        #[test]
        fn the_stored_number_is_that_of_the_day_but_for_small_steps(
            runs in prop::collection::vec((0..3_000_i64, prop_oneof![0..3_u32, 0..400_u32]), 1..200),
        ) {
            let (mut now, mut stored) = (datetime!(2026-05-21 22:00 UTC), JobQueries::default());
            let (mut of_day, mut uncounted) = (0, 0);
            for (seconds, queries) in runs {
                let later = now + Duration::seconds(seconds);
                if later.date() != now.date() {
                    (of_day, uncounted) = (0, 0);
                }
                now = later;
                let mut counted = stored;
                counted.add(queries, now);
                of_day += queries;
                if counted.differ_from(&stored) { stored = counted } else { uncounted += queries }
                let mut seen = stored;
                seen.add(0, now);
                prop_assert_eq!(seen.count + uncounted, of_day);
                prop_assert!(queries < STEP || seen.count >= queries);
            }
        }
    }
}
