//! A server in front of ministack that applies the rules to each publish.
//!
//! It forwards every other call, so that a function, a command or a test needs no other endpoint of AWS.
//! It differs from the real SNS, which handles each subscription separately, in two ways. It publishes a message that
//! attribute filters lose without its attributes, for all subscriptions. It does not publish a message that raw delivery to
//! SQS loses.

use std::net::Ipv4Addr;

use axum::{
    Router,
    body::{Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use reqwest::Client;
use tokio::{net::TcpListener, task::JoinHandle};
use url::form_urlencoded;

use crate::publish::{ATTRIBUTES, Publish, Refusal};

/// The most bytes of a request. The largest is a function's zip.
const MAX_REQUEST_BYTES: usize = 1 << 28;

/// The answer to a publish that is accepted and reaches no subscriber.
const ACCEPTED: &str = "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult>\
    <MessageId>00000000-0000-4000-8000-000000000000</MessageId></PublishResult></PublishResponse>";

/// A running gateway. Dropping this ends it.
#[derive(Debug)]
pub struct Gateway {
    /// Its endpoint.
    pub address: String,
    task: JoinHandle<std::io::Result<()>>,
}

/// The server that calls are forwarded to.
#[derive(Clone, Debug)]
struct Upstream {
    http: Client,
    endpoint: String,
    headers: HeaderMap,
}

impl Gateway {
    /// Starts a gateway to an endpoint on a free loopback port. It adds `headers` to each call.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub async fn before(endpoint: &str, http: Client, headers: HeaderMap) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = format!("http://{}", listener.local_addr()?);
        let upstream = Upstream { http, endpoint: endpoint.to_owned(), headers };
        let router = Router::new().fallback(answer).with_state(upstream);
        Ok(Self { address, task: tokio::spawn(async { axum::serve(listener, router).await }) })
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A publish that follows the rules.
enum Checked {
    /// Forwarded with this form.
    As(Bytes),
    /// Accepted, and lost.
    Lost,
}

async fn answer(State(upstream): State<Upstream>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(mut body) = to_bytes(body, MAX_REQUEST_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    if is_form(&parts.headers) {
        match check(body) {
            Ok(Checked::As(form)) => body = form,
            Ok(Checked::Lost) => return ACCEPTED.into_response(),
            Err(refusal) => return refused(&refusal),
        }
    }
    // The body's length may have changed. The other headers are signed and stay.
    parts.headers.remove(header::CONTENT_LENGTH);
    let Upstream { http, endpoint, headers } = upstream;
    let forwarded = http.request(parts.method, format!("{endpoint}{}", parts.uri)).headers(parts.headers);
    let answer = match forwarded.headers(headers).body(body).send().await {
        Ok(answer) => answer,
        Err(error) => return (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove(header::TRANSFER_ENCODING);
    match answer.bytes().await {
        Ok(body) => (status, headers, body).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// Whether a request can be one of the query protocol.
fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.starts_with("application/x-www-form-urlencoded")
}

fn check(form: Bytes) -> Result<Checked, Refusal> {
    let Some(publish) = Publish::from_form(&form)? else { return Ok(Checked::As(form)) };
    let delivery = publish.accept()?;
    if !delivery.fits_raw_sqs {
        return Ok(Checked::Lost);
    }
    // An unchanged form keeps its signature.
    if publish.attributes.is_empty() || (delivery.passes_attribute_filters && !publish.is_structured) {
        return Ok(Checked::As(form));
    }
    let parameters = form_urlencoded::parse(&form).filter(|(name, _)| !name.starts_with(ATTRIBUTES));
    Ok(Checked::As(form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish().into()))
}

/// Writes a refusal as in AWS's query protocol.
fn refused(Refusal { code, message }: &Refusal) -> Response {
    let message = message.chars().filter(|character| !character.is_control());
    let message = message.collect::<String>().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let error = format!(
        "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>00000000-0000-4000-8000-000000000000</RequestId></ErrorResponse>"
    );
    (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "text/xml")], error).into_response()
}
