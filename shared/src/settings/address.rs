//! Web addresses in settings.

use url::{Host, Url};

/// Reads an https address without user, query and fragment. Accepts plain http for a loopback host only, so that all traffic
/// on a network is encrypted.
pub fn parse(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let loopback = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    let encrypted = url.scheme() == "https" || (url.scheme() == "http" && loopback);
    let bare =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    (encrypted && bare).then_some(url)
}
