//! The receiver's own binary under conditions that a cloud does not make on demand.

use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::{Json, Router, extract::ConnectInfo, http::Uri, routing::post};
use end_to_end::{lambda::Environment, local_stack::LocalStack};
use infra::{functions, python::PythonTools, sample, workspace::Workspace};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::{
    keyring::{KEY_BYTES, Keyring},
    record::DeliveryRecord,
};
use tls::Authority;
use tokio::{
    net::TcpListener,
    sync::Barrier,
    time::{sleep, timeout},
};

/// How long the receiver may take, as the template has it.
const RECEIVER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the receiver may take until it says why it does not believe AWS: one read of the keys, mostly.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the receiver is started to see what it does in time.
const STARTS: usize = 5;

/// How often it is asked.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

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
    let publish = post(async move || {
        barrier.wait().await;
        ACCEPTED
    });
    let router = Router::new().route("/", publish);
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

#[tokio::test]
async fn the_first_publish_finds_a_connection_to_sns() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&calls);
    let router = Router::new().fallback(async move |ConnectInfo(caller): ConnectInfo<SocketAddr>, path: Uri| {
        noted.lock().unwrap_or_else(PoisonError::into_inner).push((caller, path.to_string()));
        ACCEPTED
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let sns = format!("http://{}", listener.local_addr()?);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let sns_task = tokio::spawn(async { axum::serve(listener, service).await });
    let calls = || calls.lock().unwrap_or_else(PoisonError::into_inner);
    // On a busy machine the connection may take longer than a start waits for it.
    for _ in 0..STARTS {
        calls().clear();
        let environment = receiver(&stack, &sns, &[]).await?;
        let answer = environment.invoke("first", event(&stack.keyring().await?, &json!({}))?).await?;
        assert_eq!(answer["statusCode"], 200, "{answer}");
        let calls = calls().clone();
        let [(at_start, nothing), (at_first_event, publish)] = &calls[..] else { anyhow::bail!("{calls:?}") };
        assert_eq!((nothing.as_str(), publish.as_str()), ("/ping", "/"));
        if at_start == at_first_event {
            sns_task.abort();
            return Ok(());
        }
    }
    anyhow::bail!("the publish has a connection of its own")
}

#[tokio::test]
async fn aws_is_believed_by_the_authority_that_aws_ca_bundle_names_and_by_no_other() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let tools = PythonTools::for_local_stack(&workspace)?;
    // Builds the receiver.
    functions::package(&workspace).await?;
    let folder = tempfile::Builder::new().prefix("test.").tempdir_in(workspace.local("")?)?;
    let keyring = Keyring::of([7; KEY_BYTES]);
    let stored = json!({ "Parameter": { "Value": keyring.to_stored().expose_secret() } });
    let (ours, strangers) = (Authority::new()?, Authority::new()?);
    // SSM at one address and SNS at another, both vouched for by the same authority.
    let (ssm, sns) = (ours.listen("localhost").await?, ours.listen("localhost").await?);
    let address = |listener: &tls::TlsListener| {
        anyhow::Ok(format!("https://localhost:{}", axum::serve::Listener::local_addr(listener)?.port()))
    };
    let (ssm_address, sns_address) = (address(&ssm)?, address(&sns)?);
    let reached = Arc::new(Mutex::new(0));
    let count = Arc::clone(&reached);
    let ssm = axum::serve(ssm, Router::new().fallback(async move || Json(stored.clone())));
    let sns = axum::serve(
        sns,
        Router::new().fallback(async move || {
            *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            ACCEPTED
        }),
    );
    let servers = [tokio::spawn(async { ssm.await }), tokio::spawn(async { sns.await })];

    let bundles = [("ours", Some(ours.pem())), ("strangers", Some(strangers.pem())), ("public", None)];
    for (name, pem) in bundles {
        let bundle = folder.path().join(format!("{name}.pem"));
        let bundle_path = bundle.to_string_lossy();
        let mut variables = vec![
            ("AWS_ENDPOINT_URL_SSM", ssm_address.as_str()),
            ("AWS_ENDPOINT_URL_SNS", &sns_address),
            ("EVENTS_TOPIC_ARN", "arn:aws:sns:us-east-1:000000000000:events"),
            ("SIGNING_KEYS_PARAMETER", "/keys"),
        ];
        if let Some(pem) = &pem {
            fs::write(&bundle, pem)?;
            variables.push(("AWS_CA_BUNDLE", &bundle_path));
        }
        let binary = workspace.built("debug/tableau-webhook-receiver");
        let log = folder.path().join(format!("{name}.log"));
        let environment = Environment::start(&tools, &binary, &variables, &log, RECEIVER_TIMEOUT).await?;
        *reached.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        let reached = || *reached.lock().unwrap_or_else(PoisonError::into_inner);
        let said = || fs::read_to_string(&log);
        let status = async || {
            let answer = environment.invoke(name, event(&keyring, &json!({}))?).await?;
            anyhow::Ok(answer["statusCode"].clone())
        };
        if name == "ours" {
            assert_eq!(status().await?, 200, "{}", said()?);
            assert!(reached() > 0);
            continue;
        }
        // The keys cannot be had from who is not believed, and nothing is sent to SNS. On a busy machine a read of the
        // keys may be out of time before it can say why.
        let refused = async {
            while !said()?.contains("invalid peer certificate") {
                assert_eq!(status().await?, 503, "{}", said()?);
                sleep(POLL_INTERVAL).await;
            }
            assert_eq!(status().await?, 503, "{}", said()?);
            anyhow::Ok(())
        };
        timeout(REFUSAL_TIMEOUT, refused).await.with_context(|| said().unwrap_or_default())??;
        assert_eq!(reached(), 0, "{}", said()?);
    }
    servers.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}
