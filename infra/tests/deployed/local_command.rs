//! A running `cargo infra local`.

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

/// How long the start may take. It may include a build of the functions.
const START_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How long a message may take to the window. The reason of a failure takes up to two minutes.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(180);

/// How long the end may take.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between two reads of the process table.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A running `cargo infra local`.
pub(crate) struct LocalCommand {
    pub(crate) process: Child,
    /// Kept open, so that the command can print.
    lines: Lines<BufReader<ChildStdout>>,
    /// The window's lines that were read, with single spaces.
    window: Vec<String>,
    /// The commands that it prints.
    pub(crate) commands: Vec<String>,
    pub(crate) endpoint: String,
    pub(crate) tableau: String,
    /// Address of the console.
    pub(crate) console: String,
    /// Folder with `target/local`, the files of this stack.
    pub(crate) folder: TempDir,
}

impl LocalCommand {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let mut process = Command::new(env!("CARGO_BIN_EXE_infra"))
            .args(["local", "--files"])
            .arg(folder.path().join("target/local"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("no output")?).lines();
        let (mut endpoint, mut tableau, mut console, mut commands) = (None, None, None, Vec::new());
        let started = async {
            let mut is_running = false;
            while let Some(line) = lines.next_line().await? {
                is_running |= line.starts_with("The stack is running.");
                for (name, address) in [("AWS endpoint ", &mut endpoint), ("Tableau simulator ", &mut tableau)] {
                    if let Some(printed) = line.trim().strip_prefix(name) {
                        *address = Some(printed.trim().to_owned());
                    }
                }
                match line.strip_prefix("  ").map(str::trim) {
                    Some(address) if is_running && address.starts_with("http://") => console = Some(address.to_owned()),
                    Some(command) if is_running && !command.contains("  ") => commands.push(command.to_owned()),
                    _ => {}
                }
                if line.starts_with("Events and alerts.") {
                    let endpoint = endpoint.context("no endpoint")?;
                    return Ok((endpoint, tableau.context("no simulator")?, console.context("no console")?));
                }
            }
            anyhow::bail!("the stack did not start")
        };
        let (endpoint, tableau, console) = timeout(START_TIMEOUT, started).await??;
        Ok(Self { process, lines, window: Vec::new(), commands, endpoint, tableau, console, folder })
    }

    /// Waits until a line of the window has a text, whatever the width of its columns, and returns the line.
    pub(crate) async fn shows(&mut self, text: &str) -> anyhow::Result<String> {
        let found = async {
            loop {
                if let Some(line) = self.window.iter().find(|line| line.contains(text)) {
                    return Ok(line.clone());
                }
                let line = self.lines.next_line().await?.context("the command has ended")?;
                self.window.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        };
        let found = timeout(ARRIVAL_TIMEOUT, found).await;
        found.with_context(|| format!("{text:?} is missing in the window: {:#?}", self.window))?
    }

    /// Processes of the stack with their command lines. Their arguments or environment have the cloud's port.
    pub(crate) fn processes(&self) -> anyhow::Result<Vec<(Pid, String)>> {
        let port = self.endpoint.rsplit(':').next().context("a port")?;
        let marks = [format!("GATEWAY_PORT={port}"), format!("--deliver-through {}", self.endpoint)];
        let mut found = Vec::new();
        for process in fs::read_dir("/proc")? {
            let folder = process?.path();
            let Some(id) = folder.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
            // The process may have ended.
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

    /// Kills the server whose command line begins with a program called `mark`, perhaps after an interpreter.
    pub(crate) fn kill_server(&self, mark: &str) -> anyhow::Result<()> {
        let is_server = |command: &str| command.split(' ').take(2).any(|word| word.ends_with(mark));
        let servers: Vec<_> = self.processes()?.into_iter().filter(|(_, command)| is_server(command)).collect();
        ensure!(servers.len() == 1, "{} servers {mark}: {servers:?}", servers.len());
        kill(servers[0].0, Signal::SIGKILL)?;
        Ok(())
    }

    /// Waits until the command and all its processes have ended. Returns whether it succeeded, and its messages.
    pub(crate) async fn ended(mut self) -> anyhow::Result<(bool, String)> {
        let mut messages = String::new();
        let status = timeout(END_TIMEOUT, self.process.wait()).await.context("it does not end")??;
        self.process.stderr.take().context("no messages")?.read_to_string(&mut messages).await?;
        let gone = async {
            while !self.processes()?.is_empty() {
                sleep(POLL_INTERVAL).await;
            }
            anyhow::Ok(())
        };
        let gone = timeout(END_TIMEOUT, gone).await;
        gone.with_context(|| format!("processes are left: {:?}", self.processes()))??;
        Ok((status.success(), messages))
    }
}
