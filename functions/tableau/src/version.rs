//! Versions of Tableau's REST API.

use std::fmt;

/// The newest version whose answers this client reads.
pub(crate) const NEWEST: ApiVersion = ApiVersion(3, 27);

/// The oldest version that registers webhooks by the name of their event.
pub(crate) const OLDEST: ApiVersion = ApiVersion(3, 9);

/// The version in which every server answers `serverinfo`.
pub(crate) const SERVER_INFO: ApiVersion = ApiVersion(2, 4);

/// A version of the REST API: major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u32, pub u32);

impl fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.0, self.1)
    }
}
