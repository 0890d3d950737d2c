//! The topics that messages are published to.

use std::{collections::HashMap, str::FromStr};

use aws_sdk_sns::{Client, error::SdkError, operation::publish::PublishError, types::MessageAttributeValue};
use shared::{alert::AlertMessage, message::EventMessage};

use crate::BoxError;

/// ARN of an SNS topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicArn(String);

/// The text is not the ARN of an SNS topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the ARN of an SNS topic")]
pub struct InvalidTopicArn;

impl TopicArn {
    /// What a valid one looks like, for error messages.
    pub const EXPECTED: &str =
        "the ARN of an SNS topic, such as arn:aws:sns:eu-central-1:123456789012:tableau-fanout-alerts";

    /// The ARN.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a FIFO topic, whose name ends so.
    pub fn is_fifo(&self) -> bool {
        self.0.ends_with(".fifo")
    }
}

impl FromStr for TopicArn {
    type Err = InvalidTopicArn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<_> = text.split(':').collect();
        match parts[..] {
            ["arn", partition, "sns", region, account, name] if ![partition, region, account, name].contains(&"") => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidTopicArn),
        }
    }
}

/// Where messages of a kind are published.
pub trait Topic<Message> {
    /// Publishes a message. `Ok` means that it was accepted, and nothing less.
    fn publish(&self, message: Message) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// Whether a message may have been accepted all the same: SNS was asked and did not answer.
pub fn may_have_been_accepted(error: &BoxError) -> bool {
    match error.downcast_ref::<SdkError<PublishError>>() {
        Some(SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_)) => true,
        Some(_) | None => false,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_told_by_its_arn() {
        let standard = "arn:aws:sns:eu-central-1:123456789012:events".parse::<TopicArn>();
        assert_eq!(standard.map(|arn| arn.is_fifo()), Ok(false));
        let fifo = "arn:aws-cn:sns:cn-north-1:123456789012:events.fifo".parse::<TopicArn>();
        assert_eq!(fifo.map(|arn| arn.is_fifo()), Ok(true));
        for bad in [
            "",
            "events",
            "arn:aws:sqs:eu-central-1:123456789012:events",
            "arn:aws:sns:eu-central-1::events",
            "arn:aws:sns:eu-central-1:123456789012:events:8d3a1c5e-subscription",
        ] {
            assert_eq!(bad.parse::<TopicArn>(), Err(InvalidTopicArn), "{bad}");
        }
    }
}
