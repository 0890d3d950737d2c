//! `cargo infra local`: runs the product on this machine.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::Args;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use crate::{
    cloud::{Cloud, STACK},
    functions::{self, Packages},
    python::PythonTools,
    service::{Program, Service, free_port, http_client},
    steps::step,
    workspace::Workspace,
};

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

/// Tools and builds that the servers need.
#[derive(Debug)]
struct Builds {
    workspace: Workspace,
    tools: PythonTools,
    /// The functions. `None` for an empty cloud.
    packages: Option<Packages>,
    /// Path of the Tableau simulator.
    simulator: PathBuf,
}

/// The running servers.
#[derive(Debug)]
struct Servers<'a> {
    builds: &'a Builds,
    cloud: Cloud,
    simulator: Simulator,
}

/// A client of the Tableau simulator.
#[derive(Debug)]
struct Simulator {
    http: Client,
    address: String,
}

/// Runs the command.
///
/// # Errors
///
/// A step failed, or a server ended. The error says why and names the log.
pub async fn run(arguments: Local) -> anyhow::Result<()> {
    let builds = build(arguments.empty).await?;
    let folder = tempfile::Builder::new().prefix("run.").tempdir_in(builds.workspace.local("")?)?;
    let result = run_servers(arguments, &builds, folder.path()).await;
    if result.is_err() {
        eprintln!("The logs are kept in {}", folder.keep().display());
    }
    result
}

async fn build(is_empty: bool) -> anyhow::Result<Builds> {
    let workspace = Workspace::locate()?;
    let tools = async { PythonTools::for_local_stack(&workspace) };
    let tools = step("Python tools: ministack, the AWS CLI, cargo-lambda", tools).await?;
    let build = async {
        let packages = if is_empty { None } else { Some(functions::package(&workspace).await?) };
        Ok((packages, functions::simulator(&workspace).await?))
    };
    let title = if is_empty { "Build the Tableau simulator" } else { "Build the functions and the Tableau simulator" };
    let (packages, simulator) = step(title, build).await?;
    Ok(Builds { workspace, tools, packages, simulator })
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
    let Some(packages) = &servers.builds.packages else { return usage::empty_cloud(servers, &files).await };
    let (stack, queue) = tour::run(servers, packages).await?;
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

impl Simulator {
    async fn start(builds: &Builds, cloud: &Cloud, http: &Client, folder: &Path) -> anyhow::Result<(Service, Self)> {
        let port = free_port()?.to_string();
        let address = format!("http://127.0.0.1:{port}");
        let arguments = ["--port", &port, "--deliver-through", &cloud.endpoint];
        let program =
            Program { name: "the Tableau simulator", path: &builds.simulator, arguments: &arguments, environment: &[] };
        let mut service = Service::start(&builds.tools, program, folder.join("tableau-simulator.log"))?;
        service.ready(http, &format!("{address}/api/2.4/serverinfo")).await?;
        Ok((service, Self { http: http.clone(), address }))
    }

    /// Creates a site and returns its entry.
    async fn add_site(&self, content_url: &str) -> anyhow::Result<Value> {
        let secret = Uuid::new_v4().to_string();
        let mut site = json!({ "site": content_url, "token_name": STACK, "token_secret": secret });
        self.post("sites", &site).await?;
        site["server"] = self.address.as_str().into();
        Ok(site)
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<String> {
        let url = format!("{}/_simulator/{path}", self.address);
        let response = self.http.post(&url).json(body).send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "POST {url} was answered with {status}: {text}");
        Ok(text)
    }
}
