//! Lambda's Runtime API, so that a function's own binary can be called without anything between.

use std::{
    collections::HashMap,
    fs,
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Context;
use axum::{
    Json, Router,
    extract::{self, State},
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use infra::{
    python::PythonTools,
    service::{Program, Service},
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// An execution environment: a function's binary and the Runtime API it polls.
#[derive(Debug)]
pub struct Environment {
    invocations: mpsc::UnboundedSender<(String, Value)>,
    answers: Arc<Mutex<HashMap<String, oneshot::Sender<Value>>>>,
    polled: Arc<Notify>,
    address: String,
    timeout: Duration,
    task: JoinHandle<std::io::Result<()>>,
    _function: Service,
}

#[derive(Clone, Debug)]
struct Api {
    invocations: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<(String, Value)>>>,
    answers: Arc<Mutex<HashMap<String, oneshot::Sender<Value>>>>,
    polled: Arc<Notify>,
    timeout: Duration,
}

impl Environment {
    /// Starts a function with variables of its own, and an invocation of which may take so long.
    ///
    /// # Errors
    ///
    /// It does not start, or no port can be had.
    pub async fn start(
        tools: &PythonTools,
        binary: &Path,
        variables: &[(&str, &str)],
        log: &Path,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (answers, polled) = (Arc::default(), Arc::default());
        let invocations = Arc::new(tokio::sync::Mutex::new(receiver));
        let api = Api { invocations, answers: Arc::clone(&answers), polled: Arc::clone(&polled), timeout };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{outcome}", post(ended))
            .with_state(api);
        let task = tokio::spawn(async { axum::serve(listener, router).await });
        let lambda = [
            ("AWS_LAMBDA_RUNTIME_API", address.as_str()),
            ("AWS_LAMBDA_FUNCTION_NAME", "function"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ];
        let environment = [&lambda[..], variables].concat();
        let program = Program { name: "a function", path: binary, arguments: &[], environment: &environment };
        let function = Service::start(tools, program, log.into())?;
        Ok(Self { invocations: sender, answers, polled, address, timeout, task, _function: function })
    }

    /// Waits until the start is over: the function has polled for its first invocation.
    ///
    /// # Errors
    ///
    /// It does not within the time of an invocation.
    pub async fn started(&self) -> anyhow::Result<()> {
        timeout(self.timeout, self.polled.notified()).await.context("the function does not start")
    }

    /// Invokes the function and returns its answer, or the error it reported.
    ///
    /// # Errors
    ///
    /// It does not answer within its time.
    pub async fn invoke(&self, id: &str, event: Value) -> anyhow::Result<Value> {
        let (sender, answer) = oneshot::channel();
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), sender);
        self.invocations.send((id.to_owned(), event))?;
        Ok(timeout(self.timeout, answer).await.context("the function does not answer")??)
    }

    /// The most memory that the function has used so far, in KiB.
    ///
    /// # Errors
    ///
    /// It has ended, or this is no Linux.
    pub fn peak_memory_kib(&self) -> anyhow::Result<u64> {
        let mark = format!("AWS_LAMBDA_RUNTIME_API={}", self.address);
        let mut peaks = Vec::new();
        for process in fs::read_dir("/proc")? {
            let folder = process?.path();
            // A process may end while we look, and others' are none of our business.
            let Ok(environment) = fs::read(folder.join("environ")) else { continue };
            if !String::from_utf8_lossy(&environment).split('\0').any(|variable| variable == mark) {
                continue;
            }
            let status = fs::read_to_string(folder.join("status"))?;
            let name = status.lines().find_map(|line| line.strip_prefix("Name:\t")).unwrap_or_default();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
            // Its supervisor is a Python program.
            if !name.starts_with("python") {
                peaks.push(peak.context("no peak")?.parse()?);
            }
        }
        peaks.into_iter().max().context("the function has ended")
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn next(State(api): State<Api>) -> impl IntoResponse {
    api.polled.notify_one();
    let Some((id, event)) = api.invocations.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let headers = [
        ("lambda-runtime-aws-request-id", id),
        ("lambda-runtime-deadline-ms", (now + api.timeout).as_millis().to_string()),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:function".to_owned()),
    ];
    (headers, Json(event)).into_response()
}

async fn ended(
    State(api): State<Api>,
    extract::Path((id, _outcome)): extract::Path<(String, String)>,
    body: String,
) -> StatusCode {
    if let Some(waiting) = api.answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) {
        // An error says that nobody waits any longer.
        let _ = waiting.send(serde_json::from_str(&body).unwrap_or(Value::String(body)));
    }
    StatusCode::ACCEPTED
}
