//! The path of an event and of an alert, step by step.

use std::fs;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use shared::alerts::message::AlertMessage;

use super::servers::{Servers, Simulator};
use crate::{
    cloud::{Cloud, STACK},
    release::ReleaseFolder,
    sample::{self, EVENT, SITE},
    stack::Stack,
    steps::{show, step},
    workspace::Workspace,
};

/// Payload of the event: a delivery captured in 2019.
const PAYLOAD: &str = "tests/payloads/workbook-created-2019.json";

/// Payload of a failed extract refresh, which causes an alert.
const FAILED_PAYLOAD: &str = "tests/payloads/datasource-refresh-failed.json";

/// Event of [`FAILED_PAYLOAD`].
const FAILED_EVENT: &str = "DatasourceRefreshFailed";

/// Shows the path from an empty cloud to an event in a queue and an alert. Returns the stack and the site's entry.
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
    step("Run the reconciler: it signs in to Tableau and registers the webhooks", async {
        let report = cloud.apply(&stack).await?;
        show(report["text"].as_str().context("a report without a text")?);
        Ok(())
    })
    .await?;
    let body = read(&builds.workspace, PAYLOAD)?;
    let publish = trigger(simulator, EVENT, &body);
    let id = step("A user publishes a workbook on Tableau, which calls the receiver", publish).await?;
    step("The filtered queue holds the message", find(cloud, &queue, &id)).await?;
    show_alert(servers, &stack).await?;
    Ok((stack, entry))
}

/// Shows a failed refresh: an event on the events topic and an alert on the alerts topic.
async fn show_alert(servers: &Servers<'_>, stack: &Stack) -> anyhow::Result<()> {
    let Servers { builds, cloud, simulator } = servers;
    let subscribe = step("Subscribe a queue to failed refreshes, and another to the alerts topic", async {
        let failures = cloud.subscribe_queue(stack, "failures", &json!({ "action": ["refresh-failed"] })).await?;
        let alerts = cloud.subscribe_queue_to(stack.output("AlertsTopicArn")?, "alerts", &json!({})).await?;
        Ok((failures, alerts))
    });
    let (failures, alerts) = subscribe.await?;
    let body = read(&builds.workspace, FAILED_PAYLOAD)?;
    let fail = trigger(simulator, FAILED_EVENT, &body);
    let id = step("An extract refresh fails on Tableau, which calls the receiver", fail).await?;
    step("The events topic delivers the event", find(cloud, &failures, &id)).await?;
    step("The alerts topic delivers the alert: by e-mail, by SMS, and as a card in Slack or Teams", async {
        let messages = cloud.receive_some(&alerts).await?;
        let arrived: Value = serde_json::from_str(messages[0]["Body"].as_str().unwrap_or_default())?;
        // No e-mail leaves this machine. The queue gets the default text. If it is the text of this message, the other
        // texts are too.
        let AlertMessage { subject, body } = sample::alert(FAILED_EVENT, &body, &stack.keyring(&cloud.aws).await?)?;
        let texts: Value = serde_json::from_str(&body)?;
        ensure!(
            arrived["Subject"] == subject && arrived["Message"] == texts["default"],
            "another alert arrived: {arrived}"
        );
        let text = |protocol: &str| texts[protocol].as_str().unwrap_or_default();
        show(&format!("E-mail   {subject}\n\n{}\n", text("email")));
        show(&format!("SMS      {}\n", text("sms")));
        show("Card");
        show(&format!("{:#}", serde_json::from_str::<Value>(text("https"))?));
        Ok(())
    })
    .await
}

fn read(workspace: &Workspace, path: &str) -> anyhow::Result<String> {
    fs::read_to_string(workspace.file(path)).with_context(|| format!("cannot read {path}"))
}

/// Triggers an event on Tableau. Returns the identifier of the published event.
async fn trigger(simulator: &Simulator, event: &str, body: &str) -> anyhow::Result<String> {
    show(body);
    let deliveries = simulator.post("events", &json!({ "site": SITE, "event": event, "body": body })).await?;
    published_id(&serde_json::from_str(&deliveries)?)
}

/// Waits for an event in a queue and shows it.
async fn find(cloud: &Cloud, queue: &str, id: &str) -> anyhow::Result<()> {
    let messages = cloud.receive_some(queue).await?;
    messages.iter().for_each(show_message);
    let is_wanted = |message: &Value| message["MessageAttributes"]["event_id"]["StringValue"] == id;
    ensure!(messages.iter().any(is_wanted), "other messages arrived, but not the event {id}");
    Ok(())
}

/// Shows the receiver's answers and returns the event's identifier from them.
fn published_id(deliveries: &Value) -> anyhow::Result<String> {
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
