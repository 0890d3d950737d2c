//! The console's HTTP server.

use std::{convert::Infallible, io, net::Ipv4Addr, sync::Arc};

use anyhow::{Context, anyhow};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    middleware::from_fn_with_state,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use shared::{events::id::EventId, registration::site_name::SiteName};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    backend::{Action, Backend},
    feed::Feed,
    gate::Gate,
};
use crate::{commands::simulate, remedies};

const PAGE: &str = include_str!("../../../console/index.html");
const STYLE: &str = include_str!("../../../console/console.css");
const SCRIPT: &str = include_str!("../../../console/console.js");

/// Name of the header with the number of the last arrival that a page has.
const LAST_EVENT_ID: &str = "last-event-id";

/// The running server. It accepts no connection after it is dropped; those that are open end with the command.
pub(in crate::commands) struct Server {
    /// The address of the page, a secret.
    pub(in crate::commands) url: String,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Starts the server on a port of the loopback interface, 0 for any.
    ///
    /// # Errors
    ///
    /// Another program uses the port.
    pub(in crate::commands) async fn start(backend: Backend, port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.with_context(|| {
            format!(
                "the port {port} cannot be used. Fix: choose another one with --port, or leave it out for a free one"
            )
        })?;
        let gate = Gate::new(listener.local_addr()?);
        let url = gate.url();
        let router = Router::new()
            .route("/", get(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], PAGE)))
            .route("/console.css", get(([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)))
            .route("/console.js", get(([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT)))
            .route("/start", get(start))
            .route("/state", get(state))
            .route("/stream", get(stream_of))
            .route("/events", get(events))
            .route("/events/{id}", get(story))
            .route("/run", post(run))
            .route("/replay", post(replay))
            .route("/simulate", post(simulate))
            .with_state(Arc::new(backend));
        // Before the routes, which do not know the token.
        let router = Router::new().fallback_service(router).layer(from_fn_with_state(gate, Gate::pass));
        let task = tokio::spawn(async { axum::serve(listener, router).await });
        Ok(Self { url, task })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answer to a request that could not be carried out.
struct Failure(StatusCode, anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(StatusCode::BAD_GATEWAY, error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        let text: Vec<_> = [error.to_string()].into_iter().chain(remedies::details(&error)).collect();
        (status, Json(json!({ "error": text.join(" ") }))).into_response()
    }
}

type Answer = Result<Json<Value>, Failure>;

async fn start(State(backend): State<Arc<Backend>>) -> Answer {
    Ok(Json(backend.start()))
}

async fn state(State(backend): State<Arc<Backend>>) -> Answer {
    Ok(Json(backend.state().await?))
}

/// Which events a page asks for.
#[derive(Deserialize)]
struct Listed {
    limit: usize,
}

async fn events(State(backend): State<Arc<Backend>>, Query(listed): Query<Listed>) -> Answer {
    Ok(Json(backend.events(listed.limit).await?))
}

async fn story(State(backend): State<Arc<Backend>>, Path(id): Path<EventId>) -> Result<Json<Box<RawValue>>, Failure> {
    Ok(Json(backend.story(id).await?))
}

/// A run that a page asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    action: Action,
    site: Option<SiteName>,
}

async fn run(State(backend): State<Arc<Backend>>, Json(run): Json<Run>) -> Answer {
    let Run { action, site } = run;
    let report = backend.run(action, site).await?;
    let busy = || anyhow!("another run or replay is in progress. Nothing was done. Fix: wait for its end");
    report.map(Json).ok_or_else(|| Failure(StatusCode::CONFLICT, busy()))
}

/// An event to replay.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replayed {
    event_id: EventId,
}

async fn replay(State(backend): State<Arc<Backend>>, Json(Replayed { event_id }): Json<Replayed>) -> Answer {
    Ok(Json(backend.replay(event_id).await?))
}

async fn simulate(State(backend): State<Arc<Backend>>, Json(action): Json<simulate::Action>) -> Answer {
    Ok(Json(backend.simulate(action).await?))
}

/// Sends a page what arrived after the last arrival that it has, and then each further arrival.
async fn stream_of(
    State(backend): State<Arc<Backend>>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()?.parse().ok());
    Sse::new(news_of(backend.feed.clone(), last.unwrap_or_default())).keep_alive(KeepAlive::default())
}

fn news_of(feed: Feed, after: u64) -> impl Stream<Item = Result<Event, Infallible>> {
    let mut changes = feed.changes();
    changes.mark_changed();
    let batches = stream::unfold((feed, changes, after), |(feed, mut changes, after)| async move {
        changes.changed().await.ok()?;
        changes.mark_unchanged();
        let news = feed.news(after);
        let last = news.arrivals.last().map_or(after, |(number, _)| *number);
        let arrivals = news
            .arrivals
            .into_iter()
            .map(|(number, arrival)| Event::default().event("arrival").id(number.to_string()).data(arrival.get()));
        let live = Event::default().event("live").data(json!({ "error": news.error }).to_string());
        let events: Vec<_> = arrivals.chain([live]).map(Ok).collect();
        Some((stream::iter(events), (feed, changes, last)))
    });
    batches.flatten()
}
