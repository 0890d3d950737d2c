//! The AWS CLI.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::{environment::isolate, python::PythonTools};

/// The AWS CLI.
#[derive(Clone, Debug)]
pub struct Aws {
    program: PathBuf,
    /// A local cloud's, or none for the AWS account that the environment is set for.
    endpoint: Option<String>,
    folder: PathBuf,
}

impl Aws {
    /// The CLI of the tools, for a local cloud; files it is to write go to `folder`.
    pub fn local(tools: &PythonTools, endpoint: String, folder: &Path) -> Self {
        Self { program: tools.program("aws"), endpoint: Some(endpoint), folder: folder.to_owned() }
    }

    /// The CLI that is installed, with region, profile and credentials as it finds them.
    pub fn installed(folder: &Path) -> Self {
        Self { program: "aws".into(), endpoint: None, folder: folder.to_owned() }
    }

    /// The folder for its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The local cloud's endpoint, none for AWS itself.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
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
        command.args(["--output", "json"]).args(arguments).current_dir(&self.folder);
        if let Some(endpoint) = &self.endpoint {
            isolate(&mut command);
            // `cloudformation package` goes by the variable, `sqs` by the option.
            command.args(["--endpoint-url", endpoint]).env("AWS_ENDPOINT_URL", endpoint);
        }
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.with_context(|| {
            format!(
                "cannot start {}: is the AWS CLI installed? See https://aws.amazon.com/cli/",
                self.program.display()
            )
        })?;
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
