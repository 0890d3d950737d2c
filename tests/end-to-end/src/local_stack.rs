//! The product as it is deployed: the template on ministack, and a Tableau simulator beside it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context;
use axum::http::HeaderMap;
use infra::{
    aws::{Input, has_code},
    cloud::{Cloud, STACK},
    functions,
    python::PythonTools,
    queue,
    release::ReleaseFolder,
    service::{Service, http_client},
    stack::Stack,
    target_messages::{Messages, Topic},
    target_stack,
    workspace::Workspace,
};
use reqwest::{Client, Method};
use serde_json::{Map, Value, json};
use shared::{registration::keyring::Keyring, targets::entry::Preset};
use strict_sns::gateway::Gateway;
use tableau_simulator::server::{Running, Simulator};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::aging::age;

/// A cloud that the stacks of a test binary share. It ends with the last of them.
#[derive(Debug)]
struct SharedCloud {
    release: ReleaseFolder,
    // In the order in which they end.
    _server: Service,
    cloud: Cloud,
    _folder: TempDir,
}

/// The cloud that runs now, if any stack uses one.
static CLOUD: Mutex<Weak<SharedCloud>> = Mutex::const_new(Weak::new());

/// How many stacks have names of their own.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// The next account.
static ACCOUNTS: AtomicU64 = AtomicU64::new(1);

impl SharedCloud {
    /// Builds the functions and starts a cloud with settings of its own.
    async fn start(workspace: &Workspace, tools: &PythonTools, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let release = functions::package(workspace).await?;
        let folder = test_folder(workspace)?;
        let (server, cloud) = Cloud::start(tools, &http_client()?, folder.path(), settings).await?;
        Ok(Self { release, _server: server, cloud, _folder: folder })
    }

    /// Returns the cloud that runs, or starts one.
    async fn get(workspace: &Workspace, tools: &PythonTools) -> anyhow::Result<Arc<Self>> {
        let mut running = CLOUD.lock().await;
        if let Some(cloud) = running.upgrade() {
            return Ok(cloud);
        }
        let cloud = Arc::new(Self::start(workspace, tools, &[]).await?);
        *running = Arc::downgrade(&cloud);
        Ok(cloud)
    }
}

/// Makes a name for a stack. Ministack ends the functions of a name in every account when one of that name is made in any.
fn new_name() -> String {
    format!("fanout-{}", STARTED.fetch_add(1, Ordering::Relaxed))
}

/// Makes a folder for a test's files, which ends with the test.
///
/// # Errors
///
/// It cannot be made.
pub fn test_folder(workspace: &Workspace) -> anyhow::Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("test.").tempdir_in(workspace.local("")?)?)
}

/// A deployed stack of a test's own, in an account of its own. Its functions and the test reach the cloud through a gateway
/// that is as strict as SNS.
#[derive(Debug)]
pub struct LocalStack {
    /// The account it is deployed in.
    pub cloud: Cloud,
    /// The deployed stack.
    pub stack: Stack,
    /// The Tableau server.
    pub tableau: Running,
    /// A client for everything here.
    pub http: Client,
    /// The Python tools.
    pub tools: PythonTools,
    _gateway: Gateway,
    folder: TempDir,
    shared: Arc<SharedCloud>,
}

impl LocalStack {
    /// Deploys the template in a new account, as a stack of a new name.
    ///
    /// # Errors
    ///
    /// The functions do not build, no cloud can be started, or the deployment fails.
    pub async fn start() -> anyhow::Result<Self> {
        Self::deploy(SharedCloud::get, &new_name(), None).await
    }

    /// The same with another template, beside its functions.
    ///
    /// # Errors
    ///
    /// As [`LocalStack::start`].
    pub async fn of_template(template: &Path) -> anyhow::Result<Self> {
        Self::deploy(SharedCloud::get, &new_name(), Some(template)).await
    }

    /// Deploys it under the name that the documents have, for tests that do not call its functions.
    ///
    /// # Errors
    ///
    /// As [`LocalStack::start`].
    pub async fn with_default_name() -> anyhow::Result<Self> {
        Self::deploy(SharedCloud::get, STACK, None).await
    }

    /// Deploys the template under the name that the documents have, in a cloud of its own.
    ///
    /// # Errors
    ///
    /// As [`LocalStack::start`].
    pub async fn alone() -> anyhow::Result<Self> {
        let start = async |workspace: &_, tools: &_| Ok(Arc::new(SharedCloud::start(workspace, tools, &[]).await?));
        Self::deploy(start, STACK, None).await
    }

    /// Deploys the template in a cloud of its own, which runs some functions at a time.
    ///
    /// # Errors
    ///
    /// As [`LocalStack::start`].
    pub async fn with_concurrency(functions: &str) -> anyhow::Result<Self> {
        let settings = [("LAMBDA_ACCOUNT_CONCURRENCY", functions)];
        let start =
            async |workspace: &_, tools: &_| Ok(Arc::new(SharedCloud::start(workspace, tools, &settings).await?));
        Self::deploy(start, STACK, None).await
    }

    async fn deploy(
        cloud: impl AsyncFnOnce(&Workspace, &PythonTools) -> anyhow::Result<Arc<SharedCloud>>,
        name: &str,
        template: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let workspace = Workspace::locate()?;
        let tools = PythonTools::for_local_stack(&workspace)?;
        let shared = cloud(&workspace, &tools).await?;
        let folder = test_folder(&workspace)?;
        let account = format!("{:012}", ACCOUNTS.fetch_add(1, Ordering::Relaxed));
        let http = http_client()?;
        let gateway = Gateway::before(&shared.cloud.endpoint, http.clone(), HeaderMap::new()).await?;
        let cloud = Cloud::in_account(&tools, gateway.address.clone(), folder.path(), &account);
        let stack = match template {
            Some(template) => cloud.deploy_template(name, template).await?,
            None => cloud.deploy(name, &shared.release).await?,
        };
        let tableau = Simulator::start(Some(shared.cloud.endpoint.parse()?)).await?;
        Ok(Self { cloud, stack, tableau, http, tools, _gateway: gateway, folder, shared })
    }

    /// The template of this state of the project, beside its functions.
    pub fn present_template(&self) -> PathBuf {
        self.shared.release.template()
    }

    /// Whether another stack is in the same cloud.
    pub fn shares_its_cloud_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// A folder that ends with the stack.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the signing keys that the reconciler created.
    ///
    /// # Errors
    ///
    /// There are none yet.
    pub async fn keyring(&self) -> anyhow::Result<Keyring> {
        self.stack.keyring(&self.cloud.aws).await
    }

    /// Moves the stored state into the past, so that the next run recovers what was missed since. A run on the schedule may
    /// store an item meanwhile.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn make_state_older(&self, by: time::Duration) -> anyhow::Result<()> {
        let (aws, table) = (&self.cloud.aws, self.stack.output("StateTableName")?);
        let mut done = BTreeSet::new();
        loop {
            let stored = aws.json(&["dynamodb", "scan", "--table-name", table, "--query", "Items"]).await?;
            let mut left: Vec<_> = stored.as_array().cloned().unwrap_or_default();
            left.retain(|item| !done.contains(&item["pk"].to_string()));
            if left.is_empty() {
                return Ok(());
            }
            for mut item in left {
                let version = json!({ ":version": item["version"] }).to_string();
                let unchanged =
                    ["--condition-expression", "version = :version", "--expression-attribute-values", &version];
                age(&mut item, by);
                let put = ["dynamodb", "put-item", "--table-name", table, "--item", &item.to_string()];
                match aws.run(&[&put[..], &unchanged].concat()).await {
                    Err(error) if has_code(&error, "ConditionalCheckFailedException") => {}
                    result => {
                        result?;
                        done.insert(item["pk"].to_string());
                    }
                }
            }
        }
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

    /// Stores the entry of a target.
    ///
    /// # Errors
    ///
    /// The command fails.
    pub async fn store_target(&self, name: &str, entry: &Value) -> anyhow::Result<()> {
        let parameter = format!("/{}/targets/{name}", self.stack.name());
        self.cloud.put_parameter(&parameter, self.stack.output("KeyAlias")?, &entry.to_string()).await
    }

    /// Stores the entry of a target, and deploys its stack as `cargo infra add-target` does, on a topic with a filter policy.
    ///
    /// # Errors
    ///
    /// The name, the preset or the policy is not valid, or a command fails.
    pub async fn add_target(&self, name: &str, entry: &Value, topic: Topic, filter: &Value) -> anyhow::Result<()> {
        self.store_target(name, entry).await?;
        let preset: Preset = entry["preset"].as_str().unwrap_or_default().parse()?;
        let policy = filter.as_object().cloned().context("a filter policy is an object")?;
        let messages = Messages { topic, policy, selection: Map::new() };
        target_stack::deploy(&self.cloud.aws, &self.stack, &name.parse()?, preset, Some(&messages)).await
    }

    /// Invokes the forwarder as the schedule of a target does.
    ///
    /// # Errors
    ///
    /// It fails.
    pub async fn call_coalesced(&self, target: &str) -> anyhow::Result<()> {
        let (function, request) = (format!("{}-forwarder", self.stack.name()), json!({ "coalesce": target }));
        let invoke = ["lambda", "invoke", "--function-name", &function, "--payload", "fileb:///dev/stdin"];
        let (command, request) = ([&invoke[..], &["answer.json"]].concat(), request.to_string());
        let answer = self.cloud.aws.json_with(&command, Input::Text(&request)).await?;
        anyhow::ensure!(answer["FunctionError"].is_null(), "{answer}");
        Ok(())
    }

    /// Returns the numbers of messages in a target's queue, and of those that it hides until their next attempt.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn waiting(&self, target: &str) -> anyhow::Result<[usize; 2]> {
        let url = self.queue_url(&format!("{}-target-{target}", self.stack.name())).await?;
        let names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
        let get = ["sqs", "get-queue-attributes", "--queue-url", &url, "--attribute-names"];
        let attributes = self.cloud.aws.json(&[&get[..], &names].concat()).await?;
        let [visible, hidden] = names.map(|name| attributes["Attributes"][name].as_str().unwrap_or_default().parse());
        Ok([visible?, hidden?])
    }

    async fn queue_url(&self, name: &str) -> anyhow::Result<String> {
        queue::find(&self.cloud.aws, name).await?.with_context(|| format!("no queue {name}"))
    }

    /// Returns the lines that a function has logged.
    ///
    /// # Errors
    ///
    /// The command fails.
    pub async fn log(&self, function: &str) -> anyhow::Result<Vec<String>> {
        let group = format!("/aws/lambda/{function}");
        let filter = ["logs", "filter-log-events", "--log-group-name", &group, "--query", "events[].message"];
        Ok(serde_json::from_value(self.cloud.aws.json(&filter).await?)?)
    }

    /// Returns the bodies of a target's dead letters.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn dead_letters(&self, target: &str) -> anyhow::Result<Vec<Value>> {
        let url = self.queue_url(&format!("{}-target-{target}-dead", self.stack.name())).await?;
        self.cloud.receive(&url).await
    }

    /// Makes a call that only the simulator knows.
    ///
    /// # Errors
    ///
    /// The simulator refuses it.
    pub async fn simulate(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<()> {
        let url = format!("http://{}/_simulator/{path}", self.tableau.address);
        let answer = self.http.request(method, url).json(body).send().await?;
        anyhow::ensure!(answer.status().is_success(), "{}", answer.text().await?);
        Ok(())
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

    /// Returns the messages of a queue, as `site event_type`. Waits until there are as many as expected.
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
