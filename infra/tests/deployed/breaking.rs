//! Commands at a running `cargo infra local`: those of the tutorial, and those that it prints itself.

use std::{fs, os::unix::fs::symlink, process::Stdio, slice, time::Duration};

use anyhow::{Context, ensure};
use documents::{Block, Document};
use infra::{service::http_client, workspace::Workspace};
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use crate::{
    command::{infra, run},
    local_command::LocalCommand,
};

/// How long the commands may take. They take seconds.
const COMMANDS_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Separator in the output, after each block of commands.
const MARK: &str = "--- the end of a block ---\n";

/// Names of the webhooks on the simulator's only site, sorted, and whether each is enabled.
async fn webhooks(local: &LocalCommand) -> anyhow::Result<Vec<(String, bool)>> {
    let url = format!("{}/_simulator/webhooks", local.tableau);
    let sites: Value = http_client()?.get(url).send().await?.json().await?;
    let webhooks = sites[0][1].as_array().context("no webhooks")?.iter();
    let mut webhooks: Vec<_> = webhooks
        .map(|webhook| (webhook["name"].as_str().unwrap_or_default().to_owned(), webhook["is_enabled"] == true))
        .collect();
    webhooks.sort();
    Ok(webhooks)
}

fn texts(blocks: Vec<Block>) -> Vec<String> {
    blocks.into_iter().map(|block| block.text).collect()
}

/// Runs blocks of commands in a terminal that is connected to the stack, and returns the output of each.
async fn paste(local: &LocalCommand, commands: &[String]) -> anyhow::Result<Vec<String>> {
    // The part of the workspace that the commands use.
    let tests = local.folder.path().join("tests");
    if !tests.exists() {
        symlink(Workspace::locate()?.file("tests"), tests)?;
    }
    let connect = texts(documents::commands("docs/tutorial.md", "Start")?).concat();
    let blocks: String = commands.iter().map(|block| format!("{block}\necho '{}'\n", MARK.trim())).collect();
    let cargo = format!("cargo() {{ shift; '{}' \"$@\"; }}", env!("CARGO_BIN_EXE_infra"));
    let script = format!("exec 2>&1\n{cargo}\n{connect}\n{blocks}");
    let mut bash = Command::new("bash");
    bash.args(["-u", "-c", &script]).current_dir(&local.folder).stdin(Stdio::null()).kill_on_drop(true);
    // The local stack's settings replace the user's profile.
    bash.env("AWS_PROFILE", "a-profile-of-the-user");
    let output = timeout(COMMANDS_TIMEOUT, bash.output()).await??;
    let printed = String::from_utf8(output.stdout)?;
    Ok(printed.split_terminator(MARK).map(str::to_owned).collect())
}

/// Returns a shown line up to its link, which differs, with single spaces.
fn squeezed(line: &str) -> String {
    let line = line.split("http://").next().unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Checks that a text has all of these.
fn has_all(text: &str, expected: &[&str]) -> anyhow::Result<()> {
    for expected in expected {
        ensure!(text.contains(expected), "{expected:?} is missing: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn the_failure_in_the_tutorial_is_explained_with_a_page_to_open_and_works_again() -> anyhow::Result<()> {
    let document = Document::read("docs/tutorial.md")?;
    let shown = document.section("Let a refresh fail, and see why")?.blocks.iter().filter(|block| !block.is_commands());
    let shown: Vec<Vec<_>> = shown.map(|block| block.text.lines().map(squeezed).collect()).collect();
    let [failed, resolved] = &shown[..] else { anyhow::bail!("other outputs: {shown:?}") };
    let commands = texts(documents::commands("docs/tutorial.md", "Let a refresh fail, and see why")?);
    let [fail, succeed] = &commands[..] else { anyhow::bail!("other blocks: {commands:?}") };

    let mut local = LocalCommand::start().await?;
    let printed = paste(&local, slice::from_ref(fail)).await?.concat();
    has_all(&printed, &["the receiver answered 200", "Next: `cargo infra simulate succeed-refresh --name Sales`"])?;
    for line in failed {
        local.shows(line).await?;
    }
    // A line about the target `archive` names the event too, and can be earlier.
    let explained = local.shows("event local RefreshFailureExplained Sales").await?;
    let link = explained.rsplit(' ').next().context("no link")?;
    // A browser keeps the part from `#` to itself, and the page's script opens it.
    let page = http_client()?.get(link.replace("/#", "")).send().await?.text().await?;
    has_all(&page, &["<h1>Sales</h1>", "owner Ada Lovelace"])?;

    let printed = paste(&local, slice::from_ref(succeed)).await?.concat();
    has_all(&printed, &["Next: `cargo infra reconcile apply` says that it works again", "1 resolved"])?;
    for line in resolved {
        local.shows(line).await?;
    }
    // A success that ends no failure.
    let again = paste(&local, &["cargo infra simulate succeed-refresh".to_owned()]).await?.concat();
    has_all(&again, &["The receiver published the events."])?;
    ensure!(!again.contains("works again"), "{again}");
    Ok(())
}

#[tokio::test]
async fn the_problems_that_the_tutorial_causes_are_explained_and_repaired() -> anyhow::Result<()> {
    let document = Document::read("docs/tutorial.md")?;
    let section = document.section("Break it, and see it repaired")?;
    let shown = section.blocks.iter().find(|block| !block.is_commands()).context("no output")?;

    let mut local = LocalCommand::start().await?;
    let before = webhooks(&local).await?;
    let printed =
        paste(&local, &texts(documents::commands("docs/tutorial.md", "Break it, and see it repaired")?)).await?;
    let [planned, applied, refused, repaired] = &printed[..] else { anyhow::bail!("other blocks: {printed:?}") };
    has_all(planned, &[&shown.text, "An administrator renamed the webhook tableau-fanout-LabelUpdated to Labels"])?;
    has_all(applied, &["disabled by Tableau", "not ours, not changed", "1 site is as declared."])?;
    has_all(refused, &["The token tableau-fanout of the site local expired.", "refused the token"])?;
    has_all(repaired, &["An administrator created the token renewed-", "1 site is as declared."])?;
    let mut after = before;
    after.extend(["Labels", "Theirs"].map(|foreign| (foreign.to_owned(), true)));
    after.sort();
    assert_eq!(webhooks(&local).await?, after);
    local.shows("alert Tableau local: solved: token refused").await?;
    Ok(())
}

#[tokio::test]
async fn the_refreshes_that_the_tutorial_misses_are_recovered_once() -> anyhow::Result<()> {
    let mut local = LocalCommand::start().await?;
    let mut commands = texts(documents::commands("docs/tutorial.md", "Miss refreshes, and see them recovered")?);
    commands.push("cargo infra reconcile apply".to_owned());
    let printed = paste(&local, &commands).await?;
    let [reported, received, again] = &printed[..] else { anyhow::bail!("other blocks: {printed:?}") };
    let called = "no enabled webhook is registered for WorkbookRefreshFailed";
    has_all(reported, &[called, "1 enabled", "3 recovered, 3 explained"])?;
    has_all(again, &["1 site is as declared."])?;
    ensure!(!again.contains("recovered"), "{again}");
    let received: Vec<String> = serde_json::from_str(received)?;
    assert_eq!(received.len(), 3, "{received:?}");
    let name = |number: u8| format!("Sales {number}");
    for name in (1..=3).map(name) {
        local.shows(&format!("event local WorkbookRefreshFailed {name} (recovered from Tableau's jobs)")).await?;
        let context = "(project Default, owner Ada Lovelace): Login failed for user 'etl'.";
        local.shows(&format!("RefreshFailureExplained {name} {context}")).await?;
        local.shows(&format!("alert Tableau local: why the workbook refresh failed: {name}")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_event_that_sns_rejected_is_replayed_and_arrives() -> anyhow::Result<()> {
    let mut local = LocalCommand::start().await?;
    let printed = paste(&local, &texts(documents::commands("docs/tutorial.md", "Lose no event while SNS is down")?))
        .await?
        .concat();
    let failed = "tableau-fanout-WorkbookCreated: the receiver answered 503, 503, 503, 503";
    has_all(&printed, &[failed, "1 event published.", "1 enabled", "1 site is as declared."])?;
    local.shows("event local WorkbookCreated Lost").await?;
    // The topic has its subscriptions again.
    let published = paste(&local, &["cargo infra simulate publish --name Later".to_owned()]).await?.concat();
    has_all(&published, &["the receiver answered 200"])?;
    local.shows("event local WorkbookCreated Later").await?;
    Ok(())
}

#[tokio::test]
async fn each_command_that_the_local_stack_prints_does_what_it_says() -> anyhow::Result<()> {
    let mut local = LocalCommand::start().await?;
    // `cargo lambda` needs a free port 9000, and runs until it is stopped: inner_loop.rs has it.
    let is_ours = |line: &&String| !line.contains("cargo lambda") && !line.contains(":9000/");
    let printed: Vec<_> = local.commands.iter().filter(is_ours).cloned().collect();
    let outputs = paste(&local, &printed).await?;
    let all =
        printed.iter().zip(&outputs).map(|(command, output)| format!("$ {command}\n{output}")).collect::<String>();
    assert_eq!(printed.len(), outputs.len(), "{all}");
    for (begins, expected) in [
        ("source ", ""),
        ("cargo infra status", "tableau-fanout"),
        ("cargo infra simulate publish", "tableau-fanout-WorkbookCreated: the receiver answered 200"),
        ("cargo infra simulate fail-refresh", "tableau-fanout-WorkbookRefreshFailed: the receiver answered 200"),
        ("cargo infra reconcile apply", "1 explained"),
        ("cargo infra simulate break-topic", "The events topic is deleted"),
        ("cargo infra simulate publish --name Lost", "the receiver answered 503, 503, 503, 503"),
        ("cargo infra simulate restore-topic", "The events topic is back, with its 5 subscriptions."),
        ("cargo infra replay 1", "1 event published."),
        ("echo '{\"address\":", "The target mine gets events."),
        ("cargo infra targets", "✓ mine "),
        ("curl -i", r#"{"status":"published""#),
    ] {
        let is_run = |(command, output): (&String, &String)| command.starts_with(begins) && output.contains(expected);
        ensure!(printed.iter().zip(&outputs).any(is_run), "{begins}: {expected:?} is missing: {all}");
    }
    assert_eq!(printed.len(), 12, "another command is printed: {all}");
    for shown in [
        "Regional Sales",
        "RefreshFailureExplained Sales (project Default, owner Ada Lovelace): ",
        "Lost",
        "New Workbook!",
        "target chat ",
        "target archive com.tableau.WorkbookCreated Lost",
        "target mine com.tableau.WorkbookCreated New Workbook!",
    ] {
        local.shows(shown).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_simulator_runs_the_commands_of_the_docs() -> anyhow::Result<()> {
    let mut local = LocalCommand::start().await?;
    let commands = texts(documents::commands("docs/testing.md", "The simulated Tableau")?);
    let printed = paste(&local, &commands).await?;
    let [refreshed, odd] = &printed[..] else { anyhow::bail!("other blocks: {printed:?}") };
    has_all(
        refreshed,
        &[
            "The refresh of the datasource \"Superstore\" failed: Login failed for user.",
            "tableau-fanout-DatasourceRefreshFailed: the receiver answered 200",
            "The refresh of the datasource \"Superstore\" succeeded",
        ],
    )?;
    // The simulator answers an unknown request with an error.
    assert_eq!(odd, "");
    local.shows("event local DatasourceRefreshSucceeded Superstore").await?;
    Ok(())
}

#[tokio::test]
async fn a_second_local_stack_does_not_touch_the_files_of_the_first() -> anyhow::Result<()> {
    let local = LocalCommand::start().await?;
    let files = local.folder.path().join("target/local");
    let folder = files.to_str().context("a path that is not UTF-8")?;
    let before = fs::read_to_string(files.join("env"))?;
    for arguments in [&["local"][..], &["local", "--empty"]] {
        let second = run(infra(&[arguments, &["--files", folder]].concat()), "").await?;
        second.failed(&["a local stack is running already", "cargo infra local --files target/second"])?;
    }
    assert_eq!(fs::read_to_string(files.join("env"))?, before);
    run(infra(&["simulate", "publish", "--files", folder]), "").await?.succeeded(&["the receiver answered 200"])?;

    let nowhere = local.folder.path().to_str().context("a path that is not UTF-8")?;
    let missing = run(infra(&["simulate", "publish", "--files", nowhere]), "").await?;
    missing.failed(&["no local stack is running with its files in", "Fix: start one with `cargo infra local`"])?;
    for (arguments, expected) in [
        (
            &["delete", "--event", "Unknown"][..],
            "the site local has no webhook tableau-fanout-Unknown. Nothing was changed.",
        ),
        (&["publish", "--site", "other"], "the simulated Tableau has no site other. Nothing was done."),
        (&["restore-topic"], "the events topic is not deleted. Nothing was done."),
    ] {
        let simulated = run(infra(&[&["simulate"], arguments, &["--files", folder]].concat()), "").await?;
        simulated.failed(&[expected, "Fix: "])?;
    }
    Ok(())
}
