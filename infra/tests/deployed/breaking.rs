//! The documents' commands for the Tableau simulator, as printed.

use std::{fs, os::unix::fs::symlink, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use documents::{Block, Document};
use infra::{python::PythonTools, service::http_client, workspace::Workspace};
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use crate::local_command::LocalCommand;

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

/// Runs blocks of commands in a shell and returns the output of each.
async fn paste(local: &LocalCommand, commands: &[Block]) -> anyhow::Result<Vec<String>> {
    // The part of the workspace that the commands use, with the files of this stack.
    let tools = local.folder.path().join("target/local/tools");
    fs::create_dir(&tools)?;
    symlink(PythonTools::for_local_stack(&Workspace::locate()?)?.programs(), tools.join("bin"))?;
    let script: String = commands.iter().map(|block| format!("{}echo '{}'\n", block.text, MARK.trim())).collect();
    let mut bash = Command::new("bash");
    bash.args(["-e", "-u", "-c", &script]).current_dir(&local.folder).stdin(Stdio::null()).kill_on_drop(true);
    // The local stack's tools must ignore the user's profile.
    bash.env("AWS_PROFILE", "a-profile-of-the-user");
    let output = timeout(COMMANDS_TIMEOUT, bash.output()).await??;
    let (printed, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.success() && errors.is_empty(), "{printed}\n{errors}");
    Ok(printed.split_terminator(MARK).map(str::to_owned).collect())
}

#[tokio::test]
async fn the_problems_that_the_tutorial_causes_are_explained_and_repaired() -> anyhow::Result<()> {
    let commands = documents::commands("docs/tutorial.md", "Break it, and see it repaired")?;
    let tutorial = Document::read("docs/tutorial.md")?;
    let shown = tutorial.section("Break it, and see it repaired")?.blocks.iter().filter(|block| !block.is_commands());

    let local = LocalCommand::start().await?;
    let before = webhooks(&local).await?;
    let printed = paste(&local, &commands).await?;
    let [loaded, planned, applied, refused, repaired] = &printed[..] else {
        anyhow::bail!("other blocks: {printed:?}")
    };
    assert_eq!(loaded, "");
    assert_eq!(shown.map(|block| &block.text).collect::<Vec<_>>(), [planned]);
    for (printed, expected) in [
        (applied, "disabled by Tableau"),
        (applied, "not ours, not changed"),
        (applied, "1 site is as declared."),
        (refused, "refused the token"),
        (repaired, "1 site is as declared."),
    ] {
        assert!(printed.contains(expected), "{expected:?} is missing: {printed}");
    }
    let mut after = before;
    after.extend(["Labels", "Theirs"].map(|foreign| (foreign.to_owned(), true)));
    after.sort();
    assert_eq!(webhooks(&local).await?, after);
    Ok(())
}

/// Puts the tutorial's shell functions before commands that use them.
fn with_functions(commands: Vec<Block>) -> anyhow::Result<Vec<Block>> {
    let functions = documents::commands("docs/tutorial.md", "Break it, and see it repaired")?;
    Ok(functions.into_iter().take(1).chain(commands).collect())
}

#[tokio::test]
async fn the_refreshes_that_the_tutorial_misses_are_recovered_once() -> anyhow::Result<()> {
    let local = LocalCommand::start().await?;
    let commands = with_functions(documents::commands("docs/tutorial.md", "Miss refreshes, and see them recovered")?)?;
    let printed = paste(&local, &commands).await?;
    let [_, reported, received] = &printed[..] else { anyhow::bail!("other blocks: {printed:?}") };
    assert!(reported.contains("1 enabled") && reported.contains("3 recovered, 3 explained"), "{reported}");
    for name in ["Sales", "Staff", "Stock"] {
        assert_eq!(received.matches(&format!("WorkbookRefreshFailed\t{name}\ttrue")).count(), 1, "{received}");
        let subject = format!("why the workbook refresh failed: {name}");
        assert_eq!(received.matches(&subject).count(), 1, "{received}");
    }
    assert!(received.trim_end().ends_with("1 site is as declared.\nNone"), "{received}");
    Ok(())
}

#[tokio::test]
async fn the_simulator_runs_the_commands_of_the_docs() -> anyhow::Result<()> {
    let local = LocalCommand::start().await?;
    let commands = with_functions(documents::commands("docs/testing.md", "The simulated Tableau")?)?;
    let printed = paste(&local, &commands).await?;
    // The simulator answers an unknown request with an error.
    let [_, refreshed, odd] = &printed[..] else { anyhow::bail!("other blocks: {printed:?}") };
    let refreshed: Value = serde_json::from_str(refreshed)?;
    let delivered: Vec<_> = refreshed["deliveries"].as_array().into_iter().flatten().collect();
    let webhooks: Vec<_> = delivered.iter().map(|delivery| &delivery["webhook"]).collect();
    assert_eq!(webhooks, ["tableau-fanout-WorkbookRefreshStarted", "tableau-fanout-WorkbookRefreshFailed"]);
    assert!(delivered.iter().all(|delivery| delivery["attempts"][0]["status"] == 200), "{refreshed}");
    assert_eq!(odd, "");
    Ok(())
}
