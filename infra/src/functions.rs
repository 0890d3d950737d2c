//! The functions, built for this machine, in a release folder.

use std::{
    env,
    fs::{self, File},
    io::{BufReader, BufWriter, copy},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail};
use tokio::process::Command;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    binaries::Architecture,
    environment::isolate,
    release::{ReleaseFolder, new_file_for},
    workspace::Workspace,
};

/// Builds the functions in the development profile.
///
/// # Errors
///
/// They do not build.
pub async fn build(workspace: &Workspace) -> anyhow::Result<()> {
    // The default members, as `cargo lambda watch` chooses them, so that both use the same build.
    cargo_build(workspace, &["--bins"]).await
}

/// Builds the functions in the development profile and writes them to a release folder. Zips only those that changed.
///
/// # Errors
///
/// They do not build, or a file cannot be written.
pub async fn package(workspace: &Workspace) -> anyhow::Result<ReleaseFolder> {
    build(workspace).await?;
    let _lock = workspace.lock("development")?;
    let (folder, architecture) = (workspace.local("development")?, Architecture::of_this_machine()?);
    ReleaseFolder::write(workspace, &folder, architecture, |function, zip| {
        zip_bootstrap(&workspace.built(&format!("debug/{function}")), zip)
    })
}

/// Builds the Tableau simulator and returns its path.
///
/// # Errors
///
/// It does not build.
pub async fn simulator(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    cargo_build(workspace, &["--package", "tableau-simulator"]).await?;
    Ok(workspace.built("debug/tableau-simulator"))
}

async fn cargo_build(workspace: &Workspace, arguments: &[&str]) -> anyhow::Result<()> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg("build").args(arguments).arg("--manifest-path").arg(workspace.file("Cargo.toml"));
    isolate(&mut cargo);
    let status = cargo.stdin(Stdio::null()).status().await.context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo build failed with {status}. Fix: see the compiler's messages above");
    }
    Ok(())
}

/// Zips a binary under the name that Lambda starts, unless the zip is newer.
///
/// # Errors
///
/// A file cannot be read or written.
pub fn zip_bootstrap(binary: &Path, zip: &Path) -> anyhow::Result<()> {
    let built = fs::metadata(binary)?.modified()?;
    if fs::metadata(zip).and_then(|zip| zip.modified()).is_ok_and(|zipped| zipped > built) {
        return Ok(());
    }
    let mut writer = ZipWriter::new(BufWriter::new(new_file_for(zip)?));
    // Fast rather than small, since it stays on this machine.
    let options = SimpleFileOptions::default().unix_permissions(0o755).compression_level(Some(1));
    writer.start_file("bootstrap", options)?;
    copy(&mut BufReader::new(File::open(binary)?), &mut writer)?;
    writer.finish()?.into_inner()?.persist(zip)?;
    Ok(())
}
