//! AWS as values: queues with visibility timeouts, dead letters, parameters, holds, alerts. Time passes when a test says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use forwarder::{
    batch::{BatchResponse, QueueName, Record, SqsEvent},
    dead_letters::DeadLetter,
    holds::{HoldError, Holds, TableUnavailable},
    queues::{QueueError, Queues},
    targets::{ParameterError, Targets},
};
use lambda_support::topic::{Topic, TopicError};
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::{
    alerts::{data::AlertData, message::AlertMessage},
    targets::{hold::Hold, name::TargetName},
};
use time::OffsetDateTime;
use tokio::time::Instant;

/// The queue's visibility timeout: six times the function's timeout.
pub(crate) const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(360);

/// The longest visibility timeout that SQS accepts.
const MAX_VISIBILITY: Duration = Duration::from_secs(12 * 3600);

/// The most messages of a batch.
const BATCH: usize = 10;

/// AWS, since a time by its own clock.
#[derive(Clone, Debug)]
pub(crate) struct Cloud(Arc<Mutex<State>>, Instant);

impl Default for Cloud {
    fn default() -> Self {
        Self(Arc::default(), Instant::now())
    }
}

#[derive(Debug, Default)]
struct State {
    now: Duration,
    messages: Vec<Message>,
    sent: usize,
    received: usize,
    waits: Vec<Duration>,
    dead: Vec<DeadLetter>,
    parameters: BTreeMap<String, String>,
    reads: usize,
    ssm_fails: bool,
    sqs_fails: bool,
    /// Holds, and the time of the test at which each ends.
    holds: BTreeMap<String, (Hold, Duration)>,
    alerts: Vec<AlertData>,
    /// The most messages that are hidden at once, if there is a limit.
    in_flight: Option<usize>,
    table_fails: bool,
    sns_fails: bool,
}

#[derive(Debug)]
struct Message {
    id: String,
    queue: String,
    body: String,
    sent_at: Duration,
    visible_at: Duration,
    receives: u32,
    receipt: String,
}

impl Message {
    /// Returns it as Lambda passes it on.
    fn record(&self, now: Duration) -> Value {
        let sent_at = OffsetDateTime::now_utc() - (now - self.sent_at);
        json!({
            "messageId": self.id,
            "receiptHandle": self.receipt,
            "body": self.body,
            "attributes": {
                "ApproximateReceiveCount": self.receives.to_string(),
                "SentTimestamp": (sent_at.unix_timestamp_nanos() / 1_000_000).to_string(),
            },
            "messageAttributes": {},
            "eventSource": "aws:sqs",
            "eventSourceARN": arn(&self.queue),
            "awsRegion": "eu-central-1",
        })
    }
}

impl State {
    /// Receives up to ten visible messages of some queues.
    fn receive(&mut self, is_asked: impl Fn(&str) -> bool) -> Vec<Value> {
        let Self { now, messages, received, .. } = self;
        let visible = messages.iter_mut().filter(|message| message.visible_at <= *now && is_asked(&message.queue));
        let received = visible.take(BATCH).map(|message| {
            *received += 1;
            message.receipt = format!("receipt-{received}");
            message.receives += 1;
            message.visible_at = *now + VISIBILITY_TIMEOUT;
            message.record(*now)
        });
        received.collect()
    }
}

fn arn(queue: &str) -> String {
    format!("arn:aws:sqs:eu-central-1:123456789012:{queue}")
}

impl Cloud {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time since the test began.
    pub(crate) fn now(&self) -> Duration {
        self.state().now
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, time: Duration) {
        self.state().now += time;
    }

    /// Stores the parameter of a target.
    pub(crate) fn store(&self, target: &str, entry: impl ToString) {
        self.state().parameters.insert(target.to_owned(), entry.to_string());
    }

    /// Makes SSM and SQS answer, or not.
    pub(crate) fn fail(&self, ssm_fails: bool, sqs_fails: bool) {
        let mut state = self.state();
        (state.ssm_fails, state.sqs_fails) = (ssm_fails, sqs_fails);
    }

    /// Makes the state table and SNS answer, or not.
    pub(crate) fn fail_alerts(&self, table_fails: bool, sns_fails: bool) {
        let mut state = self.state();
        (state.table_fails, state.sns_fails) = (table_fails, sns_fails);
    }

    /// Limits the messages that are hidden at once.
    pub(crate) fn limit_in_flight(&self, messages: usize) {
        self.state().in_flight = Some(messages);
    }

    /// Returns the keys of the holds.
    pub(crate) fn holds(&self) -> Vec<String> {
        self.state().holds.keys().cloned().collect()
    }

    /// Returns the alerts.
    pub(crate) fn alerts(&self) -> Vec<AlertData> {
        self.state().alerts.clone()
    }

    /// How often a parameter was read.
    pub(crate) fn reads(&self) -> usize {
        self.state().reads
    }

    /// Adds a message to a queue.
    pub(crate) fn send(&self, queue: &str, body: impl ToString) {
        let mut state = self.state();
        state.sent += 1;
        let (id, now) = (format!("message-{}", state.sent), state.now);
        let message = Message {
            id,
            queue: queue.to_owned(),
            body: body.to_string(),
            sent_at: now,
            visible_at: now,
            receives: 0,
            receipt: String::new(),
        };
        state.messages.push(message);
    }

    /// Receives a batch from all queues; `None` if no message is visible.
    pub(crate) fn receive(&self) -> Option<SqsEvent> {
        let records = self.state().receive(|_| true);
        let event = (!records.is_empty()).then(|| json!({ "Records": records }));
        event.map(|event| serde_json::from_value(event).expect("an event"))
    }

    /// Deletes the messages of a batch, as Lambda does: all but the failed ones.
    pub(crate) fn delete(&self, batch: &[String], response: &BatchResponse) {
        let failed: BTreeSet<_> = response.batch_item_failures.iter().map(|it| it.item_identifier.clone()).collect();
        assert_eq!(failed.len(), response.batch_item_failures.len(), "a message is reported twice");
        assert!(failed.iter().all(|id| batch.contains(id)), "a message that was not in the batch: {failed:?}");
        self.state().messages.retain(|message| !batch.contains(&message.id) || failed.contains(&message.id));
    }

    /// Lets time pass until a message is visible. Returns whether there is one.
    pub(crate) fn advance_to_next(&self) -> bool {
        let mut state = self.state();
        let next = state.messages.iter().map(|message| message.visible_at).min();
        state.now = state.now.max(next.unwrap_or_default());
        next.is_some()
    }

    /// Returns the number of messages in queues.
    pub(crate) fn queued(&self) -> usize {
        self.state().messages.len()
    }

    /// Returns the waits of returned messages since the last call.
    pub(crate) fn waits(&self) -> Vec<Duration> {
        std::mem::take(&mut self.state().waits)
    }

    /// Returns the dead letters.
    pub(crate) fn dead(&self) -> Vec<DeadLetter> {
        self.state().dead.clone()
    }

    /// Deletes all messages, as somebody who purges a queue does.
    pub(crate) fn forget_messages(&self) {
        self.state().messages.clear();
    }
}

impl Targets for Cloud {
    async fn read(&self, target: &TargetName) -> Result<Option<SecretString>, ParameterError> {
        let mut state = self.state();
        state.reads += 1;
        if state.ssm_fails {
            return Err(ParameterError("SSM throttles".into()));
        }
        Ok(state.parameters.get(target.as_str()).cloned().map(SecretString::from))
    }
}

impl Queues for Cloud {
    async fn postpone(&self, queue: &QueueName, receipt: &str, wait: Duration) -> Result<(), QueueError> {
        let mut state = self.state();
        if state.sqs_fails {
            return Err(QueueError("SQS throttles".into()));
        }
        assert!(wait >= Duration::from_secs(1) && wait <= MAX_VISIBILITY && wait.subsec_nanos() == 0, "{wait:?}");
        let now = state.now;
        let message = state.messages.iter_mut().find(|message| message.receipt == receipt).expect("a known receipt");
        assert_eq!(queue.as_str(), message.queue);
        message.visible_at = now + wait;
        state.waits.push(wait);
        Ok(())
    }

    async fn add_dead_letter(&self, queue: &QueueName, letter: &DeadLetter) -> Result<(), QueueError> {
        let mut state = self.state();
        if state.sqs_fails {
            return Err(QueueError("SQS throttles".into()));
        }
        assert!(state.messages.iter().any(|it| it.queue == queue.as_str() && it.body == letter.body()), "another body");
        let names: Vec<_> = letter.attributes().iter().map(|attribute| attribute.name).collect();
        assert!(["error", "attempts"].iter().all(|name| names.contains(name)), "{names:?}");
        for attribute in letter.attributes() {
            let is_accepted = |it: char| it <= '\u{FFFD}' && (it >= ' ' || ['\t', '\n', '\r'].contains(&it));
            assert!(!attribute.value.is_empty() && attribute.value.chars().all(is_accepted), "{attribute:?}");
        }
        state.dead.push(letter.clone());
        Ok(())
    }

    async fn receive(&self, queue: &QueueName) -> Result<Vec<Record>, QueueError> {
        let mut state = self.state();
        let hidden = state.messages.iter().filter(|message| message.visible_at > state.now).count();
        if state.sqs_fails || state.in_flight.is_some_and(|limit| hidden >= limit) {
            return Err(QueueError("OverLimit".into()));
        }
        let records = state.receive(|name| name == queue.as_str()).into_iter();
        Ok(records.map(|record| serde_json::from_value(record).expect("a record")).collect())
    }

    async fn delete(&self, queue: &QueueName, receipts: &[String]) -> Result<(), QueueError> {
        let mut state = self.state();
        if state.sqs_fails {
            return Err(QueueError("SQS throttles".into()));
        }
        assert!((1..=BATCH).contains(&receipts.len()), "{receipts:?}");
        let before = state.messages.len();
        state.messages.retain(|message| message.queue != queue.as_str() || !receipts.contains(&message.receipt));
        assert_eq!(before - state.messages.len(), receipts.len(), "a receipt that is not known");
        Ok(())
    }
}

fn table_error() -> TableUnavailable {
    TableUnavailable("DynamoDB throttles".into())
}

impl Holds for Cloud {
    async fn take(&self, key: &str, hold: Hold) -> Result<Hold, HoldError> {
        let mut state = self.state();
        assert!(key.starts_with("target#"), "{key}");
        assert!((hold.since - OffsetDateTime::now_utc()).abs() < time::Duration::seconds(2), "{hold:?}");
        if state.table_fails {
            return Err(table_error().into());
        }
        let now = state.now + self.1.elapsed();
        if let Some((_, until)) = state.holds.get(key).filter(|(_, until)| *until > now) {
            return Err(HoldError::Taken(Some(OffsetDateTime::now_utc() + (*until - now))));
        }
        let time: Duration = (hold.until - hold.since).try_into().expect("a time");
        let since = state.holds.get(key).map_or(hold.since, |(ended, _)| ended.since);
        let hold = Hold { since, ..hold };
        state.holds.insert(key.to_owned(), (hold, now + time));
        Ok(hold)
    }

    async fn release(&self, key: &str) -> Result<Option<Hold>, TableUnavailable> {
        let mut state = self.state();
        if state.table_fails {
            return Err(table_error());
        }
        Ok(state.holds.remove(key).map(|(hold, _)| hold))
    }
}

impl Topic<AlertMessage> for Cloud {
    async fn publish(&self, message: AlertMessage) -> Result<(), TopicError> {
        let mut state = self.state();
        if state.sns_fails {
            return Err(TopicError::Failed("SNS throttles".into()));
        }
        let texts: Value = serde_json::from_str(&message.body).expect("JSON");
        let alert = serde_json::from_str(texts["sqs"].as_str().expect("a text")).expect("an alert");
        state.alerts.push(alert);
        Ok(())
    }
}
