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
        let is_ours = found.setting("Stack") == Some(stack) && found.setting("Target") == Some(target.as_str());
        ensure!(
            is_ours || found.condition() == Condition::Planned,
            "the stack {} is not that of the target {target}. Nothing was done. Fix: choose another name for the target",
            found.name()
        );
    }
    Ok(found)
}

/// Creates or updates the stack of a target. Without `messages` an existing stack keeps its subscription.
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
    match found.as_ref().map(|found| (found.condition(), found.state())) {
        Some((Condition::Broken, state)) => {
            show(&format!("the stack {name} was not created completely ({state}), and is deleted first"));
            delete_stack(aws, name).await?;
        }
        Some((Condition::Busy | Condition::Updating, state)) => bail!(
            "another change of the stack {name} is in progress. Its state is {state}. Fix: run this command again when it \
             has ended"
        ),
        Some((Condition::RollbackFailed, state)) => bail!(
            "the stack {name} cannot be updated. Its state is {state}. Fix: run `aws cloudformation \
             continue-update-rollback --stack-name {name}`, then this command again"
        ),
        Some((Condition::Ready | Condition::Planned, _)) | None => {}
    }
    fs::write(aws.folder().join(TEMPLATE_FILE), TEMPLATE).context("cannot write the template")?;
    let alerts = stack.output(Topic::Alerts.output())?;
    let mut parameters =
        vec![format!("Stack={}", stack.name()), format!("Target={target}"), format!("AlertsTopicArn={alerts}")];
    parameters.push(format!("Coalesce={}", preset.coalesces()));
    if let Some(Messages { topic, policy, .. }) = messages {
        parameters.push(format!("TopicArn={}", stack.output(topic.output())?));
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

/// Returns the topic and the filter policy of a target's stack, as far as it has them.
pub fn subscription(stack: &Stack, of_target: &Stack) -> Option<(Topic, Map<String, Value>)> {
    let topic = of_target.setting("TopicArn")?;
    let is_alerts = stack.output(Topic::Alerts.output()).is_ok_and(|arn| arn == topic);
    let policy = serde_json::from_str(of_target.setting("FilterPolicy").unwrap_or("{}")).ok()?;
    Some((if is_alerts { Topic::Alerts } else { Topic::Events }, policy))
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
        Some(url) => queue::depth(aws, &url).await,
        None => Ok(0),
    }
}
