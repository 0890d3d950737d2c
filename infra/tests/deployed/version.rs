//! The version of a stack in `cargo infra status`.

use std::fs;

use anyhow::ensure;

use crate::testbed::Testbed;

/// Version of this `cargo infra`.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// Deploys a release with a change in its template, and with another parameter: CloudFormation does not update outputs alone.
async fn deploy(testbed: &Testbed, [old, new]: [&str; 2], parameter: &str) -> anyhow::Result<()> {
    let template = fs::read_to_string(testbed.release.template())?;
    ensure!(template.matches(old).count() == 1, "{old:?} is not there once: {template}");
    let folder = testbed.folder_with(&template.replace(old, new))?;
    testbed.deploy_folder(folder.path(), &["--parameter", parameter]).await?.succeeded(&[])?;
    Ok(())
}

#[tokio::test]
async fn status_shows_the_version_of_the_stack_and_how_to_update_it() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    testbed.deploy(&[]).await?.succeeded(&[&format!("Version         {OWN}\n")])?;
    // Nobody is subscribed, so the status is that something is wrong.
    let status = testbed.infra(&["status"]).await?.failed(&[&format!("version {OWN}, ")])?;
    ensure!(!status.all().contains("this cargo infra"), "{}", status.all());

    deploy(&testbed, [OWN, "0.0.9"], "LogRetentionDays=1").await?;
    let newer = format!("and this cargo infra the newer version {OWN}.\n  Fix: cargo infra deploy updates the stack\n");
    testbed.infra(&["status"]).await?.failed(&["! the stack has version 0.0.9, ", &newer, "version 0.0.9, "])?;

    deploy(&testbed, ["\n  Version:\n", "\n  Other:\n"], "LogRetentionDays=3").await?;
    testbed.infra(&["status"]).await?.failed(&["! the stack has a version before 0.1.0, ", &newer])?;
    Ok(())
}
