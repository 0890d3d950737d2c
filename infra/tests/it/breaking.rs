//! The README's commands that break things on Tableau, as a person would paste them.

use std::{fs, os::unix::fs::symlink, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use infra::{python::PythonTools, service::http_client, workspace::Workspace};
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use crate::running::Local;

/// The section of the README.
const SECTION: &str = "\n### Break it, and see it repaired\n";

/// How long its commands may take. They take seconds.
const COMMANDS_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// What the shell prints after each block of commands.
const MARK: &str = "--- the end of a block ---\n";

/// The code blocks of a text, each after its language.
fn blocks(text: &str) -> impl Iterator<Item = (&str, &str)> {
    // What is outside of the fences and what is inside take turns.
    text.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'))
}

/// The names of the webhooks on the simulator's only site, and whether each is enabled, in order.
async fn webhooks(local: &Local) -> anyhow::Result<Vec<(String, bool)>> {
    let url = format!("{}/_simulator/webhooks", local.tableau);
    let sites: Value = http_client()?.get(url).send().await?.json().await?;
    let webhooks = sites[0][1].as_array().context("no webhooks")?.iter();
    let mut webhooks: Vec<_> = webhooks
        .map(|webhook| (webhook["name"].as_str().unwrap_or_default().to_owned(), webhook["is_enabled"] == true))
        .collect();
    webhooks.sort();
    Ok(webhooks)
}

#[tokio::test]
async fn what_the_readme_breaks_is_explained_and_repaired() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let readme = fs::read_to_string(workspace.file("README.md"))?;
    let (_, section) = readme.split_once(SECTION).context("the README has no such section")?;
    let section = section.split_once("\n##").map_or(section, |(section, _)| section);
    let (commands, shown): (Vec<_>, Vec<_>) = blocks(section).partition(|(language, _)| *language == "sh");

    let local = Local::up().await?;
    // The workspace as far as the commands use it, with the files of this stack.
    let tools = local.folder.path().join("target/local/tools");
    fs::create_dir(&tools)?;
    symlink(PythonTools::for_local_stack(&workspace)?.programs(), tools.join("bin"))?;
    let before = webhooks(&local).await?;
    let script: String = commands.iter().map(|(_, commands)| format!("{commands}\necho '{}'\n", MARK.trim())).collect();
    let mut bash = Command::new("bash");
    bash.args(["-e", "-u", "-c", &script]).current_dir(&local.folder).stdin(Stdio::null()).kill_on_drop(true);
    // A person at AWS has one, which the local stack's tools must not look for.
    bash.env("AWS_PROFILE", "a-profile-of-their-own");
    let output = timeout(COMMANDS_TIMEOUT, bash.output()).await??;
    let (said, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.success() && errors.is_empty(), "{said}\n{errors}");

    let printed: Vec<_> = said.split_terminator(MARK).collect();
    let [loaded, planned, applied, refused, repaired] = printed[..] else { anyhow::bail!("other blocks: {said}") };
    assert_eq!(loaded, "");
    assert_eq!(shown.iter().map(|(_, text)| format!("{text}\n")).collect::<Vec<_>>(), [planned]);
    for (printed, expected) in [
        (applied, "disabled by Tableau"),
        (applied, "not ours, left alone"),
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
