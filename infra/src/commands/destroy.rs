//! `cargo infra destroy`: removes our webhooks from Tableau, then the stack.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    aws::Aws,
    reconcile::reconciled,
    stack::{Condition, Stack, parameters_of},
    steps::{show, step},
    target::{Target, Way},
};

/// The parameters that the reconciler makes, and those in which earlier versions kept their state. They are of no use without
/// the stack: the signed addresses end with it.
const MADE_BY_US: [&str; 4] = ["signing-keys", "state", "refreshes", "refreshes-lease"];

/// How the template describes a stack's key. It tells a key that outlived its stack, since the alias ended with that.
fn description_of_key(stack: &str) -> String {
    format!("Site entries, signing keys and topics of {stack}")
}

/// How many parameters one call deletes at most.
const DELETED_AT_ONCE: usize = 10;

/// Removes our webhooks from Tableau and then deletes the stack. Asks before it does.
#[derive(Clone, Debug, Args)]
pub struct Destroy {
    /// Delete the site entries too, and the keys that encrypt them: the stack's, and those of earlier stacks of its name.
    #[arg(long)]
    delete_parameters: bool,
    /// Delete the stack also if webhooks of ours are left on Tableau.
    #[arg(long)]
    force: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    target: Target,
}

/// Runs the command.
///
/// # Errors
///
/// There is no such stack, nobody agreed, webhooks are left on Tableau, or the stack could not be deleted. The error says
/// what is left.
pub async fn run(arguments: Destroy) -> anyhow::Result<()> {
    let Destroy { delete_parameters, force, yes, target } = arguments;
    let way = target.way().await?;
    let Way { aws, name, .. } = &way;
    let title = format!("Look at the stack {name}");
    let Found { stack, parameters, earlier_keys } = step(&title, look(&way)).await?;
    let stack = stack.with_context(|| {
        let left = if earlier_keys.is_empty() { "" } else { ". The keys named above can be deleted all the same" };
        format!(
            "there is no stack {name} here, and nothing was done. Name it with --stack; choose the region with \
             AWS_DEFAULT_REGION and the account with AWS_PROFILE{left}"
        )
    })?;
    let (deleted, kept): (Vec<_>, Vec<_>) = parameters
        .into_iter()
        .partition(|parameter| delete_parameters || MADE_BY_US.iter().any(|made| stack.parameter(made) == *parameter));
    // The template keeps the key for the site entries. None was made if the stack never came to be.
    let key = stack.output("KeyId").ok().map(str::to_owned);
    let (deleted_key, kept_key) = if delete_parameters { (key, None) } else { (None, key) };
    let deleted_earlier_keys = if delete_parameters { earlier_keys } else { Vec::new() };
    announce(&stack, (&deleted, deleted_key.as_deref(), &deleted_earlier_keys), (&kept, kept_key.as_deref()));
    if !yes {
        confirm(name)?;
    }
    if works(&stack) {
        remove_webhooks(aws, &stack, force).await?;
    }
    let delete = delete(aws, name);
    step(&format!("Delete the stack {name}, and wait until it is gone"), delete).await?;
    if !deleted.is_empty() {
        let delete = delete_all(aws, &deleted);
        step("Delete the parameters", delete).await.context("the stack is gone; the parameters are not")?;
    }
    for key in deleted_key.iter().chain(&deleted_earlier_keys) {
        let delete = ["kms", "schedule-key-deletion", "--key-id", key];
        let title = format!("Have the key {key} deleted");
        step(&title, aws.run(&delete)).await.with_context(|| format!("the stack is gone; the key {key} is not"))?;
    }
    println!("\nThe stack {name} is gone.");
    if !kept.is_empty() {
        println!("Kept: {}.", kept.join(", "));
    }
    Ok(())
}

/// Whether the stack has a reconciler that can be asked.
fn works(stack: &Stack) -> bool {
    stack.output("ReconcilerName").is_ok()
        && matches!(stack.condition(), Condition::Whole | Condition::Stuck | Condition::Changing)
}

/// What is there of a stack.
struct Found {
    stack: Option<Stack>,
    /// The names of its parameters.
    parameters: Vec<String>,
    /// The keys of earlier stacks of its name.
    earlier_keys: Vec<String>,
}

/// Looks for the stack, at the names of its parameters, and for keys of earlier stacks of its name.
async fn look(way: &Way) -> anyhow::Result<Found> {
    let Way { aws, name, .. } = way;
    show(&aws.place().await?.to_string());
    let stack = Stack::find(aws, name).await?;
    if let Some(stack) = &stack {
        stack.expect_ours(aws).await?;
    }
    let key = stack.as_ref().and_then(|stack| stack.output("KeyId").ok());
    let earlier_keys = earlier_keys(aws, name, key).await.unwrap_or_else(|error| {
        show(&format!("keys of earlier stacks called {name} could not be looked for: {error:#}"));
        Vec::new()
    });
    for key in &earlier_keys {
        show(&format!(
            "{key} is the key of an earlier stack called {name}, and costs a dollar a month. When no parameter under \
             /{name} needs it any more: aws kms schedule-key-deletion --key-id {key}"
        ));
    }
    let Some(stack) = stack else { return Ok(Found { stack, parameters: Vec::new(), earlier_keys }) };
    ensure!(
        !matches!(stack.condition(), Condition::Underway | Condition::Changing),
        "the stack {name} is being changed by somebody: its state is {}. Wait until that is over",
        stack.state()
    );
    let parameters = parameters_of(aws, name).await?;
    show(&format!("state {}, {} parameters under /{name}", stack.state(), parameters.len()));
    Ok(Found { stack: Some(stack), parameters, earlier_keys })
}

/// The keys of earlier stacks called `name`, which outlived them, without those that are being deleted already. `key` is
/// that of the present stack.
async fn earlier_keys(aws: &Aws, name: &str, key: Option<&str>) -> anyhow::Result<Vec<String>> {
    let texts = async |command: &[&str]| -> anyhow::Result<Vec<String>> {
        Ok(serde_json::from_value::<Option<_>>(aws.json(command).await?)?.unwrap_or_default())
    };
    let named = texts(&["kms", "list-aliases", "--query", "Aliases[].TargetKeyId"]).await?;
    let mut keys = texts(&["kms", "list-keys", "--query", "Keys[].KeyId"]).await?;
    // Only those without an alias: few, and each is a call.
    keys.retain(|id| Some(id.as_str()) != key && !named.contains(id));
    let mut earlier = Vec::new();
    for id in keys {
        let describe = ["kms", "describe-key", "--key-id", &id, "--query", "KeyMetadata.[Description, KeyState]"];
        // A key that we may not look at is none of ours.
        let Ok(described) = aws.json(&describe).await else { continue };
        if described[0] == description_of_key(name) && described[1] != "PendingDeletion" {
            earlier.push(id);
        }
    }
    Ok(earlier)
}

/// Says what will be gone and what stays.
fn announce(stack: &Stack, deleted: (&[String], Option<&str>, &[String]), kept: (&[String], Option<&str>)) {
    let name = stack.name();
    println!("\nThis removes, for good:");
    if works(stack) {
        println!("  - our webhooks on every Tableau site that is declared (no others)");
    } else {
        println!("  - nothing on Tableau: the stack has no reconciler that could ({})", stack.state());
    }
    println!("  - the stack {name} with its functions, topics, their subscriptions, and the functions' logs");
    let ((deleted, deleted_key, deleted_earlier_keys), (kept, kept_key)) = (deleted, kept);
    deleted.iter().for_each(|parameter| println!("  - the parameter {parameter}"));
    let earlier = deleted_earlier_keys.iter().map(|key| (key.as_str(), " of an earlier stack of this name"));
    for (key, whose) in deleted_key.map(|key| (key, "")).into_iter().chain(earlier) {
        println!(
            "  - the encryption key {key}{whose}: unusable at once, deleted by AWS after a waiting period (30 days)"
        );
    }
    println!("It keeps:");
    println!("  - the code in the S3 bucket, and the queues and functions of others that subscribed");
    kept.iter().for_each(|parameter| println!("  - the parameter {parameter}"));
    if let Some(key) = kept_key {
        println!(
            "  - the encryption key {key}, without which nobody could read the parameters any more. Another stack called \
             {name} goes on with them; --delete-parameters deletes them and the key"
        );
    }
}

fn confirm(name: &str) -> anyhow::Result<()> {
    ensure!(io::stdin().is_terminal(), "nobody can be asked here, and nothing was done: --yes goes ahead without");
    print!("\nType the stack's name to go ahead: ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    ensure!(answer.trim() == name, "that is not its name: nothing was done");
    Ok(())
}

/// Has the reconciler delete our webhooks. If that fails, or somebody interrupts it, the schedule runs again.
async fn remove_webhooks(aws: &Aws, stack: &Stack, force: bool) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let removed = tokio::select! {
        // An interruption ends the AWS CLI too, which must not count as a failure that --force passes over.
        biased;
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        removed = remove_for_good(aws, stack, force) => Some(removed),
    };
    let error = match removed {
        Some(Ok(())) => return Ok(()),
        Some(Err(error)) if force => {
            println!("    Going on all the same, as --force says: {error:#}");
            return Ok(());
        }
        Some(Err(error)) => error,
        None => anyhow!("interrupted"),
    };
    let resumed = step("Start the schedule again", set_schedule(aws, stack.name(), "ENABLED")).await;
    let schedule = match resumed {
        Ok(()) => "the stack is as it was, and the next run makes again what was removed",
        Err(_) => {
            "the schedule is stopped: `cargo infra deploy` does not start it, `aws scheduler update-schedule` does"
        }
    };
    bail!(error.context(format!(
        "webhooks of ours may be left on Tableau, so the stack was not deleted: {schedule}. Mend what is said above, or \
         add --force and delete the webhooks called {}-… on Tableau yourself",
        stack.name()
    )))
}

/// Has the reconciler delete our webhooks, and sees to it that no run makes them again.
async fn remove_for_good(aws: &Aws, stack: &Stack, force: bool) -> anyhow::Result<()> {
    let pause = set_schedule(aws, stack.name(), "DISABLED");
    let paused = step("Stop the schedule, so that no run makes the webhooks again", pause).await;
    if !force {
        paused?;
    }
    step("Remove our webhooks from Tableau", reconciled(aws, stack, "destroy", &[])).await.map(drop)
}

/// Switches the reconciler's schedule on or off. All its other settings have to be said again.
async fn set_schedule(aws: &Aws, name: &str, state: &str) -> anyhow::Result<()> {
    let find = ["cloudformation", "describe-stack-resource", "--stack-name", name];
    let which = ["--logical-resource-id", "ReconcilerSchedule", "--query", "StackResourceDetail.PhysicalResourceId"];
    let schedule = aws.json(&[&find[..], &which].concat()).await?;
    let schedule = schedule.as_str().context("the stack has no schedule")?;
    let settings = aws.json(&["scheduler", "get-schedule", "--name", schedule]).await?;
    let mut options = vec!["--state".to_owned(), state.to_owned()];
    for (name, value) in settings.as_object().context("a schedule without settings")? {
        if !["Arn", "CreationDate", "LastModificationDate", "State"].contains(&name.as_str()) {
            options.extend([option(name), value.as_str().map_or_else(|| value.to_string(), str::to_owned)]);
        }
    }
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    aws.run(&[&["scheduler", "update-schedule"][..], &options].concat()).await.map(drop)
}

/// The option of the AWS CLI for a member of a request, such as `--group-name` for `GroupName`.
fn option(member: &str) -> String {
    let mut option = "-".to_owned();
    for letter in member.chars() {
        if letter.is_ascii_uppercase() {
            option.push('-');
        }
        option.push(letter.to_ascii_lowercase());
    }
    option
}

/// Deletes the stack. If that fails the error says what is left.
async fn delete(aws: &Aws, name: &str) -> anyhow::Result<()> {
    // A deleted stack is found by its identifier only.
    let find = ["cloudformation", "describe-stacks", "--stack-name", name, "--query", "Stacks[0].StackId"];
    let id = aws.json(&find).await?;
    let id = id.as_str().context("a stack without an identifier")?;
    aws.run(&["cloudformation", "delete-stack", "--stack-name", name]).await?;
    let deleted = aws.run(&["cloudformation", "wait", "stack-delete-complete", "--stack-name", id]).await;
    let query = "StackResources[?ResourceStatus != 'DELETE_COMPLETE'].[LogicalResourceId, PhysicalResourceId, \
                 ResourceStatusReason]";
    let left = ["cloudformation", "describe-stack-resources", "--stack-name", id, "--query", query];
    // Only to tell more.
    let left = aws.json(&left).await.unwrap_or_default();
    let left = left.as_array().into_iter().flatten().map(|resource| {
        let told = resource.as_array().into_iter().flatten().filter_map(Value::as_str);
        told.collect::<Vec<_>>().join(": ")
    });
    let left: Vec<_> = left.collect();
    let Err(error) = deleted else {
        left.iter().for_each(|resource| show(&format!("kept, as the template says: {resource}")));
        return Ok(());
    };
    bail!(error.context(format!(
        "the stack {name} is not gone. What is left: {}. Mend the cause and run this again",
        left.join(", ")
    )))
}

async fn delete_all(aws: &Aws, parameters: &[String]) -> anyhow::Result<()> {
    for some in parameters.chunks(DELETED_AT_ONCE) {
        let names: Vec<_> = some.iter().map(String::as_str).collect();
        aws.run(&[&["ssm", "delete-parameters", "--names"][..], &names].concat()).await?;
        names.iter().for_each(|name| show(name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_describes_its_key_as_it_is_looked_for() {
        let described = format!("Description: !Sub \"{}\"", description_of_key("${AWS::StackName}"));
        assert!(include_str!("../template.yaml").contains(&described), "{described}");
    }
}
