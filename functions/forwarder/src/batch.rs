//! Batches of messages, as Lambda receives them from SQS, and the answer.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use shared::targets::name::TargetName;
use thiserror::Error;
use time::OffsetDateTime;

/// Input of an invocation.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Invocation {
    /// Messages of a target's queue.
    Batch(SqsEvent),
    /// The schedule of a target that gets one call for all of its messages.
    Coalesce {
        /// Name of the target.
        #[serde(rename = "coalesce", deserialize_with = "target")]
        target: TargetName,
    },
}

/// Reads the name of a target.
fn target<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<TargetName, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// Event of a Lambda function with messages of SQS. It has those members that the forwarder needs.
#[derive(Debug, Deserialize)]
pub struct SqsEvent {
    /// The messages.
    #[serde(rename = "Records")]
    pub records: Vec<Record>,
}

/// A message of SQS.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its identifier.
    pub message_id: String,
    /// The handle to return it to the queue, or to delete it.
    pub receipt_handle: String,
    /// Its body.
    pub body: String,
    /// Attributes that SQS adds.
    pub attributes: Attributes,
    /// Its queue.
    #[serde(rename = "eventSourceARN")]
    pub queue: QueueName,
}

/// Attributes that SQS adds to a message.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attributes {
    /// How often it was received, this time included.
    #[serde(deserialize_with = "number")]
    pub(crate) approximate_receive_count: u64,
    /// When it came into the queue, in milliseconds since 1970.
    #[serde(deserialize_with = "number")]
    pub(crate) sent_timestamp: u64,
}

/// Reads a number in a string.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// Shows no body.
impl fmt::Debug for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message_id, queue, attributes, receipt_handle: _, body: _ } = self;
        let mut record = formatter.debug_struct("Record");
        record.field("message_id", message_id).field("queue", queue).field("attributes", attributes);
        record.finish_non_exhaustive()
    }
}

impl Record {
    /// Returns how often it was received, this time included.
    pub fn tries(&self) -> u32 {
        self.attributes.approximate_receive_count.try_into().unwrap_or(u32::MAX)
    }

    /// Returns when it came into the queue.
    pub fn sent_at(&self) -> OffsetDateTime {
        let nanoseconds = i128::from(self.attributes.sent_timestamp) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl SqsEvent {
    /// Returns the messages of each queue. An event source mapping passes those of one.
    pub(crate) fn by_queue(self) -> BTreeMap<QueueName, Vec<Record>> {
        let mut queues = BTreeMap::<_, Vec<_>>::new();
        for record in self.records {
            queues.entry(record.queue.clone()).or_default().push(record);
        }
        queues
    }
}

/// Name of a queue in the function's account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct QueueName(String);

/// The text is not the ARN of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not the ARN of an SQS queue")]
pub struct InvalidQueueArn;

impl QueueName {
    /// Returns the name of the queue of a target in a stack.
    pub fn of_target(target: &TargetName, stack: &str) -> Self {
        Self(target.queue(stack))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the name in the ARN of a queue.
impl FromStr for QueueName {
    type Err = InvalidQueueArn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split(':').collect::<Vec<_>>()[..] {
            ["arn", _, "sqs", _, account, name] if ![account, name].contains(&"") => Ok(Self(name.to_owned())),
            _ => Err(InvalidQueueArn),
        }
    }
}

impl TryFrom<String> for QueueName {
    type Error = InvalidQueueArn;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Answer to a batch (`ReportBatchItemFailures`). Lambda deletes the messages that are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    /// The messages that stay in the queue.
    pub batch_item_failures: Vec<ItemFailure>,
}

/// A message that stays in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemFailure {
    /// Identifier of the message.
    pub item_identifier: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn an_event_of_lambda_is_read_and_its_debug_output_has_no_body() {
        let event = json!({ "Records": [{
            "messageId": "059f36b4-87a3-44ab-83d2-661975830a7d",
            "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
            "body": "{\"private\":true}",
            "attributes": {
                "ApproximateReceiveCount": "3",
                "SentTimestamp": "1779350400123",
                "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                "ApproximateFirstReceiveTimestamp": "1779350400200",
            },
            "messageAttributes": {},
            "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:tableau-fanout-target-chat",
            "awsRegion": "eu-central-1",
        }] });
        let event: SqsEvent = serde_json::from_value(event).expect("an event");
        let record = &event.records[0];
        assert_eq!(record.tries(), 3);
        assert_eq!(record.sent_at(), datetime!(2026-05-21 08:00:00.123 UTC));
        assert_eq!(record.queue.as_str(), "tableau-fanout-target-chat");
        let shown = format!("{event:?}");
        assert!(!shown.contains("private") && !shown.contains("AQEB"), "{shown}");
    }

    #[test]
    fn the_schedule_of_a_target_names_it() {
        let read = |input: &str| serde_json::from_str::<Invocation>(input);
        let target = match read(r#"{"coalesce":"sheet"}"#).expect("an invocation") {
            Invocation::Coalesce { target } => target,
            Invocation::Batch(_) => panic!("a batch"),
        };
        assert_eq!(target.as_str(), "sheet");
        assert!(matches!(read(r#"{"Records":[]}"#), Ok(Invocation::Batch(_))));
        for other in ["{}", r#"{"coalesce":"no name"}"#, r#"{"coalesce":7}"#, "[]"] {
            assert!(read(other).is_err(), "{other}");
        }
    }

    #[test]
    fn the_answer_has_the_form_that_lambda_reads() {
        let failure = ItemFailure { item_identifier: "059f36b4".to_owned() };
        let answer = serde_json::to_value(BatchResponse { batch_item_failures: vec![failure] }).expect("JSON");
        assert_eq!(answer, json!({ "batchItemFailures": [{ "itemIdentifier": "059f36b4" }] }));
    }

    #[test]
    fn only_the_arn_of_a_queue_is_one() {
        for text in ["", "queue", "arn:aws:sns:eu-central-1:123456789012:topic", "arn:aws:sqs:eu-central-1::queue"] {
            assert_eq!(text.parse::<QueueName>(), Err(InvalidQueueArn), "{text}");
        }
    }
}
