//! Addresses of sites as they are pasted from a browser.

use thiserror::Error;
use url::Url;

use crate::{settings::address, sites::sign_in::is_cloud};

/// The server and the site that a pasted address names.
///
/// ```
/// use shared::sites::address::SiteAddress;
///
/// let pasted = "https://10ax.online.tableau.com/#/site/marketing/views/Sales/Overview?:iid=1";
/// let SiteAddress { server, content_url } = SiteAddress::parse(pasted)?;
/// assert_eq!(server.as_str(), "https://10ax.online.tableau.com/");
/// assert_eq!(content_url.as_deref(), Some("marketing"));
///
/// // The Default site of a server, and a host that may have several sites.
/// assert_eq!(SiteAddress::parse("https://tableau.example/#/home")?.content_url.as_deref(), Some(""));
/// assert_eq!(SiteAddress::parse("tableau.example")?.content_url, None);
/// # Ok::<_, shared::sites::address::InvalidSiteAddress>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteAddress {
    /// Address of the server, without a path.
    pub server: Url,
    /// The site's contentUrl, empty for the Default site. `None` if the address does not name a site.
    pub content_url: Option<String>,
}

/// The text is not the address of a Tableau site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidSiteAddress {
    /// It is not a web address.
    #[error("this is not a web address. Expected one such as https://10ax.online.tableau.com/#/site/marketing")]
    NotAnAddress,
    /// The token would cross the network in plain text.
    #[error("the address begins with http, which would send the token in plain text. Expected https")]
    NotEncrypted,
}

impl SiteAddress {
    /// Reads an address as a browser shows it: with or without a scheme, and with any page of the site.
    ///
    /// # Errors
    ///
    /// It is not a web address, or not encrypted.
    pub fn parse(text: &str) -> Result<Self, InvalidSiteAddress> {
        let text = text.trim().trim_matches(['"', '\'', '<', '>']);
        let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&text).map_err(|_| InvalidSiteAddress::NotAnAddress)?;
        let mut server = url.clone();
        server.set_path("");
        server.set_query(None);
        server.set_fragment(None);
        let Some(server) = address::parse(server.as_str()) else {
            let is_plain = server.scheme() == "http" && server.username().is_empty() && server.password().is_none();
            return Err(if is_plain { InvalidSiteAddress::NotEncrypted } else { InvalidSiteAddress::NotAnAddress });
        };
        let content_url = content_url(&url);
        // Tableau Cloud has no Default site.
        let content_url = content_url.filter(|site| !site.is_empty() || !is_cloud(&server));
        Ok(Self { server, content_url: content_url.map(str::to_owned) })
    }
}

/// Returns the contentUrl in an address: in its fragment as in `#/site/marketing/home`, or in its path as in
/// `/t/marketing/views/Sales`.
fn content_url(url: &Url) -> Option<&str> {
    let fragment = url.fragment().map(|fragment| fragment.trim_start_matches('/'));
    let in_fragment: Vec<_> = fragment.unwrap_or_default().split(['/', '?']).collect();
    let in_path: Vec<_> = url.path_segments().into_iter().flatten().collect();
    match (in_path.as_slice(), in_fragment.as_slice()) {
        (_, ["site", site, ..]) | (["t" | "site", site, ..] | ["pulse", "site", site, ..], _) if !site.is_empty() => {
            Some(site)
        }
        // Pages of the server, not of a site.
        (_, ["signin" | "server" | "site", ..]) => None,
        (_, [page, ..]) if !page.is_empty() => Some(""),
        (["views", _, ..], _) => Some(""),
        _ => None,
    }
}

/// Formats the address of a site as a browser shows it.
pub fn in_browser(server: &Url, content_url: &str) -> String {
    match content_url {
        "" => format!("{server}#/home"),
        site => format!("{server}#/site/{site}"),
    }
}

/// Returns the page with the refresh tasks of a site, as a browser shows it.
pub fn refreshes_page(server: &Url, content_url: &str) -> Option<Url> {
    let site = match content_url {
        "" => String::new(),
        site => format!("/site/{site}"),
    };
    format!("{server}#{site}/tasks/extractRefreshes").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOUD: &str = "https://10ax.online.tableau.com/";
    const SERVER: &str = "https://tableau.example/";

    #[test]
    fn a_pasted_address_names_the_server_and_the_site() {
        for (pasted, server, site) in [
            ("https://10ax.online.tableau.com/#/site/marketing/home", CLOUD, Some("marketing")),
            ("https://10ax.online.tableau.com/#/site/marketing", CLOUD, Some("marketing")),
            ("https://10ax.online.tableau.com/#/site/marketing?x=1", CLOUD, Some("marketing")),
            ("  <https://10AX.online.tableau.com/#/site/marketing/views/Sales/All?:iid=1> ", CLOUD, Some("marketing")),
            ("10ax.online.tableau.com/#/site/marketing/explore", CLOUD, Some("marketing")),
            ("https://10ax.online.tableau.com/t/marketing/views/Sales/All?:embed=y", CLOUD, Some("marketing")),
            ("https://10ax.online.tableau.com/pulse/site/marketing/metrics/1", CLOUD, Some("marketing")),
            ("https://10ax.online.tableau.com/site/marketing", CLOUD, Some("marketing")),
            ("10ax.online.tableau.com", CLOUD, None),
            ("https://10ax.online.tableau.com/#/home", CLOUD, None),
            ("https://tableau.example/#/home", SERVER, Some("")),
            ("https://tableau.example/#/projects/7?order=name", SERVER, Some("")),
            ("https://tableau.example/views/Sales/All", SERVER, Some("")),
            ("https://tableau.example/#/signin?redirect=%2Fhome", SERVER, None),
            ("https://tableau.example/#/server/sites", SERVER, None),
            ("https://tableau.example/#/site/", SERVER, None),
            ("https://tableau.example/api/3.27/", SERVER, None),
            ("https://tableau.example/?x=1", SERVER, None),
            ("tableau.example:8443/#/site/fin", "https://tableau.example:8443/", Some("fin")),
            ("http://localhost:8000", "http://localhost:8000/", None),
        ] {
            let expected =
                SiteAddress { server: server.parse().expect("a server"), content_url: site.map(str::to_owned) };
            assert_eq!(SiteAddress::parse(pasted), Ok(expected), "{pasted}");
        }
    }

    #[test]
    fn a_text_that_is_no_safe_address_is_refused() {
        for pasted in ["", "the marketing site", "https://", "ftp://tableau.example", "https://a:b@tableau.example/"] {
            assert_eq!(SiteAddress::parse(pasted), Err(InvalidSiteAddress::NotAnAddress), "{pasted}");
        }
        for pasted in ["http://tableau.example/#/site/fin", "HTTP://10ax.online.tableau.com"] {
            assert_eq!(SiteAddress::parse(pasted), Err(InvalidSiteAddress::NotEncrypted), "{pasted}");
        }
    }

    #[test]
    fn an_address_in_a_browser_is_read_again() {
        for (server, site) in [(CLOUD, "marketing"), (SERVER, "fin"), (SERVER, "")] {
            let server: Url = server.parse().expect("a server");
            let expected = SiteAddress { server: server.clone(), content_url: Some(site.to_owned()) };
            assert_eq!(SiteAddress::parse(&in_browser(&server, site)), Ok(expected));
        }
    }
}
