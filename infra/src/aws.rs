//! The AWS CLI.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::{environment::isolate, python::PythonTools};

/// The AWS CLI, bound to an endpoint on this machine.
#[derive(Clone, Debug)]
pub struct Aws {
    program: PathBuf,
    endpoint: String,
    folder: PathBuf,
}

impl Aws {
    /// The CLI of the tools, for an endpoint; files it is to write go to `folder`.
    pub fn new(tools: &PythonTools, endpoint: String, folder: &Path) -> Self {
        Self { program: tools.program("aws"), endpoint, folder: folder.to_owned() }
    }

    /// The folder for its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a command and returns what it printed as JSON, null if it printed nothing.
    ///
    /// # Errors
    ///
    /// The command failed, or printed something else. The error shows what it said.
    pub async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let printed = self.run(arguments).await?;
        if printed.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&printed).with_context(|| format!("aws {} printed no JSON", named(arguments)))
    }

    /// Runs a command and returns what it printed.
    ///
    /// # Errors
    ///
    /// The command failed. The error shows what it said.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("--endpoint-url").arg(&self.endpoint).args(["--output", "json"]).args(arguments);
        isolate(&mut command);
        // `cloudformation package` goes by the variable, `sqs` by the option.
        command.env("AWS_ENDPOINT_URL", &self.endpoint).current_dir(&self.folder);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.with_context(|| format!("cannot start {}", self.program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("aws {} failed: {}", named(arguments), said.trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Service and operation. The rest may hold a secret.
fn named(arguments: &[&str]) -> String {
    arguments[..arguments.len().min(2)].join(" ")
}
