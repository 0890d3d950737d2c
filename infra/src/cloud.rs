//! The local cloud, and how the stack gets into it: by the same commands as on AWS.

use std::{
    env,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    aws::Aws,
    environment,
    functions::Packages,
    python::PythonTools,
    service::{Service, free_port},
    stack::Stack,
};

/// Name of the local stack: the product's default.
pub const STACK: &str = "tableau-fanout";

/// How long a message may take from the topic to a queue. It takes milliseconds.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one call waits for messages, in seconds.
const RECEIVE_WAIT: u64 = 5;

/// A local cloud.
#[derive(Debug)]
pub struct Cloud {
    /// Where it answers.
    pub endpoint: String,
    /// The AWS CLI for it.
    pub aws: Aws,
    /// Where the one that we started unpacks functions.
    _scratch: Option<TempDir>,
}

impl Cloud {
    /// Starts a cloud, served by ministack, on a free loopback port. What it writes goes to `folder`.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub async fn start(tools: &PythonTools, http: &Client, folder: &Path) -> anyhow::Result<(Service, Self)> {
        let port = free_port()?.to_string();
        let endpoint = format!("http://127.0.0.1:{port}");
        // Unpacked functions go where they end with us, also if a failed run keeps its logs.
        let scratch = TempDir::new_in(folder)?;
        let scratch_text = scratch.path().to_str().context("the folder's path is not UTF-8")?;
        let environment = [("GATEWAY_PORT", port.as_str()), ("BIND_HOST", "127.0.0.1"), ("TMPDIR", scratch_text)];
        let program = tools.program("ministack");
        let log = folder.join("ministack.log");
        let mut server = Service::start(tools, "ministack", &program, &[], &environment, log)?;
        server.ready(http, &format!("{endpoint}/_ministack/ready")).await?;
        let cloud = Self { _scratch: Some(scratch), ..Self::at(tools, endpoint, folder) };
        Ok((server, cloud))
    }

    /// A cloud that runs already. What is written for it goes to `folder`.
    pub fn at(tools: &PythonTools, endpoint: String, folder: &Path) -> Self {
        Self { aws: Aws::local(tools, endpoint.clone(), folder), endpoint, _scratch: None }
    }

    /// Uploads the functions and deploys the template.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn deploy(&self, packages: &Packages) -> anyhow::Result<Stack> {
        let template = packages.template.to_str().context("the template's path is not UTF-8")?;
        let architecture = match env::consts::ARCH {
            "x86_64" => "Architecture=x86_64",
            "aarch64" => "Architecture=arm64",
            other => bail!("Lambda has no {other} processors"),
        };
        let endpoint = format!("AwsEndpointUrl={}", self.endpoint);
        self.aws.run(&["s3", "mb", "s3://artifacts"]).await?;
        let package = ["cloudformation", "package", "--template-file", template, "--s3-bucket", "artifacts"];
        self.aws.run(&[&package[..], &["--output-template-file", "packaged.yaml"]].concat()).await?;
        let deploy = ["cloudformation", "deploy", "--template-file", "packaged.yaml", "--stack-name", STACK];
        let options = ["--capabilities", "CAPABILITY_IAM", "--parameter-overrides", architecture, &endpoint];
        self.aws.run(&[&deploy[..], &options].concat()).await?;
        Stack::read(&self.aws, STACK).await
    }

    /// Stores a site entry, as a person would.
    ///
    /// # Errors
    ///
    /// The command fails.
    pub async fn put_site(&self, stack: &Stack, name: &str, entry: &Value) -> anyhow::Result<()> {
        let parameter = format!("{}/{name}", stack.output("SitesPath")?);
        self.put_parameter(&parameter, stack.output("KeyAlias")?, &entry.to_string()).await
    }

    /// Stores a SecureString.
    ///
    /// # Errors
    ///
    /// The command fails.
    pub async fn put_parameter(&self, name: &str, key: &str, value: &str) -> anyhow::Result<()> {
        let put = ["ssm", "put-parameter", "--name", name, "--type", "SecureString", "--key-id", key, "--overwrite"];
        self.aws.run(&[&put[..], &["--value", value]].concat()).await.map(drop)
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
        // A rotation takes longer than the CLI waits for an answer unless it is told to.
        let invoke =
            ["lambda", "invoke", "--cli-read-timeout", "0", "--function-name", stack.output("ReconcilerName")?];
        let payload = ["--payload", &json!({ "action": action }).to_string(), "report.json"];
        let answer = self.aws.json(&[&invoke[..], &payload].concat()).await?;
        let report = tokio::fs::read_to_string(self.aws.folder().join("report.json")).await?;
        let report: Value = serde_json::from_str(&report).context("the reconciler's answer is no JSON")?;
        ensure!(
            answer["FunctionError"].is_null(),
            "the reconciler failed: {}",
            report["errorMessage"].as_str().unwrap_or("it gave no reason")
        );
        Ok(report)
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
        let fifo: &[&str] = if name.ends_with(".fifo") { &["--attributes", "FifoQueue=true"] } else { &[] };
        let queue = self.aws.json(&[&["sqs", "create-queue", "--queue-name", name], fifo].concat()).await?;
        let queue = queue["QueueUrl"].as_str().context("a queue without an address")?.to_owned();
        let get = ["sqs", "get-queue-attributes", "--queue-url", &queue, "--attribute-names", "QueueArn"];
        let attributes = self.aws.json(&get).await?;
        let arn = attributes["Attributes"]["QueueArn"].as_str().context("a queue without an ARN")?;
        let subscribe = ["sns", "subscribe", "--topic-arn", topic, "--protocol", "sqs", "--notification-endpoint", arn];
        self.aws.run(&[&subscribe[..], &["--attributes", &options.to_string()]].concat()).await?;
        Ok(queue)
    }

    /// What the functions find in their environment, as an env file for running them outside of the cloud.
    ///
    /// # Errors
    ///
    /// The template lacks an output.
    pub fn lambda_environment(&self, stack: &Stack) -> anyhow::Result<String> {
        let [keys, state, tableau_ca] =
            ["signing-keys", "state", "tableau-ca"].map(|parameter| stack.parameter(parameter));
        let ours = [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("EVENTS_TOPIC_ARN", stack.output("EventsTopicArn")?),
            ("ALERTS_TOPIC_ARN", stack.output("AlertsTopicArn")?),
            ("SIGNING_KEYS_PARAMETER", &keys),
            ("STATE_PARAMETER", &state),
            ("TABLEAU_CA_PARAMETER", &tableau_ca),
            ("RECEIVER_URL", stack.output("ReceiverUrl")?),
            ("SITES_PATH", stack.output("SitesPath")?),
            ("NAME_PREFIX", STACK),
        ];
        // What is empty stays unset: `cargo lambda` would refuse the line.
        let all = environment::AWS.into_iter().chain(ours).filter(|(_, value)| !value.is_empty());
        Ok(all.map(|(name, value)| format!("{name}={value}\n")).collect())
    }

    /// Waits a little for messages in a queue, and takes them out.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn receive(&self, queue: &str) -> anyhow::Result<Vec<Value>> {
        let wait = RECEIVE_WAIT.to_string();
        let receive = ["sqs", "receive-message", "--queue-url", queue, "--max-number-of-messages", "10"];
        let options = ["--wait-time-seconds", &wait, "--message-attribute-names", "All"];
        let answer = self.aws.json(&[&receive[..], &options].concat()).await?;
        let messages = answer["Messages"].as_array().cloned().unwrap_or_default();
        for message in &messages {
            let receipt = message["ReceiptHandle"].as_str().context("a message without a receipt")?;
            self.aws.run(&["sqs", "delete-message", "--queue-url", queue, "--receipt-handle", receipt]).await?;
        }
        Ok(messages)
    }

    /// Waits until at least one message is in a queue, and takes out what is there.
    ///
    /// # Errors
    ///
    /// None arrives in time.
    pub async fn receive_some(&self, queue: &str) -> anyhow::Result<Vec<Value>> {
        let start = Instant::now();
        while start.elapsed() < ARRIVAL_TIMEOUT {
            let messages = self.receive(queue).await?;
            if !messages.is_empty() {
                return Ok(messages);
            }
        }
        bail!("no message arrived in the queue within {} s", ARRIVAL_TIMEOUT.as_secs())
    }
}
