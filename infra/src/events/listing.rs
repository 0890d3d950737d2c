//! A list of events, and a plot of the last 24 hours.

use serde::Serialize;
use shared::timestamp::Timestamp;
use time::{Duration, OffsetDateTime};

use crate::events::record::Record;

/// The number of bins of a plot.
const BINS: usize = 48;

/// The time of a bin.
const BIN: Duration = Duration::minutes(30);

/// Events, newest first.
#[derive(Clone, Debug, Serialize)]
pub struct Listing<'a> {
    /// The first moment that was searched.
    pub since: Timestamp,
    /// The number of selected events.
    pub total: usize,
    /// The newest of them.
    pub events: Vec<&'a Record>,
    /// All of them in the last 24 hours, in bins of half an hour, oldest first.
    pub plot: Vec<Bin>,
    /// Remarks for a reader.
    pub notes: &'a [String],
}

/// The events of half an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// Its begin.
    pub at: Timestamp,
    /// The number of events.
    pub events: usize,
    /// The number of those about a failure.
    pub failures: usize,
    /// The median of the latencies, if there are any.
    pub latency_ms: Option<u64>,
}

/// Counts events in bins that end now.
pub(super) fn plot<'a>(records: impl IntoIterator<Item = &'a Record>, now: OffsetDateTime) -> Vec<Bin> {
    let begin = |place: usize| now - BIN * u32::try_from(BINS - place).unwrap_or_default();
    let mut bins: Vec<Vec<&Record>> = vec![Vec::new(); BINS];
    for record in records {
        // An event of this moment belongs to the last bin.
        let place = (record.at.0 - begin(0)).whole_milliseconds().div_euclid(BIN.whole_milliseconds());
        if let Some(bin) = usize::try_from(place).ok().and_then(|place| bins.get_mut(place.min(BINS - 1))) {
            bin.push(record);
        }
    }
    let bins = bins.into_iter().enumerate().map(|(place, records)| {
        let mut latencies: Vec<_> = records.iter().filter_map(|record| record.latency_ms).collect();
        latencies.sort_unstable();
        Bin {
            at: Timestamp(begin(place).truncate_to_second()),
            events: records.len(),
            failures: records.iter().filter(|record| record.event.ends_with("Failed")).count(),
            latency_ms: latencies.get(latencies.len() / 2).copied(),
        }
    });
    bins.collect()
}
