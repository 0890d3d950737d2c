//! `cargo infra replay` after an outage of the events topic or of the signing keys.

use std::process::Stdio;

use anyhow::Context;
use infra::{
    cloud::{Cloud, STACK},
    python::PythonTools,
    sample::{self, SITE},
    service::http_client,
    stack::Stack,
    workspace::Workspace,
};
use serde_json::{Value, json};
use shared::registration::keyring::{KEY_BYTES, Keyring};
use tempfile::TempDir;
use tokio::process::Command;

use crate::local_command::LocalCommand;

/// A local stack with its clients.
struct ReplayStack {
    local: LocalCommand,
    cloud: Cloud,
    stack: Stack,
    _folder: TempDir,
}

impl ReplayStack {
    async fn start() -> anyhow::Result<Self> {
        let (local, folder) = (LocalCommand::start().await?, TempDir::new()?);
        let tools = PythonTools::for_local_stack(&Workspace::locate()?)?;
        let cloud = Cloud::at(&tools, local.endpoint.clone(), folder.path());
        let stack = Stack::read(&cloud.aws, STACK).await?;
        Ok(Self { local, cloud, stack, _folder: folder })
    }

    /// Runs `cargo infra replay`. Returns whether it succeeded, and its output.
    async fn replay(&self, options: &[&str]) -> anyhow::Result<(bool, String)> {
        let mut replay = Command::new(env!("CARGO_BIN_EXE_infra"));
        replay.args(["replay", "1", "--endpoint-url", &self.local.endpoint]).args(options).stdin(Stdio::null());
        let output = replay.output().await?;
        let printed = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(printed)?))
    }

    /// Triggers an event on Tableau. Returns the status codes of the receiver's answers.
    async fn trigger(&self, event: &str, name: &str) -> anyhow::Result<Vec<Value>> {
        let body = json!({ "event_type": event, "resource_name": name, "resource_luid": "99" }).to_string();
        let event = json!({ "site": SITE, "event": event, "body": body });
        let url = format!("{}/_simulator/events", self.local.tableau);
        let deliveries: Value = http_client()?.post(url).json(&event).send().await?.json().await?;
        let attempts = deliveries[0]["attempts"].as_array().context("no attempts")?.iter();
        Ok(attempts.map(|attempt| attempt["status"].clone()).collect())
    }

    /// Replaces the receiver's environments by new ones that call SSM at `address`.
    async fn set_ssm_endpoint_of_receiver(&self, address: &str) -> anyhow::Result<()> {
        let (aws, function) = (&self.cloud.aws, self.stack.output("ReceiverName")?);
        let configuration = aws.json(&["lambda", "get-function-configuration", "--function-name", function]).await?;
        let mut environment = configuration["Environment"].clone();
        environment["Variables"]["AWS_ENDPOINT_URL_SSM"] = json!(address);
        let update = ["lambda", "update-function-configuration", "--function-name", function];
        aws.run(&[&update[..], &["--environment", &environment.to_string()]].concat()).await?;
        Ok(())
    }

    /// Waits for a number of messages in a queue. Returns the names of their resources.
    async fn resource_names(&self, queue: &str, expected: usize) -> anyhow::Result<Vec<String>> {
        let mut messages = Vec::new();
        while messages.len() < expected {
            messages.extend(self.cloud.receive_some(queue).await?);
        }
        let name =
            |message: &Value| message["MessageAttributes"]["resource_name"]["StringValue"].as_str().map(str::to_owned);
        messages.iter().map(|message| name(message).with_context(|| format!("{message} has no name"))).collect()
    }
}

#[tokio::test]
async fn undelivered_events_are_published_once_when_sns_is_back() -> anyhow::Result<()> {
    let replayed = ReplayStack::start().await?;
    let (success, output) = replayed.replay(&[]).await?;
    assert!(success && output.contains("Nothing to publish."), "{output}");

    let (aws, topic) = (&replayed.cloud.aws, replayed.stack.output("EventsTopicArn")?);
    aws.run(&["sns", "delete-topic", "--topic-arn", topic]).await?;
    for (event, name) in
        [("WorkbookCreated", "found"), ("ViewDeleted", "retried"), ("DatasourceRefreshFailed", "alerted")]
    {
        assert_eq!(replayed.trigger(event, name).await?, [503; 4]);
    }
    let (success, output) = replayed.replay(&[]).await?;
    assert!(
        !success
            && output.contains("3 events not published. Fix: run this command again when SNS and SSM are available"),
        "{output}"
    );

    aws.run(&["sns", "create-topic", "--name", &format!("{STACK}-events")]).await?;
    let queue =
        replayed.cloud.subscribe_queue(&replayed.stack, "replayed", &json!({ "action": [{ "exists": true }] })).await?;
    // Tableau has disabled the webhooks. `apply` enables them, so that one delivery can be repeated.
    replayed.cloud.apply(&replayed.stack).await?;
    assert_eq!(replayed.trigger("ViewDeleted", "retried").await?, [200]);
    let (success, output) = replayed.replay(&["--dry-run"]).await?;
    for expected in
        ["3 events undelivered at first", "1 event published since", "2 events to publish. Nothing was done"]
    {
        assert!(success && output.contains(expected), "{output}");
    }
    assert_eq!(replayed.resource_names(&queue, 1).await?, ["retried"]);
    let (success, output) = replayed.replay(&[]).await?;
    assert!(
        success && output.contains("2 events published.") && output.contains("local WorkbookCreated 99 (id "),
        "{output}"
    );
    assert_eq!(replayed.resource_names(&queue, 2).await?, ["found", "alerted"]);

    let (success, output) = replayed.replay(&[]).await?;
    assert!(
        success && output.contains("3 events published since") && output.contains("Nothing to publish."),
        "{output}"
    );
    Ok(())
}

#[tokio::test]
async fn unverified_deliveries_are_published_once_when_the_signing_keys_can_be_read() -> anyhow::Result<()> {
    let replayed = ReplayStack::start().await?;
    let queue =
        replayed.cloud.subscribe_queue(&replayed.stack, "replayed", &json!({ "action": [{ "exists": true }] })).await?;
    // No server listens at this port.
    replayed.set_ssm_endpoint_of_receiver("http://127.0.0.1:1").await?;
    for (event, name) in [("WorkbookCreated", "found"), ("ViewDeleted", "retried")] {
        assert_eq!(replayed.trigger(event, name).await?, [503; 4]);
    }
    let receiver = replayed.stack.reachable_receiver_url(&replayed.cloud.aws)?;
    let forged = sample::signed_url(&receiver, &Keyring::of([8; KEY_BYTES]))?;
    let invented = json!({ "resource_name": "invented" }).to_string();
    let answer = http_client()?.post(forged.expose()).body(invented).send().await?;
    assert_eq!(answer.status(), 503);
    let (success, output) = replayed.replay(&[]).await?;
    let expected = "2 events not published. Fix: run this command again when SNS and SSM are available";
    assert!(!success && output.contains(expected), "{output}");

    replayed.set_ssm_endpoint_of_receiver(&replayed.cloud.endpoint).await?;
    // Tableau has disabled the webhooks. `apply` enables them, so that one delivery can be repeated.
    replayed.cloud.apply(&replayed.stack).await?;
    assert_eq!(replayed.trigger("ViewDeleted", "retried").await?, [200]);
    assert_eq!(replayed.resource_names(&queue, 1).await?, ["retried"]);
    let (success, output) = replayed.replay(&[]).await?;
    for expected in [
        "2 events unverified at first",
        "1 unverified request left out: no signature of a present key",
        "1 event published since",
        "1 event published.",
        "local WorkbookCreated 99 (id ",
    ] {
        assert!(success && output.contains(expected), "{expected}: {output}");
    }
    assert_eq!(replayed.resource_names(&queue, 1).await?, ["found"]);
    let (success, output) = replayed.replay(&[]).await?;
    assert!(
        success && output.contains("2 events published since") && output.contains("Nothing to publish."),
        "{output}"
    );
    Ok(())
}
