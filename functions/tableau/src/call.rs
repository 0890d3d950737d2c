//! A call of the REST API, as errors show it.

use std::fmt;

use reqwest::Method;
use shared::redaction::known_secrets::KnownSecrets;
use url::Url;

use crate::{retry::RetryPolicy, version::ApiVersion};

/// A call. Shows its address without secrets, also where a server named a part of it.
#[derive(Clone)]
pub struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// The address without secrets.
    shown: String,
    pub(crate) retry: RetryPolicy,
}

impl Call {
    pub(crate) fn new(method: Method, url: Url, retry: RetryPolicy, secrets: &KnownSecrets) -> Self {
        let shown = secrets.redacted(url.as_str()).into_owned();
        Self { method, url, shown, retry }
    }

    /// Returns a sign-in at an address that a server named. Its path and query may hold unknown secrets.
    pub(crate) fn redirected(url: Url, secrets: &KnownSecrets) -> Self {
        let host = url.origin().ascii_serialization();
        let shown = format!("{}/…/auth/signin", secrets.redacted(&host));
        Self { method: Method::POST, url, shown, retry: RetryPolicy::REPEATABLE }
    }

    pub(crate) fn is_sign_in(&self) -> bool {
        self.url.path().ends_with("/auth/signin")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, url: _, shown, retry: _ } = self;
        write!(formatter, "{method} {shown}")
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Call({self})")
    }
}

/// Returns the address of a call: `segments` below the root of the API's version.
pub(crate) fn address(server: &Url, version: ApiVersion, segments: &[&str]) -> Url {
    let mut url = server.clone();
    // A web address always has a path.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["api", &version.to_string()]).extend(segments);
    }
    url
}
