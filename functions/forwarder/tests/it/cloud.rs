//! SQS and SSM as values: queues with visibility timeouts, dead letters, and parameters. Time passes when a test says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use forwarder::{
    batch::{BatchResponse, QueueArn, SqsEvent},
    dead_letters::DeadLetter,
    queues::{QueueError, Queues},
    targets::{ParameterError, Targets},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::targets::name::TargetName;
use time::OffsetDateTime;

/// The queue's visibility timeout: six times the function's timeout.
pub(crate) const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(360);

/// The longest visibility timeout that SQS accepts.
const MAX_VISIBILITY: Duration = Duration::from_secs(12 * 3600);

/// The most messages of a batch.
const BATCH: usize = 10;

/// Queues and parameters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cloud(Arc<Mutex<State>>);

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
        let mut state = self.state();
        let State { now, messages, received, .. } = &mut *state;
        let visible = messages.iter_mut().filter(|message| message.visible_at <= *now).take(BATCH);
        let records: Vec<_> = visible
            .map(|message| {
                *received += 1;
                message.receipt = format!("receipt-{received}");
                message.receives += 1;
                message.visible_at = *now + VISIBILITY_TIMEOUT;
                message.record(*now)
            })
            .collect();
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
    async fn postpone(&self, queue: &QueueArn, receipt: &str, wait: Duration) -> Result<(), QueueError> {
        let mut state = self.state();
        if state.sqs_fails {
            return Err(QueueError("SQS throttles".into()));
        }
        assert!(wait >= Duration::from_secs(1) && wait <= MAX_VISIBILITY && wait.subsec_nanos() == 0, "{wait:?}");
        let now = state.now;
        let message = state.messages.iter_mut().find(|message| message.receipt == receipt).expect("a known receipt");
        assert_eq!(queue.name(), message.queue);
        message.visible_at = now + wait;
        state.waits.push(wait);
        Ok(())
    }

    async fn add_dead_letter(&self, queue: &QueueArn, letter: &DeadLetter) -> Result<(), QueueError> {
        let mut state = self.state();
        if state.sqs_fails {
            return Err(QueueError("SQS throttles".into()));
        }
        assert!(state.messages.iter().any(|it| it.queue == queue.name() && it.body == letter.body()), "another body");
        let names: Vec<_> = letter.attributes().iter().map(|attribute| attribute.name).collect();
        assert!(["error", "attempts"].iter().all(|name| names.contains(name)), "{names:?}");
        for attribute in letter.attributes() {
            let is_accepted = |it: char| it <= '\u{FFFD}' && (it >= ' ' || ['\t', '\n', '\r'].contains(&it));
            assert!(!attribute.value.is_empty() && attribute.value.chars().all(is_accepted), "{attribute:?}");
        }
        state.dead.push(letter.clone());
        Ok(())
    }
}
