//! `cargo infra tail`: what arrives is shown, and no queue is left.

use std::{env::temp_dir, process::Stdio, time::Duration};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};

use crate::{
    command::infra,
    testbed::{CONTENT_URL, Testbed},
};

/// How long a line may take. It takes a second or two.
const LINE_TIMEOUT: Duration = Duration::from_secs(60);

/// A running `cargo infra tail`.
struct Tailing {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tailing {
    /// Starts it, and waits until events arrive.
    async fn start(testbed: &Testbed, options: &[&str]) -> anyhow::Result<Self> {
        let mut tail = infra(&[&["tail", "--endpoint-url", &testbed.cloud.endpoint], options].concat());
        let output = if options.contains(&"--json") { Stdio::piped() } else { Stdio::null() };
        let mut process = tail.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(output).spawn()?;
        let is_waiting = async |line: Option<String>| {
            let line = line.context("the command has ended")?;
            anyhow::Ok(line.starts_with("Waiting for events."))
        };
        let mut lines = BufReader::new(process.stdout.take().context("no output")?).lines();
        if let Some(messages) = process.stderr.take() {
            let mut messages = BufReader::new(messages).lines();
            while !is_waiting(messages.next_line().await?).await? {}
            // The rest is read, so that the command can print.
            tokio::spawn(async move { while let Ok(Some(_)) = messages.next_line().await {} });
        } else {
            while !is_waiting(lines.next_line().await?).await? {}
        }
        Ok(Self { process, lines })
    }

    /// Waits for the next line.
    async fn line(&mut self) -> anyhow::Result<String> {
        let line = timeout(LINE_TIMEOUT, self.lines.next_line()).await.context("no line in time")??;
        line.context("the command has ended")
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).context("it has ended")?;
        Ok(kill(Pid::from_raw(id), signal)?)
    }

    /// Waits for its end. Returns whether it succeeded.
    async fn ended(mut self) -> anyhow::Result<bool> {
        // Reads the rest, so that the command can print.
        while self.lines.next_line().await?.is_some() {}
        Ok(timeout(LINE_TIMEOUT, self.process.wait()).await.context("it does not end")??.success())
    }
}

async fn deployed(parameters: &[&str]) -> anyhow::Result<Testbed> {
    let testbed = Testbed::start().await?;
    let events = ["--parameter", "Events=WorkbookCreated,WorkbookRefreshFailed", "--parameter", "RecoverHours=0"];
    testbed.deploy(&[&events[..], parameters].concat()).await?.succeeded(&[])?;
    testbed.add_site(&[]).await?.succeeded(&[])?;
    Ok(testbed)
}

/// Fires an event about a workbook.
async fn fire(testbed: &Testbed, event: &str, name: &str) -> anyhow::Result<()> {
    let body = json!({ "event_type": event, "resource_name": name, "resource_luid": "99" }).to_string();
    let deliveries = testbed.tableau.simulator.fire(CONTENT_URL, &event.parse()?, &body, 1).await;
    ensure!(deliveries.len() == 1, "{deliveries:?}");
    Ok(())
}

/// Names of temporary queues, and of those that are subscribed.
async fn temporary(testbed: &Testbed) -> anyhow::Result<Vec<String>> {
    let listed = testbed.aws("sqs list-queues --queue-name-prefix tableau-fanout-tmp-").await?;
    let subscribed = testbed.aws("sns list-subscriptions --query Subscriptions[].Endpoint").await?;
    let names = listed["QueueUrls"].as_array().into_iter().chain(subscribed.as_array()).flatten();
    let names = names.filter_map(|name| name.as_str()?.rsplit(['/', ':']).next());
    Ok(names.filter(|name| name.contains("-tmp-")).map(str::to_owned).collect())
}

#[tokio::test]
async fn each_event_and_alert_is_a_line_and_an_interruption_leaves_no_queue() -> anyhow::Result<()> {
    let testbed = deployed(&[]).await?;
    let mut tail = Tailing::start(&testbed, &["--alerts", "--resource", "sales"]).await?;
    fire(&testbed, "WorkbookCreated", "Budget").await?;
    fire(&testbed, "WorkbookRefreshFailed", "Sales\u{1b}]0;x\u{7}\u{202e}").await?;
    let mut lines = [tail.line().await?, tail.line().await?];
    lines.sort_by_key(|line| line.contains("  alert "));
    let [event, alert] = lines;
    ensure!(event.contains("  event   marketing  WorkbookRefreshFailed       Sales"), "{event:?}");
    ensure!(alert.contains("  alert   Tableau marketing: workbook refresh failed: Sales"), "{alert:?}");
    ensure!(!event.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{event:?}");
    tail.signal(Signal::SIGINT)?;
    ensure!(tail.ended().await?, "it failed");
    assert_eq!(temporary(&testbed).await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn the_next_command_removes_the_queues_of_one_that_was_killed_and_no_others() -> anyhow::Result<()> {
    let testbed = deployed(&[]).await?;
    let mut runs = Tailing::start(&testbed, &[]).await?;
    let before = temporary(&testbed).await?;
    let killed = Tailing::start(&testbed, &["--alerts"]).await?;
    let queues = temporary(&testbed).await?;
    assert_eq!(queues.len(), 6);
    let claims = queues.iter().filter(|name| !before.contains(name)).filter_map(|name| name.rsplit_once('-'));
    let claims: Vec<_> = claims.map(|(prefix, _)| temp_dir().join(format!("{prefix}.lock"))).collect();
    ensure!(claims.iter().all(|claim| claim.exists()), "{claims:?}");
    killed.signal(Signal::SIGKILL)?;
    ensure!(!killed.ended().await?, "it succeeded");
    testbed.infra(&["test"]).await?.succeeded(&["Removed 2 queues of a command that was killed."])?;
    assert_eq!(temporary(&testbed).await?.len(), 2);
    ensure!(!claims.iter().any(|claim| claim.exists()), "{claims:?}");
    while !runs.line().await?.contains("  marketing  Test ") {}
    runs.signal(Signal::SIGTERM)?;
    ensure!(runs.ended().await?, "it failed");
    assert_eq!(temporary(&testbed).await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_program_gets_each_selected_event_as_it_was_published_and_may_stop_reading() -> anyhow::Result<()> {
    let testbed = deployed(&["--parameter", "FifoEventsTopic=true"]).await?;
    let options = ["--json", "--site", "marketing", "--event", "WorkbookCreated"];
    let mut tail = Tailing::start(&testbed, &options).await?;
    fire(&testbed, "WorkbookRefreshFailed", "Sales").await?;
    fire(&testbed, "WorkbookCreated", "Budget").await?;
    let line = tail.line().await?;
    let arrival: Value = serde_json::from_str(&line)?;
    let event = &arrival["event"];
    assert_eq!((&arrival["kind"], &event["attributes"]["site"]), (&json!("event"), &json!("marketing")));
    assert_eq!(event["envelope"]["type"], "com.tableau.WorkbookCreated");
    let data = r#""data":{"event_type":"WorkbookCreated","resource_luid":"99","resource_name":"Budget"}"#;
    ensure!(line.contains(data), "{line}");

    let Tailing { mut process, lines } = tail;
    drop(lines);
    for name in ["One", "Two", "Three"] {
        fire(&testbed, "WorkbookCreated", name).await?;
        if let Ok(status) = timeout(Duration::from_secs(10), process.wait()).await {
            ensure!(status?.success(), "it failed");
            assert_eq!(temporary(&testbed).await?, Vec::<String>::new());
            return Ok(());
        }
    }
    bail!("it goes on without a reader")
}

#[tokio::test]
async fn the_documented_commands_show_events() -> anyhow::Result<()> {
    let testbed = deployed(&[]).await?;
    for block in documents::commands("docs/operations.md", "Events as they arrive")? {
        for command in block.text.lines() {
            let options: Vec<_> =
                command.strip_prefix("cargo infra tail").context("another command")?.split_whitespace().collect();
            let mut tail = Tailing::start(&testbed, &options).await?;
            fire(&testbed, "WorkbookRefreshFailed", command).await?;
            while !tail.line().await?.contains("WorkbookRefreshFailed") {}
            tail.signal(Signal::SIGINT)?;
            ensure!(tail.ended().await?, "{command} failed");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_tail_of_no_stack_says_so() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    testbed.infra(&["tail"]).await?.failed(&["there is no stack tableau-fanout in account", "Fix: create it with"])?;
    Ok(())
}
