//! `cargo infra test`: has Tableau test every webhook, and shows that events and alerts come through.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use shared::events::delivery::TEST;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use crate::{
    aws::{Aws, has_code},
    queue,
    reconcile::reconciled,
    stack::Stack,
    steps::{show, step},
    target::Target,
};

/// What the subject of an alert about a test begins with.
const ALERT: &str = "Tableau Fanout: test:";

/// What SQS calls a queue that is not there, to the newer AWS CLIs and to older ones.
const NO_SUCH_QUEUE: [&str; 2] = ["QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"];

/// How long a message may take. It takes milliseconds, but a subscription that has just been made may not hear at once.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Has Tableau test every webhook, and shows one of the Test events and the alert as they arrive in two queues that are
/// made for it and removed afterwards. Everybody who subscribes to the alerts gets that alert.
#[derive(Clone, Debug, Args)]
pub struct Test {
    #[command(flatten)]
    target: Target,
}

/// What is made for the test, to be removed.
#[derive(Debug, Default)]
struct Made {
    /// Names of queues, and the topic that each hears. Noted before anything is made, so that an interruption at any
    /// moment leaves nothing behind.
    queues: Vec<(String, String)>,
}

/// Runs the command.
///
/// # Errors
///
/// A test was not taken, or an event or the alert did not arrive; or what was made could not be removed, and is named.
pub async fn run(arguments: Test) -> anyhow::Result<()> {
    let way = arguments.target.way().await?;
    let aws = &way.aws;
    let stack = way.stack().await?;
    let mut made = Made::default();
    // From before anything is made.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let result = tokio::select! {
        result = test(aws, &stack, &mut made) => result,
        _ = interrupt.recv() => Err(anyhow!("interrupted before the test was over")),
        _ = terminate.recv() => Err(anyhow!("interrupted before the test was over")),
    };
    let removed = step("Remove the queues and their subscriptions", made.remove(aws)).await;
    match (result, removed) {
        (Ok(()), removed) => removed.map(|()| println!("\nEvents and alerts come through.")),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(left)) => Err(left.context(format!("{error:#}"))),
    }
}

async fn test(aws: &Aws, stack: &Stack, made: &mut Made) -> anyhow::Result<()> {
    let queues = step("Subscribe a queue to each topic, for this test only", async {
        // Short, since SQS takes 80 characters and the stack's name may have 53.
        let unique = Uuid::new_v4().simple().to_string();
        let name = format!("{}-test-{}", stack.name(), &unique[..8]);
        let topic = stack.output("EventsTopicArn")?;
        // A FIFO topic takes FIFO queues only.
        let fifo = if topic.ends_with(".fifo") { ".fifo" } else { "" };
        let filter = json!({ "event_type": [TEST] });
        show(&format!("{name}-events{fifo}, filtered by {filter}"));
        show(&format!("{name}-alerts"));
        let options = json!({ "RawMessageDelivery": "true", "FilterPolicy": filter.to_string() });
        let events = made.subscribed(aws, &format!("{name}-events{fifo}"), topic, &options).await?;
        let alerts = stack.output("AlertsTopicArn")?;
        Ok((events, made.subscribed(aws, &format!("{name}-alerts"), alerts, &json!({})).await?))
    });
    let (events, alerts) = queues.await?;
    let report = step("Have Tableau test every webhook", reconciled(aws, stack, "test", &[])).await?;
    ensure!(
        report["sites"].as_array().is_some_and(|sites| !sites.is_empty()),
        "there is no site whose webhooks could be tested: add one with `cargo infra add-site`"
    );
    step("A Test event has arrived from the events topic", async {
        let message = arrival(aws, &events, |message| attribute(message, "event_type") == TEST).await?;
        show(message["Body"].as_str().unwrap_or_default());
        for name in message["MessageAttributes"].as_object().into_iter().flat_map(|attributes| attributes.keys()) {
            show(&format!("{name:13} {}", attribute(&message, name)));
        }
        Ok(())
    })
    .await?;
    step("The alert has arrived from the alerts topic", async {
        let subject = |message: &Value| alert(message)["Subject"].as_str().unwrap_or_default().to_owned();
        let message = arrival(aws, &alerts, |message| subject(message).starts_with(ALERT)).await?;
        show(&format!("{}\n\n{}", subject(&message), alert(&message)["Message"].as_str().unwrap_or_default()));
        Ok(())
    })
    .await
}

/// An attribute of an event's message.
fn attribute<'a>(message: &'a Value, name: &str) -> &'a str {
    message["MessageAttributes"][name]["StringValue"].as_str().unwrap_or_default()
}

/// An alert as a topic hands it to a queue, with its subject.
fn alert(message: &Value) -> Value {
    serde_json::from_str(message["Body"].as_str().unwrap_or_default()).unwrap_or_default()
}

/// Waits for the message that `is_wanted` in a queue. Others may be there.
async fn arrival(aws: &Aws, queue: &str, is_wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let start = Instant::now();
    while start.elapsed() < ARRIVAL_TIMEOUT {
        if let Some(message) = queue::receive(aws, queue).await?.into_iter().find(&is_wanted) {
            return Ok(message);
        }
    }
    bail!(
        "nothing arrived within {} s. A new subscription may take a while to hear: try again. If this stays, the \
         functions' logs say what they published",
        ARRIVAL_TIMEOUT.as_secs()
    )
}

impl Made {
    /// Makes a queue that hears a topic.
    async fn subscribed(&mut self, aws: &Aws, name: &str, topic: &str, options: &Value) -> anyhow::Result<String> {
        self.queues.push((name.to_owned(), topic.to_owned()));
        let queue = queue::create(aws, name).await?;
        queue::subscribe(aws, &queue, topic, options).await?;
        Ok(queue)
    }

    /// Removes everything. Tries all, whatever becomes of the others.
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
        ensure!(left.is_empty(), "not removed, so delete by hand: {}", left.join(", "));
        Ok(())
    }
}

/// Ends what a queue hears of a topic, if it hears any.
async fn remove_subscription(aws: &Aws, name: &str, topic: &str) -> anyhow::Result<()> {
    let query = format!("Subscriptions[?ends_with(Endpoint, ':{name}')].SubscriptionArn");
    let found = aws.json(&["sns", "list-subscriptions-by-topic", "--topic-arn", topic, "--query", &query]).await?;
    for subscription in found.as_array().into_iter().flatten().filter_map(Value::as_str) {
        aws.run(&["sns", "unsubscribe", "--subscription-arn", subscription]).await?;
    }
    Ok(())
}

/// Deletes a queue, if it is there.
async fn remove_queue(aws: &Aws, name: &str) -> anyhow::Result<()> {
    let queue = match aws.json(&["sqs", "get-queue-url", "--queue-name", name]).await {
        Err(error) if NO_SUCH_QUEUE.iter().any(|code| has_code(&error, code)) => return Ok(()),
        queue => queue?,
    };
    let queue = queue["QueueUrl"].as_str().context("a queue without an address")?;
    aws.run(&["sqs", "delete-queue", "--queue-url", queue]).await.map(drop)
}
