//! Lower bound of a publish: clients made and connected as the receiver's, and each event published with fixed attributes.

use std::env;

use aws_sdk_sns::types::MessageAttributeValue;
use aws_smithy_types::timeout::TimeoutConfig;
use lambda_support::aws::Aws;
use lambda_http::{Body, Error, Request, Response, run, service_fn, tracing};

const ATTRIBUTES: [(&str, &str); 8] = [
    ("event_type", "WorkbookCreated"),
    ("resource_type", "workbook"),
    ("action", "created"),
    ("site", "local"),
    ("site_luid", "11ff7a7e-4ac9-4d99-84df-73a4138ab502"),
    ("resource_luid", "e341c6a8-208f-438e-b0a1-df3ff789ca51"),
    ("resource_name", "New Workbook!"),
    ("event_id", "9c63a4d1032bb0ef67f67e5c34b46f43"),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();
    let topic = env::var("EVENTS_TOPIC_ARN")?;
    let aws = Aws::load(TimeoutConfig::disabled()).await?;
    let sns = aws_sdk_sns::Client::new(&aws.config);
    aws.connect_to_sns().await;
    let handler = async |request: Request| {
        let Body::Text(body) = request.into_body() else { return Err("an event without a text".into()) };
        let mut publish = sns.publish().topic_arn(&topic).message(body);
        for (name, value) in ATTRIBUTES {
            let value = MessageAttributeValue::builder().data_type("String").string_value(value).build()?;
            publish = publish.message_attributes(name, value);
        }
        publish.send().await?;
        Ok::<_, Error>(Response::new(Body::Empty))
    };
    run(service_fn(handler)).await
}
