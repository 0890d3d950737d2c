//! The stack of a target: the subscription, the queue with its dead letters, and the mapping to the forwarder.

use std::fs;

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value};
use shared::{
    sites::commands::infra,
    targets::{entry::Preset, name::TargetName},
};

use crate::{
    aws::{Aws, has_code},
    queue,
    stack::{Condition, Stack},
    stack_deletion::delete_stack,
    stack_events,
    steps::show,
    target_messages::{Messages, Topic},
};

/// The template. A request holds it, so no bucket is needed.
const TEMPLATE: &str = include_str!("../target.yaml");

/// The template in the AWS CLI's folder.
const TEMPLATE_FILE: &str = "target.yaml";

/// The forwarder in the main stack.
const FORWARDER: &str = "Forwarder";

/// Messages of a target that are not delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages in the queue, also those that are being sent.
    pub waiting: u64,
    /// Messages that are not tried again.
    pub dead_letters: u64,
}

/// Checks that the main stack has the forwarder, which releases before targets lack.
///
/// # Errors
///
/// It does not, or the command fails.
pub async fn expect_forwarder(aws: &Aws, stack: &Stack) -> anyhow::Result<()> {
    let describe = ["cloudformation", "describe-stack-resource", "--stack-name", stack.name()];
    let described = aws.run(&[&describe[..], &["--logical-resource-id", FORWARDER]].concat()).await;
    let is_missing = described.as_ref().is_err_and(|error| has_code(error, "ValidationError"));
    ensure!(
        !is_missing,
        "the stack {} has no forwarder, which sends to targets. Nothing was stored. Fix: update the stack with `{}`",
        stack.name(),
        infra("deploy", stack.name())
    );
    described.map(drop)
}

/// Returns the name of the forwarder function.
pub fn forwarder(stack: &str) -> String {
    format!("{stack}-forwarder")
}

/// Finds the stack of a target in any state.
///
/// # Errors
///
/// A stack has its name and is none of a target, or the command fails.
pub async fn find(aws: &Aws, stack: &str, target: &TargetName) -> anyhow::Result<Option<Stack>> {
    let found = Stack::find(aws, &target.queue(stack)).await?;
    if let Some(found) = &found {
        ensure!(
            is_of(found, stack, target) || found.condition() == Condition::Planned,
            "the stack {} is not that of the target {target}. Nothing was done. Fix: choose another name for the target",
            found.name()
        );
    }
    Ok(found)
}

/// Checks that the state of a target's stack allows a change, or its deletion and another creation.
///
/// # Errors
///
/// It does not. The error has `effect`.
pub fn expect_changeable(found: Option<&Stack>, effect: &str) -> anyhow::Result<()> {
    let refusal = found.and_then(|found| refusal(found.name(), found.condition(), found.state(), effect));
    refusal.map_or(Ok(()), |refusal| bail!(refusal))
}

fn refusal(name: &str, condition: Condition, state: &str, effect: &str) -> Option<String> {
    match condition {
        Condition::Busy | Condition::Updating => Some(format!(
            "another change of the stack {name} is in progress. Its state is {state}. {effect}. Fix: run this command again \
             when it has ended"
        )),
        Condition::RollbackFailed => Some(format!(
            "the stack {name} cannot be updated. Its state is {state}. {effect}. Fix: run `aws cloudformation \
             continue-update-rollback --stack-name {name}`, then this command again"
        )),
        Condition::Ready | Condition::Planned | Condition::Broken => None,
    }
}

/// Whether a stack is that of a target.
fn is_of(found: &Stack, stack: &str, target: &TargetName) -> bool {
    found.setting("Stack") == Some(stack) && found.setting("Target") == Some(target.as_str())
}

/// Returns whether a target has a stack.
///
/// # Errors
///
/// The command fails.
pub async fn exists(aws: &Aws, stack: &str, target: &TargetName) -> anyhow::Result<bool> {
    let found = Stack::find(aws, &target.queue(stack)).await?;
    Ok(found.is_some_and(|found| is_of(&found, stack, target)))
}

/// Creates or updates the stack of a target. Without `messages` an existing stack keeps its filter policy, and subscribes to the
/// present topic of the main stack.
///
/// # Errors
///
/// Its state does not allow it, or a command fails.
pub async fn deploy(
    aws: &Aws,
    stack: &Stack,
    target: &TargetName,
    preset: Preset,
    messages: Option<&Messages>,
) -> anyhow::Result<()> {
    let name = &target.queue(stack.name());
    let found = find(aws, stack.name(), target).await?;
    expect_changeable(found.as_ref(), "It was not changed")?;
    if let Some(broken) = found.as_ref().filter(|found| found.condition() == Condition::Broken) {
        let state = broken.state();
        show(&format!("the stack {name} was not created completely ({state}), and is deleted first"));
        delete_stack(aws, name).await?;
    }
    fs::write(aws.folder().join(TEMPLATE_FILE), TEMPLATE).context("cannot write the template")?;
    let alerts = stack.output(Topic::Alerts.output())?;
    let mut parameters =
        vec![format!("Stack={}", stack.name()), format!("Target={target}"), format!("AlertsTopicArn={alerts}")];
    parameters.push(format!("Coalesce={}", preset.coalesces()));
    let kept = || topic(stack, found.as_ref()?);
    if let Some(topic) = messages.map(|messages| messages.topic).or_else(kept) {
        parameters.push(format!("TopicArn={}", stack.output(topic.output())?));
    }
    if let Some(Messages { policy, .. }) = messages {
        parameters.push(format!("FilterPolicy={}", Value::Object(policy.clone())));
    }
    let deploy = ["cloudformation", "deploy", "--template-file", TEMPLATE_FILE, "--stack-name", name];
    // Version 1 of the AWS CLI fails by default when there is nothing to change.
    let options = ["--no-fail-on-empty-changeset", "--capabilities", "CAPABILITY_IAM", "--parameter-overrides"];
    let parameters: Vec<_> = parameters.iter().map(String::as_str).collect();
    let command = [&deploy[..], &options, &parameters].concat();
    if aws.endpoint().is_none() {
        show("CloudFormation usually takes one to two minutes");
    }
    let (deployed, failures) = stack_events::shown_during(aws, name, aws.run(&command)).await;
    deployed.map(drop).with_context(|| {
        let reasons = if failures.is_empty() {
            String::new()
        } else {
            format!(". Resources that failed: {}", failures.join("; "))
        };
        format!("the stack {name} was not deployed{reasons}")
    })
}

/// Returns the topic of a target's stack, if it has one. Any but the alerts topic is an events topic, perhaps one that the main
/// stack had before.
fn topic(stack: &Stack, of_target: &Stack) -> Option<Topic> {
    let topic = of_target.setting("TopicArn")?;
    let is_alerts = stack.output(Topic::Alerts.output()).is_ok_and(|arn| arn == topic);
    Some(if is_alerts { Topic::Alerts } else { Topic::Events })
}

/// Whether a target's stack subscribes to a topic that the main stack does not have, or had before.
pub fn has_other_topic(stack: &Stack, of_target: &Stack) -> bool {
    let Some(topic) = topic(stack, of_target) else { return false };
    stack.output(topic.output()).ok() != of_target.setting("TopicArn")
}

/// Returns the topic and the filter policy of a target's stack, as far as it has them.
pub fn subscription(stack: &Stack, of_target: &Stack) -> Option<(Topic, Map<String, Value>)> {
    let policy = serde_json::from_str(of_target.setting("FilterPolicy").unwrap_or("{}")).ok()?;
    Some((topic(stack, of_target)?, policy))
}

/// Reads how many messages of a target are not delivered; none of queues that do not exist.
///
/// # Errors
///
/// A command fails.
pub async fn depth(aws: &Aws, stack: &str, target: &TargetName) -> anyhow::Result<Depth> {
    let (queue, dead_letters) = (target.queue(stack), target.dead_letters(stack));
    let (waiting, dead_letters) = tokio::try_join!(depth_of(aws, &queue), depth_of(aws, &dead_letters))?;
    Ok(Depth { waiting, dead_letters })
}

/// Reads the number of messages in a queue; none if it does not exist.
async fn depth_of(aws: &Aws, queue: &str) -> anyhow::Result<u64> {
    match queue::find(aws, queue).await? {
        // It may be deleted meanwhile.
        Some(url) => match queue::depth(aws, &url).await {
            Err(error) if queue::is_missing(&error) => Ok(0),
            depth => depth,
        },
        None => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_in_a_state_without_changes_is_rejected_with_the_fix() {
        for (condition, state, expected) in [
            (Condition::Ready, "UPDATE_COMPLETE", None),
            (Condition::Broken, "ROLLBACK_COMPLETE", None),
            (Condition::Planned, "REVIEW_IN_PROGRESS", None),
            (Condition::Busy, "DELETE_IN_PROGRESS", Some("Fix: run this command again when it has ended")),
            (Condition::Updating, "UPDATE_IN_PROGRESS", Some("Fix: run this command again when it has ended")),
            (Condition::RollbackFailed, "UPDATE_ROLLBACK_FAILED", Some("continue-update-rollback --stack-name a")),
        ] {
            let text = refusal("a", condition, state, "Nothing was stored");
            assert_eq!(text.is_some(), expected.is_some(), "{state}");
            let parts = ["Nothing was stored. Fix: ", state, expected.unwrap_or_default()];
            assert!(text.iter().all(|text| parts.iter().all(|part| text.contains(part))), "{text:?}");
        }
    }
}
