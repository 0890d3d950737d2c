//! `cargo infra test`: has Tableau test every webhook, and shows an event and an alert that arrive.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use shared::events::delivery::TEST;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use crate::{
    aws::{Aws, has_code},
    queue, reconciler,
    stack::Stack,
    steps::{show, step},
    target::Target,
};

/// Prefix of the subject of a test's alert.
const ALERT_SUBJECT: &str = "Tableau Fanout: test:";

/// SQS's error codes for a queue that does not exist, in newer and in older AWS CLIs.
const NO_SUCH_QUEUE: [&str; 2] = ["QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"];

/// How long a message may take. It takes milliseconds, with a new subscription longer.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Has Tableau test every webhook. Shows one of the Test events and the alert as they arrive in two temporary queues. All
/// subscribers of the alerts topic get that alert.
#[derive(Clone, Debug, Args)]
pub struct Test {
    #[command(flatten)]
    target: Target,
}

/// Resources of the test, for their removal.
#[derive(Debug, Default)]
struct Resources {
    /// Names of queues with their topics. Added before the queue is created, so that an interruption leaves no queue.
    queues: Vec<(String, String)>,
}

/// Runs the command.
///
/// # Errors
///
/// A test failed, the event or the alert did not arrive, or a queue could not be removed.
pub async fn run(arguments: Test) -> anyhow::Result<()> {
    let connection = arguments.target.connect().await?;
    let aws = &connection.aws;
    let stack = connection.stack().await?;
    let mut resources = Resources::default();
    // Before any queue is created.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let result = tokio::select! {
        result = test(aws, &stack, &mut resources) => result,
        _ = interrupt.recv() => Err(anyhow!("interrupted before the end of the test")),
        _ = terminate.recv() => Err(anyhow!("interrupted before the end of the test")),
    };
    let removed = step("Remove the queues and their subscriptions", resources.remove(aws)).await;
    match (result, removed) {
        (Ok(()), removed) => removed.map(|()| println!("\nEvents and alerts arrive.")),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(left)) => Err(left.context(format!("{error:#}"))),
    }
}

async fn test(aws: &Aws, stack: &Stack, resources: &mut Resources) -> anyhow::Result<()> {
    let queues = step("Subscribe a queue to each topic, for this test only", async {
        // Short, since SQS allows 80 characters and the stack's name may have 53.
        let unique = Uuid::new_v4().simple().to_string();
        let name = format!("{}-test-{}", stack.name(), &unique[..8]);
        let topic = stack.output("EventsTopicArn")?;
        // A FIFO topic allows only FIFO queues.
        let fifo = if topic.ends_with(".fifo") { ".fifo" } else { "" };
        let filter = json!({ "event_type": [TEST] });
        show(&format!("{name}-events{fifo}, filtered by {filter}"));
        show(&format!("{name}-alerts"));
        let options = json!({ "RawMessageDelivery": "true", "FilterPolicy": filter.to_string() });
        let events = resources.subscribe(aws, &format!("{name}-events{fifo}"), topic, &options).await?;
        let alerts = stack.output("AlertsTopicArn")?;
        Ok((events, resources.subscribe(aws, &format!("{name}-alerts"), alerts, &json!({})).await?))
    });
    let (events, alerts) = queues.await?;
    let report = step("Have Tableau test every webhook", reconciler::run(aws, stack, "test", &[])).await?;
    ensure!(
        report["sites"].as_array().is_some_and(|sites| !sites.is_empty()),
        "there is no site to test. Fix: add one with `cargo infra add-site`"
    );
    step("Receive a Test event from the events topic", async {
        let message = wait_for(aws, &events, |message| attribute(message, "event_type") == TEST).await?;
        show(message["Body"].as_str().unwrap_or_default());
        for name in message["MessageAttributes"].as_object().into_iter().flat_map(|attributes| attributes.keys()) {
            show(&format!("{name:13} {}", attribute(&message, name)));
        }
        Ok(())
    })
    .await?;
    step("Receive the alert from the alerts topic", async {
        let subject = |message: &Value| alert(message)["Subject"].as_str().unwrap_or_default().to_owned();
        let message = wait_for(aws, &alerts, |message| subject(message).starts_with(ALERT_SUBJECT)).await?;
        show(&format!("{}\n\n{}", subject(&message), alert(&message)["Message"].as_str().unwrap_or_default()));
        Ok(())
    })
    .await
}

/// Returns an attribute of an event's message.
fn attribute<'a>(message: &'a Value, name: &str) -> &'a str {
    message["MessageAttributes"][name]["StringValue"].as_str().unwrap_or_default()
}

/// Parses an alert, which SNS delivers with its subject.
fn alert(message: &Value) -> Value {
    serde_json::from_str(message["Body"].as_str().unwrap_or_default()).unwrap_or_default()
}

/// Waits for the first message in a queue that `is_wanted`. Deletes the messages before it.
async fn wait_for(aws: &Aws, queue: &str, is_wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let start = Instant::now();
    while start.elapsed() < ARRIVAL_TIMEOUT {
        if let Some(message) = queue::receive(aws, queue).await?.into_iter().find(&is_wanted) {
            return Ok(message);
        }
    }
    bail!(
        "no message arrived within {} s. A new subscription can take longer. Fix: run `cargo infra test` again; if it fails \
         again, see the functions' logs for publishes that failed",
        ARRIVAL_TIMEOUT.as_secs()
    )
}

impl Resources {
    /// Creates a queue that subscribes to a topic.
    async fn subscribe(&mut self, aws: &Aws, name: &str, topic: &str, options: &Value) -> anyhow::Result<String> {
        self.queues.push((name.to_owned(), topic.to_owned()));
        let queue = queue::create(aws, name).await?;
        queue::subscribe(aws, &queue, topic, options).await?;
        Ok(queue)
    }

    /// Removes all resources, also after one failed.
    async fn remove(&self, aws: &Aws) -> anyhow::Result<()> {
        let mut left = Vec::new();
        for (name, topic) in &self.queues {
            if let Err(error) = remove_subscription(aws, name, topic).await {
                left.push(format!("the subscription of {name} to {topic} ({error:#})"));
            }
            if let Err(error) = remove_queue(aws, name).await {
                left.push(format!("the queue {name} ({error:#})"));
            }
        }
        ensure!(left.is_empty(), "some test resources were not removed. Fix: delete {}", left.join(", "));
        Ok(())
    }
}

/// Removes a queue's subscription to a topic, if it exists.
async fn remove_subscription(aws: &Aws, name: &str, topic: &str) -> anyhow::Result<()> {
    let query = format!("Subscriptions[?ends_with(Endpoint, ':{name}')].SubscriptionArn");
    let found = aws.json(&["sns", "list-subscriptions-by-topic", "--topic-arn", topic, "--query", &query]).await?;
    for subscription in found.as_array().into_iter().flatten().filter_map(Value::as_str) {
        aws.run(&["sns", "unsubscribe", "--subscription-arn", subscription]).await?;
    }
    Ok(())
}

/// Deletes a queue, if it exists.
async fn remove_queue(aws: &Aws, name: &str) -> anyhow::Result<()> {
    let queue = match aws.json(&["sqs", "get-queue-url", "--queue-name", name]).await {
        Err(error) if NO_SUCH_QUEUE.iter().any(|code| has_code(&error, code)) => return Ok(()),
        queue => queue?,
    };
    let queue = queue["QueueUrl"].as_str().context("a queue without a URL")?;
    aws.run(&["sqs", "delete-queue", "--queue-url", queue]).await.map(drop)
}
