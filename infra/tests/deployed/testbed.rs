//! An empty cloud, a Tableau server, and the command line.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::Context;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use infra::{
    binaries::{FUNCTIONS, zip_of},
    cloud::{BUCKET, Cloud},
    environment::REGION,
    functions,
    python::PythonTools,
    release::ReleaseFolder,
    service::{Service, http_client},
    workspace::Workspace,
};
use serde_json::{Value, json};
use strict_sns::gateway::Gateway;
use tableau_simulator::server::{Running, Simulator};
use tempfile::TempDir;
use tokio::process::Command;

use crate::command::{Output, SECRET, infra, run};

/// Runs a command in a terminal.
const TERMINAL: &str = include_str!("terminal.py");

/// Returns a terminal in which the answers are typed, for a command that follows as its arguments.
pub(crate) fn terminal(answers: &[(&str, &str, bool)]) -> anyhow::Result<Command> {
    let mut terminal = Command::new(PythonTools::for_local_stack(&Workspace::locate()?)?.program("python3"));
    terminal.args(["-c", TERMINAL, &json!(answers).to_string()]).kill_on_drop(true);
    Ok(terminal)
}

/// The site's contentUrl on Tableau.
pub(crate) const CONTENT_URL: &str = "mkt";

/// The servers and the functions to deploy.
pub(crate) struct Testbed {
    pub(crate) cloud: Cloud,
    pub(crate) tableau: Running,
    pub(crate) release: ReleaseFolder,
    // In the order in which they stop.
    _gateway: Gateway,
    _ministack: Cloud,
    _server: Service,
    _folder: TempDir,
}

impl Testbed {
    /// Starts a cloud without a stack, with SNS as strict as AWS, and a Tableau server with one site.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::with(&[]).await
    }

    /// As [`Testbed::start`], with additional settings of ministack.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let workspace = Workspace::locate()?;
        let tools = PythonTools::for_local_stack(&workspace)?;
        let release = functions::package(&workspace).await?;
        let (folder, http) = (TempDir::new()?, http_client()?);
        let (server, ministack) = Cloud::start(&tools, &http, folder.path(), settings).await?;
        // Ministack takes a call with this header, as a load balancer sets it, for one over TLS.
        let over_tls = HeaderName::from_static("x-forwarded-proto");
        let over_tls = HeaderMap::from_iter([(over_tls, HeaderValue::from_static("https"))]);
        let gateway = Gateway::before(&ministack.endpoint, http, over_tls).await?;
        let cloud = Cloud::at(&tools, gateway.address.clone(), folder.path());
        cloud.aws.run(&["s3", "mb", &format!("s3://{BUCKET}")]).await?;
        let tableau = Simulator::start(Some(ministack.endpoint.parse()?)).await?;
        tableau.simulator.world().add_site(CONTENT_URL, "fanout", SECRET);
        Ok(Self { cloud, tableau, release, _gateway: gateway, _ministack: ministack, _server: server, _folder: folder })
    }

    /// Entry of the Tableau site.
    pub(crate) fn entry(&self) -> Value {
        let server = format!("http://{}", self.tableau.address);
        json!({ "server": server, "site": CONTENT_URL, "token_name": "fanout", "token_secret": SECRET })
    }

    /// Runs a command of `cargo infra` at the local cloud.
    pub(crate) async fn infra(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.infra_with(arguments, "").await
    }

    /// As [`Testbed::infra`], with a text on standard input.
    pub(crate) async fn infra_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut infra = infra(arguments);
        infra.args(["--endpoint-url", &self.cloud.endpoint]);
        run(infra, input).await
    }

    /// Runs a command of `cargo infra` in a terminal. Types the answers: question, answer, whether it is hidden.
    pub(crate) async fn infra_in_terminal(
        &self,
        arguments: &[&str],
        answers: &[(&str, &str, bool)],
    ) -> anyhow::Result<Output> {
        let mut terminal = terminal(answers)?;
        terminal.arg(env!("CARGO_BIN_EXE_infra")).args(arguments).args(["--endpoint-url", &self.cloud.endpoint]);
        run(terminal, "").await
    }

    /// AWS settings of a user of the local cloud.
    pub(crate) fn settings(&self) -> [(&str, &str); 4] {
        [
            ("AWS_ACCESS_KEY_ID", "local"),
            ("AWS_SECRET_ACCESS_KEY", "local"),
            ("AWS_DEFAULT_REGION", REGION),
            ("AWS_ENDPOINT_URL", &self.cloud.endpoint),
        ]
    }

    /// Deploys the functions.
    pub(crate) async fn deploy(&self, options: &[&str]) -> anyhow::Result<Output> {
        self.deploy_folder(self.release.path(), options).await
    }

    /// Deploys a release folder.
    pub(crate) async fn deploy_folder(&self, folder: &Path, options: &[&str]) -> anyhow::Result<Output> {
        let deploy = ["deploy", "--bucket", BUCKET, "--zips", folder.to_str().context("a path")?];
        self.infra(&[&deploy[..], options].concat()).await
    }

    /// Creates a release folder with the functions and another template.
    pub(crate) fn folder_with(&self, template: &str) -> anyhow::Result<TempDir> {
        let folder = TempDir::new()?;
        fs::write(folder.path().join("template.yaml"), template)?;
        for function in FUNCTIONS {
            symlink(zip_of(self.release.path(), function), zip_of(folder.path(), function))?;
        }
        Ok(folder)
    }

    /// Adds the site as `marketing`.
    pub(crate) async fn add_site(&self, options: &[&str]) -> anyhow::Result<Output> {
        self.infra_with(&[&["add-site", "marketing"], options].concat(), &self.entry().to_string()).await
    }

    /// Names of the webhooks on the Tableau site.
    pub(crate) fn webhooks(&self) -> Vec<String> {
        let world = self.tableau.simulator.world();
        world.sites.values().flat_map(|site| &site.webhooks).map(|webhook| webhook.name.clone()).collect()
    }

    /// Runs an AWS CLI command and returns its JSON output.
    pub(crate) async fn aws(&self, command: &str) -> anyhow::Result<Value> {
        self.cloud.aws.json(&command.split(' ').collect::<Vec<_>>()).await
    }
}
