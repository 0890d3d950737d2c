//! One call of a target for all messages in its queue.

use std::{sync::Arc, time::Duration};

use delivery::{render::coalesced, sender::Sender};
use futures_util::{StreamExt, stream};
use lambda_support::error_chain;
use shared::targets::{
    answer::TargetAnswer,
    entry::TargetEntry,
    hold::{Hold, call_key},
    message::TargetMessage,
    name::TargetName,
};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    batch::{QueueName, Record},
    forwarder::{Batch, Forwarder, RESERVE},
    holds::{HoldError, Holds},
    outcome::{Handled, Outcome, Unsent},
    queues::{BATCH, Queues},
    targets::Targets,
};

/// The most messages of one call. More wait for the next one.
const MAX_MESSAGES: usize = 300;

/// The most bytes of their bodies, which the function has in its memory.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The calls of SQS at once.
const AT_ONCE: usize = 10;

/// The time to delete or return the messages.
const SETTLING: Duration = Duration::from_secs(5);

/// Reason for a message of a queue whose stack has a schedule.
const NO_COALESCING: &str = "the target's preset gets each message for itself, and its stack has a schedule. Fix: run \
    `cargo infra add-target` with --overwrite";

/// The end of the one call.
enum Call {
    Answered(TargetAnswer),
    /// It is too early.
    Later(Duration),
    Unsent(Unsent),
}

impl<T, S, Q, H, A> Forwarder<T, S, Q, H, A>
where
    T: Targets + Sync,
    S: Sender + Sync,
    Q: Queues + Sync,
    H: Holds + Sync,
    A: Sync,
{
    /// Sends one message for all that are in the queue of a target. Returns the batch, with the consequence for the target.
    pub(crate) async fn coalesce_all(&self, target: &TargetName, deadline: Instant) -> Batch {
        let mut batch = Batch::new(QueueName::of_target(target, &self.stack), Some(target.clone()));
        let records = self.drain(&batch, deadline).await;
        if !records.is_empty() {
            let handled = self.send_coalesced(target, &mut batch, &records).await;
            self.forget_refused(&batch);
            self.settle_all(&batch, records.into_iter().zip(handled)).await;
        }
        batch
    }

    /// Receives the messages that are there, as far as there is room and time.
    async fn drain(&self, batch: &Batch, deadline: Instant) -> Vec<Record> {
        let end = deadline.checked_sub(RESERVE + SETTLING);
        let (mut records, mut bytes) = (Vec::new(), 0);
        loop {
            match self.queues.receive(&batch.queue).await {
                Ok(received) => {
                    bytes += received.iter().map(|record| record.body.len()).sum::<usize>();
                    let is_last = received.is_empty();
                    records.extend(received);
                    let has_time = end.is_some_and(|end| Instant::now() < end);
                    if is_last || !has_time || records.len() >= MAX_MESSAGES || bytes >= MAX_BYTES {
                        return records;
                    }
                }
                // Those that are received are handled. SQS also refuses to hide more than a limit.
                Err(error) => {
                    let (target, error) = (batch.name(), error_chain(&error));
                    tracing::warn!(target, error, "the queue of a target could not be read to its end");
                    return records;
                }
            }
        }
    }

    /// Sends one message for those that are selected. Returns the end of each one.
    async fn send_coalesced(&self, target: &TargetName, batch: &mut Batch, records: &[Record]) -> Vec<Handled> {
        let entry = match self.entry_that_coalesces(target).await {
            Ok(entry) => entry,
            Err(unsent) => return records.iter().map(|record| Handled::unread(unsent.outcome(record))).collect(),
        };
        let read: Vec<_> = records.iter().map(|record| self.read(record, target, &entry)).collect();
        let call = self.call(&entry, read.iter().filter(|message| message.is_ok()).count()).await;
        let ends = records.iter().zip(read).map(|(record, message)| {
            let event_id = match message {
                Ok(event_id) => Some(event_id),
                Err(handled) => return handled,
            };
            let (outcome, status) = match &call {
                Call::Answered(answer) => batch.judge(record, &entry, answer),
                Call::Later(wait) => (Outcome::Postponed(*wait), None),
                Call::Unsent(unsent) => (unsent.outcome(record), None),
            };
            Handled { outcome, event_id, status }
        });
        ends.collect()
    }

    async fn entry_that_coalesces(&self, target: &TargetName) -> Result<Arc<TargetEntry>, Unsent> {
        let entry = self.entries.get(target).await.map_err(|error| Unsent::ForNow(error.to_string()))?;
        if entry.preset.coalesces() { Ok(entry) } else { Err(Unsent::ForNow(NO_COALESCING.to_owned())) }
    }

    /// Returns the identifier of a message that the target gets, and the end of any other one.
    fn read(&self, record: &Record, target: &TargetName, entry: &TargetEntry) -> Result<String, Handled> {
        let message = TargetMessage::parse(&record.body)
            .map_err(|error| Handled::unread(Outcome::Dead { error: error.to_string() }))?;
        let event_id = message.id().to_owned();
        if self.is_for(&message, target, entry) {
            Ok(event_id)
        } else {
            Err(Handled { outcome: Outcome::NotSelected, event_id: Some(event_id), status: None })
        }
    }

    /// Calls the target for a number of messages, unless it is too early.
    async fn call(&self, entry: &TargetEntry, messages: usize) -> Call {
        if messages == 0 {
            return Call::Unsent(Unsent::NotSelected);
        }
        let rendered = match coalesced(entry, messages) {
            Ok(rendered) => rendered,
            Err(error) => return Call::Unsent(error.into()),
        };
        let now = OffsetDateTime::now_utc();
        match self.holds.take(&call_key(&entry.name), Hold::of_call(now)).await {
            Ok(_) => Call::Answered(self.sender.send(entry, rendered).await),
            Err(HoldError::Taken(until)) => Call::Later(Hold::left(until, now)),
            Err(HoldError::Failed(error)) => Call::Unsent(Unsent::ForNow(error_chain(&error))),
        }
    }

    /// Settles messages, and deletes those that do not stay.
    async fn settle_all(&self, batch: &Batch, handled: impl Iterator<Item = (Record, Handled)>) {
        let settled = stream::iter(handled).map(|(record, handled)| async move {
            let stays = self.settle(batch, &record, handled).await;
            (!stays).then_some(record.receipt_handle)
        });
        let done: Vec<_> = settled.buffer_unordered(AT_ONCE).collect().await;
        let done: Vec<_> = done.into_iter().flatten().collect();
        let batches: Vec<_> = done.chunks(BATCH.into()).map(<[String]>::to_vec).collect();
        let deleted =
            stream::iter(batches).map(|receipts| async move { self.queues.delete(&batch.queue, &receipts).await });
        let mut deleted = deleted.buffer_unordered(AT_ONCE);
        while let Some(deleted) = deleted.next().await {
            if let Err(error) = deleted {
                let (target, error) = (batch.name(), error_chain(&error));
                tracing::warn!(target, error, "messages could not be deleted, and are counted again");
            }
        }
    }
}
