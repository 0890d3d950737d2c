//! Servers of a local stack.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    cloud::{Cloud, STACK},
    functions,
    python::PythonTools,
    release::ReleaseFolder,
    service::{Program, Service, free_port},
    steps::{step, step_of_program},
    workspace::Workspace,
};

/// Tools and builds that the servers need.
#[derive(Debug)]
pub(super) struct Builds {
    pub(super) workspace: Workspace,
    pub(super) tools: PythonTools,
    /// The functions. `None` for an empty cloud.
    pub(super) release: Option<ReleaseFolder>,
    /// Path of the Tableau simulator.
    pub(super) simulator: PathBuf,
}

/// The running servers.
#[derive(Debug)]
pub(super) struct Servers<'a> {
    pub(super) builds: &'a Builds,
    pub(super) cloud: Cloud,
    pub(super) simulator: Simulator,
}

/// A client of the Tableau simulator.
#[derive(Debug)]
pub(super) struct Simulator {
    pub(super) http: Client,
    pub(super) address: String,
}

impl Builds {
    /// Installs the tools and builds the programs.
    pub(super) async fn new(workspace: Workspace, is_empty: bool) -> anyhow::Result<Self> {
        let tools = async { PythonTools::for_local_stack(&workspace) };
        let tools = step("Python tools: ministack, the AWS CLI, cargo-lambda", tools).await?;
        let build = async {
            let release = if is_empty { None } else { Some(functions::package(&workspace).await?) };
            Ok((release, functions::simulator(&workspace).await?))
        };
        let title =
            if is_empty { "Build the Tableau simulator" } else { "Build the functions and the Tableau simulator" };
        let (release, simulator) = step_of_program(title, build).await?;
        Ok(Self { workspace, tools, release, simulator })
    }
}

impl Simulator {
    pub(super) async fn start(
        builds: &Builds,
        cloud: &Cloud,
        http: &Client,
        folder: &Path,
    ) -> anyhow::Result<(Service, Self)> {
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
    pub(super) async fn add_site(&self, content_url: &str) -> anyhow::Result<Value> {
        let secret = Uuid::new_v4().to_string();
        let mut site = json!({ "site": content_url, "token_name": STACK, "token_secret": secret });
        self.call(Method::POST, "sites", &site).await?;
        site["server"] = self.address.as_str().into();
        Ok(site)
    }

    /// Makes a call of the simulator's own. Returns the answer.
    pub(super) async fn call(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<String> {
        let url = format!("{}/_simulator/{path}", self.address);
        let response = self.http.request(method.clone(), &url).json(body).send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "{method} {url} was answered with {status}: {text}");
        Ok(text)
    }
}
