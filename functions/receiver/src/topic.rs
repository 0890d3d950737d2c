//! The topics.

use std::collections::HashMap;

use aws_sdk_sns::{Client, types::MessageAttributeValue};
use shared::{alert::AlertMessage, message::EventMessage};

use crate::{BoxError, config::TopicArn};

/// Where messages of a kind are published.
pub trait Topic<Message> {
    /// Publishes a message. `Ok` means that it was accepted, and nothing less.
    fn publish(&self, message: Message) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// A topic of Amazon SNS.
#[derive(Clone, Debug)]
pub struct SnsTopic {
    client: Client,
    arn: TopicArn,
}

impl SnsTopic {
    /// The topic with this ARN.
    pub fn new(client: Client, arn: TopicArn) -> Self {
        Self { client, arn }
    }
}

/// The topic for machines, standard or FIFO.
impl Topic<EventMessage> for SnsTopic {
    async fn publish(&self, message: EventMessage) -> Result<(), BoxError> {
        let EventMessage { id, body, attributes, group } = message;
        let attributes: Result<HashMap<_, _>, _> = attributes
            .into_iter()
            .map(|(name, value)| {
                let value =
                    MessageAttributeValue::builder().data_type(EventMessage::ATTRIBUTE_TYPE).string_value(value);
                Ok::<_, BoxError>((name.to_owned(), value.build()?))
            })
            .collect();
        let mut publish =
            self.client.publish().topic_arn(self.arn.as_str()).message(body).set_message_attributes(Some(attributes?));
        if self.arn.is_fifo() {
            publish = publish.message_group_id(group).message_deduplication_id(id.to_string());
        }
        publish.send().await?;
        Ok(())
    }
}

/// The topic for people. Its messages have a text for each protocol, which SNS takes without attributes only.
impl Topic<AlertMessage> for SnsTopic {
    async fn publish(&self, message: AlertMessage) -> Result<(), BoxError> {
        let AlertMessage { subject, body } = message;
        let publish = self.client.publish().topic_arn(self.arn.as_str()).message_structure("json");
        publish.subject(subject).message(body).send().await?;
        Ok(())
    }
}
