//! SQS queues that subscribe to a topic.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::aws::Aws;

/// How long a message may take from the topic to a queue. It takes milliseconds, with a new subscription longer.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a call waits for messages, in seconds.
const RECEIVE_WAIT: &str = "5";

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
    let receive = ["sqs", "receive-message", "--queue-url", queue, "--max-number-of-messages", "10"];
    let options = ["--wait-time-seconds", RECEIVE_WAIT, "--message-attribute-names", "All"];
    let answer = aws.json(&[&receive[..], &options].concat()).await?;
    let messages = answer["Messages"].as_array().cloned().unwrap_or_default();
    for message in &messages {
        let receipt = message["ReceiptHandle"].as_str().context("a message without a receipt")?;
        aws.run(&["sqs", "delete-message", "--queue-url", queue, "--receipt-handle", receipt]).await?;
    }
    Ok(messages)
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
