//! cargo-lambda, which builds the functions for AWS.

use std::{env, fs, path::Path, process::Stdio};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    binaries::{self, Architecture},
    environment::forget_our_package,
    release::{self, ReleaseFolder},
    workspace::Workspace,
};

/// The installed `cargo lambda`.
fn cargo_lambda() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_our_package(&mut cargo);
    cargo.arg("lambda").stdin(Stdio::null()).kill_on_drop(true);
    cargo
}

/// Checks that cargo-lambda is installed.
///
/// # Errors
///
/// It is not.
pub(crate) async fn check() -> anyhow::Result<()> {
    let version = cargo_lambda().arg("--version").output().await.context("cannot start cargo")?;
    ensure!(
        version.status.success(),
        "cargo-lambda is not installed. Fix: run `pip install cargo-lambda`, or see https://www.cargo-lambda.info"
    );
    Ok(())
}

/// Builds the functions for AWS and writes them to a release folder.
///
/// # Errors
///
/// They do not build, or a file cannot be written.
pub(crate) async fn build(workspace: &Workspace, path: &Path, arch: Architecture) -> anyhow::Result<ReleaseFolder> {
    let built = TempDir::new_in(workspace.local("")?)?;
    let mut build = cargo_lambda();
    build.args(["build", "--release", arch.build_option(), "--output-format", "zip", "--lambda-dir"]).arg(built.path());
    build.arg("--manifest-path").arg(workspace.file("Cargo.toml"));
    let status = build.status().await.context("cannot start cargo")?;
    ensure!(status.success(), "the functions do not build. Fix: see the compiler's messages above");
    let folder = ReleaseFolder::write(workspace, path, arch, |function, zip| {
        let built = built.path().join(function).join("bootstrap.zip");
        let bytes = fs::read(&built).with_context(|| format!("cargo-lambda did not write {}", built.display()))?;
        release::replace(zip, &bytes)
    })?;
    let actual = binaries::architecture(folder.path())?;
    ensure!(
        actual == arch,
        "cargo-lambda built the functions for {actual} and not for {arch}. Fix: remove the setting that chooses another \
         target, such as CARGO_BUILD_TARGET"
    );
    Ok(folder)
}
