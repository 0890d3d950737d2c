//! Sends a rendered message to the address of a target.

use std::{
    error::Error,
    io::{self, ErrorKind},
    iter::successors,
    time::Duration,
};

use reqwest::{
    Client, RequestBuilder, Response,
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use shared::targets::{answer::TargetAnswer, credentials::Credentials, entry::TargetEntry};
use tracing::{instrument::WithSubscriber, subscriber::NoSubscriber};

use crate::{
    addresses::{AddressError, AllowedAddresses, CheckingResolver},
    render::Rendered,
};

/// The time for which an idle connection is kept: that of a few messages.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of an answer that are read, so that its connection can be used again.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Names the project, so that the operator of a target recognizes it.
const USER_AGENT: &str = concat!("tableau-fanout/", env!("CARGO_PKG_VERSION"));

/// The reason for a request that cannot be made.
const NO_REQUEST: &str = "a header, the address or the credentials of the entry cannot be sent";

/// Sends messages to targets.
pub trait Sender {
    /// Sends a message, and returns the answer.
    fn send(&self, entry: &TargetEntry, message: Rendered) -> impl Future<Output = TargetAnswer> + Send;
}

/// Sends messages over HTTP.
#[derive(Clone, Debug)]
pub struct HttpSender {
    client: Client,
    addresses: AllowedAddresses,
}

impl HttpSender {
    /// Creates a client that connects to these addresses, and waits this long for an answer.
    ///
    /// # Errors
    ///
    /// The system's certificates cannot be used.
    pub fn new(addresses: AllowedAddresses, timeout: Duration) -> reqwest::Result<Self> {
        // An error says that the process has a provider already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .timeout(timeout)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .user_agent(USER_AGENT)
            // A redirect would carry the message to an address that nobody stored.
            .redirect(Policy::none())
            // A proxy would resolve the name itself.
            .no_proxy()
            .dns_resolver(CheckingResolver(addresses))
            .build()?;
        Ok(Self { client, addresses })
    }

    async fn exchange(&self, entry: &TargetEntry, message: Rendered) -> Result<TargetAnswer, &'static str> {
        let mut response = self.request(entry, message)?.send().await.map_err(|error| reason(&error))?;
        let code = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        discard_body(&mut response).await;
        Ok(TargetAnswer::Status { code, retry_after })
    }

    fn request(&self, entry: &TargetEntry, message: Rendered) -> Result<RequestBuilder, &'static str> {
        let Rendered { body, content_type, headers } = message;
        let mut url = entry.address.url().clone();
        self.addresses.check_literal(&url).map_err(AddressError::as_str)?;
        if let Credentials::Query { name, value } = &entry.credentials {
            url.query_pairs_mut().append_pair(name, value.expose_secret());
        }
        let mut request = self.client.post(url).header(CONTENT_TYPE, content_type).body(body);
        for (name, value) in &headers {
            request = with_header(request, name, value)?;
        }
        match &entry.credentials {
            Credentials::Header { name, value } => with_header(request, name, value),
            Credentials::Basic { user, password } => Ok(request.basic_auth(user, Some(password.expose_secret()))),
            Credentials::Bearer { token } => Ok(request.bearer_auth(token.expose_secret())),
            // The address has them, or the rendered message, which may be signed.
            Credentials::None | Credentials::Query { .. } | Credentials::Body { .. } => Ok(request),
        }
    }
}

impl Sender for HttpSender {
    async fn send(&self, entry: &TargetEntry, message: Rendered) -> TargetAnswer {
        // The HTTP client logs hosts at the level of debugging, and the host may be part of the secret.
        let exchange = self.exchange(entry, message).with_subscriber(NoSubscriber::default());
        exchange.await.unwrap_or_else(TargetAnswer::NoAnswer)
    }
}

/// Adds a header that no log of the HTTP client shows.
fn with_header(request: RequestBuilder, name: &str, value: &SecretString) -> Result<RequestBuilder, &'static str> {
    let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| NO_REQUEST)?;
    value.set_sensitive(true);
    Ok(request.header(name, value))
}

/// Reads an answer up to a limit, and drops it: the status says everything, and the text may repeat a secret.
async fn discard_body(response: &mut Response) {
    let mut size = 0;
    while size < MAX_ANSWER_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => size += chunk.len(),
            // The status was received, whether or not the rest is complete.
            Ok(None) | Err(_) => return,
        }
    }
}

/// Returns the reason for an error as a literal. The error itself may have the address.
fn reason(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        return "no answer in time";
    }
    if error.is_builder() {
        return NO_REQUEST;
    }
    let causes: Vec<_> = successors(Some(error as &(dyn Error + 'static)), |error| (*error).source()).collect();
    if let Some(error) = causes.iter().find_map(|cause| cause.downcast_ref::<AddressError>()) {
        return error.as_str();
    }
    if causes.iter().any(|cause| cause.to_string().contains("certificate")) {
        return "the certificate is not accepted";
    }
    match causes.iter().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => "the connection was refused",
        Some(ErrorKind::ConnectionReset) => "the connection was reset",
        _ if error.is_connect() => "no connection was possible",
        _ => "the connection ended before the answer",
    }
}
