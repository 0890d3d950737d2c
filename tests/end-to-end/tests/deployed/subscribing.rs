//! `docs/subscribing.md` and `docs/recipes.md`: their commands as printed, its filter policies, and the events that arrive.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::symlink,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, ensure};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use documents::{Block, Document};
use end_to_end::{destination::Destination, local_stack::LocalStack};
use infra::{
    aws::Aws,
    cloud::Cloud,
    environment::{self, REGION},
    python::PythonTools,
    service::http_client,
    workspace::Workspace,
};
use serde_json::{Map, Value, json};
use shared::{
    events::cloud_event::EventMessage,
    refreshes::{
        context::{FailureContext, Owner, Project, ResourceContext},
        explanation::Explanation,
        failing::FailingResources,
        job::{Refresh, RefreshOutcome, RefreshedKind, RefreshedResource},
        notes::Notes,
        resolution::FailureEnd,
    },
};
use strict_sns::gateway::Gateway;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

/// The guide's HTTPS endpoint.
const ENDPOINT: &str = "https://hooks.example.com/tableau";

/// Time limit for its commands, which take seconds.
const COMMANDS_TIMEOUT: Duration = Duration::from_secs(3 * 60);

/// Time limit for an event to reach a subscriber. It takes milliseconds; a function has to start.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between two checks.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The events of the two sites: site, event, and the payload's resource, identifier and name. In addition, the reconciler
/// tests a webhook of each site.
const FIRED: [(&str, &str, &str, &str, &str); 6] = [
    ("finance", "DatasourceRefreshFailed", "EXTRACTS", "99", "Daily Sales"),
    ("finance", "ViewDeleted", "VIEW", "98", "Sales \"North\""),
    ("finance", "WorkbookCreated", "WORKBOOK", "e341c6a8-208f-438e-b0a1-df3ff789ca51", "Budget"),
    ("marketing", "DatasourceRefreshSucceeded", "EXTRACTS", "97", "Daily Leads"),
    ("marketing", "WorkbookDeleted", "WORKBOOK", "96", "C:\\Leads\t🚀"),
    ("marketing", "WorkbookRefreshFailed", "EXTRACTS", "95", "daily sales"),
];

/// The failures among them, each with its project and owner. Their reasons and their ends are published, too.
const REASONS: [(&str, RefreshedKind, &str, &str, &str, &str); 2] = [
    ("finance", RefreshedKind::Datasource, "99", "Daily Sales", "Finance", "Grace Hopper"),
    ("marketing", RefreshedKind::Workbook, "95", "daily sales", "Marketing", "Ada Lovelace"),
];

/// All events that are then published, as `site event_type`. The last is of a body that is no JSON object.
const PUBLISHED: [&str; 13] = [
    "finance DatasourceRefreshFailed",
    "finance RefreshFailureExplained",
    "finance RefreshFailureResolved",
    "finance Test",
    "finance ViewDeleted",
    "finance WorkbookCreated",
    "marketing DatasourceRefreshSucceeded",
    "marketing RefreshFailureExplained",
    "marketing RefreshFailureResolved",
    "marketing Test",
    "marketing WorkbookDeleted",
    "marketing WorkbookRefreshFailed",
    "marketing Unrecognized",
];

/// The events that each filter policy lets through, by the first words of the sentence before it.
const LET_THROUGH: [(&str, &[&str]); 15] = [
    ("Every failed refresh", &["finance DatasourceRefreshFailed", "marketing WorkbookRefreshFailed"]),
    (
        "Every extract refresh",
        &["finance DatasourceRefreshFailed", "marketing DatasourceRefreshSucceeded", "marketing WorkbookRefreshFailed"],
    ),
    ("Events about workbooks and views on one site", &["finance ViewDeleted", "finance WorkbookCreated"]),
    ("One resource, whatever happens to it", &["finance WorkbookCreated"]),
    (
        "One resource by its name",
        &[
            "finance DatasourceRefreshFailed",
            "finance RefreshFailureExplained",
            "finance RefreshFailureResolved",
            "marketing RefreshFailureExplained",
            "marketing RefreshFailureResolved",
            "marketing WorkbookRefreshFailed",
        ],
    ),
    ("Failed refreshes of one project", &["finance RefreshFailureExplained"]),
    ("Failed refreshes of one owner", &["marketing RefreshFailureExplained", "marketing RefreshFailureResolved"]),
    ("Resources of one project that work again", &["finance RefreshFailureResolved"]),
    (
        "Everything but Tableau's test calls",
        &[
            "finance DatasourceRefreshFailed",
            "finance RefreshFailureExplained",
            "finance RefreshFailureResolved",
            "finance ViewDeleted",
            "finance WorkbookCreated",
            "marketing DatasourceRefreshSucceeded",
            "marketing RefreshFailureExplained",
            "marketing RefreshFailureResolved",
            "marketing WorkbookDeleted",
            "marketing WorkbookRefreshFailed",
            "marketing Unrecognized",
        ],
    ),
    (
        "All that happens on one site, and failed refreshes of the others",
        &[
            "finance DatasourceRefreshFailed",
            "finance RefreshFailureExplained",
            "finance RefreshFailureResolved",
            "finance Test",
            "finance ViewDeleted",
            "finance WorkbookCreated",
            "marketing WorkbookRefreshFailed",
        ],
    ),
    ("Only test calls", &["finance Test", "marketing Test", "marketing Unrecognized"]),
    (
        "By how a resource's name begins",
        &[
            "finance DatasourceRefreshFailed",
            "finance RefreshFailureExplained",
            "finance RefreshFailureResolved",
            "marketing DatasourceRefreshSucceeded",
        ],
    ),
    ("By a name, letter for letter", &["finance ViewDeleted"]),
    ("By type and source", &["marketing WorkbookDeleted"]),
    (
        "By a member of the payload that no attribute has",
        &["finance DatasourceRefreshFailed", "marketing DatasourceRefreshSucceeded", "marketing WorkbookRefreshFailed"],
    ),
];

/// A filter policy.
struct Policy {
    policy: Value,
    scope: &'static str,
    lets_through: &'static [&'static str],
}

/// JSON in the documents that is no filter policy.
const OTHER_JSON: [(&str, &str); 9] = [
    ("docs/alerts.md", "Alerts for programs"),
    ("docs/custom-targets.md", "Google Apps Script"),
    ("docs/events.md", "Event format"),
    ("docs/events.md", "Reasons of failures"),
    ("docs/events.md", "Resolved failures"),
    ("docs/sites.md", "Add a site by hand"),
    ("docs/operations.md", "Receiver log"),
    ("docs/operations.md", "Reconciler log"),
    ("docs/target-operations.md", "By hand"),
];

/// Reads the documents' filter policies. One that is missing in [`LET_THROUGH`] is an error.
fn policies() -> anyhow::Result<Vec<Policy>> {
    let documents = Document::all()?;
    let sections =
        documents.iter().flat_map(|document| document.sections.iter().map(move |section| (document, section)));
    let mut policies = Vec::new();
    for (document, section) in sections {
        if OTHER_JSON.contains(&(&document.path, &section.heading)) {
            continue;
        }
        let scope = if section.heading == "On the body" { "MessageBody" } else { "MessageAttributes" };
        for block in section.blocks.iter().filter(|block| block.language == "json") {
            let known = LET_THROUGH.iter().find(|(begins, _)| block.introduction.starts_with(begins));
            let (_, lets_through) = known.with_context(|| {
                format!(
                    "no test has the filter policy of {} after {:?}: add the events that it lets through to LET_THROUGH in {}",
                    document.path,
                    block.introduction,
                    file!()
                )
            })?;
            policies.push(Policy { policy: serde_json::from_str(&block.text)?, scope, lets_through });
        }
    }
    ensure!(
        policies.len() == LET_THROUGH.len(),
        "the documents have fewer filter policies than LET_THROUGH, in {}",
        file!()
    );
    Ok(policies)
}

/// Writes a template with a queue for each filter policy, and with one for all events, in SNS's envelopes.
fn queues(topic: &str, policies: &[Policy]) -> Value {
    let mut resources = Map::new();
    let mut add = |name: &str, properties: Value| {
        let arn = json!({ "Fn::GetAtt": [name, "Arn"] });
        let subscription = json!({ "TopicArn": topic, "Protocol": "sqs", "Endpoint": arn });
        let mut subscription = subscription.as_object().cloned().unwrap_or_default();
        subscription.extend(properties.as_object().cloned().unwrap_or_default());
        resources.insert(name.to_owned(), json!({ "Type": "AWS::SQS::Queue", "Properties": { "QueueName": name } }));
        resources.insert(
            format!("{name}Subscription"),
            json!({ "Type": "AWS::SNS::Subscription", "Properties": subscription }),
        );
        let statement = json!({ "Effect": "Allow", "Principal": { "Service": "sns.amazonaws.com" },
            "Action": "sqs:SendMessage", "Resource": arn });
        let policy = json!({ "Queues": [{ "Ref": name }],
            "PolicyDocument": { "Version": "2012-10-17", "Statement": [statement] } });
        resources.insert(format!("{name}Policy"), json!({ "Type": "AWS::SQS::QueuePolicy", "Properties": policy }));
    };
    add("Everything", json!({}));
    for (index, Policy { policy, scope, .. }) in policies.iter().enumerate() {
        let properties = json!({ "RawMessageDelivery": true, "FilterPolicy": policy, "FilterPolicyScope": scope });
        add(&format!("Filtered{index}"), properties);
    }
    json!({ "Resources": resources })
}

/// Runs commands as a user pastes them, with the HTTPS endpoint's URL in place of the guide's.
async fn run(stack: &LocalStack, blocks: &[Block], endpoint: &str) -> anyhow::Result<()> {
    let script: String = blocks.iter().map(|block| block.text.replace(ENDPOINT, endpoint)).collect();
    let mut bash = Command::new("bash");
    bash.args(["-e", "-u", "-c", &script]).current_dir(stack.folder()).stdin(Stdio::null()).kill_on_drop(true);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(stack.tools.programs()).chain(std::env::split_paths(&path));
    bash.env("PATH", std::env::join_paths(path)?).env("AWS_ENDPOINT_URL", &stack.cloud.endpoint);
    bash.envs(environment::AWS).env("AWS_ACCESS_KEY_ID", &stack.cloud.account).env_remove("AWS_PROFILE");
    let output = timeout(COMMANDS_TIMEOUT, bash.output()).await.context("the commands do not end")??;
    let printed = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success(), "{script}\n{printed}");
    Ok(())
}

/// Waits until `look` returns a value.
async fn eventually<T>(name: &str, mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let found = async {
        loop {
            if let Some(found) = look().await? {
                return anyhow::Ok(found);
            }
            sleep(POLL_INTERVAL).await;
        }
    };
    timeout(ARRIVAL_TIMEOUT, found).await.with_context(|| format!("{name} does not arrive"))?
}

/// Confirms a subscription, as an endpoint must.
async fn confirm(stack: &LocalStack, endpoint: &Destination, topic: &str) -> anyhow::Result<()> {
    let confirmation = eventually("the confirmation", async || {
        let mut received = endpoint.received().into_iter();
        Ok(received.find(|(headers, _)| headers["x-amz-sns-message-type"] == "SubscriptionConfirmation"))
    });
    let confirmation: Value = serde_json::from_str(&confirmation.await?.1)?;
    assert_eq!(confirmation["TopicArn"], topic);
    let url = confirmation["SubscribeURL"].as_str().context("no URL to confirm")?;
    stack.http.get(url).send().await?.error_for_status()?;
    endpoint.forget();
    Ok(())
}

/// Returns the messages in all queues, by the queues' names.
pub(crate) async fn in_queues(cloud: &Cloud) -> anyhow::Result<BTreeMap<String, Vec<Value>>> {
    let url = format!("{}/_ministack/sqs/messages", cloud.endpoint);
    let all: Value = http_client()?.get(url).send().await?.json().await?;
    let account = all["messages"][&cloud.account].as_object().context("no queues in the account")?;
    let queues = account.values().filter_map(Value::as_object).flatten();
    let name = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
    Ok(queues.map(|(url, messages)| (name(url), messages.as_array().cloned().unwrap_or_default())).collect())
}

/// Returns `site event_type` from a message's attributes.
fn label(attributes: &Value, member: &str) -> String {
    ["site", "event_type"].map(|name| attributes[name][member].as_str().unwrap_or("none")).join(" ")
}

/// Reads an output of a stack.
async fn output(aws: &Aws, stack: &str, name: &str) -> anyhow::Result<String> {
    let query = format!("Stacks[0].Outputs[?OutputKey=='{name}'].OutputValue");
    let outputs = aws.json(&["cloudformation", "describe-stacks", "--stack-name", stack, "--query", &query]).await?;
    Ok(outputs[0].as_str().with_context(|| format!("{stack} has no output {name}"))?.to_owned())
}

/// Returns the sorted types of the events that an endpoint received with raw delivery.
fn types(endpoint: &Destination) -> anyhow::Result<Vec<String>> {
    let events = endpoint.received().into_iter().map(|(_, body)| serde_json::from_str::<Value>(&body));
    let mut types = Vec::new();
    for event in events {
        types.push(event?["type"].as_str().context("no event")?.replace("com.tableau.", ""));
    }
    types.sort();
    Ok(types)
}

/// Checks that a card has only members that Amazon Q documents for custom notifications, and the required ones.
fn check_card(card: &Value) -> anyhow::Result<()> {
    let members = |value: &Value| value.as_object().map(|object| object.keys().cloned().collect::<BTreeSet<_>>());
    let known = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let within = |value: &Value, names: &[&str]| members(value).is_some_and(|members| members.is_subset(&known(names)));
    let is_right = within(card, &["version", "source", "id", "content", "metadata"])
        && within(&card["content"], &["textType", "title", "description", "nextSteps", "keywords"])
        && within(&card["metadata"], &["threadId", "summary", "eventType", "relatedResources", "additionalContext"])
        && (&card["version"], &card["source"]) == (&json!("1.0"), &json!("custom"))
        && card["content"]["textType"] == "client-markdown"
        && card["content"]["description"].as_str().is_some_and(|text| !text.is_empty());
    ensure!(is_right, "no card: {card}");
    Ok(())
}

/// The failed refreshes among [`PUBLISHED`].
const FAILED: [&str; 2] = ["finance DatasourceRefreshFailed", "marketing WorkbookRefreshFailed"];

/// Runs the guide's commands, and subscribes a queue for each filter policy and a chat.
async fn subscribe(
    stack: &LocalStack,
    policies: &[Policy],
    endpoint: &Destination,
    chat: &Destination,
) -> anyhow::Result<()> {
    let [events, alerts] = ["EventsTopicArn", "AlertsTopicArn"].map(|name| stack.stack.output(name));
    let (events, alerts) = (events?, alerts?);
    let commands = [
        documents::commands("docs/recipes.md", "The topics")?,
        documents::commands("docs/recipes.md", "Failures of one site to a queue")?,
        documents::commands("docs/recipes.md", "Failures of one workbook")?,
        documents::commands("docs/recipes.md", "Failures of one project")?,
        documents::commands("docs/recipes.md", "Failures of one owner")?,
        documents::commands("docs/recipes.md", "Incidents that close by themselves")?,
        documents::commands("docs/recipes.md", "A Lambda function for each event")?,
        documents::commands("docs/recipes.md", "E-mail and SMS")?,
        documents::commands("docs/recipes.md", "Events in S3, for Athena")?,
        documents::commands("docs/subscribing.md", "An SQS queue")?,
        documents::commands("docs/subscribing.md", "An HTTPS endpoint")?,
        documents::commands("docs/subscribing.md", "Another account")?,
    ];
    run(stack, &commands.concat(), endpoint.address.as_str()).await?;
    confirm(stack, endpoint, events).await?;
    let template = stack.folder().join("queues.json");
    fs::write(&template, queues(events, policies).to_string())?;
    let (template, aws) = (template.to_string_lossy(), &stack.cloud.aws);
    aws.run(&["cloudformation", "deploy", "--stack-name", "queues", "--template-file", &template]).await?;
    // As Amazon Q subscribes.
    let as_chat = ["sns", "subscribe", "--topic-arn", alerts, "--protocol", "https", "--notification-endpoint"];
    aws.run(&[&as_chat[..], &[chat.address.as_str()]].concat()).await?;
    confirm(stack, chat, alerts).await
}

/// Declares the two sites, and fires their events.
async fn fire_all(stack: &LocalStack) -> anyhow::Result<()> {
    for site in ["finance", "marketing"] {
        let of_site = FIRED.iter().filter(|(fired_at, ..)| *fired_at == site);
        stack.declare(site, &of_site.map(|(_, event, ..)| *event).collect::<Vec<_>>()).await?;
    }
    stack.cloud.apply(&stack.stack).await?;
    for (site, event, resource, luid, name) in FIRED {
        let payload =
            json!({ "event_type": event, "resource": resource, "resource_luid": luid, "resource_name": name });
        assert_eq!(stack.fire(site, event, &payload, 1).await?, [Some(200)], "{site} {event}");
    }
    assert_eq!(stack.fire("marketing", "WorkbookDeleted", &json!("no object"), 1).await?, [Some(200)]);
    Ok(())
}

/// Publishes the reasons of the failures and their ends, as the reconciler does.
async fn publish_reasons_and_ends(stack: &LocalStack) -> anyhow::Result<()> {
    for (site, kind, luid, name, project, owner) in REASONS {
        let refresh = Refresh {
            job_id: luid.to_owned(),
            resource: RefreshedResource { kind, luid: luid.to_owned(), name: Some(name.to_owned()) },
            started_at: None,
            ended_at: OffsetDateTime::now_utc(),
            outcome: RefreshOutcome::Failed,
            notes: Notes::redacted("The database is not reachable."),
        };
        let context = FailureContext {
            resource: ResourceContext {
                project: Some(Project { id: project.to_owned(), name: project.to_owned() }),
                ..ResourceContext::default()
            },
            owner: Some(Owner { id: owner.to_owned(), name: Some(owner.to_owned()), email: None }),
            ..FailureContext::default()
        };
        let explanation = Explanation::new(refresh, context, &FailingResources::default());
        publish(stack, explanation.event(&site.parse()?, site)).await?;
        let Explanation { refresh, context, in_a_row } = explanation;
        let ended_at = refresh.ended_at + time::Duration::HOUR;
        let success = Refresh { ended_at, outcome: RefreshOutcome::Succeeded, ..refresh };
        publish(stack, FailureEnd::by_refresh(&success, in_a_row, context).event(&site.parse()?, site)).await?;
    }
    Ok(())
}

/// Publishes an event with its attributes.
async fn publish(stack: &LocalStack, event: Option<EventMessage>) -> anyhow::Result<()> {
    let EventMessage { body, attributes, .. } = event.context("no event")?;
    let topic = stack.stack.output("EventsTopicArn")?;
    let attributes: Map<_, _> = attributes
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!({ "DataType": "String", "StringValue": value })))
        .collect();
    let attributes = Value::from(attributes).to_string();
    let publish = ["sns", "publish", "--topic-arn", topic, "--message", &body, "--message-attributes", &attributes];
    stack.cloud.aws.run(&publish).await.map(drop)
}

/// Checks the messages in the queues of the filter policies and of the example.
async fn check_queues(stack: &LocalStack, policies: &[Policy]) -> anyhow::Result<()> {
    let published = eventually("something that was published", async || {
        let queues = in_queues(&stack.cloud).await?;
        Ok((queues["Everything"].len() >= PUBLISHED.len()).then_some(queues))
    });
    let queues = published.await?;
    let mut published = Vec::new();
    for message in &queues["Everything"] {
        let envelope: Value = serde_json::from_str(message["Body"].as_str().context("no body")?)?;
        let event: Value = serde_json::from_str(envelope["Message"].as_str().context("no event")?)?;
        assert_eq!(event["specversion"], "1.0");
        published.push(label(&envelope["MessageAttributes"], "Value"));
    }
    assert_eq!(published.iter().map(String::as_str).collect::<BTreeSet<_>>(), PUBLISHED.into());
    let labels = |queue: &str| {
        let mut labels: Vec<_> =
            queues[queue].iter().map(|message| label(&message["MessageAttributes"], "StringValue")).collect();
        labels.sort();
        labels
    };
    for (index, Policy { policy, lets_through, .. }) in policies.iter().enumerate() {
        let mut expected = lets_through.to_vec();
        expected.sort_unstable();
        assert_eq!(labels(&format!("Filtered{index}")), expected, "{policy}");
    }
    for (name, expected) in [
        ("tableau-failures", &FAILED[..]),
        ("finance-failures", &["finance DatasourceRefreshFailed"]),
        ("daily-sales-failures", &["marketing WorkbookRefreshFailed"]),
        ("finance-project-failures", &["finance RefreshFailureExplained"]),
        ("owner-failures", &["marketing RefreshFailureExplained"]),
        (
            "refresh-incidents",
            &[
                "finance RefreshFailureExplained",
                "finance RefreshFailureResolved",
                "marketing RefreshFailureExplained",
                "marketing RefreshFailureResolved",
                "marketing WorkbookDeleted",
            ],
        ),
    ] {
        let queue = output(&stack.cloud.aws, name, "QueueUrl").await?;
        assert_eq!(labels(queue.rsplit('/').next().context("a name")?), expected, "{name}");
    }
    Ok(())
}

/// Checks the example's function: who may invoke it, and the events that it prints.
async fn check_function(stack: &LocalStack) -> anyhow::Result<()> {
    let aws = &stack.cloud.aws;
    let function = output(aws, "tableau-events", "FunctionName").await?;
    let policy = aws.json(&["lambda", "get-policy", "--function-name", &function, "--query", "Policy"]).await?;
    let policy: Value = serde_json::from_str(policy.as_str().context("the function has no policy")?)?;
    let statement = &policy["Statement"][0];
    assert_eq!(statement["Principal"], json!({ "Service": "sns.amazonaws.com" }));
    assert_eq!(
        statement["Condition"],
        json!({ "ArnLike": { "AWS:SourceArn": stack.stack.output("EventsTopicArn")? } })
    );
    let group = output(aws, "tableau-events", "LogGroupName").await?;
    let printed = eventually("an event at the function", async || {
        let filter = ["logs", "filter-log-events", "--log-group-name", &group, "--query", "events[].message"];
        // There is no log before the first invocation.
        let Ok(lines) = aws.json(&filter).await else { return Ok(None) };
        let lines = lines.as_array().into_iter().flatten().filter_map(Value::as_str);
        let events = lines.filter(|line| line.contains("com.tableau."));
        let events = events.map(|line| line.replacen("com.tableau.", "", 1));
        // The data follows.
        let label = |line: String| line.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ");
        let events: BTreeSet<_> = events.map(label).collect();
        Ok((events.len() >= PUBLISHED.len()).then_some(events))
    });
    let printed = printed.await?;
    assert_eq!(printed.iter().map(String::as_str).collect::<BTreeSet<_>>(), PUBLISHED.into());
    Ok(())
}

/// Checks the cards in the chat, and the other endpoints that get alerts.
async fn check_alerts(stack: &LocalStack, chat: &Destination) -> anyhow::Result<()> {
    let cards = eventually("an alert in the chat", async || {
        let received = chat.received();
        Ok((received.len() >= FAILED.len()).then_some(received))
    });
    for (_, envelope) in cards.await? {
        let envelope: Value = serde_json::from_str(&envelope)?;
        check_card(&serde_json::from_str(envelope["Message"].as_str().context("no alert")?)?)?;
    }
    let (list, topic) = (["sns", "list-subscriptions-by-topic", "--topic-arn"], stack.stack.output("AlertsTopicArn")?);
    let query = [topic, "--query", "Subscriptions[].Endpoint"];
    let endpoints = stack.cloud.aws.json(&[list, query].concat()).await?;
    for expected in ["you@example.com", "+15555550100"] {
        assert!(endpoints.as_array().is_some_and(|all| all.iter().any(|known| known == expected)), "{endpoints}");
    }
    Ok(())
}

/// Changes the endpoint's filter policy as the guide does.
async fn change_policy(stack: &LocalStack, endpoint: &Destination) -> anyhow::Result<()> {
    endpoint.forget();
    let setting = documents::commands("docs/recipes.md", "The topics")?;
    let changing = documents::commands("docs/subscribing.md", "Change a filter policy")?;
    run(stack, &[setting, changing].concat(), endpoint.address.as_str()).await?;
    for (event, name) in [("WorkbookCreated", "Weekly"), ("ViewDeleted", "Daily")] {
        let payload = json!({ "event_type": event, "resource_name": name });
        assert_eq!(stack.fire("finance", event, &payload, 1).await?, [Some(200)]);
    }
    let sent = eventually("an event at the endpoint", async || {
        let types = types(endpoint)?;
        Ok((!types.is_empty()).then_some(types))
    });
    assert_eq!(sent.await?, ["ViewDeleted"]);
    Ok(())
}

#[tokio::test]
async fn subscribing_works_as_documented() -> anyhow::Result<()> {
    let policies = policies()?;
    let stack = LocalStack::alone().await?;
    symlink(Workspace::locate()?.file("infra"), stack.folder().join("infra"))?;
    let [endpoint, chat] =
        [Destination::answering(StatusCode::OK).await?, Destination::answering(StatusCode::OK).await?];
    subscribe(&stack, &policies, &endpoint, &chat).await?;
    fire_all(&stack).await?;
    publish_reasons_and_ends(&stack).await?;
    check_queues(&stack, &policies).await?;
    let content = ["ViewDeleted", "WorkbookCreated", "WorkbookDeleted"];
    let sent = eventually("an event at the endpoint", async || {
        let types = types(&endpoint)?;
        Ok((types.len() >= content.len()).then_some(types))
    });
    assert_eq!(sent.await?, content);
    check_function(&stack).await?;
    check_alerts(&stack, &chat).await?;
    change_policy(&stack, &endpoint).await
}

#[tokio::test]
async fn the_example_queue_accepts_messages_of_its_topic_only() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let tools = PythonTools::for_local_stack(&workspace)?;
    let folder = TempDir::new()?;
    // A cloud that enforces policies.
    let (_server, cloud) = Cloud::start(&tools, &http_client()?, folder.path(), &[("AUTH", "true")]).await?;
    // It takes calls through this gateway for encrypted, which the queue requires.
    let headers = [(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static("https"))];
    let tls = Gateway::before(&cloud.endpoint, http_client()?, HeaderMap::from_iter(headers)).await?;
    let aws = &Aws::local(&tools, tls.address.clone(), folder.path());

    let mut topics = Vec::new();
    for name in ["ours", "theirs"] {
        let topic = aws.json(&["sns", "create-topic", "--name", name, "--query", "TopicArn"]).await?;
        topics.push(topic.as_str().context("a topic without an ARN")?.to_owned());
    }
    let template = workspace.file("infra/examples/sqs-subscriber.yaml");
    let deploy = ["cloudformation", "deploy", "--stack-name", "queue", "--template-file", &template.to_string_lossy()];
    let parameter = format!("EventsTopicArn={}", topics[0]);
    aws.run(&[&deploy[..], &["--parameter-overrides", &parameter]].concat()).await?;
    let url = output(aws, "queue", "QueueUrl").await?;
    let name = url.rsplit('/').next().context("a name")?;
    let endpoint = format!("arn:aws:sqs:{REGION}:000000000000:{name}");
    let subscribe = ["sns", "subscribe", "--protocol", "sqs", "--notification-endpoint", &endpoint, "--topic-arn"];
    aws.run(&[&subscribe[..], &[&topics[1]]].concat()).await?;
    for topic in topics.iter().rev() {
        let attributes = json!({ "action": { "DataType": "String", "StringValue": "refresh-failed" } }).to_string();
        let publish = ["sns", "publish", "--message", topic, "--topic-arn", topic, "--message-attributes", &attributes];
        aws.run(&publish).await?;
    }
    let arrived = eventually("a message", async || {
        let mut queues = in_queues(&cloud).await?;
        Ok(queues.remove(name).filter(|messages| !messages.is_empty()))
    });
    let arrived: Vec<_> = arrived.await?.into_iter().map(|message| message["Body"].clone()).collect();
    assert_eq!(arrived, [topics[0].as_str()]);
    Ok(())
}

/// The longest retention of SQS, in seconds.
const MAX_RETENTION: &str = "1209600";

/// Returns the safeguards that a resource of a stack lacks.
async fn lacks(aws: &Aws, resource_type: &str, id: &str) -> anyhow::Result<Vec<&'static str>> {
    let refuses_plain_text = |policy: &Value| {
        let policy: Value = serde_json::from_str(policy.as_str().unwrap_or_default()).unwrap_or_default();
        policy["Statement"].as_array().into_iter().flatten().any(|statement| {
            statement["Effect"] == "Deny"
                && statement["Condition"] == json!({ "Bool": { "aws:SecureTransport": "false" } })
        })
    };
    let checks = match resource_type {
        "AWS::SQS::Queue" => {
            let get = ["sqs", "get-queue-attributes", "--queue-url", id, "--attribute-names", "All"];
            let attributes = aws.json(&[&get[..], &["--query", "Attributes"]].concat()).await?;
            vec![
                ("the longest retention", attributes["MessageRetentionPeriod"] == MAX_RETENTION),
                ("encryption", attributes["SqsManagedSseEnabled"] == "true"),
                ("a policy against plain text", refuses_plain_text(&attributes["Policy"])),
            ]
        }
        "AWS::SNS::Subscription" => {
            let get = ["sns", "get-subscription-attributes", "--subscription-arn", id, "--query", "Attributes"];
            vec![("dead letters", aws.json(&get).await?["RedrivePolicy"].is_string())]
        }
        "AWS::Logs::LogGroup" => {
            let get = ["logs", "describe-log-groups", "--log-group-name-prefix", id, "--query", "logGroups[0]"];
            vec![("retention", aws.json(&get).await?["retentionInDays"].is_u64())]
        }
        "AWS::Lambda::Function" => {
            let get = ["lambda", "get-function-configuration", "--function-name", id, "--query", "LoggingConfig"];
            let group = aws.json(&get).await?["LogGroup"].as_str().unwrap_or_default().to_owned();
            let find = ["logs", "describe-log-groups", "--log-group-name-prefix", &group, "--query", "logGroups"];
            let has_own_group = !aws.json(&find).await?[0]["retentionInDays"].is_null();
            vec![("a log group of its stack's", has_own_group)]
        }
        "AWS::S3::Bucket" => {
            let get = async |command: &str| aws.json(&["s3api", command, "--bucket", id]).await.unwrap_or_default();
            let public = get("get-public-access-block").await["PublicAccessBlockConfiguration"].clone();
            let is_private = public.as_object().is_some_and(|blocks| blocks.values().all(|block| *block == true));
            vec![
                ("encryption", !get("get-bucket-encryption").await.is_null()),
                ("a block of public access", is_private),
                ("versions", get("get-bucket-versioning").await["Status"] == "Enabled"),
                ("a policy against plain text", refuses_plain_text(&get("get-bucket-policy").await["Policy"])),
            ]
        }
        _ => Vec::new(),
    };
    Ok(checks.into_iter().filter_map(|(name, is_there)| (!is_there).then_some(name)).collect())
}

/// Reads the filter policy of an example's subscription; `null` if it has none.
async fn filter_policy(aws: &Aws, stack: &str) -> anyhow::Result<Value> {
    let find = ["cloudformation", "describe-stack-resource", "--logical-resource-id", "Subscription", "--query"];
    let id = ["StackResourceDetail.PhysicalResourceId", "--stack-name", stack];
    let subscription = aws.json(&[&find[..], &id].concat()).await?;
    let subscription = subscription.as_str().context("no subscription")?;
    let get = ["sns", "get-subscription-attributes", "--subscription-arn", subscription, "--query"];
    let policy = aws.json(&[&get[..], &["Attributes.FilterPolicy"]].concat()).await?;
    let policy = policy.as_str().filter(|policy| !policy.is_empty());
    Ok(policy.map(serde_json::from_str).transpose()?.unwrap_or_default())
}

#[tokio::test]
async fn every_template_has_dead_letters_retention_and_encryption() -> anyhow::Result<()> {
    let stack = LocalStack::with_default_name().await?;
    let (aws, workspace) = (&stack.cloud.aws, Workspace::locate()?);
    let parameter = format!("EventsTopicArn={}", stack.stack.output("EventsTopicArn")?);
    let examples = ["firehose", "lambda", "sqs"];
    for example in examples {
        let template = workspace.file(&format!("infra/examples/{example}-subscriber.yaml"));
        let deploy = ["cloudformation", "deploy", "--stack-name", example, "--template-file"];
        let options = ["--capabilities", "CAPABILITY_IAM", "--parameter-overrides", &parameter];
        aws.run(&[&deploy[..], &[&template.to_string_lossy()], &options].concat()).await?;
    }
    let (mut checked, mut wrong) = (BTreeSet::new(), Vec::new());
    for name in [&[stack.stack.name()], &examples[..]].concat() {
        let query = "StackResources[].[ResourceType, PhysicalResourceId, LogicalResourceId]";
        let list = ["cloudformation", "describe-stack-resources", "--stack-name", name, "--query", query];
        let resources: Vec<[String; 3]> = serde_json::from_value(aws.json(&list).await?)?;
        for [resource_type, id, logical_id] in &resources {
            checked.insert(format!("{name} {resource_type}"));
            let lacking = lacks(aws, resource_type, id).await?;
            wrong.extend(lacking.into_iter().map(|safeguard| format!("{logical_id} of {name} lacks {safeguard}")));
        }
    }
    // The schedule explains the failures that this queue or its subscription loses.
    let expected = [
        "FailedRefreshes of tableau-fanout lacks the longest retention",
        "FailedRefreshesSubscription of tableau-fanout lacks dead letters",
    ];
    wrong.sort();
    assert_eq!(wrong, expected);
    // Each subscription has a queue for messages that do not reach it, and by default the filter policy of its example.
    let filters = [
        Value::Null,
        json!({ "action": ["created"], "site": ["finance", "marketing"] }),
        json!({ "action": ["refresh-failed"] }),
    ];
    for (example, filter) in examples.iter().zip(filters) {
        assert_eq!(filter_policy(aws, example).await?, filter, "{example}");
        assert!(checked.contains(&format!("{example} AWS::SQS::Queue")), "{checked:?}");
    }
    Ok(())
}
