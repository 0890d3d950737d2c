//! `cargo infra package`: writes a release folder.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::deploy;
use crate::{
    binaries::Architecture,
    interruption::unless_interrupted,
    release,
    terminal::{good, print},
    workspace::Workspace,
};

/// Builds the functions, and writes them to a folder with the template, as in a release.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  cargo infra package target/package
  cargo infra deploy --zips target/package")]
pub struct Package {
    /// Folder to write: new, empty, or written by this command before.
    folder: PathBuf,
    /// Processor to build for.
    #[arg(long, value_enum, default_value = "arm64")]
    arch: Architecture,
}

/// Runs the command.
///
/// # Errors
///
/// The folder has other content, cargo-lambda cannot be installed, the functions do not build or cannot run on Lambda, or the
/// command was interrupted.
pub async fn run(arguments: Package) -> anyhow::Result<()> {
    let Package { folder, arch } = arguments;
    // Before the build, which takes minutes.
    release::expect_replaceable(&folder)?;
    let workspace = Workspace::locate()?;
    let Some(built) = unless_interrupted(deploy::build(&workspace, &folder, arch)).await? else {
        bail!(
            "interrupted before the functions were built. Nothing was written. Fix: run this command again, which continues \
             with what is built"
        )
    };
    deploy::check(&built?).await?;
    print(format!("\n{}", good("The folder is complete.")));
    print(format!("To deploy it:\n\n  cargo infra deploy --zips {}", folder.display()));
    Ok(())
}
