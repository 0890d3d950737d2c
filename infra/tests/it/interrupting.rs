//! Commands while CloudFormation is at work.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, ensure};
use infra::{binaries::Architecture, release::ReleaseFolder, workspace::Workspace};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::command::{infra, interrupt, isolate, run, zip_stand_in};

/// An AWS CLI at which CloudFormation does not end. The stack is `$STACK_STATE` before.
const ENDLESS_CLOUDFORMATION: &str = r#"#!/bin/sh
at_work() { touch "$0.at-work"; exec tail -f /dev/null; }
case "$*" in
  *--version*) echo aws-cli/2.15.0 ;;
  *"configure list"*) echo "region : eu-central-1 : env : AWS_DEFAULT_REGION" ;;
  *get-caller-identity*) echo '{"Account":"123456789012"}' ;;
  *describe-stack-events*)
    [ -e "$0.at-work" ] || exec echo '[]'
    echo '[{"EventId":"1","StackId":"s","PhysicalResourceId":"q","LogicalResourceId":"DeadLetters",
      "ResourceStatus":"'"$EVENT"'"}]' ;;
  *Stacks\[0\].StackId*) echo '"s"' ;;
  *describe-stacks*)
    [ -e "$0.at-work" ] && STACK_STATE=$AT_WORK
    if [ -n "$STACK_STATE" ]; then
      echo '{"Stacks":[{"StackStatus":"'"$STACK_STATE"'","Outputs":['"$OUTPUTS"']}]}'
    else
      echo "An error occurred (ValidationError) when calling: Stack does not exist" >&2; exit 254
    fi ;;
  *"cloudformation deploy"* | *"wait stack-delete-complete"*) at_work ;;
  *get-template*) echo '"6f0d2a94-58c1-4b7e-9d36-e1a7c40b83f5"' ;;
  *get-parameters-by-path*/targets*) echo '[]' ;;
  *get-parameters-by-path*) echo '["/tableau-fanout/signing-keys"]' ;;
  *"dynamodb scan"*) echo '{"Items":[]}' ;;
  *get-account-settings*) echo '{"ConcurrentExecutions":1000,"UnreservedConcurrentExecutions":1000}' ;;
  *list-objects-v2* | *list-keys* | *list-aliases* | *list-subscriptions*) echo '[]' ;;
  *) echo '{}' ;;
esac
"#;

/// `cargo infra` at that AWS CLI.
fn at_endless_cloudformation(folder: &Path, arguments: &[&str], states: [(&str, &str); 3]) -> anyhow::Result<Command> {
    let aws = folder.join("aws");
    fs::write(&aws, ENDLESS_CLOUDFORMATION)?;
    fs::set_permissions(&aws, fs::Permissions::from_mode(0o755))?;
    let mut infra = infra(arguments);
    isolate(
        &mut infra,
        &[folder, Path::new("/usr/bin"), Path::new("/bin")],
        &[("AWS_DEFAULT_REGION", "eu-central-1")],
    )?;
    infra.envs(states);
    Ok(infra)
}

#[tokio::test]
async fn an_interrupted_deployment_says_what_goes_on_and_how_to_watch_it() -> anyhow::Result<()> {
    let (folder, zips) = (TempDir::new()?, TempDir::new()?);
    let write = |_: &str, zip: &Path| zip_stand_in(zip, Architecture::Arm64);
    ReleaseFolder::write(&Workspace::locate()?, zips.path(), Architecture::Arm64, write)?;
    let deploy = ["deploy", "--zips", zips.path().to_str().unwrap_or_default()];
    let states = [("STACK_STATE", ""), ("AT_WORK", "CREATE_IN_PROGRESS"), ("EVENT", "CREATE_COMPLETE")];
    let command = || at_endless_cloudformation(folder.path(), &deploy, states);
    let errors = interrupt(command()?, "==> Check the account").await?;
    let expected = "interrupted before the deployment began. The stack is unchanged. Fix: run this command again";
    ensure!(errors.contains(expected), "{errors}");
    let errors = interrupt(command()?, "\u{2713} DeadLetters created").await?;
    for expected in [
        "CloudFormation continues with the stack tableau-fanout, whose state is CREATE_IN_PROGRESS",
        "Fix: watch it with `aws cloudformation describe-stack-events --stack-name tableau-fanout",
    ] {
        ensure!(errors.contains(expected), "{errors}");
    }
    Ok(())
}

#[tokio::test]
async fn an_interrupted_deletion_prints_the_commands_for_the_rest() -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let states =
        [("STACK_STATE", "ROLLBACK_COMPLETE"), ("AT_WORK", "DELETE_IN_PROGRESS"), ("EVENT", "DELETE_COMPLETE")];
    let destroy = at_endless_cloudformation(folder.path(), &["destroy", "--yes"], states)?;
    let errors = interrupt(destroy, "\u{2713} DeadLetters deleted").await?;
    for expected in [
        "CloudFormation continues to delete the stack tableau-fanout",
        "\n  aws cloudformation wait stack-delete-complete --stack-name tableau-fanout\n",
        "\n  aws ssm delete-parameter --name /tableau-fanout/signing-keys\n",
        "\n  aws s3 rm --recursive s3://tableau-fanout-artifacts-123456789012-eu-central-1/tableau-fanout/\n",
    ] {
        ensure!(errors.contains(expected), "{errors}");
    }
    Ok(())
}

/// Runs `cargo infra status --json` at a stack in a state. Returns the exit status and the output.
async fn status_json(state: &str) -> anyhow::Result<(bool, Value)> {
    let folder = TempDir::new()?;
    let states = [("STACK_STATE", state), ("AT_WORK", state), ("EVENT", "")];
    let mut status = at_endless_cloudformation(folder.path(), &["status", "--json"], states)?;
    let outputs = ["ReceiverName", "ReconcilerName", "SitesPath", "StateTableName", "EventsTopicArn", "AlertsTopicArn"];
    let outputs = outputs.map(|name| json!({ "OutputKey": name, "OutputValue": name }).to_string());
    status.env("OUTPUTS", outputs.join(","));
    let output = run(status, "").await?;
    Ok((output.success, serde_json::from_str(&output.stdout).with_context(|| output.all())?))
}

#[tokio::test]
async fn the_status_of_a_stack_that_changes_is_json_too() -> anyhow::Result<()> {
    let (_, updated) = status_json("UPDATE_IN_PROGRESS").await?;
    ensure!(updated["stack"]["state"] == "UPDATE_IN_PROGRESS", "{updated}");
    ensure!(updated["warnings"].to_string().contains("is being updated. It works meanwhile."), "{updated}");
    // It does not work yet, or no longer.
    for state in ["CREATE_IN_PROGRESS", "DELETE_IN_PROGRESS", "ROLLBACK_COMPLETE", ""] {
        let (success, status) = status_json(state).await?;
        ensure!(!success && status["ok"] == false, "{state}: {status}");
        let problem = &status["problems"][0];
        ensure!(problem["what"].as_str().is_some_and(|what| what.contains(state)), "{state}: {status}");
        ensure!(problem["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{state}: {status}");
    }
    Ok(())
}
