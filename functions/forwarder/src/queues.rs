//! The queues of targets, and their dead-letter queues.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_sdk_sqs::{
    Client,
    types::{DeleteMessageBatchRequestEntry, Message, MessageAttributeValue, MessageSystemAttributeName},
};
use thiserror::Error;

use crate::{
    BoxError,
    batch::{Attributes, QueueName, Record},
    dead_letters::DeadLetter,
};

/// The most messages that a call receives or deletes (Amazon SQS quotas).
pub const BATCH: u8 = 10;

/// The wait for messages, in seconds. With it SQS asks all of its servers, and without it only some.
const WAIT_SECONDS: i32 = 1;

const TRIES: MessageSystemAttributeName = MessageSystemAttributeName::ApproximateReceiveCount;
const SENT_AT: MessageSystemAttributeName = MessageSystemAttributeName::SentTimestamp;

/// The end of a dead-letter queue's name, after that of its queue.
const DEAD: &str = "-dead";

/// SQS did not answer as it should.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct QueueError(pub BoxError);

/// Queues of targets.
pub trait Queues {
    /// Hides a received message for a time, after which it is received again.
    fn postpone(
        &self,
        queue: &QueueName,
        receipt: &str,
        wait: Duration,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Adds a message to the dead-letter queue of a queue.
    fn add_dead_letter(
        &self,
        queue: &QueueName,
        letter: &DeadLetter,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Receives up to ten messages; none if the queue is empty. They are hidden for longer than an invocation.
    fn receive(&self, queue: &QueueName) -> impl Future<Output = Result<Vec<Record>, QueueError>> + Send;

    /// Deletes up to ten messages.
    fn delete(&self, queue: &QueueName, receipts: &[String]) -> impl Future<Output = Result<(), QueueError>> + Send;
}

/// Queues of SQS.
#[derive(Debug)]
pub struct SqsQueues {
    client: Client,
    /// The URLs of queues by name, once they are known.
    urls: Mutex<BTreeMap<String, String>>,
}

impl SqsQueues {
    /// Creates a client of all queues.
    pub fn new(client: Client) -> Self {
        Self { client, urls: Mutex::default() }
    }

    /// Returns the URL of a queue. SQS knows it, also for another partition of AWS or another endpoint.
    async fn url(&self, name: &str) -> Result<String, QueueError> {
        let known = self.urls.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(url) = known {
            return Ok(url);
        }
        let get = self.client.get_queue_url().queue_name(name).send().await;
        let url = get.map_err(|error| QueueError(error.into()))?.queue_url;
        let url = url.ok_or_else(|| QueueError("SQS returned no URL of the queue".into()))?;
        self.urls.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), url.clone());
        Ok(url)
    }
}

/// Returns a message as Lambda passes it on; `None` if SQS left something out.
fn record(queue: &QueueName, message: Message) -> Option<Record> {
    let attribute = |name| message.attributes.as_ref()?.get(&name)?.parse().ok();
    let (approximate_receive_count, sent_timestamp) = (attribute(TRIES)?, attribute(SENT_AT)?);
    Some(Record {
        message_id: message.message_id?,
        receipt_handle: message.receipt_handle?,
        body: message.body?,
        attributes: Attributes { approximate_receive_count, sent_timestamp },
        queue: queue.clone(),
    })
}

impl Queues for SqsQueues {
    async fn postpone(&self, queue: &QueueName, receipt: &str, wait: Duration) -> Result<(), QueueError> {
        let url = self.url(queue.as_str()).await?;
        let seconds = wait.as_secs().try_into().unwrap_or(i32::MAX);
        let change = self.client.change_message_visibility().queue_url(url).receipt_handle(receipt);
        change.visibility_timeout(seconds).send().await.map_err(|error| QueueError(error.into()))?;
        Ok(())
    }

    async fn add_dead_letter(&self, queue: &QueueName, letter: &DeadLetter) -> Result<(), QueueError> {
        let url = self.url(&format!("{}{DEAD}", queue.as_str())).await?;
        let mut send = self.client.send_message().queue_url(url).message_body(letter.body());
        for attribute in letter.attributes() {
            let value = MessageAttributeValue::builder().data_type(attribute.data_type).string_value(attribute.value);
            let value = value.build().map_err(|error| QueueError(error.into()))?;
            send = send.message_attributes(attribute.name, value);
        }
        send.send().await.map_err(|error| QueueError(error.into()))?;
        Ok(())
    }

    async fn receive(&self, queue: &QueueName) -> Result<Vec<Record>, QueueError> {
        let url = self.url(queue.as_str()).await?;
        let receive = self.client.receive_message().queue_url(url).max_number_of_messages(BATCH.into());
        let receive = receive.message_system_attribute_names(TRIES).message_system_attribute_names(SENT_AT);
        let received =
            receive.wait_time_seconds(WAIT_SECONDS).send().await.map_err(|error| QueueError(error.into()))?;
        Ok(received.messages.unwrap_or_default().into_iter().filter_map(|it| record(queue, it)).collect())
    }

    async fn delete(&self, queue: &QueueName, receipts: &[String]) -> Result<(), QueueError> {
        let url = self.url(queue.as_str()).await?;
        let entries = receipts.iter().enumerate().map(|(number, receipt)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(number.to_string()).receipt_handle(receipt);
            entry.build().map_err(|error| QueueError(error.into()))
        });
        let entries = entries.collect::<Result<_, _>>()?;
        let delete = self.client.delete_message_batch().queue_url(url).set_entries(Some(entries));
        let failed = delete.send().await.map_err(|error| QueueError(error.into()))?.failed;
        match failed.first() {
            // Each is received again, so the first reason is enough.
            Some(first) => Err(QueueError(format!("SQS did not delete all messages: {}", first.code).into())),
            None => Ok(()),
        }
    }
}
