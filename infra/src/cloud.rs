//! The local cloud, and how the stack gets into it: by the same commands as on AWS.

use std::path::Path;

use anyhow::{Context, bail};
use reqwest::Client;
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    aws::Aws,
    binaries::Architecture,
    environment,
    functions::Packages,
    python::PythonTools,
    queue,
    service::{Service, free_port},
    stack::{Answer, Stack, put_secret},
};

/// Name of the local stack: the product's default.
pub const STACK: &str = "tableau-fanout";

/// The bucket for the code in a local cloud.
pub const BUCKET: &str = "artifacts";

/// A local cloud.
#[derive(Debug)]
pub struct Cloud {
    /// Where it answers.
    pub endpoint: String,
    /// The AWS CLI for it.
    pub aws: Aws,
    /// The account; ministack takes an access key of twelve digits for one.
    pub account: String,
    /// Where the one that we started unpacks functions.
    _scratch: Option<TempDir>,
}

impl Cloud {
    /// Starts a cloud, served by ministack, on a free loopback port, with more of ministack's settings. What it writes goes
    /// to `folder`.
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
        // Unpacked functions go where they end with us, also if a failed run keeps its logs.
        let scratch = TempDir::new_in(folder)?;
        let scratch_text = scratch.path().to_str().context("the folder's path is not UTF-8")?;
        let environment = [
            ("GATEWAY_PORT", port.as_str()),
            ("BIND_HOST", "127.0.0.1"),
            ("TMPDIR", scratch_text),
            // AWS's quota. Ministack's own goes by the machine's memory.
            ("LAMBDA_ACCOUNT_CONCURRENCY", "1000"),
        ];
        let program = tools.program("ministack");
        let log = folder.join("ministack.log");
        let environment = [&environment[..], settings].concat();
        let mut server = Service::start(tools, "ministack", &program, &[], &environment, log)?;
        server.ready(http, &format!("{endpoint}/_ministack/ready")).await?;
        let cloud = Self { _scratch: Some(scratch), ..Self::at(tools, endpoint, folder) };
        Ok((server, cloud))
    }

    /// A cloud that runs already. What is written for it goes to `folder`.
    pub fn at(tools: &PythonTools, endpoint: String, folder: &Path) -> Self {
        Self::in_account(tools, endpoint, folder, environment::ACCOUNT)
    }

    /// The same in an account (twelve digits), which shares nothing with others.
    pub fn in_account(tools: &PythonTools, endpoint: String, folder: &Path, account: &str) -> Self {
        let aws = Aws::local_as(tools, endpoint.clone(), folder, &[("AWS_ACCESS_KEY_ID", account)]);
        Self { aws, endpoint, account: account.to_owned(), _scratch: None }
    }

    /// Uploads the functions and deploys the template as the stack called `name`.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn deploy(&self, name: &str, packages: &Packages) -> anyhow::Result<Stack> {
        let architecture = format!("Architecture={}", Architecture::of_this_machine()?);
        let parameters = [architecture, format!("AwsEndpointUrl={}", self.endpoint)];
        let bucket = self.bucket();
        self.aws.run(&["s3", "mb", &format!("s3://{bucket}")]).await?;
        Stack::deploy(&self.aws, name, &packages.template, &bucket, &parameters).await
    }

    /// The bucket that [`Cloud::deploy`] makes for the code. No two accounts can have one of the same name.
    pub fn bucket(&self) -> String {
        format!("{BUCKET}-{}", self.account)
    }

    /// Stores a site entry, as a person would.
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
        put_secret(&self.aws, name, key, &SecretString::from(value), true).await
    }

    /// Has the reconciler apply what is declared, and returns its report.
    ///
    /// # Errors
    ///
    /// As [`Cloud::reconcile`].
    pub async fn apply(&self, stack: &Stack) -> anyhow::Result<Value> {
        self.reconcile(stack, "apply").await
    }

    /// Invokes the reconciler and returns its report.
    ///
    /// # Errors
    ///
    /// The invocation failed. The error is what the function said.
    pub async fn reconcile(&self, stack: &Stack, action: &str) -> anyhow::Result<Value> {
        match stack.reconcile(&self.aws, action, &[]).await? {
            Answer::Report(report) => Ok(report),
            Answer::Failure { text, .. } => bail!("the reconciler failed: {text}"),
        }
    }

    /// Makes a queue and subscribes it to the events topic with a filter policy. Returns the queue's address.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn subscribe_queue(&self, stack: &Stack, name: &str, filter: &Value) -> anyhow::Result<String> {
        let options = json!({ "RawMessageDelivery": "true", "FilterPolicy": filter.to_string() });
        self.subscribe_queue_to(stack.output("EventsTopicArn")?, name, &options).await
    }

    /// Makes a queue (a FIFO queue if its name says so) and subscribes it to a topic. Returns the queue's address.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn subscribe_queue_to(&self, topic: &str, name: &str, options: &Value) -> anyhow::Result<String> {
        let queue = queue::create(&self.aws, name).await?;
        queue::subscribe(&self.aws, &queue, topic, options).await?;
        Ok(queue)
    }

    /// What the functions find in their environment, as an env file for running them outside of the cloud.
    ///
    /// # Errors
    ///
    /// The template lacks an output.
    pub fn lambda_environment(&self, stack: &Stack) -> anyhow::Result<String> {
        let [keys, tableau_ca] = ["signing-keys", "tableau-ca"].map(|parameter| stack.parameter(parameter));
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
        ];
        // What is empty stays unset: `cargo lambda` would refuse the line.
        let shared = environment::AWS.into_iter().filter(|(name, _)| *name != "AWS_ACCESS_KEY_ID");
        let all = shared.chain(ours).filter(|(_, value)| !value.is_empty());
        Ok(all.map(|(name, value)| format!("{name}={value}\n")).collect())
    }

    /// Waits a little for messages in a queue, and takes them out.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn receive(&self, queue: &str) -> anyhow::Result<Vec<Value>> {
        queue::receive(&self.aws, queue).await
    }

    /// Waits until at least one message is in a queue, and takes out what is there.
    ///
    /// # Errors
    ///
    /// None arrives in time.
    pub async fn receive_some(&self, queue: &str) -> anyhow::Result<Vec<Value>> {
        queue::receive_some(&self.aws, queue).await
    }
}
