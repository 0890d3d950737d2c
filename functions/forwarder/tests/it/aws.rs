//! The clients of SQS and SSM: the calls that AWS receives.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_sdk_sqs::config::{
    BehaviorVersion, Credentials, Region,
    http::{HttpRequest, HttpResponse},
    retry::RetryConfig,
};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_types::body::SdkBody;
use forwarder::{
    batch::QueueArn,
    dead_letters::DeadLetter,
    queues::{Queues, SqsQueues},
    targets::{SsmTargets, Targets},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::targets::name::TargetName;

/// AWS, with the answer to each operation.
#[derive(Clone, Debug)]
struct Aws {
    answer: fn(&str, &Value) -> (u16, Value),
    calls: Arc<Mutex<Vec<(String, Value)>>>,
}

impl HttpConnector for Aws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let operation = request.headers().get("x-amz-target").expect("an operation").to_owned();
        let body = serde_json::from_slice(request.body().bytes().expect("a body")).expect("JSON");
        let (status, answer) = (self.answer)(&operation, &body);
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push((operation, body));
        let status = status.try_into().expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(answer.to_string()))))
    }
}

impl Aws {
    fn new(answer: fn(&str, &Value) -> (u16, Value)) -> Self {
        Self { answer, calls: Arc::default() }
    }

    fn client(&self) -> SharedHttpClient {
        let aws = self.clone();
        http_client_fn(move |_, _| SharedHttpConnector::new(aws.clone()))
    }

    fn sqs(&self) -> SqsQueues {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("eu-central-1"))
            .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .http_client(self.client());
        SqsQueues::new(aws_sdk_sqs::Client::from_conf(config.build()))
    }

    fn ssm(&self) -> SsmTargets {
        let config = aws_sdk_ssm::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("eu-central-1"))
            .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .http_client(self.client());
        SsmTargets::new(aws_sdk_ssm::Client::from_conf(config.build()), "/tableau-fanout/targets".to_owned())
    }

    fn calls(&self) -> Vec<(String, Value)> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn of_sqs(operation: &str, body: &Value) -> (u16, Value) {
    let url = format!("https://sqs.example/{}", body["QueueName"].as_str().unwrap_or_default());
    match operation {
        "AmazonSQS.GetQueueUrl" => (200, json!({ "QueueUrl": url })),
        "AmazonSQS.SendMessage" => (200, json!({ "MessageId": "1" })),
        _ => (200, json!({})),
    }
}

#[tokio::test]
async fn a_message_is_hidden_and_a_dead_letter_goes_to_the_queue_beside() -> anyhow::Result<()> {
    let aws = Aws::new(of_sqs);
    let (queues, queue) = (aws.sqs(), "arn:aws:sqs:eu-central-1:123456789012:queue".parse::<QueueArn>()?);
    queues.postpone(&queue, "receipt-1", Duration::from_secs(90)).await?;
    queues.postpone(&queue, "receipt-2", Duration::from_secs(3600)).await?;
    let letter = DeadLetter::new("{}".to_owned(), "the target answered 422", Some(422), 3);
    queues.add_dead_letter(&queue, &letter).await?;
    let text = |value: &str| json!({ "DataType": "String", "StringValue": value });
    let number = |value: &str| json!({ "DataType": "Number", "StringValue": value });
    let url_of = |name: &str| {
        ("AmazonSQS.GetQueueUrl".to_owned(), json!({ "QueueName": name, "QueueOwnerAWSAccountId": "123456789012" }))
    };
    let hide = |receipt: &str, seconds: u32| {
        let body =
            json!({ "QueueUrl": "https://sqs.example/queue", "ReceiptHandle": receipt, "VisibilityTimeout": seconds });
        ("AmazonSQS.ChangeMessageVisibility".to_owned(), body)
    };
    let send = json!({
        "QueueUrl": "https://sqs.example/queue-dead",
        "MessageBody": "{}",
        "MessageAttributes": {
            "error": text("the target answered 422"),
            "status": number("422"),
            "attempts": number("3"),
        },
    });
    assert_eq!(
        aws.calls(),
        [
            url_of("queue"),
            hide("receipt-1", 90),
            hide("receipt-2", 3600),
            url_of("queue-dead"),
            ("AmazonSQS.SendMessage".to_owned(), send),
        ]
    );
    Ok(())
}

#[tokio::test]
async fn an_error_of_sqs_is_passed_on() -> anyhow::Result<()> {
    let missing = |_: &str, _: &Value| {
        (400, json!({ "__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "There is no such queue." }))
    };
    let (queues, queue) = (Aws::new(missing).sqs(), "arn:aws:sqs:eu-central-1:123456789012:queue".parse::<QueueArn>()?);
    let error = queues.postpone(&queue, "receipt", Duration::from_secs(1)).await.expect_err("no queue");
    assert!(lambda_support::error_chain(&error).contains("There is no such queue."), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn an_entry_is_decrypted_and_a_missing_one_is_no_error() -> anyhow::Result<()> {
    let aws = Aws::new(|_, body| match body["Name"].as_str() {
        Some("/tableau-fanout/targets/chat") => (200, json!({ "Parameter": { "Value": "the entry" } })),
        Some("/tableau-fanout/targets/none") => (400, json!({ "__type": "ParameterNotFound" })),
        _ => (400, json!({ "__type": "ThrottlingException", "message": "Rate exceeded" })),
    });
    let ssm = aws.ssm();
    let read = async |name: &str| {
        let text = ssm.read(&name.parse::<TargetName>().expect("a name")).await;
        text.map(|text| text.map(|text| text.expose_secret().to_owned()))
            .map_err(|error| lambda_support::error_chain(&error))
    };
    assert_eq!(read("chat").await, Ok(Some("the entry".to_owned())));
    assert_eq!(aws.calls()[0].1, json!({ "Name": "/tableau-fanout/targets/chat", "WithDecryption": true }));
    assert_eq!(read("none").await, Ok(None));
    assert!(read("busy").await.is_err_and(|error| error.contains("ThrottlingException")));
    Ok(())
}
