//! `cargo infra replay`, with a local stack whose events topic, or whose signing keys, are gone for a while.

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

use crate::running::Local;

/// The local stack, and the tools of the person at it.
struct Desk {
    local: Local,
    cloud: Cloud,
    stack: Stack,
    _folder: TempDir,
}

impl Desk {
    async fn up() -> anyhow::Result<Self> {
        let (local, folder) = (Local::up().await?, TempDir::new()?);
        let tools = PythonTools::for_local_stack(&Workspace::locate()?)?;
        let cloud = Cloud::at(&tools, local.endpoint.clone(), folder.path());
        let stack = Stack::read(&cloud.aws, STACK).await?;
        Ok(Self { local, cloud, stack, _folder: folder })
    }

    /// Runs `cargo infra replay` and returns whether it succeeded, and what it said.
    async fn replay(&self, options: &[&str]) -> anyhow::Result<(bool, String)> {
        let mut replay = Command::new(env!("CARGO_BIN_EXE_infra"));
        replay.args(["replay", "1", "--endpoint-url", &self.local.endpoint]).args(options).stdin(Stdio::null());
        let output = replay.output().await?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(said)?))
    }

    /// Lets an event happen on Tableau and returns the status codes it was answered with.
    async fn fire(&self, event: &str, name: &str) -> anyhow::Result<Vec<Value>> {
        let body = json!({ "event_type": event, "resource_name": name, "resource_luid": "99" }).to_string();
        let event = json!({ "site": SITE, "event": event, "body": body });
        let url = format!("{}/_simulator/events", self.local.tableau);
        let deliveries: Value = http_client()?.post(url).json(&event).send().await?.json().await?;
        let attempts = deliveries[0]["attempts"].as_array().context("no attempts")?.iter();
        Ok(attempts.map(|attempt| attempt["status"].clone()).collect())
    }

    /// Ends the receiver's environments. New ones look for SSM at an address.
    async fn receiver_with_ssm_at(&self, address: &str) -> anyhow::Result<()> {
        let (aws, function) = (&self.cloud.aws, self.stack.output("ReceiverName")?);
        let configuration = aws.json(&["lambda", "get-function-configuration", "--function-name", function]).await?;
        let mut environment = configuration["Environment"].clone();
        environment["Variables"]["AWS_ENDPOINT_URL_SSM"] = json!(address);
        let update = ["lambda", "update-function-configuration", "--function-name", function];
        aws.run(&[&update[..], &["--environment", &environment.to_string()]].concat()).await?;
        Ok(())
    }

    /// The names of the resources in a queue's messages. Waits until there are as many as expected.
    async fn named(&self, queue: &str, expected: usize) -> anyhow::Result<Vec<String>> {
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
async fn what_sns_did_not_accept_is_published_once_when_it_is_back() -> anyhow::Result<()> {
    let desk = Desk::up().await?;
    let (success, said) = desk.replay(&[]).await?;
    assert!(success && said.contains("Nothing to publish."), "{said}");

    let (aws, topic) = (&desk.cloud.aws, desk.stack.output("EventsTopicArn")?);
    aws.run(&["sns", "delete-topic", "--topic-arn", topic]).await?;
    for (event, name) in [("WorkbookCreated", "found"), ("ViewDeleted", "retried"), ("DatasourceRefreshFailed", "told")]
    {
        assert_eq!(desk.fire(event, name).await?, [503; 4]);
    }
    let (success, said) = desk.replay(&[]).await?;
    assert!(
        !success && said.contains("3 events not published: run this command again when SNS and SSM are available"),
        "{said}"
    );

    aws.run(&["sns", "create-topic", "--name", &format!("{STACK}-events")]).await?;
    let queue = desk.cloud.subscribe_queue(&desk.stack, "replayed", &json!({ "action": [{ "exists": true }] })).await?;
    // Tableau has disabled the webhooks by now. One delivery comes again nevertheless.
    desk.cloud.apply(&desk.stack).await?;
    assert_eq!(desk.fire("ViewDeleted", "retried").await?, [200]);
    let (success, said) = desk.replay(&["--dry-run"]).await?;
    for expected in
        ["3 events undelivered at first", "1 event published since", "2 events to be published; nothing was done"]
    {
        assert!(success && said.contains(expected), "{said}");
    }
    assert_eq!(desk.named(&queue, 1).await?, ["retried"]);
    let (success, said) = desk.replay(&[]).await?;
    assert!(
        success && said.contains("2 events published.") && said.contains("local WorkbookCreated 99 (id "),
        "{said}"
    );
    assert_eq!(desk.named(&queue, 2).await?, ["found", "told"]);

    let (success, said) = desk.replay(&[]).await?;
    assert!(success && said.contains("3 events published since") && said.contains("Nothing to publish."), "{said}");
    Ok(())
}

#[tokio::test]
async fn what_came_while_the_signing_keys_could_not_be_read_is_published_once_when_they_can() -> anyhow::Result<()> {
    let desk = Desk::up().await?;
    let queue = desk.cloud.subscribe_queue(&desk.stack, "replayed", &json!({ "action": [{ "exists": true }] })).await?;
    // Nobody listens there.
    desk.receiver_with_ssm_at("http://127.0.0.1:1").await?;
    for (event, name) in [("WorkbookCreated", "found"), ("ViewDeleted", "retried")] {
        assert_eq!(desk.fire(event, name).await?, [503; 4]);
    }
    let receiver = desk.stack.reachable_receiver_url(&desk.cloud.aws)?;
    let junk = sample::signed_url(&receiver, &Keyring::of([8; KEY_BYTES]))?;
    let invented = json!({ "resource_name": "invented" }).to_string();
    let answer = http_client()?.post(junk.expose()).body(invented).send().await?;
    assert_eq!(answer.status(), 503);
    let (success, said) = desk.replay(&[]).await?;
    let expected = "2 events not published: run this command again when SNS and SSM are available";
    assert!(!success && said.contains(expected), "{said}");

    desk.receiver_with_ssm_at(&desk.cloud.endpoint).await?;
    // Tableau has disabled the webhooks by now. One delivery comes again nevertheless.
    desk.cloud.apply(&desk.stack).await?;
    assert_eq!(desk.fire("ViewDeleted", "retried").await?, [200]);
    assert_eq!(desk.named(&queue, 1).await?, ["retried"]);
    let (success, said) = desk.replay(&[]).await?;
    for expected in [
        "2 events unverified at first",
        "1 unverified request left out: none of the present keys made its signature",
        "1 event published since",
        "1 event published.",
        "local WorkbookCreated 99 (id ",
    ] {
        assert!(success && said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(desk.named(&queue, 1).await?, ["found"]);
    let (success, said) = desk.replay(&[]).await?;
    assert!(success && said.contains("2 events published since") && said.contains("Nothing to publish."), "{said}");
    Ok(())
}
