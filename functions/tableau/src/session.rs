//! Sessions at one site: make calls, sign in once more when the session ended, and sign out.

use std::{collections::BTreeSet, time::Duration};

use reqwest::Method;
use serde_json::Value;
use shared::{redaction::known_secrets::KnownSecrets, sites::entry::SiteEntry};
use tokio::time::Instant;
use url::Url;

use crate::{
    answer::Answer,
    body::{SINGLE, Unreadable},
    call::{Call, address},
    error::TableauError,
    http::{Http, Limits, Received},
    retry::RetryPolicy,
    sign_in::sign_in,
    version::ApiVersion,
    wire::session::Credentials,
};

/// The time reserved for signing out.
const SIGN_OUT_TIME: Duration = Duration::from_secs(5);

/// A session at one site. End it with [`Session::sign_out`].
#[derive(Debug)]
pub struct Session<'a> {
    http: &'a Http,
    entry: &'a SiteEntry,
    server: Url,
    version: ApiVersion,
    credentials: Credentials,
    /// Hidden in everything that the server answers.
    secrets: KnownSecrets,
    is_renewed: bool,
    clock_skew: Option<time::Duration>,
    pub(crate) job_queries: u32,
    deadline: Instant,
}

/// A request below the site's address.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a [&'a str],
    pub(crate) query: &'a str,
    pub(crate) body: Option<Value>,
    pub(crate) retry: RetryPolicy,
    /// The most bytes of the answer.
    pub(crate) max_bytes: usize,
    /// Of a list to be filtered, the identifiers of the rows to keep.
    pub(crate) wanted: Option<&'a BTreeSet<String>>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: Method, path: &'a [&'a str]) -> Self {
        let retry = RetryPolicy::REPEATABLE;
        Self { method, path, query: "", body: None, retry, max_bytes: SINGLE, wanted: None }
    }

    pub(crate) fn get(path: &'a [&'a str]) -> Self {
        Self::new(Method::GET, path)
    }
}

impl<'a> Session<'a> {
    /// Signs in. The `secrets` include the token's.
    pub(crate) async fn open(
        http: &'a Http,
        entry: &'a SiteEntry,
        version: ApiVersion,
        mut secrets: KnownSecrets,
        deadline: Instant,
    ) -> Result<Self, TableauError> {
        let (server, credentials) = sign_in(http, entry, version, &mut secrets, deadline).await?;
        let (is_renewed, clock_skew, job_queries) = (false, None, 0);
        Ok(Self { http, entry, server, version, credentials, secrets, is_renewed, clock_skew, job_queries, deadline })
    }

    /// Returns Tableau's identifier of the site.
    pub fn site_luid(&self) -> &str {
        &self.credentials.site_id
    }

    /// Returns the hosts of the site's server: the declared one, and the one that answers.
    pub(crate) fn hosts(&self) -> [Option<String>; 2] {
        [&self.entry.server, &self.server].map(|server| server.host_str().map(str::to_owned))
    }

    /// Returns Tableau's identifier of the token's owner, if the answer to the sign-in named it.
    pub(crate) fn user_id(&self) -> Option<&str> {
        self.credentials.user_id.as_deref()
    }

    /// Returns the name of the token.
    pub(crate) fn token_name(&self) -> &'a str {
        &self.entry.token_name
    }

    /// Returns the server's clock minus ours after its last answer; `None` if no answer had a date.
    pub fn clock_skew(&self) -> Option<time::Duration> {
        self.clock_skew
    }

    /// Ends the session. One that ended already is no error.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn sign_out(mut self) -> Result<(), TableauError> {
        let url = address(&self.server, self.version, &["auth", "signout"]);
        let call = Call::new(Method::POST, url, RetryPolicy::REPEATABLE, &self.secrets);
        let limits = Limits { deadline: self.deadline, max_bytes: SINGLE, wanted: None };
        match self.attempt(call, None, limits).await {
            Err(error) if error.is_session_ended() => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Makes a call to the site. Signs in once more if the session ended.
    pub(crate) async fn call(&mut self, request: Request<'_>) -> Result<Answer, TableauError> {
        let Request { method, path, query, body, retry, max_bytes, wanted } = request;
        let deadline = self.deadline.checked_sub(SIGN_OUT_TIME).unwrap_or(self.deadline);
        loop {
            let path = [&["sites", &self.credentials.site_id], path].concat();
            let mut url = address(&self.server, self.version, &path);
            url.set_query(Some(query).filter(|query| !query.is_empty()));
            let call = Call::new(method.clone(), url, retry, &self.secrets);
            match self.attempt(call, body.as_ref(), Limits { deadline, max_bytes, wanted }).await {
                Err(error) if error.is_session_ended() && !self.is_renewed => {
                    self.is_renewed = true;
                    let Self { http, entry, version, secrets, .. } = self;
                    (self.server, self.credentials) = sign_in(http, entry, *version, secrets, deadline).await?;
                }
                result => return result,
            }
        }
    }

    /// Reads an answer, with all known secrets hidden.
    pub(crate) fn read<T>(
        &mut self,
        answer: &Answer,
        read: impl FnOnce(&Value) -> Result<T, Unreadable>,
    ) -> Result<T, TableauError> {
        answer.read(&mut self.secrets, read)
    }

    async fn attempt(&mut self, call: Call, body: Option<&Value>, limits: Limits<'_>) -> Result<Answer, TableauError> {
        let Received { status, clock_skew, body, .. } =
            self.http.exchange(&call, Some(&self.credentials.token), body, limits).await?;
        self.clock_skew = clock_skew.or(self.clock_skew);
        Answer::checked(call, status, body, &self.secrets)
    }
}
