//! `cargo infra deploy`: builds the functions and makes or updates the stack.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    aws::Aws,
    binaries::{self, Architecture},
    cloud::STACK,
    concurrency,
    environment::forget_our_package,
    regions::Fitness,
    stack::{Condition, Stack, parameters_of},
    steps::{show, step},
    target::{Target, Way},
    workspace::Workspace,
};

/// Builds the functions, checks that Lambda can run them, uploads them, and makes the stack or updates it.
#[derive(Clone, Debug, Args)]
pub struct Deploy {
    /// S3 bucket for the code and the template, in the stack's region.
    #[arg(long)]
    bucket: String,
    /// Processor to build for.
    #[arg(long, value_enum, default_value = "arm64")]
    arch: Architecture,
    /// A parameter of the template, such as ExclusiveRuns=false; can be given several times. Those of an existing stack
    /// that are not given keep their values.
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<String>,
    /// Deploy what is built already.
    #[arg(long)]
    no_build: bool,
    /// The template, if it is not infra/template.yaml. The functions are in target/lambda next to its folder.
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

/// Parameters that are none of a person's, since other options decide them.
const DECIDED: [(&str, &str); 2] = [("Architecture", "--arch"), ("AwsEndpointUrl", "--endpoint-url")];

fn parameter(text: &str) -> Result<String, String> {
    let Some((name, _)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err("expected a name and a value, such as ExclusiveRuns=false".to_owned());
    };
    match DECIDED.iter().find(|(decided, _)| *decided == name) {
        Some((_, option)) => Err(format!("{name} follows from {option}")),
        None => Ok(text.to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
///
/// Something that is needed is missing, the functions do not build or could not run on Lambda, or CloudFormation failed.
/// The error says which, and in what state the stack is.
pub async fn run(arguments: Deploy) -> anyhow::Result<()> {
    let Deploy { bucket, arch, mut parameters, no_build, template, target } = arguments;
    // Not by the parser of the option, whose error would repeat it.
    ensure!(
        !parameters.iter().any(|parameter| parameter.starts_with("HttpsProxy=") && parameter.contains('@')),
        "HttpsProxy has a user or a password, and everybody who may look at the stack or the function reads it there. Give \
         the address without a user and a password, and let the proxy admit the reconciler by its network: put it into a \
         VPC with SubnetIds and SecurityGroupIds"
    );
    let workspace = Workspace::locate()?;
    let template = template.unwrap_or_else(|| workspace.file("infra/template.yaml"));
    let template = template.canonicalize().with_context(|| format!("cannot find {}", template.display()))?;
    let binaries = binaries::folder_of(&template)?;
    let way = target.way().await?;
    if !no_build {
        check_cargo_lambda().await?;
    }
    // What could fail in the middle is looked at before anything is built.
    let look = look_ahead(&way, &bucket, &template, &parameters);
    let title = format!("Look at the account, the bucket {bucket} and the stack {}", way.name);
    let chosen = step(&title, look).await?;
    if !no_build {
        let build = build(&workspace, &binaries, arch);
        step(&format!("Build the functions for {arch}"), build).await?;
    }
    let check = async { binaries::check(&binaries, arch).map(|told| told.iter().for_each(|line| show(line))) };
    step("Check that Lambda can run what is built", check).await?;
    // The last one of a name counts.
    parameters.extend(chosen);
    parameters.push(format!("Architecture={arch}"));
    parameters.extend(way.aws.endpoint().map(|endpoint| format!("AwsEndpointUrl={endpoint}")));
    let title = format!("Deploy the stack {}", way.name);
    let stack = step(&title, async {
        match Stack::deploy(&way.aws, &way.name, &template, &bucket, &parameters).await {
            Ok(stack) => {
                stack.outputs().for_each(|(name, value)| show(&format!("{name:15} {value}")));
                Ok(stack)
            }
            Err(error) => Err(error.context(state_after_failure(&way).await)),
        }
    });
    let stack = stack.await?;
    let name = if stack.name() == STACK { String::new() } else { format!(" --stack {}", stack.name()) };
    println!("\nThe stack is up. Next, declare a Tableau site:\n\n  cargo infra add-site marketing{name}");
    Ok(())
}

/// Makes sure that a deployment can begin, and tells where it goes. Returns parameters that follow from what the account
/// has.
async fn look_ahead(way: &Way, bucket: &str, template: &Path, parameters: &[String]) -> anyhow::Result<Vec<String>> {
    let Way { aws, name, .. } = way;
    let place = aws.place().await?;
    show(&place.to_string());
    let stack = Stack::find(aws, name).await?;
    match Fitness::of(&place.region) {
        // A local cloud has all that AWS has in any region; and where a stack is, there is what it needs.
        Fitness::Unfit(why) if aws.endpoint().is_none() && stack.is_none() => bail!(why),
        Fitness::Unfit(why) | Fitness::Unknown(why) => show(&format!("warning: {why}")),
        Fitness::Fit => {}
    }
    let head = aws.json(&["s3api", "head-bucket", "--bucket", bucket]).await.with_context(|| {
        format!(
            "the bucket {bucket} cannot be used: it is not there, or not yours. Name another with --bucket, or make it: \
             aws s3 mb s3://{bucket}"
        )
    })?;
    // Not every AWS CLI tells.
    let region = head["BucketRegion"].as_str().unwrap_or(&place.region);
    ensure!(
        region == place.region,
        "the bucket {bucket} is in {region}, and the stack would be in {}: Lambda takes code only from a bucket in its own \
         region. Name another bucket, or choose the region with AWS_DEFAULT_REGION",
        place.region
    );
    match &stack {
        None => {
            show(&format!("the stack {name} will be made"));
            for parameter in parameters_of(aws, name).await? {
                show(&format!(
                    "{parameter} is there already, from an earlier stack, and will be used. If the key that encrypts it \
                     is gone, delete it: aws ssm delete-parameter --name {parameter}"
                ));
            }
        }
        Some(stack) => {
            let state = stack.state();
            match stack.condition() {
                Condition::Planned => show(&format!("the stack {name} will be made")),
                Condition::Whole => {
                    stack.expect_ours(aws).await?;
                    show(&format!("the stack {name} will be updated; its state is {state}"));
                }
                Condition::Changing | Condition::Underway => {
                    bail!(
                        "the stack {name} is being changed by somebody: its state is {state}. Wait until that is over"
                    )
                }
                Condition::Stuck => bail!(
                    "the stack {name} cannot be updated: its state is {state}. First: aws cloudformation \
                     continue-update-rollback --stack-name {name}"
                ),
                Condition::Broken => bail!(
                    "the stack {name} cannot be updated: its state is {state}. Remove what is left of it with `cargo \
                     infra destroy`, then deploy again"
                ),
            }
        }
    }
    // The AWS CLI drops parameters that the template does not have, silently.
    let template = template.to_str().context("the template's path is not UTF-8")?;
    let key = format!("{name}/template.yaml");
    aws.run(&["s3", "cp", template, &format!("s3://{bucket}/{key}")]).await?;
    let url = address_of(aws.endpoint(), &place.region, bucket, &key);
    let known = aws.json(&["cloudformation", "validate-template", "--template-url", &url]).await?;
    let known = known["Parameters"].as_array().into_iter().flatten();
    let known: Vec<_> = known.filter_map(|parameter| parameter["ParameterKey"].as_str()).collect();
    for name in parameters.iter().filter_map(|parameter| parameter.split('=').next()) {
        ensure!(known.contains(&name), "the template has no parameter {name}, but: {}", known.join(", "));
    }
    let settings = Settings { given: parameters, stack: stack.as_ref() };
    if settings.has_vpc()? {
        show(&endpoints(&place.region));
    }
    settings.reservations(aws).await
}

/// What the template's parameters will be: those that were given, and otherwise those of the stack that is there.
struct Settings<'a> {
    given: &'a [String],
    stack: Option<&'a Stack>,
}

impl Settings<'_> {
    /// A parameter's value, empty if it will have the template's default.
    fn value(&self, name: &str) -> &str {
        let mut given = self.given.iter().rev().filter_map(|parameter| parameter.split_once('='));
        let given = given.find(|(given, _)| *given == name).map(|(_, value)| value);
        given.or_else(|| self.stack?.setting(name)).unwrap_or_default()
    }

    /// Whether the reconciler will be in a VPC. CloudFormation has a rule for it, and goes by it when everything is built
    /// and uploaded.
    fn has_vpc(&self) -> anyhow::Result<bool> {
        let [subnets, groups] = ["SubnetIds", "SecurityGroupIds"].map(|name| !self.value(name).is_empty());
        ensure!(
            subnets == groups,
            "SubnetIds and SecurityGroupIds go together: for a VPC give both, without it neither. {} is missing",
            if subnets { "SecurityGroupIds" } else { "SubnetIds" }
        );
        Ok(subnets)
    }

    /// Parameters for the concurrency that the stack reserves, so that it fits the account.
    async fn reservations(&self, aws: &Aws) -> anyhow::Result<Vec<String>> {
        let functions = ["ReceiverName", "ReconcilerName"].map(|output| self.stack?.output(output).ok());
        let functions: Vec<_> = functions.into_iter().flatten().collect();
        let account = match concurrency::Account::look(aws, &functions).await {
            Ok(account) => account,
            Err(error) => {
                show(&format!(
                    "warning: the account's Lambda concurrency could not be looked at, so the reservations may not fit: \
                     {error:#}"
                ));
                return Ok(Vec::new());
            }
        };
        let decision = account.decide(self.value("ReceiverReservedConcurrency"), self.value("ExclusiveRuns"))?;
        show(&decision.words);
        Ok(decision.parameters)
    }
}

/// What the reconciler has to reach from a VPC. SSM and SNS call KMS themselves, and the log, failed runs and traces are
/// written by Lambda.
fn endpoints(region: &str) -> String {
    format!(
        "the reconciler will be in a VPC. From its subnets it has to reach Tableau, and AWS: through a NAT gateway, or through \
         interface endpoints with private DNS names for com.amazonaws.{region}.ssm and com.amazonaws.{region}.sns that let \
         its security groups in at port 443, and a gateway endpoint for com.amazonaws.{region}.dynamodb. It needs no other"
    )
}

/// The address under which CloudFormation fetches what is in a bucket.
fn address_of(endpoint: Option<&str>, region: &str, bucket: &str, key: &str) -> String {
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let endpoint = endpoint.map_or_else(|| format!("https://s3.{region}.{suffix}"), str::to_owned);
    format!("{endpoint}/{bucket}/{key}")
}

/// `cargo lambda`, as it is installed.
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
        "cargo-lambda is not installed: pip install cargo-lambda, or see https://www.cargo-lambda.info"
    );
    Ok(())
}

async fn build(workspace: &Workspace, folder: &Path, arch: Architecture) -> anyhow::Result<()> {
    let mut build = cargo_lambda();
    build.args(["build", "--release", arch.build_option(), "--output-format", "zip", "--lambda-dir"]).arg(folder);
    build.arg("--manifest-path").arg(workspace.file("Cargo.toml"));
    let status = build.status().await.context("cannot start cargo")?;
    ensure!(status.success(), "the functions do not build; the messages above say why");
    Ok(())
}

/// What CloudFormation says of a deployment that failed.
async fn state_after_failure(way: &Way) -> String {
    let Way { aws, name, .. } = way;
    let Ok(Some(stack)) = Stack::find(aws, name).await else {
        return "CloudFormation did not begin; nothing was changed but the bucket's content".to_owned();
    };
    let query = "StackEvents[?ends_with(ResourceStatus, '_FAILED')].[LogicalResourceId, ResourceStatusReason]";
    let events = ["cloudformation", "describe-stack-events", "--stack-name", name, "--max-items", "100"];
    let events = aws.json(&[&events[..], &["--query", query]].concat()).await.unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("no reason given").to_owned();
    let reasons =
        events.as_array().into_iter().flatten().map(|event| format!("{}: {}", text(&event[0]), text(&event[1])));
    let reasons: Vec<_> = reasons.collect();
    let next = match stack.condition() {
        Condition::Broken => "Mend the cause, remove what is left with `cargo infra destroy`, and deploy again",
        Condition::Stuck => "See `aws cloudformation continue-update-rollback`",
        _ => "The stack is as it was before",
    };
    let quota = reasons.iter().any(|reason| reason.contains("ReservedConcurrentExecution"));
    let quota = if quota {
        ". This account's quota for concurrent executions allows no reservation: add --parameter ExclusiveRuns=false"
    } else {
        ""
    };
    format!("the stack is in the state {}. {next}. What failed: {}{quota}", stack.state(), reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cloudformation_finds_the_template_in_every_partition_and_in_a_local_cloud() {
        for (endpoint, region, expected) in [
            (None, "eu-central-1", "https://s3.eu-central-1.amazonaws.com/code/fan/template.yaml"),
            (None, "us-gov-west-1", "https://s3.us-gov-west-1.amazonaws.com/code/fan/template.yaml"),
            (None, "cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn/code/fan/template.yaml"),
            (Some("http://127.0.0.1:4566"), "us-east-1", "http://127.0.0.1:4566/code/fan/template.yaml"),
        ] {
            assert_eq!(address_of(endpoint, region, "code", "fan/template.yaml"), expected);
        }
    }
}
