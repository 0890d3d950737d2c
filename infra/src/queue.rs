//! SQS queues that subscribe to a topic.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use secrecy::SecretString;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::aws::{Aws, Input, has_code};

/// How long a message may take from the topic to a queue. It takes milliseconds, with a new subscription longer.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a message that is moved is hidden from others, in seconds. Each takes two processes of the AWS CLI.
const MOVE_TIMEOUT: &str = "120";

/// Attribute of a received message: when it came into the queue, in milliseconds since 1970.
const SENT: &str = "SentTimestamp";

/// Messages that are moved side by side.
const CALLS_AT_ONCE: usize = 4;

/// How long a call waits for messages, in seconds.
const RECEIVE_WAIT: &str = "5";

/// The longest wait for messages (Amazon SQS API reference, `WaitTimeSeconds`).
const LONGEST_WAIT: &str = "20";

/// SQS's error codes for a queue that does not exist, in newer and in older AWS CLIs.
const NO_SUCH_QUEUE: [&str; 2] = ["QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"];

/// Creates a queue, FIFO if the name ends with `.fifo`, and returns its URL.
///
/// # Errors
///
/// The command fails.
pub async fn create(aws: &Aws, name: &str) -> anyhow::Result<String> {
    let fifo: &[&str] = if name.ends_with(".fifo") { &["--attributes", "FifoQueue=true"] } else { &[] };
    let queue = aws.json(&[&["sqs", "create-queue", "--queue-name", name], fifo].concat()).await?;
    Ok(queue["QueueUrl"].as_str().context("a queue without a URL")?.to_owned())
}

/// Whether a command failed since its queue does not exist.
pub fn is_missing(error: &anyhow::Error) -> bool {
    NO_SUCH_QUEUE.iter().any(|code| has_code(error, code))
}

/// Finds the URL of a queue. `None` if it does not exist.
///
/// # Errors
///
/// The command fails.
pub async fn find(aws: &Aws, name: &str) -> anyhow::Result<Option<String>> {
    match aws.json(&["sqs", "get-queue-url", "--queue-name", name]).await {
        Err(error) if is_missing(&error) => Ok(None),
        found => Ok(found?["QueueUrl"].as_str().map(str::to_owned)),
    }
}

/// Reads the number of messages in a queue, also of those that somebody receives now.
///
/// # Errors
///
/// The command fails.
pub async fn depth(aws: &Aws, queue: &str) -> anyhow::Result<u64> {
    let names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
    let get = ["sqs", "get-queue-attributes", "--queue-url", queue, "--attribute-names"];
    let attributes = aws.json(&[&get[..], &names].concat()).await?;
    let count = |name: &str| attributes["Attributes"][name].as_str().and_then(|count| count.parse::<u64>().ok());
    Ok(names.into_iter().filter_map(count).sum())
}

/// Moves some messages from a queue to another, without their attributes, but none that came after `start`. A message is
/// deleted only after the other queue has it. Returns the number of those moved.
///
/// # Errors
///
/// A command fails.
pub async fn move_some(aws: &Aws, from: &str, to: &str, start: OffsetDateTime) -> anyhow::Result<usize> {
    let receive = ["sqs", "receive-message", "--queue-url", from, "--max-number-of-messages", "10"];
    let options = ["--wait-time-seconds", RECEIVE_WAIT, "--visibility-timeout", MOVE_TIMEOUT];
    // Older AWS CLIs do not know `--message-system-attribute-names`.
    let options = [&options[..], &["--attribute-names", SENT]].concat();
    let answer = aws.json(&[&receive[..], &options].concat()).await?;
    let messages = answer["Messages"].as_array().into_iter().flatten();
    let messages: Vec<_> = messages.filter(|message| !is_after(message, start)).collect();
    let moves = messages.iter().map(|message| async move {
        let text = |member: &str| message[member].as_str().with_context(|| format!("a message without {member}"));
        let send = ["sqs", "send-message", "--queue-url", to, "--message-body", "file:///dev/stdin"];
        // A command line has no room for the largest body.
        aws.run_with(&send, Input::Secret(&SecretString::from(text("Body")?))).await?;
        let receipt = text("ReceiptHandle")?;
        aws.run(&["sqs", "delete-message", "--queue-url", from, "--receipt-handle", receipt]).await.map(drop)
    });
    stream::iter(moves).buffer_unordered(CALLS_AT_ONCE).try_collect::<()>().await?;
    Ok(messages.len())
}

/// Whether a message came into its queue after a time.
fn is_after(message: &Value, time: OffsetDateTime) -> bool {
    sent_at(message).is_some_and(|sent| sent > time)
}

/// Reads when a message came into its queue.
pub fn sent_at(message: &Value) -> Option<OffsetDateTime> {
    let milliseconds: i128 = message["Attributes"][SENT].as_str()?.parse().ok()?;
    OffsetDateTime::from_unix_timestamp_nanos(milliseconds.checked_mul(1_000_000)?).ok()
}

/// Subscribes a queue to a topic, lets the topic send to it, and returns the subscription's ARN.
///
/// # Errors
///
/// A command fails.
pub async fn subscribe(aws: &Aws, queue: &str, topic: &str, options: &Value) -> anyhow::Result<String> {
    let get = ["sqs", "get-queue-attributes", "--queue-url", queue, "--attribute-names", "QueueArn"];
    let attributes = aws.json(&get).await?;
    let arn = attributes["Attributes"]["QueueArn"].as_str().context("a queue without an ARN")?;
    let policy = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": { "Service": "sns.amazonaws.com" },
            "Action": "sqs:SendMessage",
            "Resource": arn,
            "Condition": { "ArnEquals": { "aws:SourceArn": topic } },
        }],
    });
    let policy = json!({ "Policy": policy.to_string() }).to_string();
    aws.run(&["sqs", "set-queue-attributes", "--queue-url", queue, "--attributes", &policy]).await?;
    let subscribe = ["sns", "subscribe", "--topic-arn", topic, "--protocol", "sqs", "--notification-endpoint", arn];
    let subscription = aws.json(&[&subscribe[..], &["--attributes", &options.to_string()]].concat()).await?;
    Ok(subscription["SubscriptionArn"].as_str().context("a subscription without an ARN")?.to_owned())
}

/// Waits some seconds for messages, deletes them from the queue, and returns them.
///
/// # Errors
///
/// A command fails.
pub async fn receive(aws: &Aws, queue: &str) -> anyhow::Result<Vec<Value>> {
    let messages = receive_within(aws, queue, RECEIVE_WAIT).await?;
    delete(aws, queue, &messages).await?;
    Ok(messages)
}

/// Waits for messages as long as SQS allows, and returns them. Meanwhile it deletes those that were returned before.
///
/// # Errors
///
/// A command fails.
pub async fn receive_after(aws: &Aws, queue: &str, before: &[Value]) -> anyhow::Result<Vec<Value>> {
    // A message that is not deleted comes again, which is better than to lose those that came.
    let (messages, _) = tokio::join!(receive_within(aws, queue, LONGEST_WAIT), delete(aws, queue, before));
    messages
}

async fn receive_within(aws: &Aws, queue: &str, seconds: &str) -> anyhow::Result<Vec<Value>> {
    let receive = ["sqs", "receive-message", "--queue-url", queue, "--max-number-of-messages", "10"];
    let options = ["--wait-time-seconds", seconds, "--message-attribute-names", "All", "--attribute-names", SENT];
    let answer = aws.json(&[&receive[..], &options].concat()).await?;
    Ok(answer["Messages"].as_array().cloned().unwrap_or_default())
}

/// Deletes messages that were received.
async fn delete(aws: &Aws, queue: &str, messages: &[Value]) -> anyhow::Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let entry = |(index, message): (usize, &Value)| {
        let receipt = message["ReceiptHandle"].as_str().context("a message without a receipt")?;
        Ok(json!({ "Id": index.to_string(), "ReceiptHandle": receipt }))
    };
    let entries = messages.iter().enumerate().map(entry).collect::<anyhow::Result<Vec<_>>>()?;
    let delete = ["sqs", "delete-message-batch", "--queue-url", queue, "--entries"];
    let answer = aws.json(&[&delete[..], &[&json!(entries).to_string()]].concat()).await?;
    let failed = answer["Failed"].as_array().map_or(0, Vec::len);
    ensure!(failed == 0, "{failed} of {} received messages could not be deleted", entries.len());
    Ok(())
}

/// Waits until at least one message arrives, as [`receive`].
///
/// # Errors
///
/// No message arrives in time.
pub async fn receive_some(aws: &Aws, queue: &str) -> anyhow::Result<Vec<Value>> {
    let start = Instant::now();
    while start.elapsed() < ARRIVAL_TIMEOUT {
        let messages = receive(aws, queue).await?;
        if !messages.is_empty() {
            return Ok(messages);
        }
    }
    bail!("no message arrived in the queue within {} s", ARRIVAL_TIMEOUT.as_secs())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_message_that_came_later_is_found_by_its_time() {
        let start = datetime!(2026-05-21 08:00:00.5 UTC);
        for (sent, is_later) in [("1779350400499", false), ("1779350400500", false), ("1779350400501", true)] {
            assert_eq!(is_after(&json!({ "Attributes": { "SentTimestamp": sent } }), start), is_later, "{sent}");
        }
        assert!(!is_after(&json!({}), start));
    }
}
