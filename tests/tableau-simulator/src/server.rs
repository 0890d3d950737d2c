//! The server: reads calls, writes answers, sends events.

use std::{
    fmt::Debug,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::any,
    serve::Listener,
};
use flate2::{Compression, write::GzEncoder};
use futures_util::{StreamExt, future::join_all, stream};
use serde_json::{Value, json};
use shared::events::catalogue::Event;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};
use tokio::{net::TcpListener, task::JoinHandle};
use url::Url;
use uuid::Uuid;

use crate::{
    control::{self, NewRefresh},
    delivery::{Courier, Delivery},
    hostile,
    model::{Job, RefreshKind, RefreshOutcome, World, Wrapping},
    pages,
    refusal::{Refusal, RetryAfter},
    rest::{self, Call, Reply, Transport},
    xml,
};

/// A handle to a Tableau server. Clones share its state.
#[derive(Clone, Debug)]
pub struct Simulator {
    world: Arc<Mutex<World>>,
    courier: Courier,
}

/// A simulator on a loopback port. Dropping this ends it.
#[derive(Debug)]
pub struct Running {
    /// The simulator.
    pub simulator: Simulator,
    /// Its address.
    pub address: SocketAddr,
    task: JoinHandle<io::Result<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Simulator {
    /// Creates a server without sites. With a `gateway` it sends all deliveries there (see [`Courier::new`]).
    ///
    /// # Errors
    ///
    /// The HTTP client for deliveries cannot be created.
    pub fn new(gateway: Option<Url>) -> reqwest::Result<Self> {
        Ok(Self { world: Arc::default(), courier: Courier::new(gateway)? })
    }

    /// Starts a simulator on a free loopback port.
    ///
    /// # Errors
    ///
    /// No port is free, or the HTTP client for deliveries cannot be created.
    pub async fn start(gateway: Option<Url>) -> anyhow::Result<Running> {
        let simulator = Self::new(gateway)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(simulator.clone().serve(listener));
        Ok(Running { simulator, address, task })
    }

    /// Serves a port until the process ends.
    ///
    /// # Errors
    ///
    /// The port fails.
    pub async fn serve<L: Listener<Addr: Debug>>(self, listener: L) -> io::Result<()> {
        let api = Router::new().route("/api/{*path}", any(api)).route("/{prefix}/api/{*path}", any(api));
        axum::serve(listener, api.merge(control::router()).merge(pages::router()).with_state(self)).await
    }

    /// Locks the server's state, to read and to change it.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fires an event. Every enabled webhook for it gets `body`, `times` times, and is disabled if four attempts fail.
    /// Returns after the answer to the last attempt.
    pub async fn fire(&self, content_url: &str, event: &Event, body: &str, times: usize) -> Vec<Delivery> {
        let targets: Vec<_> = {
            let world = self.world();
            let webhooks = world.sites.get(content_url).into_iter().flat_map(|site| &site.webhooks);
            webhooks.filter(|webhook| webhook.is_enabled && webhook.event == *event).cloned().collect()
        };
        let deliveries = targets.iter().map(async |webhook| {
            let mut deliveries = Vec::new();
            for _ in 0..times {
                let delivery = self.courier.deliver(&webhook.name, &webhook.url, body).await;
                if delivery.attempts.iter().all(|attempt| !attempt.succeeded()) {
                    self.disable(content_url, &webhook.id);
                }
                deliveries.push(delivery);
            }
            deliveries
        });
        join_all(deliveries).await.into_iter().flatten().collect()
    }

    /// Runs an extract refresh: adds its job, then fires its events in order. Returns `None` if there is no such site.
    pub async fn refresh(&self, new: &NewRefresh) -> Option<(Job, Vec<Delivery>)> {
        let (job, site_luid, clock) = {
            let mut world = self.world();
            let site = world.sites.get_mut(&new.site)?;
            let known = || {
                let mut content = site.content().into_iter();
                content.find(|content| content.kind == new.kind && content.name == new.name).map(|it| it.luid)
            };
            let luid = new.luid.clone().or_else(known).unwrap_or_else(|| Uuid::new_v4().to_string());
            let ended_at = new.ended_at.unwrap_or_else(OffsetDateTime::now_utc);
            let job = Job {
                id: Uuid::new_v4().to_string(),
                kind: new.kind,
                luid,
                name: new.name.clone(),
                outcome: new.outcome,
                is_incremental: new.is_incremental,
                is_via_bridge: new.is_via_bridge,
                started_at: ended_at.saturating_sub(time::Duration::seconds(new.took_seconds.into())),
                ended_at,
                notes: new.notes.clone(),
            };
            site.jobs.push(job.clone());
            if new.listed_after_seconds > 0 {
                site.listed_late.insert(job.id.clone(), new.listed_after_seconds);
            }
            (job, site.id.clone(), time::Duration::seconds(site.oddities.jobs.clock_offset_seconds))
        };
        let kind = match job.kind {
            RefreshKind::Datasource => "Datasource",
            RefreshKind::Workbook => "Workbook",
        };
        let ended = match job.outcome {
            RefreshOutcome::Succeeded => Some("Succeeded"),
            RefreshOutcome::Failed => Some("Failed"),
            RefreshOutcome::Cancelled => None,
        };
        let mut deliveries = Vec::new();
        for (stage, at) in [(Some("Started"), job.started_at), (ended, job.ended_at)] {
            let Some(Ok(event)) = stage.map(|stage| format!("{kind}Refresh{stage}").parse::<Event>()) else { continue };
            let payload = json!({
                "resource": "EXTRACTS",
                "event_type": event,
                "resource_name": job.name,
                "site_luid": site_luid,
                "resource_luid": job.luid,
                "created_at": at.saturating_add(clock).format(&Rfc3339).unwrap_or_default(),
            });
            deliveries.extend(self.fire(&new.site, &event, &payload.to_string(), 1).await);
        }
        Some((job, deliveries))
    }

    /// Whether Tableau suspended the task of a refresh.
    pub(crate) fn is_suspended(&self, NewRefresh { site, kind, name, .. }: &NewRefresh) -> bool {
        self.world().sites.get(site).is_some_and(|site| site.is_suspended(*kind, name))
    }

    fn disable(&self, content_url: &str, id: &str) {
        let mut world = self.world();
        let webhooks = world.sites.get_mut(content_url).into_iter().flat_map(|site| &mut site.webhooks);
        webhooks.filter(|webhook| webhook.id == id).for_each(|webhook| webhook.disable(None));
    }
}

async fn api(State(simulator): State<Simulator>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 1024 * 1024).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let call = call(&parts.method, &parts.uri, &parts.headers, &body);
    let (result, Transport { delay_ms, clock_offset_seconds, wrapping }) = rest::answer(&mut simulator.world(), &call);
    if delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
    let in_json = header_text(&parts.headers, header::ACCEPT).contains("application/json");
    let clock = time::Duration::seconds(clock_offset_seconds);
    let mut response = write_result(&simulator, result, in_json, clock).await;
    let date = http_date(OffsetDateTime::now_utc().saturating_add(clock));
    date.and_then(|date| response.headers_mut().insert(header::DATE, date));
    if in_json { wrap(response, wrapping).await } else { response }
}

/// Formats a time for a header.
fn http_date(at: OffsetDateTime) -> Option<HeaderValue> {
    let date = at.format(format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    ));
    date.ok().and_then(|date| HeaderValue::try_from(date).ok())
}

/// Encodes an answer's body.
async fn wrap(response: Response, wrapping: Wrapping) -> Response {
    let (mut parts, body) = response.into_parts();
    let encoding = match wrapping {
        Wrapping::None => return Response::from_parts(parts, body),
        Wrapping::ByteOrderMark => None,
        Wrapping::Gzip => Some("gzip"),
        Wrapping::Unknown => Some("br"),
    };
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else { return Response::from_parts(parts, broken()) };
    if let Some(encoding) = encoding.filter(|_| !body.is_empty()) {
        parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = match wrapping {
        _ if body.is_empty() => body.to_vec(),
        Wrapping::None => body.to_vec(),
        Wrapping::ByteOrderMark => ["\u{feff}".as_bytes(), &body].concat(),
        Wrapping::Gzip => gzip(&body).unwrap_or_default(),
        Wrapping::Unknown => body.iter().map(|byte| !byte).collect(),
    };
    Response::from_parts(parts, Body::from(body))
}

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

async fn write_result(
    simulator: &Simulator,
    result: Result<Reply, Refusal>,
    in_json: bool,
    clock: time::Duration,
) -> Response {
    match result {
        Ok(Reply::Nothing) => StatusCode::NO_CONTENT.into_response(),
        Ok(Reply::Moved(location)) => (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, location)]).into_response(),
        Ok(Reply::Broken) => broken().into_response(),
        Ok(Reply::Page) => {
            let page = "<!DOCTYPE html>\n<html><body><h1>Tableau is starting</h1></body></html>";
            ([(header::CONTENT_TYPE, "text/html")], page).into_response()
        }
        Ok(Reply::Xml) => render(200, &json!({ "tasks": {} }), false),
        Ok(Reply::Hostile(hostility, page)) => hostile::list(hostility, page),
        Ok(Reply::Body(status, answer)) => render(status, &answer, in_json),
        Ok(Reply::Test { id, url, body, status_member }) => {
            let attempt = simulator.courier.attempt(&url, body).await;
            let result = json!({ "id": id, status_member: attempt.status, "body": attempt.body });
            render(200, &json!({ "webhookTestResult": result }), in_json)
        }
        Err(refusal) => match (refusal.html(), refusal.body()) {
            (Some(page), _) => (status(refusal.status), [(header::CONTENT_TYPE, "text/html")], page).into_response(),
            (None, body) => {
                let mut response = match body {
                    Some(body) => render(refusal.status, &body, in_json),
                    None => status(refusal.status).into_response(),
                };
                let wait = match refusal.retry_after {
                    None => None,
                    Some(RetryAfter::Seconds(seconds)) => Some(HeaderValue::from(seconds)),
                    Some(RetryAfter::Date(then)) => http_date(then.saturating_add(clock)),
                };
                wait.and_then(|wait| response.headers_mut().insert(header::RETRY_AFTER, wait));
                response
            }
        },
    }
}

/// Returns a body whose connection breaks after the first byte.
fn broken() -> Body {
    let cut = async {
        // Lets the server send the first byte.
        tokio::task::yield_now().await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    };
    Body::from_stream(stream::iter([Ok(Bytes::from_static(b"{"))]).chain(stream::once(cut)))
}

fn call(method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Call {
    let in_json = header_text(headers, header::CONTENT_TYPE).contains("application/json");
    let body = match std::str::from_utf8(body) {
        Ok(text) if in_json => serde_json::from_str(text).ok(),
        Ok(text) => xml::read(text).ok(),
        Err(_) => None,
    };
    let token = headers.get("x-tableau-auth").and_then(|token| token.to_str().ok()).map(str::to_owned);
    let (prefix, path) = uri.path().split_once("/api/").unwrap_or_default();
    Call {
        method: method.to_string(),
        prefix: prefix.to_owned(),
        path: path.to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        host: header_text(headers, header::HOST),
        token,
        body,
    }
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn render(code: u16, answer: &Value, in_json: bool) -> Response {
    let (content_type, body) = if in_json {
        ("application/json", answer.to_string())
    } else {
        match xml::write(answer) {
            Ok(xml) => ("application/xml", xml),
            Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    };
    (status(code), [(header::CONTENT_TYPE, content_type)], body).into_response()
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
