//! The SQS queue of failed refreshes: the events about them, until they are explained.

use aws_sdk_sqs::{
    Client,
    types::{ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, MessageSystemAttributeName},
};
use shared::refreshes::failed_event::FailedEvent;
use thiserror::Error;

use crate::BoxError;

/// The most messages that a call receives, deletes or returns (Amazon SQS quotas).
const BATCH: u8 = 10;

/// The most messages that a run receives: those of a run that reads as many jobs as it may.
const MAX_MESSAGES: usize = 1000;

/// The wait for a first message, in seconds. With it SQS asks all of its servers, and without it only some.
const WAIT_SECONDS: i32 = 1;

/// The time until a returned message can be received again, in seconds: before the next run, which comes each minute.
const RETURN_SECONDS: i32 = 30;

/// A message of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedMessage {
    /// The failed refresh; `None` if the message is no event about one. Its body, which can be large, is not kept.
    pub failed: Option<FailedEvent>,
    /// The handle to delete or return it.
    pub receipt: String,
    /// How often it was received, this time included.
    pub tries: u32,
}

/// SQS did not answer as it should.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct QueueError(pub BoxError);

/// The queue of failed refreshes.
pub trait FailureQueue {
    /// Receives the messages that are there. Nobody else receives them until the queue's visibility timeout, which is as
    /// long as a run.
    fn receive(&self) -> impl Future<Output = Result<Vec<QueuedMessage>, QueueError>> + Send;

    /// Deletes messages.
    fn delete(&self, messages: Vec<QueuedMessage>) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Returns messages to the queue, for the next run.
    fn put_back(&self, messages: Vec<QueuedMessage>) -> impl Future<Output = Result<(), QueueError>> + Send;
}

/// A queue of SQS.
#[derive(Clone, Debug)]
pub struct SqsFailureQueue {
    client: Client,
    url: String,
}

impl SqsFailureQueue {
    /// Creates a client of the queue with this URL.
    pub fn new(client: Client, url: String) -> Self {
        Self { client, url }
    }

    async fn receive_batch(&self, wait_seconds: i32) -> Result<Vec<QueuedMessage>, QueueError> {
        let count = MessageSystemAttributeName::ApproximateReceiveCount;
        let receive = self.client.receive_message().queue_url(&self.url).max_number_of_messages(BATCH.into());
        let receive = receive.wait_time_seconds(wait_seconds).message_system_attribute_names(count.clone());
        let received = receive.send().await.map_err(|error| QueueError(error.into()))?;
        let messages = received.messages.unwrap_or_default().into_iter().filter_map(|message| {
            let tries = message.attributes().and_then(|attributes| attributes.get(&count)?.parse().ok());
            Some(QueuedMessage {
                tries: tries.unwrap_or(1),
                receipt: message.receipt_handle?,
                failed: message.body.as_deref().and_then(FailedEvent::parse),
            })
        });
        Ok(messages.collect())
    }
}

impl FailureQueue for SqsFailureQueue {
    async fn receive(&self) -> Result<Vec<QueuedMessage>, QueueError> {
        let mut messages = self.receive_batch(WAIT_SECONDS).await?;
        while !messages.is_empty() && messages.len() < MAX_MESSAGES {
            // The received messages stay hidden for minutes, so the run works on them in any case.
            match self.receive_batch(0).await {
                Ok(more) if !more.is_empty() => messages.extend(more),
                Ok(_) | Err(_) => break,
            }
        }
        Ok(messages)
    }

    async fn delete(&self, messages: Vec<QueuedMessage>) -> Result<(), QueueError> {
        for batch in messages.chunks(BATCH.into()) {
            let entries = batch.iter().enumerate().map(|(number, message)| {
                let entry = DeleteMessageBatchRequestEntry::builder().id(number.to_string());
                entry.receipt_handle(&message.receipt).build().map_err(|error| QueueError(error.into()))
            });
            let entries = entries.collect::<Result<_, _>>()?;
            let delete = self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries));
            delete.send().await.map_err(|error| QueueError(error.into()))?;
        }
        Ok(())
    }

    async fn put_back(&self, messages: Vec<QueuedMessage>) -> Result<(), QueueError> {
        for batch in messages.chunks(BATCH.into()) {
            let entries = batch.iter().enumerate().map(|(number, message)| {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(number.to_string());
                let entry = entry.receipt_handle(&message.receipt).visibility_timeout(RETURN_SECONDS);
                entry.build().map_err(|error| QueueError(error.into()))
            });
            let entries = entries.collect::<Result<_, _>>()?;
            let change = self.client.change_message_visibility_batch().queue_url(&self.url).set_entries(Some(entries));
            change.send().await.map_err(|error| QueueError(error.into()))?;
        }
        Ok(())
    }
}
