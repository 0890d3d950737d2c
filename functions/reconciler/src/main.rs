//! The reconciler's executable: configuration, clients, run.

use std::{env, process::ExitCode, time::SystemTime};

use aws_smithy_types::timeout::TimeoutConfig;
use lambda_runtime::{LambdaEvent, run, service_fn};
use lambda_support::{aws::Aws, keyring::KeyringParameter, logging, metrics::MetricLog, topic::SnsTopic};
use reconciler::{
    config::{CONNECT_TIMEOUT, Config, DEFAULT_TIMEOUT, OPERATION_TIMEOUT},
    failure_queue::SqsFailureQueue,
    parameters::SsmParameters,
    reconciler::Reconciler,
    state_table::DynamoTable,
};
use tableau::Tableau;
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
    let config = Config::from_lookup(variable)?;
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(OPERATION_TIMEOUT).build();
    let aws = Aws::load(timeouts).await?;

    let ssm = aws_sdk_ssm::Client::new(&aws.config);
    let keyring = KeyringParameter::new(ssm.clone(), config.signing_keys_parameter.clone());
    let parameters = SsmParameters::new(ssm, &config, keyring);
    let sns = aws_sdk_sns::Client::new(&aws.config);
    let alerts = config.alerts_topic.clone().map(|arn| SnsTopic::new(sns.clone(), arn));
    let events = SnsTopic::new(sns, config.events_topic.clone());
    let dynamodb = aws_sdk_dynamodb::Client::new(&aws.config);
    let table = DynamoTable::new(dynamodb, config.state_table.clone());
    let sqs = config.failures_queue.clone().map(|url| SqsFailureQueue::new(aws_sdk_sqs::Client::new(&aws.config), url));
    let log = MetricLog::stdout(variable("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default());
    let reconciler =
        Reconciler { config, parameters, table, alerts, events, failures: sqs, tableau: Tableau::new()?, log };
    let handler = service_fn(async |LambdaEvent { payload, context }: LambdaEvent<_>| {
        // `cargo lambda watch` sets a deadline in the past: then there is none.
        let left = context.deadline().duration_since(SystemTime::now()).unwrap_or(DEFAULT_TIMEOUT);
        reconciler.run(payload, Instant::now() + left).await
    });
    logging::log_start(started_at.elapsed());
    run(handler).await.map_err(anyhow::Error::from_boxed)
}
