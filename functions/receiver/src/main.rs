//! The receiver's executable: configuration, clients, run.

use std::{convert::Infallible, env, sync::Arc};

use aws_smithy_types::{retry::RetryConfig, timeout::TimeoutConfig};
use lambda_http::{LambdaEvent, lambda_runtime::run_concurrent, service_fn};
use lambda_support::{aws::Aws, keyring::KeyringParameter, logging, metrics::MetricLog, topic::SnsTopic};
use receiver::{
    config::{ATTEMPT_TIMEOUT, CONNECT_TIMEOUT, Config, RETRY_PAUSE},
    delivery_log::DeliveryLog,
    function_url::{FunctionUrlRequest, into_answer},
    keyring_cache::KeyringCache,
    receiver::Receiver,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let lookup = |name: &str| env::var(name).ok();
    logging::init(lookup);
    let Config { events_topic, alerts_topic, alert_events, signing_keys_parameter } = Config::from_lookup(lookup)?;
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(ATTEMPT_TIMEOUT).build();
    let aws = Aws::load(timeouts).await?;

    let retries = RetryConfig::standard().with_initial_backoff(RETRY_PAUSE);
    let ssm = aws_sdk_ssm::config::Builder::from(&aws.config).retry_config(retries.clone()).build();
    let parameter = KeyringParameter::new(aws_sdk_ssm::Client::from_conf(ssm), signing_keys_parameter);
    let sns = aws_sdk_sns::config::Builder::from(&aws.config).retry_config(retries).build();
    let sns = aws_sdk_sns::Client::from_conf(sns);
    let events = SnsTopic::new(sns.clone(), events_topic);
    let alerts = alerts_topic.map(|arn| SnsTopic::new(sns, arn));
    // Lambda gives a start a whole processor, and an event just its share.
    let (keyring, ()) = tokio::join!(KeyringCache::load(parameter), aws.connect_to_sns());
    let delivery_log = DeliveryLog::new(MetricLog::stdout(env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default()));
    let receiver = Arc::new(Receiver::new(keyring, events, alerts, alert_events, delivery_log));
    let handler = service_fn(move |LambdaEvent { payload, context }: LambdaEvent<FunctionUrlRequest>| {
        let receiver = receiver.clone();
        async move { Ok::<_, Infallible>(into_answer(receiver.handle(payload.into_request(context)).await)) }
    });
    // One request at a time on classic Lambda; several where Lambda says so (`AWS_LAMBDA_MAX_CONCURRENCY`).
    run_concurrent(handler).await.map_err(anyhow::Error::from_boxed)
}
