//! The receiver's binary under conditions that a cloud does not produce on demand.

use std::{
    fs, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use axum::{
    Json, Router,
    extract::ConnectInfo,
    http::{HeaderMap, Uri},
    routing::{get, post},
    serve::Listener,
};
use end_to_end::{lambda::Environment, local_stack::test_folder};
use infra::{functions, python::PythonTools, sample, workspace::Workspace};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::registration::keyring::{KEY_BYTES, Keyring};
use tempfile::TempDir;
use tls::Authority;
use tokio::{
    net::TcpListener,
    sync::Barrier,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// The receiver's timeout in the template.
const RECEIVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit until the receiver logs an untrusted certificate. It usually takes one read of the keys, and a minute more if
/// the first two time out.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(150);

/// Time limit for a start to fail, which takes milliseconds.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of starts in one of which the connection is to be in time.
const STARTS: usize = 5;

/// Time between two checks.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The topic of the events.
const TOPIC: &str = "arn:aws:sns:us-east-1:000000000000:events";

/// SNS's answer to a publish that it accepts.
pub(crate) const ACCEPTED: &str = r#"<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult>
    <MessageId>00000000-0000-4000-8000-000000000000</MessageId></PublishResult></PublishResponse>"#;

/// Returns the signed sample event with another body.
pub(crate) fn event(keyring: &Keyring, body: &Value) -> anyhow::Result<Value> {
    let mut event: Value = serde_json::from_str(&sample::signed_event(&Workspace::locate()?, keyring)?)?;
    event["body"] = json!(body.to_string());
    Ok(event)
}

/// The receiver's binary with a double of SSM.
pub(crate) struct Receiver {
    pub(crate) environment: Environment,
    pub(crate) keyring: Keyring,
    ssm: JoinHandle<io::Result<()>>,
    folder: TempDir,
}

impl Receiver {
    /// Builds it, and starts it with SNS at an address and with more variables.
    async fn start(sns: &str, more: &[(&str, &str)]) -> anyhow::Result<Self> {
        functions::build(&Workspace::locate()?).await?;
        Self::start_built(sns, more).await
    }

    /// Starts an earlier build.
    pub(crate) async fn start_built(sns: &str, more: &[(&str, &str)]) -> anyhow::Result<Self> {
        let workspace = Workspace::locate()?;
        let (tools, folder) = (PythonTools::for_local_stack(&workspace)?, test_folder(&workspace)?);
        let keyring = Keyring::of([7; KEY_BYTES]);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let parameter = stored(&keyring);
        let router = Router::new().fallback(async move || Json(parameter.clone()));
        let ssm = tokio::spawn(async { axum::serve(listener, router).await });
        let variables = [
            ("AWS_ENDPOINT_URL_SSM", address.as_str()),
            ("AWS_ENDPOINT_URL_SNS", sns),
            ("EVENTS_TOPIC_ARN", TOPIC),
            ("SIGNING_KEYS_PARAMETER", "/keys"),
        ];
        let binary = workspace.built("debug/tableau-webhook-receiver");
        let (variables, log) = ([&variables, more].concat(), folder.path().join("receiver.log"));
        let environment = Environment::start(&tools, &binary, &variables, &log, RECEIVER_TIMEOUT).await?;
        Ok(Self { environment, keyring, ssm, folder })
    }

    /// Invokes it with the signed sample event and a body.
    pub(crate) async fn invoke(&self, id: &str, body: &Value) -> anyhow::Result<Value> {
        self.environment.invoke(id, event(&self.keyring, body)?).await
    }

    /// Returns its log so far.
    pub(crate) fn log(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("receiver.log"))?)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.ssm.abort();
    }
}

/// Returns SSM's answer with the keys.
pub(crate) fn stored(keyring: &Keyring) -> Value {
    json!({ "Parameter": { "Value": keyring.to_stored().expose_secret() } })
}

#[tokio::test]
async fn one_environment_publishes_concurrent_deliveries_if_lambda_allows_it() -> anyhow::Result<()> {
    const AT_ONCE: usize = 4;
    // SNS accepts no publish before the greatest number is under way.
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
    let receiver = Receiver::start(&sns, &[("AWS_LAMBDA_MAX_CONCURRENCY", &at_once)]).await?;
    let invoke = async |number: usize| {
        let number = number.to_string();
        receiver.invoke(&number, &json!({ "resource_name": number })).await
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
        let receiver = Receiver::start(&sns, &[]).await?;
        let answer = receiver.invoke("first", &json!({})).await?;
        assert_eq!(answer["statusCode"], 200, "{answer}");
        let calls = calls().clone();
        let [(at_start, nothing), (at_first_event, publish)] = &calls[..] else { anyhow::bail!("{calls:?}") };
        assert_eq!((nothing.as_str(), publish.as_str()), ("/ping", "/"));
        if at_start == at_first_event {
            sns_task.abort();
            return Ok(());
        }
    }
    anyhow::bail!("the publish opened a new connection")
}

#[tokio::test]
async fn the_endpoint_of_one_service_overrides_the_common_endpoint() -> anyhow::Result<()> {
    let router = Router::new().fallback(async || ACCEPTED);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let sns = format!("http://{}", listener.local_addr()?);
    let serving = tokio::spawn(async { axum::serve(listener, router).await });
    // SSM's endpoint is set, too.
    let receiver = Receiver::start(&sns, &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]).await?;
    let answer = receiver.invoke("first", &json!({})).await?;
    assert_eq!(answer["statusCode"], 200, "{answer} {}", receiver.log()?);
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn credentials_of_a_container_are_used() -> anyhow::Result<()> {
    let credentials = json!({ "AccessKeyId": "OFTHECONTAINER", "SecretAccessKey": "secret", "Token": "token",
        "Expiration": "2099-01-01T00:00:00Z" });
    let publisher = Arc::new(Mutex::new(String::new()));
    let noted = Arc::clone(&publisher);
    let publish = async move |headers: HeaderMap| {
        if let Some(signed) = headers.get("authorization").and_then(|value| value.to_str().ok()) {
            signed.clone_into(&mut noted.lock().unwrap_or_else(PoisonError::into_inner));
        }
        ACCEPTED
    };
    let router = Router::new().route("/credentials", get(async move || Json(credentials))).fallback(publish);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let serving = tokio::spawn(async { axum::serve(listener, router).await });
    let uri = format!("{address}/credentials");
    // An empty variable counts as not set.
    let variables = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str()),
    ];
    let receiver = Receiver::start(&address, &variables).await?;
    let answer = receiver.invoke("first", &json!({})).await?;
    assert_eq!(answer["statusCode"], 200, "{answer} {}", receiver.log()?);
    let signed = publisher.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(signed.contains("Credential=OFTHECONTAINER/"), "{signed}");
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn an_invalid_setting_ends_the_start_and_is_named() -> anyhow::Result<()> {
    for (variables, expected) in [
        (&[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "")][..], "AWS_REGION is missing: expected a region"),
        (&[("AWS_CA_BUNDLE", "/missing.pem")], "AWS_CA_BUNDLE names /missing.pem, which cannot be read"),
        (&[("EVENTS_TOPIC_ARN", "events")], "EVENTS_TOPIC_ARN is not valid"),
    ] {
        let receiver = Receiver::start("http://127.0.0.1:1", variables).await?;
        let named = async {
            while !receiver.log()?.contains(expected) {
                sleep(POLL_INTERVAL).await;
            }
            anyhow::Ok(())
        };
        timeout(START_TIMEOUT, named).await.with_context(|| receiver.log().unwrap_or_default())??;
    }
    Ok(())
}

/// Serves on a free port with a certificate of an authority. Returns the URL.
async fn serve_tls(authority: &Authority, router: Router) -> anyhow::Result<(String, JoinHandle<io::Result<()>>)> {
    let listener = authority.listen("localhost").await?;
    let url = format!("https://localhost:{}", listener.local_addr()?.port());
    Ok((url, tokio::spawn(async { axum::serve(listener, router).await })))
}

#[tokio::test]
async fn only_the_ca_certificates_of_aws_ca_bundle_are_accepted_for_aws() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let tools = PythonTools::for_local_stack(&workspace)?;
    functions::build(&workspace).await?;
    let folder = test_folder(&workspace)?;
    let keyring = Keyring::of([7; KEY_BYTES]);
    let stored = stored(&keyring);
    let (ours, others) = (Authority::new()?, Authority::new()?);
    // SSM on one port and SNS on another, both with certificates of the same authority.
    let (ssm_address, ssm) = serve_tls(&ours, Router::new().fallback(async move || Json(stored.clone()))).await?;
    let reached = Arc::new(Mutex::new(0));
    let count = Arc::clone(&reached);
    let publish = async move || {
        *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        ACCEPTED
    };
    let (sns_address, sns) = serve_tls(&ours, Router::new().fallback(publish)).await?;

    let bundles = [("ours", Some(ours.pem())), ("others", Some(others.pem())), ("public", None)];
    for (name, pem) in bundles {
        let bundle = folder.path().join(format!("{name}.pem"));
        let bundle_path = bundle.to_string_lossy();
        let mut variables = vec![
            ("AWS_ENDPOINT_URL_SSM", ssm_address.as_str()),
            ("AWS_ENDPOINT_URL_SNS", &sns_address),
            ("EVENTS_TOPIC_ARN", TOPIC),
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
        let log = || fs::read_to_string(&log);
        let status = async || {
            let answer = environment.invoke(name, event(&keyring, &json!({}))?).await?;
            anyhow::Ok(answer["statusCode"].clone())
        };
        if name == "ours" {
            assert_eq!(status().await?, 200, "{}", log()?);
            assert!(reached() > 0);
            continue;
        }
        // The receiver reads no keys from an untrusted server, and sends SNS nothing. On a busy machine a read may time out
        // before it logs the reason.
        let refused = async {
            while !log()?.contains("invalid peer certificate") {
                assert_eq!(status().await?, 503, "{}", log()?);
                sleep(POLL_INTERVAL).await;
            }
            assert_eq!(status().await?, 503, "{}", log()?);
            anyhow::Ok(())
        };
        timeout(REFUSAL_TIMEOUT, refused).await.with_context(|| log().unwrap_or_default())??;
        assert_eq!(reached(), 0, "{}", log()?);
    }
    [ssm, sns].iter().for_each(JoinHandle::abort);
    Ok(())
}
