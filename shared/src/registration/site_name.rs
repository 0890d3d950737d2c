//! Names of Tableau sites in the project.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most characters of a site name, which is part of messages and of every registration's address.
pub(crate) const MAX_SITE_NAME_CHARACTERS: usize = 40;

/// Name that an administrator gives a Tableau site: 1 to 40 lower-case letters, digits and hyphens.
///
/// ```
/// use shared::registration::site_name::SiteName;
///
/// let site: SiteName = "marketing".parse()?;
/// assert_eq!(site.as_str(), "marketing");
/// assert!("Marketing EU".parse::<SiteName>().is_err());
/// # Ok::<_, shared::registration::site_name::InvalidSiteName>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SiteName(String);

/// The text is not a site name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a site name consists of 1 to {MAX_SITE_NAME_CHARACTERS} lower-case letters, digits and hyphens")]
pub struct InvalidSiteName;

impl SiteName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SiteName {
    type Err = InvalidSiteName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > MAX_SITE_NAME_CHARACTERS || !text.bytes().all(allowed) {
            return Err(InvalidSiteName);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for SiteName {
    type Error = InvalidSiteName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
