//! Addresses of targets.

use std::fmt;

use url::Url;

use crate::settings::address::is_encrypted;

/// Address of a target. It may be a credential, as those of Slack, Teams, Zapier and IFTTT are, so nothing shows it.
///
/// ```
/// use shared::targets::address::Address;
///
/// let address = Address::parse("https://hooks.slack.com/services/T0/B0/secret").ok_or("")?;
/// assert_eq!(address.url().path(), "/services/T0/B0/secret");
/// assert_eq!(format!("{address:?}"), "Address([redacted])");
///
/// // Only a loopback host may have plain http. Credentials have a member of their own.
/// assert!(Address::parse("http://127.0.0.1:8000/hook").is_some());
/// assert!(Address::parse("http://target.example/hook").is_none());
/// assert!(Address::parse("https://user:password@target.example/hook").is_none());
/// # Ok::<_, &str>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// Reads an address; `None` if it is not https (http for a loopback host), or has a user or a password.
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_bare = url.username().is_empty() && url.password().is_none();
        (is_encrypted(&url) && is_bare).then_some(Self(url))
    }

    /// Returns the address for the request to it.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Address([redacted])")
    }
}
