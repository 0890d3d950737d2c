//! `cargo infra destroy`: deletes the stack's webhooks on Tableau, then the stack.

use std::io::{self, IsTerminal};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use shared::targets::name::TargetName;

use super::remove_target;
use crate::{
    aws::{Aws, Location},
    bucket::Bucket,
    connection::{Connection, StackOptions},
    interruption::{Effect, explained, unless_interrupted},
    parameters, prompt, reconciler,
    stack::{Condition, Stack},
    stack_deletion::delete_stack,
    steps::{show, step},
    target_entries,
    target_stack::{self, Depth},
    targets,
    temporary_queues::sweep,
    terminal::{BOLD, good, print, styled, warning},
};

/// Parameters of the reconciler, including those of earlier releases. They are useless without the stack, since its signed
/// URLs end with it.
const OWN_PARAMETERS: [&str; 4] = ["signing-keys", "state", "refreshes", "refreshes-lease"];

/// The effect of an end before the stack is deleted.
const WEBHOOKS_DELETED: &str = ", but its webhooks on Tableau are, and its schedule is stopped";

/// Returns the template's description of a stack's key. It identifies a key whose stack, and so whose alias, is deleted.
fn key_description(stack: &str) -> String {
    format!("Site entries, signing keys and topics of {stack}")
}

/// Deletes the stack's webhooks on Tableau, then the stack.
///
/// Shows what it deletes and what it keeps, and asks for confirmation.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  cargo infra destroy
  cargo infra destroy --delete-parameters")]
pub struct Destroy {
    /// Delete the site entries too, and the keys that encrypt them: the stack's, and those of earlier stacks of its name.
    #[arg(long)]
    delete_parameters: bool,
    /// Delete the stack even if some of its webhooks are left on Tableau.
    #[arg(long)]
    force: bool,
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
/// The stack does not exist, the confirmation is missing, webhooks are left on Tableau, or the deletion failed. The error
/// says what is left.
pub async fn run(arguments: Destroy) -> anyhow::Result<()> {
    let Destroy { delete_parameters, force, yes, options } = arguments;
    let connection = options.connect().await?;
    let Connection { aws, name, .. } = &connection;
    let found = step(&format!("Check the stack {name}"), find(&connection)).await?;
    let plan = Plan::new(found, name, delete_parameters)?;
    plan.print();
    if !yes {
        let effect = Effect::new("Nothing was deleted. To delete the stack, run this command again");
        explained(&effect, confirm(name)).await?;
    }
    if has_reconciler(&plan.stack) {
        delete_webhooks(aws, &plan.stack, force).await?;
    }
    match unless_interrupted(plan.delete(aws)).await? {
        Some(deleted) => deleted?,
        None => bail!(plan.explain_interruption(aws).await?),
    }
    print(format!("\n{}", good(format!("The stack {name} is deleted."))));
    if !plan.kept_parameters.is_empty() {
        print(format!("Kept: {}.", plan.kept_parameters.join(", ")));
    }
    Ok(())
}

/// Returns whether the stack has a reconciler that can be invoked.
fn has_reconciler(stack: &Stack) -> bool {
    stack.output("ReconcilerName").is_ok()
        && matches!(stack.condition(), Condition::Ready | Condition::RollbackFailed | Condition::Updating)
}

/// Resources of a stack name.
struct Found {
    stack: Option<Stack>,
    /// The targets, each with its messages that are not delivered.
    targets: Vec<(TargetName, Depth)>,
    /// Names of the parameters, without those of the targets.
    parameters: Vec<String>,
    /// Keys of earlier stacks of the name.
    earlier_keys: Vec<String>,
    /// The tool's own bucket, with the keys of the stack's objects.
    code: Option<(Bucket, Vec<String>)>,
}

/// Finds the stack, the names of its parameters, and the keys of earlier stacks of its name.
async fn find(connection: &Connection) -> anyhow::Result<Found> {
    let Connection { aws, name, .. } = connection;
    let location = aws.location().await?;
    show(&location.to_string());
    let stack = Stack::find(aws, name).await?;
    if let Some(stack) = &stack {
        stack.expect_ours(aws).await?;
    }
    let key = stack.as_ref().and_then(|stack| stack.output("KeyId").ok());
    let earlier_keys = earlier_keys(aws, name, key).await.unwrap_or_else(|error| {
        show(&warning(format!("keys of earlier stacks called {name} could not be listed. Details: {error:#}")));
        Vec::new()
    });
    for key in &earlier_keys {
        show(&format!(
            "{key} is the key of an earlier stack called {name}. It costs a dollar a month. If no parameter under /{name} \
             needs it: aws kms schedule-key-deletion --key-id {key}"
        ));
    }
    let Some(stack) = stack else {
        return Ok(Found { stack, targets: Vec::new(), parameters: Vec::new(), earlier_keys, code: None });
    };
    ensure!(
        !matches!(stack.condition(), Condition::Busy | Condition::Updating),
        "another change of the stack {name} is in progress. Its state is {}. Nothing was done. Fix: run this command again when it \
         has ended",
        stack.state()
    );
    let (mut parameters, targets) = (parameters::list(aws, name).await?, targets(aws, name).await?);
    show(&format!("state {}, {} parameters under /{name}", stack.state(), parameters.len()));
    parameters.retain(|parameter| !targets.iter().any(|(target, _)| *parameter == entry(name, target)));
    let code = find_code(aws, &location, name).await.unwrap_or_else(|error| {
        show(&warning(format!("the tool's bucket could not be read, and is kept as it is. Details: {error:#}")));
        None
    });
    Ok(Found { stack: Some(stack), targets, parameters, earlier_keys, code })
}

/// Finds the targets.
async fn targets(aws: &Aws, stack: &str) -> anyhow::Result<Vec<(TargetName, Depth)>> {
    let mut found = Vec::new();
    for target in targets::valid_names(aws, stack).await? {
        // Another stack of its name could not be deleted after the webhooks were.
        let (_, depth) =
            tokio::try_join!(target_stack::find(aws, stack, &target), target_stack::depth(aws, stack, &target))?;
        found.push((target, depth));
    }
    Ok(found)
}

/// Returns the name of a target's parameter.
fn entry(stack: &str, target: &TargetName) -> String {
    target_entries::parameter(stack, target.as_str())
}

/// Finds the tool's own bucket and the stack's objects in it.
async fn find_code(aws: &Aws, location: &Location, name: &str) -> anyhow::Result<Option<(Bucket, Vec<String>)>> {
    let Some(bucket) = Bucket::find_own(aws, location).await? else { return Ok(None) };
    let objects = bucket.objects_of(aws, name).await?;
    Ok(Some((bucket, objects)))
}

/// Lists the keys of earlier stacks called `name`, without those whose deletion is scheduled. `key` is the present stack's.
async fn earlier_keys(aws: &Aws, name: &str, key: Option<&str>) -> anyhow::Result<Vec<String>> {
    let texts = async |command: &[&str]| -> anyhow::Result<Vec<String>> {
        Ok(serde_json::from_value::<Option<_>>(aws.json(command).await?)?.unwrap_or_default())
    };
    let named = texts(&["kms", "list-aliases", "--query", "Aliases[].TargetKeyId"]).await?;
    let mut keys = texts(&["kms", "list-keys", "--query", "Keys[].KeyId"]).await?;
    // Keys without an alias are few. Each takes a call.
    keys.retain(|id| Some(id.as_str()) != key && !named.contains(id));
    let mut earlier = Vec::new();
    for id in keys {
        let describe = ["kms", "describe-key", "--key-id", &id, "--query", "KeyMetadata.[Description, KeyState]"];
        // A key that these credentials cannot read is not ours.
        let Ok(described) = aws.json(&describe).await else { continue };
        if described[0] == key_description(name) && described[1] != "PendingDeletion" {
            earlier.push(id);
        }
    }
    Ok(earlier)
}

/// The resources to delete and to keep.
struct Plan {
    stack: Stack,
    /// The targets, each with its messages that are not delivered.
    targets: Vec<(TargetName, Depth)>,
    deleted_parameters: Vec<String>,
    kept_parameters: Vec<String>,
    /// The stack's key first, if it is deleted, then those of earlier stacks.
    deleted_keys: Vec<String>,
    /// The stack's key, if it is kept.
    kept_key: Option<String>,
    /// The tool's own bucket, with the keys of the stack's objects.
    code: Option<(Bucket, Vec<String>)>,
}

impl Plan {
    fn new(found: Found, name: &str, delete_parameters: bool) -> anyhow::Result<Self> {
        let Found { stack, targets, parameters, earlier_keys, code } = found;
        let stack = stack.with_context(|| {
            let left = if earlier_keys.is_empty() { "" } else { ". The keys above are of earlier stacks" };
            format!(
                "there is no stack {name} here. Nothing was done. Fix: name the stack with --stack, the region with \
                 AWS_DEFAULT_REGION and the account with AWS_PROFILE{left}"
            )
        })?;
        let is_own = |parameter: &String| OWN_PARAMETERS.iter().any(|own| stack.parameter(own) == *parameter);
        let (deleted_parameters, kept_parameters) =
            parameters.into_iter().partition(|parameter| delete_parameters || is_own(parameter));
        // A stack whose creation failed has no key.
        let key = stack.output("KeyId").ok().map(str::to_owned);
        let (deleted_keys, kept_key) =
            if delete_parameters { (key.into_iter().chain(earlier_keys).collect(), None) } else { (Vec::new(), key) };
        Ok(Self { stack, targets, deleted_parameters, kept_parameters, deleted_keys, kept_key, code })
    }

    fn print(&self) {
        let Self { stack, targets, deleted_parameters, kept_parameters, deleted_keys, kept_key, code } = self;
        let name = stack.name();
        let item = |text: String| print(format!("  - {text}"));
        print(format!("\n{}", styled(BOLD, "This deletes permanently:")));
        if has_reconciler(stack) {
            item("the stack's webhooks on every declared Tableau site, and no other webhooks".to_owned());
        } else {
            item(format!("nothing on Tableau, since the stack has no working reconciler ({})", stack.state()));
        }
        for (target, depth) in targets {
            item(format!("{}, its stack and its entry", remove_target::describe(target, *depth)));
        }
        item(format!("the stack {name} with its functions, topics, subscriptions and the functions' logs"));
        deleted_parameters.iter().for_each(|parameter| item(format!("the parameter {parameter}")));
        for key in deleted_keys {
            let is_own = stack.output("KeyId").is_ok_and(|own| own == key);
            let of = if is_own { "" } else { " of an earlier stack of this name" };
            item(format!("the encryption key {key}{of}: unusable at once, deleted by AWS after 30 days"));
        }
        if let Some((bucket, objects)) = code {
            item(format!("the stack's code in the bucket {}: {} objects", bucket.name(), objects.len()));
        }
        print(styled(BOLD, "It keeps:"));
        item("the subscribers' queues and functions".to_owned());
        match code {
            Some((bucket, _)) => {
                let name = bucket.name();
                item(format!(
                    "the bucket {name}, which other stacks may use. To delete it: aws s3 rb s3://{name} --force"
                ));
            }
            None => item("the code in the S3 bucket".to_owned()),
        }
        kept_parameters.iter().for_each(|parameter| item(format!("the parameter {parameter}")));
        if let Some(key) = kept_key {
            item(format!(
                "the encryption key {key}, which the parameters need. A later stack called {name} uses both; \
                 --delete-parameters deletes them"
            ));
        }
    }

    /// Deletes the stack, then the rest.
    async fn delete(&self, aws: &Aws) -> anyhow::Result<()> {
        let Self { stack, targets, deleted_parameters, deleted_keys, code, .. } = self;
        let name = stack.name();
        sweep(aws, stack).await;
        for (target, _) in targets {
            let deleted = remove_target::delete(aws, name, target).await;
            deleted.with_context(|| {
                let webhooks = if has_reconciler(stack) { WEBHOOKS_DELETED } else { "" };
                format!(
                    "the target {target} is not deleted, nor is the stack {name}{webhooks}. Fix: correct the cause, and run this \
                     command again"
                )
            })?;
        }
        step(&format!("Delete the stack {name}, and wait until it is deleted"), delete_stack(aws, name)).await?;
        if !deleted_parameters.is_empty() {
            let delete = async {
                parameters::delete(aws, deleted_parameters).await?;
                deleted_parameters.iter().for_each(|name| show(name));
                Ok(())
            };
            step("Delete the parameters", delete).await.context("the stack is deleted, but its parameters are not")?;
        }
        for key in deleted_keys {
            let delete = ["kms", "schedule-key-deletion", "--key-id", key];
            let delete = step(&format!("Schedule the deletion of the key {key}"), aws.run(&delete)).await;
            delete.with_context(|| format!("the stack is deleted, but the key {key} is not"))?;
        }
        if let Some((bucket, objects)) = code {
            let title = format!("Delete the stack's code in the bucket {}", bucket.name());
            let deleted = step(&title, bucket.delete(aws, objects)).await;
            deleted
                .with_context(|| format!("the stack is deleted, but its code below {name}/ in the bucket is not"))?;
        }
        Ok(())
    }

    /// Explains the consequence of an interruption after the webhooks were deleted.
    async fn explain_interruption(&self, aws: &Aws) -> anyhow::Result<String> {
        let name = self.stack.name();
        let (stack, mut rest) = (Stack::find(aws, name).await?, String::new());
        let done = match &stack {
            Some(stack) if stack.condition() == Condition::Busy => {
                rest.push_str(&format!("\n  aws cloudformation wait stack-delete-complete --stack-name {name}"));
                format!("CloudFormation continues to delete the stack {name}")
            }
            Some(_) => {
                bail!("interrupted. The stack {name} is not deleted{WEBHOOKS_DELETED}. Fix: run this command again")
            }
            None => format!("the stack {name} is deleted"),
        };
        for parameter in &self.deleted_parameters {
            rest.push_str(&format!("\n  aws ssm delete-parameter --name {parameter}"));
        }
        for key in &self.deleted_keys {
            rest.push_str(&format!("\n  aws kms schedule-key-deletion --key-id {key}"));
        }
        if let Some((bucket, _)) = &self.code {
            rest.push_str(&format!("\n  aws s3 rm --recursive s3://{}/{name}/", bucket.name()));
        }
        Ok(format!(
            "interrupted: {done}, but these may be left: its parameters, keys and code. Fix: run these commands. One whose \
             work is done already changes nothing:{rest}"
        ))
    }
}

async fn confirm(name: &str) -> anyhow::Result<()> {
    ensure!(
        io::stdin().is_terminal(),
        "standard input is no terminal, so there is no confirmation. Nothing was done. Fix: add --yes"
    );
    let answer = prompt::line("\nType the stack's name to continue: ").await?;
    ensure!(
        answer.as_deref() == Some(name),
        "the answer is not {name}, the stack's name. Nothing was deleted. To delete it, run this command again"
    );
    Ok(())
}

/// Deletes the stack's webhooks with the reconciler. Starts the schedule again if that fails or is interrupted.
async fn delete_webhooks(aws: &Aws, stack: &Stack, force: bool) -> anyhow::Result<()> {
    // --force must not ignore the error that follows an interruption.
    let deleted = unless_interrupted(stop_schedule_and_delete_webhooks(aws, stack, force)).await?;
    let error = match deleted {
        Some(Ok(())) => return Ok(()),
        Some(Err(error)) if force => {
            show(&warning(format!("continues because of --force. Details: {error:#}")));
            return Ok(());
        }
        Some(Err(error)) => error,
        None => anyhow!("interrupted; the reconciler continues a run that has begun"),
    };
    let resumed = step("Start the schedule again", set_schedule(aws, stack.name(), "ENABLED")).await;
    let schedule = match resumed {
        Ok(()) => "The next scheduled run creates deleted webhooks again",
        Err(_) => "The schedule is stopped; start it with `aws scheduler update-schedule`",
    };
    bail!(error.context(format!(
        "the stack was not deleted, since some of its webhooks may be left on Tableau. {schedule}. Fix: correct the cause \
         above and run this command again, or add --force and delete the webhooks called {}-… on Tableau yourself",
        stack.name()
    )))
}

/// Stops the schedule, so that no run creates the webhooks again, and deletes them with the reconciler.
async fn stop_schedule_and_delete_webhooks(aws: &Aws, stack: &Stack, force: bool) -> anyhow::Result<()> {
    let stopped = step("Stop the schedule", set_schedule(aws, stack.name(), "DISABLED")).await;
    if !force {
        stopped?;
    }
    step("Delete the stack's webhooks on Tableau", reconciler::run(aws, stack, "destroy", &[])).await.map(drop)
}

/// Enables or disables the reconciler's schedule. The call needs all other settings again.
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

/// Converts a member of a request to an option of the AWS CLI, such as `GroupName` to `--group-name`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_has_the_description_by_which_its_key_is_found() {
        let description = format!("Description: !Sub \"{}\"", key_description("${AWS::StackName}"));
        assert!(include_str!("../../template.yaml").contains(&description), "{description}");
    }
}
