//! Whether a stack works, as `cargo infra test` and `cargo infra status` show it.

use anyhow::{Context, bail, ensure};
use documents::Document;
use infra::{queue, stack::Stack};
use serde_json::{Value, json};

use crate::{
    command::{Output, SECRET, infra, run},
    testbed::{CONTENT_URL, Testbed},
};

/// A stack with two sites, whose tokens can be revoked.
struct TwoSites {
    testbed: Testbed,
}

impl TwoSites {
    async fn deploy(parameters: &[&str]) -> anyhow::Result<Self> {
        let testbed = Testbed::start().await?;
        let events = ["--parameter", "Events=WorkbookCreated,ViewDeleted"];
        testbed.deploy(&[&events[..], parameters].concat()).await?.succeeded(&[])?;
        testbed.add_site(&[]).await?.succeeded(&[])?;
        testbed.tableau.simulator.world().add_site("fin", "fanout", SECRET);
        let mut finance = testbed.entry();
        finance["site"] = json!("fin");
        testbed.infra_with(&["add-site", "finance"], &finance.to_string()).await?.succeeded(&[])?;
        Ok(Self { testbed })
    }

    /// Revokes the token of a site, by its contentUrl.
    fn revoke(&self, content_url: &str) -> anyhow::Result<()> {
        let mut world = self.testbed.tableau.simulator.world();
        world.sites.get_mut(content_url).context("no such site")?.tokens.clear();
        Ok(())
    }

    /// Runs `cargo infra test`, and checks that it leaves no queue.
    async fn test(&self, options: &[&str]) -> anyhow::Result<Output> {
        let output = self.testbed.infra(&[&["test"], options].concat()).await?;
        let queues = self.testbed.aws("sqs list-queues --queue-name-prefix tableau-fanout-tmp-").await?;
        ensure!(queues["QueueUrls"].as_array().is_none_or(Vec::is_empty), "left: {queues}");
        Ok(output)
    }
}

#[tokio::test]
async fn a_test_reports_each_site_and_receives_events_of_those_that_work() -> anyhow::Result<()> {
    let sites = TwoSites::deploy(&["--parameter", "FifoEventsTopic=true"]).await?;
    let works = ["✓ finance    2 webhooks tested", "✓ marketing  2 webhooks tested", "✓ event  Test of ", "nobody"];
    sites.test(&[]).await?.succeeded(&works)?;

    sites.revoke("fin")?;
    let one_failed = [
        "✗ finance    Tableau refused the token",
        "cargo infra add-site finance --overwrite",
        "✓ marketing  2 webhooks tested",
        "✓ event  Test of marketing",
        "✓ alert  Tableau Fanout: test: 1 of 2 sites failed",
        "error: the test failed: 1 of 2 sites failed. Fix: see above; for the whole report: cargo infra test --verbose",
    ];
    let short = sites.test(&[]).await?.failed(&one_failed)?;
    ensure!(!short.all().contains("com.tableau.Test"), "details: {}", short.all());
    // The alert is as short as the report.
    let long =
        sites.test(&["--verbose"]).await?.failed(&["com.tableau.Test", "finance: token refused. Tableau refused"])?;
    ensure!(long.all().contains("marketing: 2 webhooks tested"), "{}", long.all());
    let one = sites.test(&["--site", "marketing"]).await?.succeeded(&["✓ marketing  2 webhooks tested"])?;
    ensure!(!one.all().contains("finance"), "{}", one.all());

    sites.revoke(CONTENT_URL)?;
    let all_failed = ["! event  none can arrive, since the receiver accepted no test", "test: 2 of 2 sites failed"];
    sites.test(&[]).await?.failed(&all_failed)?;
    Ok(())
}

#[tokio::test]
async fn the_status_is_a_line_for_each_part_and_each_problem_has_its_fix() -> anyhow::Result<()> {
    let sites = TwoSites::deploy(&[]).await?;
    let testbed = &sites.testbed;
    alerts_that_reach_nobody_are_reported(testbed).await?;
    subscribe_queues(testbed).await?;

    let subscribers = "events: sqs failures (action=refresh-failed); alerts: email yo…@example.com, https \
                       hooks.example.com (not confirmed), sqs alerts";
    let healthy =
        testbed.infra(&["status"]).await?.succeeded(&[subscribers, "✓ sites        2: finance, marketing"])?;
    ensure!(healthy.stdout.lines().count() == 7 && !healthy.stdout.contains('\u{1b}'), "{}", healthy.stdout);
    ensure!(healthy.stdout.lines().all(|line| line.starts_with('✓')), "{}", healthy.stdout);
    the_documented_commands_succeed(testbed).await?;
    let coloured = testbed.infra_in_terminal(&["status"], &[]).await?.succeeded(&["\u{1b}[32m✓"])?;
    ensure!(!coloured.stdout.contains("==>"), "{}", coloured.stdout);
    let status = json_of(&testbed.infra(&["status", "--json", "--verbose"]).await?.succeeded(&["receiver"])?)?;
    assert_eq!((&status["ok"], &status["problems"], &status["warnings"]), (&json!(true), &json!([]), &json!([])));
    assert_eq!(status["last_run"]["succeeded"], true);
    assert_eq!(status["last_event"]["event"], "Test");
    assert_eq!(status["subscribers"]["events"][0]["filter"], json!({ "action": ["refresh-failed"] }));

    let raise =
        "cloudwatch set-alarm-state --alarm-name tableau-fanout-dead-letters --state-value ALARM --state-reason x";
    testbed.cloud.aws.run(&raise.split(' ').collect::<Vec<_>>()).await?;
    sites.revoke("fin")?;
    let applied = testbed.infra(&["reconcile", "apply", "--json"]).await?.failed(&["finance: 1 error"])?;
    let report = json_of(&applied)?;
    assert_eq!((&report["action"], &report["failure"]), (&json!("apply"), &json!("SitesFailed")));
    let failed: Vec<_> =
        report["sites"].as_array().context("no sites")?.iter().map(|it| it["errors"] != json!([])).collect();
    assert_eq!(failed, [true, false]);
    let wrong = [
        "✗ finance: token refused since ",
        "  Fix: cargo infra add-site finance --overwrite\n",
        "✗ alarm tableau-fanout-dead-letters: The schedule could not call the reconciler",
        "✗ sites        2, 1 with problems: finance, marketing",
        "✗ alarms       1 raised, 12 quiet",
        "✗ last run     apply, ",
        "error: 2 problems of tableau-fanout. Fix: see above",
    ];
    let status = testbed.infra(&["status"]).await?.failed(&wrong)?;
    ensure!(status.stdout.starts_with('✗'), "{}", status.stdout);
    let status = json_of(&testbed.infra(&["status", "--json"]).await?.failed(&[])?)?;
    assert_eq!((&status["ok"], status["problems"].as_array().map(Vec::len)), (&json!(false), Some(2)));
    assert!(status["sites"][0]["problems"]["token-refused"].is_string(), "{status}");

    let planned = testbed.infra(&["reconcile", "plan", "--site", "marketing", "--json"]).await?.succeeded(&[])?;
    assert_eq!(json_of(&planned)?["failure"], Value::Null);
    a_url_of_an_undeclared_site_needs_force(testbed).await
}

/// Subscribes an endpoint that does not confirm, then an e-mail address by the command that `status` prints. The local cloud
/// asks no e-mail address to confirm.
async fn alerts_that_reach_nobody_are_reported(testbed: &Testbed) -> anyhow::Result<()> {
    let nobody = "✗ nobody is subscribed to events or alerts. Failed refreshes and problems of sites reach nobody.";
    let status = testbed.infra(&["status"]).await?.failed(&[nobody, "events: nobody; alerts: nobody"])?;
    let fix = status.stdout.lines().find_map(|line| line.trim().strip_prefix("Fix: aws ")).context("no fix")?;
    let aws = &testbed.cloud.aws;
    let address = format!("https://user:{SECRET}@hooks.example.com/{SECRET}?sig={SECRET}");
    let https = fix.replace("email", "https").replace("you@example.com", &address);
    aws.run(&https.split(' ').collect::<Vec<_>>()).await?;
    let pending = ["✗ no subscriber of alerts has confirmed.", "https hooks.example.com (not confirmed)"];
    testbed.infra(&["status"]).await?.failed(&pending)?;
    aws.run(&fix.split(' ').collect::<Vec<_>>()).await?;
    Ok(())
}

/// Subscribes a queue to each topic.
async fn subscribe_queues(testbed: &Testbed) -> anyhow::Result<()> {
    let aws = &testbed.cloud.aws;
    let stack = Stack::read(aws, "tableau-fanout").await?;
    let filter = json!({ "FilterPolicy": json!({ "action": ["refresh-failed"] }).to_string() });
    for (name, topic, options) in
        [("failures", stack.output("EventsTopicArn")?, filter), ("alerts", stack.output("AlertsTopicArn")?, json!({}))]
    {
        queue::subscribe(aws, &queue::create(aws, name).await?, topic, &options).await?;
    }
    Ok(())
}

async fn a_url_of_an_undeclared_site_needs_force(testbed: &Testbed) -> anyhow::Result<()> {
    let refused = testbed.infra(&["url", "nosuch", "WorkbookCreated"]).await?;
    let refused = refused.failed(&["the stack tableau-fanout declares no site nosuch", "add --force"])?;
    assert_eq!(refused.stdout, "");
    let forced = testbed.infra(&["url", "nosuch", "WorkbookCreated", "--force"]).await?;
    let forced = forced.succeeded(&["warning: the stack tableau-fanout declares no site nosuch"])?;
    ensure!(forced.stdout.contains("/hooks/nosuch/WorkbookCreated/"), "{}", forced.stdout);
    Ok(())
}

/// Runs the documented commands, and compares the parts that `status` shows with the documented ones.
async fn the_documented_commands_succeed(testbed: &Testbed) -> anyhow::Result<()> {
    let [commands] = &documents::commands("docs/operations.md", "Is it working?")?[..] else { bail!("other blocks") };
    let mut outputs = Vec::new();
    for command in commands.text.lines() {
        let command = command.strip_prefix("cargo infra ").context("another command")?;
        outputs.push(testbed.infra(&[command]).await?.succeeded(&[])?.stdout);
    }
    let operations = Document::read("docs/operations.md")?;
    let shown =
        operations.section("Is it working?")?.blocks.iter().find(|block| !block.is_commands()).context("no output")?;
    let parts = |text: &str| text.lines().map(|line| line.chars().take(15).collect()).collect::<Vec<String>>();
    assert_eq!(parts(&shown.text), parts(&outputs[0]));
    Ok(())
}

fn json_of(output: &Output) -> anyhow::Result<Value> {
    serde_json::from_str(&output.stdout).with_context(|| output.all())
}

#[tokio::test]
async fn a_wrong_action_of_the_reconciler_suggests_no_other_action() -> anyhow::Result<()> {
    let expected = ["invalid value 'test'", "[possible values: plan, apply, rotate, destroy]", "cargo infra test"];
    let test = run(infra(&["reconcile", "test"]), "").await?.failed(&expected)?;
    let typo = run(infra(&["reconcile", "destory"]), "").await?.failed(&["invalid value 'destory'"])?;
    for output in [test, typo] {
        ensure!(!output.stderr.contains("similar value"), "{}", output.stderr);
    }
    Ok(())
}
