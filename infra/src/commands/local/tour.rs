//! The path of an event, step by step.

use std::fs;

use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};

use super::servers::{Servers, Simulator};
use crate::{
    cloud::{Cloud, STACK},
    release::ReleaseFolder,
    sample::{EVENT, SITE},
    stack::Stack,
    steps::{show, step},
    workspace::Workspace,
};

/// Payload of the event: a delivery captured in 2019.
const PAYLOAD: &str = "tests/payloads/workbook-created-2019.json";

/// Shows the path from an empty cloud to an event in a queue. Returns the stack and the site's entry.
pub(super) async fn run(servers: &Servers<'_>, release: &ReleaseFolder) -> anyhow::Result<(Stack, Value)> {
    let Servers { builds, cloud, simulator } = servers;
    let stack = step("Deploy infra/template.yaml with aws cloudformation package and deploy", async {
        let stack = cloud.deploy(STACK, release).await?;
        show(&format!("receiver      {}", stack.output("ReceiverUrl")?));
        show(&format!("events topic  {}", stack.output("EventsTopicArn")?));
        Ok(stack)
    });
    let stack = stack.await?;
    let entry = step("Declare a Tableau site: one SecureString parameter", async {
        let entry = simulator.add_site(SITE).await?;
        cloud.put_site(&stack, SITE, &entry).await?;
        show(&format!("{}/{SITE}", stack.output("SitesPath")?));
        Ok(entry)
    });
    let entry = entry.await?;
    let queue = step("Subscribe an SQS queue to the events topic, with a filter policy", async {
        let filter = json!({ "event_type": [EVENT] });
        show(&filter.to_string());
        cloud.subscribe_queue(&stack, "workbooks", &filter).await
    });
    let queue = queue.await?;
    apply(cloud, &stack, "Run the reconciler: it signs in to Tableau and registers the webhooks").await?;
    let body = read(&builds.workspace, PAYLOAD)?;
    let publish = trigger(simulator, EVENT, &body);
    let id = step("A user publishes a workbook on Tableau, which calls the receiver", publish).await?;
    step("The filtered queue holds the message", find(cloud, &queue, &id)).await?;
    Ok((stack, entry))
}

fn read(workspace: &Workspace, path: &str) -> anyhow::Result<String> {
    fs::read_to_string(workspace.file(path)).with_context(|| format!("cannot read {path}"))
}

/// Triggers an event on Tableau. Returns the identifier of the published event.
async fn trigger(simulator: &Simulator, event: &str, body: &str) -> anyhow::Result<String> {
    show(body);
    let deliveries =
        simulator.call(Method::POST, "events", &json!({ "site": SITE, "event": event, "body": body })).await?;
    published_id(&serde_json::from_str(&deliveries)?)
}

/// Runs the reconciler and shows its report.
pub(super) async fn apply(cloud: &Cloud, stack: &Stack, title: &str) -> anyhow::Result<()> {
    step(title, async {
        let report = cloud.apply(stack).await?;
        show(report["text"].as_str().context("a report without a text")?);
        Ok(())
    })
    .await
}

/// Waits for an event in a queue, shows it, and returns it.
pub(super) async fn find(cloud: &Cloud, queue: &str, id: &str) -> anyhow::Result<String> {
    let messages = cloud.receive_some(queue).await?;
    messages.iter().for_each(show_message);
    let is_wanted = |message: &&Value| message["MessageAttributes"]["event_id"]["StringValue"] == id;
    let wanted = messages.iter().find(is_wanted);
    let wanted = wanted.with_context(|| format!("other messages arrived, but not the event {id}"))?;
    Ok(wanted["Body"].as_str().unwrap_or_default().to_owned())
}

/// Shows the receiver's answers and returns the identifier of the last published event from them.
pub(super) fn published_id(deliveries: &Value) -> anyhow::Result<String> {
    let attempts = deliveries.as_array().into_iter().flatten().filter_map(|delivery| delivery["attempts"].as_array());
    let mut id = None;
    for attempt in attempts.flatten() {
        let (status, body) = (&attempt["status"], attempt["body"].as_str().unwrap_or_default());
        show(&format!("The receiver answered {status}: {body}"));
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        id = answer["id"].as_str().map(str::to_owned).filter(|_| answer["status"] == "published").or(id);
    }
    id.context("the receiver did not publish the event")
}

/// Shows a message with its attributes.
fn show_message(message: &Value) {
    show(message["Body"].as_str().unwrap_or_default());
    for (name, value) in message["MessageAttributes"].as_object().into_iter().flatten() {
        show(&format!("{name:13} {}", value["StringValue"].as_str().unwrap_or_default()));
    }
}
