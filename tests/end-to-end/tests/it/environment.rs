//! The receiver's own binary under conditions that a cloud does not make on demand.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::Router;
use end_to_end::{lambda::Environment, local_stack::LocalStack};
use infra::{sample, workspace::Workspace};
use serde_json::{Value, json};
use shared::{keyring::Keyring, record::DeliveryRecord};
use tokio::{net::TcpListener, sync::Barrier};

/// How long the receiver may take, as the template has it.
const RECEIVER_TIMEOUT: Duration = Duration::from_secs(10);

/// What SNS answers to a publish that it accepts.
const ACCEPTED: &str = r#"<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult>
    <MessageId>00000000-0000-4000-8000-000000000000</MessageId></PublishResult></PublishResponse>"#;

/// The sample event, signed, with a body of its own.
fn event(keyring: &Keyring, body: &Value) -> anyhow::Result<Value> {
    let mut event: Value = serde_json::from_str(&sample::signed_event(&Workspace::locate()?, keyring)?)?;
    event["body"] = json!(body.to_string());
    Ok(event)
}

/// Starts the receiver in a stack's environment, but with another SNS.
async fn receiver(stack: &LocalStack, sns: &str, more: &[(&str, &str)]) -> anyhow::Result<Environment> {
    stack.declare("local", &["WorkbookCreated"]).await?;
    stack.cloud.apply(&stack.stack).await?;
    let variables = stack.cloud.lambda_environment(&stack.stack)?;
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let variables: Vec<_> = variables.chain([("AWS_ENDPOINT_URL_SNS", sns)]).chain(more.iter().copied()).collect();
    let binary = Workspace::locate()?.built("debug/tableau-webhook-receiver");
    Environment::start(&stack.tools, &binary, &variables, &stack.folder().join("receiver.log"), RECEIVER_TIMEOUT).await
}

#[tokio::test]
async fn while_sns_hangs_the_answer_comes_before_lambda_gives_up() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    // Connections are taken by the kernel and never looked at.
    let hanging = TcpListener::bind("127.0.0.1:0").await?;
    let environment = receiver(&stack, &format!("http://{}", hanging.local_addr()?), &[]).await?;
    let body = json!({ "resource_name": "hanging" });
    let event = event(&stack.keyring().await?, &body)?;
    let start = Instant::now();
    let answer = environment.invoke("hanging", event.clone()).await?;
    println!("answered after {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(answer["statusCode"], 503, "{answer}");

    let log = fs::read_to_string(stack.folder().join("receiver.log"))?;
    let record = log.lines().find_map(|line| serde_json::from_str::<DeliveryRecord>(line).ok()).context(log.clone())?;
    assert_eq!(record.body(), Some(body.to_string().into_bytes()));
    assert!(record.errors["events"].contains("timed out"), "{log}");
    let signature = event["rawPath"].as_str().and_then(|path| path.rsplit('/').next()).context("a signature")?;
    assert!(!log.contains(signature), "{log}");
    Ok(())
}

#[tokio::test]
async fn one_environment_publishes_several_deliveries_at_once_where_lambda_lets_it() -> anyhow::Result<()> {
    const AT_ONCE: usize = 4;
    let stack = LocalStack::start().await?;
    // Nothing is accepted until as many publishes are under way as there may be.
    let barrier = Arc::new(Barrier::new(AT_ONCE));
    let router = Router::new().fallback(async move || {
        barrier.wait().await;
        ACCEPTED
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let sns = format!("http://{}", listener.local_addr()?);
    let sns_task = tokio::spawn(async { axum::serve(listener, router).await });
    let at_once = AT_ONCE.to_string();
    let environment = receiver(&stack, &sns, &[("AWS_LAMBDA_MAX_CONCURRENCY", &at_once)]).await?;
    let keyring = stack.keyring().await?;
    let invoke = async |number: usize| {
        let event = event(&keyring, &json!({ "resource_name": number.to_string() }))?;
        environment.invoke(&number.to_string(), event).await
    };
    let (first, second, third, fourth) = tokio::try_join!(invoke(1), invoke(2), invoke(3), invoke(4))?;
    for answer in [first, second, third, fourth] {
        assert!(answer["body"].as_str().is_some_and(|body| body.contains("published")), "{answer}");
    }
    sns_task.abort();
    Ok(())
}
