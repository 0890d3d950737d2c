//! Who may call the console: a page that has its address, on this machine.

use std::net::SocketAddr;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Headers of every answer. The page may load its own script and style, and call the console, and nothing else. No text can
/// become markup (`require-trusted-types-for`).
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// The gate before every page and action.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    address: SocketAddr,
    /// First segment of every path.
    token: SecretString,
}

impl Gate {
    /// A gate with a new token, for a server at an address.
    pub(super) fn new(address: SocketAddr) -> Self {
        // Two of 122 random bits each.
        let token = [Uuid::new_v4(), Uuid::new_v4()].map(|half| half.simple().to_string()).concat();
        Self { address, token: token.into() }
    }

    /// The address of the page. It is a secret: it lets its holder act.
    pub(super) fn url(&self) -> String {
        format!("http://{}/{}/", self.address, self.token.expose_secret())
    }

    /// Lets a request with the token pass, without the token. All others get an empty answer.
    pub(super) async fn pass(State(gate): State<Self>, mut request: Request, next: Next) -> Response {
        let mut answer = match gate.check(&request) {
            Ok(path) => {
                *request.uri_mut() = path;
                next.run(request).await
            }
            Err(status) => (status, Body::empty()).into_response(),
        };
        let headers = HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
        answer.headers_mut().extend(headers);
        answer
    }

    /// Checks a request. Returns its address without the token.
    fn check(&self, request: &Request) -> Result<axum::http::Uri, StatusCode> {
        let headers = request.headers();
        // A name of another site that leads to this machine is no name of the console (DNS rebinding).
        let host = self.address.to_string();
        if only(headers, &header::HOST) != Some(&host) {
            return Err(StatusCode::FORBIDDEN);
        }
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let (token, rest) = path.trim_start_matches('/').split_once('/').ok_or(StatusCode::NOT_FOUND)?;
        if !self.is_token(token) {
            return Err(StatusCode::NOT_FOUND);
        }
        let is_own = |origin: &str| origin == format!("http://{host}");
        // A browser names the origin of every POST.
        let is_allowed = match only(headers, &header::ORIGIN) {
            Some(origin) => is_own(origin),
            None => request.method() == Method::GET && !headers.contains_key(header::ORIGIN),
        };
        if !is_allowed {
            return Err(StatusCode::FORBIDDEN);
        }
        format!("/{rest}").parse().map_err(|_| StatusCode::NOT_FOUND)
    }

    /// Compares digests, so that the time of an answer reveals nothing.
    fn is_token(&self, token: &str) -> bool {
        Sha256::digest(token) == Sha256::digest(self.token.expose_secret())
    }
}

/// Returns a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_of_the_console_passes() {
        let gate = Gate::new(([127, 0, 0, 1], 4000).into());
        let token = gate.token.expose_secret().to_owned();
        let check = |method: &str, path: &str, headers: &[(&str, &str)]| {
            let mut request = Request::builder().method(method).uri(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            gate.check(&request.body(Body::empty()).expect("a request")).map(|path| path.to_string())
        };
        let (state, ours) = (format!("/{token}/state?a=b"), ("host", "127.0.0.1:4000"));
        let origin = ("origin", "http://127.0.0.1:4000");
        assert_eq!(check("GET", &state, &[ours]), Ok("/state?a=b".to_owned()));
        assert_eq!(check("GET", &format!("/{token}/"), &[ours]), Ok("/".to_owned()));
        assert_eq!(check("POST", &state, &[ours, origin]), Ok("/state?a=b".to_owned()));
        let wrong = "0".repeat(token.len());
        for path in ["/", "/state", &format!("/{token}"), &format!("/{wrong}/state"), &format!("/{token}0/state")] {
            assert_eq!(check("GET", path, &[ours]), Err(StatusCode::NOT_FOUND), "{path}");
        }
        for headers in [
            &[][..],
            &[("host", "evil.example:4000"), origin],
            &[("host", "127.0.0.1")],
            &[("host", "localhost:4000")],
            &[ours, ("host", "evil.example")],
            &[ours, ("origin", "https://evil.example")],
            &[ours, ("origin", "null")],
            &[ours, ("origin", "http://localhost:4000")],
            &[ours, origin, ("origin", "https://evil.example")],
        ] {
            for method in ["GET", "POST"] {
                assert_eq!(check(method, &state, headers), Err(StatusCode::FORBIDDEN), "{method} {headers:?}");
            }
        }
        assert_eq!(check("POST", &state, &[ours]), Err(StatusCode::FORBIDDEN));
        assert!(!format!("{gate:?}").contains(&token));
    }
}
