//! Tableau's REST API, as far as webhooks and what they did not tell need it.

#[doc(hidden)]
pub mod fuzzing;

mod answer;
mod secrets;
mod wire;

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    error::Error,
    fmt,
    iter::successors,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::{
    Certificate, Client, Method, StatusCode,
    header::{ACCEPT, DATE, HeaderValue, LOCATION, RETRY_AFTER},
    redirect::Policy,
};
use secrecy::ExposeSecret;
use serde_json::Value;
use shared::{
    problems::ProblemKind,
    redaction::known_secrets::KnownSecrets,
    refreshes::job::{EndedJob, Refresh},
    sites::{
        entry::SiteEntry,
        sign_in,
        webhook::{DesiredWebhook, ObservedWebhook, OddName, OddWebhook},
    },
};
use time::{
    OffsetDateTime, UtcOffset,
    format_description::well_known::{Rfc2822, Rfc3339},
};
use tokio::time::{Instant, sleep};
use url::Url;

pub use answer::SITES_AT_ONCE;
use answer::{Interrupted, LIST, SINGLE};
use wire::{Credentials, Job, JobPage, Listed, Page, Pagination, REFRESHES};

/// The newest version whose answers are known to be read here.
const NEWEST: ApiVersion = ApiVersion(3, 27);

/// The oldest version that knows webhooks by the name of their event.
const OLDEST: ApiVersion = ApiVersion(3, 9);

/// The oldest version that every server tells its own of.
const INFO: ApiVersion = ApiVersion(2, 4);

/// How often a call is made at most, if it failed without being carried out or can be repeated without harm.
const MOST_ATTEMPTS: u32 = 3;

/// How long to wait before the second attempt; twice as long before the third. Less by chance, so that many sites of one
/// server do not come back together.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);

/// How long a connection to Tableau may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call to Tableau may take, to the end of its answer: its REST API has been seen to take several seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of a session's time is kept for ending it.
const SIGN_OUT_TIME: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next call. What waits longer can make another; and what a server made it take in
/// memory is given back.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait when Tableau asks for patience and does not say for how long; twice as long the second time.
const UNTOLD_WAIT: Duration = Duration::from_secs(15);

/// How far a server's clock can be off. A time that is further off is none.
const MOST_AHEAD: time::Duration = time::Duration::days(366);

/// DisplayName so that a Tableau administrator finds us in the server's logs.
const USER_AGENT: &str = concat!("tableau-fanout/", env!("CARGO_PKG_VERSION"));

/// How often a sign-in is sent on to another pod before that is taken for a loop.
const MOST_REDIRECTS: usize = 3;

/// Error code of a sign-in whose token is wrong, revoked, expired, or for another site.
const TOKEN_REFUSED: &str = "401001";

/// Error code of a session that is gone: it expired, or another sign-in with the same token ended it.
const SESSION_GONE: &str = "401002";

/// Error code of who may not see to webhooks.
const NOT_AN_ADMINISTRATOR: &str = "403004";

/// Error code of a site that does not exist.
const NO_SUCH_SITE: &str = "404000";

/// Error code of a webhook that does not exist.
const NO_SUCH_WEBHOOK: &str = "400113";

/// Error code of a page after the last.
const NO_SUCH_PAGE: &str = "400006";

/// How many jobs Tableau lists on a page at most.
const JOBS_ON_A_PAGE: usize = 1000;

/// How many pages a list may have: more than fit into a site's share of the memory, if they are full.
const MOST_PAGES: usize = 100;

/// A version of the REST API: major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u32, pub u32);

impl fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.0, self.1)
    }
}

/// A call, as errors name it: without the secrets that its address may hold where a server named a part of it.
#[derive(Clone)]
pub struct Call {
    method: Method,
    url: Url,
    /// The address as it is shown.
    shown: String,
    /// Whether the address is one that a server named.
    is_redirected: bool,
}

impl Call {
    fn new(method: Method, url: Url, secrets: &KnownSecrets) -> Self {
        let shown = secrets.redacted(url.as_str()).into_owned();
        Self { method, url, shown, is_redirected: false }
    }

    /// A sign-in that is sent on to there. Path and query may hold secrets that nobody knows.
    fn redirected(url: Url, secrets: &KnownSecrets) -> Self {
        let host = url.origin().ascii_serialization();
        let shown = format!("{}/…/auth/signin", secrets.redacted(&host));
        Self { method: Method::POST, url, shown, is_redirected: true }
    }

    /// Whether making it twice does no harm: all but the making of a webhook, of which there would be two. A sign-in
    /// that is repeated ends the session of the first.
    fn is_repeatable(&self) -> bool {
        self.method != Method::POST || !self.url.path().ends_with("/webhooks")
    }

    fn is_sign_in(&self) -> bool {
        self.is_redirected || self.url.path().ends_with("/auth/signin")
    }

    /// Whether it is worth waiting for when Tableau asks for patience. What jobs tell, the next run learns as well.
    fn is_worth_waiting_for(&self) -> bool {
        !self.url.path_segments().is_some_and(|mut segments| segments.any(|segment| segment == "jobs"))
    }
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, url: _, shown, is_redirected: _ } = self;
        write!(formatter, "{method} {shown}")
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Call({self})")
    }
}

/// A call to Tableau that did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum TableauError {
    /// There was no answer, so there is no telling whether the call was carried out.
    #[error("{call} got no answer")]
    NoAnswer {
        /// The call.
        call: Box<Call>,
        /// Why.
        source: reqwest::Error,
    },
    /// There was no answer before the time of the session was over, so there is no telling either.
    #[error("{call} had not been answered when the time was over")]
    OutOfTime {
        /// The call.
        call: Box<Call>,
    },
    /// Tableau refused.
    #[error("{call} was answered with {status}{}: {text}", code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Refused {
        /// The call.
        call: Box<Call>,
        /// The HTTP status.
        status: StatusCode,
        /// Tableau's own code, if the answer is its own.
        code: Option<String>,
        /// What the answer says.
        text: String,
    },
    /// A sign-in is to be sent on to where no token is to be shown, and was not.
    #[error("{call} was answered with {status}, which sends it on to {to}")]
    Redirected {
        /// The call.
        call: Box<Call>,
        /// The HTTP status.
        status: StatusCode,
        /// Where to: the host alone.
        to: String,
    },
    /// The server is older than webhooks as we need them.
    #[error("{server} speaks version {version} of the REST API, and webhooks need {OLDEST} or newer")]
    TooOld {
        /// The server.
        server: Url,
        /// The newest version that it speaks.
        version: ApiVersion,
    },
    /// Tableau answered something that cannot be read whole.
    #[error("{call} was answered with {status}, but the answer cannot be read: {what}")]
    Unreadable {
        /// The call.
        call: Box<Call>,
        /// The HTTP status.
        status: StatusCode,
        /// What is wrong with it.
        what: Cow<'static, str>,
    },
}

impl TableauError {
    /// Whether it concerns this one call alone, so that others may still succeed.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                status.is_client_error()
                    && ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS]
                        .contains(status)
            }
            _ => false,
        }
    }

    /// Whether it is no matter of what was asked for, but of the session or the site: every other call would fail alike.
    pub fn concerns_the_site(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS].contains(status)
                    || self.has_code(NO_SUCH_SITE)
            }
            Self::OutOfTime { .. } | Self::Redirected { .. } | Self::TooOld { .. } => true,
            Self::NoAnswer { .. } | Self::Unreadable { .. } => false,
        }
    }

    /// Whether the time for an answer ran out.
    fn is_timeout(&self) -> bool {
        matches!(self, Self::NoAnswer { source, .. } if source.is_timeout())
    }

    /// Whether there is no telling if Tableau carried the call out.
    pub fn is_uncertain(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::OutOfTime { .. } | Self::Unreadable { .. } => true,
            Self::Refused { status, .. } => status.is_server_error(),
            Self::Redirected { .. } | Self::TooOld { .. } => false,
        }
    }

    /// What kind of problem it means for the site.
    pub fn kind(&self) -> ProblemKind {
        match (self, self.code()) {
            (_, Some(TOKEN_REFUSED)) => ProblemKind::TokenRefused,
            (_, Some(SESSION_GONE)) => ProblemKind::TokenShared,
            (_, Some(NOT_AN_ADMINISTRATOR)) => ProblemKind::NotAdministrator,
            (_, Some(NO_SUCH_SITE)) => ProblemKind::SiteNotFound,
            (Self::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. }, _) => ProblemKind::TooManyRequests,
            // Without a code that is known.
            (Self::Refused { status: StatusCode::UNAUTHORIZED, call, .. }, _) if call.is_sign_in() => {
                ProblemKind::TokenRefused
            }
            (Self::Refused { status: StatusCode::UNAUTHORIZED, .. }, _) => ProblemKind::TokenShared,
            (Self::NoAnswer { source, .. }, _) if is_about_trust(source) => ProblemKind::CertificateNotTrusted,
            (Self::NoAnswer { .. }, _) => ProblemKind::ServerUnreachable,
            (Self::OutOfTime { .. }, _) => ProblemKind::OutOfTime,
            (Self::Redirected { .. }, _) => ProblemKind::SignInRedirected,
            (Self::TooOld { .. }, _) => ProblemKind::ServerTooOld,
            (Self::Refused { .. } | Self::Unreadable { .. }, _) => ProblemKind::ServerFailed,
        }
    }

    /// Tableau's own code, if it refused with one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    fn has_code(&self, wanted: &str) -> bool {
        self.code() == Some(wanted)
    }

    /// Whether a session ended: the only reason for such a status once there is one, however the answer puts it.
    fn says_that_session_is_gone(&self) -> bool {
        match self {
            Self::Refused { status, call, .. } => {
                self.has_code(SESSION_GONE) || (*status == StatusCode::UNAUTHORIZED && !call.is_sign_in())
            }
            _ => false,
        }
    }
}

fn is_about_trust(error: &reqwest::Error) -> bool {
    let mut causes = successors(Some(error as &dyn Error), |error| (*error).source());
    causes.any(|cause| cause.to_string().contains("certificate"))
}

/// The way to every Tableau server.
#[derive(Clone, Debug)]
pub struct Tableau {
    connections: Arc<Mutex<Connections>>,
    /// The version to speak with each server, once it was asked. A server that is upgraded keeps serving the old ones.
    versions: Arc<Mutex<HashMap<Url, ApiVersion>>>,
}

/// Connections, and the authorities (PEM) that they trust besides the public ones.
#[derive(Debug)]
struct Connections {
    http: Client,
    trusted: Option<String>,
}

/// Certificates that cannot be trusted, since they are none.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCertificates {
    /// There is no certificate among them.
    #[error("expected certificates in PEM, each from BEGIN CERTIFICATE to END CERTIFICATE")]
    None,
    /// One of them cannot be read.
    #[error("one of them is no certificate")]
    Unreadable(#[source] reqwest::Error),
}

/// An answer as it came.
struct Received {
    status: StatusCode,
    location: Option<String>,
    /// How long to wait, if Tableau says so.
    retry_after: Option<Duration>,
    /// How far the server's clock is ahead of ours, if it tells the time.
    ahead: Option<time::Duration>,
    body: Vec<u8>,
}

/// Within what a call stays.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Until when there may be an answer.
    deadline: Instant,
    /// How many bytes it may have.
    room: usize,
}

/// The refreshes that ended in some time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RefreshJobs {
    /// Those that can be told of, in no order.
    pub ended: Vec<EndedJob>,
    /// Those that cannot, each with the reason.
    pub odd: Vec<OddJob>,
    /// How many jobs of other types there were, which were not asked for.
    pub others: usize,
    /// How many rows the list has, each job pluralize once.
    pub listed: usize,
    /// How many jobs Tableau counts, which can be more than it lists.
    pub pluralize: usize,
}

/// A job that nothing can be told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OddJob {
    /// Tableau's identifier.
    pub id: String,
    /// What is odd about it.
    pub reason: String,
}

/// The webhooks of a site.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Webhooks {
    /// Those that can be read, in the order of the list.
    pub readable: Vec<ObservedWebhook>,
    /// Names for the others, which are foreign.
    pub odd: Vec<String>,
}

/// Which refreshes to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichJobs {
    /// All.
    All,
    /// Those that failed.
    Failed,
}

/// A session at one site. It is to be ended with [`Session::sign_out`].
#[derive(Debug)]
pub struct Session<'a> {
    tableau: &'a Tableau,
    entry: &'a SiteEntry,
    server: Url,
    version: ApiVersion,
    credentials: Credentials,
    /// What is hidden in whatever the server says.
    secrets: KnownSecrets,
    renewed: bool,
    ahead: Option<time::Duration>,
    deadline: Instant,
    /// How much an answer may take: of the site's share of the memory for lists what no page has taken so far, or what is
    /// for other answers.
    room: usize,
}

/// An answer with a status of success.
struct Answer {
    call: Call,
    status: StatusCode,
    body: Vec<u8>,
}

impl Answer {
    /// Reads it once known secrets are hidden, and the secrets that it holds are known.
    fn read<T>(
        &self,
        secrets: &mut KnownSecrets,
        read: impl FnOnce(&Value) -> Result<T, wire::Unreadable>,
    ) -> Result<T, TableauError> {
        let value = answer::parse(&self.body).map(|mut value| {
            secrets::hide(&mut value, secrets);
            value
        });
        value.and_then(|value| read(&value)).map_err(|what| self.unreadable(what))
    }

    fn unreadable(&self, what: impl Into<Cow<'static, str>>) -> TableauError {
        let Self { call, status, body: _ } = self;
        TableauError::Unreadable { call: Box::new(call.clone()), status: *status, what: what.into() }
    }
}

impl Tableau {
    /// Prepares the connections.
    ///
    /// # Errors
    ///
    /// The system's trust store cannot be read.
    pub fn new() -> reqwest::Result<Self> {
        // An error says that the process has a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let connections = Connections { http: client(Vec::new())?, trusted: None };
        Ok(Self { connections: Arc::new(Mutex::new(connections)), versions: Arc::default() })
    }

    /// Trusts servers whose certificates these authorities signed (PEM), besides those of the public authorities. What
    /// was trusted before is not, unless it is named again.
    ///
    /// # Errors
    ///
    /// They are no certificates. What is trusted stays as it was.
    pub fn trust(&self, authorities: Option<&str>) -> Result<(), InvalidCertificates> {
        let mut connections = self.connections();
        if connections.trusted.as_deref() == authorities {
            return Ok(());
        }
        let certificates = match authorities {
            None => Vec::new(),
            Some(pem) => Certificate::from_pem_bundle(pem.as_bytes()).map_err(InvalidCertificates::Unreadable)?,
        };
        if authorities.is_some() && certificates.is_empty() {
            return Err(InvalidCertificates::None);
        }
        connections.http = client(certificates).map_err(InvalidCertificates::Unreadable)?;
        connections.trusted = authorities.map(str::to_owned);
        Ok(())
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        // Nothing that could panic half-way changes them.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs in to a site. A personal access token has one session: this ends any other that was opened with it. No
    /// call of the session waits for anything past the `deadline`. Nothing that the server says shows any of the
    /// `secrets`, the token's, or the session's.
    ///
    /// # Errors
    ///
    /// Tableau refuses, does not answer, or answers something else.
    pub async fn sign_in<'a>(
        &'a self,
        entry: &'a SiteEntry,
        mut secrets: KnownSecrets,
        deadline: Instant,
    ) -> Result<Session<'a>, TableauError> {
        secrets.add(entry.token_secret.expose_secret());
        let version = self.version(&entry.server, &mut secrets, deadline).await?;
        let (server, credentials) = self.credentials(entry, version, &mut secrets, deadline).await?;
        let (renewed, ahead, room) = (false, None, SINGLE);
        Ok(Session { tableau: self, entry, server, version, credentials, secrets, renewed, ahead, deadline, room })
    }

    /// The newest version that the server and we know. Asked until it is told.
    async fn version(
        &self,
        server: &Url,
        secrets: &mut KnownSecrets,
        deadline: Instant,
    ) -> Result<ApiVersion, TableauError> {
        // Nothing that could panic runs under the lock.
        let versions = || self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = versions().get(server) {
            return Ok(*version);
        }
        let call = Call::new(Method::GET, api(server, INFO, &["serverinfo"]), secrets);
        let newest = match self.exchange(&call, None, None, Bounds { deadline, room: SINGLE }).await {
            Ok(Received { status, body, .. }) => {
                checked(call, status, body, secrets).and_then(|it| it.read(secrets, wire::read_version))
            }
            Err(error @ TableauError::Unreadable { .. }) => Err(error),
            Err(error) => return Err(error),
        };
        let newest = match newest {
            Ok(newest) => newest,
            // One that does not tell is served with the oldest, which every one speaks, and asked again by the next run.
            Err(error) => {
                tracing::info!(%error, "a server does not tell which versions it speaks");
                return Ok(OLDEST);
            }
        };
        if newest < OLDEST {
            return Err(TableauError::TooOld { server: server.clone(), version: newest });
        }
        versions().insert(server.clone(), newest.min(NEWEST));
        Ok(newest.min(NEWEST))
    }

    async fn credentials(
        &self,
        entry: &SiteEntry,
        version: ApiVersion,
        secrets: &mut KnownSecrets,
        deadline: Instant,
    ) -> Result<(Url, Credentials), TableauError> {
        let body = wire::sign_in(&entry.token_name, entry.token_secret.expose_secret(), &entry.content_url);
        let mut call = Call::new(Method::POST, api(&entry.server, version, &["auth", "signin"]), secrets);
        let mut redirects = 0;
        loop {
            let Received { status, location, body: text, .. } =
                self.exchange(&call, None, Some(&body), Bounds { deadline, room: SINGLE }).await?;
            // Tableau Cloud sends a sign-in to the pod that the site lives on; the POST is repeated there by hand.
            if let Some(location) = location.filter(|_| status.is_redirection() && redirects < MOST_REDIRECTS) {
                let url = sign_in::redirected(&entry.server, &call.url, &location).map_err(|elsewhere| {
                    let to = secrets.redacted(&elsewhere.to_string()).into_owned();
                    TableauError::Redirected { call: Box::new(call.clone()), status, to }
                })?;
                call = Call::redirected(url, secrets);
                redirects += 1;
                continue;
            }
            let server = root_of(&call.url);
            let answer = checked(call, status, text, secrets)?;
            return Ok((server, answer.read(secrets, wire::read_credentials)?));
        }
    }

    /// Makes a call, and makes it again where that is right: when Tableau asks for patience that fits the deadline, and
    /// when a call that does no harm twice failed for no reason of ours.
    async fn exchange(
        &self,
        call: &Call,
        token: Option<&HeaderValue>,
        body: Option<&Value>,
        bounds: Bounds,
    ) -> Result<Received, TableauError> {
        let mut attempt = 1;
        loop {
            let result = self.attempt(call, token, body, bounds).await;
            let longer = 2_u32.pow(attempt - 1);
            let backoff = || call.is_repeatable().then(|| truncate(FIRST_BACKOFF * longer));
            let wait = match &result {
                Ok(Received { status: StatusCode::TOO_MANY_REQUESTS, retry_after, .. }) => {
                    let wait = retry_after.unwrap_or_else(|| truncate(UNTOLD_WAIT * longer));
                    Some(wait).filter(|_| call.is_worth_waiting_for())
                }
                Ok(Received { status, .. }) if status.is_server_error() => backoff(),
                Err(error) if error.is_timeout() && !call.is_worth_waiting_for() => None,
                Err(TableauError::NoAnswer { .. }) => backoff(),
                // What is too long, too slow or too late would be so again.
                Ok(_) | Err(_) => None,
            };
            // What is waited for must still be worth it: a call may take its whole time.
            let fits =
                |wait: &Duration| attempt < MOST_ATTEMPTS && Instant::now() + *wait + CALL_TIMEOUT < bounds.deadline;
            let Some(wait) = wait.filter(fits) else { return result };
            tracing::info!(%call, attempt, wait_ms = wait.as_millis(), "the call is made again");
            sleep(wait).await;
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        call: &Call,
        token: Option<&HeaderValue>,
        body: Option<&Value>,
        Bounds { deadline, room }: Bounds,
    ) -> Result<Received, TableauError> {
        let call_of = || Box::new(call.clone());
        let time = CALL_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()));
        let no_answer = |error: reqwest::Error| match error {
            error if error.is_timeout() && !error.is_connect() && time < CALL_TIMEOUT => {
                TableauError::OutOfTime { call: call_of() }
            }
            error => TableauError::NoAnswer { call: call_of(), source: error.without_url() },
        };
        if time.is_zero() {
            return Err(TableauError::OutOfTime { call: call_of() });
        }
        let http = self.connections().http.clone();
        let mut request = http.request(call.method.clone(), call.url.clone()).header(ACCEPT, "application/json");
        if let Some(token) = token {
            request = request.header("X-Tableau-Auth", token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.timeout(time).send().await.map_err(no_answer)?;
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (location, retry_after): (Option<String>, Option<String>) = (text(LOCATION), text(RETRY_AFTER));
        let status = response.status();
        // The server wrote the time when it began to answer, to the second.
        let now = OffsetDateTime::now_utc();
        let date = text(DATE).and_then(|date| OffsetDateTime::parse(&date, &Rfc2822).ok());
        let ahead = date.map(|date| date - now).filter(|ahead| ahead.abs() < MOST_AHEAD);
        let unreadable =
            |what: wire::Unreadable| TableauError::Unreadable { call: call_of(), status, what: what.into() };
        let body = match answer::receive(&mut response, room).await {
            Ok(body) => body,
            Err(Interrupted::Failed(error)) if error.is_timeout() && time == CALL_TIMEOUT => {
                return Err(unreadable("it does not come to its end in time"));
            }
            Err(Interrupted::Failed(error)) => return Err(no_answer(error)),
            Err(Interrupted::Unreadable(what)) => return Err(unreadable(what)),
        };
        let retry_after = wire::read_retry_after(retry_after.as_deref(), now + ahead.unwrap_or_default(), &body);
        Ok(Received { status, location, retry_after, ahead, body })
    }
}

/// An HTTP client that trusts the public authorities and these.
fn client(authorities: Vec<Certificate>) -> reqwest::Result<Client> {
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .user_agent(USER_AGENT)
        // A redirected POST would become a GET; and no token is to follow wherever an answer points.
        .redirect(Policy::none())
        .tls_certs_merge(authorities)
        .build()
}

/// A wait, shorter by up to a half.
fn truncate(wait: Duration) -> Duration {
    // Without randomness all waits are the same, which is still a wait.
    let chance = getrandom::u32().unwrap_or_default();
    wait - wait.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 2.0)
}

impl Session<'_> {
    /// Tableau's identifier for the site.
    pub fn site_luid(&self) -> &str {
        &self.credentials.site_id
    }

    /// How far the server's clock is ahead of ours, by what it answered last; `None` if it never told the time.
    pub fn ahead(&self) -> Option<time::Duration> {
        self.ahead
    }

    /// Lists the extract refreshes that ended from one time on and before another.
    ///
    /// # Errors
    ///
    /// As for every call; and a list that is not whole is none.
    pub async fn refresh_jobs(
        &mut self,
        from: OffsetDateTime,
        until: OffsetDateTime,
        which: WhichJobs,
    ) -> Result<RefreshJobs, TableauError> {
        let status = if which == WhichJobs::Failed { ",status:eq:Failed" } else { "" };
        // Tableau writes these times to the second.
        let [from, until] = [from, until + time::Duration::nanoseconds(999_999_999)]
            .map(|at| at.to_offset(UtcOffset::UTC).truncate_to_second().format(&Rfc3339).unwrap_or_default());
        let filter = format!(
            "filter=jobType:in:[{}],completedAt:gte:{from},completedAt:lt:{until}{status}",
            REFRESHES.join(",")
        );
        self.room = LIST;
        let (mut rows, mut pluralize) = (Vec::new(), 0);
        for number in 1.. {
            let query = format!("{filter}&pageSize={JOBS_ON_A_PAGE}&pageNumber={number}");
            let answer = match self.call(Method::GET, &["jobs"], &query, None).await {
                // Some servers count jobs that they do not list, and refuse the page on which those would be.
                Err(error) if number > 1 && error.has_code(NO_SUCH_PAGE) => break,
                answer => answer?,
            };
            let JobPage { rows: page, pagination } = answer.read(&mut self.secrets, wire::read_jobs)?;
            let page_is_empty = page.is_empty();
            let kept = |job: &Job| size_of::<Job>() + 2 * job.id.len();
            self.keep(&answer, number, page.iter().map(kept))?;
            rows.extend(page);
            let Some(Pagination { total, .. }) = pagination else { break };
            pluralize = total;
            if page_is_empty || rows.len() >= total {
                break;
            }
        }
        self.room = SINGLE;
        Ok(sorted(rows, pluralize))
    }

    /// Reads what a job says in full. What cannot be told of is odd, and no error.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn refresh(&mut self, job: &EndedJob) -> Result<Result<Refresh, OddJob>, TableauError> {
        let odd = |reason: String| OddJob { id: job.id.clone(), reason };
        match self.call(Method::GET, &["jobs", &job.id], "", None).await {
            Ok(answer) => {
                let refresh = answer.read(&mut self.secrets, |value| Ok(wire::read_refresh(value, job)))?;
                Ok(refresh.map_err(|reason| odd(reason.to_owned())))
            }
            // It is gone by now; or it is of a kind that this server does not show. A page without a code is not
            // Tableau's own, and may be gone soon.
            Err(error @ TableauError::Refused { status, .. })
                if status.is_client_error() && !error.concerns_the_site() && error.code().is_some() =>
            {
                Ok(Err(odd(format!("Tableau does not show it ({})", error.code().unwrap_or_default()))))
            }
            Err(error) => Err(error),
        }
    }

    /// Lists all webhooks of the site, ours and foreign ones.
    ///
    /// # Errors
    ///
    /// As for every call; and a list that is not whole is none, nor is one with a webhook that cannot be read and may be
    /// ours.
    pub async fn list(&mut self, may_be_ours: impl Fn(&OddWebhook) -> bool) -> Result<Webhooks, TableauError> {
        let (mut rows, mut query) = (Vec::new(), String::new());
        self.room = LIST;
        for number in 1.. {
            let answer = self.call(Method::GET, &["webhooks"], &query, None).await?;
            let Page { webhooks: page, pagination } = answer.read(&mut self.secrets, wire::read_page)?;
            let page_is_empty = page.is_empty();
            if let Some(odd) = page.iter().filter_map(|row| row.as_ref().err()).find(|odd| may_be_ours(odd)) {
                let id = odd.id.as_ref().filter(|_| matches!(odd.name, OddName::Text(_)));
                let id = id.map_or_else(String::new, |id| format!(" ({id})"));
                return Err(answer.unreadable(format!("{}{id} {}", odd.title(), odd.what)));
            }
            self.keep(&answer, number, page.iter().map(wire::size_of_row))?;
            rows.extend(page);
            let Some(pagination) = pagination else { break };
            if rows.len() >= pagination.total {
                // One without an identifier is like no other.
                let ids = rows.iter().filter_map(|row| match row {
                    Ok(webhook) => Some(&webhook.id),
                    Err(odd) => odd.id.as_ref(),
                });
                let (mut different, mut with_id) = (HashSet::new(), 0);
                ids.for_each(|id| {
                    different.insert(id);
                    with_id += 1;
                });
                if rows.len() - with_id + different.len() == pagination.total {
                    break;
                }
                return Err(answer.unreadable("its pages do not add up to the number of webhooks it names"));
            }
            if page_is_empty {
                return Err(answer.unreadable("it ends before the number of webhooks it names"));
            }
            query = format!("pageNumber={}&pageSize={}", number + 1, pagination.size);
        }
        self.room = SINGLE;
        let mut webhooks = Webhooks::default();
        for row in rows {
            match row {
                Ok(webhook) => webhooks.readable.push(webhook),
                Err(odd) => webhooks.odd.push(odd.title()),
            }
        }
        Ok(webhooks)
    }

    /// Takes what the items of a page take in memory from the site's share.
    fn keep(&mut self, answer: &Answer, page: usize, items: impl Iterator<Item = usize>) -> Result<(), TableauError> {
        if page > MOST_PAGES {
            return Err(answer.unreadable(format!("the list does not end within {MOST_PAGES} pages")));
        }
        match self.room.checked_sub(items.sum()) {
            Some(room) => self.room = room,
            None => return Err(answer.unreadable("the list holds more than there is memory for")),
        }
        Ok(())
    }

    /// Makes a webhook.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn create(&mut self, desired: &DesiredWebhook) -> Result<(), TableauError> {
        self.call(Method::POST, &["webhooks"], "", Some(desired)).await.map(drop)
    }

    /// Gives a webhook its address and event, and enables it.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn update(&mut self, id: &str, desired: &DesiredWebhook) -> Result<(), TableauError> {
        self.call(Method::PUT, &["webhooks", id], "", Some(desired)).await.map(drop)
    }

    /// Deletes a webhook. One that is already gone is as good as deleted.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn delete(&mut self, id: &str) -> Result<(), TableauError> {
        match self.call(Method::DELETE, &["webhooks", id], "", None).await {
            Err(TableauError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            Err(error) if error.has_code(NO_SUCH_WEBHOOK) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Has Tableau test a webhook, and returns the HTTP status that the destination answered with, `None` if it did not
    /// answer.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn test(&mut self, id: &str) -> Result<Option<u16>, TableauError> {
        let answer = self.call(Method::GET, &["webhooks", id, "test"], "", None).await?;
        answer.read(&mut self.secrets, wire::read_test)
    }

    /// Ends the session. One that is already gone is as good as ended.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn sign_out(mut self) -> Result<(), TableauError> {
        let url = api(&self.server, self.version, &["auth", "signout"]);
        let call = Call::new(Method::POST, url, &self.secrets);
        // The last list may have come to no end.
        self.room = SINGLE;
        match self.attempt(call, None, self.deadline).await {
            Err(error) if error.says_that_session_is_gone() => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Makes a call to the site; signs in once more if the session is gone.
    async fn call(
        &mut self,
        method: Method,
        path: &[&str],
        query: &str,
        webhook: Option<&DesiredWebhook>,
    ) -> Result<Answer, TableauError> {
        loop {
            let path = [&["sites", &self.credentials.site_id], path].concat();
            let mut url = api(&self.server, self.version, &path);
            url.set_query(Some(query).filter(|query| !query.is_empty()));
            let deadline = self.deadline.checked_sub(SIGN_OUT_TIME).unwrap_or(self.deadline);
            let call = Call::new(method.clone(), url, &self.secrets);
            let result = self.attempt(call, webhook, deadline).await;
            match result {
                Err(error) if error.says_that_session_is_gone() && !self.renewed => {
                    self.renewed = true;
                    let Self { tableau, entry, version, secrets, .. } = self;
                    (self.server, self.credentials) = tableau.credentials(entry, *version, secrets, deadline).await?;
                }
                result => return result,
            }
        }
    }

    async fn attempt(
        &mut self,
        call: Call,
        webhook: Option<&DesiredWebhook>,
        deadline: Instant,
    ) -> Result<Answer, TableauError> {
        let token = &self.credentials.token;
        let body = webhook.map(wire::webhook);
        let bounds = Bounds { deadline, room: self.room };
        let Received { status, ahead, body, .. } =
            self.tableau.exchange(&call, Some(token), body.as_ref(), bounds).await?;
        self.ahead = ahead.or(self.ahead);
        checked(call, status, body, &self.secrets)
    }
}

/// Sorts the rows of a list of jobs. A page may repeat what was on the one before it.
fn sorted(rows: Vec<Job>, pluralize: usize) -> RefreshJobs {
    let (mut jobs, mut seen) = (RefreshJobs { pluralize, ..RefreshJobs::default() }, HashSet::new());
    for Job { id, ended } in rows {
        if !seen.insert(id.clone()) {
            continue;
        }
        match ended {
            Ok(Listed::Ended(job)) => jobs.ended.push(job),
            Ok(Listed::Running) => {}
            Ok(Listed::Other) => jobs.others += 1,
            Err(reason) => jobs.odd.push(OddJob { id, reason: reason.to_owned() }),
        }
    }
    jobs.listed = seen.len();
    jobs
}

/// Tells success from refusal. A server may quote what it was sent: none of the secrets gets into the error.
fn checked(call: Call, status: StatusCode, body: Vec<u8>, secrets: &KnownSecrets) -> Result<Answer, TableauError> {
    if status.is_success() {
        return Ok(Answer { call, status, body });
    }
    let (code, text) = wire::read_error(&String::from_utf8_lossy(&body), secrets);
    Err(TableauError::Refused { call: Box::new(call), status, code, text })
}

/// Address of a call: `segments` below the root of the API's version.
fn api(server: &Url, version: ApiVersion, segments: &[&str]) -> Url {
    let mut url = server.clone();
    // A web address always has a path.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["api", &version.to_string()]).extend(segments);
    }
    url
}

/// The server that took a sign-in at this address, with what comes before `/api/`.
fn root_of(sign_in: &Url) -> Url {
    let mut server = sign_in.clone();
    server.set_query(None);
    let prefix = sign_in.path().rsplit_once("/api/").map_or("", |(prefix, _)| prefix);
    server.set_path(&format!("{prefix}/"));
    server
}
