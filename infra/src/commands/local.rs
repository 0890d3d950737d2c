//! `cargo infra local`: runs the product on this machine.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::servers::{Builds, Servers, Simulator};
use crate::{cloud::Cloud, service::http_client, steps::step};

mod servers;
mod tour;
mod usage;

/// Shows a Tableau event from the webhook to its subscribers. Ministack simulates AWS, another simulator Tableau.
#[derive(Debug, Args)]
pub struct Local {
    /// Stop after the event has arrived. The exit status is 0 only if it has.
    #[arg(long)]
    once: bool,
    /// Deploy nothing: run an empty cloud and a Tableau server with one site, to try the deployment with.
    #[arg(long, conflicts_with = "once")]
    empty: bool,
    /// Folder for the files of the printed commands, by default target/local. Each running stack needs its own.
    #[arg(long, value_name = "FOLDER")]
    files: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
///
/// A step failed, or a server ended. The error says why and names the log.
pub async fn run(arguments: Local) -> anyhow::Result<()> {
    let builds = Builds::new(arguments.empty).await?;
    let folder = tempfile::Builder::new().prefix("run.").tempdir_in(builds.workspace.local("")?)?;
    let result = run_servers(arguments, &builds, folder.path()).await;
    if result.is_err() {
        eprintln!("The logs are kept in {}", folder.keep().display());
    }
    result
}

/// Starts the servers, runs the command's work while both run, and stops them.
async fn run_servers(arguments: Local, builds: &Builds, folder: &Path) -> anyhow::Result<()> {
    let http = http_client()?;
    let cloud = Cloud::start(&builds.tools, &http, folder, &[]);
    let (mut ministack, cloud) = step("Start ministack, which simulates AWS", cloud).await?;
    let simulator = Simulator::start(builds, &cloud, &http, folder);
    let (mut tableau, simulator) = step("Start the Tableau simulator", simulator).await?;
    let once = arguments.once;
    let servers = Servers { builds, cloud, simulator };
    tokio::select! {
        // A server that ended is the cause of other errors.
        biased;
        error = ministack.ended() => Err(error),
        error = tableau.ended() => Err(error),
        result = interruption(once) => result,
        result = work(arguments, &servers) => result,
    }
}

async fn work(arguments: Local, servers: &Servers<'_>) -> anyhow::Result<()> {
    let files = arguments.files.map_or_else(|| servers.builds.workspace.local(""), Ok)?;
    let Some(release) = &servers.builds.release else { return usage::empty_cloud(servers, &files).await };
    let (stack, queue) = tour::run(servers, release).await?;
    if arguments.once {
        return Ok(());
    }
    usage::stack(servers, &files, &stack, &queue).await?;
    loop {
        for message in servers.cloud.receive(&queue).await? {
            println!();
            tour::show_message(&message);
        }
    }
}

/// Waits for SIGINT or SIGTERM, which a user sends to stop a running stack.
async fn interruption(is_failure: bool) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    println!("\nStopping.");
    ensure!(!is_failure, "interrupted before the event arrived");
    Ok(())
}
