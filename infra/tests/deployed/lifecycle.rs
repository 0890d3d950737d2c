//! The life of a stack: deployment, use, deletion, and a new stack of the same name.

use anyhow::{Context, ensure};
use infra::{service::http_client, stack::Stack};
use secrecy::ExposeSecret;
use serde_json::json;
use shared::events::catalogue::Event;
use tableau_simulator::model::Webhook;

use crate::{
    command::{Output, SECRET},
    testbed::Testbed,
};

/// A webhook that is not ours.
fn foreign() -> anyhow::Result<Webhook> {
    Ok(Webhook {
        id: "1".to_owned(),
        name: "Theirs".to_owned(),
        event: "ViewDeleted".parse()?,
        url: "https://their.example/".to_owned(),
        is_enabled: true,
        status_change_reason: None,
    })
}

/// Commands at a testbed, with all their output.
struct Session {
    testbed: Testbed,
    output: String,
}

impl Session {
    /// Adds a command's output, and checks that it has all of these.
    fn succeeded(&mut self, output: Output, expected: &[&str]) -> anyhow::Result<()> {
        self.output.push_str(&output.succeeded(expected)?.all());
        Ok(())
    }

    /// Runs a command that succeeds and prints all of these.
    async fn run(&mut self, arguments: &[&str], expected: &[&str]) -> anyhow::Result<()> {
        let output = self.testbed.infra(arguments).await?;
        self.succeeded(output, expected)
    }

    /// Runs a command that fails and prints all of these.
    async fn fail(&mut self, arguments: &[&str], expected: &[&str]) -> anyhow::Result<()> {
        self.output.push_str(&self.testbed.infra(arguments).await?.failed(expected)?.all());
        Ok(())
    }

    async fn deploy(&mut self) -> anyhow::Result<()> {
        let output = self.testbed.deploy(&[]).await?;
        self.succeeded(
            output,
            &[
                "account 000000000000, region eu-local-1",
                "the stack tableau-fanout will be created",
                "tableau-webhook-receiver: ",
                "needs GLIBC 2.",
                "EventsTopicArn  arn:aws:sns:",
                "cargo infra add-site marketing",
            ],
        )?;
        let output = self.testbed.deploy(&["--parameter", "Events=WorkbookCreated,ViewDeleted"]).await?;
        self.succeeded(output, &["the stack tableau-fanout will be updated; its state is CREATE_COMPLETE"])
    }

    async fn add_site(&mut self) -> anyhow::Result<()> {
        self.fail(&["test"], &["there is no site to test"]).await?;
        self.fail(&["url", "marketing", "ViewDeleted", "--force"], &["has no signing keys yet"]).await?;
        let output = self.testbed.add_site(&["--verbose"]).await?;
        self.succeeded(
            output,
            &[
                "the site has 1 webhooks",
                "aws ssm put-parameter --name /tableau-fanout/sites/marketing --type SecureString",
                "< (a secret)",
                r#"$ echo '{"action":"apply","sites":["marketing"]}' | aws lambda invoke"#,
                "  + tableau-fanout-WorkbookCreated",
                "The schedule now manages the webhooks of marketing",
            ],
        )?;
        ensure!(self.testbed.webhooks().len() == 3, "{:?}", self.testbed.webhooks());
        Ok(())
    }

    async fn reconcile(&mut self) -> anyhow::Result<()> {
        let status = [
            "✗ nobody is subscribed to events or alerts.",
            "UPDATE_COMPLETE, account 000000000000, region eu-local-1",
            "✓ last run     apply, ",
            "apply: every site is as declared (1 sites, 2 created, ",
            "on: looks back 24 h (RecoverHours)",
            "not recovered in the last 24 h: none",
            "✓ sites        1: marketing",
            "0 changes at 0 of 1 site. Nothing was done.",
        ];
        self.fail(&["status", "--verbose"], &status).await?;
        let site = ["--site", "marketing"];
        let reconcile = |action| [&["reconcile", action][..], &site].concat();
        self.run(&reconcile("destroy"), &["1 site is without any webhook of ours."]).await?;
        assert_eq!(self.testbed.webhooks(), ["Theirs"]);
        self.run(&reconcile("plan"), &["2 changes at 1 of 1 site. Nothing was done."]).await?;
        self.run(&reconcile("apply"), &["1 site is as declared."]).await
    }

    async fn test(&mut self) -> anyhow::Result<()> {
        let expected = [
            "2 tests were accepted by the receiver.",
            "✓ marketing  2 webhooks tested",
            "✓ event  Test of marketing",
            r#""type":"com.tableau.Test""#,
            "event_type    Test",
            "✓ alert  Tableau Fanout: test: 2 tests were accepted by the receiver",
            "marketing: 2 webhooks tested",
            "✗ nobody is subscribed to events or alerts.",
            "✓ Every test succeeded: events and alerts arrive.",
        ];
        self.run(&["test", "--verbose"], &expected).await?;
        let queues = self.testbed.aws("sqs list-queues --queue-name-prefix tableau-fanout-tmp-").await?;
        ensure!(queues["QueueUrls"].as_array().is_none_or(Vec::is_empty), "left: {queues}");
        let subscribed = self.testbed.aws("sns list-subscriptions --query Subscriptions[].Endpoint").await?;
        // The stack's own queue of failed refreshes.
        assert_eq!(subscribed, json!(["arn:aws:sqs:eu-local-1:000000000000:tableau-fanout-failures"]));
        Ok(())
    }

    /// Prints a signed URL, and checks that the receiver accepts it and Tableau has it.
    async fn url(&self, stack: &Stack) -> anyhow::Result<String> {
        let output = self.testbed.infra(&["url", "marketing", "ViewDeleted"]).await?;
        let url = output.succeeded(&["this URL is a credential"])?.stdout.trim().to_owned();
        let path = url.strip_prefix(stack.output("ReceiverUrl")?).context("another receiver")?;
        let reachable = format!("{}{path}", stack.reachable_receiver_url(&self.testbed.cloud.aws)?);
        assert_eq!(http_client()?.post(reachable).body("{}").send().await?.status(), 200);
        let registered = |webhook: &Webhook| webhook.url == url;
        let world = self.testbed.tableau.simulator.world();
        ensure!(world.sites.values().any(|site| site.webhooks.iter().any(registered)));
        Ok(url)
    }

    async fn destroy(&mut self) -> anyhow::Result<()> {
        self.fail(&["destroy"], &["there is no confirmation. Nothing was done"]).await?;
        let expected = [
            "the parameter /tableau-fanout/signing-keys",
            "A later stack called tableau-fanout uses both; --delete-parameters deletes them",
            "1 site is without any webhook of ours.",
            "The stack tableau-fanout is deleted.",
            "Kept: /tableau-fanout/sites/marketing.",
        ];
        self.run(&["destroy", "--yes"], &expected).await?;
        assert_eq!(self.testbed.webhooks(), ["Theirs"]);
        nothing_is_left(&self.testbed, &["/tableau-fanout/sites/marketing"], &["Enabled"]).await
    }
}

#[tokio::test]
async fn a_stack_is_deployed_used_and_destroyed_and_leaves_only_what_was_announced() -> anyhow::Result<()> {
    let mut session = Session { testbed: Testbed::start().await?, output: String::new() };
    let world = || session.testbed.tableau.simulator.world();
    world().sites.values_mut().for_each(|site| site.webhooks.extend(foreign().ok()));
    session.deploy().await?;
    session.add_site().await?;
    session.reconcile().await?;
    session.test().await?;
    let aws = session.testbed.cloud.aws.clone();
    let stack = Stack::read(&aws, "tableau-fanout").await?;
    let (url, keyring) = (session.url(&stack).await?, stack.keyring(&aws).await?.to_stored());
    session.destroy().await?;

    let Session { testbed, output } = session;
    for secret in [SECRET, keyring.expose_secret().trim_matches(['[', ']', '"']), &url] {
        ensure!(!output.contains(secret), "{secret} is shown: {output}");
    }
    let status = testbed.infra(&["status"]).await?;
    status.failed(&["there is no stack tableau-fanout in account 000000000000, region eu-local-1."])?;
    a_new_stack_uses_the_kept_parameters(&testbed).await
}

async fn a_new_stack_uses_the_kept_parameters(testbed: &Testbed) -> anyhow::Result<()> {
    let parameter = "/tableau-fanout/sites/marketing exists from an earlier stack and will be used.";
    testbed.deploy(&["--parameter", "Events=ViewDeleted"]).await?.succeeded(&["will be created", parameter])?;
    let exists = "the entry /tableau-fanout/sites/marketing exists already";
    testbed.add_site(&[]).await?.failed(&[exists, "--overwrite"])?;
    testbed.add_site(&["--overwrite"]).await?.succeeded(&["  + tableau-fanout-ViewDeleted"])?;
    testbed.infra(&["destroy", "--yes", "--delete-parameters"]).await?.succeeded(&["is deleted."])?;
    assert_eq!(testbed.webhooks(), ["Theirs"]);
    nothing_is_left(testbed, &[], &["PendingDeletion", "PendingDeletion"]).await
}

#[tokio::test]
async fn keys_of_earlier_stacks_are_found_by_the_name_of_the_stack() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    for theirs in ["Site entries, signing keys and topics of tableau-fanout-2", "Something else"] {
        let create = ["kms", "create-key", "--description", theirs];
        testbed.cloud.aws.run(&create).await?;
    }
    // Without the schedule of each minute: ministack makes a log group anew for a run that outlasts its function. On AWS the
    // function's role does not allow that.
    let alone = ["--parameter", "RecoverHours=0"];
    let mut earlier = Vec::new();
    for _ in 0..2 {
        testbed.deploy(&alone).await?.succeeded(&[])?;
        let stack = Stack::read(&testbed.cloud.aws, "tableau-fanout").await?;
        let delete = |key: &String| format!("aws kms schedule-key-deletion --key-id {key}");
        let mut expected: Vec<_> = earlier.iter().map(delete).collect();
        let key = stack.output("KeyId")?.to_owned();
        expected.push(format!("the encryption key {key}, which the parameters need"));
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        testbed.infra(&["destroy", "--yes"]).await?.succeeded(&expected)?;
        earlier.push(key);
        // The keys are found without a stack too.
        let expected: Vec<_> = earlier.iter().map(delete).collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        testbed.infra(&["destroy", "--yes"]).await?.failed(&[&["there is no stack"][..], &expected].concat())?;
    }
    testbed.deploy(&alone).await?.succeeded(&[])?;
    let deleted =
        earlier.iter().map(|key| format!("the encryption key {key} of an earlier stack of this name: unusable"));
    let deleted: Vec<_> = deleted.collect();
    let deleted: Vec<_> = deleted.iter().map(String::as_str).collect();
    testbed.infra(&["destroy", "--yes", "--delete-parameters"]).await?.succeeded(&deleted)?;
    nothing_is_left(&testbed, &[], &["Enabled", "Enabled", "PendingDeletion", "PendingDeletion", "PendingDeletion"])
        .await
}

/// Checks that no resources are left, no parameters but these, and keys only in these states.
async fn nothing_is_left(testbed: &Testbed, parameters: &[&str], keys: &[&str]) -> anyhow::Result<()> {
    for (command, list) in [
        ("lambda list-functions", "Functions"),
        ("sns list-topics", "Topics"),
        ("logs describe-log-groups", "logGroups"),
        ("iam list-roles", "Roles"),
        ("scheduler list-schedules", "Schedules"),
        ("kms list-aliases", "Aliases"),
        ("cloudwatch describe-alarms", "MetricAlarms"),
        ("sqs list-queues", "QueueUrls"),
    ] {
        let left = testbed.aws(&format!("{command} --query {list}")).await?;
        ensure!(left.as_array().is_none_or(Vec::is_empty), "{command}: {left}");
    }
    let listed = testbed.aws("kms list-keys --query Keys[].KeyId").await?;
    let mut states = Vec::new();
    for key in listed.as_array().context("no keys")?.iter().filter_map(|key| key.as_str()) {
        let state = testbed.aws(&format!("kms describe-key --key-id {key} --query KeyMetadata.KeyState")).await?;
        states.push(state.as_str().context("a key without a state")?.to_owned());
    }
    states.sort();
    assert_eq!(states, keys);
    let list = "ssm get-parameters-by-path --path /tableau-fanout --recursive --query Parameters[].Name";
    assert_eq!(testbed.aws(list).await?, json!(parameters));
    Ok(())
}

#[tokio::test]
async fn only_force_destroys_a_stack_whose_webhooks_are_still_on_tableau() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    testbed.deploy(&[]).await?.succeeded(&[])?;
    testbed.add_site(&[]).await?.succeeded(&[])?;
    let before = testbed.webhooks();
    assert_eq!(before.len(), Event::default_selection().len());
    testbed.tableau.simulator.world().sites.values_mut().for_each(|site| site.tokens.clear());
    testbed.infra(&["reconcile", "apply"]).await?.failed(&["refused the token", "some sites failed"])?;
    testbed
        .infra(&["status", "--verbose"])
        .await?
        .failed(&["not every site is as declared (1 sites, 1 sites failed"])?;
    testbed.infra(&["destroy", "--yes"]).await?.failed(&[
        "refused the token",
        "the stack was not deleted, since some of its webhooks may be left on Tableau. The next scheduled run",
        "delete the webhooks called tableau-fanout-… on Tableau yourself",
    ])?;
    let state = "scheduler list-schedules --query Schedules[].State";
    assert_eq!(testbed.aws(state).await?, json!(["ENABLED", "ENABLED"]));
    testbed.infra(&["destroy", "--yes", "--force"]).await?.succeeded(&["because of --force", "is deleted."])?;
    assert_eq!(testbed.webhooks(), before);
    nothing_is_left(&testbed, &["/tableau-fanout/sites/marketing"], &["Enabled"]).await
}
