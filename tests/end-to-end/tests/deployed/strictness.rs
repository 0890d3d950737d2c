//! The gateway in front of ministack, which applies the rules of the real SNS.

use anyhow::Context;
use end_to_end::local_stack::LocalStack;
use serde_json::{Map, Value, json};

/// Writes attributes of type String for the AWS CLI.
fn attributes<'a>(attributes: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let attributes = attributes.into_iter().map(|(name, value)| {
        let attribute = json!({ "DataType": "String", "StringValue": value });
        (name.to_owned(), attribute)
    });
    Value::Object(Map::from_iter(attributes)).to_string()
}

/// Empties a queue. Returns its messages' bodies, sorted.
async fn arrived(stack: &LocalStack, queue: &str) -> anyhow::Result<Vec<String>> {
    let mut bodies = Vec::new();
    loop {
        let messages = stack.cloud.receive(queue).await?;
        if messages.is_empty() {
            bodies.sort();
            return Ok(bodies);
        }
        bodies.extend(messages.iter().filter_map(|message| message["Body"].as_str().map(str::to_owned)));
    }
}

#[tokio::test]
async fn no_subscriber_gets_a_message_that_sns_would_refuse_or_withhold() -> anyhow::Result<()> {
    let stack = LocalStack::with_default_name().await?;
    let topic = stack.cloud.aws.json(&["sns", "create-topic", "--name", "topic", "--query", "TopicArn"]).await?;
    let topic = topic.as_str().context("a topic without an ARN")?;
    let subscribe = async |name: &str, policy: Value, scope: &str| {
        let options =
            json!({ "RawMessageDelivery": "true", "FilterPolicy": policy.to_string(), "FilterPolicyScope": scope });
        stack.cloud.subscribe_queue_to(topic, name, &options).await
    };
    let by_attributes = subscribe("by-attributes", json!({ "site": ["finance"] }), "MessageAttributes").await?;
    let by_absence =
        subscribe("by-absence", json!({ "recovered": [{ "exists": false }] }), "MessageAttributes").await?;
    let by_body = subscribe("by-body", json!({ "n": [{ "exists": true }] }), "MessageBody").await?;
    let all = stack.cloud.subscribe_queue_to(topic, "all", &json!({ "RawMessageDelivery": "true" })).await?;

    let publish = async |message: &str, more: &[&str]| {
        let publish = ["sns", "publish", "--topic-arn", topic, "--message", message];
        stack.cloud.aws.run(&[&publish[..], more].concat()).await
    };
    let emoji = publish(r#"{"n":0}"#, &["--message-attributes", &attributes([("name", "Sales 📈")])]).await;
    let error = format!("{:#}", emoji.err().context("SNS took an emoji")?);
    assert!(error.contains("InvalidParameterValue"), "{error}");
    let subject = publish(r#"{"n":0}"#, &["--subject", "Umsätze"]).await;
    assert!(subject.is_err_and(|error| format!("{error:#}").contains("(InvalidParameter)")));

    let names: Vec<_> = (0..10).map(|number| format!("name-{number}")).collect();
    let many = names.iter().map(|name| (&**name, "value")).chain([("site", "finance")]);
    for (message, attributes) in [
        (r#"{"n":1}"#, attributes([("site", "finance"), ("name", "Sales \"North\"")])),
        (r#"{"n":2}"#, attributes([("site", "finance"), ("name", "Sales")])),
        (r#"{"n":3}"#, attributes(many)),
    ] {
        publish(message, &["--message-attributes", &attributes]).await?;
    }
    let structured = json!({ "default": r#"{"n":4}"# }).to_string();
    let attributes = attributes([("site", "finance")]);
    publish(&structured, &["--message-structure", "json", "--message-attributes", &attributes]).await?;

    assert_eq!(arrived(&stack, &by_attributes).await?, [r#"{"n":2}"#]);
    assert_eq!(arrived(&stack, &by_absence).await?, [r#"{"n":2}"#]);
    for queue in [by_body, all] {
        assert_eq!(arrived(&stack, &queue).await?, [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":4}"#], "{queue}");
    }
    Ok(())
}
