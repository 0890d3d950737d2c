//! Temporary queues of a test, which subscribe to the stack's topics.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde_json::{Value, json};
use shared::{alerts::data::AlertData, events::delivery::TEST};
use uuid::Uuid;

use crate::{aws::Aws, queue, stack::Stack, subscriptions::test_queue_prefix};

/// Prefix of the subject of a test's alert.
const ALERT_SUBJECT: &str = "Tableau Fanout: test:";

/// How long a message may take. It takes milliseconds, with a new subscription longer.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Resources of the test, for their removal.
#[derive(Debug, Default)]
pub(super) struct Resources {
    /// Names of queues with their topics. Added before the queue is created, so that an interruption leaves no queue.
    queues: Vec<(String, String)>,
}

/// URLs of the queues.
#[derive(Debug)]
pub(super) struct Queues {
    events: String,
    alerts: String,
}

/// The messages that arrived.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) event: Option<ReceivedEvent>,
    pub(super) alert: Option<ReceivedAlert>,
    /// Those that did not.
    pub(super) failed: Vec<String>,
}

/// A Test event, as it arrived.
#[derive(Debug)]
pub(super) struct ReceivedEvent(Value);

/// An alert, as it arrived.
#[derive(Debug)]
pub(super) struct ReceivedAlert {
    pub(super) subject: String,
    pub(super) text: String,
    /// As targets get it. A stack of an earlier release sends sentences.
    pub(super) data: Option<AlertData>,
}

impl Resources {
    /// Subscribes a queue to each topic.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub(super) async fn create(&mut self, aws: &Aws, stack: &Stack) -> anyhow::Result<Queues> {
        let name = test_queue_prefix(stack.name(), &Uuid::new_v4().simple().to_string());
        let (events_topic, alerts_topic) = (stack.output("EventsTopicArn")?, stack.output("AlertsTopicArn")?);
        // A FIFO topic allows only FIFO queues.
        let fifo = if events_topic.ends_with(".fifo") { ".fifo" } else { "" };
        let (events, alerts) = (format!("{name}events{fifo}"), format!("{name}alerts"));
        self.queues = vec![(events.clone(), events_topic.to_owned()), (alerts.clone(), alerts_topic.to_owned())];
        let filter = json!({ "event_type": [TEST] });
        let options = json!({ "RawMessageDelivery": "true", "FilterPolicy": filter.to_string() });
        let none = json!({});
        // Both end before any removal begins.
        let (events, alerts) =
            tokio::join!(subscribe(aws, &events, events_topic, &options), subscribe(aws, &alerts, alerts_topic, &none));
        Ok(Queues { events: events?, alerts: alerts? })
    }

    /// Removes all resources, also after one failed.
    ///
    /// # Errors
    ///
    /// Some are left.
    pub(super) async fn remove(&self, aws: &Aws) -> anyhow::Result<()> {
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

impl Queues {
    /// Receives a Test event.
    ///
    /// # Errors
    ///
    /// None arrives in time.
    pub(super) async fn event(&self, aws: &Aws) -> anyhow::Result<ReceivedEvent> {
        wait_for(aws, &self.events, |message| {
            let event = ReceivedEvent(message.clone());
            (event.attribute("event_type") == TEST).then_some(event)
        })
        .await
    }

    /// Receives the alert of the test.
    ///
    /// # Errors
    ///
    /// It does not arrive in time.
    pub(super) async fn alert(&self, aws: &Aws) -> anyhow::Result<ReceivedAlert> {
        wait_for(aws, &self.alerts, |message| {
            // SNS delivers it with its subject.
            let alert: Value = serde_json::from_str(message["Body"].as_str()?).ok()?;
            let text = |name: &str| alert[name].as_str().unwrap_or_default().to_owned();
            let subject = text("Subject");
            let data: Option<AlertData> = serde_json::from_str(&text("Message")).ok();
            let sentences = data.as_ref().map_or_else(|| text("Message"), |data| data.text.clone());
            subject.starts_with(ALERT_SUBJECT).then_some(ReceivedAlert { subject, text: sentences, data })
        })
        .await
    }
}

impl ReceivedEvent {
    /// Returns an attribute, empty if it is missing.
    pub(super) fn attribute(&self, name: &str) -> &str {
        self.0["MessageAttributes"][name]["StringValue"].as_str().unwrap_or_default()
    }

    /// Returns the event.
    pub(super) fn body(&self) -> &str {
        self.0["Body"].as_str().unwrap_or_default()
    }

    /// Formats the event and its attributes.
    pub(super) fn details(&self) -> String {
        let attributes = self.0["MessageAttributes"].as_object().into_iter().flat_map(|attributes| attributes.keys());
        let attributes = attributes.map(|name| format!("{name:13} {}", self.attribute(name)));
        [self.body().to_owned()].into_iter().chain(attributes).collect::<Vec<_>>().join("\n")
    }
}

/// Creates a queue that subscribes to a topic.
async fn subscribe(aws: &Aws, name: &str, topic: &str, options: &Value) -> anyhow::Result<String> {
    let queue = queue::create(aws, name).await?;
    queue::subscribe(aws, &queue, topic, options).await?;
    Ok(queue)
}

/// Waits for the first message in a queue that is wanted. Deletes the messages before it.
async fn wait_for<T>(aws: &Aws, queue: &str, read: impl Fn(&Value) -> Option<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    while start.elapsed() < ARRIVAL_TIMEOUT {
        if let Some(message) = queue::receive(aws, queue).await?.iter().find_map(&read) {
            return Ok(message);
        }
    }
    bail!(
        "none arrived within {} s. A new subscription can need longer: run the test again. If it fails again, the functions' \
         logs have the publishes that failed",
        ARRIVAL_TIMEOUT.as_secs()
    )
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
    let Some(queue) = queue::find(aws, name).await? else { return Ok(()) };
    aws.run(&["sqs", "delete-queue", "--queue-url", &queue]).await.map(drop)
}
