//! Lambda's Runtime API. It measures when a function first polls, and how long it takes to answer.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, bail};
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
    serve::ListenerExt,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

/// Time limit for a function's first poll and for an answer, under an emulator too.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The API for one function.
#[derive(Debug)]
pub struct RuntimeApi {
    /// Its host and port.
    pub address: String,
    events: mpsc::UnboundedSender<(usize, String)>,
    shared: Arc<Shared>,
    polled: watch::Receiver<Option<Instant>>,
    task: JoinHandle<()>,
    invoked: usize,
}

#[derive(Debug)]
struct Shared {
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<(usize, String)>>,
    /// The invocations without an answer yet, by request id.
    waiting: Mutex<HashMap<usize, Waiting>>,
    polled: watch::Sender<Option<Instant>>,
}

#[derive(Debug)]
struct Waiting {
    given: Option<Instant>,
    answered: oneshot::Sender<Answer>,
}

/// A function's answer to an event.
#[derive(Debug)]
struct Answer {
    took: Duration,
    outcome: String,
    body: Bytes,
}

/// An event that has no answer yet.
#[derive(Debug)]
pub struct Invocation(oneshot::Receiver<Answer>);

impl RuntimeApi {
    /// Starts one on a free loopback port.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub async fn start() -> anyhow::Result<Self> {
        let (events, receiver) = mpsc::unbounded_channel();
        let (polled, when_polled) = watch::channel(None);
        let shared = Arc::new(Shared { events: receiver.into(), waiting: Mutex::default(), polled });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{outcome}", post(ended))
            .with_state(Arc::clone(&shared));
        let listener = listener.tap_io(|connection| {
            // A connection works without this option, too.
            let _ = connection.set_nodelay(true);
        });
        let task = tokio::spawn(async move {
            // It serves until the task is aborted.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, events, shared, polled: when_polled, task, invoked: 0 })
    }

    /// Waits for the function's first poll, which ends its start.
    ///
    /// # Errors
    ///
    /// It does not come.
    pub async fn first_poll(&mut self) -> anyhow::Result<Instant> {
        let polled = timeout(TIMEOUT, self.polled.wait_for(Option::is_some)).await;
        let polled = *polled.context("the function does not poll for events")??;
        polled.context("no time of the first poll")
    }

    /// Sends the function an event.
    ///
    /// # Errors
    ///
    /// The API has ended.
    pub fn send(&mut self, event: String) -> anyhow::Result<Invocation> {
        self.invoked += 1;
        let (answered, answer) = oneshot::channel();
        self.shared.waiting().insert(self.invoked, Waiting { given: None, answered });
        self.events.send((self.invoked, event))?;
        Ok(Invocation(answer))
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Invocation {
    /// Waits for the answer, and returns how long the function took.
    ///
    /// # Errors
    ///
    /// No answer comes, or a failure.
    pub async fn answer(self) -> anyhow::Result<Duration> {
        let Answer { took, outcome, body } =
            timeout(TIMEOUT, self.0).await.context("the function does not answer")??;
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        // The receiver's answer, or the forwarder's about a batch.
        let is_success = answer["statusCode"] == 200 || answer["batchItemFailures"] == serde_json::json!([]);
        if outcome != "response" || !is_success {
            bail!("an event ended with {outcome}: {}", String::from_utf8_lossy(&body));
        }
        Ok(took)
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<usize, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn next(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    shared.polled.send_if_modified(|polled| {
        let is_first = polled.is_none();
        polled.get_or_insert_with(Instant::now);
        is_first
    });
    let Some((id, event)) = shared.events.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let deadline = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + TIMEOUT;
    let headers = [
        ("lambda-runtime-aws-request-id", id.to_string()),
        ("lambda-runtime-deadline-ms", deadline.as_millis().to_string()),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:function".to_owned()),
        ("content-type", "application/json".to_owned()),
    ];
    if let Some(waiting) = shared.waiting().get_mut(&id) {
        waiting.given = Some(Instant::now());
    }
    (headers, event).into_response()
}

async fn ended(
    State(shared): State<Arc<Shared>>,
    Path((id, outcome)): Path<(usize, String)>,
    body: Bytes,
) -> StatusCode {
    let now = Instant::now();
    if let Some(Waiting { given: Some(given), answered }) = shared.waiting().remove(&id) {
        // An error means that the caller has stopped waiting.
        let _ = answered.send(Answer { took: now - given, outcome, body });
    }
    StatusCode::ACCEPTED
}
