//! A local stack that `cargo infra local` keeps up.

use std::{fs, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{sleep, timeout},
};

/// How long the stack may take until it is up: the functions may have to be built first, on a cold machine.
const UP_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How long it may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the process table is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A stack that is up.
pub(crate) struct Local {
    pub(crate) process: Child,
    // Held, so that printing never fails.
    _lines: Lines<BufReader<ChildStdout>>,
    pub(crate) endpoint: String,
    pub(crate) tableau: String,
    /// Holds `target/local` with this stack's files, as the workspace does for a person's.
    pub(crate) folder: TempDir,
}

impl Local {
    pub(crate) async fn up() -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let mut process = Command::new(env!("CARGO_BIN_EXE_infra"))
            .args(["local", "--files"])
            .arg(folder.path().join("target/local"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("no output")?).lines();
        let (mut endpoint, mut tableau) = (None, None);
        let up = async {
            while let Some(line) = lines.next_line().await? {
                for (name, address) in [("AWS endpoint ", &mut endpoint), ("Tableau simulator ", &mut tableau)] {
                    if let Some(told) = line.trim().strip_prefix(name) {
                        *address = Some(told.trim().to_owned());
                    }
                }
                if line.starts_with("What arrives in the queue") {
                    return Ok((endpoint.context("no endpoint was told")?, tableau.context("no simulator was told")?));
                }
            }
            anyhow::bail!("the stack did not come up")
        };
        let (endpoint, tableau) = timeout(UP_TIMEOUT, up).await??;
        Ok(Self { process, _lines: lines, endpoint, tableau, folder })
    }

    /// The processes of the stack with their command lines: those that the cloud's port is told to.
    pub(crate) fn processes(&self) -> anyhow::Result<Vec<(Pid, String)>> {
        let port = self.endpoint.rsplit(':').next().context("a port")?;
        let marks = [format!("GATEWAY_PORT={port}"), format!("--deliver-through {}", self.endpoint)];
        let mut found = Vec::new();
        for process in fs::read_dir("/proc")? {
            let folder = process?.path();
            let Some(id) = folder.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
            // A process may end while we look.
            let text = |file: &str| {
                let bytes = fs::read(folder.join(file)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            let command = text("cmdline");
            let all = format!("{command}{}", text("environ"));
            if marks.iter().any(|mark| all.contains(mark)) {
                found.push((Pid::from_raw(id), command));
            }
        }
        Ok(found)
    }

    /// Kills the server whose command line has `mark` right behind its interpreter, if it has one.
    pub(crate) fn kill_server(&self, mark: &str) -> anyhow::Result<()> {
        let is_server = |command: &str| command.split(' ').take(2).any(|word| word.ends_with(mark));
        let servers: Vec<_> = self.processes()?.into_iter().filter(|(_, command)| is_server(command)).collect();
        ensure!(servers.len() == 1, "{} servers {mark}: {servers:?}", servers.len());
        kill(servers[0].0, Signal::SIGKILL)?;
        Ok(())
    }

    /// Waits until all has ended. Returns whether it ended well, and what was said of it.
    pub(crate) async fn ended(mut self) -> anyhow::Result<(bool, String)> {
        let mut said = String::new();
        let status = timeout(END_TIMEOUT, self.process.wait()).await.context("it does not end")??;
        self.process.stderr.take().context("no messages")?.read_to_string(&mut said).await?;
        let gone = async {
            while !self.processes()?.is_empty() {
                sleep(POLL_INTERVAL).await;
            }
            anyhow::Ok(())
        };
        let gone = timeout(END_TIMEOUT, gone).await;
        gone.with_context(|| format!("processes were left behind: {:?}", self.processes()))??;
        Ok((status.success(), said))
    }
}
