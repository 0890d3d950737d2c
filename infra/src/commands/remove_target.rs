//! `cargo infra remove-target`: removes a target.

use std::io::{self, IsTerminal};

use anyhow::{Context, ensure};
use clap::Args;
use shared::{
    alerts::phrasing::pluralize,
    sites::commands::infra,
    targets::{
        hold::{call_key, problem_key},
        name::TargetName,
    },
};

use crate::{
    aws::Aws,
    connection::{Connection, StackOptions},
    interruption::{Effect, explained},
    parameters, prompt,
    stack::Stack,
    stack_deletion::delete_stack,
    state_table,
    steps::step,
    target_entries,
    target_stack::{self, Depth},
    targets,
    terminal::{good, print},
};

/// Removes a target, with its messages that are not delivered.
///
/// Shows how many these are, and asks for confirmation. Deletes the stack of the target, then its entry.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  cargo infra remove-target failures
  cargo infra remove-target failures --yes")]
pub struct RemoveTarget {
    /// Name of the target.
    name: TargetName,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    options: StackOptions,
}

/// Runs the command.
///
/// # Errors
///
/// The target does not exist, the confirmation is missing, or the deletion failed.
pub async fn run(arguments: RemoveTarget) -> anyhow::Result<()> {
    let effect = Effect::new("Nothing was removed. Fix: run this command again");
    explained(&effect, remove(arguments, &effect)).await
}

async fn remove(arguments: RemoveTarget, effect: &Effect) -> anyhow::Result<()> {
    let RemoveTarget { name, yes, options } = arguments;
    let Connection { aws, name: stack, .. } = &options.connect().await?;
    let names = targets::names(aws, stack).await?;
    ensure!(
        names.contains(name.as_str()) || target_stack::find(aws, stack, &name).await?.is_some(),
        "there is no target {name}. Nothing was removed. Fix: choose a declared target; `{}` lists them. Details: declared are \
         {}",
        infra("targets", stack),
        if names.is_empty() { "no target".to_owned() } else { names.into_iter().collect::<Vec<_>>().join(", ") }
    );
    let described = describe(&name, target_stack::depth(aws, stack, &name).await?);
    print(format!("This deletes permanently {described}."));
    if !yes {
        confirm(&name).await?;
    }
    effect.set(format!(
        "CloudFormation may continue to delete the stack {}. The entry of {name} stays until then. Fix: run this command again",
        name.queue(stack)
    ));
    delete(aws, stack, &name).await?;
    // A target of this name that is added later has alerts of its own.
    if let Some(found) = Stack::find(aws, stack).await?
        && let Ok(table) = found.output("StateTableName")
    {
        let forgotten = state_table::delete(aws, table, &[call_key(&name), problem_key(&name)]).await;
        forgotten.with_context(|| {
            format!("{name} is removed, but a target of this name may have its first alert a day late. Fix: wait a day before you add it")
        })?;
    }
    print(format!("\n{}", good(format!("{name} is removed."))));
    print("Delete its webhook or key in the service too, unless something else uses it.");
    Ok(())
}

/// Describes the messages that are lost with a target.
pub(super) fn describe(name: &TargetName, Depth { waiting, dead_letters }: Depth) -> String {
    let count = |count: u64| pluralize(count.try_into().unwrap_or(usize::MAX), "message", "messages");
    match (waiting, dead_letters) {
        (0, 0) => format!("the target {name}, whose queue and dead letters are empty"),
        _ => format!(
            "the target {name} with {} in its queue and {} in its dead letters, which are lost",
            count(waiting),
            count(dead_letters)
        ),
    }
}

/// Deletes the stack of a target, then its entry. Each may be missing already.
///
/// # Errors
///
/// A command fails.
pub(super) async fn delete(aws: &Aws, stack: &str, name: &TargetName) -> anyhow::Result<()> {
    if let Some(found) = target_stack::find(aws, stack, name).await? {
        let delete = delete_stack(aws, found.name());
        step(&format!("Delete the stack {}, and wait until it is deleted", found.name()), delete).await?;
    }
    let parameter = target_entries::parameter(stack, name.as_str());
    let delete = parameters::delete(aws, std::slice::from_ref(&parameter));
    step(&format!("Delete the entry {parameter}"), delete).await
}

async fn confirm(name: &TargetName) -> anyhow::Result<()> {
    ensure!(
        io::stdin().is_terminal(),
        "standard input is no terminal, so there is no confirmation. Nothing was removed. Fix: add --yes"
    );
    let answer = prompt::line("\nType the target's name to remove it: ").await?;
    ensure!(
        answer.as_deref() == Some(name.as_str()),
        "the answer is not {name}, the target's name. Nothing was removed. To remove it, run this command again"
    );
    Ok(())
}
