//! `cargo infra events`, and the replay of one event.

use std::{fs, time::Duration};

use anyhow::{Context, bail, ensure};
use infra::{
    events::{filter::Filter, history::History, search::Search},
    stack::Stack,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};

use crate::{
    command::{Output, infra, run},
    local_command::LocalCommand,
    testbed::Testbed,
};

/// How long an event may take until it is listed. It takes seconds, and more while the machine has other work.
const LISTED_TIMEOUT: Duration = Duration::from_secs(180);

/// How long the end of a failure may take.
const STORY_TIMEOUT: Duration = Duration::from_secs(180);

/// Time between two reads of the logs.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A name that would change the terminal.
const HOSTILE: &str = "Sales\u{1b}[31m \u{202e}<img src=x onerror=alert(1)>\u{9b}2J\"";

/// A running local stack, with commands at it.
struct Local {
    command: LocalCommand,
}

impl Local {
    async fn start() -> anyhow::Result<Self> {
        Ok(Self { command: LocalCommand::start().await? })
    }

    /// Runs a command of `cargo infra`.
    async fn infra(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        run(infra(&[arguments, &["--endpoint-url", &self.command.endpoint]].concat()), "").await
    }

    async fn simulate(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let folder = self.command.folder.path().join("target/local");
        let files = ["--files", folder.to_str().context("a path")?];
        run(infra(&[&["simulate"], arguments, &files].concat()), "").await
    }

    async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        json_of(&self.infra(&[&["events"], arguments, &["--json"]].concat()).await?.succeeded(&[])?)
    }

    /// Waits for the newest event of a name about a resource, and returns its record.
    async fn listed(&self, event: &str, resource: &str) -> anyhow::Result<Value> {
        let found = async {
            loop {
                let listing = self.json(&["--event", event, "--resource", resource]).await?;
                if let Some(record) = listing["events"].get(0) {
                    return anyhow::Ok(record.clone());
                }
                sleep(POLL_INTERVAL).await;
            }
        };
        timeout(LISTED_TIMEOUT, found).await.with_context(|| format!("{event} of {resource} is not listed"))?
    }

    /// Waits until the story of an event satisfies a condition.
    async fn story(&self, id: &str, is_complete: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let mut story = Value::Null;
        let found = async {
            while !is_complete(&story) {
                story = self.json(&["show", id]).await?;
                sleep(POLL_INTERVAL).await;
            }
            anyhow::Ok(())
        };
        let found = timeout(STORY_TIMEOUT, found).await;
        found.with_context(|| format!("{story:#}"))??;
        Ok(story)
    }
}

fn json_of(output: &Output) -> anyhow::Result<Value> {
    serde_json::from_str(&output.stdout).with_context(|| output.all())
}

fn text<'v>(value: &'v Value, member: &str) -> anyhow::Result<&'v str> {
    value[member].as_str().with_context(|| format!("no {member} in {value}"))
}

#[tokio::test]
async fn a_failure_is_shown_with_its_alert_its_explanation_its_end_and_its_targets() -> anyhow::Result<()> {
    let local = Local::start().await?;
    local.simulate(&["fail-refresh", "--name", "Sales"]).await?.succeeded(&["the receiver answered 200"])?;
    let failure = local.listed("WorkbookRefreshFailed", "sales").await?;
    assert_eq!(
        (&failure["outcome"], &failure["alert"], &failure["source"]),
        (&json!("published"), &json!("sent"), &json!("webhook"))
    );
    ensure!(failure["latency_ms"].is_u64() && failure["attempts"] == 1, "{failure}");
    let id = text(&failure, "event_id")?;

    local.story(id, |story| story["explanation"].is_object()).await?;
    local.simulate(&["succeed-refresh", "--name", "Sales"]).await?.succeeded(&[])?;
    local.infra(&["reconcile", "apply"]).await?.succeeded(&["1 resolved"])?;
    // The chat gets the alert, and the archive the event.
    let forwarded = |story: &Value| {
        let targets = story["targets"].as_array().into_iter().flatten();
        targets.filter(|it| it["outcome"] == "forwarded" && it["status"] == 200).count()
    };
    let story = local.story(id, |story| story["resolution"].is_object() && forwarded(story) >= 2).await?;
    let (explanation, resolution) = (&story["explanation"], &story["resolution"]);
    assert_eq!((&explanation["event"], &explanation["source"]), (&json!("RefreshFailureExplained"), &json!("job")));
    assert_eq!(resolution["event"], "RefreshFailureResolved");
    ensure!(explanation["job"].is_string() && explanation["delay_s"].is_u64(), "{explanation}");
    let of_resolution = local.json(&["show", text(resolution, "event_id")?]).await?;
    assert_eq!((&of_resolution["failure"]["event_id"], &of_resolution["explanation"]), (&json!(id), explanation));

    let shown = local.infra(&["events", "show", id]).await?;
    shown.succeeded(&[
        "✓ WorkbookRefreshFailed of local",
        "published, alert sent",
        "explanation  2",
        "resolution   2",
        "chat     2",
        "The text of a published event is stored nowhere. `cargo infra tail` shows events as they are published.",
    ])?;
    Ok(())
}

#[tokio::test]
async fn an_undelivered_event_is_listed_with_its_command_and_is_replayed_alone() -> anyhow::Result<()> {
    let local = Local::start().await?;
    local.simulate(&["publish", "--name", "Plans"]).await?.succeeded(&["the receiver answered 200"])?;
    let published = local.listed("WorkbookCreated", "Plans").await?;
    local.simulate(&["break-topic"]).await?.succeeded(&[])?;
    for name in ["Lost", "Kept"] {
        local.simulate(&["publish", "--name", name]).await?.succeeded(&["503"])?;
        // The webhook is disabled after four failed attempts.
        local.simulate(&["restore-topic"]).await?.succeeded(&[])?;
        local.infra(&["reconcile", "apply"]).await?.succeeded(&["1 enabled"])?;
        local.simulate(&["break-topic"]).await?.succeeded(&[])?;
    }
    let lost = local.listed("WorkbookCreated", "Lost").await?;
    assert_eq!(
        (&lost["outcome"], &lost["attempts"], lost["error"].is_string()),
        (&json!("undelivered"), &json!(4), true)
    );
    let id = text(&lost, "event_id")?;
    let replay = format!("cargo infra replay 24 --id {id}");
    local.infra(&["events"]).await?.succeeded(&["✗ ", &format!("To publish it: {replay}"), "✓ ", "3 events."])?;
    let of_lost = local.infra(&["events", "show", id]).await?;
    of_lost.succeeded(&[
        "✗ WorkbookCreated of local",
        "the first of 4 attempts",
        "\"resource_name\": \"Lost\"",
        &replay,
    ])?;
    let story = local.json(&["show", id]).await?;
    assert_eq!((&story["undelivered"]["envelope"]["id"], &story["replay"]), (&json!(id), &json!(replay)));
    local.infra(&["replay", "24", "--id", id]).await?.failed(&["1 event not published", "Fix: "])?;

    local.simulate(&["restore-topic"]).await?.succeeded(&[])?;
    let dry = local.infra(&["replay", "24", "--id", id, "--dry-run"]).await?;
    let dry = dry.succeeded(&["local WorkbookCreated", id, "1 event to publish. Nothing was done."])?;
    ensure!(!dry.all().contains("at first") && !dry.all().contains("published since"), "{}", dry.all());
    local.infra(&["replay", "24", "--id", id]).await?.succeeded(&["1 event published."])?;
    let lost = local.listed("WorkbookCreated", "Lost").await?;
    assert_eq!((&lost["outcome"], &lost["error"], &lost["event_id"]), (&json!("published"), &Value::Null, &json!(id)));
    assert_eq!(local.listed("WorkbookCreated", "Kept").await?["outcome"], "undelivered");

    let of_published = text(&published, "event_id")?;
    for (id, reason) in [
        (id, "is published. Nothing was done. Fix: see what became of it with `cargo infra events show"),
        (of_published, "is published. Nothing was done."),
        (&"0".repeat(32), "the receiver's log of the last 24 h has no unpublished event"),
    ] {
        local.infra(&["replay", "24", "--id", id]).await?.failed(&[reason, "Fix: "])?;
    }
    Ok(())
}

#[tokio::test]
async fn the_documented_commands_about_events_do_what_they_say() -> anyhow::Result<()> {
    let local = Local::start().await?;
    local.simulate(&["publish", "--name", HOSTILE]).await?.succeeded(&["the receiver answered 200"])?;
    let event = local.listed("WorkbookCreated", "onerror").await?;
    let id = text(&event, "event_id")?;
    let mut outputs = String::new();
    for block in documents::commands("docs/operations.md", "Which events came, and what became of them")? {
        for command in block.text.lines() {
            let command = command.replace("marketing", "local").replace("9c63a4d1032bb0ef67f67e5c34b46f43", id);
            let words: Vec<_> = command.split(' ').collect();
            let ["cargo", "infra", arguments @ ..] = &words[..] else { bail!("another command: {command}") };
            let output = local.infra(arguments).await?;
            ensure!(output.success || arguments[0] == "replay", "{command}: {}", output.all());
            ensure!(!output.all().contains(['\u{1b}', '\u{202e}', '\u{9b}']), "{command}: {:?}", output.all());
            outputs.push_str(&output.all());
        }
    }
    for expected in ["✓ WorkbookCreated of local", "Sales[31m <img src=x onerror=alert(1)>2J", "1 event."] {
        ensure!(outputs.contains(expected), "{expected}: {outputs}");
    }
    let none = local.infra(&["events", "--site", "finance", "--outcome", "undelivered"]).await?;
    none.succeeded(&[
        "No event found since ",
        "`cargo infra events --since 24h --site finance --outcome undelivered`",
    ])?;
    let unknown = local.infra(&["events", "show", &"0".repeat(32)]).await?;
    unknown.failed(&[
        "is in the logs of the last 24h.",
        "Fix: look further back with `cargo infra events show",
        "--since 30d`",
    ])?;
    let unknown = local.infra(&["events", "show", &"0".repeat(32), "--since", "60d"]).await?;
    unknown
        .failed(&["The logs keep no earlier events. Fix: check the identifier", "`cargo infra events --since 60d`"])?;
    Ok(())
}

#[tokio::test]
async fn thousands_of_events_are_all_read_and_a_missing_log_is_empty() -> anyhow::Result<()> {
    const COUNT: usize = 12_000;
    const AT_ONCE: usize = 3_000;
    let (testbed, folder) = (Testbed::start().await?, TempDir::new()?);
    testbed.deploy(&[]).await?.succeeded(&[])?;
    let (aws, now) = (&testbed.cloud.aws, OffsetDateTime::now_utc());
    let none = testbed.infra(&["events", "--since", "60d"]).await?;
    none.succeeded(&["The logs keep 30 days, so earlier events are not found.", "No event found since "])?;
    for function in ["reconciler", "forwarder"] {
        let group = format!("/aws/lambda/tableau-fanout-{function}");
        aws.run(&["logs", "delete-log-group", "--log-group-name", &group]).await?;
    }
    let stream = ["--log-group-name", "/aws/lambda/tableau-fanout-receiver", "--log-stream-name", "generated"];
    aws.run(&[&["logs", "create-log-stream"], &stream[..]].concat()).await?;
    for first in (0..COUNT).step_by(AT_ONCE) {
        let lines = (first..first + AT_ONCE).map(|number| {
            let record = json!({ "site": "marketing", "event": "ViewDeleted", "event_id": format!("{number:032x}"),
                "resource_name": format!("View {number}"), "outcome": "published", "PublishLatency": 18 });
            // Seven in a millisecond, so that a page ends in the middle of one.
            let at =
                now - Duration::from_secs(600) + Duration::from_millis(u64::try_from(number / 7).unwrap_or_default());
            json!({ "timestamp": at.unix_timestamp_nanos() / 1_000_000, "message": record.to_string() })
        });
        // Standard input has room for fewer.
        let file = folder.path().join("lines.json");
        fs::write(&file, Value::from_iter(lines).to_string())?;
        let lines = format!("file://{}", file.display());
        aws.run(&[&["logs", "put-log-events", "--log-events", &lines], &stream[..]].concat()).await?;
    }
    let listed = testbed.infra(&["events", "--limit", "3"]).await?;
    let listed = listed.succeeded(&[
        "View 11999",
        "18 ms",
        "3 of 12000 events. For more: cargo infra events --since 24h --limit 12000",
    ])?;
    ensure!(listed.stdout.lines().filter(|line| line.starts_with('✓')).count() == 3, "{}", listed.stdout);

    let stack = Stack::read(aws, "tableau-fanout").await?;
    let search = Search::new(aws, &stack, Duration::from_secs(3600)).await?;
    let history = History::read(aws, &stack, search).await?;
    let listing = history.listing(&Filter::default(), 0, OffsetDateTime::now_utc());
    assert_eq!((listing.total, listing.plot.iter().map(|bin| bin.events).sum::<usize>()), (COUNT, COUNT));
    Ok(())
}
