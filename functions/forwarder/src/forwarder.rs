//! Handles an invocation: sends each message of a batch, or one for all in a queue, and settles them with SQS.

use std::{iter::once, sync::Arc, time::Duration};

use delivery::{render::render, sender::Sender};
use futures_util::future::join_all;
use lambda_support::{metrics::MetricLog, topic::Topic};
use shared::{
    alerts::message::AlertMessage,
    targets::{
        answer::{Judgement, TargetAnswer},
        entry::TargetEntry,
        message::TargetMessage,
        name::TargetName,
    },
};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until};

use crate::{
    batch::{BatchResponse, Invocation, ItemFailure, QueueName, Record},
    config::{OPERATION_TIMEOUT, SEND_TIMEOUT},
    holds::Holds,
    outcome::{Handled, Outcome, Unsent, attempt},
    queues::Queues,
    targets::{Entries, Targets},
    working::Working,
};

/// The most invocations that send to one target at the same time: `MaximumConcurrency` of its event source mapping. Each
/// keeps its share of the target's rate, since none knows of the other.
const INVOCATIONS: u32 = 2;

/// The longest time from the beginning of a message to the end of an invocation. Besides the call of the target there are
/// eight of AWS: for the entry, for the message and the URL of a queue, the same for those that are left, and three for an
/// alert about the target.
pub(crate) const RESERVE: Duration =
    SEND_TIMEOUT.saturating_add(OPERATION_TIMEOUT.saturating_mul(8)).saturating_add(MARGIN);

/// The time for what is not a call.
const MARGIN: Duration = Duration::from_secs(1);

/// The wait of a message that there was no time for. A shorter one would only be counted as a further attempt: the others in
/// the queue are sent meanwhile.
const SOON: Duration = Duration::from_secs(20);

/// Status of a target that limits its rate.
const TOO_MANY_REQUESTS: u16 = 429;

/// Reason for a message from a queue of another form.
const NO_TARGET: &str = "the queue is not that of a target";

/// Reason for a message of a queue whose stack has no schedule.
const NO_SCHEDULE: &str = "the target's preset gets one call for all messages, and its stack has no schedule. Fix: run \
    `cargo infra add-target` with --overwrite";

/// The forwarder with what it needs.
#[derive(Debug)]
pub struct Forwarder<T, S, Q, H, A> {
    /// Name of the stack.
    pub stack: String,
    /// The entries of the targets.
    pub entries: Entries<T>,
    /// Sends messages.
    pub sender: S,
    /// The queues.
    pub queues: Q,
    /// Storage for holds: actions that wait until a time.
    pub holds: H,
    /// The alerts topic.
    pub alerts: A,
    /// The targets about which this environment knows that no alert is open.
    pub working: Working,
    /// The log.
    pub log: MetricLog,
}

/// A batch from one queue while it is handled.
pub(crate) struct Batch {
    pub(crate) queue: QueueName,
    pub(crate) target: Option<TargetName>,
    /// The earliest time of the next call of the target.
    next_call: Instant,
    /// The answer with which the target refused more calls for now. The messages after it get the same one, but for those
    /// whose last attempt this is.
    refusal: Option<TargetAnswer>,
    /// The consequence of the last answers for the target.
    pub(crate) standing: Option<Standing>,
}

/// Consequence of an answer for a target as a whole.
#[derive(Debug)]
pub(crate) enum Standing {
    /// It refused a message with this status, by which its address or its credentials are wrong.
    Refuses(Arc<TargetEntry>, u16),
    /// It took a message, which it perhaps refused before.
    Works { was_tried: bool },
}

impl Batch {
    pub(crate) fn new(queue: QueueName, target: Option<TargetName>) -> Self {
        Self { queue, target, next_call: Instant::now(), refusal: None, standing: None }
    }

    /// Whether another message can be handled before the deadline.
    fn has_time(&self, deadline: Instant) -> bool {
        self.next_call.max(Instant::now()) + RESERVE <= deadline
    }

    /// The name in log lines.
    pub(crate) fn name(&self) -> &str {
        self.target.as_ref().map_or(self.queue.as_str(), TargetName::as_str)
    }

    /// Decides what follows from an answer. Returns its status as well.
    pub(crate) fn judge(
        &mut self,
        record: &Record,
        entry: &Arc<TargetEntry>,
        answer: &TargetAnswer,
    ) -> (Outcome, Option<u16>) {
        let (status, error) = match answer {
            TargetAnswer::Status { code, .. } => (Some(*code), format!("the target answered {code}")),
            TargetAnswer::NoAnswer(reason) => (None, (*reason).to_owned()),
        };
        let outcome = match attempt(record).judge(answer, entry.redirect_is_success) {
            Judgement::Delivered => {
                let was_tried =
                    record.tries() > 1 || matches!(self.standing, Some(Standing::Works { was_tried: true }));
                self.standing = Some(Standing::Works { was_tried });
                Outcome::Forwarded
            }
            Judgement::Again { wait, rereads } => {
                if let Some(status) = status.filter(|_| rereads && !answer.limits_rate()) {
                    self.standing = Some(Standing::Refuses(Arc::clone(entry), status));
                }
                Outcome::Again { wait, error }
            }
            Judgement::Never { reason } => Outcome::Dead { error: reason },
        };
        if status == Some(TOO_MANY_REQUESTS) {
            self.refusal = Some(answer.clone());
        }
        (outcome, status)
    }
}

impl<T, S, Q, H, A> Forwarder<T, S, Q, H, A>
where
    T: Targets + Sync,
    S: Sender + Sync,
    Q: Queues + Sync,
    H: Holds + Sync,
    A: Topic<AlertMessage> + Sync,
{
    /// Handles an invocation. The answer has the messages of a batch that stay in their queue.
    pub async fn run(&self, invocation: Invocation, deadline: Instant) -> BatchResponse {
        let event = match invocation {
            Invocation::Batch(event) => event,
            Invocation::Coalesce { target } => {
                let batch = Box::pin(self.coalesce_all(&target, deadline)).await;
                self.alert(&batch).await;
                return BatchResponse::default();
            }
        };
        let mut batch_item_failures = Vec::new();
        for (queue, records) in event.by_queue() {
            // On the heap: otherwise the nested futures are too deep for the compiler.
            batch_item_failures.extend(Box::pin(self.forward_all(queue, records, deadline)).await);
        }
        BatchResponse { batch_item_failures }
    }

    /// Handles the messages of one queue, one after another, as long as there is time.
    async fn forward_all(&self, queue: QueueName, records: Vec<Record>, deadline: Instant) -> Vec<ItemFailure> {
        let target = self.target(&queue);
        let mut batch = Batch::new(queue, target);
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
            failures.extend(self.settle(&batch, &record, handled).await.then(|| failure(record)));
        }
        self.alert(&batch).await;
        // The next invocation does not know when this one called.
        sleep_until(batch.next_call.min(deadline - MARGIN)).await;
        failures
    }

    /// Returns the target of a queue, which is called `<stack>-target-<name>`.
    fn target(&self, queue: &QueueName) -> Option<TargetName> {
        queue.as_str().strip_prefix(&self.stack)?.strip_prefix("-target-")?.parse().ok()
    }

    /// Returns messages that there is no time for.
    async fn postpone_all(&self, batch: &Batch, records: impl Iterator<Item = Record>) -> Vec<ItemFailure> {
        let settled = join_all(records.map(|record| async move {
            let stays = self.settle(batch, &record, Handled::unread(Outcome::Postponed(SOON))).await;
            stays.then(|| failure(record))
        }));
        settled.await.into_iter().flatten().collect()
    }

    /// Sends a message, if its target gets it.
    async fn handle(&self, record: &Record, batch: &mut Batch) -> Handled {
        let message = match TargetMessage::parse(&record.body) {
            Ok(message) => message,
            Err(error) => return Handled::unread(Outcome::Dead { error: error.to_string() }),
        };
        let (outcome, status) = match self.send(record, &message, batch).await {
            Ok((entry, answer)) => {
                let judged = batch.judge(record, &entry, &answer);
                self.forget_refused(batch);
                judged
            }
            Err(unsent) => (unsent.outcome(record), None),
        };
        Handled { outcome, event_id: Some(message.id().to_owned()), status }
    }

    /// Renders and sends a message, and returns the answer with the entry that it is from.
    async fn send(
        &self,
        record: &Record,
        message: &TargetMessage,
        batch: &mut Batch,
    ) -> Result<(Arc<TargetEntry>, TargetAnswer), Unsent> {
        let target = batch.target.as_ref().ok_or_else(|| Unsent::ForNow(NO_TARGET.to_owned()))?;
        let entry = self.entries.get(target).await.map_err(|error| Unsent::ForNow(error.to_string()))?;
        if entry.preset.coalesces() {
            return Err(Unsent::ForNow(NO_SCHEDULE.to_owned()));
        }
        if !self.is_for(message, target, &entry) {
            return Err(Unsent::NotSelected);
        }
        if let Some(refusal) = batch.refusal.clone().filter(|_| !attempt(record).is_last()) {
            return Ok((entry, refusal));
        }
        sleep_until(batch.next_call).await;
        let rendered = render(&entry, message, message.id(), OffsetDateTime::now_utc())?;
        batch.next_call = Instant::now() + entry.gap() * INVOCATIONS;
        let answer = self.sender.send(&entry, rendered).await;
        Ok((entry, answer))
    }
}

impl<T: Targets, S, Q, H, A> Forwarder<T, S, Q, H, A> {
    /// Lets the next message read the entry again, if the target refused one.
    pub(crate) fn forget_refused(&self, batch: &Batch) {
        if let Some(Standing::Refuses(entry, _)) = &batch.standing {
            self.entries.forget(&entry.name);
        }
    }

    /// Whether a target gets a message.
    pub(crate) fn is_for(&self, message: &TargetMessage, target: &TargetName, entry: &TargetEntry) -> bool {
        message.is_selected(&entry.selection) && !message.is_about(target, &self.stack)
    }
}

fn failure(record: Record) -> ItemFailure {
    ItemFailure { item_identifier: record.message_id }
}
