//! A server in front of ministack that lets no publish past the rules.
//!
//! It passes every other call on, so that its address is all that a function, a command or a test needs to know of AWS.
//! Two of its answers differ from those of the real SNS, which treats each subscription by itself. A message that attribute
//! filters lose is published without attributes: no attribute filter lets it through, and other subscriptions get it
//! without them. A message that raw delivery to SQS loses is published to nobody.

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

/// More than any request to the local cloud; the largest is a function's zip.
const LARGEST_REQUEST: usize = 1 << 28;

/// A publish that was accepted and reaches nobody.
const ACCEPTED: &str = "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult>\
    <MessageId>00000000-0000-4000-8000-000000000000</MessageId></PublishResult></PublishResponse>";

/// A running gateway. It ends with this.
#[derive(Debug)]
pub struct Gateway {
    /// Where it answers.
    pub address: String,
    task: JoinHandle<std::io::Result<()>>,
}

/// How a call is passed on.
#[derive(Clone, Debug)]
struct Upstream {
    http: Client,
    endpoint: String,
    headers: HeaderMap,
}

impl Gateway {
    /// Starts one on a free loopback port, in front of an endpoint. `headers` are added to each call.
    ///
    /// # Errors
    ///
    /// No port can be had.
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

/// A publish by the rules.
enum Checked {
    /// Passed on as this.
    As(Bytes),
    /// Accepted, and lost.
    Lost,
}

async fn answer(State(upstream): State<Upstream>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(mut body) = to_bytes(body, LARGEST_REQUEST).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    if is_form(&parts.headers) {
        match check(body) {
            Ok(Checked::As(form)) => body = form,
            Ok(Checked::Lost) => return ACCEPTED.into_response(),
            Err(refusal) => return refused(&refusal),
        }
    }
    // The length is that of the changed body. The other headers stay as they came, since they are signed.
    parts.headers.remove(header::CONTENT_LENGTH);
    let Upstream { http, endpoint, headers } = upstream;
    let passed_on = http.request(parts.method, format!("{endpoint}{}", parts.uri)).headers(parts.headers);
    let answer = match passed_on.headers(headers).body(body).send().await {
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
    // A form that need not be changed keeps its signature.
    if publish.attributes.is_empty() || (delivery.passes_attribute_filters && !publish.is_structured) {
        return Ok(Checked::As(form));
    }
    let parameters = form_urlencoded::parse(&form).filter(|(name, _)| !name.starts_with(ATTRIBUTES));
    Ok(Checked::As(form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish().into()))
}

/// A refusal as AWS's query protocol has it.
fn refused(Refusal { code, message }: &Refusal) -> Response {
    let message = message.chars().filter(|character| !character.is_control());
    let message = message.collect::<String>().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let error = format!(
        "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>00000000-0000-4000-8000-000000000000</RequestId></ErrorResponse>"
    );
    (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "text/xml")], error).into_response()
}
