//! `cargo infra deploy`: builds the functions, or takes built ones, and creates or updates the stack.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use serde_json::Value;

use crate::{
    binaries::{self, Architecture},
    cargo_lambda,
    cloud::STACK,
    release::ReleaseFolder,
    stack::{Condition, Stack},
    steps::{show, step, step_of_program},
    target::{Connection, Target},
    workspace::Workspace,
};

mod preflight;

/// Builds the functions, checks that Lambda can run them, uploads them, and creates or updates the stack.
#[derive(Clone, Debug, Args)]
pub struct Deploy {
    /// S3 bucket for the code and the template, in the stack's region.
    #[arg(long)]
    bucket: String,
    /// Processor to build for.
    #[arg(long, value_enum, default_value = "arm64", conflicts_with = "zips")]
    arch: Architecture,
    /// A parameter of the template, such as ExclusiveRuns=false. Repeat the option for more. Parameters of an existing
    /// stack keep their values.
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<String>,
    /// Build nothing: deploy this folder, an unzipped archive of a release or a folder that `cargo infra package` wrote.
    #[arg(long, value_name = "FOLDER")]
    zips: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
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
/// A requirement is missing, the functions do not build or cannot run on Lambda, or CloudFormation failed. The error says
/// which, and names the state of the stack.
pub async fn run(arguments: Deploy) -> anyhow::Result<()> {
    let Deploy { bucket, arch, mut parameters, zips, target } = arguments;
    // Not in the option's parser, whose error would repeat the password.
    ensure!(
        !parameters.iter().any(|parameter| parameter.starts_with("HttpsProxy=") && parameter.contains('@')),
        "HttpsProxy has a user or a password. Everyone with read access to the stack or the function could read them. \
         Nothing was deployed. Fix: give the proxy's URL without a user and a password, and let the proxy admit the \
         reconciler by its network (SubnetIds and SecurityGroupIds)"
    );
    let workspace = Workspace::locate()?;
    let zips = zips.as_deref().map(ReleaseFolder::open).transpose()?;
    let connection = target.connect().await?;
    let template = if let Some(release) = &zips {
        release.template()
    } else {
        cargo_lambda::check().await?;
        workspace.file("infra/template.yaml")
    };
    // Before the build, which takes minutes.
    let preflight = preflight::run(&connection, &bucket, &template, &parameters);
    let title = format!("Check the account, the bucket {bucket} and the stack {}", connection.name);
    let chosen = step(&title, preflight).await?;
    let release = if let Some(release) = zips {
        release
    } else {
        let folder = workspace.local("package")?;
        step_of_program(&format!("Build the functions for {arch}"), cargo_lambda::build(&workspace, &folder, arch))
            .await?
    };
    let check = async { binaries::check(release.path()).map(|lines| lines.iter().for_each(|line| show(line))) };
    step("Check that Lambda can run the functions", check).await?;
    // The last parameter of a name counts.
    parameters.extend(chosen);
    parameters.push(format!("Architecture={}", release.architecture()));
    parameters.extend(connection.aws.endpoint().map(|endpoint| format!("AwsEndpointUrl={endpoint}")));
    let title = format!("Deploy the stack {}", connection.name);
    let stack = step(&title, async {
        match Stack::deploy(&connection.aws, &connection.name, &release.template(), &bucket, &parameters).await {
            Ok(stack) => {
                stack.outputs().for_each(|(name, value)| show(&format!("{name:15} {value}")));
                Ok(stack)
            }
            Err(error) => Err(error.context(explain_failure(&connection).await)),
        }
    });
    let stack = stack.await?;
    let name = if stack.name() == STACK { String::new() } else { format!(" --stack {}", stack.name()) };
    println!("\nThe stack is deployed. Next, add a Tableau site:\n\n  cargo infra add-site marketing{name}");
    Ok(())
}

/// Explains a deployment that failed, by the stack's state and events.
async fn explain_failure(connection: &Connection) -> String {
    let Connection { aws, name, .. } = connection;
    let Ok(Some(stack)) = Stack::find(aws, name).await else {
        return "the deployment failed before CloudFormation started. Only the bucket's content may have changed"
            .to_owned();
    };
    let query = "StackEvents[?ends_with(ResourceStatus, '_FAILED')].[LogicalResourceId, ResourceStatusReason]";
    let events = ["cloudformation", "describe-stack-events", "--stack-name", name, "--max-items", "100"];
    let events = aws.json(&[&events[..], &["--query", query]].concat()).await.unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("no reason given").to_owned();
    let reasons = events.as_array().into_iter().flatten();
    let reasons =
        reasons.map(|event| format!("{}: {}", text(&event[0]), text(&event[1]))).collect::<Vec<_>>().join("; ");
    let fix = match stack.condition() {
        _ if reasons.contains("ReservedConcurrentExecution") => {
            "The account's quota for concurrent executions allows no reservation. Fix: add --parameter ExclusiveRuns=false, \
             after `cargo infra destroy` if the stack is new"
        }
        Condition::Broken => "Fix: correct the cause, run `cargo infra destroy`, then deploy again",
        Condition::RollbackFailed => "Fix: run `aws cloudformation continue-update-rollback`, then deploy again",
        _ => "The stack is unchanged. Fix: correct the cause, then deploy again",
    };
    format!("the deployment failed. The stack's state is {}. {fix}. Resources that failed: {reasons}", stack.state())
}
