//! Servers that run as child processes, and HTTP clients for them.

use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, anyhow};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use reqwest::{Client, ClientBuilder};
use tokio::{
    process::{Child, ChildStdin, Command},
    time::{Instant, sleep},
};

use crate::{environment::isolate, python::PythonTools, steps::tail};

/// How long a server may take to start. It takes less than a second, on a busy machine longer.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two requests to a starting server.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Kills the server and its children when our end of standard input closes, which it does even if we are killed.
const SUPERVISOR: &str = include_str!("supervisor.py");

/// A server to start.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Name in messages.
    pub name: &'a str,
    /// The executable.
    pub path: &'a Path,
    /// Its arguments.
    pub arguments: &'a [&'a str],
    /// Its environment variables.
    pub environment: &'a [(&'a str, &'a str)],
}

/// A running server. Dropping it kills the server and every process that the server started.
#[derive(Debug)]
pub struct Service {
    name: String,
    supervisor: Child,
    /// Keeps the supervisor alive. Separate from `supervisor`, since waiting for a child closes its standard input.
    _supervisor_stdin: Option<ChildStdin>,
    /// Process group of the supervisor, the server and its children.
    group: Pid,
    log: PathBuf,
}

impl Service {
    /// Starts a server. Its output goes to `log`.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(tools: &PythonTools, program: Program<'_>, log: PathBuf) -> anyhow::Result<Self> {
        let Program { name, path, arguments, environment } = program;
        let file = File::create(&log).with_context(|| format!("cannot write the log {}", log.display()))?;
        let mut supervisor = Command::new(tools.program("python3"));
        supervisor.args(["-c", SUPERVISOR]).arg(path).args(arguments);
        isolate(&mut supervisor);
        supervisor.envs(environment.iter().copied()).process_group(0);
        supervisor.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        let mut supervisor = supervisor.spawn().with_context(|| format!("cannot start {name}"))?;
        let group = supervisor.id().and_then(|id| i32::try_from(id).ok()).context("a process without an id")?;
        let stdin = supervisor.stdin.take();
        Ok(Self { name: name.to_owned(), supervisor, _supervisor_stdin: stdin, group: Pid::from_raw(group), log })
    }

    /// Waits until the server answers at `url` without a server error.
    ///
    /// # Errors
    ///
    /// It ended or does not answer in time. The error quotes the end of its log.
    pub async fn ready(&mut self, http: &Client, url: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(response) = http.get(url).timeout(ANSWER_TIMEOUT).send().await
                && !response.status().is_server_error()
            {
                return Ok(());
            }
            if self.supervisor.try_wait()?.is_some() {
                return Err(self.error("has ended, so the local stack stops"));
            }
            if Instant::now() > deadline {
                let seconds = START_TIMEOUT.as_secs();
                return Err(self.error(&format!("does not answer at {url} after {seconds} s")));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until the server ends by itself, which is an error.
    pub async fn ended(&mut self) -> anyhow::Error {
        match self.supervisor.wait().await {
            Ok(_) => self.error("has ended, so the local stack stops"),
            Err(error) => anyhow::Error::new(error).context(format!("cannot wait for {}", self.name)),
        }
    }

    /// Creates an error that quotes the end of the log.
    fn error(&self, what: &str) -> anyhow::Error {
        let Self { name, log, .. } = self;
        anyhow!("{name} {what}. The log {} ends with:\n{}", log.display(), tail(log))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The server has nothing to save. An error means that the group has ended already.
        let _ = killpg(self.group, Signal::SIGKILL);
    }
}

/// Ports that no system assigns by itself: Linux begins at 32768, others later. So nothing takes one between the check and
/// the start of its server.
const PORTS: Range<u16> = 20_000..32_000;

/// Returns a loopback port that is free now.
///
/// # Errors
///
/// There is none.
pub fn free_port() -> anyhow::Result<u16> {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    // Starts at a random port, since other processes search at the same time.
    let count = usize::from(PORTS.end - PORTS.start);
    let start = RandomState::new().hash_one(0) as usize % count;
    PORTS.cycle().skip(start).take(count).find(is_free).context("no free loopback port")
}

/// HTTP client for servers on this machine.
///
/// # Errors
///
/// It cannot be created.
pub fn http_client() -> anyhow::Result<Client> {
    // The environment's proxy is for the internet.
    Ok(client().no_proxy().build()?)
}

/// HTTPS client for servers on the internet.
///
/// # Errors
///
/// It cannot be created.
pub fn internet_client() -> anyhow::Result<Client> {
    Ok(client().https_only(true).build()?)
}

fn client() -> ClientBuilder {
    // An error means that the process has a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().user_agent(concat!("tableau-fanout/", env!("CARGO_PKG_VERSION")))
}
