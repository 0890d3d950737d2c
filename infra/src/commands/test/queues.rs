//! Temporary queues of a test, which subscribe to the stack's topics.

use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use serde_json::{Value, json};
use shared::{alerts::data::AlertData, events::delivery::TEST};

use crate::{
    aws::Aws,
    queue,
    stack::Stack,
    temporary_queues::{TemporaryQueues, Topic},
};

/// Prefix of the subject of a test's alert.
const ALERT_SUBJECT: &str = "Tableau Fanout: test:";

/// How long a message may take. It takes milliseconds, with a new subscription longer.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

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

impl Queues {
    /// Claims the queues of a test.
    ///
    /// # Errors
    ///
    /// As [`TemporaryQueues::claim`].
    pub(super) fn claim(stack: &Stack) -> anyhow::Result<TemporaryQueues> {
        TemporaryQueues::claim(stack, &[Topic::Events, Topic::Alerts])
    }

    /// Subscribes a queue to each topic.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub(super) async fn create(aws: &Aws, claimed: &TemporaryQueues) -> anyhow::Result<Self> {
        let filter = json!({ "event_type": [TEST] });
        let options = json!({ "RawMessageDelivery": "true", "FilterPolicy": filter.to_string() });
        let urls = claimed.create(aws, &[&options, &json!({})]).await?;
        let [events, alerts] = <[String; 2]>::try_from(urls).map_err(|urls| anyhow!("{} queues", urls.len()))?;
        Ok(Self { events, alerts })
    }

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
