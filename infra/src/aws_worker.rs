//! The tools' AWS CLI, kept running between commands, since its start takes longer than most commands.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, PoisonError},
};

use anyhow::Context;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{environment::isolate, python::PythonTools};

/// Runs commands from standard input.
const SCRIPT: &str = include_str!("aws_worker.py");

/// Workers with one environment. Concurrent commands have a worker each; idle workers are reused.
#[derive(Debug)]
pub(crate) struct Workers {
    python: PathBuf,
    folder: PathBuf,
    environment: Vec<(String, String)>,
    idle: Mutex<Vec<Worker>>,
}

#[derive(Debug)]
struct Worker {
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

/// Result of a command.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    /// Exit status, 0 for success.
    pub(crate) code: i32,
    /// Text on standard output.
    pub(crate) output: String,
    /// Text on standard error.
    pub(crate) errors: String,
}

impl Workers {
    /// Workers with these variables instead of the user's AWS settings. They write files to `folder`.
    pub(crate) fn new(tools: &PythonTools, folder: &Path, environment: Vec<(String, String)>) -> Self {
        let (python, folder) = (tools.program("python3"), folder.to_owned());
        Self { python, folder, environment, idle: Mutex::default() }
    }

    /// Runs a command with a text on its standard input.
    ///
    /// # Errors
    ///
    /// The worker cannot be started, or ended. A command that failed is an answer.
    pub(crate) async fn run(&self, arguments: &[&str], input: &str) -> anyhow::Result<Answer> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut worker = match idle {
            Some(worker) => worker,
            None => self.start()?,
        };
        let mut request = json!({ "arguments": arguments, "input": input }).to_string();
        request.push('\n');
        worker.requests.write_all(request.as_bytes()).await.context("the AWS CLI has ended")?;
        let answer = worker.answers.next_line().await?.context("the AWS CLI has ended")?;
        let answer = serde_json::from_str(&answer).context("the AWS CLI's answer cannot be read")?;
        // The worker of a cancelled command does not get here. It is killed, as a command by itself would be.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
        Ok(answer)
    }

    fn start(&self) -> anyhow::Result<Worker> {
        let mut command = Command::new(&self.python);
        command.args(["-c", SCRIPT]).current_dir(&self.folder);
        isolate(&mut command);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().context("cannot start the tools' AWS CLI")?;
        let (requests, answers) = (process.stdin.take(), process.stdout.take());
        let answers = BufReader::new(answers.context("no standard output")?).lines();
        Ok(Worker { requests: requests.context("no standard input")?, answers, _process: process })
    }
}
