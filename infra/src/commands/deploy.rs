//! `cargo infra deploy`: builds the functions, or takes built ones, and creates or updates the stack.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure};
use clap::Args;
use shared::sites::commands::stack_option;

use self::preflight::{Checked, Wanted};
use crate::{
    binaries::{self, Architecture},
    cargo_lambda,
    connection::{Connection, StackOptions},
    interruption::unless_interrupted,
    release::ReleaseFolder,
    stack::{Condition, Stack},
    stack_events,
    steps::{show, step, step_of_program},
    terminal::{good, print, warning},
    workspace::Workspace,
};

mod preflight;

/// Builds the functions, and creates or updates the stack.
///
/// Checks before that the account, the bucket and the stack are ready, and that Lambda can run the functions.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  cargo infra deploy
  cargo infra deploy --parameter AlertEmail=you@example.com")]
pub struct Deploy {
    /// S3 bucket for the code and the template, in the stack's region. By default the command uses a bucket called
    /// tableau-fanout-artifacts-ACCOUNT-REGION, and creates it, private and encrypted, if it does not exist.
    #[arg(long)]
    bucket: Option<String>,
    /// Processor to build for. By default that of the existing stack, and arm64 for a new one. In a local cloud a new stack is
    /// for this machine's.
    #[arg(long, value_enum, conflicts_with = "zips")]
    arch: Option<Architecture>,
    /// A parameter of the template, such as ExclusiveRuns=false. Repeat the option for more. Parameters of an existing
    /// stack keep their values.
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<String>,
    /// Build nothing: deploy this folder, an unzipped archive of a release or a folder that `cargo infra package` wrote.
    #[arg(long, value_name = "FOLDER")]
    zips: Option<PathBuf>,
    #[command(flatten)]
    options: StackOptions,
}

/// Parameters that follow from other options.
const DERIVED: [(&str, &str); 2] = [("Architecture", "--arch or --zips"), ("AwsEndpointUrl", "--endpoint-url")];

fn parameter(text: &str) -> Result<String, String> {
    let Some((name, _)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err("expected a name and a value, such as ExclusiveRuns=false".to_owned());
    };
    match DERIVED.iter().find(|(derived, _)| *derived == name) {
        Some((_, option)) => Err(format!("{name} follows from {option}")),
        None => Ok(text.to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
///
/// A requirement is missing, the functions do not build or cannot run on Lambda, CloudFormation failed, or the command was
/// interrupted. The error says which, and names the state of the stack.
pub async fn run(arguments: Deploy) -> anyhow::Result<()> {
    let Deploy { bucket, arch, parameters, zips, options } = arguments;
    // Not in the option's parser, whose error would repeat the password.
    ensure!(
        !parameters.iter().any(|parameter| parameter.starts_with("HttpsProxy=") && parameter.contains('@')),
        "HttpsProxy has a user or a password. Everyone with read access to the stack or the function could read them. \
         Nothing was deployed. Fix: give the proxy's URL without a user and a password, and let the proxy admit the \
         reconciler by its network (SubnetIds and SecurityGroupIds)"
    );
    let workspace = Workspace::locate()?;
    let zips = zips.as_deref().map(ReleaseFolder::open).transpose()?;
    let connection = options.connect().await?;
    let template = zips.as_ref().map_or_else(|| workspace.file("infra/template.yaml"), ReleaseFolder::template);
    let wanted = Wanted { bucket: bucket.as_deref(), arch, template: &template, parameters: &parameters };
    let has_begun = Cell::new(false);
    let deployment = deploy(&workspace, &connection, &wanted, zips, &has_begun);
    match unless_interrupted(deployment).await? {
        Some(result) => result,
        None if has_begun.get() => bail!(explain_interruption(&connection).await?),
        None => bail!(
            "interrupted before the deployment began. The stack is unchanged. Fix: run this command again, which continues \
             with what is built"
        ),
    }
}

async fn deploy(
    workspace: &Workspace,
    connection: &Connection,
    wanted: &Wanted<'_>,
    zips: Option<ReleaseFolder>,
    has_begun: &Cell<bool>,
) -> anyhow::Result<()> {
    let name = &connection.name;
    // Before the build, which takes minutes.
    let title = format!("Check the account, the bucket and the stack {name}");
    let checked = step(&title, preflight::run(connection, wanted)).await?;
    let release = match zips {
        Some(release) => release,
        None => build(workspace, &workspace.local("package")?, checked.architecture).await?,
    };
    check(&release).await?;
    has_begun.set(true);
    let title = format!("Deploy the stack {name}");
    let stack = step(&title, deploy_stack(connection, &release, wanted.parameters, &checked)).await?;
    print(format!("\n{}", good("The stack is deployed.")));
    let option = stack_option(stack.name());
    print(if checked.has_sites {
        format!("Next, see that events and alerts arrive:\n\n  cargo infra test{option}")
    } else {
        format!("Next, add a Tableau site:\n\n  cargo infra add-site marketing{option}")
    });
    Ok(())
}

/// Builds the functions and writes them to a release folder.
pub(super) async fn build(workspace: &Workspace, folder: &Path, arch: Architecture) -> anyhow::Result<ReleaseFolder> {
    step_of_program(&format!("Build the functions for {arch}"), cargo_lambda::build(workspace, folder, arch)).await
}

/// Checks that Lambda can run the functions in a release folder.
pub(super) async fn check(release: &ReleaseFolder) -> anyhow::Result<()> {
    let check = async { binaries::check(release.path()).map(|lines| lines.iter().for_each(|line| show(line))) };
    step("Check that Lambda can run the functions", check).await
}

/// Uploads the functions, creates or updates the stack, and shows its outputs.
async fn deploy_stack(
    connection: &Connection,
    release: &ReleaseFolder,
    given: &[String],
    checked: &Checked,
) -> anyhow::Result<Stack> {
    let Connection { aws, name, .. } = connection;
    let Checked { bucket, objects, parameters, .. } = checked;
    // The last parameter of a name counts.
    let mut parameters = [given, parameters].concat();
    parameters.push(format!("Architecture={}", release.architecture()));
    parameters.extend(aws.endpoint().map(|endpoint| format!("AwsEndpointUrl={endpoint}")));
    if aws.endpoint().is_none() {
        show("CloudFormation usually takes two to five minutes");
    }
    let template = release.template();
    let deployment = Stack::deploy(aws, name, &template, bucket.name(), &parameters);
    let (deployed, failures) = stack_events::shown_during(aws, name, deployment).await;
    let stack = match deployed {
        Ok(stack) => stack,
        Err(error) => return Err(error.context(explain_failure(connection, &failures).await)),
    };
    stack.outputs().for_each(|(name, value)| show(&format!("{name:15} {value}")));
    let packaged = Stack::packaged_template(aws)?;
    let superseded: Vec<_> = objects.iter().filter(|key| !packaged.contains(key.as_str())).cloned().collect();
    if let Err(error) = bucket.delete(aws, &superseded).await {
        show(&warning(format!("earlier code could not be deleted from the bucket. Details: {error:#}")));
    }
    Ok(stack)
}

/// Explains the consequence of an interruption after the deployment began.
async fn explain_interruption(connection: &Connection) -> anyhow::Result<String> {
    let Connection { aws, name, .. } = connection;
    let stack = Stack::find(aws, name).await?;
    let state = stack.as_ref().map_or("", Stack::state);
    Ok(match stack.as_ref().map(Stack::condition) {
        Some(Condition::Busy | Condition::Updating) => format!(
            "interrupted. CloudFormation continues with the stack {name}, whose state is {state}. Fix: watch it with `aws \
             cloudformation describe-stack-events --stack-name {name} --max-items 10`. When it has ended, run this command \
             again; it changes only the rest"
        ),
        None | Some(Condition::Planned) => {
            "interrupted before CloudFormation created anything. Only the bucket's content has changed. Fix: run this command \
             again"
                .to_owned()
        }
        Some(_) => format!(
            "interrupted. CloudFormation is not at work on the stack {name}, whose state is {state}. Fix: run this command \
             again; it changes only the rest"
        ),
    })
}

/// Explains a deployment that failed, by the stack's state and the resources that failed.
async fn explain_failure(connection: &Connection, failures: &[String]) -> String {
    let Connection { aws, name, .. } = connection;
    let Ok(Some(stack)) = Stack::find(aws, name).await else {
        return "the deployment failed before CloudFormation started. Only the bucket's content may have changed"
            .to_owned();
    };
    let reasons = failures.join("; ");
    let option = stack_option(name);
    let fix = match stack.condition() {
        _ if reasons.contains("ReservedConcurrentExecution") => format!(
            "The account's quota for concurrent executions allows no reservation. Fix: add --parameter ExclusiveRuns=false, \
             after `cargo infra destroy{option}` if the stack is new"
        ),
        Condition::Broken => {
            format!("Fix: correct the cause, run `cargo infra destroy{option}`, then deploy again")
        }
        Condition::RollbackFailed => {
            format!("Fix: run `aws cloudformation continue-update-rollback --stack-name {name}`, then deploy again")
        }
        _ => "The stack is unchanged. Fix: correct the cause, then deploy again".to_owned(),
    };
    let resources = if reasons.is_empty() { String::new() } else { format!(". Resources that failed: {reasons}") };
    format!("the deployment failed. The stack's state is {}. {fix}{resources}", stack.state())
}
