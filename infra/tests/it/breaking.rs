//! The README's commands that break things on Tableau, as a person would paste them.

use std::{fs, os::unix::fs::symlink, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use infra::{python::PythonTools, service::http_client, workspace::Workspace};
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use crate::running::Local;

/// The section of the README.
const SECTION: &str = "\n### Break it, and see it repaired\n";

/// The section after it, which goes on with its functions.
const RECOVERY: &str = "\n### Miss refreshes, and see them recovered\n";

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

/// The text of a section, up to the next heading.
fn section<'a>(readme: &'a str, heading: &str) -> anyhow::Result<&'a str> {
    let (_, section) = readme.split_once(heading).with_context(|| format!("the README has no section {heading}"))?;
    Ok(section.split_once("\n##").map_or(section, |(section, _)| section))
}

/// Runs commands as a person would paste them, and returns what each block printed.
async fn paste(local: &Local, workspace: &Workspace, commands: &[&str]) -> anyhow::Result<Vec<String>> {
    // The workspace as far as the commands use it, with the files of this stack.
    let tools = local.folder.path().join("target/local/tools");
    fs::create_dir(&tools)?;
    symlink(PythonTools::for_local_stack(workspace)?.programs(), tools.join("bin"))?;
    let script: String = commands.iter().map(|commands| format!("{commands}\necho '{}'\n", MARK.trim())).collect();
    let mut bash = Command::new("bash");
    bash.args(["-e", "-u", "-c", &script]).current_dir(&local.folder).stdin(Stdio::null()).kill_on_drop(true);
    // A person at AWS has one, which the local stack's tools must not look for.
    bash.env("AWS_PROFILE", "a-profile-of-their-own");
    let output = timeout(COMMANDS_TIMEOUT, bash.output()).await??;
    let (said, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.success() && errors.is_empty(), "{said}\n{errors}");
    Ok(said.split_terminator(MARK).map(str::to_owned).collect())
}

#[tokio::test]
async fn what_the_readme_breaks_is_explained_and_repaired() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let readme = fs::read_to_string(workspace.file("README.md"))?;
    let section = section(&readme, SECTION)?;
    let (commands, shown): (Vec<_>, Vec<_>) = blocks(section).partition(|(language, _)| *language == "sh");

    let local = Local::up().await?;
    let before = webhooks(&local).await?;
    let commands: Vec<_> = commands.into_iter().map(|(_, commands)| commands).collect();
    let printed = paste(&local, &workspace, &commands).await?;
    let [loaded, planned, applied, refused, repaired] = &printed[..] else {
        anyhow::bail!("other blocks: {printed:?}")
    };
    assert_eq!(loaded, "");
    assert_eq!(shown.iter().map(|(_, text)| format!("{text}\n")).collect::<Vec<_>>(), std::slice::from_ref(planned));
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

#[tokio::test]
async fn what_the_readme_lets_nobody_hear_of_is_recovered_once() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let readme = fs::read_to_string(workspace.file("README.md"))?;
    let (_, functions) = blocks(section(&readme, SECTION)?).next().context("the README has no functions")?;
    let commands: Vec<_> = blocks(section(&readme, RECOVERY)?).map(|(_, commands)| commands).collect();
    let local = Local::up().await?;
    let printed = paste(&local, &workspace, &[&[functions], &commands[..]].concat()).await?;
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
