//! The queues of targets, and their dead-letter queues.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_sdk_sqs::{Client, types::MessageAttributeValue};
use thiserror::Error;

use crate::{BoxError, batch::QueueArn, dead_letters::DeadLetter};

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
        queue: &QueueArn,
        receipt: &str,
        wait: Duration,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Adds a message to the dead-letter queue of a queue.
    fn add_dead_letter(
        &self,
        queue: &QueueArn,
        letter: &DeadLetter,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;
}

/// Queues of SQS.
#[derive(Debug)]
pub struct SqsQueues {
    client: Client,
    /// The URLs of queues by account and name, once they are known.
    urls: Mutex<BTreeMap<(String, String), String>>,
}

impl SqsQueues {
    /// Creates a client of all queues.
    pub fn new(client: Client) -> Self {
        Self { client, urls: Mutex::default() }
    }

    /// Returns the URL of a queue. SQS knows it, also for another partition of AWS or another endpoint.
    async fn url(&self, account: &str, name: String) -> Result<String, QueueError> {
        let key = (account.to_owned(), name);
        let known = self.urls.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(url) = known {
            return Ok(url);
        }
        let get = self.client.get_queue_url().queue_name(&key.1).queue_owner_aws_account_id(account);
        let url = get.send().await.map_err(|error| QueueError(error.into()))?.queue_url;
        let url = url.ok_or_else(|| QueueError("SQS returned no URL of the queue".into()))?;
        self.urls.lock().unwrap_or_else(PoisonError::into_inner).insert(key, url.clone());
        Ok(url)
    }
}

impl Queues for SqsQueues {
    async fn postpone(&self, queue: &QueueArn, receipt: &str, wait: Duration) -> Result<(), QueueError> {
        let url = self.url(queue.account(), queue.name().to_owned()).await?;
        let seconds = wait.as_secs().try_into().unwrap_or(i32::MAX);
        let change = self.client.change_message_visibility().queue_url(url).receipt_handle(receipt);
        change.visibility_timeout(seconds).send().await.map_err(|error| QueueError(error.into()))?;
        Ok(())
    }

    async fn add_dead_letter(&self, queue: &QueueArn, letter: &DeadLetter) -> Result<(), QueueError> {
        let url = self.url(queue.account(), format!("{}{DEAD}", queue.name())).await?;
        let mut send = self.client.send_message().queue_url(url).message_body(letter.body());
        for attribute in letter.attributes() {
            let value = MessageAttributeValue::builder().data_type(attribute.data_type).string_value(attribute.value);
            let value = value.build().map_err(|error| QueueError(error.into()))?;
            send = send.message_attributes(attribute.name, value);
        }
        send.send().await.map_err(|error| QueueError(error.into()))?;
        Ok(())
    }
}
