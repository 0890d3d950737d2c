//! A deployed stack, on AWS or in a local cloud.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use shared::registration::keyring::Keyring;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    aws::{Aws, has_code},
    parameters,
};

/// The template after packaging, in the AWS CLI's folder. It names the uploaded code.
const PACKAGED_TEMPLATE: &str = "packaged.yaml";

/// The identifier in the metadata of our template.
const TEMPLATE_ID: &str = "6f0d2a94-58c1-4b7e-9d36-e1a7c40b83f5";

/// Parts of our template from releases before [`TEMPLATE_ID`]. No other template has all of them.
const PARTS_BEFORE_TEMPLATE_ID: [&str; 6] = [
    "${AWS::StackName}-receiver",
    "${AWS::StackName}-reconciler",
    "ReconcilerSchedule",
    "RECEIVER_URL",
    "SIGNING_KEYS_PARAMETER",
    "SITES_PATH",
];

/// A stack, with its outputs.
#[derive(Clone, Debug)]
pub struct Stack {
    name: String,
    state: String,
    created_at: Option<OffsetDateTime>,
    outputs: BTreeMap<String, String>,
    /// The values of the template's parameters.
    settings: BTreeMap<String, String>,
}

/// State of a stack, by the operations that it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It works and can be updated.
    Ready,
    /// It works and is being updated.
    Updating,
    /// It works, but neither an update nor its rollback succeeded.
    RollbackFailed,
    /// It is being created or deleted.
    Busy,
    /// It was not created or not deleted completely. The rest can only be deleted.
    Broken,
    /// It is planned and has no resources yet.
    Planned,
}

impl Condition {
    fn of(state: &str) -> Self {
        match state {
            "REVIEW_IN_PROGRESS" => Self::Planned,
            "UPDATE_ROLLBACK_FAILED" => Self::RollbackFailed,
            "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "CREATE_FAILED" | "DELETE_FAILED" => Self::Broken,
            state if state.ends_with("_IN_PROGRESS") && state.starts_with("UPDATE_") => Self::Updating,
            state if state.ends_with("_IN_PROGRESS") => Self::Busy,
            _ => Self::Ready,
        }
    }
}

impl Stack {
    /// Finds the stack called `name` in any state.
    ///
    /// # Errors
    ///
    /// The command fails.
    pub async fn find(aws: &Aws, name: &str) -> anyhow::Result<Option<Self>> {
        let found = aws.json(&["cloudformation", "describe-stacks", "--stack-name", name]).await;
        let stacks = match found {
            Err(error) if has_code(&error, "ValidationError") && format!("{error:#}").contains("does not exist") => {
                return Ok(None);
            }
            found => found?,
        };
        let stack = &stacks["Stacks"][0];
        let pairs = |list: &str, kind: &str| {
            let pairs = stack[list].as_array().into_iter().flatten();
            let text = |pair: &Value, part: &str| pair[format!("{kind}{part}")].as_str().map(str::to_owned);
            pairs.filter_map(|pair| Some((text(pair, "Key")?, text(pair, "Value")?))).collect()
        };
        let state = stack["StackStatus"].as_str().unwrap_or_default().to_owned();
        let (settings, outputs) = (pairs("Parameters", "Parameter"), pairs("Outputs", "Output"));
        let created_at = stack["CreationTime"].as_str().and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
        Ok(Some(Self { name: name.to_owned(), state, created_at, settings, outputs }))
    }

    /// Reads the stack called `name`.
    ///
    /// # Errors
    ///
    /// It does not exist or does not work, or the command fails.
    pub async fn read(aws: &Aws, name: &str) -> anyhow::Result<Self> {
        let Some(stack) = Self::find(aws, name).await? else {
            let location = aws.location().await?;
            bail!(
                "there is no stack {name} in {location}. Fix: create it with `cargo infra deploy`. For a stack of another \
                 name add --stack, for another region set AWS_DEFAULT_REGION, for another account set AWS_PROFILE"
            );
        };
        let state = &stack.state;
        match stack.condition() {
            Condition::Ready | Condition::Updating | Condition::RollbackFailed => Ok(stack),
            Condition::Busy | Condition::Planned => {
                bail!("the stack {name} is not ready. Its state is {state}. Fix: try again when the state has changed")
            }
            Condition::Broken => bail!(
                "the stack {name} does not work. Its state is {state}. Fix: delete the rest with `cargo infra destroy`, then \
                 run `cargo infra deploy`"
            ),
        }
    }

    /// Uploads the files of a template, creates or updates the stack called `name`, and returns it. Parameters that are
    /// not given keep their values.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn deploy(
        aws: &Aws,
        name: &str,
        template: &Path,
        bucket: &str,
        parameters: &[String],
    ) -> anyhow::Result<Self> {
        let template = template.to_str().context("the template's path is not UTF-8")?;
        let package = ["cloudformation", "package", "--template-file", template, "--s3-bucket", bucket];
        let options = ["--s3-prefix", name, "--output-template-file", PACKAGED_TEMPLATE];
        aws.run(&[&package[..], &options].concat()).await?;
        Self::update(aws, name, bucket, parameters).await
    }

    /// Creates or updates the stack called `name` with the template that [`Stack::deploy`] packaged last.
    ///
    /// # Errors
    ///
    /// The command fails.
    pub async fn update(aws: &Aws, name: &str, bucket: &str, parameters: &[String]) -> anyhow::Result<Self> {
        let deploy = ["cloudformation", "deploy", "--template-file", PACKAGED_TEMPLATE, "--stack-name", name];
        // A request holds a template of at most 51,200 bytes. CloudFormation fetches a larger one from the bucket.
        let upload = ["--s3-bucket", bucket, "--s3-prefix", name];
        // Version 1 of the AWS CLI fails by default when there is nothing to change.
        let options = ["--no-fail-on-empty-changeset", "--capabilities", "CAPABILITY_IAM", "--parameter-overrides"];
        let parameters: Vec<_> = parameters.iter().map(String::as_str).collect();
        aws.run(&[&deploy[..], &upload, &options, &parameters].concat()).await?;
        Self::read(aws, name).await
    }

    /// Reads the template that [`Stack::deploy`] packaged last. It names the objects with the code.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn packaged_template(aws: &Aws) -> anyhow::Result<String> {
        let path = aws.folder().join(PACKAGED_TEMPLATE);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Name of the stack.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// State of the stack as CloudFormation names it.
    pub fn state(&self) -> &str {
        &self.state
    }

    /// Time of the stack's creation, if CloudFormation names it.
    pub fn created_at(&self) -> Option<OffsetDateTime> {
        self.created_at
    }

    /// Condition of the stack, by its state.
    pub fn condition(&self) -> Condition {
        Condition::of(&self.state)
    }

    /// Checks that the stack was created from our template.
    ///
    /// # Errors
    ///
    /// It was not, or the command fails.
    pub async fn expect_ours(&self, aws: &Aws) -> anyhow::Result<()> {
        let get = ["cloudformation", "get-template", "--stack-name", &self.name, "--query", "TemplateBody"];
        if !is_our_template(&aws.run(&get).await?) {
            bail!(
                "the stack {} is not a stack of Tableau Fanout. Nothing was done. Fix: name the right stack with --stack",
                self.name
            );
        }
        Ok(())
    }

    /// Value of an output.
    ///
    /// # Errors
    ///
    /// The stack has no such output.
    pub fn output(&self, name: &str) -> anyhow::Result<&str> {
        let output = self.outputs.get(name).map(String::as_str);
        output.with_context(|| {
            format!(
                "the stack {} has no output {name}. Fix: check with --stack that it is a stack of Tableau Fanout",
                self.name
            )
        })
    }

    /// Value of a parameter of the template, if the stack has it.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// All outputs, sorted by name.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.outputs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// URL at which this machine reaches the receiver. No DNS server resolves the Function URL of a local cloud.
    ///
    /// # Errors
    ///
    /// The output is not a Function URL.
    pub fn reachable_receiver_url(&self, aws: &Aws) -> anyhow::Result<String> {
        let url = self.output("ReceiverUrl")?;
        let Some(endpoint) = aws.endpoint() else { return Ok(url.to_owned()) };
        let id = url.strip_prefix("https://").and_then(|url| url.split_once('.')).map(|(id, _)| id);
        Ok(format!("{endpoint}/_aws/lambda-url/{}/", id.with_context(|| format!("{url} is no Function URL"))?))
    }

    /// Name of a parameter in SSM, such as `signing-keys`.
    pub fn parameter(&self, name: &str) -> String {
        format!("/{}/{name}", self.name)
    }

    /// Name of a site's entry in SSM.
    ///
    /// # Errors
    ///
    /// The stack has no such output.
    pub fn site_parameter(&self, site: &str) -> anyhow::Result<String> {
        Ok(format!("{}/{site}", self.output("SitesPath")?))
    }

    /// Reads the signing keys.
    ///
    /// # Errors
    ///
    /// They do not exist yet, or cannot be read.
    pub async fn keyring(&self, aws: &Aws) -> anyhow::Result<Keyring> {
        let value = parameters::read(aws, &self.parameter("signing-keys")).await?;
        let value = value.with_context(|| {
            format!(
                "the stack {} has no signing keys yet. The reconciler creates them with the first site. Fix: add a site with \
                 `cargo infra add-site`",
                self.name
            )
        })?;
        Ok(Keyring::parse(value.expose_secret())?)
    }

    /// Stores a site's entry. Replaces an existing one only if `overwrite` is true.
    ///
    /// # Errors
    ///
    /// The command fails, or the entry exists.
    pub async fn put_site(&self, aws: &Aws, site: &str, entry: &SecretString, overwrite: bool) -> anyhow::Result<()> {
        parameters::put(aws, &self.site_parameter(site)?, self.output("KeyAlias")?, entry, overwrite).await
    }
}

/// Returns whether a template, in YAML or JSON, is ours. Its description does not count.
pub(crate) fn is_our_template(template: &str) -> bool {
    template.contains(TEMPLATE_ID) || PARTS_BEFORE_TEMPLATE_ID.iter().all(|part| template.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    #[test]
    fn our_template_is_recognized_and_one_that_mentions_it_is_not() -> anyhow::Result<()> {
        let workspace = Workspace::locate()?;
        let ours = fs::read_to_string(workspace.file("infra/template.yaml"))?;
        assert!(ours.contains(TEMPLATE_ID) && is_our_template(&ours));
        // As earlier releases deployed it.
        assert!(is_our_template(&ours.replace(TEMPLATE_ID, "")));
        let examples = fs::read_dir(workspace.file("infra/examples"))?.collect::<Result<Vec<_>, _>>()?;
        let examples = examples.iter().map(|file| fs::read_to_string(file.path())).collect::<Result<Vec<_>, _>>()?;
        assert!(examples.iter().any(|example| example.contains("Tableau Fanout")));
        for other in examples.iter().chain([&"Description: Monitors Tableau Fanout".to_owned()]) {
            assert!(!is_our_template(other), "{other}");
        }
        Ok(())
    }

    #[test]
    fn each_state_of_cloudformation_has_a_condition() {
        for (state, condition) in [
            ("CREATE_COMPLETE", Condition::Ready),
            ("UPDATE_COMPLETE", Condition::Ready),
            ("UPDATE_ROLLBACK_COMPLETE", Condition::Ready),
            ("UPDATE_FAILED", Condition::Ready),
            ("IMPORT_ROLLBACK_COMPLETE", Condition::Ready),
            ("UPDATE_IN_PROGRESS", Condition::Updating),
            ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", Condition::Updating),
            ("UPDATE_ROLLBACK_IN_PROGRESS", Condition::Updating),
            ("UPDATE_ROLLBACK_FAILED", Condition::RollbackFailed),
            ("CREATE_IN_PROGRESS", Condition::Busy),
            ("ROLLBACK_IN_PROGRESS", Condition::Busy),
            ("DELETE_IN_PROGRESS", Condition::Busy),
            ("ROLLBACK_COMPLETE", Condition::Broken),
            ("ROLLBACK_FAILED", Condition::Broken),
            ("CREATE_FAILED", Condition::Broken),
            ("DELETE_FAILED", Condition::Broken),
            ("REVIEW_IN_PROGRESS", Condition::Planned),
        ] {
            assert_eq!(Condition::of(state), condition, "{state}");
        }
    }
}
