//! HTTP connections to Tableau servers: sends a call, receives its answer within limits, and retries.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::{
    Certificate, Client, Response, StatusCode,
    header::{ACCEPT, DATE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER},
    redirect::Policy,
};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use tokio::time::{Instant, sleep};

use crate::{
    body::Unreadable,
    call::Call,
    error::TableauError,
    reception::{self, Interrupted},
    retry::Failure,
    wire::retry_after::read_retry_after,
};

/// The most time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The most time for a call, to the end of its answer. Tableau's REST API has been seen to take several seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The time for which an idle connection is kept: its memory is worth more than a new connection costs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest clock skew of a server. A larger one is ignored.
const MAX_CLOCK_SKEW: time::Duration = time::Duration::days(366);

/// Names the project, so that a Tableau administrator recognizes it in the server's logs.
const USER_AGENT: &str = concat!("tableau-fanout/", env!("CARGO_PKG_VERSION"));

/// HTTP connections to all Tableau servers.
#[derive(Debug)]
pub(crate) struct Http {
    trust: Mutex<Trust>,
}

/// A client, and the CA certificates (PEM) that it trusts besides the public ones.
#[derive(Debug)]
struct Trust {
    client: Client,
    ca_certificates: Option<String>,
}

/// CA certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCertificates {
    /// The text holds no certificate.
    #[error("expected certificates in PEM, each from BEGIN CERTIFICATE to END CERTIFICATE")]
    None,
    /// One of them cannot be read.
    #[error("one of the certificates cannot be read")]
    Unreadable(#[source] reqwest::Error),
}

/// An answer of any status.
pub(crate) struct Received {
    pub(crate) status: StatusCode,
    pub(crate) location: Option<String>,
    /// The wait that Tableau asks for.
    retry_after: Option<Duration>,
    /// The server's clock minus ours, if the answer has a date.
    pub(crate) clock_skew: Option<time::Duration>,
    pub(crate) body: Vec<u8>,
}

/// Limits of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits<'a> {
    pub(crate) deadline: Instant,
    /// The most bytes of an answer.
    pub(crate) max_bytes: usize,
    /// Of a list to be filtered, the identifiers of the rows to keep.
    pub(crate) wanted: Option<&'a BTreeSet<String>>,
}

impl Http {
    pub(crate) fn new() -> reqwest::Result<Self> {
        // An error says that the process has a provider already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self { trust: Mutex::new(Trust { client: client(Vec::new())?, ca_certificates: None }) })
    }

    pub(crate) fn trust_ca_certificates(&self, pem: Option<&str>) -> Result<(), InvalidCertificates> {
        let mut trust = self.trust();
        if trust.ca_certificates.as_deref() == pem {
            return Ok(());
        }
        let certificates = match pem {
            None => Vec::new(),
            Some(pem) => Certificate::from_pem_bundle(pem.as_bytes()).map_err(InvalidCertificates::Unreadable)?,
        };
        if pem.is_some() && certificates.is_empty() {
            return Err(InvalidCertificates::None);
        }
        trust.client = client(certificates).map_err(InvalidCertificates::Unreadable)?;
        trust.ca_certificates = pem.map(str::to_owned);
        Ok(())
    }

    fn trust(&self) -> MutexGuard<'_, Trust> {
        // No code that can panic changes it half-way.
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call, and repeats it after its retry policy as long as that fits the deadline.
    pub(crate) async fn exchange(
        &self,
        call: &Call,
        token: Option<&HeaderValue>,
        body: Option<&Value>,
        limits: Limits<'_>,
    ) -> Result<Received, TableauError> {
        let mut attempt = 1;
        loop {
            let result = self.attempt(call, token, body, limits).await;
            let Some((failure, requested)) = failure_of(&result) else { return result };
            // The next attempt may take a whole call's time.
            let fits = |wait: &Duration| Instant::now() + *wait + CALL_TIMEOUT < limits.deadline;
            let wait = call.retry.wait(failure, attempt, requested).filter(fits);
            let Some(wait) = wait else { return result };
            tracing::info!(%call, ?failure, attempt, wait_ms = wait.as_millis(), "repeating a call to Tableau");
            sleep(wait).await;
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        call: &Call,
        token: Option<&HeaderValue>,
        body: Option<&Value>,
        Limits { deadline, max_bytes, wanted }: Limits<'_>,
    ) -> Result<Received, TableauError> {
        let timeout = CALL_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()));
        if timeout.is_zero() {
            return Err(TableauError::OutOfTime { call: Box::new(call.clone()) });
        }
        let client = self.trust().client.clone();
        let mut request = client.request(call.method.clone(), call.url.clone()).header(ACCEPT, "application/json");
        if let Some(token) = token {
            request = request.header("X-Tableau-Auth", token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.timeout(timeout).send().await.map_err(|error| no_answer(call, error, timeout))?;
        let now = OffsetDateTime::now_utc();
        let clock_skew = clock_skew(&response, now);
        let (location, retry_after) = (header(&response, LOCATION), header(&response, RETRY_AFTER));
        let status = response.status();
        let body = reception::receive(&mut response, max_bytes, wanted).await;
        let body = body.map_err(|error| interrupted(call, status, error, timeout))?;
        let retry_after = read_retry_after(retry_after.as_deref(), now + clock_skew.unwrap_or_default(), &body);
        Ok(Received { status, location, retry_after, clock_skew, body })
    }
}

/// Returns a client that trusts the public CA certificates and these.
fn client(ca_certificates: Vec<Certificate>) -> reqwest::Result<Client> {
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .user_agent(USER_AGENT)
        // A redirected POST would become a GET, and would carry a token to an address that a server chose.
        .redirect(Policy::none())
        .tls_certs_merge(ca_certificates)
        .build()
}

/// Returns the failure of an attempt if it may pass, with the wait that Tableau asks for. An answer that is too long, or
/// too late for the deadline, would be so again.
fn failure_of(result: &Result<Received, TableauError>) -> Option<(Failure, Option<Duration>)> {
    match result {
        Ok(Received { status: StatusCode::TOO_MANY_REQUESTS, retry_after, .. }) => {
            Some((Failure::RateLimited, *retry_after))
        }
        Ok(Received { status, .. }) if status.is_server_error() => Some((Failure::ServerError, None)),
        Err(TableauError::NoAnswer { source, .. }) if source.is_timeout() => Some((Failure::Timeout, None)),
        Err(TableauError::NoAnswer { .. }) => Some((Failure::NoAnswer, None)),
        Ok(_) | Err(_) => None,
    }
}

fn header(response: &Response, name: HeaderName) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Returns the server's clock minus ours. The server wrote the time when it began to answer, to the second.
fn clock_skew(response: &Response, now: OffsetDateTime) -> Option<time::Duration> {
    let date = OffsetDateTime::parse(&header(response, DATE)?, &Rfc2822).ok()?;
    Some(date - now).filter(|skew| skew.abs() < MAX_CLOCK_SKEW)
}

/// Makes a failed request an error. A `timeout` below [`CALL_TIMEOUT`] is what the deadline left.
fn no_answer(call: &Call, error: reqwest::Error, timeout: Duration) -> TableauError {
    let call = Box::new(call.clone());
    if error.is_timeout() && !error.is_connect() && timeout < CALL_TIMEOUT {
        TableauError::OutOfTime { call }
    } else {
        TableauError::NoAnswer { call, source: error.without_url() }
    }
}

fn interrupted(call: &Call, status: StatusCode, error: Interrupted, timeout: Duration) -> TableauError {
    let unreadable =
        |what: Unreadable| TableauError::Unreadable { call: Box::new(call.clone()), status, what: what.into() };
    match error {
        Interrupted::Failed(error) if error.is_timeout() && timeout == CALL_TIMEOUT => {
            unreadable("it does not end in time")
        }
        Interrupted::Failed(error) => no_answer(call, error, timeout),
        Interrupted::Unreadable(what) => unreadable(what),
    }
}
