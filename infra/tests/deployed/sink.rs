//! A service that plays targets: it records each request and answers with a chosen status.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, Uri},
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Duration, Instant, sleep},
};

/// How long a message may take from a topic to a target.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between two looks at the requests.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The requests so far, and the answer to them.
#[derive(Debug)]
struct Requests {
    received: Vec<(String, Value)>,
    status: StatusCode,
}

/// The running service.
#[derive(Debug)]
pub(crate) struct Sink {
    address: String,
    requests: Arc<Mutex<Requests>>,
    server: JoinHandle<()>,
}

impl Sink {
    /// Starts it on this machine. It answers 200.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let requests = Arc::new(Mutex::new(Requests { received: Vec::new(), status: StatusCode::OK }));
        let router = Router::new().fallback(record).with_state(Arc::clone(&requests));
        let server = tokio::spawn(async {
            // It ends with the test.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, requests, server })
    }

    /// Address of a path.
    pub(crate) fn address(&self, path: &str) -> String {
        format!("{}/{path}", self.address)
    }

    /// Answers with this status from now on.
    pub(crate) fn answer(&self, status: u16) -> anyhow::Result<()> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).status = StatusCode::from_u16(status)?;
        Ok(())
    }

    /// Bodies that arrived at a path.
    pub(crate) fn received(&self, path: &str) -> Vec<Value> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let at_path = requests.received.iter().filter(|(at, _)| at.trim_start_matches('/') == path);
        at_path.map(|(_, body)| body.clone()).collect()
    }

    /// Waits until so many bodies have arrived at a path, and returns them.
    pub(crate) async fn wait_for(&self, path: &str, count: usize) -> anyhow::Result<Vec<Value>> {
        let start = Instant::now();
        loop {
            let received = self.received(path);
            if received.len() >= count {
                return Ok(received);
            }
            anyhow::ensure!(start.elapsed() < ARRIVAL_TIMEOUT, "{count} did not arrive at {path}: {received:?}");
            sleep(POLL_INTERVAL).await;
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn record(State(requests): State<Arc<Mutex<Requests>>>, uri: Uri, body: Bytes) -> StatusCode {
    let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into());
    requests.received.push((uri.path().to_owned(), body));
    requests.status
}
