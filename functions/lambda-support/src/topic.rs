//! The SNS topics.

use std::{collections::HashMap, str::FromStr};

use aws_sdk_sns::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::publish::PublishError,
    types::MessageAttributeValue,
};
use shared::{alerts::message::AlertMessage, events::cloud_event::EventMessage};

use crate::BoxError;

/// ARN of an SNS topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicArn(String);

/// The text is not the ARN of an SNS topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the ARN of an SNS topic")]
pub struct InvalidTopicArn;

impl TopicArn {
    /// The expected form, for error messages.
    pub const EXPECTED: &str =
        "the ARN of an SNS topic, such as arn:aws:sns:eu-central-1:123456789012:tableau-fanout-alerts";

    /// Returns the ARN.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a FIFO topic: the name of one ends in `.fifo`.
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

/// A topic for one type of message.
pub trait Topic<Message> {
    /// Publishes a message. `Ok` means that the topic accepted it.
    fn publish(&self, message: Message) -> impl Future<Output = Result<(), TopicError>> + Send;
}

/// A topic did not accept a message.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// SNS refuses the message itself, so that no retry can succeed.
    #[error("the message is refused for good")]
    RefusedForGood(#[source] BoxError),
    /// The call failed. SNS may have accepted the message without an answer.
    #[error(transparent)]
    Failed(BoxError),
}

impl TopicError {
    /// Whether SNS refuses the message itself.
    pub fn is_for_good(&self) -> bool {
        matches!(self, Self::RefusedForGood(_))
    }
}

/// Distinguishes a refusal of the message from one of the topic, the caller or the moment.
fn refusal(error: SdkError<PublishError>) -> TopicError {
    let is_about_a_parameter = matches!(
        error.code(),
        Some(
            "InvalidParameter"
                | "InvalidParameterValue"
                | "ParameterValueInvalid"
                | "ValidationError"
                | "ValidationException"
        )
    );
    // The topic is a parameter, too: SNS may accept the message with another ARN.
    let is_about_the_topic = error.message().is_some_and(|message| message.contains("TopicArn"));
    let is_for_good = is_about_a_parameter && !is_about_the_topic;
    if is_for_good { TopicError::RefusedForGood(error.into()) } else { TopicError::Failed(error.into()) }
}

/// A topic of Amazon SNS.
#[derive(Clone, Debug)]
pub struct SnsTopic {
    client: Client,
    arn: TopicArn,
}

impl SnsTopic {
    /// Creates a client of the topic with this ARN.
    pub fn new(client: Client, arn: TopicArn) -> Self {
        Self { client, arn }
    }
}

/// The events topic, standard or FIFO.
impl Topic<EventMessage> for SnsTopic {
    async fn publish(&self, message: EventMessage) -> Result<(), TopicError> {
        let EventMessage { id, body, attributes, group } = message;
        let attributes: Result<HashMap<_, _>, TopicError> = attributes
            .into_iter()
            .map(|(name, value)| {
                let value =
                    MessageAttributeValue::builder().data_type(EventMessage::ATTRIBUTE_TYPE).string_value(value);
                Ok((name.to_owned(), value.build().map_err(|error| TopicError::Failed(error.into()))?))
            })
            .collect();
        let mut publish =
            self.client.publish().topic_arn(self.arn.as_str()).message(body).set_message_attributes(Some(attributes?));
        if self.arn.is_fifo() {
            publish = publish.message_group_id(group).message_deduplication_id(id.to_string());
        }
        publish.send().await.map_err(refusal)?;
        Ok(())
    }
}

/// The alerts topic. Its messages have a text for each protocol, which SNS accepts without attributes alone.
impl Topic<AlertMessage> for SnsTopic {
    async fn publish(&self, message: AlertMessage) -> Result<(), TopicError> {
        let AlertMessage { subject, body } = message;
        let publish = self.client.publish().topic_arn(self.arn.as_str()).message_structure("json");
        publish.subject(subject).message(body).send().await.map_err(refusal)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_sns::config::{
        BehaviorVersion, Credentials, Region,
        http::{HttpRequest, HttpResponse},
        retry::RetryConfig,
    };
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_types::body::SdkBody;

    use super::*;

    /// SNS with one answer.
    #[derive(Clone, Debug)]
    struct Answering {
        status: u16,
        code: &'static str,
        message: &'static str,
    }

    impl HttpConnector for Answering {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            let Self { status, code, message } = self;
            let body = format!(
                "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type>\
                 <Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
            );
            let status = (*status).try_into().expect("a status");
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
        }
    }

    async fn refused(answer: Answering) -> TopicError {
        let config = aws_sdk_sns::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("eu-central-1"))
            .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(answer.clone())))
            .build();
        let arn = "arn:aws:sns:eu-central-1:123456789012:alerts".parse().expect("an ARN");
        let alert = AlertMessage { subject: "A subject".to_owned(), body: "{}".to_owned() };
        SnsTopic::new(Client::from_conf(config), arn).publish(alert).await.expect_err("a refusal")
    }

    #[tokio::test]
    async fn a_message_is_refused_for_good_only_for_what_it_is() {
        let invalid = "Invalid parameter: Message Reason: it has a character that is not allowed";
        for (status, code, message, is_for_good) in [
            (400, "InvalidParameter", invalid, true),
            (400, "InvalidParameterValue", invalid, true),
            (400, "ParameterValueInvalid", invalid, true),
            (400, "ValidationException", invalid, true),
            (
                400,
                "InvalidParameter",
                "Invalid parameter: TopicArn Reason: An ARN must have at least 6 elements",
                false,
            ),
            (404, "NotFound", "Topic does not exist", false),
            (403, "AuthorizationError", "not authorized to perform: SNS:Publish", false),
            (403, "InvalidClientTokenId", "The security token included in the request is invalid", false),
            (400, "RequestExpired", "Request has expired", false),
            (400, "Throttling", "Rate exceeded", false),
            (400, "KMSAccessDenied", "The ciphertext refers to a key that does not exist", false),
            (400, "KMSThrottling", "Rate exceeded", false),
            (500, "InternalFailure", "an internal error", false),
            (503, "ServiceUnavailable", "try again", false),
        ] {
            let error = refused(Answering { status, code, message }).await;
            assert_eq!(error.is_for_good(), is_for_good, "{code}: {}", crate::error_chain(&error));
            // Its text has the reason.
            assert!(crate::error_chain(&error).contains(message), "{}", crate::error_chain(&error));
        }
    }

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
