//! Settles messages with SQS, and logs their outcomes.

use lambda_support::{
    error_chain,
    metrics::{Metric, QueueMetrics},
};
use serde::Serialize;
use time::OffsetDateTime;
use tracing::Level;

use crate::{
    batch::Record,
    dead_letters::DeadLetter,
    forwarder::{Batch, Forwarder},
    outcome::{Handled, Outcome},
    queues::{QueueError, Queues},
};

/// The metric of each target's queue: the age of the oldest message that stays in it, in seconds.
const OLDEST: &str = "OldestUndelivered";

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

impl<T, S, Q, H, A> Forwarder<T, S, Q, H, A>
where
    Q: Queues,
{
    /// Settles a message with SQS and logs its outcome. Returns whether it stays in the queue; otherwise it is still to be
    /// deleted.
    pub(crate) async fn settle(&self, batch: &Batch, record: &Record, handled: Handled) -> bool {
        let (result, stays) = match (&handled.outcome, handled.outcome.wait()) {
            (Outcome::Dead { error }, _) => {
                let letter = DeadLetter::new(record.body.clone(), error, handled.status, record.tries());
                let result = self.queues.add_dead_letter(&batch.queue, &letter).await;
                // A message is not deleted before it is in the other queue.
                let stays = result.is_err();
                (result, stays)
            }
            (_, Some(wait)) => (self.queues.postpone(&batch.queue, &record.receipt_handle, wait).await, true),
            (_, None) => (Ok(()), false),
        };
        self.log(batch, record, &handled, result.err(), stays);
        stays
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
            Outcome::Postponed(_) => (Level::INFO, None),
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
        let queue = QueueMetrics { queue: batch.queue.as_str(), metrics: &oldest };
        self.log.line_about(level, &line, count.as_slice(), queue);
    }
}
