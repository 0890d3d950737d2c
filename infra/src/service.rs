//! A server that runs beside us, and never without us.

use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
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

/// How long a server may take until it answers. They take less than a second; a busy machine takes longer.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is asked.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Runs a command for as long as our end of its standard input is open: also if we are killed, nothing is left behind.
const LEASH: &str = include_str!("leash.py");

/// A running server. Dropping it ends it, and everything it started.
#[derive(Debug)]
pub struct Service {
    name: String,
    leash: Child,
    /// Our end of the leash: it closes with us. Kept apart, since waiting for a child closes its standard input.
    _hand: Option<ChildStdin>,
    /// The process group of the leash, the server and everything the server started.
    group: Pid,
    log: PathBuf,
}

impl Service {
    /// Starts a server; what it prints goes to `log`.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(
        tools: &PythonTools,
        name: &str,
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot write the log {}", log.display()))?;
        let mut leash = Command::new(tools.program("python3"));
        leash.args(["-c", LEASH]).arg(program).args(arguments);
        isolate(&mut leash);
        leash.envs(environment.iter().copied()).process_group(0);
        leash.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        let mut leash = leash.spawn().with_context(|| format!("cannot start {name}"))?;
        let group = leash.id().and_then(|id| i32::try_from(id).ok()).context("a process without an id")?;
        let hand = leash.stdin.take();
        Ok(Self { name: name.to_owned(), leash, _hand: hand, group: Pid::from_raw(group), log })
    }

    /// Waits until the server answers at `url` without a server error.
    ///
    /// # Errors
    ///
    /// It ended, or does not answer in time. The error shows the end of its log.
    pub async fn ready(&mut self, http: &Client, url: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(response) = http.get(url).timeout(ANSWER_TIMEOUT).send().await
                && !response.status().is_server_error()
            {
                return Ok(());
            }
            if self.leash.try_wait()?.is_some() {
                return Err(self.obituary());
            }
            if Instant::now() > deadline {
                let Self { name, log, .. } = self;
                let seconds = START_TIMEOUT.as_secs();
                let (log, end) = (log.display(), tail(log));
                bail!("{name} does not answer at {url} after {seconds} s; its log {log} ends with:\n{end}");
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until the server has ended, which it should not, and tells so.
    pub async fn ended(&mut self) -> anyhow::Error {
        match self.leash.wait().await {
            Ok(_) => self.obituary(),
            Err(error) => anyhow::Error::new(error).context(format!("{} cannot be waited for", self.name)),
        }
    }

    /// What there is to say when the server has ended by itself.
    fn obituary(&self) -> anyhow::Error {
        let Self { name, log, .. } = self;
        anyhow::anyhow!(
            "{name} has ended, so everything is being stopped; its log {} ends with:\n{}",
            log.display(),
            tail(log)
        )
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // By force: it has nothing to save. An error says that the group is gone already.
        let _ = killpg(self.group, Signal::SIGKILL);
    }
}

/// Ports that no system gives to a connection or a listener by itself: Linux begins at 32768, others later. So nothing takes
/// one between the look at it and the start of its server.
const PORTS: Range<u16> = 20_000..32_000;

/// Returns a loopback port that is free now.
///
/// # Errors
///
/// There is none.
pub fn free_port() -> anyhow::Result<u16> {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    // Begun anywhere, since others look at the same time.
    let count = usize::from(PORTS.end - PORTS.start);
    let begin = RandomState::new().hash_one(0) as usize % count;
    PORTS.cycle().skip(begin).take(count).find(is_free).context("no free loopback port")
}

/// A client for servers on this machine.
///
/// # Errors
///
/// It cannot be made.
pub fn http_client() -> anyhow::Result<Client> {
    // A proxy of the environment is for the internet.
    Ok(client().no_proxy().build()?)
}

/// A client for servers on the internet.
///
/// # Errors
///
/// It cannot be made.
pub fn internet_client() -> anyhow::Result<Client> {
    Ok(client().https_only(true).build()?)
}

fn client() -> ClientBuilder {
    // An error says that the process has a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().user_agent(concat!("tableau-fanout/", env!("CARGO_PKG_VERSION")))
}
