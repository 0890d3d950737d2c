//! `cargo infra deploy`: builds the functions and creates or updates the stack.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    binaries::{self, Architecture},
    cloud::STACK,
    environment::forget_our_package,
    stack::{Condition, Stack},
    steps::{show, step},
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
    #[arg(long, value_enum, default_value = "arm64")]
    arch: Architecture,
    /// A parameter of the template, such as ExclusiveRuns=false. Repeat the option for more. Parameters of an existing
    /// stack keep their values.
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<String>,
    /// Deploy the functions as they were built before.
    #[arg(long)]
    no_build: bool,
    /// The template, by default infra/template.yaml. The functions are in target/lambda next to its folder.
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

/// Parameters that follow from other options.
const DERIVED: [(&str, &str); 2] = [("Architecture", "--arch"), ("AwsEndpointUrl", "--endpoint-url")];

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
    let Deploy { bucket, arch, mut parameters, no_build, template, target } = arguments;
    // Not in the option's parser, whose error would repeat the password.
    ensure!(
        !parameters.iter().any(|parameter| parameter.starts_with("HttpsProxy=") && parameter.contains('@')),
        "HttpsProxy has a user or a password. Everyone with read access to the stack or the function could read them. \
         Nothing was deployed. Fix: give the proxy's URL without a user and a password, and let the proxy admit the \
         reconciler by its network (SubnetIds and SecurityGroupIds)"
    );
    let workspace = Workspace::locate()?;
    let template = template.unwrap_or_else(|| workspace.file("infra/template.yaml"));
    let template = template.canonicalize().with_context(|| format!("cannot find {}", template.display()))?;
    let binaries = binaries::folder_of(&template)?;
    let connection = target.connect().await?;
    if !no_build {
        check_cargo_lambda().await?;
    }
    // Before the build, which takes minutes.
    let preflight = preflight::run(&connection, &bucket, &template, &parameters);
    let title = format!("Check the account, the bucket {bucket} and the stack {}", connection.name);
    let chosen = step(&title, preflight).await?;
    if !no_build {
        let build = build(&workspace, &binaries, arch);
        step(&format!("Build the functions for {arch}"), build).await?;
    }
    let check = async { binaries::check(&binaries, arch).map(|lines| lines.iter().for_each(|line| show(line))) };
    step("Check that Lambda can run the functions", check).await?;
    // The last parameter of a name counts.
    parameters.extend(chosen);
    parameters.push(format!("Architecture={arch}"));
    parameters.extend(connection.aws.endpoint().map(|endpoint| format!("AwsEndpointUrl={endpoint}")));
    let title = format!("Deploy the stack {}", connection.name);
    let stack = step(&title, async {
        match Stack::deploy(&connection.aws, &connection.name, &template, &bucket, &parameters).await {
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

/// The installed `cargo lambda`.
fn cargo_lambda() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_our_package(&mut cargo);
    cargo.arg("lambda").stdin(Stdio::null()).kill_on_drop(true);
    cargo
}

async fn check_cargo_lambda() -> anyhow::Result<()> {
    let version = cargo_lambda().arg("--version").output().await.context("cannot start cargo")?;
    ensure!(
        version.status.success(),
        "cargo-lambda is not installed. Fix: run `pip install cargo-lambda`, or see https://www.cargo-lambda.info"
    );
    Ok(())
}

async fn build(workspace: &Workspace, folder: &Path, arch: Architecture) -> anyhow::Result<()> {
    let mut build = cargo_lambda();
    build.args(["build", "--release", arch.build_option(), "--output-format", "zip", "--lambda-dir"]).arg(folder);
    build.arg("--manifest-path").arg(workspace.file("Cargo.toml"));
    let status = build.status().await.context("cannot start cargo")?;
    ensure!(status.success(), "the functions do not build. Fix: see the compiler's messages above");
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
