//! Stand-ins of the services outside of AWS: each takes only what its maker documents, at the rate that its maker allows.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// Time limit for calls to arrive: a function starts, SQS passes its messages on, and some wait for the next invocation.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(180);

/// Larger than any message of any service.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The service that a stand-in plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// An incoming webhook of Slack.
    Slack,
    /// A workflow of Microsoft Teams.
    Teams,
    /// PagerDuty's Events API, version 2.
    PagerDuty,
    /// A catch hook of Zapier.
    Zapier,
    /// An address that starts an import of Coefficient.
    Coefficient,
    /// A service that accepts any JSON after a time.
    Slow(Duration),
    /// A service that always fails.
    Down,
}

/// A call that a stand-in received.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it came.
    pub at: Instant,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The status that it was answered with.
    pub status: StatusCode,
    /// The reason for a status that is no success.
    pub refusal: Option<String>,
}

impl Call {
    /// Reads the body.
    ///
    /// # Errors
    ///
    /// It is no JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

#[derive(Debug)]
struct Shared {
    service: Service,
    /// Path and query, which are the secret of some services.
    target: String,
    calls: Mutex<Vec<Call>>,
    called: Notify,
}

/// A service on a free loopback port. It ends with this.
#[derive(Debug)]
pub struct StandIn {
    /// The address with everything that is secret in it.
    pub address: String,
    shared: Arc<Shared>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StandIn {
    /// Starts a service.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub async fn start(service: Service) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let target = service.target().to_owned();
        let address = format!("http://{}{target}", listener.local_addr()?);
        let shared = Arc::new(Shared { service, target, calls: Mutex::default(), called: Notify::new() });
        let router = Router::new().fallback(answer).layer(DefaultBodyLimit::max(MAX_BYTES));
        let router = router.with_state(Arc::clone(&shared));
        let task = tokio::spawn(async { axum::serve(listener, router).await });
        Ok(Self { address, shared, task })
    }

    /// Returns the calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the bodies that the service accepted.
    ///
    /// # Errors
    ///
    /// It refused a call, or one is no JSON.
    pub fn accepted(&self) -> anyhow::Result<Vec<Value>> {
        let calls = self.calls();
        if let Some(refused) = calls.iter().find(|call| !call.status.is_success()) {
            bail!("{:?} answered {}: {:?}", self.shared.service, refused.status, refused.refusal);
        }
        calls.iter().map(Call::json).collect()
    }

    /// Waits until the accepted bodies are as they should be, and returns them.
    ///
    /// # Errors
    ///
    /// The service refused a call, or they are not in time.
    pub async fn until(&self, are_expected: impl Fn(&[Value]) -> bool) -> anyhow::Result<Vec<Value>> {
        self.within(ARRIVAL_TIMEOUT, are_expected).await
    }

    /// As [`StandIn::until`], with another time limit.
    ///
    /// # Errors
    ///
    /// As [`StandIn::until`].
    pub async fn within(&self, limit: Duration, are_expected: impl Fn(&[Value]) -> bool) -> anyhow::Result<Vec<Value>> {
        let wait = async {
            loop {
                let called = self.shared.called.notified();
                let accepted = self.accepted()?;
                if are_expected(&accepted) {
                    return anyhow::Ok(accepted);
                }
                called.await;
            }
        };
        match timeout(limit, wait).await {
            Ok(accepted) => accepted,
            Err(_) => bail!("{:?} got in {limit:?} only {:#?}", self.shared.service, self.accepted()?),
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let at = Instant::now();
    let service = shared.service;
    if let Service::Slow(time) = service {
        sleep(time).await;
    }
    let mut calls = shared.calls.lock().unwrap_or_else(PoisonError::into_inner);
    let is_addressed = uri.path_and_query().is_some_and(|target| target.as_str() == shared.target);
    let verdict = if !is_addressed {
        Err((StatusCode::NOT_FOUND, "another address".to_owned()))
    } else if service == Service::Down {
        Err((StatusCode::SERVICE_UNAVAILABLE, "it is down".to_owned()))
    } else if service.is_too_fast(&calls, at) {
        Err((StatusCode::TOO_MANY_REQUESTS, "too many calls".to_owned()))
    } else {
        service.check(&headers, &body).map_err(|error| (StatusCode::BAD_REQUEST, format!("{error:#}")))
    };
    let (status, refusal) = match verdict {
        Ok(()) => (service.success(), None),
        Err((status, reason)) => (status, Some(reason)),
    };
    calls.push(Call { at, headers, body, status, refusal });
    drop(calls);
    shared.called.notify_waiters();
    let mut response = status.into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

impl Service {
    /// Path and query of an address, in the form of the service's own.
    fn target(self) -> &'static str {
        match self {
            Self::Slack => "/services/T0/B0/stand-in",
            Self::Teams => "/powerautomate/automations/direct/workflows/0/triggers/manual/paths/invoke?sig=stand-in",
            Self::PagerDuty => "/v2/enqueue",
            Self::Zapier => "/hooks/catch/1/stand-in/",
            Self::Coefficient => "/api/v1/trigger?token=stand-in",
            Self::Slow(_) | Self::Down => "/stand-in",
        }
    }

    fn success(self) -> StatusCode {
        match self {
            Self::Teams | Self::PagerDuty => StatusCode::ACCEPTED,
            _ => StatusCode::OK,
        }
    }

    /// Whether a call comes earlier than the service allows after the others.
    fn is_too_fast(self, calls: &[Call], at: Instant) -> bool {
        let (most, time) = match self {
            // One a second, and short bursts.
            Self::Slack => (12, Duration::from_secs(10)),
            Self::PagerDuty => (120, Duration::from_secs(60)),
            Self::Zapier => (30, Duration::from_secs(1)),
            Self::Coefficient => (1, Duration::from_secs(5 * 60)),
            Self::Teams | Self::Slow(_) | Self::Down => return false,
        };
        calls.iter().filter(|call| at.duration_since(call.at) < time).count() >= most
    }

    /// Checks a message as the service's maker documents it.
    fn check(self, headers: &HeaderMap, body: &Bytes) -> anyhow::Result<()> {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        ensure!(
            ["application/json", "application/cloudevents+json"].contains(&content_type),
            "the content type {content_type}"
        );
        let message: Value = serde_json::from_slice(body).context("no JSON")?;
        match self {
            Self::Slack => check_slack(&message),
            Self::Teams => {
                ensure!(body.len() <= 28 * 1024, "{} bytes", body.len());
                check_teams(&message)
            }
            Self::PagerDuty => check_pager_duty(&message),
            Self::Zapier | Self::Coefficient | Self::Slow(_) | Self::Down => {
                ensure!(message.is_object(), "no object");
                Ok(())
            }
        }
    }
}

/// Checks that an object has only these members.
fn check_members(object: &Value, allowed: &[&str]) -> anyhow::Result<()> {
    let members = object.as_object().with_context(|| format!("no object: {object}"))?;
    let unknown = members.keys().find(|name| !allowed.contains(&name.as_str()));
    ensure!(unknown.is_none(), "an unknown member: {unknown:?}");
    Ok(())
}

/// Returns a text that has between one and `max` characters.
fn text<'a>(object: &'a Value, member: &str, max: usize) -> anyhow::Result<&'a str> {
    let text = object[member].as_str().with_context(|| format!("{member} is no text: {object}"))?;
    ensure!((1..=max).contains(&text.chars().count()), "{member} has {} characters", text.chars().count());
    Ok(text)
}

/// Block Kit: at most 50 blocks; a header has 150 characters, a section 3,000, a context ten elements.
fn check_slack(message: &Value) -> anyhow::Result<()> {
    check_members(message, &["text", "blocks"])?;
    text(message, "text", 40_000)?;
    let blocks = message["blocks"].as_array().context("no blocks")?;
    ensure!((1..=50).contains(&blocks.len()), "{} blocks", blocks.len());
    for block in blocks {
        match block["type"].as_str() {
            Some("header") => {
                check_members(block, &["type", "text"])?;
                ensure!(block["text"]["type"] == "plain_text", "a header with markup");
                text(&block["text"], "text", 150)?;
            }
            Some("section") => {
                check_members(block, &["type", "text"])?;
                text(&block["text"], "text", 3000)?;
            }
            Some("context") => {
                check_members(block, &["type", "elements"])?;
                let elements = block["elements"].as_array().context("no elements")?;
                ensure!((1..=10).contains(&elements.len()), "{} elements", elements.len());
                elements.iter().try_for_each(|element| text(element, "text", 3000).map(drop))?;
            }
            other => bail!("a block of the type {other:?}"),
        }
    }
    Ok(())
}

/// Workflows, "When a Teams webhook request is received": one Adaptive Card.
fn check_teams(message: &Value) -> anyhow::Result<()> {
    check_members(message, &["type", "attachments"])?;
    ensure!(message["type"] == "message", "the type {}", message["type"]);
    let [attachment] = &message["attachments"].as_array().context("no attachments")?[..] else { bail!("not one card") };
    ensure!(attachment["contentType"] == "application/vnd.microsoft.card.adaptive", "no card");
    let card = &attachment["content"];
    ensure!(card["type"] == "AdaptiveCard" && card["version"] == "1.4", "another card");
    ensure!(card["body"].as_array().is_some_and(|body| !body.is_empty()), "an empty card");
    Ok(())
}

/// Events API, version 2: the members of an event, and their limits.
fn check_pager_duty(event: &Value) -> anyhow::Result<()> {
    check_members(event, &["routing_key", "event_action", "dedup_key", "client", "client_url", "payload", "links"])?;
    ensure!(text(event, "routing_key", 32)?.len() == 32, "a routing key has 32 characters");
    let action = text(event, "event_action", 11)?;
    ensure!(["trigger", "acknowledge", "resolve"].contains(&action), "the action {action}");
    text(event, "dedup_key", 255)?;
    let payload = &event["payload"];
    let members =
        ["summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"].as_slice();
    check_members(payload, members)?;
    text(payload, "summary", 1024)?;
    text(payload, "source", 255)?;
    let severity = text(payload, "severity", 8)?;
    ensure!(["critical", "error", "warning", "info"].contains(&severity), "the severity {severity}");
    for link in event["links"].as_array().into_iter().flatten() {
        check_members(link, &["href", "text"])?;
        text(link, "href", 2000)?;
    }
    Ok(())
}
