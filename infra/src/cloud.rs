//! The local cloud. The same commands as on AWS deploy the stack to it.

use std::path::Path;

use anyhow::{Context, bail};
use reqwest::Client;
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    aws::Aws,
    binaries::Architecture,
    environment, parameters,
    python::PythonTools,
    queue,
    reconciler::{self, Answer},
    release::ReleaseFolder,
    service::{Program, Service, free_port},
    stack::Stack,
};

/// Default name of a stack.
pub const STACK: &str = shared::sites::commands::DEFAULT_STACK;

/// Bucket for the code in a local cloud.
pub const BUCKET: &str = "artifacts";

/// A local cloud.
#[derive(Debug)]
pub struct Cloud {
    /// URL of the cloud.
    pub endpoint: String,
    /// The AWS CLI for the cloud.
    pub aws: Aws,
    /// The account. Ministack uses an access key of twelve digits as the account's number.
    pub account: String,
    /// Ministack unpacks functions here, if we started it.
    _scratch: Option<TempDir>,
}

impl Cloud {
    /// Starts ministack on a free loopback port, with additional settings. It writes files to `folder`.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub async fn start(
        tools: &PythonTools,
        http: &Client,
        folder: &Path,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<(Service, Self)> {
        let port = free_port()?.to_string();
        let endpoint = format!("http://127.0.0.1:{port}");
        // Unpacked functions are deleted with us, also if a failed run keeps its logs.
        let scratch = TempDir::new_in(folder)?;
        let scratch_text = scratch.path().to_str().context("the folder's path is not UTF-8")?;
        let environment = [
            ("GATEWAY_PORT", port.as_str()),
            ("BIND_HOST", "127.0.0.1"),
            ("TMPDIR", scratch_text),
            ("MINISTACK_REGION", environment::REGION),
            // AWS's default quota. Ministack's depends on the machine's memory.
            ("LAMBDA_ACCOUNT_CONCURRENCY", "1000"),
        ];
        let environment = [&environment[..], settings].concat();
        let path = tools.program("ministack");
        let program = Program { name: "ministack", path: &path, arguments: &[], environment: &environment };
        let mut server = Service::start(tools, program, folder.join("ministack.log"))?;
        server.ready(http, &format!("{endpoint}/_ministack/ready")).await?;
        let cloud = Self { _scratch: Some(scratch), ..Self::at(tools, endpoint, folder) };
        Ok((server, cloud))
    }

    /// Connects to a running cloud. The AWS CLI writes files to `folder`.
    pub fn at(tools: &PythonTools, endpoint: String, folder: &Path) -> Self {
        Self::in_account(tools, endpoint, folder, environment::ACCOUNT)
    }

    /// Connects to an account of a running cloud. Accounts have twelve digits and share nothing.
    pub fn in_account(tools: &PythonTools, endpoint: String, folder: &Path, account: &str) -> Self {
        let aws = Aws::local_as(tools, endpoint.clone(), folder, &[("AWS_ACCESS_KEY_ID", account)]);
        Self { aws, endpoint, account: account.to_owned(), _scratch: None }
    }

    /// Uploads the functions and deploys the stack `name`.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn deploy(&self, name: &str, release: &ReleaseFolder) -> anyhow::Result<Stack> {
        self.deploy_template(name, &release.template()).await
    }

    /// The same with a template beside its functions, which were built for this machine.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn deploy_template(&self, name: &str, template: &Path) -> anyhow::Result<Stack> {
        self.aws.run(&["s3", "mb", &format!("s3://{}", self.bucket())]).await?;
        self.update(name, template).await
    }

    /// Uploads a template's functions, and updates the stack that [`Cloud::deploy`] created.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn update(&self, name: &str, template: &Path) -> anyhow::Result<Stack> {
        let architecture = format!("Architecture={}", Architecture::of_this_machine()?);
        let parameters = [architecture, format!("AwsEndpointUrl={}", self.endpoint)];
        Stack::deploy(&self.aws, name, template, &self.bucket(), &parameters).await
    }

    /// Name of the bucket that [`Cloud::deploy`] creates. Two accounts cannot have buckets of one name.
    pub fn bucket(&self) -> String {
        format!("{BUCKET}-{}", self.account)
    }

    /// Stores a site entry.
    ///
    /// # Errors
    ///
    /// The command fails.
    pub async fn put_site(&self, stack: &Stack, name: &str, entry: &Value) -> anyhow::Result<()> {
        stack.put_site(&self.aws, name, &SecretString::from(entry.to_string()), true).await
    }

    /// Stores a SecureString.
    ///
    /// # Errors
    ///
    /// The command fails.
    pub async fn put_parameter(&self, name: &str, key: &str, value: &str) -> anyhow::Result<()> {
        parameters::put(&self.aws, name, key, &SecretString::from(value), true).await
    }

    /// Runs the reconciler with `apply` and returns its report.
    ///
    /// # Errors
    ///
    /// As [`Cloud::reconcile`].
    pub async fn apply(&self, stack: &Stack) -> anyhow::Result<Value> {
        self.reconcile(stack, "apply").await
    }

    /// Runs the reconciler and returns its report.
    ///
    /// # Errors
    ///
    /// The run failed. The error has the function's message.
    pub async fn reconcile(&self, stack: &Stack, action: &str) -> anyhow::Result<Value> {
        match reconciler::invoke(&self.aws, stack, action, &[]).await? {
            Answer::Report(report) => Ok(report),
            Answer::Failure { text, .. } => bail!("the reconciler failed: {text}"),
        }
    }

    /// Creates a queue, subscribes it to the events topic with a filter policy, and returns its URL.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn subscribe_queue(&self, stack: &Stack, name: &str, filter: &Value) -> anyhow::Result<String> {
        let options = json!({ "RawMessageDelivery": "true", "FilterPolicy": filter.to_string() });
        self.subscribe_queue_to(stack.output("EventsTopicArn")?, name, &options).await
    }

    /// Creates a queue, FIFO if the name ends with `.fifo`, subscribes it to a topic, and returns its URL.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn subscribe_queue_to(&self, topic: &str, name: &str, options: &Value) -> anyhow::Result<String> {
        let queue = queue::create(&self.aws, name).await?;
        queue::subscribe(&self.aws, &queue, topic, options).await?;
        Ok(queue)
    }

    /// Formats the functions' environment as an env file, to run them outside of the cloud.
    ///
    /// # Errors
    ///
    /// The stack lacks an output.
    pub fn lambda_environment(&self, stack: &Stack) -> anyhow::Result<String> {
        let [keys, tableau_ca, targets] =
            ["signing-keys", "tableau-ca", "targets"].map(|parameter| stack.parameter(parameter));
        let ours = [
            ("AWS_ACCESS_KEY_ID", self.account.as_str()),
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("EVENTS_TOPIC_ARN", stack.output("EventsTopicArn")?),
            ("ALERTS_TOPIC_ARN", stack.output("AlertsTopicArn")?),
            ("SIGNING_KEYS_PARAMETER", &keys),
            ("STATE_TABLE", stack.output("StateTableName")?),
            ("TABLEAU_CA_PARAMETER", &tableau_ca),
            ("RECEIVER_URL", stack.output("ReceiverUrl")?),
            ("SITES_PATH", stack.output("SitesPath")?),
            ("NAME_PREFIX", stack.name()),
            ("TARGETS_PATH", &targets),
            ("ALLOW_LOOPBACK_TARGETS", "true"),
        ];
        // `cargo lambda` rejects a line with an empty value.
        let shared = environment::AWS.into_iter().filter(|(name, _)| *name != "AWS_ACCESS_KEY_ID");
        let all = shared.chain(ours).filter(|(_, value)| !value.is_empty());
        Ok(all.map(|(name, value)| format!("{name}={value}\n")).collect())
    }

    /// As [`queue::receive`].
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn receive(&self, queue: &str) -> anyhow::Result<Vec<Value>> {
        queue::receive(&self.aws, queue).await
    }

    /// As [`queue::receive_some`].
    ///
    /// # Errors
    ///
    /// No message arrives in time.
    pub async fn receive_some(&self, queue: &str) -> anyhow::Result<Vec<Value>> {
        queue::receive_some(&self.aws, queue).await
    }
}
