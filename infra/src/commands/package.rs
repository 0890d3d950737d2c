//! `cargo infra package`: writes a release folder.

use std::path::PathBuf;

use clap::Args;

use crate::{
    binaries::{self, Architecture},
    cargo_lambda, release,
    steps::{show, step, step_of_program},
    workspace::Workspace,
};

/// Builds the functions, checks that Lambda can run them, and writes them to a folder with the template, as in a release.
#[derive(Clone, Debug, Args)]
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
/// The folder has other content, cargo-lambda is missing, or the functions do not build or cannot run on Lambda.
pub async fn run(arguments: Package) -> anyhow::Result<()> {
    let Package { folder, arch } = arguments;
    // Before the build, which takes minutes.
    release::expect_replaceable(&folder)?;
    cargo_lambda::check().await?;
    let workspace = Workspace::locate()?;
    let build = cargo_lambda::build(&workspace, &folder, arch);
    let written = step_of_program(&format!("Build the functions for {arch}"), build).await?;
    let check = async { binaries::check(written.path()).map(|lines| lines.iter().for_each(|line| show(line))) };
    step("Check that Lambda can run the functions", check).await?;
    let folder = folder.display();
    println!("\nThe folder is complete. To deploy it:\n\n  cargo infra deploy --bucket YOUR-BUCKET --zips {folder}");
    Ok(())
}
