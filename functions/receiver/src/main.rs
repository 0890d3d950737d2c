//! The receiver's executable: configuration, clients, run.

use std::{convert::Infallible, env, process::ExitCode, sync::Arc};

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
use tokio::time::Instant;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let started_at = Instant::now();
    logging::init(variable);
    logging::exit_code(serve(started_at).await)
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// Sets the function up, and handles invocations until Lambda ends the environment.
async fn serve(started_at: Instant) -> anyhow::Result<()> {
    let Config { events_topic, alerts_topic, alerts: about_deliveries, signing_keys_parameter } =
        Config::from_lookup(variable)?;
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
    // A start has a whole processor, an invocation a share of it.
    let (keyring, ()) = tokio::join!(KeyringCache::load(parameter), aws.connect_to_sns());
    let delivery_log = DeliveryLog::new(MetricLog::stdout(variable("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default()));
    let receiver = Arc::new(Receiver::new(keyring, events, alerts, about_deliveries, delivery_log));
    let handler = service_fn(move |LambdaEvent { payload, context }: LambdaEvent<FunctionUrlRequest>| {
        let receiver = receiver.clone();
        async move { Ok::<_, Infallible>(into_answer(receiver.handle(payload.into_request(context)).await)) }
    });
    logging::log_start(started_at.elapsed());
    // One request at a time on classic Lambda; several where Lambda says so (`AWS_LAMBDA_MAX_CONCURRENCY`).
    run_concurrent(handler).await.map_err(anyhow::Error::from_boxed)
}
