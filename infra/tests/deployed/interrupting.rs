//! Commands that are interrupted.

use std::process::Stdio;

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{command::infra, testbed::Testbed};

#[tokio::test]
async fn an_interrupted_test_leaves_no_queue() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    testbed.deploy(&["--parameter", "Events=ViewDeleted"]).await?.succeeded(&[])?;
    testbed.add_site(&[]).await?.succeeded(&[])?;
    // Slow enough for an interrupt.
    testbed.tableau.simulator.world().sites.values_mut().for_each(|site| site.oddities.delay_ms = 2_000);
    for title in ["Subscribe a queue to each topic, for this test only", "Have Tableau test every webhook"] {
        let errors = interrupt(&testbed, &["test"], title).await?;
        ensure!(errors.contains("interrupted before the end of the test"), "{errors}");
        let queues = testbed.aws("sqs list-queues --queue-name-prefix tableau-fanout-test-").await?;
        ensure!(queues["QueueUrls"].as_array().is_none_or(Vec::is_empty), "left: {queues}");
        assert_eq!(testbed.aws("sns list-subscriptions --query Subscriptions").await?, json!([]));
    }
    Ok(())
}

#[tokio::test]
async fn an_interrupted_destroy_leaves_the_schedule_enabled() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    testbed.deploy(&["--parameter", "Events=ViewDeleted"]).await?.succeeded(&[])?;
    testbed.add_site(&[]).await?.succeeded(&[])?;
    testbed.tableau.simulator.world().sites.values_mut().for_each(|site| site.oddities.delay_ms = 2_000);
    let destroy = ["destroy", "--yes", "--force"];
    let errors = interrupt(&testbed, &destroy, "Delete the stack's webhooks on Tableau").await?;
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
async fn interrupt(testbed: &Testbed, arguments: &[&str], title: &str) -> anyhow::Result<String> {
    let mut command = infra(arguments);
    command.args(["--endpoint-url", &testbed.cloud.endpoint]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = command.spawn()?;
    let mut lines = BufReader::new(command.stdout.take().context("no output")?).lines();
    while lines.next_line().await?.context("the command ended early")? != format!("==> {title}") {}
    let id = command.id().and_then(|id| i32::try_from(id).ok()).context("it has ended")?;
    kill(Pid::from_raw(id), Signal::SIGINT)?;
    // Reads the rest, so that the command can print.
    while lines.next_line().await?.is_some() {}
    let output = command.wait_with_output().await?;
    let errors = String::from_utf8(output.stderr)?;
    ensure!(!output.status.success(), "it succeeded: {errors}");
    Ok(errors)
}
