//! Commands as a person runs them, and what they print.

use std::{path::Path, process::Stdio};

use anyhow::{Context, ensure};
use tokio::{io::AsyncWriteExt, process::Command};

/// The secret of the token that the Tableau site has. No output is to hold it.
pub(crate) const SECRET: &str = "s3cret-of-the-token";

/// What a command said.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) success: bool,
    pub(crate) printed: String,
    pub(crate) warned: String,
}

impl Envelope {
    /// Everything.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.printed, self.warned)
    }

    /// Makes sure that the command succeeded and said all of these.
    pub(crate) fn well(self, expected: &[&str]) -> anyhow::Result<Self> {
        ensure!(self.success, "{}", self.all());
        self.with(expected)
    }

    /// Makes sure that the command failed and said all of these.
    pub(crate) fn badly(self, expected: &[&str]) -> anyhow::Result<Self> {
        ensure!(!self.success, "it succeeded: {}", self.all());
        self.with(expected)
    }

    fn with(self, expected: &[&str]) -> anyhow::Result<Self> {
        for expected in expected {
            ensure!(self.all().contains(expected), "{expected:?} is missing: {}", self.all());
        }
        Ok(self)
    }
}

/// `cargo infra` with these arguments.
pub(crate) fn infra(arguments: &[&str]) -> Command {
    let mut infra = Command::new(env!("CARGO_BIN_EXE_infra"));
    infra.args(arguments).kill_on_drop(true);
    infra
}

/// Runs a command, and makes sure that it says no secret.
pub(crate) async fn said(mut command: Command, input: &str) -> anyhow::Result<Envelope> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // A command that reads nothing may have ended.
    let _ = child.stdin.take().context("no input")?.write_all(input.as_bytes()).await;
    let output = child.wait_with_output().await?;
    let said = Envelope {
        success: output.status.success(),
        printed: String::from_utf8(output.stdout)?,
        warned: String::from_utf8(output.stderr)?,
    };
    ensure!(!said.all().contains(SECRET), "the secret is shown: {}", said.all());
    Ok(said)
}

/// An environment in which programs are found in these folders only, and that has no AWS settings but these.
pub(crate) fn bare(command: &mut Command, path: &[&Path], settings: &[(&str, &str)]) -> anyhow::Result<()> {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    let nothing = ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"].map(|name| (name, "/dev/null"));
    command.envs(nothing).env("AWS_EC2_METADATA_DISABLED", "true").envs(settings.iter().copied());
    command.env("PATH", std::env::join_paths(path)?);
    Ok(())
}
