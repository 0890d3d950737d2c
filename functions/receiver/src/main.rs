//! The receiver's executable: configuration, clients, run.

use std::{convert::Infallible, env};

use aws_smithy_types::timeout::TimeoutConfig;
use common::{
    aws::{CA_BUNDLE, sdk_config},
    keyring::KeyringParameter,
};
use lambda_http::{LambdaEvent, lambda_runtime::run, service_fn, tracing};
use receiver::{
    config::{ATTEMPT_TIMEOUT, CONNECT_TIMEOUT, Config, OPERATION_TIMEOUT},
    function_url::{FunctionUrlRequest, into_answer},
    keyring_cache::KeyringCache,
    receiver::Receiver,
    topic::SnsTopic,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing::init_default_subscriber();
    let Config { events_topic, alerts_topic, alert_events, signing_keys_parameter } =
        Config::from_lookup(|name| env::var(name).ok())?;
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build();
    let aws = sdk_config(env::var_os(CA_BUNDLE).map(Into::into), timeouts).await?;

    let parameter = KeyringParameter::new(aws_sdk_ssm::Client::new(&aws), signing_keys_parameter);
    let sns = aws_sdk_sns::Client::new(&aws);
    let events = SnsTopic::new(sns.clone(), events_topic);
    let alerts = alerts_topic.map(|arn| SnsTopic::new(sns, arn));
    let receiver = Receiver::new(KeyringCache::load(parameter).await, events, alerts, alert_events);
    let handler = service_fn(async |event: LambdaEvent<FunctionUrlRequest>| {
        let request = event.payload.into_request(event.context);
        Ok::<_, Infallible>(into_answer(receiver.handle(request).await))
    });
    run(handler).await.map_err(anyhow::Error::from_boxed)
}
