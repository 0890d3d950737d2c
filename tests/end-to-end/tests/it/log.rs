//! The log of all functions: one format for every line, and the bytes of a typical delivery.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use axum::{Router, http::StatusCode, response::IntoResponse};
use end_to_end::stand_ins::{Service, StandIn};
use infra::{functions, queue, workspace::Workspace};
use serde_json::{Value, json};
use shared::registration::{
    claim::Registration,
    keyring::{KEY_BYTES, Keyring},
    signed_url::ReceiverUrl,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::net::TcpListener;

use crate::{
    binaries::World,
    environment::{ACCEPTED, Receiver, event},
};

/// The most bytes of a typical delivery's line: a site of nine letters, an event with an alert, a resource's identifier of
/// 36 characters and a name of 30, and the default name of the stack.
const DELIVERY_BYTES: usize = 600;

/// Message of the only line that belongs to no invocation.
const START: &str = "The environment is ready";

/// Members that any line has or may have.
const COMMON: [&str; 8] = ["timestamp", "level", "requestId", "message", "site", "event", "outcome", "error"];

/// Members that only the line about a start has.
const OF_STARTS: [&str; 2] = ["init_ms", "version"];

/// Members that only lines of the receiver have, besides metrics.
const OF_DELIVERIES: [&str; 9] = [
    "event_id",
    "registered_event",
    "payload_event",
    "resource_id",
    "resource_name",
    "alert",
    "alert_error",
    "signature_sha256",
    "body_base64",
];

/// Members that only lines of the reconciler have, besides metrics.
const OF_RUNS: [&str; 20] = [
    "action",
    "parameter",
    "keys",
    "webhook",
    "change",
    "updated",
    "enabled",
    "created",
    "deleted",
    "unchanged",
    "foreign",
    "tests",
    "errors",
    "not_recovered",
    "event_id",
    "resource_id",
    "resource_name",
    "recovered",
    "job_id",
    "delay_s",
];

/// Members that only lines of the forwarder have, besides metrics.
const OF_MESSAGES: [&str; 8] =
    ["target", "message_id", "event_id", "attempts", "age_s", "status", "wait_s", "queue_error"];

/// Checks a log and returns its lines. Every line is an object with a time, a level, and the request id of an invocation;
/// it has no member that is neither known nor a metric that it defines.
fn checked(log: &str, known: &[&str], invocations: &[&str]) -> anyhow::Result<Vec<Value>> {
    let check = |line: &str| {
        let line: Value = serde_json::from_str(line)?;
        let text = |name: &str| line[name].as_str();
        let time = OffsetDateTime::parse(text("timestamp").context("no time")?, &Rfc3339)?;
        ensure!(time.offset().is_utc(), "another time zone");
        ensure!(["ERROR", "WARN", "INFO"].contains(&text("level").context("no level")?), "an unknown level");
        match text("requestId") {
            Some(id) => ensure!(invocations.contains(&id), "the request id of no invocation"),
            None => {
                ensure!(text("message") == Some(START), "no request id");
                ensure!(line["init_ms"].is_u64() && line["version"] == env!("CARGO_PKG_VERSION"), "another version");
            }
        }
        let directives = || line["_aws"]["CloudWatchMetrics"].as_array().into_iter().flatten();
        let metrics = directives().filter_map(|directive| directive["Metrics"].as_array()).flatten();
        let metrics: BTreeSet<_> = metrics.filter_map(|metric| metric["Name"].as_str()).collect();
        let dimensions = directives().filter_map(|directive| directive["Dimensions"][0][0].as_str());
        let of_metrics: Vec<_> = dimensions.chain(Some("_aws").filter(|_| !metrics.is_empty())).collect();
        for metric in &metrics {
            ensure!(line[metric].is_u64(), "{metric} has no value");
        }
        let is_known =
            |name: &str| [&COMMON, known, &of_metrics, &OF_STARTS].concat().contains(&name) || metrics.contains(name);
        for name in line.as_object().context("no object")?.keys() {
            ensure!(is_known(name), "an unknown member: {name}");
        }
        Ok(line)
    };
    log.lines().map(|line| check(line).with_context(|| format!("{line}\nin\n{log}"))).collect()
}

/// A delivery of a failed refresh, signed.
fn failed_refresh(keyring: &Keyring, name: &str) -> anyhow::Result<Value> {
    let registration = Registration { site: "marketing".parse()?, event: "DatasourceRefreshFailed".parse()? };
    let root = "https://receiver.example";
    let receiver = ReceiverUrl::parse(root).context("an address")?;
    let body = json!({ "event_type": "DatasourceRefreshFailed", "resource": "EXTRACTS", "resource_name": name,
        "resource_luid": "e341c6a8-208f-438e-b0a1-df3ff789ca51", "created_at": "2026-05-21T08:00:00Z" });
    let mut event = event(keyring, &body)?;
    event["rawPath"] = json!(registration.signed_url(&receiver, keyring).expose().replace(root, ""));
    Ok(event)
}

#[tokio::test]
async fn every_line_of_the_receiver_has_one_format_and_a_delivery_at_most_600_bytes() -> anyhow::Result<()> {
    functions::build(&Workspace::locate()?).await?;
    let accepts = Arc::new(AtomicBool::new(true));
    let is_accepted = Arc::clone(&accepts);
    let router = Router::new().fallback(async move || match is_accepted.load(Ordering::Relaxed) {
        true => ACCEPTED.into_response(),
        false => StatusCode::BAD_REQUEST.into_response(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let sns = format!("http://{}", listener.local_addr()?);
    let serving = tokio::spawn(async { axum::serve(listener, router).await });
    let variables = [
        ("AWS_LAMBDA_FUNCTION_NAME", "tableau-fanout-receiver"),
        ("ALERTS_TOPIC_ARN", "arn:aws:sns:us-east-1:000000000000:alerts"),
    ];
    let receiver = Receiver::start_built(&sns, &variables).await?;

    let typical = failed_refresh(&receiver.keyring, "Regional Sales and Margin 2026")?;
    let mut with = typical.clone();
    let mut of_body = |body: &str| {
        with["body"] = json!(body);
        with.clone()
    };
    let too_large = json!({ "padding": "x".repeat(256 * 1024) }).to_string();
    // (event, whether SNS accepts it, status, outcome)
    let cases = [
        (typical.clone(), true, 200, Some("published")),
        (typical, true, 200, Some("duplicate")),
        (of_body(r#"{"event_type":"Test"}"#), true, 200, Some("published")),
        (of_body("text"), true, 200, Some("published")),
        (of_body(r#"{"event_type":"ViewDeleted"}"#), true, 200, Some("published")),
        (of_body(&too_large), true, 413, Some("too-large")),
        (of_body("{}"), false, 503, Some("undelivered")),
        (failed_refresh(&Keyring::of([8; KEY_BYTES]), "stranger")?, true, 404, None),
    ];
    let ids: Vec<_> = (0..cases.len()).map(|number| format!("8f507cfc-xmpl-4697-b07a-{number:012}")).collect();
    let mut expected = Vec::new();
    for (id, (event, is_accepted, status, outcome)) in ids.iter().zip(cases) {
        accepts.store(is_accepted, Ordering::Relaxed);
        let answer = receiver.environment.invoke(id, event).await?;
        ensure!(answer["statusCode"] == status, "{answer} {}", receiver.log()?);
        expected.push((Some(id.as_str()), outcome));
    }
    serving.abort();

    let log = receiver.log()?;
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let lines = checked(&log, &OF_DELIVERIES, &ids)?;
    ensure!(lines[0]["message"] == START, "{log}");
    // One line for each invocation, joined to it by its request id.
    let written: Vec<_> =
        lines[1..].iter().map(|line| (line["requestId"].as_str(), line["outcome"].as_str())).collect();
    assert_eq!(written, expected);
    for name in ["site", "event", "event_id", "resource_id", "resource_name", "outcome", "alert"] {
        ensure!(lines[1][name].is_string(), "{name}: {}", lines[1]);
    }
    ensure!(lines[1]["PublishLatency"].is_u64() && lines[1]["alert"] == "sent", "{}", lines[1]);
    let delivery = log.lines().nth(1).context("no line")?;
    println!("{} bytes: {delivery}", delivery.len());
    ensure!(delivery.len() <= DELIVERY_BYTES, "{} bytes: {delivery}", delivery.len());
    Ok(())
}

#[tokio::test]
async fn every_line_of_the_reconciler_has_the_same_format() -> anyhow::Result<()> {
    let world = World::start().await?;
    let server = format!("http://{}", world.tableau.address);
    for name in ["finance", "marketing"] {
        world.declare(name, &server, &["ViewDeleted"]).await?;
    }
    let reconciler = world.reconciler(&[]).await?;
    reconciler.invoke("good", json!({ "action": "apply" })).await?;
    let entry = json!({ "server": server, "site": "marketing", "token_name": "t", "token_secret": "wrong" });
    world.put("sites/marketing", &entry.to_string()).await?;
    reconciler.invoke("bad", json!({ "action": "apply" })).await?;

    let log = world.log("reconciler")?;
    let lines = checked(&log, &OF_RUNS, &["good", "bad"])?;
    let with = |name: &str, value: &str| lines.iter().filter(|line| line[name] == value).collect::<Vec<_>>();
    for (outcome, id, level) in [("succeeded", "good", "INFO"), ("failed", "bad", "WARN")] {
        let runs = with("outcome", outcome).into_iter().filter(|line| line["action"] == "apply");
        let [run] = runs.collect::<Vec<_>>()[..] else { anyhow::bail!("{outcome}: {log}") };
        ensure!(run["requestId"] == id && run["level"] == level, "{run}");
        ensure!(["SitesFailed", "Duration"].iter().all(|name| run[name].is_u64()), "{run}");
    }
    let changes = with("change", "create");
    let sites: BTreeSet<_> = changes.iter().filter_map(|change| change["site"].as_str()).collect();
    assert_eq!(sites, ["finance", "marketing"].into());
    ensure!(changes.iter().all(|change| change["webhook"] == "tableau-fanout-ViewDeleted"), "{changes:?}");
    // Lambda's runtime logs the report of the run that failed.
    let [error] = with("level", "ERROR")[..] else { anyhow::bail!("{log}") };
    ensure!(error["message"].as_str().is_some_and(|text| text.contains("marketing")), "{error}");
    Ok(())
}

#[tokio::test]
async fn every_line_of_the_forwarder_has_the_same_format() -> anyhow::Result<()> {
    let world = World::start().await?;
    let working = StandIn::start(Service::Slow(Duration::ZERO)).await?;
    let down = StandIn::start(Service::Down).await?;
    let mut queues = Vec::new();
    for (name, stand_in) in [("working", &working), ("down", &down)] {
        let entry = json!({ "preset": "plain", "address": stand_in.address });
        world.put(&format!("targets/{name}"), &entry.to_string()).await?;
        let queue = format!("tableau-fanout-target-{name}");
        queue::create(&world.cloud.aws, &queue).await?;
        queue::create(&world.cloud.aws, &format!("{queue}-dead")).await?;
        queues.push(format!("arn:aws:sqs:us-east-1:{}:{queue}", world.cloud.account));
    }
    let event =
        r#"{"specversion":"1.0","id":"an-event","source":"/tableau/marketing","type":"com.tableau.ViewDeleted"}"#;
    let batch = |queue: &str, bodies: &[&str]| {
        let records = bodies.iter().map(|body| {
            let sent = (OffsetDateTime::now_utc().unix_timestamp() * 1000).to_string();
            let attributes = json!({ "ApproximateReceiveCount": "1", "SentTimestamp": sent });
            json!({ "messageId": "a-message", "receiptHandle": "a-receipt", "body": body, "attributes": attributes,
                "eventSourceARN": queue })
        });
        json!({ "Records": records.collect::<Vec<_>>() })
    };
    let forwarder = world.forwarder().await?;
    forwarder.invoke("good", batch(&queues[0], &[event, "text"])).await?;
    forwarder.invoke("bad", batch(&queues[1], &[event])).await?;

    let log = world.log("forwarder")?;
    let lines = checked(&log, &OF_MESSAGES, &["good", "bad"])?;
    let written: Vec<_> = lines[1..]
        .iter()
        .map(|line| ["requestId", "target", "outcome", "level"].map(|name| line[name].as_str().unwrap_or_default()))
        .collect();
    let expected = [
        ["good", "working", "forwarded", "INFO"],
        ["good", "working", "dead letter", "ERROR"],
        ["bad", "down", "again", "WARN"],
    ];
    assert_eq!(written, expected, "{log}");
    ensure!((&lines[1]["status"], &lines[1]["Forwarded"]) == (&json!(200), &json!(1)), "{}", lines[1]);
    ensure!(lines[2]["error"].is_string() && lines[2]["DeadLetters"] == 1, "{}", lines[2]);
    // No queue gave out that receipt.
    ensure!(lines[3]["wait_s"].is_u64() && lines[3]["queue_error"].is_string(), "{}", lines[3]);
    ensure!(!log.contains("stand-in"), "an address is in the log: {log}");
    Ok(())
}
