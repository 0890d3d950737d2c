//! Runs `cargo infra` and other commands, and checks their output.

use std::{fs::File, io::Write, path::Path, process::Stdio};

use anyhow::{Context, ensure};
use infra::binaries::Architecture;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
};
use zip::{ZipWriter, write::SimpleFileOptions};

/// Secret of the Tableau site's token. No output may have it.
pub(crate) const SECRET: &str = "s3cret-of-the-token";

/// Result of a command.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// Standard output, then standard error.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Checks that the command succeeded and printed all of these.
    pub(crate) fn succeeded(self, expected: &[&str]) -> anyhow::Result<Self> {
        ensure!(self.success, "{}", self.all());
        self.printed(expected)
    }

    /// Checks that the command failed and printed all of these.
    pub(crate) fn failed(self, expected: &[&str]) -> anyhow::Result<Self> {
        ensure!(!self.success, "it succeeded: {}", self.all());
        self.printed(expected)
    }

    fn printed(self, expected: &[&str]) -> anyhow::Result<Self> {
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

/// Runs a command with a text on standard input, and checks that its output has no secret.
pub(crate) async fn run(mut command: Command, input: &str) -> anyhow::Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // A command that does not read its input may have ended.
    let _ = child.stdin.take().context("no input")?.write_all(input.as_bytes()).await;
    let output = child.wait_with_output().await?;
    let output = Output {
        success: output.status.success(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    };
    ensure!(!output.all().contains(SECRET), "the secret is shown: {}", output.all());
    Ok(output)
}

/// Gives a command these folders as `PATH` and these AWS settings alone.
pub(crate) fn isolate(command: &mut Command, path: &[&Path], settings: &[(&str, &str)]) -> anyhow::Result<()> {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    let no_files = ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"].map(|name| (name, "/dev/null"));
    command.envs(no_files).env("AWS_EC2_METADATA_DISABLED", "true").envs(settings.iter().copied());
    command.env("PATH", std::env::join_paths(path)?);
    Ok(())
}

/// Writes a zipped function that no machine can run: it has only the parts of an executable that a deployment checks.
pub(crate) fn zip_stand_in(path: &Path, architecture: Architecture) -> anyhow::Result<()> {
    zip_stand_in_for(path, architecture, "GLIBC_2.17")
}

/// As [`zip_stand_in`], for a version of GLIBC.
pub(crate) fn zip_stand_in_for(path: &Path, architecture: Architecture, glibc: &str) -> anyhow::Result<()> {
    let machine = match architecture {
        Architecture::Arm64 => 183,
        Architecture::X86_64 => 62,
    };
    let mut zip = ZipWriter::new(File::create(path)?);
    zip.start_file("bootstrap", SimpleFileOptions::default())?;
    zip.write_all(&[b"\x7fELF".as_slice(), &[0; 14], &[machine, 0], glibc.as_bytes(), b"\0"].concat())?;
    zip.finish()?;
    Ok(())
}

/// Interrupts a command, as Ctrl-C does, when it prints a line that has this text. Returns its standard error.
pub(crate) async fn interrupt(mut command: Command, text: &str) -> anyhow::Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = command.spawn()?;
    let mut lines = BufReader::new(command.stdout.take().context("no output")?).lines();
    while !lines.next_line().await?.with_context(|| format!("no line has {text:?}"))?.contains(text) {}
    let id = command.id().and_then(|id| i32::try_from(id).ok()).context("it has ended")?;
    kill(Pid::from_raw(id), Signal::SIGINT)?;
    // Reads the rest, so that the command can print.
    while lines.next_line().await?.is_some() {}
    let output = command.wait_with_output().await?;
    let errors = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{}: {errors}", output.status);
    Ok(errors)
}
