//! Stored times.

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::rfc3339};

/// A time, stored as RFC 3339.
///
/// ```
/// use shared::timestamp::Timestamp;
/// use time::macros::datetime;
///
/// let at = Timestamp(datetime!(2026-05-21 10:00 +02:00));
/// assert_eq!(at, Timestamp(datetime!(2026-05-21 08:00 UTC)));
/// assert_eq!(serde_json::to_value(at)?, "2026-05-21T10:00:00+02:00");
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(#[serde(with = "rfc3339")] pub OffsetDateTime);
