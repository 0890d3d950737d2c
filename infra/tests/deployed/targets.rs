//! Targets outside of AWS: added, listed, tested, redriven and removed.

use std::fs;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    command::{Output, SECRET, infra, interrupt},
    sink::Sink,
    testbed::Testbed,
};

/// A stack with a site, and a service that plays its targets.
struct World {
    testbed: Testbed,
    sink: Sink,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let (testbed, sink) = (Testbed::start().await?, Sink::start().await?);
        testbed
            .deploy(&["--parameter", "Events=WorkbookCreated", "--parameter", "RecoverHours=0"])
            .await?
            .succeeded(&[])?;
        Ok(Self { testbed, sink })
    }

    /// The path of a target at the service. It is a secret, which no output may have.
    fn path(name: &str) -> String {
        format!("{name}/{SECRET}")
    }

    async fn add(&self, name: &str, options: &[&str]) -> anyhow::Result<Output> {
        let entry = json!({ "address": self.sink.address(&Self::path(name)) });
        let add = [&["add-target", name, "--verbose"], options].concat();
        self.testbed.infra_with(&add, &entry.to_string()).await
    }

    /// Names of the parameters of targets.
    async fn parameters(&self) -> anyhow::Result<Value> {
        self.testbed.aws("ssm get-parameters-by-path --path /tableau-fanout/targets --query Parameters[].Name").await
    }
}

#[tokio::test]
async fn targets_are_added_tested_redriven_and_removed() -> anyhow::Result<()> {
    let world = World::start().await?;
    let World { testbed, sink } = &world;
    testbed.add_site(&[]).await?.succeeded(&[])?;
    testbed
        .infra(&["targets"])
        .await?
        .succeeded(&["There is no target. To add one: cargo infra add-target failures"])?;
    testbed.infra(&["status"]).await?.failed(&["✓ targets      none"])?;

    world.add("chat", &["--preset", "slack", "--on", "failures"]).await?.succeeded(&[
        "! the address does not begin with https://hooks.slack.com/",
        "✓ the target answered 200",
        "aws ssm put-parameter --name /tableau-fanout/targets/chat --type SecureString",
        " --tier Intelligent-Tiering ",
        "✓ The target chat gets failures.",
    ])?;
    let sample = sink.received(&World::path("chat"));
    ensure!(sample.len() == 1 && sample[0].to_string().contains("This is a sample"), "{sample:?}");
    world
        .add("chat", &["--preset", "slack"])
        .await?
        .failed(&["the target chat exists already. Nothing was stored", "cargo infra add-target chat --overwrite"])?;
    a_target_that_refuses_the_sample_is_not_stored(&world).await?;

    let site = ["--on", "everything", "--site", "marketing"];
    let other = ["--preset", "plain", "--on", "everything", "--site", "finance", "--no-sample"];
    world.add("other", &other).await?.succeeded(&["! the stack declares no site finance", "events, site finance."])?;
    testbed.infra(&["remove-target", "other", "--yes"]).await?.succeeded(&[])?;
    world
        .add("bi", &[&["--preset", "plain"], &site[..]].concat())
        .await?
        .succeeded(&["✓ The target bi gets events, site marketing."])?;
    testbed.infra(&["test"]).await?.succeeded(&[
        "✓ bi    took the message of the test",
        "! chat  not tried, since it gets failures only. To send it a sample: cargo infra add-target chat --overwrite",
        "✓ Every test succeeded",
    ])?;
    // After the refused sample and the accepted one.
    let arrived = sink.wait_for(&World::path("bi"), 3).await?;
    assert_eq!(arrived[2]["type"], "com.tableau.Test");
    testbed
        .infra(&["targets"])
        .await?
        .succeeded(&["✓ bi    plain   events, site marketing  0        0             none"])?;
    dead_letters_are_shown_and_sent_again(&world).await?;
    what_others_changed_is_reported(&world).await?;
    targets_are_removed(&world).await
}

/// Refuses samples, and stores a target all the same with an option.
async fn a_target_that_refuses_the_sample_is_not_stored(world: &World) -> anyhow::Result<()> {
    let World { testbed, sink } = world;
    sink.answer(404)?;
    let plain = ["--preset", "plain", "--on", "everything"];
    world.add("bi", &plain).await?.failed(&[
        "✗ the target answered 404",
        "the target did not accept the sample: the target answered 404. Nothing was stored. Fix: correct the address",
    ])?;
    for (entry, expected) in [
        ("", "standard input is empty. Nothing was stored"),
        ("[]", "its value is not a JSON object"),
        (r#"{"address":"http://target.example/"}"#, "address is not valid: expected an https address"),
        (r#"{"address":"https://10.0.0.1/"}"#, "the target did not answer (the address is not public)"),
    ] {
        testbed.infra_with(&[&["add-target", "bi"], &plain[..]].concat(), entry).await?.failed(&[expected])?;
    }
    testbed.infra(&["add-target", "bi"]).await?.failed(&["--preset"])?;
    assert_eq!(world.parameters().await?, json!(["/tableau-fanout/targets/chat"]));
    sink.answer(200)?;
    Ok(())
}

/// Lets a message become a dead letter, and sends it again.
async fn dead_letters_are_shown_and_sent_again(world: &World) -> anyhow::Result<()> {
    let World { testbed, sink } = world;
    sink.answer(422)?;
    let reason = "the target answered 422, and would answer the same again";
    testbed
        .infra(&["test"])
        .await?
        .failed(&[&format!("✗ bi    {reason}. The message is a dead letter"), "1 of 2 targets failed"])?;
    let finding = format!("✗ target bi: 1 message not delivered, and not tried again. The last error: {reason}.");
    testbed.infra(&["targets"]).await?.failed(&[
        &finding,
        "Fix: correct the target, such as with cargo infra add-target bi --overwrite; then cargo infra redrive bi",
        "1 of 2 targets do not get their messages",
    ])?;
    testbed
        .infra(&["status"])
        .await?
        .failed(&[&finding, "✗ targets      2: bi, chat; nothing waiting, 1 dead letter"])?;
    let json = testbed.infra(&["targets", "--json"]).await?;
    let listed: Value = serde_json::from_str(&json.stdout).context("no JSON")?;
    assert_eq!((&listed[0]["dead_letters"], &listed[0]["last_error"]["error"]), (&json!(1), &json!(reason)));
    assert_eq!((&listed[1]["preset"], &listed[1]["gets"]), (&json!("slack"), &json!("failures")));

    sink.answer(200)?;
    let before = sink.received(&World::path("bi")).len();
    // Somebody looks at it.
    let queue = testbed.aws("sqs get-queue-url --queue-name tableau-fanout-target-bi-dead --query QueueUrl").await?;
    let queue = queue.as_str().context("no queue")?;
    let receive = format!("sqs receive-message --queue-url {queue} --visibility-timeout 120");
    let receive = testbed.aws(&format!("{receive} --query Messages[0].ReceiptHandle")).await?;
    testbed.infra(&["redrive", "bi"]).await?.failed(&[
        "no dead letter of bi was moved: 1 is hidden for up to 2 minutes.",
        "Fix: run this command again then",
    ])?;
    let receipt = ["--receipt-handle", receive.as_str().context("no receipt")?, "--visibility-timeout", "0"];
    let show = ["sqs", "change-message-visibility", "--queue-url", queue];
    testbed.cloud.aws.run(&[&show[..], &receipt].concat()).await?;
    let sent = testbed.infra(&["redrive", "bi", "--verbose"]).await?;
    let sent = sent.succeeded(&["✓ Sent 1 message of bi again.", "--message-body file:///dev/stdin"])?;
    ensure!(!sent.all().contains("com.tableau.Test"), "{}", sent.all());
    sink.wait_for(&World::path("bi"), before + 1).await?;
    testbed.infra(&["redrive", "bi"]).await?.succeeded(&["✓ bi has no dead letters."])?;
    testbed.infra(&["redrive", "no"]).await?.failed(&["there is no queue tableau-fanout-target-no-dead"])?;
    Ok(())
}

/// Changes targets without our commands, and repairs them with the commands that are named.
async fn what_others_changed_is_reported(world: &World) -> anyhow::Result<()> {
    let World { testbed, .. } = world;
    // The stack got another events topic.
    let topic = testbed.aws("sns create-topic --name earlier --query TopicArn").await?;
    let topic = format!("ParameterKey=TopicArn,ParameterValue={}", topic.as_str().context("no topic")?);
    let kept = ["Stack", "Target", "FilterPolicy", "AlertsTopicArn", "Coalesce"];
    let kept = kept.map(|parameter| format!("ParameterKey={parameter},UsePreviousValue=true")).join(" ");
    let update = "cloudformation update-stack --stack-name tableau-fanout-target-bi --use-previous-template";
    testbed.aws(&format!("{update} --capabilities CAPABILITY_IAM --parameters {kept} {topic}")).await?;
    testbed.aws("cloudformation wait stack-update-complete --stack-name tableau-fanout-target-bi").await?;
    testbed.infra(&["targets"]).await?.failed(&[
        "✗ target bi: it subscribes to a topic that the stack does not have, so it gets no messages.",
        "Fix: cargo infra add-target bi --overwrite\n",
    ])?;
    // Its alerts were held, and are not after the repair.
    let held = |item: &str| format!(r#"{{"pk":{{"S":"target#{item}"}}}}"#);
    let table = ["dynamodb", "put-item", "--table-name", "tableau-fanout-state", "--item"];
    for item in ["bi#problem", "chat#problem", "chat"] {
        testbed.cloud.aws.run(&[&table[..], &[&held(item)]].concat()).await?;
    }
    testbed
        .infra(&["add-target", "bi", "--overwrite"])
        .await?
        .succeeded(&["The target bi gets events, site marketing."])?;
    assert_eq!(held_alerts(testbed).await?, json!(["target#chat", "target#chat#problem"]));
    // The queue of somebody else, and an entry that no command of ours stores.
    testbed.aws("sqs create-queue --queue-name tableau-fanout-target-other").await?;
    testbed.aws("ssm put-parameter --name /tableau-fanout/targets/Team_Slack --type String --value {}").await?;
    let listed = testbed.infra(&["targets"]).await?;
    let listed = listed.failed(&[
        "✗ target Team_Slack: a target's name consists of",
        "Fix: aws ssm delete-parameter --name /tableau-fanout/targets/Team_Slack",
        "✓ bi ",
        "1 of 3 targets",
    ])?;
    ensure!(!listed.all().contains("other"), "{}", listed.all());
    testbed.aws("ssm delete-parameter --name /tableau-fanout/targets/Team_Slack").await?;
    Ok(())
}

/// Keys of the items of targets in the state table, sorted.
async fn held_alerts(testbed: &Testbed) -> anyhow::Result<Value> {
    let keys = testbed.aws("dynamodb scan --table-name tableau-fanout-state --query Items[].pk.S").await?;
    let keys = keys.as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut keys: Vec<_> = keys.filter(|key| key.starts_with("target#")).collect();
    keys.sort_unstable();
    Ok(json!(keys))
}

async fn targets_are_removed(world: &World) -> anyhow::Result<()> {
    let World { testbed, .. } = world;
    testbed
        .infra(&["remove-target", "no", "--yes"])
        .await?
        .failed(&["there is no target no.", "declared are bi, chat"])?;
    testbed
        .infra(&["remove-target", "chat"])
        .await?
        .failed(&["there is no confirmation. Nothing was removed. Fix: add --yes"])?;
    testbed.infra(&["remove-target", "chat", "--yes"]).await?.succeeded(&[
        "This deletes permanently the target chat, whose queue and dead letters are empty.",
        "✓ chat is removed.",
    ])?;
    assert_eq!(world.parameters().await?, json!(["/tableau-fanout/targets/bi"]));
    assert_eq!(held_alerts(testbed).await?, json!([]));
    // Somebody deleted the stack alone.
    testbed.aws("cloudformation delete-stack --stack-name tableau-fanout-target-bi").await?;
    testbed.infra(&["targets"]).await?.failed(&["✗ target bi: its stack is missing, so it gets no messages."])?;
    // A repetition completes what an interruption left.
    let add = ["add-target", "bi", "--overwrite", "--endpoint-url", &testbed.cloud.endpoint];
    let errors = interrupt(infra(&add), "Deploy the stack tableau-fanout-target-bi").await?;
    ensure!(
        errors.contains("The entry of bi may be stored, and its stack may be incomplete. Fix: run this"),
        "{errors}"
    );
    let plain = ["--preset", "plain", "--on", "everything"];
    world.add("bi", &plain).await?.succeeded(&["✓ The target bi gets events."])?;
    // As in a stack from before targets.
    testbed.aws("logs delete-log-group --log-group-name /aws/lambda/tableau-fanout-forwarder").await?;
    testbed
        .infra(&["targets"])
        .await?
        .failed(&["✗ target bi: the stack tableau-fanout has no forwarder", "Fix: cargo infra deploy"])?;
    testbed.infra(&["destroy", "--yes"]).await?.succeeded(&[
        "- the target bi, whose queue and dead letters are empty, its stack and its entry",
        "is deleted.",
    ])?;
    assert_eq!(world.parameters().await?, json!([]));
    let stacks = "cloudformation list-stacks --query StackSummaries[?StackStatus!='DELETE_COMPLETE'].StackName";
    assert_eq!(testbed.aws(stacks).await?, json!([]));
    Ok(())
}

/// Reads the entry of a target.
async fn entry(testbed: &Testbed, name: &str) -> anyhow::Result<Value> {
    let read = format!("ssm get-parameter --with-decryption --name /tableau-fanout/targets/{name}");
    let parameter = testbed.aws(&read).await?;
    let value = parameter["Parameter"]["Value"].as_str().context("no value")?;
    serde_json::from_str(value).context("no JSON")
}

#[tokio::test]
async fn a_terminal_is_asked_for_what_a_target_needs_and_shows_no_secret() -> anyhow::Result<()> {
    let world = World::start().await?;
    let World { testbed, sink } = &world;
    let address = sink.address(&World::path("bi"));
    let signing = format!("whsec_{}", "c2VjcmV0".repeat(4));
    let plain =
        ["add-target", "bi", "--preset", "plain", "--on", r#"{"action":["created"]}"#, "--credentials", "header"];
    let answers = [
        ("https://… (not shown): ", "", true),
        ("https://… (not shown): ", "http://target.example/", true),
        ("https://… (not shown): ", &address, true),
        ("Name of the header: ", "X-Api-Key", false),
        ("Its value (not shown): ", SECRET, true),
        ("Enter for none): ", &signing, true),
    ];
    let output = testbed.infra_in_terminal(&plain, &answers).await?.succeeded(&[
        "this is empty",
        "this is not an https address without a user and a password",
        "the target answered 200",
        r#"The target bi gets events {"action":["created"]}."#,
    ])?;
    ensure!(!output.all().contains(&signing) && !output.all().contains(&address), "{}", output.all());
    let stored = json!({ "preset": "plain", "address": address, "signing_secret": signing,
        "credentials": { "type": "header", "name": "X-Api-Key", "value": SECRET } });
    assert_eq!(entry(testbed, "bi").await?, stored);
    testbed
        .infra(&["add-target", "bi", "--overwrite", "--site", "marketing"])
        .await?
        .failed(&["--site and --project need --on for a target that exists. Nothing was stored"])?;
    testbed
        .infra(&["add-target", "bi", "--overwrite", "--preset", "slack"])
        .await?
        .failed(&["another preset needs the messages again. Nothing was stored. Fix: add --on"])?;
    testbed
        .infra_in_terminal(&["add-target", "tickets", "--preset", "custom"], &[])
        .await?
        .failed(&["the preset custom needs a template. Nothing was stored. Fix: add --template FILE"])?;
    // Enter keeps what is stored.
    let answers = [("keeps the stored one): ", "", true), ("keeps the stored one): ", "", true)];
    testbed
        .infra_in_terminal(&["add-target", "bi", "--overwrite"], &answers)
        .await?
        .succeeded(&["the target answered 200", r#"The target bi gets events {"action":["created"]}."#])?;
    assert_eq!(entry(testbed, "bi").await?, stored);
    // Everything that CloudFormation knows of it.
    let known = testbed.aws("cloudformation describe-stacks --stack-name tableau-fanout-target-bi").await?.to_string();
    ensure!(![SECRET, &signing].iter().any(|secret| known.contains(secret)), "{known}");
    known_services_ask_for_their_keys(testbed).await?;

    a_template_is_tried_with_the_sample(&world).await?;
    let answers = [("https://… (not shown): ", "\u{3}", true)];
    testbed
        .infra_in_terminal(&["add-target", "other", "--preset", "plain"], &answers)
        .await?
        .failed(&["interrupted. Nothing was stored. Fix: run this command again"])?;
    testbed
        .infra_in_terminal(&["remove-target", "bi"], &[("to remove it: ", "yes", false)])
        .await?
        .failed(&["the answer is not bi, the target's name. Nothing was removed."])?;
    testbed
        .infra_in_terminal(&["remove-target", "bi"], &[("to remove it: ", "bi", false)])
        .await?
        .succeeded(&["bi is removed."])?;
    Ok(())
}

/// Adds a target with a template: one that renders no JSON, then one that does.
async fn a_template_is_tried_with_the_sample(world: &World) -> anyhow::Result<()> {
    let World { sink, .. } = world;
    let folder = TempDir::new()?;
    let file = folder.path().join("template.json.j2");
    let custom = ["--preset", "custom", "--template", file.to_str().context("a path")?];
    world
        .add("tickets", &custom)
        .await?
        .failed(&["cannot read", "Nothing was stored. Fix: give the path of the template"])?;
    fs::write(&file, "no JSON: {{ alert.title }}")?;
    world
        .add("tickets", &custom)
        .await?
        .failed(&["the sample cannot be rendered. Nothing was stored. Fix: correct"])?;
    fs::write(&file, r#"{ "summary": {{ alert.title }} }"#)?;
    world.add("tickets", &custom).await?.succeeded(&["The target tickets gets failures."])?;
    let [sample] = &sink.received(&World::path("tickets"))[..] else { bail!("other messages") };
    ensure!(sample["summary"].as_str().is_some_and(|title| title.contains("Sample of Tableau Fanout")), "{sample}");
    Ok(())
}

/// Adds targets whose address is known or is built.
async fn known_services_ask_for_their_keys(testbed: &Testbed) -> anyhow::Result<()> {
    let pagerduty = ["add-target", "pager", "--preset", "pagerduty", "--no-sample"];
    let key = ("Integration key of the PagerDuty service (not shown): ", SECRET, true);
    testbed.infra_in_terminal(&pagerduty, &[key]).await?.succeeded(&["The target pager gets failures."])?;
    let mut stored = json!({ "preset": "pagerduty", "address": "https://events.pagerduty.com/v2/enqueue",
        "credentials": { "type": "body", "member": "routing_key", "value": SECRET } });
    assert_eq!(entry(testbed, "pager").await?, stored);
    // An account in the other region has another key, so the stored one is not offered.
    let eu = [&pagerduty[..], &["--overwrite", "--eu"]].concat();
    testbed.infra_in_terminal(&eu, &[key]).await?.succeeded(&["The target pager gets failures."])?;
    stored["address"] = json!("https://events.eu.pagerduty.com/v2/enqueue");
    assert_eq!(entry(testbed, "pager").await?, stored);
    let ifttt = ["add-target", "lamp", "--preset", "ifttt", "--no-sample", "--on", "alerts"];
    let answers = [("Name of the event in IFTTT: ", "failed", false), ("service (not shown): ", SECRET, true)];
    testbed.infra_in_terminal(&ifttt, &answers).await?.succeeded(&["The target lamp gets alerts."])?;
    let address = format!("https://maker.ifttt.com/trigger/failed/with/key/{SECRET}");
    assert_eq!(entry(testbed, "lamp").await?, json!({ "preset": "ifttt", "address": address }));
    Ok(())
}
