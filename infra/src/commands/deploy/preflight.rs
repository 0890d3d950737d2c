//! Checks before a deployment.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use shared::sites::commands::stack_option;

use crate::{
    aws::{Aws, Location},
    binaries::Architecture,
    bucket::Bucket,
    concurrency,
    connection::Connection,
    parameters,
    regions::Support,
    stack::{Condition, Stack},
    steps::show,
    target_entries,
    terminal::warning,
};

/// Requests of the user.
pub(super) struct Wanted<'a> {
    pub(super) bucket: Option<&'a str>,
    pub(super) arch: Option<Architecture>,
    /// The template to check.
    pub(super) template: &'a Path,
    pub(super) parameters: &'a [String],
}

/// Results of the checks.
pub(super) struct Checked {
    pub(super) bucket: Bucket,
    /// Objects of the stack in the tool's own bucket, before the deployment.
    pub(super) objects: Vec<String>,
    pub(super) architecture: Architecture,
    /// Parameters that follow from the account.
    pub(super) parameters: Vec<String>,
    /// Whether a site is declared already.
    pub(super) has_sites: bool,
}

/// Checks that a deployment can start, and shows its location.
pub(super) async fn run(connection: &Connection, wanted: &Wanted<'_>) -> anyhow::Result<Checked> {
    let Connection { aws, name, .. } = connection;
    let location = aws.location().await?;
    show(&location.to_string());
    let stack = Stack::find(aws, name).await?;
    match Support::of(&location.region) {
        // A local cloud supports every region. So does a region that has the stack already.
        Support::Unsupported(why) if aws.endpoint().is_none() && stack.is_none() => bail!(why),
        Support::Unsupported(why) | Support::Unknown(why) => show(&warning(why)),
        Support::Supported => {}
    }
    check_stack(aws, name, stack.as_ref()).await?;
    let Stored { has_sites, targets } = check_stored(aws, name, stack.is_none()).await?;
    let bucket = Bucket::prepare(aws, &location, wanted.bucket).await?;
    let objects = bucket.objects_of(aws, name).await?;
    let url = upload(connection, &location, bucket.name(), wanted.template).await?;
    check_parameters(aws, &url, wanted.parameters).await?;
    let settings = Settings { given: wanted.parameters, stack: stack.as_ref() };
    if settings.has_vpc()? {
        show(&endpoints(&location.region));
    }
    let parameters = settings.reservations(aws).await?;
    if targets > 0
        && let Ok(account) = concurrency::Account::read(aws, &[]).await
    {
        account.warn_of_targets(targets).iter().for_each(|text| show(&warning(text)));
    }
    let architecture = match (wanted.arch, stack.as_ref()) {
        (Some(wanted), _) => wanted,
        // A local cloud runs the functions on this machine's own processor.
        (None, None) if aws.endpoint().is_some() => Architecture::of_this_machine()?,
        (None, _) => settings.architecture(),
    };
    Ok(Checked { bucket, objects, architecture, parameters, has_sites })
}

/// Checks that the stack can be created or updated, and shows which.
async fn check_stack(aws: &Aws, name: &str, stack: Option<&Stack>) -> anyhow::Result<()> {
    let Some(stack) = stack else {
        show(&format!("the stack {name} will be created"));
        return Ok(());
    };
    let (state, option) = (stack.state(), stack_option(name));
    match stack.condition() {
        Condition::Planned => show(&format!("the stack {name} will be created")),
        Condition::Ready => {
            stack.expect_ours(aws).await?;
            show(&format!("the stack {name} will be updated; its state is {state}"));
        }
        Condition::Updating | Condition::Busy => bail!(
            "another change of the stack {name} is in progress. Its state is {state}. Nothing was deployed. Fix: run this \
             command again when it has ended; `cargo infra status{option}` shows the state"
        ),
        Condition::RollbackFailed => bail!(
            "the stack {name} cannot be updated. Its state is {state}. Nothing was deployed. Fix: run `aws cloudformation \
             continue-update-rollback --stack-name {name}`"
        ),
        Condition::Broken => bail!(
            "the stack {name} cannot be updated. Its state is {state}. Nothing was deployed. Fix: delete the rest with `cargo \
             infra destroy{option}`, then deploy again"
        ),
    }
    Ok(())
}

/// The entries of a stack.
struct Stored {
    /// Whether a site is declared.
    has_sites: bool,
    /// Number of targets.
    targets: usize,
}

/// Reads the names of the stack's parameters in SSM. Shows those that a new stack takes over.
async fn check_stored(aws: &Aws, name: &str, is_new: bool) -> anyhow::Result<Stored> {
    let stored = parameters::list(aws, name).await?;
    if is_new {
        for parameter in &stored {
            show(&format!(
                "{parameter} exists from an earlier stack and will be used. If its encryption key no longer exists, delete \
                 it: aws ssm delete-parameter --name {parameter}"
            ));
        }
    }
    let count = |path: String| stored.iter().filter(|parameter| parameter.starts_with(&path)).count();
    let targets = count(format!("{}/", target_entries::path(name)));
    Ok(Stored { has_sites: count(format!("/{name}/sites/")) > 0, targets })
}

/// Uploads the template and returns its URL.
async fn upload(connection: &Connection, location: &Location, bucket: &str, template: &Path) -> anyhow::Result<String> {
    let Connection { aws, name, .. } = connection;
    let template = template.to_str().context("the template's path is not UTF-8")?;
    let key = format!("{name}/template.yaml");
    aws.run(&["s3", "cp", template, &format!("s3://{bucket}/{key}")]).await?;
    Ok(object_url(aws.endpoint(), &location.region, bucket, &key))
}

/// Checks that the template has all given parameters. The AWS CLI would ignore an unknown one.
async fn check_parameters(aws: &Aws, template_url: &str, given: &[String]) -> anyhow::Result<()> {
    let known = aws.json(&["cloudformation", "validate-template", "--template-url", template_url]).await?;
    let known = known["Parameters"].as_array().into_iter().flatten();
    let known: Vec<_> = known.filter_map(|parameter| parameter["ParameterKey"].as_str()).collect();
    for name in given.iter().filter_map(|parameter| parameter.split('=').next()) {
        ensure!(
            known.contains(&name),
            "the template has no parameter {name}. Nothing was deployed. Fix: use one of {}",
            known.join(", ")
        );
    }
    Ok(())
}

/// Values of the template's parameters: those given, and otherwise those of the existing stack.
struct Settings<'a> {
    given: &'a [String],
    stack: Option<&'a Stack>,
}

impl Settings<'_> {
    /// Value of a parameter. Empty for the template's default.
    fn value(&self, name: &str) -> &str {
        let mut given = self.given.iter().rev().filter_map(|parameter| parameter.split_once('='));
        let given = given.find(|(given, _)| *given == name).map(|(_, value)| value);
        given.or_else(|| self.stack?.setting(name)).unwrap_or_default()
    }

    /// Architecture of the existing stack, so that an update keeps it. A new stack gets the template's default.
    fn architecture(&self) -> Architecture {
        let existing = self.stack.and_then(|stack| stack.setting("Architecture"));
        if existing == Some(Architecture::X86_64.as_str()) { Architecture::X86_64 } else { Architecture::Arm64 }
    }

    /// Returns whether the reconciler will be in a VPC. CloudFormation has the same rule but checks it after the upload.
    fn has_vpc(&self) -> anyhow::Result<bool> {
        let [subnets, groups] = ["SubnetIds", "SecurityGroupIds"].map(|name| !self.value(name).is_empty());
        ensure!(
            subnets == groups,
            "{} is missing. Nothing was deployed. Fix: give both SubnetIds and SecurityGroupIds for a VPC, or neither",
            if subnets { "SecurityGroupIds" } else { "SubnetIds" }
        );
        Ok(subnets)
    }

    /// Chooses parameters for reserved concurrency that fits the account.
    async fn reservations(&self, aws: &Aws) -> anyhow::Result<Vec<String>> {
        let functions = ["ReceiverName", "ReconcilerName"].map(|output| self.stack?.output(output).ok());
        let functions: Vec<_> = functions.into_iter().flatten().collect();
        let account = match concurrency::Account::read(aws, &functions).await {
            Ok(account) => account,
            Err(error) => {
                show(&warning(format!(
                    "the account's Lambda concurrency could not be read, so the reservations may not fit. Details: {error:#}"
                )));
                return Ok(Vec::new());
            }
        };
        let decision = account.decide(self.value("ReceiverReservedConcurrency"), self.value("ExclusiveRuns"))?;
        show(&decision.message);
        Ok(decision.parameters)
    }
}

/// Describes the endpoints that the reconciler needs in a VPC. SSM and SNS call KMS themselves, and Lambda writes logs,
/// failed runs and traces.
fn endpoints(region: &str) -> String {
    format!(
        "the reconciler will be in a VPC. From its subnets it must reach Tableau and AWS. For AWS use a NAT gateway, or a \
         gateway endpoint for com.amazonaws.{region}.dynamodb and interface endpoints with private DNS names for \
         com.amazonaws.{region}.ssm and com.amazonaws.{region}.sns, which admit its security groups at port 443"
    )
}

/// Returns the URL of an object in a bucket, for CloudFormation.
fn object_url(endpoint: Option<&str>, region: &str, bucket: &str, key: &str) -> String {
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let endpoint = endpoint.map_or_else(|| format!("https://s3.{region}.{suffix}"), str::to_owned);
    format!("{endpoint}/{bucket}/{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_has_a_url_in_every_partition_and_in_a_local_cloud() {
        for (endpoint, region, expected) in [
            (None, "eu-central-1", "https://s3.eu-central-1.amazonaws.com/code/fan/template.yaml"),
            (None, "us-gov-west-1", "https://s3.us-gov-west-1.amazonaws.com/code/fan/template.yaml"),
            (None, "cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn/code/fan/template.yaml"),
            (Some("http://127.0.0.1:4566"), "us-east-1", "http://127.0.0.1:4566/code/fan/template.yaml"),
        ] {
            assert_eq!(object_url(endpoint, region, "code", "fan/template.yaml"), expected);
        }
    }
}
