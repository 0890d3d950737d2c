//! The deployed template on ministack, from Tableau to the queues.

use std::time::Duration as StdDuration;

use anyhow::Context;
use end_to_end::{declared::site, local_stack::LocalStack};
use infra::{aws::has_code, stack::Stack, workspace::Workspace};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::{
    alerts::data::AlertData,
    refreshes::window::SETTLED,
    registration::keyring::{KEY_BYTES, Keyring},
};
use tableau_simulator::model::{Job, RefreshKind, RefreshOutcome};
use time::{Duration, OffsetDateTime};
use tokio::time::{sleep, timeout};

/// Returns a name with characters that SNS does not accept in an attribute.
fn named(name: &str) -> String {
    format!("{name} \"North\" 📈")
}

/// Returns a payload with this name, so that no two are duplicates.
fn payload(event: &str, name: &str) -> Value {
    json!({ "event_type": event, "resource": "WORKBOOK", "resource_luid": "99", "resource_name": named(name),
        "created_at": "2026-05-21T08:00:00Z", "site_luid": "11ff7a7e-4ac9-4d99-84df-73a4138ab502" })
}

/// Returns the name of the stack's webhook for an event.
fn webhook(stack: &LocalStack, event: &str) -> String {
    format!("{}-{event}", stack.stack.name())
}

#[tokio::test]
async fn each_subscriber_gets_the_events_of_its_filter_from_every_site() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    stack.declare("finance", &["WorkbookCreated", "DatasourceRefreshFailed"]).await?;
    stack.declare("marketing", &["WorkbookCreated"]).await?;
    let created = stack.cloud.subscribe_queue(&stack.stack, "created", &json!({ "action": ["created"] })).await?;
    let failed = example_subscriber(&stack).await?;
    let finance = stack.cloud.subscribe_queue(&stack.stack, "finance", &json!({ "site": ["finance"] })).await?;
    let alerts = stack.stack.output("AlertsTopicArn")?;
    let alerts = stack.cloud.subscribe_queue_to(alerts, "alerts", &json!({ "RawMessageDelivery": "true" })).await?;
    let report = stack.cloud.apply(&stack.stack).await?;
    assert_eq!(report["sites"].as_array().map(Vec::len), Some(2), "{report}");

    for (site, event, times) in [
        ("finance", "WorkbookCreated", 1),
        ("finance", "DatasourceRefreshFailed", 2),
        ("marketing", "WorkbookCreated", 1),
    ] {
        let answers = stack.fire(site, event, &payload(event, "Sales"), times).await?;
        assert_eq!(answers, vec![Some(200); times], "{site} {event}");
    }
    let expected = ["finance WorkbookCreated", "marketing WorkbookCreated"].map(str::to_owned);
    assert_eq!(stack.arrived(&created, 2).await?, expected.into());
    // The reconciler had one of the new webhooks tested.
    let expected = ["finance DatasourceRefreshFailed", "finance Test", "finance WorkbookCreated"].map(str::to_owned);
    assert_eq!(stack.arrived(&finance, 3).await?, expected.into());
    assert_eq!(stack.arrived(&failed, 1).await?, ["finance DatasourceRefreshFailed".to_owned()].into());
    let alerts = stack.cloud.receive_some(&alerts).await?;
    let bodies = alerts.iter().filter_map(|message| message["Body"].as_str());
    let alerts: Vec<AlertData> = bodies.map(serde_json::from_str).collect::<Result<_, _>>()?;
    let texts: Vec<_> = alerts.iter().map(|alert| alert.text.as_str()).collect();
    let expected = "The extract refresh of the datasource \"Sales \"North\" 📈\" failed on the Tableau site finance on 2026-05-21 at 08:00 UTC. The datasource keeps the data of its last successful refresh.";
    assert_eq!(texts, [expected]);
    Ok(())
}

/// Deploys the README's example of a subscriber and returns its queue.
async fn example_subscriber(stack: &LocalStack) -> anyhow::Result<String> {
    let template = Workspace::locate()?.file("infra/examples/sqs-subscriber.yaml");
    let topic = format!("EventsTopicArn={}", stack.stack.output("EventsTopicArn")?);
    let name = "tableau-failures";
    let deploy = ["cloudformation", "deploy", "--template-file", &template.to_string_lossy(), "--stack-name", name];
    stack.cloud.aws.run(&[&deploy[..], &["--parameter-overrides", &topic]].concat()).await?;
    let queue = ["cloudformation", "describe-stacks", "--stack-name", name, "--query", "Stacks[0].Outputs[0]"];
    let queue = stack.cloud.aws.json(&queue).await?;
    Ok(queue["OutputValue"].as_str().context("no queue")?.to_owned())
}

#[tokio::test]
async fn a_new_signing_key_updates_the_webhooks_and_old_urls_stay_valid() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    stack.declare("marketing", &["WorkbookCreated"]).await?;
    let queue = stack.cloud.subscribe_queue(&stack.stack, "all", &json!({ "site": ["marketing"] })).await?;
    stack.cloud.apply(&stack.stack).await?;
    let old = site(&stack.tableau, "marketing", |site| site.webhooks[0].clone())?;

    let newest = Keyring::of([9; KEY_BYTES]).to_stored();
    let keys: Vec<String> = [newest.expose_secret(), stack.keyring().await?.to_stored().expose_secret()]
        .iter()
        .flat_map(|stored| serde_json::from_str::<Vec<String>>(stored).unwrap_or_default())
        .collect();
    let parameter = stack.stack.parameter("signing-keys");
    stack.cloud.put_parameter(&parameter, stack.stack.output("KeyAlias")?, &json!(keys).to_string()).await?;
    let report = stack.cloud.apply(&stack.stack).await?;
    assert_eq!(report["sites"][0]["updated"], json!([webhook(&stack, "WorkbookCreated")]), "{report}");
    let moved = site(&stack.tableau, "marketing", |site| site.webhooks.clone())?;
    assert!(moved.len() == 1 && moved[0].id == old.id && moved[0].url != old.url, "the webhook was not moved");

    let answers = stack.fire("marketing", "WorkbookCreated", &payload("WorkbookCreated", "new"), 1).await?;
    assert_eq!(answers, [Some(200)]);
    site(&stack.tableau, "marketing", |site| site.webhooks[0].url = old.url)?;
    let answers = stack.fire("marketing", "WorkbookCreated", &payload("WorkbookCreated", "old"), 1).await?;
    assert_eq!(answers, [Some(200)]);
    // The reconciler tested it after it was created and after it was updated.
    let expected = ["marketing Test", "marketing WorkbookCreated"].map(str::to_owned);
    assert_eq!(stack.arrived(&queue, 4).await?, expected.into());
    Ok(())
}

#[tokio::test]
async fn a_disabled_webhook_is_enabled_again_and_a_foreign_one_is_left_alone() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    stack.declare("marketing", &["WorkbookCreated"]).await?;
    let queue = stack.cloud.subscribe_queue(&stack.stack, "all", &json!({ "site": ["marketing"] })).await?;
    stack.cloud.apply(&stack.stack).await?;

    // With a wrong URL four deliveries fail, and Tableau disables the webhook.
    let foreign_name = webhook(&stack, "2-WorkbookCreated");
    let foreign = site(&stack.tableau, "marketing", |site| {
        site.webhooks[0].url.push('x');
        let mut foreign = site.webhooks[0].clone();
        foreign.id = "foreign".to_owned();
        foreign.name = foreign_name.clone();
        foreign.is_enabled = false;
        site.webhooks.push(foreign.clone());
        foreign
    })?;
    let lost = payload("WorkbookCreated", "lost");
    assert_eq!(stack.fire("marketing", "WorkbookCreated", &lost, 1).await?, [Some(404); 4]);
    assert_eq!(stack.fire("marketing", "WorkbookCreated", &lost, 1).await?, []);

    let report = stack.cloud.apply(&stack.stack).await?;
    assert_eq!(report["sites"][0]["enabled"][0]["reason"], "Webhook disabled after 4 failed delivery attempts.");
    assert_eq!(report["sites"][0]["foreign"], json!([foreign_name]));
    let answers = stack.fire("marketing", "WorkbookCreated", &payload("WorkbookCreated", "found"), 1).await?;
    assert_eq!(answers, [Some(200)]);
    // The reconciler tested it after it was created and after it was enabled.
    let expected = ["marketing Test", "marketing WorkbookCreated"].map(str::to_owned);
    assert_eq!(stack.arrived(&queue, 3).await?, expected.into());
    assert!(site(&stack.tableau, "marketing", |site| site.webhooks.contains(&foreign))?);
    Ok(())
}

#[tokio::test]
async fn an_unreadable_site_entry_is_reported_and_the_other_sites_are_reconciled() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    stack.declare("marketing", &["WorkbookCreated"]).await?;
    stack.cloud.put_site(&stack.stack, "broken", &json!({ "server": "tableau", "token_secret": "s3cret" })).await?;
    let error = stack.cloud.apply(&stack.stack).await.expect_err("an entry is broken").to_string();
    let unusable = format!("{} cannot be used", stack.stack.site_parameter("broken")?);
    for expected in [unusable.as_str(), "server is not valid", "site is missing"] {
        assert!(error.contains(expected), "{error}");
    }
    assert!(!error.contains("s3cret"), "{error}");
    assert_eq!(site(&stack.tableau, "marketing", |site| site.webhooks.len())?, 1);
    Ok(())
}

#[tokio::test]
async fn on_a_fifo_topic_two_environments_publish_a_delivery_once() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    stack.declare("marketing", &["WorkbookCreated"]).await?;
    stack.cloud.apply(&stack.stack).await?;
    let aws = &stack.cloud.aws;
    let topic = aws.json(&["sns", "create-topic", "--name", "events.fifo", "--attributes", "FifoTopic=true"]).await?;
    let topic = topic["TopicArn"].as_str().context("a topic without an ARN")?;
    let queue = stack.cloud.subscribe_queue_to(topic, "all.fifo", &json!({ "RawMessageDelivery": "true" })).await?;

    let function = stack.stack.output("ReceiverName")?;
    let configuration = aws.json(&["lambda", "get-function-configuration", "--function-name", function]).await?;
    let mut environment = configuration["Environment"].clone();
    environment["Variables"]["EVENTS_TOPIC_ARN"] = json!(topic);
    let (event, body) = ("WorkbookCreated".parse()?, payload("WorkbookCreated", "Sales").to_string());
    for description in ["first", "second"] {
        // A changed configuration starts a new environment, without the memory of the old one.
        let update = ["lambda", "update-function-configuration", "--function-name", function];
        let change = ["--description", description, "--environment", &environment.to_string()];
        aws.run(&[&update[..], &change].concat()).await?;
        let deliveries = stack.tableau.simulator.fire("marketing", &event, &body, 1).await;
        let answer = deliveries.first().and_then(|delivery| delivery.attempts.first()).context("no answer")?;
        assert!(answer.body.contains("published"), "{answer:?}");
    }
    assert_eq!(stack.arrived(&queue, 1).await?, ["marketing WorkbookCreated".to_owned()].into());
    assert!(stack.cloud.receive(&queue).await?.is_empty(), "the event arrived twice");
    Ok(())
}

/// Time limit for a change set's name to become free. The AWS CLI's names have the time in seconds.
const CHANGE_SET_TIMEOUT: StdDuration = StdDuration::from_secs(30);

/// Time between two attempts.
const POLL_INTERVAL: StdDuration = StdDuration::from_millis(200);

/// Deploys the template again with other parameters.
async fn update(stack: &LocalStack, parameters: &[&str]) -> anyhow::Result<Stack> {
    let parameters: Vec<_> = parameters.iter().map(|parameter| (*parameter).to_owned()).collect();
    let updated = async {
        loop {
            let bucket = stack.cloud.bucket();
            match Stack::update(&stack.cloud.aws, stack.stack.name(), &bucket, &parameters).await {
                Err(error) if has_code(&error, "AlreadyExistsException") => sleep(POLL_INTERVAL).await,
                result => return result,
            }
        }
    };
    timeout(CHANGE_SET_TIMEOUT, updated).await.context("an earlier change set has the same name")?
}

#[tokio::test]
async fn parameters_make_the_events_topic_fifo_and_send_alerts_by_email() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    let changed = update(&stack, &["FifoEventsTopic=true", "AlertEmail=ops@example.com"]).await?;
    let events = changed.output("EventsTopicArn")?;
    assert!(events.ends_with(&format!(":{}-events.fifo", changed.name())), "{events}");
    let function = ["lambda", "get-function-configuration", "--function-name", changed.output("ReceiverName")?];
    let environment = stack.cloud.aws.json(&[&function[..], &["--query", "Environment.Variables"]].concat()).await?;
    assert_eq!(environment["EVENTS_TOPIC_ARN"], events);
    let alerts = changed.output("AlertsTopicArn")?;
    let list = ["sns", "list-subscriptions-by-topic", "--topic-arn", alerts, "--query", "Subscriptions[0]"];
    let subscription = stack.cloud.aws.json(&list).await?;
    assert_eq!((&subscription["Protocol"], &subscription["Endpoint"]), (&json!("email"), &json!("ops@example.com")));
    Ok(())
}

#[tokio::test]
async fn an_invalid_parameter_is_reported_before_the_deployment() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    for (parameter, expected) in [
        ("SubnetIds=subnet-0a1b2c3d", "Give both SubnetIds and SecurityGroupIds"),
        ("SecurityGroupIds=sg-0a1b2c3d", "Give both SubnetIds and SecurityGroupIds"),
        ("SubnetIds=10.0.0.0/24", "SubnetIds"),
        ("SecurityGroupIds=default", "SecurityGroupIds"),
        ("HttpsProxy=http://fanout:s3cret@proxy.example.com:8080", "without a user and a password"),
        ("HttpsProxy=https://fanout@proxy.example.com", "without a user and a password"),
        ("AwsEndpointUrl=http://fanout:s3cret@127.0.0.1:4566", "without a user and a password"),
        ("AlertEmail=ops", "AlertEmail"),
        ("ReceiverReservedConcurrency=many", "ReceiverReservedConcurrency"),
        ("AlarmAfterHoursWithoutSuccess=1", "AlarmAfterHoursWithoutSuccess"),
        ("Schedule=hourly", "Schedule"),
    ] {
        let error = format!("{:#}", update(&stack, &[parameter]).await.expect_err(parameter));
        assert!(error.contains(expected), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_scheduled_run_that_failed_is_kept_with_its_report() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    stack.cloud.put_site(&stack.stack, "broken", &json!({ "server": "tableau" })).await?;
    // As the schedule invokes it.
    let invoke = ["lambda", "invoke", "--invocation-type", "Event", "--payload", r#"{"action":"apply"}"#];
    let function = ["--function-name", stack.stack.output("ReconcilerName")?, "answer.json"];
    stack.cloud.aws.run(&[&invoke[..], &function].concat()).await?;
    let failed = stack.cloud.receive_some(stack.stack.output("FailedRunsUrl")?).await?;
    let failed: Value = serde_json::from_str(failed[0]["Body"].as_str().unwrap_or_default())?;
    assert_eq!(failed["requestPayload"], json!({ "action": "apply" }), "{failed}");
    let report = failed["responsePayload"]["errorMessage"].as_str().context("no report")?;
    assert!(report.contains(&format!("{} cannot be used", stack.stack.site_parameter("broken")?)), "{report}");
    Ok(())
}

#[tokio::test]
async fn a_later_stack_of_the_same_name_takes_over_keys_and_webhooks() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    stack.declare("marketing", &["WorkbookCreated"]).await?;
    stack.cloud.apply(&stack.stack).await?;
    let keyring = stack.keyring().await?.to_stored();
    let aws = &stack.cloud.aws;
    aws.run(&["cloudformation", "delete-stack", "--stack-name", stack.stack.name()]).await?;
    aws.run(&["cloudformation", "wait", "stack-delete-complete", "--stack-name", stack.stack.name()]).await?;

    let key = stack.stack.output("KeyId")?;
    let state = ["kms", "describe-key", "--key-id", key, "--query", "KeyMetadata.KeyState"];
    assert_eq!(aws.json(&state).await?, "Enabled");
    let architecture = format!("Architecture={}", if cfg!(target_arch = "x86_64") { "x86_64" } else { "arm64" });
    let endpoint = format!("AwsEndpointUrl={}", stack.cloud.endpoint);
    let later = update(&stack, &[&architecture, &endpoint]).await?;
    assert_ne!(later.output("KeyId")?, key);
    let report = stack.cloud.apply(&later).await?;
    // Its receiver has another URL.
    assert_eq!(report["sites"][0]["updated"], json!([webhook(&stack, "WorkbookCreated")]), "{report}");
    assert_eq!(later.keyring(aws).await?.to_stored().expose_secret(), keyring.expose_secret());
    let answers = stack.fire("marketing", "WorkbookCreated", &payload("WorkbookCreated", "later"), 1).await?;
    assert_eq!(answers, [Some(200)]);
    Ok(())
}

/// Returns the job of a workbook's failed refresh.
fn failed_refresh(name: &str, ended_at: OffsetDateTime) -> Job {
    Job {
        id: format!("job-of-{name}"),
        kind: RefreshKind::Workbook,
        luid: format!("luid-of-{name}"),
        name: named(name),
        outcome: RefreshOutcome::Failed,
        is_incremental: false,
        is_via_bridge: false,
        started_at: ended_at - Duration::minutes(1),
        ended_at,
        notes: Some("Login failed for user 'etl'.".to_owned()),
    }
}

#[tokio::test]
async fn failed_refreshes_of_a_disabled_webhook_reach_the_filtered_queue_once() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    stack.declare("marketing", &["WorkbookRefreshFailed"]).await?;
    stack.cloud.apply(&stack.stack).await?;
    let failed = stack.cloud.subscribe_queue(&stack.stack, "failed", &json!({ "action": ["refresh-failed"] })).await?;
    let alerts = stack.stack.output("AlertsTopicArn")?;
    let alerts = stack.cloud.subscribe_queue_to(alerts, "alerts", &json!({})).await?;
    // So that the next run may already recover the following jobs.
    stack.make_state_older(Duration::minutes(10)).await?;
    let ended_at = OffsetDateTime::now_utc() - SETTLED - Duration::minutes(1);
    site(&stack.tableau, "marketing", |site| {
        site.webhooks[0].disable(None);
        for name in ["Sales", "Staff", "Stock"] {
            site.jobs.push(failed_refresh(name, ended_at));
        }
    })?;
    let report = stack.cloud.apply(&stack.stack).await?;
    let count = |member: &str| report["sites"][0][member].as_array().map(Vec::len);
    assert_eq!((count("enabled"), count("recovered"), count("explained")), (Some(1), Some(3), Some(3)), "{report}");
    let mut arrived = stack.cloud.receive_some(&failed).await?;
    let mut subjects = Vec::new();
    while subjects.len() < 5 {
        let messages = stack.cloud.receive_some(&alerts).await?;
        subjects.extend(messages.iter().filter_map(|message| {
            let body: Value = serde_json::from_str(message["Body"].as_str()?).ok()?;
            body["Subject"].as_str().map(str::to_owned)
        }));
    }
    let report = stack.cloud.apply(&stack.stack).await?;
    assert_eq!(report["sites"][0]["recovered"], json!([]), "{report}");
    arrived.extend(stack.cloud.receive(&failed).await?);
    let attribute = |message: &Value, name: &str| message["MessageAttributes"][name]["StringValue"].clone();
    let mut names: Vec<_> = arrived
        .iter()
        .map(|message| (attribute(message, "resource_name"), attribute(message, "recovered")))
        .map(|(name, recovered)| format!("{name} {recovered}"))
        .collect();
    names.sort();
    assert_eq!(names, ["\"Sales North \" \"true\"", "\"Staff North \" \"true\"", "\"Stock North \" \"true\""]);
    subjects.sort();
    let why = |name: &str| format!("Tableau marketing: why the workbook refresh failed: {name} \"North\"");
    assert_eq!(subjects[2..], ["Sales", "Staff", "Stock"].map(why));
    Ok(())
}

#[tokio::test]
async fn accounts_of_one_local_cloud_are_separate() -> anyhow::Result<()> {
    let (ours, theirs) = tokio::try_join!(LocalStack::start(), LocalStack::start())?;
    assert!(ours.shares_its_cloud_with(&theirs), "each has a cloud of its own");
    ours.declare("marketing", &["WorkbookCreated"]).await?;
    theirs.declare("marketing", &["WorkbookCreated"]).await?;
    let everything = json!({ "event_type": [{ "exists": true }] });
    let our_queue = ours.cloud.subscribe_queue(&ours.stack, "all", &everything).await?;
    let their_queue = theirs.cloud.subscribe_queue(&theirs.stack, "all", &everything).await?;
    ours.cloud.apply(&ours.stack).await?;
    let expected = ["marketing Test", "marketing WorkbookCreated"].map(str::to_owned);
    let answers = ours.fire("marketing", "WorkbookCreated", &payload("WorkbookCreated", "ours"), 1).await?;
    assert_eq!(answers, [Some(200)]);
    assert_eq!(ours.arrived(&our_queue, 2).await?, expected.into());
    assert!(theirs.keyring().await.is_err(), "keys of another account");
    assert!(theirs.cloud.receive(&their_queue).await?.is_empty(), "a message of another account");
    Ok(())
}
