//! Targets on the deployed template: from Tableau's event to services outside of AWS.

use std::{collections::BTreeSet, time::Duration};

use anyhow::ensure;
use end_to_end::{
    local_stack::LocalStack,
    stand_ins::{Service, StandIn},
};
use futures_util::future::try_join_all;
use infra::target_messages::Topic;
use reqwest::Method;
use serde_json::{Value, json};

/// The time of the service that is neither fast nor dead.
const SLOW: Duration = Duration::from_millis(200);

/// Selects alerts about failed refreshes.
fn failures() -> Value {
    json!({ "kinds": ["refresh-failed", "refresh-explained", "refresh-resolved", "refresh-stopped"] })
}

/// A key in the form of PagerDuty's.
fn routing_key() -> String {
    "r".repeat(32)
}

/// Ends a refresh of a workbook on Tableau.
async fn refresh(stack: &LocalStack, name: &str, outcome: &str) -> anyhow::Result<()> {
    let notes = if outcome == "failed" { "Login failed for user 'etl'." } else { "" };
    let refresh = json!({ "site": "marketing", "kind": "workbook", "name": name, "outcome": outcome, "notes": notes });
    stack.simulate(Method::POST, "refreshes", &refresh).await
}

/// Fires an event for each of several workbooks.
async fn fire(stack: &LocalStack, event: &str, workbooks: usize) -> anyhow::Result<()> {
    let fired = (0..workbooks).map(async |number| {
        let payload = json!({ "event_type": event, "resource_luid": number.to_string(), "resource_name": "Budget" });
        let answers = stack.fire("marketing", event, &payload, 1).await?;
        ensure!(answers.last() == Some(&Some(200)), "not accepted: {answers:?}");
        anyhow::Ok(())
    });
    try_join_all(fired).await.map(drop)
}

/// Whether a text is somewhere in a message.
fn has(message: &Value, text: &str) -> bool {
    message.to_string().contains(text)
}

/// Returns the messages without repetitions, which have the same identifier at a place. On a busy machine SNS or SQS may pass one
/// on twice.
fn once(messages: &[Value], pointer: &str) -> Vec<Value> {
    let mut known = BTreeSet::new();
    messages.iter().filter(|message| known.insert(message.pointer(pointer).map(Value::to_string))).cloned().collect()
}

/// Where PagerDuty's events have the identifier.
const EVENT_ID: &str = "/payload/custom_details/event_id";

/// The services of one stack.
struct Services {
    slack: StandIn,
    teams: StandIn,
    pager_duty: StandIn,
    zapier: StandIn,
    coefficient: StandIn,
}

impl Services {
    /// Starts the services, and adds each as a target.
    async fn start(stack: &LocalStack) -> anyhow::Result<Self> {
        let slack = StandIn::start(Service::Slack).await?;
        let teams = StandIn::start(Service::Teams).await?;
        let pager_duty = StandIn::start(Service::PagerDuty).await?;
        let zapier = StandIn::start(Service::Zapier).await?;
        for (name, stand_in) in [("slack", &slack), ("teams", &teams)] {
            let entry = json!({ "preset": name, "address": stand_in.address, "selection": failures() });
            stack.add_target(name, &entry, Topic::Alerts, &json!({})).await?;
        }
        let key = json!({ "type": "body", "member": "routing_key", "value": routing_key() });
        let entry = json!({ "preset": "pagerduty", "address": pager_duty.address, "credentials": key });
        let of_failures = json!({ "event_type": [{ "suffix": "RefreshFailed" }, { "prefix": "RefreshFailure" }] });
        stack.add_target("pagerduty", &entry, Topic::Events, &of_failures).await?;
        let entry = json!({ "preset": "zapier", "address": zapier.address });
        stack.add_target("zapier", &entry, Topic::Events, &json!({})).await?;
        let coefficient = StandIn::start(Service::Coefficient).await?;
        let entry = json!({ "preset": "coefficient", "address": coefficient.address });
        stack.add_target("sheet", &entry, Topic::Events, &json!({ "action": ["refresh-succeeded"] })).await?;
        Ok(Self { slack, teams, pager_duty, zapier, coefficient })
    }
}

#[tokio::test]
async fn a_failure_reaches_every_service_and_its_end_resolves_the_incident() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    let Services { slack, teams, pager_duty, zapier, .. } = Services::start(&stack).await?;
    stack.declare("marketing", &["WorkbookRefreshFailed", "WorkbookRefreshSucceeded"]).await?;
    stack.cloud.apply(&stack.stack).await?;
    refresh(&stack, "Budget", "failed").await?;
    // As the schedule does.
    stack.cloud.apply(&stack.stack).await?;

    let explained = |messages: &[Value]| messages.iter().any(|message| has(message, "Login failed for user"));
    for chat in [&slack, &teams] {
        let messages = chat.until(explained).await?;
        assert!(has(&messages[0], "workbook refresh failed: Budget"), "{messages:#?}");
    }
    let incidents = once(&pager_duty.until(explained).await?, EVENT_ID);
    let [failed, reason] = &incidents[..] else { anyhow::bail!("other incidents: {incidents:#?}") };
    for incident in [failed, reason] {
        assert_eq!((&incident["event_action"], &incident["payload"]["severity"]), (&json!("trigger"), &json!("error")));
        assert_eq!(incident["dedup_key"], failed["dedup_key"], "{incidents:#?}");
    }

    refresh(&stack, "Budget", "succeeded").await?;
    stack.cloud.apply(&stack.stack).await?;
    let resolved = |messages: &[Value]| messages.last().is_some_and(|it| it["event_action"] == "resolve");
    let incidents = once(&pager_duty.until(resolved).await?, EVENT_ID);
    assert_eq!(incidents[2]["dedup_key"], failed["dedup_key"], "{incidents:#?}");
    for chat in [&slack, &teams] {
        chat.until(|messages| messages.last().is_some_and(|message| has(message, "works again"))).await?;
    }
    let types = |events: &[Value]| {
        let events = once(events, "/id");
        let mut types: Vec<_> = events.iter().filter_map(|event| event["type"].as_str().map(str::to_owned)).collect();
        types.sort();
        types
    };
    let expected = ["RefreshFailureExplained", "RefreshFailureResolved", "Test", "WorkbookRefreshFailed"];
    let expected = [&expected[..], &["WorkbookRefreshSucceeded"]].concat();
    zapier.until(|events| types(events) == expected).await?;
    for target in ["slack", "teams", "pagerduty", "zapier"] {
        assert_eq!(stack.dead_letters(target).await?, Vec::<Value>::new(), "{target}");
    }
    let log = stack.log(&format!("{}-forwarder", stack.stack.name())).await?.concat();
    assert!(log.contains("forwarded"), "{log}");
    for secret in ["stand-in", &routing_key(), "Login failed", "Budget"] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
    Ok(())
}

#[tokio::test]
async fn a_burst_reaches_each_service_at_a_rate_that_it_allows() -> anyhow::Result<()> {
    /// The failures. Slack takes one a second.
    const BURST: usize = 20;

    let stack = LocalStack::start().await?;
    let Services { slack, pager_duty, zapier, .. } = Services::start(&stack).await?;
    stack.declare("marketing", &["WorkbookRefreshFailed"]).await?;
    stack.cloud.apply(&stack.stack).await?;
    fire(&stack, "WorkbookRefreshFailed", BURST).await?;
    // None of them answers 429 meanwhile.
    slack.until(|messages| messages.len() >= BURST).await?;
    pager_duty.until(|messages| once(messages, EVENT_ID).len() == BURST).await?;
    // And the test call of the webhook.
    zapier.until(|messages| once(messages, "/id").len() == BURST + 1).await?;
    Ok(())
}

#[tokio::test]
async fn a_dead_target_keeps_its_messages_and_no_other_target_notices() -> anyhow::Result<()> {
    const EVENTS_SENT: usize = 40;

    let stack = LocalStack::start().await?;
    let healthy = StandIn::start(Service::Slow(SLOW)).await?;
    let dead = StandIn::start(Service::Down).await?;
    for (name, stand_in) in [("healthy", &healthy), ("dead", &dead)] {
        let entry = json!({ "preset": "plain", "address": stand_in.address });
        stack.add_target(name, &entry, Topic::Events, &json!({ "event_type": ["WorkbookCreated"] })).await?;
    }
    stack.declare("marketing", &["WorkbookCreated"]).await?;
    stack.cloud.apply(&stack.stack).await?;
    fire(&stack, "WorkbookCreated", EVENTS_SENT).await?;
    healthy.until(|events| once(events, "/id").len() == EVENTS_SENT).await?;

    assert!(stack.waiting("dead").await?.iter().sum::<usize>() >= EVENTS_SENT);
    assert_eq!(stack.dead_letters("dead").await?, Vec::<Value>::new());
    Ok(())
}

#[tokio::test]
async fn a_sheet_is_refreshed_once_for_all_refreshes_and_again_after_five_minutes_at_the_earliest() -> anyhow::Result<()>
{
    const REFRESHES: usize = 5;

    let stack = LocalStack::start().await?;
    let Services { coefficient, .. } = Services::start(&stack).await?;
    stack.declare("marketing", &["WorkbookRefreshSucceeded"]).await?;
    stack.cloud.apply(&stack.stack).await?;
    fire(&stack, "WorkbookRefreshSucceeded", REFRESHES).await?;
    stack.call_coalesced("sheet").await?;
    assert_eq!(coefficient.accepted()?, [json!({ "messages": REFRESHES })]);
    assert_eq!(stack.waiting("sheet").await?, [0, 0]);

    refresh(&stack, "Budget", "succeeded").await?;
    stack.call_coalesced("sheet").await?;
    assert_eq!(coefficient.accepted()?.len(), 1);
    // It is hidden until then.
    assert_eq!(stack.waiting("sheet").await?, [0, 1]);
    Ok(())
}

#[tokio::test]
async fn a_target_that_refuses_its_credentials_is_a_problem_until_it_accepts_them() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    let service = StandIn::start(Service::Slow(Duration::ZERO)).await?;
    let outdated = format!("{}-outdated", service.address);
    let created = json!({ "event_type": ["WorkbookCreated"] });
    stack.add_target("program", &json!({ "preset": "plain", "address": outdated }), Topic::Events, &created).await?;
    let chat = StandIn::start(Service::Slack).await?;
    let problems = json!({ "kinds": ["problem", "problem-solved"] });
    let entry = json!({ "preset": "slack", "address": chat.address, "selection": problems });
    stack.add_target("chat", &entry, Topic::Alerts, &json!({})).await?;
    stack.declare("marketing", &["WorkbookCreated"]).await?;
    stack.cloud.apply(&stack.stack).await?;
    fire(&stack, "WorkbookCreated", 3).await?;
    let problem = chat.until(|messages| !messages.is_empty()).await?;
    assert!(has(&problem[0], "program") && has(&problem[0], "404"), "{problem:#?}");

    // The next attempt reads the entry again.
    stack.store_target("program", &json!({ "preset": "plain", "address": service.address })).await?;
    chat.until(|messages| messages.len() > 1).await?;
    let alerts = chat.accepted()?;
    assert!(has(&alerts[1], "solved"), "{alerts:#?}");
    let attempts = service.calls();
    let arrived = attempts.iter().filter(|call| call.status.is_success()).count();
    assert!(arrived >= 1 && attempts.len() > arrived, "{attempts:#?}");
    Ok(())
}
