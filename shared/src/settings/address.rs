//! Web addresses in settings.

use url::{Host, Url};

/// Reads an https address without user, query and fragment. Accepts plain http for a loopback host only, so that all traffic
/// on a network is encrypted.
pub fn parse(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let bare =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    (is_encrypted(&url) && bare).then_some(url)
}

/// Whether traffic to an address is encrypted wherever it crosses a network.
pub(crate) fn is_encrypted(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && loopback)
}
