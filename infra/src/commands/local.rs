//! `cargo infra local`: runs the product on this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;

use self::servers::{Builds, Servers, Simulator};
use crate::{
    cloud::{Cloud, STACK},
    commands::console::{backend::Backend, feed::Feed, server::Server},
    connection::Connection,
    events::rendering::delivery_alerts,
    interruption::interrupted,
    local_files::LocalFiles,
    service::http_client,
    steps::step,
    tail::Tail,
    temporary_queues::Topic,
    terminal::{BOLD, good, print, styled},
    workspace::Workspace,
};

mod failure;
mod servers;
mod sink;
mod targets;
mod tour;
mod usage;
mod window;

/// Runs everything on this machine, with a simulated AWS and Tableau.
///
/// Shows the way of an event from Tableau to its subscribers and targets, and the alerts of a refresh that fails and works
/// again. Then it keeps the stack up, serves its console in the browser, and prints each message as it arrives. Ministack simulates
/// AWS.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo infra local --once
  cargo infra local             and, in another terminal, cargo infra simulate fail-refresh")]
pub struct Local {
    /// Stop after the event and the alerts have arrived. The exit status is 0 only if they have.
    #[arg(long)]
    once: bool,
    /// Deploy nothing: run an empty cloud and a Tableau server with one site, to try the deployment with.
    #[arg(long, conflicts_with = "once")]
    empty: bool,
    /// Folder for the files of the printed commands, by default target/local. Each running stack needs its own.
    #[arg(long, value_name = "FOLDER", conflicts_with = "once")]
    files: Option<PathBuf>,
}

/// The work of the command, once the servers are running.
enum Work {
    /// Show the path of an event and of alerts.
    Once,
    /// The same, and keep the stack up.
    Stack(LocalFiles),
    /// Keep an empty cloud up.
    Empty(LocalFiles),
}

/// Runs the command.
///
/// # Errors
///
/// A step failed, or a server ended. The error says why and names the log.
pub async fn run(arguments: Local) -> anyhow::Result<()> {
    let Local { once, empty, files } = arguments;
    let workspace = Workspace::locate()?;
    // Before the build, which may take minutes.
    let work = match (once, empty) {
        (true, _) => Work::Once,
        (false, false) => Work::Stack(LocalFiles::claim(&workspace, files)?),
        (false, true) => Work::Empty(LocalFiles::claim(&workspace, files)?),
    };
    let builds = Builds::new(workspace, empty).await?;
    let folder = tempfile::Builder::new().prefix("run.").tempdir_in(builds.workspace.local("")?)?;
    let result = run_servers(&work, &builds, folder.path()).await;
    if result.is_err() {
        anstream::eprintln!("The logs are kept in {}", folder.keep().display());
    }
    result
}

/// Starts the servers, runs the command's work while both run, and stops them.
async fn run_servers(work: &Work, builds: &Builds, folder: &Path) -> anyhow::Result<()> {
    let http = http_client()?;
    let cloud = Cloud::start(&builds.tools, &http, folder, &[]);
    let (mut ministack, cloud) = step("Start ministack, which simulates AWS", cloud).await?;
    let simulator = Simulator::start(builds, &cloud, &http, folder);
    let (mut tableau, simulator) = step("Start the Tableau simulator", simulator).await?;
    let servers = Servers { builds, cloud, simulator };
    tokio::select! {
        // A server that ended is the cause of other errors.
        biased;
        error = ministack.ended() => Err(error),
        error = tableau.ended() => Err(error),
        result = interruption(matches!(work, Work::Once)) => result,
        result = run_work(work, &servers) => result,
    }
}

async fn run_work(work: &Work, servers: &Servers<'_>) -> anyhow::Result<()> {
    let files = match work {
        Work::Empty(files) => return usage::empty_cloud(servers, files).await,
        Work::Stack(files) => Some(files),
        Work::Once => None,
    };
    let release = servers.builds.release.as_ref().context("the functions are not built")?;
    let (stack, entry) = tour::run(servers, release).await?;
    let mut sink = sink::Sink::start().await?;
    targets::add(servers, &stack, &sink).await?;
    failure::run(servers, &stack).await?;
    targets::show_failure(&mut sink).await?;
    print(format!(
        "\n{}",
        good(styled(
            BOLD,
            "It works: an event and the alerts of a failure went from Tableau to their subscribers and targets."
        ))
    ));
    let Some(files) = files else {
        print(
            "\nNext: `cargo infra local` keeps the stack up, and shows it in the browser. docs/tutorial.md plays with it, and \
             README.md deploys to AWS.",
        );
        return Ok(());
    };
    let Servers { builds, cloud, simulator } = servers;
    let feed = Feed::new(delivery_alerts(&stack));
    // The stack ends with the command, and its queues with it.
    let tail = Tail::claim(&stack, &[Topic::Events, Topic::Alerts])?;
    let arrivals = tail.open(&cloud.aws).await?;
    let connection = Connection::local(&builds.tools, &cloud.endpoint, STACK)?;
    let running = files.running(&cloud.endpoint, &simulator.address);
    let console = Server::start(Backend::new(connection, STACK.parse()?, Some(running), feed.clone()), 0).await?;
    usage::stack(servers, files, &stack, &entry, &usage::Addresses { console: &console.url, sink: &sink.address })
        .await?;
    window::show(arrivals, &mut sink, &feed).await
}

/// Waits for a signal, which a user sends to stop a running stack.
async fn interruption(is_failure: bool) -> anyhow::Result<()> {
    interrupted().await?;
    print("\nStopping.");
    ensure!(!is_failure, "interrupted before all messages arrived");
    Ok(())
}
