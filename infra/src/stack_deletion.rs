//! Deletion of a stack.

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{aws::Aws, stack_events, steps::show};

/// Deletes a stack, and waits until it is deleted.
///
/// # Errors
///
/// A command fails. The error lists the resources that are left.
pub async fn delete_stack(aws: &Aws, name: &str) -> anyhow::Result<()> {
    // CloudFormation finds a deleted stack only by its identifier.
    let find = ["cloudformation", "describe-stacks", "--stack-name", name, "--query", "Stacks[0].StackId"];
    let id = aws.json(&find).await?;
    let id = id.as_str().context("a stack without an identifier")?;
    if aws.endpoint().is_none() {
        show("CloudFormation usually takes one to three minutes");
    }
    let deletion = async {
        aws.run(&["cloudformation", "delete-stack", "--stack-name", name]).await?;
        aws.run(&["cloudformation", "wait", "stack-delete-complete", "--stack-name", id]).await
    };
    let (deleted, _) = stack_events::shown_during(aws, id, deletion).await;
    let query = "StackResources[?ResourceStatus != 'DELETE_COMPLETE'].[LogicalResourceId, PhysicalResourceId, \
                 ResourceStatusReason]";
    let left = ["cloudformation", "describe-stack-resources", "--stack-name", id, "--query", query];
    // Only for the message.
    let left = aws.json(&left).await.unwrap_or_default();
    let left = left.as_array().into_iter().flatten().map(|resource| {
        let parts = resource.as_array().into_iter().flatten().filter_map(Value::as_str);
        parts.collect::<Vec<_>>().join(": ")
    });
    let left: Vec<_> = left.collect();
    let Err(error) = deleted else {
        left.iter().for_each(|resource| show(&format!("kept by the template: {resource}")));
        return Ok(());
    };
    bail!(error.context(format!(
        "the stack {name} is not deleted. Resources left: {}. Fix: correct the cause and run this command again",
        left.join(", ")
    )))
}
