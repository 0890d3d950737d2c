//! The programs that are measured: the receiver, the forwarder, and those they are compared with.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{Cursor, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use infra::{environment::forget_our_package, workspace::Workspace};
use zip::{ZipWriter, write::SimpleFileOptions};

/// Folder of the other candidates' sources.
const SOURCES: &str = "tests/benchmark";

/// A program that serves events.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name in the report.
    pub name: &'static str,
    /// The program to start.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The events that it serves.
    pub events: Events,
}

/// Events of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// Deliveries of Tableau that it drops.
    Dropped,
    /// Deliveries of Tableau that it publishes.
    Published,
    /// Batches with a number of messages for a target.
    Forwarded(usize),
}

impl Events {
    /// Returns the messages that leave the function for each event.
    pub fn messages(self) -> usize {
        match self {
            Self::Dropped => 0,
            Self::Published => 1,
            Self::Forwarded(messages) => messages,
        }
    }
}

/// Size of a program in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// As built.
    pub binary: u64,
    /// Zipped for upload.
    pub zipped: u64,
}

/// All candidates.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// A handler that does nothing: the cost of the platform.
    pub empty: Candidate,
    /// A handler that publishes each event unchanged, on connections made as the receiver's.
    pub bare: Candidate,
    /// The receiver.
    pub receiver: Candidate,
    /// The forwarder, with one message in each batch.
    pub forwarder: Candidate,
    /// Another build of the receiver.
    pub other: Option<Candidate>,
}

impl Candidates {
    /// Builds them for this machine, as they would be built for upload.
    ///
    /// # Errors
    ///
    /// One does not build.
    pub async fn build(workspace: &Workspace, other: Option<PathBuf>) -> anyhow::Result<Self> {
        // Builds the default members only, as `cargo lambda build` does: features of the tests' dependencies stay out.
        cargo(workspace, &["build", "--release", "--locked", "--bins", "--manifest-path"], "Cargo.toml", None).await?;
        let target = workspace.built("benchmark");
        for features in [&["--bin", "empty"][..], &["--bin", "bare", "--features", "bare"]] {
            let build = [&["build", "--release", "--locked"], features, &["--manifest-path"]].concat();
            cargo(workspace, &build, &format!("{SOURCES}/candidates/Cargo.toml"), Some(&target)).await?;
        }
        Ok(Self::built(workspace, other))
    }

    /// Returns those of an earlier build.
    pub fn built(workspace: &Workspace, other: Option<PathBuf>) -> Self {
        let program = |name, program, events| Candidate { name, program, arguments: Vec::new(), events };
        let built = |name: &str| workspace.built("benchmark/release").join(name);
        Self {
            empty: program("empty handler", built("empty"), Events::Dropped),
            bare: program("bare publish", built("bare"), Events::Published),
            receiver: program("receiver", workspace.built("release/tableau-webhook-receiver"), Events::Published),
            forwarder: program("forwarder", workspace.built("release/tableau-webhook-forwarder"), Events::Forwarded(1)),
            other: other.map(|binary| program("other receiver", binary, Events::Published)),
        }
    }

    /// Returns them in the order of the report.
    pub fn all(&self) -> Vec<&Candidate> {
        [&self.empty, &self.bare, &self.forwarder, &self.receiver].into_iter().chain(&self.other).collect()
    }
}

impl Candidate {
    /// Returns the command that starts it, with only `variables` in its environment.
    ///
    /// # Errors
    ///
    /// Its log cannot be written.
    pub fn command(&self, variables: &[(&str, OsString)], log: &Path) -> anyhow::Result<Command> {
        let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }
}

/// Measures a binary.
///
/// # Errors
///
/// It cannot be read.
pub fn size(binary: &Path) -> anyhow::Result<Size> {
    let bytes = fs::read(binary).with_context(|| format!("{} is not built", binary.display()))?;
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("bootstrap", SimpleFileOptions::default())?;
    zip.write_all(&bytes)?;
    let zipped = zip.finish()?.into_inner().len();
    Ok(Size { binary: bytes.len().try_into()?, zipped: zipped.try_into()? })
}

async fn cargo(workspace: &Workspace, arguments: &[&str], manifest: &str, target: Option<&Path>) -> anyhow::Result<()> {
    let mut cargo = tokio::process::Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).arg(workspace.file(manifest));
    if let Some(target) = target {
        cargo.arg("--target-dir").arg(target);
    }
    forget_our_package(&mut cargo);
    let status = cargo.stdin(Stdio::null()).status().await.context("cannot start cargo")?;
    ensure!(status.success(), "cargo {} failed with {status}", arguments.join(" "));
    Ok(())
}
