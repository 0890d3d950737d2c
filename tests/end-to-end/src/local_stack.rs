//! The product as it is deployed: the template on ministack, and a Tableau simulator beside it.

use std::collections::BTreeSet;

use infra::{
    cloud::Cloud,
    functions,
    python::PythonTools,
    service::{Service, http_client},
    stack::Stack,
    workspace::Workspace,
};
use reqwest::Client;
use serde_json::{Value, json};
use shared::keyring::Keyring;
use tableau_simulator::server::{Running, Simulator};
use tempfile::TempDir;

/// A deployed stack of a test's own.
#[derive(Debug)]
pub struct LocalStack {
    /// The cloud it is deployed in.
    pub cloud: Cloud,
    /// What was deployed.
    pub stack: Stack,
    /// The Tableau server.
    pub tableau: Running,
    /// A client for everything here.
    pub http: Client,
    /// The Python tools.
    pub tools: PythonTools,
    // In the order in which they end.
    _server: Service,
    folder: TempDir,
}

impl LocalStack {
    /// Builds what is not built, starts a cloud and deploys.
    ///
    /// # Errors
    ///
    /// Any of it fails.
    pub async fn start() -> anyhow::Result<Self> {
        let workspace = Workspace::locate()?;
        let tools = PythonTools::for_local_stack(&workspace)?;
        let packages = functions::package(&workspace).await?;
        let folder = tempfile::Builder::new().prefix("test.").tempdir_in(workspace.local("")?)?;
        let http = http_client()?;
        let (server, cloud) = Cloud::start(&tools, &http, folder.path()).await?;
        let stack = cloud.deploy(&packages).await?;
        let tableau = Simulator::start(Some(cloud.endpoint.parse()?)).await?;
        Ok(Self { cloud, stack, tableau, http, tools, _server: server, folder })
    }

    /// A folder that ends with the stack.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The signing keys, as the reconciler made them.
    ///
    /// # Errors
    ///
    /// There are none yet.
    pub async fn keyring(&self) -> anyhow::Result<Keyring> {
        self.stack.keyring(&self.cloud.aws).await
    }

    /// Makes a site on Tableau and declares it under the same name, for some events.
    ///
    /// # Errors
    ///
    /// The entry cannot be stored.
    pub async fn declare(&self, name: &str, events: &[&str]) -> anyhow::Result<()> {
        let secret = crate::declared::secret_of(name);
        self.tableau.simulator.world().add_site(name, "fanout", &secret);
        let server = format!("http://{}", self.tableau.address);
        let entry = json!({ "server": server, "site": name, "token_name": "fanout", "token_secret": secret,
            "events": events });
        self.cloud.put_site(&self.stack, name, &entry).await
    }

    /// Lets an event happen on Tableau and returns the status codes it was answered with.
    ///
    /// # Errors
    ///
    /// It is no event.
    pub async fn fire(&self, site: &str, event: &str, body: &Value, times: usize) -> anyhow::Result<Vec<Option<u16>>> {
        let deliveries = self.tableau.simulator.fire(site, &event.parse()?, &body.to_string(), times).await;
        Ok(deliveries.iter().flat_map(|delivery| &delivery.attempts).map(|attempt| attempt.status).collect())
    }

    /// What a queue holds, as `site event_type` of each message. Waits until there are as many as expected.
    ///
    /// # Errors
    ///
    /// They do not arrive.
    pub async fn arrived(&self, queue: &str, expected: usize) -> anyhow::Result<BTreeSet<String>> {
        let mut arrived = Vec::new();
        while arrived.len() < expected {
            arrived.extend(self.cloud.receive_some(queue).await?);
        }
        anyhow::ensure!(arrived.len() == expected, "more messages than expected: {arrived:?}");
        let attribute = |message: &Value, name: &str| {
            message["MessageAttributes"][name]["StringValue"].as_str().unwrap_or("none").to_owned()
        };
        Ok(arrived
            .iter()
            .map(|message| [attribute(message, "site"), attribute(message, "event_type")].join(" "))
            .collect())
    }
}
