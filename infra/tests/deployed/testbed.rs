//! An administrator's place of work: an empty cloud, a Tableau server, and the command line.

use anyhow::Context;
use axum::http::HeaderMap;
use infra::{
    binaries::Architecture,
    cloud::{BUCKET, Cloud},
    functions::{self, Packages},
    python::PythonTools,
    service::{Service, http_client},
    workspace::Workspace,
};
use serde_json::{Value, json};
use strict_sns::gateway::Gateway;
use tableau_simulator::server::{Running, Simulator};
use tempfile::TempDir;
use tokio::process::Command;

use crate::command::{Envelope, SECRET, infra, said};

/// Runs a command in a terminal.
const TERMINAL: &str = include_str!("terminal.py");

/// The site's contentUrl on Tableau.
pub(crate) const CONTENT_URL: &str = "mkt";

/// Everything an administrator works with.
pub(crate) struct Office {
    pub(crate) cloud: Cloud,
    pub(crate) tableau: Running,
    pub(crate) packages: Packages,
    // In the order in which they end.
    _gateway: Gateway,
    _behind: Cloud,
    _server: Service,
    _folder: TempDir,
}

impl Office {
    /// A cloud without a stack, with SNS as strict as the real one, and a Tableau server with one site.
    pub(crate) async fn open() -> anyhow::Result<Self> {
        Self::with(&[]).await
    }

    /// The same with more of ministack's settings.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let workspace = Workspace::locate()?;
        let tools = PythonTools::for_local_stack(&workspace)?;
        let packages = functions::package(&workspace).await?;
        let (folder, http) = (TempDir::new()?, http_client()?);
        let (server, behind) = Cloud::start(&tools, &http, folder.path(), settings).await?;
        let gateway = Gateway::before(&behind.endpoint, http, HeaderMap::new()).await?;
        let cloud = Cloud::at(&tools, gateway.address.clone(), folder.path());
        cloud.aws.run(&["s3", "mb", &format!("s3://{BUCKET}")]).await?;
        let tableau = Simulator::start(Some(behind.endpoint.parse()?)).await?;
        tableau.simulator.world().add_site(CONTENT_URL, "fanout", SECRET);
        Ok(Self { cloud, tableau, packages, _gateway: gateway, _behind: behind, _server: server, _folder: folder })
    }

    /// The entry that declares the Tableau site.
    pub(crate) fn entry(&self) -> Value {
        let server = format!("http://{}", self.tableau.address);
        json!({ "server": server, "site": CONTENT_URL, "token_name": "fanout", "token_secret": SECRET })
    }

    /// Runs a command at the local cloud.
    pub(crate) async fn infra(&self, arguments: &[&str]) -> anyhow::Result<Envelope> {
        self.infra_with(arguments, "").await
    }

    /// The same with something on standard input.
    pub(crate) async fn infra_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<Envelope> {
        let mut infra = infra(arguments);
        infra.args(["--endpoint-url", &self.cloud.endpoint]);
        said(infra, input).await
    }

    /// Runs a command at the local cloud in a terminal, and answers its questions, each answer with
    /// whether it is hidden.
    pub(crate) async fn infra_asks(
        &self,
        arguments: &[&str],
        answers: &[(&str, &str, bool)],
    ) -> anyhow::Result<Envelope> {
        let mut terminal = Command::new(PythonTools::for_local_stack(&Workspace::locate()?)?.program("python3"));
        terminal.args(["-c", TERMINAL, &json!(answers).to_string(), env!("CARGO_BIN_EXE_infra")]);
        terminal.args(arguments).args(["--endpoint-url", &self.cloud.endpoint]).kill_on_drop(true);
        said(terminal, "").await
    }

    /// What the AWS CLI finds in the environment of a person at the local cloud.
    pub(crate) fn settings(&self) -> [(&str, &str); 4] {
        [
            ("AWS_ACCESS_KEY_ID", "local"),
            ("AWS_SECRET_ACCESS_KEY", "local"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &self.cloud.endpoint),
        ]
    }

    /// Deploys what is built.
    pub(crate) async fn deploy(&self, options: &[&str]) -> anyhow::Result<Envelope> {
        let template = self.packages.template.to_str().context("a path")?;
        let deploy = ["deploy", "--no-build", "--template", template, "--bucket", BUCKET, "--arch", architecture()?];
        self.infra(&[&deploy[..], options].concat()).await
    }

    /// Declares the site as `marketing`.
    pub(crate) async fn add_site(&self, options: &[&str]) -> anyhow::Result<Envelope> {
        self.infra_with(&[&["add-site", "marketing"], options].concat(), &self.entry().to_string()).await
    }

    /// The names of the webhooks on the Tableau site.
    pub(crate) fn webhooks(&self) -> Vec<String> {
        let world = self.tableau.simulator.world();
        world.sites.values().flat_map(|site| &site.webhooks).map(|webhook| webhook.name.clone()).collect()
    }

    /// What the AWS CLI prints as JSON.
    pub(crate) async fn aws(&self, command: &str) -> anyhow::Result<Value> {
        self.cloud.aws.json(&command.split(' ').collect::<Vec<_>>()).await
    }
}

/// The processor that the development builds are for.
pub(crate) fn architecture() -> anyhow::Result<&'static str> {
    Ok(Architecture::of_this_machine()?.as_str())
}
