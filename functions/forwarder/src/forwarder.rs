//! Handles a batch of messages: sends each one, and settles it with SQS.

use std::{iter::once, sync::Arc, time::Duration};

use delivery::{
    render::{RenderError, render},
    sender::Sender,
};
use futures_util::future::join_all;
use lambda_support::{
    error_chain,
    metrics::{Metric, MetricLog, QueueMetrics},
};
use serde::Serialize;
use shared::targets::{
    answer::{Attempt, Judgement, TargetAnswer},
    entry::TargetEntry,
    message::TargetMessage,
    name::TargetName,
};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until};
use tracing::Level;

use crate::{
    batch::{BatchResponse, ItemFailure, QueueArn, Record, SqsEvent},
    config::{OPERATION_TIMEOUT, SEND_TIMEOUT},
    dead_letters::DeadLetter,
    queues::{QueueError, Queues},
    targets::{Entries, Targets},
};

/// The most invocations that send to one target at the same time: `MaximumConcurrency` of its event source mapping. Each
/// keeps its share of the target's rate, since none knows of the other.
const INVOCATIONS: u32 = 2;

/// The longest time from the beginning of a message to the end of an invocation. Besides the call of the target there are five
/// of AWS: for the entry, for the message and the URL of a queue, and the same for those that are left.
const RESERVE: Duration = SEND_TIMEOUT.saturating_add(OPERATION_TIMEOUT.saturating_mul(5)).saturating_add(MARGIN);

/// The time for what is not a call.
const MARGIN: Duration = Duration::from_secs(1);

/// The wait of a message that there was no time for. It is as long as the longest gap between two calls.
const SOON: Duration = Duration::from_secs(2);

/// The metric of each target's queue: the age of the oldest message that stays in it, in seconds.
const OLDEST: &str = "OldestUndelivered";

/// Status of a target that limits its rate.
const TOO_MANY_REQUESTS: u16 = 429;

/// Reason for a message from a queue of another form.
const NO_TARGET: &str = "the queue is not that of a target";

/// The forwarder with what it needs.
#[derive(Debug)]
pub struct Forwarder<T, S, Q> {
    /// Name of the stack.
    pub stack: String,
    /// The entries of the targets.
    pub entries: Entries<T>,
    /// Sends messages.
    pub sender: S,
    /// The queues.
    pub queues: Q,
    /// The log.
    pub log: MetricLog,
}

/// A batch from one queue while it is handled.
struct Batch {
    queue: QueueArn,
    target: Option<TargetName>,
    /// The earliest time of the next call of the target.
    next_call: Instant,
    /// The answer with which the target refused more calls for now. The messages after it get the same one.
    refusal: Option<TargetAnswer>,
}

/// The end of a message in this invocation.
#[derive(Debug)]
enum Outcome {
    Forwarded,
    NotSelected,
    /// It is sent again, after this wait.
    Again {
        wait: Duration,
        error: String,
    },
    /// There was no time to send it.
    Postponed,
    Dead {
        error: String,
    },
}

/// The reason for a message that is not sent.
enum Unsent {
    NotSelected,
    /// Somebody may remove the reason.
    ForNow(String),
    ForGood(String),
}

impl From<RenderError> for Unsent {
    fn from(error: RenderError) -> Self {
        let text = error_chain(&error);
        // Another entry does not make it smaller.
        if matches!(error, RenderError::TooLarge { .. }) { Self::ForGood(text) } else { Self::ForNow(text) }
    }
}

/// An outcome, the event or alert, and the target's HTTP status, as far as there are any.
struct Handled {
    outcome: Outcome,
    event_id: Option<String>,
    status: Option<u16>,
}

/// The fields of a message's log line.
#[derive(Serialize)]
struct Line<'a> {
    target: &'a str,
    outcome: &'static str,
    message_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    attempts: u32,
    age_s: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_error: Option<String>,
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::NotSelected => "not selected",
            Self::Again { .. } => "again",
            Self::Postponed => "postponed",
            Self::Dead { .. } => "dead letter",
        }
    }

    fn wait(&self) -> Option<Duration> {
        match self {
            Self::Again { wait, .. } => Some(*wait),
            Self::Postponed => Some(SOON),
            Self::Forwarded | Self::NotSelected | Self::Dead { .. } => None,
        }
    }

    fn error(&self) -> Option<&str> {
        match self {
            Self::Again { error, .. } | Self::Dead { error } => Some(error),
            Self::Forwarded | Self::NotSelected | Self::Postponed => None,
        }
    }
}

impl Batch {
    /// Whether another message can be handled before the deadline.
    fn has_time(&self, deadline: Instant) -> bool {
        self.next_call.max(Instant::now()) + RESERVE <= deadline
    }

    /// The name in log lines.
    fn name(&self) -> &str {
        self.target.as_ref().map_or(self.queue.name(), TargetName::as_str)
    }
}

impl<T, S, Q> Forwarder<T, S, Q>
where
    T: Targets + Sync,
    S: Sender + Sync,
    Q: Queues + Sync,
{
    /// Handles a batch. The answer has the messages that stay in their queue.
    pub async fn run(&self, event: SqsEvent, deadline: Instant) -> BatchResponse {
        let mut batch_item_failures = Vec::new();
        for (queue, records) in event.by_queue() {
            // On the heap: otherwise the nested futures are too deep for the compiler.
            batch_item_failures.extend(Box::pin(self.forward_all(queue, records, deadline)).await);
        }
        BatchResponse { batch_item_failures }
    }

    /// Handles the messages of one queue, one after another, as long as there is time.
    async fn forward_all(&self, queue: QueueArn, records: Vec<Record>, deadline: Instant) -> Vec<ItemFailure> {
        let target = self.target(&queue);
        let mut batch = Batch { queue, target, next_call: Instant::now(), refusal: None };
        let mut failures = Vec::new();
        let mut records = records.into_iter();
        let mut is_first = true;
        while let Some(record) = records.next() {
            // One message in any case, or a short timeout of the function would stop all.
            if !is_first && !batch.has_time(deadline) {
                failures.extend(self.postpone_all(&batch, once(record).chain(records)).await);
                break;
            }
            is_first = false;
            let handled = self.handle(&record, &mut batch).await;
            failures.extend(self.settle(&batch, record, handled).await);
        }
        // The next invocation does not know when this one called.
        sleep_until(batch.next_call.min(deadline - MARGIN)).await;
        failures
    }

    /// Returns the target of a queue, which is called `<stack>-target-<name>`.
    fn target(&self, queue: &QueueArn) -> Option<TargetName> {
        queue.name().strip_prefix(&self.stack)?.strip_prefix("-target-")?.parse().ok()
    }

    /// Returns messages that there is no time for.
    async fn postpone_all(&self, batch: &Batch, records: impl Iterator<Item = Record>) -> Vec<ItemFailure> {
        let settled = join_all(records.map(|record| {
            let postponed = Handled { outcome: Outcome::Postponed, event_id: None, status: None };
            self.settle(batch, record, postponed)
        }));
        settled.await.into_iter().flatten().collect()
    }

    /// Sends a message, if its target gets it.
    async fn handle(&self, record: &Record, batch: &mut Batch) -> Handled {
        let message = match TargetMessage::parse(&record.body) {
            Ok(message) => message,
            Err(error) => {
                let outcome = Outcome::Dead { error: error.to_string() };
                return Handled { outcome, event_id: None, status: None };
            }
        };
        let (outcome, status) = match self.send(&message, batch).await {
            Ok((entry, answer)) => self.judge(record, batch, &entry, answer),
            Err(Unsent::NotSelected) => (Outcome::NotSelected, None),
            Err(Unsent::ForNow(error)) => (unsent(record, error), None),
            Err(Unsent::ForGood(error)) => (Outcome::Dead { error }, None),
        };
        Handled { outcome, event_id: Some(message.id().to_owned()), status }
    }

    /// Renders and sends a message, and returns the answer with the entry that it is from.
    async fn send(
        &self,
        message: &TargetMessage,
        batch: &mut Batch,
    ) -> Result<(Arc<TargetEntry>, TargetAnswer), Unsent> {
        let target = batch.target.as_ref().ok_or_else(|| Unsent::ForNow(NO_TARGET.to_owned()))?;
        let entry = self.entries.get(target).await.map_err(|error| Unsent::ForNow(error.to_string()))?;
        if !message.is_selected(&entry.selection) || message.is_about(target, &self.stack) {
            return Err(Unsent::NotSelected);
        }
        if let Some(refusal) = batch.refusal.clone() {
            return Ok((entry, refusal));
        }
        sleep_until(batch.next_call).await;
        let rendered = render(&entry, message, message.id(), OffsetDateTime::now_utc())?;
        batch.next_call = Instant::now() + entry.gap() * INVOCATIONS;
        let answer = self.sender.send(&entry, rendered).await;
        Ok((entry, answer))
    }

    /// Decides what follows from an answer. Returns its status as well.
    fn judge(
        &self,
        record: &Record,
        batch: &mut Batch,
        entry: &TargetEntry,
        answer: TargetAnswer,
    ) -> (Outcome, Option<u16>) {
        let (status, error) = match &answer {
            TargetAnswer::Status { code, .. } => (Some(*code), format!("the target answered {code}")),
            TargetAnswer::NoAnswer(reason) => (None, (*reason).to_owned()),
        };
        let outcome = match attempt(record).judge(&answer, entry.redirect_is_success) {
            Judgement::Delivered => Outcome::Forwarded,
            Judgement::Again { wait, rereads } => {
                if rereads {
                    self.entries.forget(&entry.name);
                }
                Outcome::Again { wait, error }
            }
            Judgement::Never { reason } => Outcome::Dead { error: reason },
        };
        if status == Some(TOO_MANY_REQUESTS) {
            batch.refusal = Some(answer);
        }
        (outcome, status)
    }

    /// Settles a message with SQS and logs its outcome. Returns it if it stays in the queue.
    async fn settle(&self, batch: &Batch, record: Record, handled: Handled) -> Option<ItemFailure> {
        let Record { message_id, receipt_handle, .. } = &record;
        let postpone = |wait| self.queues.postpone(&batch.queue, receipt_handle, wait);
        let (result, stays) = match &handled.outcome {
            Outcome::Forwarded | Outcome::NotSelected => (Ok(()), false),
            Outcome::Again { wait, .. } => (postpone(*wait).await, true),
            Outcome::Postponed => (postpone(SOON).await, true),
            Outcome::Dead { error } => {
                let letter = DeadLetter::new(record.body.clone(), error, handled.status, record.tries());
                let result = self.queues.add_dead_letter(&batch.queue, &letter).await;
                // A message is not deleted before it is in the other queue.
                let stays = result.is_err();
                (result, stays)
            }
        };
        self.log(batch, &record, &handled, result.err(), stays);
        stays.then(|| ItemFailure { item_identifier: message_id.clone() })
    }

    /// Writes a message's line.
    fn log(&self, batch: &Batch, record: &Record, handled: &Handled, queue_error: Option<QueueError>, stays: bool) {
        let Handled { outcome, event_id, status } = handled;
        let age = (OffsetDateTime::now_utc() - record.sent_at()).whole_seconds().try_into().unwrap_or_default();
        // Zero for a message that left the queue: CloudWatch takes the largest of a period.
        let oldest = [Metric { name: OLDEST, value: if stays { age } else { 0 } }];
        let (level, count) = match outcome {
            // The alerts topic has no filter policy, so most messages of some targets are such.
            Outcome::NotSelected if record.tries() == 1 => return,
            // It may have been the oldest one.
            Outcome::NotSelected => (Level::INFO, None),
            Outcome::Forwarded => (Level::INFO, Some("Forwarded")),
            Outcome::Again { .. } => (Level::WARN, Some("ForwardRetried")),
            Outcome::Postponed => (Level::INFO, None),
            Outcome::Dead { .. } if stays => (Level::ERROR, None),
            Outcome::Dead { .. } => (Level::ERROR, Some("DeadLetters")),
        };
        let count = count.map(|name| Metric::count(name, 1));
        let line = Line {
            target: batch.name(),
            outcome: outcome.name(),
            message_id: &record.message_id,
            event_id: event_id.as_deref(),
            attempts: record.tries(),
            age_s: age,
            status: *status,
            wait_s: outcome.wait().map(|wait| wait.as_secs()),
            error: outcome.error(),
            queue_error: queue_error.map(|error| error_chain(&error)),
        };
        let queue = QueueMetrics { queue: batch.queue.name(), metrics: &oldest };
        self.log.line_about(level, &line, count.as_slice(), queue);
    }
}

/// Returns the outcome of a message that could not be sent for a reason that somebody may remove: it is sent again as if the
/// target had not answered.
fn unsent(record: &Record, error: String) -> Outcome {
    match attempt(record).judge(&TargetAnswer::NoAnswer("the message was not sent"), false) {
        Judgement::Again { wait, .. } => Outcome::Again { wait, error },
        Judgement::Delivered | Judgement::Never { .. } => Outcome::Dead { error },
    }
}

fn attempt(record: &Record) -> Attempt {
    // Without randomness all waits are equal, which is still a wait.
    let jitter = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
    Attempt { tries: record.tries(), sent_at: record.sent_at(), now: OffsetDateTime::now_utc(), jitter }
}
