//! Stored times.

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::rfc3339};

/// A time, stored as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(#[serde(with = "rfc3339")] pub OffsetDateTime);
