//! The clients of SQS, SSM and DynamoDB: the calls that AWS receives.

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
    batch::QueueName,
    dead_letters::DeadLetter,
    holds::{HoldError, Holds, StateTable},
    queues::{Queues, SqsQueues},
    targets::{SsmTargets, Targets},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::targets::{hold::Hold, name::TargetName};
use time::macros::datetime;

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

    fn table(&self) -> StateTable {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("eu-central-1"))
            .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .http_client(self.client());
        StateTable::new(aws_sdk_dynamodb::Client::from_conf(config.build()), "tableau-fanout-state".to_owned())
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
    let (queues, queue) = (aws.sqs(), "arn:aws:sqs:eu-central-1:123456789012:queue".parse::<QueueName>()?);
    queues.postpone(&queue, "receipt-1", Duration::from_secs(90)).await?;
    queues.postpone(&queue, "receipt-2", Duration::from_secs(3600)).await?;
    let letter = DeadLetter::new("{}".to_owned(), "the target answered 422", Some(422), 3);
    queues.add_dead_letter(&queue, &letter).await?;
    let text = |value: &str| json!({ "DataType": "String", "StringValue": value });
    let number = |value: &str| json!({ "DataType": "Number", "StringValue": value });
    let url_of = |name: &str| ("AmazonSQS.GetQueueUrl".to_owned(), json!({ "QueueName": name }));
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
    let (queues, queue) =
        (Aws::new(missing).sqs(), "arn:aws:sqs:eu-central-1:123456789012:queue".parse::<QueueName>()?);
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

#[tokio::test]
async fn messages_are_received_with_their_attributes_and_deleted_together() -> anyhow::Result<()> {
    let aws = Aws::new(|operation, _| match operation {
        "AmazonSQS.GetQueueUrl" => (200, json!({ "QueueUrl": "https://sqs.example/queue" })),
        "AmazonSQS.ReceiveMessage" => {
            let attributes = json!({ "ApproximateReceiveCount": "3", "SentTimestamp": "1779350400123" });
            let message = json!({ "MessageId": "m", "ReceiptHandle": "r", "Body": "{}", "Attributes": attributes });
            // SQS adds the attributes that the call asks for.
            (200, json!({ "Messages": [message, { "MessageId": "n", "ReceiptHandle": "s", "Body": "{}" }] }))
        }
        "AmazonSQS.DeleteMessageBatch" => (
            200,
            json!({ "Successful": [{ "Id": "0" }], "Failed": [
            { "Id": "1", "Code": "InternalError", "SenderFault": false },
        ] }),
        ),
        _ => (200, json!({})),
    });
    let (queues, queue) = (aws.sqs(), "arn:aws:sqs:eu-central-1:123456789012:queue".parse::<QueueName>()?);
    let received = queues.receive(&queue).await?;
    assert_eq!(received.len(), 1);
    assert_eq!((received[0].tries(), received[0].sent_at()), (3, datetime!(2026-05-21 08:00:00.123 UTC)));
    let error = queues.delete(&queue, &["r".to_owned(), "s".to_owned()]).await.expect_err("not deleted");
    assert!(error.to_string().contains("InternalError"), "{error}");
    let url = "https://sqs.example/queue";
    let receive = json!({
        "QueueUrl": url,
        "MaxNumberOfMessages": 10,
        "WaitTimeSeconds": 1,
        "MessageSystemAttributeNames": ["ApproximateReceiveCount", "SentTimestamp"],
    });
    let delete = json!({
        "QueueUrl": url,
        "Entries": [{ "Id": "0", "ReceiptHandle": "r" }, { "Id": "1", "ReceiptHandle": "s" }],
    });
    let calls = aws.calls();
    assert_eq!(calls[1], ("AmazonSQS.ReceiveMessage".to_owned(), receive));
    assert_eq!(calls[2], ("AmazonSQS.DeleteMessageBatch".to_owned(), delete));
    Ok(())
}

#[tokio::test]
async fn a_hold_is_stored_unless_there_is_one_that_has_not_ended() -> anyhow::Result<()> {
    let aws = Aws::new(|operation, body| match (operation, body["Key"]["pk"]["S"].as_str()) {
        ("DynamoDB_20120810.UpdateItem", Some("target#free")) => (200, json!({})),
        ("DynamoDB_20120810.UpdateItem", Some("target#ended")) => {
            let times = json!({ "since": { "S": "2026-05-20T07:00:00Z" }, "until": { "S": "2026-05-21T08:05:30Z" } });
            (200, json!({ "Attributes": times }))
        }
        ("DynamoDB_20120810.UpdateItem", Some("target#taken")) => {
            let item = json!({
                "pk": { "S": "target#taken" },
                "since": { "S": "2026-05-21T08:00:00Z" },
                "until": { "S": "2026-05-21T08:05:30Z" },
            });
            (400, json!({ "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException", "Item": item }))
        }
        ("DynamoDB_20120810.DeleteItem", _) if body["Key"]["pk"]["S"] == "target#held" => {
            let times = json!({ "since": { "S": "2026-05-21T08:00:00Z" }, "until": { "S": "2026-05-21T08:05:30Z" } });
            (200, json!({ "Attributes": times }))
        }
        ("DynamoDB_20120810.DeleteItem", _) => (200, json!({})),
        _ => (400, json!({ "__type": "ThrottlingException", "message": "Rate exceeded" })),
    });
    let (table, hold) = (aws.table(), Hold::of_call(datetime!(2026-05-21 08:00:00.7 UTC)));
    assert_eq!(table.take("target#free", hold).await?, hold);
    let update = json!({
        "TableName": "tableau-fanout-state",
        "Key": { "pk": { "S": "target#free" } },
        "UpdateExpression": "SET #since = if_not_exists(#since, :since), #until = :until",
        "ConditionExpression": "attribute_not_exists(#key) OR #until <= :since",
        "ExpressionAttributeNames": { "#key": "pk", "#since": "since", "#until": "until" },
        "ExpressionAttributeValues": {
            ":since": { "S": "2026-05-21T08:00:00Z" },
            ":until": { "S": "2026-05-21T08:05:30Z" },
        },
        "ReturnValues": "ALL_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    });
    assert_eq!(aws.calls(), [("DynamoDB_20120810.UpdateItem".to_owned(), update)]);
    // The time of the first one, which nobody released.
    let stored = table.take("target#ended", hold).await?;
    assert_eq!((stored.since, stored.until), (datetime!(2026-05-20 07:00 UTC), hold.until));
    let taken = table.take("target#taken", hold).await;
    assert!(
        matches!(taken, Err(HoldError::Taken(Some(until))) if until == datetime!(2026-05-21 08:05:30 UTC)),
        "{taken:?}"
    );
    assert!(matches!(table.take("target#busy", hold).await, Err(HoldError::Failed(_))));
    assert_eq!(table.release("target#held").await?, Some(hold));
    assert_eq!(table.release("target#none").await?, None);
    Ok(())
}
