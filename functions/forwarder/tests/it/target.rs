//! A target that answers by a script, whatever HTTP allows or does not.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

/// An answer.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A status.
    Status(u16),
    /// A status and one header.
    With(u16, &'static str, String),
    /// A status and a body without end.
    Endless(u16),
    /// None, on a connection that stays open.
    Hang,
    /// None, on a connection that is reset.
    Reset,
}

/// A request that a target received.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The first line and the headers.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: String,
    /// The answer that it got.
    pub(crate) answer: Answer,
}

impl Call {
    /// The identifier of the message.
    pub(crate) fn id(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).expect("JSON");
        body["id"].as_str().or(body["event_id"].as_str()).expect("an identifier").to_owned()
    }

    /// Whether the message was accepted.
    pub(crate) fn is_accepted(&self) -> bool {
        matches!(self.answer, Answer::Status(200..=299) | Answer::Endless(200..=299))
    }

    /// Whether the answer was a redirect.
    pub(crate) fn is_redirected(&self) -> bool {
        matches!(self.answer, Answer::With(300..=399, ..))
    }
}

/// Returns the answer to a call from the number of earlier calls, and of those about the same message.
type Script = Box<dyn Fn(usize, usize) -> Answer + Send + Sync>;

#[derive(Default)]
struct State {
    calls: Mutex<Vec<Call>>,
    called: Notify,
    endless_bytes: AtomicUsize,
}

/// A target on a loopback port. Dropping this ends it.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Target {
    /// Starts a target.
    pub(crate) async fn start(script: impl Fn(usize, usize) -> Answer + Send + Sync + 'static) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (state, script) = (Arc::<State>::default(), Arc::<Script>::new(Box::new(script)));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared), Arc::clone(&script)));
            }
        });
        Ok(Self { address, state, task })
    }

    /// Returns the calls so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the bytes of answers without end that were sent.
    pub(crate) fn endless_bytes(&self) -> usize {
        self.state.endless_bytes.load(Ordering::Relaxed)
    }

    /// Waits until there was a number of calls.
    pub(crate) async fn called(&self, count: usize) {
        let wait = async {
            while self.calls().len() < count {
                self.state.called.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the calls");
    }
}

async fn serve(stream: TcpStream, state: Arc<State>, script: Arc<Script>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            anyhow::ensure!(stream.read_line(&mut head).await? > 0, "the end");
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).context("a length")?;
        let mut body = vec![0; length.parse()?];
        stream.read_exact(&mut body).await?;
        let body = String::from_utf8(body)?;
        let answer = {
            let mut calls = state.calls.lock().unwrap_or_else(PoisonError::into_inner);
            let same = calls.iter().filter(|call| call.body == body).count();
            let answer = script(calls.len(), same);
            calls.push(Call { head, body, answer: answer.clone() });
            answer
        };
        state.called.notify_one();
        let head = |status: u16, header: String, length: &str| {
            format!("HTTP/1.1 {status} An answer\r\n{header}content-length: {length}\r\n\r\n")
        };
        match answer {
            Answer::Status(status) => stream.write_all(head(status, String::new(), "0").as_bytes()).await?,
            Answer::With(status, name, value) => {
                let text = "s3cret-answer";
                let header = format!("{name}: {value}\r\n");
                stream.write_all((head(status, header, "13") + text).as_bytes()).await?;
            }
            Answer::Endless(status) => {
                stream.write_all(head(status, String::new(), "1000000000000").as_bytes()).await?;
                loop {
                    stream.write_all(&[b' '; 4096]).await?;
                    state.endless_bytes.fetch_add(4096, Ordering::Relaxed);
                }
            }
            Answer::Hang => {
                // Until the client ends the connection.
                stream.read_u8().await?;
            }
            Answer::Reset => {
                stream.get_ref().set_zero_linger()?;
                return Ok(());
            }
        }
    }
}
