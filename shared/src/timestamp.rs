//! Times as RFC 3339.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, serde::rfc3339};

/// A time. It is stored and published in full, and shown in UTC to the second, as Tableau writes times.
///
/// ```
/// use shared::timestamp::Timestamp;
/// use time::macros::datetime;
///
/// let at = Timestamp(datetime!(2026-05-21 10:00:00.5 +02:00));
/// assert_eq!(at, Timestamp(datetime!(2026-05-21 08:00:00.5 UTC)));
/// assert_eq!(serde_json::to_value(at)?, "2026-05-21T10:00:00.5+02:00");
/// assert_eq!(at.format().as_deref(), Some("2026-05-21T08:00:00.5Z"));
/// assert_eq!(at.to_string(), "2026-05-21T08:00:00Z");
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(#[serde(with = "rfc3339")] pub OffsetDateTime);

impl Timestamp {
    /// Formats it in UTC and in full; `None` if it is outside of the calendar's range.
    pub fn format(self) -> Option<String> {
        self.0.checked_to_offset(UtcOffset::UTC)?.format(&Rfc3339).ok()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&Self(self.0.truncate_to_second()).format().unwrap_or_default())
    }
}
