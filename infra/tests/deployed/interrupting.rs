//! Commands that are interrupted.

use std::fs;

use anyhow::ensure;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    command::{infra, interrupt},
    testbed::{CONTENT_URL, Testbed},
};

#[tokio::test]
async fn an_interrupted_test_leaves_no_queue_and_an_interrupted_replay_no_doubt() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    testbed.deploy(&["--parameter", "Events=ViewDeleted"]).await?.succeeded(&[])?;
    testbed.add_site(&[]).await?.succeeded(&[])?;
    // Slow enough for an interrupt.
    testbed.tableau.simulator.world().sites.values_mut().for_each(|site| site.oddities.delay_ms = 2_000);
    for title in ["Subscribe a queue to each topic, for this test only", "Have Tableau test every webhook"] {
        let errors = interrupt_at(&testbed, &["test"], title).await?;
        ensure!(errors.contains("interrupted before the end of the test"), "{errors}");
        let queues = testbed.aws("sqs list-queues --queue-name-prefix tableau-fanout-tmp-").await?;
        ensure!(queues["QueueUrls"].as_array().is_none_or(Vec::is_empty), "left: {queues}");
        let queues = testbed.aws("sns list-subscriptions --query Subscriptions[].Endpoint").await?;
        let own = |queue: &Value| queue.as_str().is_some_and(|queue| queue.ends_with(":tableau-fanout-failures"));
        ensure!(queues.as_array().is_some_and(|queues| queues.iter().all(own)), "left: {queues}");
    }
    let errors = interrupt_at(&testbed, &["replay", "1"], "Search the receiver's log").await?;
    let expected =
        "interrupted. 0 events published before; the others are still in the log. Fix: run this command again";
    ensure!(errors.contains(expected), "{errors}");
    Ok(())
}

#[tokio::test]
async fn an_interrupted_destroy_leaves_the_schedule_enabled() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    testbed.deploy(&["--parameter", "Events=ViewDeleted"]).await?.succeeded(&[])?;
    testbed.add_site(&[]).await?.succeeded(&[])?;
    testbed.tableau.simulator.world().sites.values_mut().for_each(|site| site.oddities.delay_ms = 2_000);
    let destroy = ["destroy", "--yes", "--force"];
    let errors = interrupt_at(&testbed, &destroy, "Delete the stack's webhooks on Tableau").await?;
    ensure!(
        errors.contains(
            "the stack was not deleted, since some of its webhooks may be left on Tableau. The next scheduled run"
        ),
        "{errors}"
    );
    let state = "scheduler list-schedules --query Schedules[].State";
    assert_eq!(testbed.aws(state).await?, json!(["ENABLED", "ENABLED"]));
    Ok(())
}

#[tokio::test]
async fn an_interrupted_change_of_sites_says_what_was_done_and_what_goes_on() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    testbed.deploy(&["--parameter", "Events=ViewDeleted"]).await?.succeeded(&[])?;
    let ctrl_c = "\u{3}";
    let address = format!("http://{}/#/site/{CONTENT_URL}", testbed.tableau.address);
    let answers = [
        ("#/site/marketing: ", address.as_str(), false),
        ("personal access token: ", "fanout", false),
        ("(not shown): ", ctrl_c, true),
    ];
    let nothing = "interrupted. Nothing was stored. Fix: run this command again";
    testbed.infra_in_terminal(&["add-site", "marketing"], &answers).await?.failed(&[nothing])?;
    let nothing = "interrupted. Nothing was deleted.";
    testbed.infra_in_terminal(&["destroy"], &[("to continue: ", ctrl_c, false)]).await?.failed(&[nothing])?;

    testbed.add_site(&[]).await?.succeeded(&[])?;
    // Slow enough for an interrupt.
    testbed.tableau.simulator.world().sites.values_mut().for_each(|site| site.oddities.delay_ms = 2_000);
    let folder = TempDir::new()?;
    let (file, mut entry) = (folder.path().join("sites.json"), testbed.entry());
    entry["name"] = "marketing".into();
    entry["events"] = json!(["WorkbookCreated"]);
    fs::write(&file, json!([entry]).to_string())?;
    let add_sites = ["add-sites", file.to_str().unwrap_or_default(), "--overwrite"];
    let continues = "The reconciler continues a run that has begun, for some minutes at most. Fix: see its outcome with \
                     `cargo infra status`";
    for (command, line, expected) in [
        (&add_sites[..], "==> Sign in and store the entries of 1 site", "The sites with \u{2713} above are stored"),
        (&["reconcile", "plan"], "==> Run the reconciler: plan", "A plan changes nothing."),
        (&["reconcile", "apply"], "==> Run the reconciler: apply", continues),
        (&["reconcile", "rotate"], "It adds a signing key and waits 65 seconds", continues),
        (&["remove-site", "marketing"], "==> Delete the webhooks of marketing on Tableau", "The entry stays"),
    ] {
        let errors = interrupt_when(&testbed, command, line).await?;
        ensure!(errors.contains("error: interrupted. ") && errors.contains(expected), "{errors}");
    }
    testbed.infra(&["sites"]).await?.succeeded(&["marketing", "the stack's"])?;
    Ok(())
}

/// Interrupts a command at the start of a step. Returns its standard error.
async fn interrupt_at(testbed: &Testbed, arguments: &[&str], title: &str) -> anyhow::Result<String> {
    interrupt_when(testbed, arguments, &format!("==> {title}")).await
}

/// Interrupts a command when it prints a line. Returns its standard error.
async fn interrupt_when(testbed: &Testbed, arguments: &[&str], line: &str) -> anyhow::Result<String> {
    let mut command = infra(arguments);
    command.args(["--endpoint-url", &testbed.cloud.endpoint]);
    interrupt(command, line).await
}
