//! Redirects of sign-ins: only Tableau receives a token's name and secret.

use thiserror::Error;
use url::Url;

/// End of every sign-in's path.
const SIGN_IN_PATH: &str = "/auth/signin";

/// End of every host name of Tableau Cloud.
const CLOUD: &str = ".online.tableau.com";

/// A sign-in must not be redirected to this address. Shows the host alone: path and query may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct RedirectRefused(String);

/// Returns the target of a sign-in's redirect to `location`, which the address `from` answered, if it may receive a token of
/// `server`. It must be a sign-in address on the same host and port or, on Tableau Cloud, on any of its hosts.
///
/// ```
/// use shared::sites::sign_in::redirected;
/// use url::Url;
///
/// let server: Url = "https://10ax.online.tableau.com".parse()?;
/// let sign_in = server.join("/api/3.27/auth/signin")?;
///
/// let pod = "https://dub01.online.tableau.com/api/3.27/auth/signin";
/// assert_eq!(redirected(&server, &sign_in, pod)?.as_str(), pod);
///
/// let other = "https://tableau.example/api/3.27/auth/signin";
/// assert!(redirected(&server, &sign_in, other).is_err());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// The target must not receive the token.
pub fn redirected(server: &Url, from: &Url, location: &str) -> Result<Url, RedirectRefused> {
    let target = from.join(location).ok().filter(|target| target.host().is_some());
    let Some(mut target) = target else { return Err(RedirectRefused("an invalid address".to_owned())) };
    // Plain http only if the server itself has it, which is on a loopback host.
    let is_encrypted = target.scheme() == "https" || (target.scheme() == "http" && server.scheme() == "http");
    let is_same = target.host() == server.host() && target.port_or_known_default() == server.port_or_known_default();
    let is_bare = target.username().is_empty() && target.password().is_none();
    let is_allowed = is_encrypted
        && is_bare
        && (is_same || (is_cloud(server) && is_cloud(&target)))
        && target.path().ends_with(SIGN_IN_PATH);
    if is_allowed {
        // HTTP does not send it.
        target.set_fragment(None);
        Ok(target)
    } else {
        Err(RedirectRefused(target.origin().ascii_serialization()))
    }
}

/// Whether the address is on a host of Tableau Cloud, at the default port.
pub fn is_cloud(url: &Url) -> bool {
    let is_host = url.domain().and_then(|name| name.strip_suffix(CLOUD)).is_some_and(|pod| !pod.is_empty());
    is_host && url.scheme() == "https" && url.port().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOUD: &str = "https://10ax.online.tableau.com/";
    const SERVER: &str = "https://tableau.example/";
    const OTHER_PORT: &str = "https://tableau.example:8443/";
    const HERE: &str = "http://127.0.0.1:8000/";

    fn redirect(server: &str, location: &str) -> Result<String, String> {
        let server: Url = server.parse().expect("a server");
        let from = server.join("/api/3.27/auth/signin").expect("an address");
        redirected(&server, &from, location).map(String::from).map_err(|refused| refused.to_string())
    }

    #[test]
    fn a_sign_in_is_redirected_to_tableau() {
        for (server, location, target) in [
            (CLOUD, "https://dub01.online.tableau.com/api/3.27/auth/signin", ""),
            (CLOUD, "https://DUB01.online.tableau.com:443/api/3.27/auth/signin", "dub01.online.tableau.com/api"),
            (CLOUD, "https://us-west-2b.online.tableau.com/api/3.27/auth/signin?di=1&to=%2F", ""),
            (CLOUD, "https://a.b.online.tableau.com/pod/api/3.27/auth/signin", ""),
            (CLOUD, "//dub01.online.tableau.com/api/3.27/auth/signin", "https://dub01"),
            (CLOUD, "/t/api/3.27/auth/signin", "https://10ax.online.tableau.com/t/api"),
            (CLOUD, "signin?again", "https://10ax.online.tableau.com/api/3.27/auth/signin?again"),
            (SERVER, "https://tableau.example/proxy/api/3.27/auth/signin?x=1", ""),
            (SERVER, "https://tableau.example:443/api/3.27/auth/signin", "https://tableau.example/api"),
            (
                SERVER,
                "https://tableau.example/api/3.27/auth/signin#top",
                "https://tableau.example/api/3.27/auth/signin",
            ),
            (OTHER_PORT, "https://tableau.example:8443/api/3.27/auth/signin", ""),
            (HERE, "http://127.0.0.1:8000/pod/api/3.27/auth/signin", ""),
            (HERE, "https://127.0.0.1:8000/api/3.27/auth/signin", ""),
        ] {
            let redirected = redirect(server, location).unwrap_or_else(|to| panic!("{server} {location}: {to}"));
            let expected = if target.is_empty() { location } else { target };
            assert!(redirected.contains(expected), "{server} {location}: {redirected}");
        }
    }

    #[test]
    fn a_redirect_to_another_place_is_refused_with_its_host() {
        let path = "/api/3.27/auth/signin";
        for (server, location, host) in [
            // Single sign-on.
            (CLOUD, "https://sso.example/login?SAMLRequest=abc", "https://sso.example"),
            (SERVER, "https://sso.example/api/3.27/auth/signin", "https://sso.example"),
            (SERVER, "/login?SAMLRequest=abc", "https://tableau.example"),
            (SERVER, "https://tableau.example/auth/signin/saml", "https://tableau.example"),
            (SERVER, "https://tableau.example/xauth/signinx", "https://tableau.example"),
            (SERVER, "https://tableau.example/oauth/signin", "https://tableau.example"),
            (SERVER, "https://tableau.example/?/auth/signin", "https://tableau.example"),
            (SERVER, "https://tableau.example/#/auth/signin", "https://tableau.example"),
            // Look-alikes of Tableau Cloud.
            (CLOUD, "https://online.tableau.com.evil.example{path}", "https://online.tableau.com.evil.example"),
            (
                CLOUD,
                "https://10ax.online.tableau.com.evil.example{path}",
                "https://10ax.online.tableau.com.evil.example",
            ),
            (CLOUD, "https://evilonline.tableau.com{path}", "https://evilonline.tableau.com"),
            (CLOUD, "https://online.tableau.com{path}", "https://online.tableau.com"),
            (CLOUD, "https://.online.tableau.com{path}", "https://.online.tableau.com"),
            (CLOUD, "https://10ax.online.tableau.com.{path}", "https://10ax.online.tableau.com."),
            (CLOUD, "https://tableau.com{path}", "https://tableau.com"),
            (CLOUD, "https://10ax.online.tableau.com@evil.example{path}", "https://evil.example"),
            (CLOUD, "https://evil.example/10ax.online.tableau.com{path}", "https://evil.example"),
            (CLOUD, "https://evil.example\\10ax.online.tableau.com{path}", "https://evil.example"),
            (CLOUD, "https://evil.example?.online.tableau.com{path}", "https://evil.example"),
            (CLOUD, "https://user:secret@dub01.online.tableau.com{path}", "https://dub01.online.tableau.com"),
            (CLOUD, "https://10ax.оnline.tableau.com{path}", "https://10ax.xn--nline-iye.tableau.com"),
            (CLOUD, "//evil.example{path}", "https://evil.example"),
            (CLOUD, "https:evil.example", "https://10ax.online.tableau.com"),
            // Other ports, and no encryption.
            (CLOUD, "https://dub01.online.tableau.com:8443{path}", "https://dub01.online.tableau.com:8443"),
            (CLOUD, "https://10ax.online.tableau.com:8443{path}", "https://10ax.online.tableau.com:8443"),
            (CLOUD, "http://dub01.online.tableau.com{path}", "http://dub01.online.tableau.com"),
            (CLOUD, "http://10ax.online.tableau.com:443{path}", "http://10ax.online.tableau.com:443"),
            (SERVER, "http://tableau.example{path}", "http://tableau.example"),
            (SERVER, "http://tableau.example:443{path}", "http://tableau.example:443"),
            (SERVER, "https://tableau.example:8443{path}", "https://tableau.example:8443"),
            (OTHER_PORT, "https://tableau.example{path}", "https://tableau.example"),
            (SERVER, "https://www.tableau.example{path}", "https://www.tableau.example"),
            (SERVER, "https://dub01.online.tableau.com{path}", "https://dub01.online.tableau.com"),
            (SERVER, "http://127.0.0.1{path}", "http://127.0.0.1"),
            (HERE, "http://localhost:8000{path}", "http://localhost:8000"),
            (HERE, "http://127.0.0.1:8001{path}", "http://127.0.0.1:8001"),
            (HERE, "http://127.0.0.2:8000{path}", "http://127.0.0.2:8000"),
            // Other schemes, and invalid addresses.
            (SERVER, "ftp://tableau.example{path}", "ftp://tableau.example"),
            (SERVER, "file:///auth/signin", "an invalid address"),
            (SERVER, "data:,/auth/signin", "an invalid address"),
            (SERVER, "https://", "an invalid address"),
        ] {
            let location = location.replace("{path}", path);
            assert_eq!(redirect(server, &location), Err(host.to_owned()), "{server} {location}");
        }
    }
}
