//! Commands that are interrupted.

use anyhow::ensure;
use serde_json::json;

use crate::{
    command::{infra, interrupt},
    testbed::Testbed,
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
        let queues = testbed.aws("sqs list-queues --queue-name-prefix tableau-fanout-test-").await?;
        ensure!(queues["QueueUrls"].as_array().is_none_or(Vec::is_empty), "left: {queues}");
        assert_eq!(testbed.aws("sns list-subscriptions --query Subscriptions").await?, json!([]));
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
    assert_eq!(testbed.aws("scheduler list-schedules --query Schedules[].State").await?, json!(["ENABLED"]));
    Ok(())
}

/// Interrupts a command at the start of a step. Returns its standard error.
async fn interrupt_at(testbed: &Testbed, arguments: &[&str], title: &str) -> anyhow::Result<String> {
    let mut command = infra(arguments);
    command.args(["--endpoint-url", &testbed.cloud.endpoint]);
    interrupt(command, &format!("==> {title}")).await
}
