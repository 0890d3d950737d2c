//! The forwarder's executable: configuration, clients, run.

use std::{convert::Infallible, env, process::ExitCode, time::SystemTime};

use aws_smithy_types::timeout::TimeoutConfig;
use delivery::sender::HttpSender;
use forwarder::{
    batch::Invocation,
    config::{CONNECT_TIMEOUT, Config, DEFAULT_TIMEOUT, OPERATION_TIMEOUT, SEND_TIMEOUT},
    forwarder::Forwarder,
    holds::StateTable,
    queues::SqsQueues,
    targets::{Entries, SsmTargets},
    working::Working,
};
use lambda_runtime::{LambdaEvent, run, service_fn};
use lambda_support::{aws::Aws, logging, metrics::MetricLog, topic::SnsTopic};
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
    let Config { stack, targets_path, state_table, alerts_topic, addresses } = Config::from_lookup(variable)?;
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(OPERATION_TIMEOUT).build();
    let aws = Aws::load(timeouts).await?;

    let targets = SsmTargets::new(aws_sdk_ssm::Client::new(&aws.config), targets_path);
    let forwarder = Forwarder {
        stack,
        entries: Entries::new(targets),
        sender: HttpSender::new(addresses, SEND_TIMEOUT)?,
        queues: SqsQueues::new(aws_sdk_sqs::Client::new(&aws.config)),
        holds: StateTable::new(aws_sdk_dynamodb::Client::new(&aws.config), state_table),
        alerts: SnsTopic::new(aws_sdk_sns::Client::new(&aws.config), alerts_topic),
        working: Working::default(),
        log: MetricLog::stdout(variable("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default()),
    };
    let handler = service_fn(async |LambdaEvent { payload, context }: LambdaEvent<Invocation>| {
        // `cargo lambda watch` sets a deadline in the past: then there is none.
        let left = context.deadline().duration_since(SystemTime::now()).unwrap_or(DEFAULT_TIMEOUT);
        Ok::<_, Infallible>(forwarder.run(payload, Instant::now() + left).await)
    });
    logging::log_start(started_at.elapsed());
    run(handler).await.map_err(anyhow::Error::from_boxed)
}
