//! A deployed stack, on AWS or in a local cloud.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use shared::registration::{keyring::Keyring, site_name::SiteName};
use tokio::fs;

use crate::aws::{Aws, Input, has_code};

/// How long the reconciler may take for an answer, in seconds: the longest that Lambda lets any function run. The AWS CLI
/// gives up earlier unless it is told, and then asks again.
const ANSWER_TIMEOUT: &str = "900";

/// The template with the places of what was uploaded, in the AWS CLI's folder.
const PACKAGED: &str = "packaged.yaml";

/// The identifier in our template's metadata, which no other has.
const TEMPLATE_ID: &str = "6f0d2a94-58c1-4b7e-9d36-e1a7c40b83f5";

/// Our template had no identifier once. It had all of these, its resources and what it gives to its functions, as no other
/// template does.
const BEFORE_IT_HAD_ONE: [&str; 6] = [
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
    outputs: BTreeMap<String, String>,
    /// The values of the template's parameters.
    settings: BTreeMap<String, String>,
}

/// What can be done with a stack, by what CloudFormation says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It works, and can be changed.
    Whole,
    /// It works, and is being changed.
    Changing,
    /// It works, but an update went wrong and so did taking it back.
    Stuck,
    /// It is being made or deleted.
    Underway,
    /// It was never made or never wholly deleted. What is left of it can only be deleted.
    Broken,
    /// It is planned and there is nothing of it yet.
    Planned,
}

impl Condition {
    fn of(state: &str) -> Self {
        match state {
            "REVIEW_IN_PROGRESS" => Self::Planned,
            "UPDATE_ROLLBACK_FAILED" => Self::Stuck,
            "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "CREATE_FAILED" | "DELETE_FAILED" => Self::Broken,
            state if state.ends_with("_IN_PROGRESS") && state.starts_with("UPDATE_") => Self::Changing,
            state if state.ends_with("_IN_PROGRESS") => Self::Underway,
            _ => Self::Whole,
        }
    }
}

/// What the reconciler answered.
#[derive(Debug)]
pub enum Answer {
    /// Everything was done as asked.
    Report(Value),
    /// Something was not.
    Failure {
        /// The kind of failure, such as `SitesFailed`.
        kind: String,
        /// What it has to say: mostly the text of its report.
        text: String,
    },
}

impl Stack {
    /// Looks for the stack called `name`, in whatever state it is.
    ///
    /// # Errors
    ///
    /// It cannot be looked for.
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
        Ok(Some(Self { name: name.to_owned(), state, settings, outputs }))
    }

    /// Looks at the stack called `name`, which must be there and work.
    ///
    /// # Errors
    ///
    /// There is none, it does not work, or it cannot be looked at.
    pub async fn read(aws: &Aws, name: &str) -> anyhow::Result<Self> {
        let Some(stack) = Self::find(aws, name).await? else {
            let place = aws.place().await?;
            bail!(
                "there is no stack {name} in {place}. If it has another name, say --stack; if it is elsewhere, choose \
                 the region with AWS_DEFAULT_REGION and the account with AWS_PROFILE; if it is nowhere, make it with \
                 `cargo infra deploy`"
            );
        };
        let state = &stack.state;
        match stack.condition() {
            Condition::Whole | Condition::Changing | Condition::Stuck => Ok(stack),
            Condition::Underway | Condition::Planned => {
                bail!("the stack {name} is not ready: its state is {state}. Try again when that has changed")
            }
            Condition::Broken => bail!(
                "the stack {name} does not work: its state is {state}. Remove what is left of it with `cargo infra \
                 destroy`, then make it anew with `cargo infra deploy`"
            ),
        }
    }

    /// Uploads what a template names, makes or changes the stack called `name` by it, and returns the stack. Parameters
    /// that are not named keep their values.
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
        let options = ["--s3-prefix", name, "--output-template-file", PACKAGED];
        aws.run(&[&package[..], &options].concat()).await?;
        Self::update(aws, name, bucket, parameters).await
    }

    /// Makes or changes the stack called `name` by the template that [`Stack::deploy`] packaged last.
    ///
    /// # Errors
    ///
    /// The command fails.
    pub async fn update(aws: &Aws, name: &str, bucket: &str, parameters: &[String]) -> anyhow::Result<Self> {
        let deploy = ["cloudformation", "deploy", "--template-file", PACKAGED, "--stack-name", name];
        // A template of more than 51,200 bytes fits into no request: CloudFormation fetches it from the bucket.
        let through = ["--s3-bucket", bucket, "--s3-prefix", name];
        // A stack that is as it should be already is none that failed. Version 1 of the AWS CLI would have it so.
        let options = ["--no-fail-on-empty-changeset", "--capabilities", "CAPABILITY_IAM", "--parameter-overrides"];
        let parameters: Vec<_> = parameters.iter().map(String::as_str).collect();
        aws.run(&[&deploy[..], &through, &options, &parameters].concat()).await?;
        Self::read(aws, name).await
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its state in CloudFormation's words.
    pub fn state(&self) -> &str {
        &self.state
    }

    /// What can be done with it.
    pub fn condition(&self) -> Condition {
        Condition::of(&self.state)
    }

    /// Makes sure that the stack was made from our template and not from somebody else's.
    ///
    /// # Errors
    ///
    /// It was not, or its template cannot be had.
    pub async fn expect_ours(&self, aws: &Aws) -> anyhow::Result<()> {
        let get = ["cloudformation", "get-template", "--stack-name", &self.name, "--query", "TemplateBody"];
        if !is_our_template(&aws.run(&get).await?) {
            bail!(
                "the stack {} is none of Tableau Fanout's: nothing was done. Name the right one with --stack",
                self.name
            );
        }
        Ok(())
    }

    /// An output of the template.
    ///
    /// # Errors
    ///
    /// The template has no such output.
    pub fn output(&self, name: &str) -> anyhow::Result<&str> {
        let output = self.outputs.get(name).map(String::as_str);
        output.with_context(|| format!("the stack {} has no output {name}: is it Tableau Fanout's?", self.name))
    }

    /// Value of one of the template's parameters, if the stack has it.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// All outputs, in the order of their names.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.outputs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Where the receiver can be reached from here. A local cloud's Function URL is resolved by no name service.
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

    /// Name of one of the stack's parameters, such as `signing-keys`.
    pub fn parameter(&self, name: &str) -> String {
        format!("/{}/{name}", self.name)
    }

    /// Name of a site's entry.
    ///
    /// # Errors
    ///
    /// The template has no such output.
    pub fn site_parameter(&self, site: &str) -> anyhow::Result<String> {
        Ok(format!("{}/{site}", self.output("SitesPath")?))
    }

    /// The signing keys, as the reconciler made them.
    ///
    /// # Errors
    ///
    /// There are none, or they cannot be read.
    pub async fn keyring(&self, aws: &Aws) -> anyhow::Result<Keyring> {
        let value = read_parameter(aws, &self.parameter("signing-keys")).await?;
        let value = value.with_context(|| {
            format!(
                "the stack {} has no signing keys yet: the reconciler makes them when it first looks after a site. Add \
                 one with `cargo infra add-site`",
                self.name
            )
        })?;
        Ok(Keyring::parse(value.expose_secret())?)
    }

    /// Stores a site's entry. One that is there already is replaced only if `overwrite` says so.
    ///
    /// # Errors
    ///
    /// The command fails, or there is an entry already.
    pub async fn put_site(&self, aws: &Aws, site: &str, entry: &SecretString, overwrite: bool) -> anyhow::Result<()> {
        put_secret(aws, &self.site_parameter(site)?, self.output("KeyAlias")?, entry, overwrite).await
    }

    /// Has the reconciler do something for some sites, or for all if none are named.
    ///
    /// # Errors
    ///
    /// It could not be asked.
    pub async fn reconcile(&self, aws: &Aws, action: &str, sites: &[SiteName]) -> anyhow::Result<Answer> {
        let request = match sites {
            [] => json!({ "action": action }),
            sites => json!({ "action": action, "sites": sites }),
        };
        let invoke = ["lambda", "invoke", "--cli-read-timeout", ANSWER_TIMEOUT];
        let what =
            ["--function-name", self.output("ReconcilerName")?, "--payload", "fileb:///dev/stdin", "report.json"];
        let answer = aws.json_with(&[&invoke[..], &what].concat(), Input::Text(&request.to_string())).await;
        let answer = match answer {
            Err(error) if has_code(&error, "TooManyRequestsException") => {
                return Err(error.context(
                    "the reconciler is at work already, and does one run at a time: try again in some minutes",
                ));
            }
            answer => answer?,
        };
        let report = fs::read_to_string(aws.folder().join("report.json")).await?;
        let report: Value = serde_json::from_str(&report).context("the reconciler's answer is no JSON")?;
        if answer["FunctionError"].is_null() {
            return Ok(Answer::Report(report));
        }
        let text = |member: &str, otherwise: &str| report[member].as_str().unwrap_or(otherwise).to_owned();
        Ok(Answer::Failure { kind: text("errorType", "Error"), text: text("errorMessage", "it gave no reason") })
    }
}

/// Whether a template is ours, in YAML or JSON, by what it is and not by what it says of itself.
fn is_our_template(template: &str) -> bool {
    template.contains(TEMPLATE_ID) || BEFORE_IT_HAD_ONE.iter().all(|part| template.contains(part))
}

/// The names of all parameters of the stack called `name`, in order.
///
/// # Errors
///
/// The command fails.
pub async fn parameters_of(aws: &Aws, name: &str) -> anyhow::Result<Vec<String>> {
    let path = format!("/{name}");
    let list = ["ssm", "get-parameters-by-path", "--path", &path, "--recursive", "--query", "Parameters[].Name"];
    let names = aws.json(&list).await?;
    let names = names.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned));
    let mut names: Vec<_> = names.collect();
    names.sort();
    Ok(names)
}

/// Reads a parameter, decrypted. There may be none.
///
/// # Errors
///
/// The command fails.
pub async fn read_parameter(aws: &Aws, name: &str) -> anyhow::Result<Option<SecretString>> {
    let parameter = match aws.json(&["ssm", "get-parameter", "--with-decryption", "--name", name]).await {
        Err(error) if has_code(&error, "ParameterNotFound") => return Ok(None),
        parameter => parameter?,
    };
    Ok(Some(SecretString::from(parameter["Parameter"]["Value"].as_str().unwrap_or_default())))
}

/// Stores a SecureString.
///
/// # Errors
///
/// The command fails; so it does if there is one already and `overwrite` does not say otherwise.
pub async fn put_secret(aws: &Aws, name: &str, key: &str, value: &SecretString, overwrite: bool) -> anyhow::Result<()> {
    let put = ["ssm", "put-parameter", "--name", name, "--type", "SecureString", "--key-id", key];
    let overwrite: &[&str] = if overwrite { &["--overwrite"] } else { &[] };
    let from = ["--value", "file:///dev/stdin"];
    aws.run_with(&[&put[..], overwrite, &from].concat(), Input::Secret(value)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::workspace::Workspace;

    #[test]
    fn our_template_is_known_and_others_that_name_it_are_not() -> anyhow::Result<()> {
        let workspace = Workspace::locate()?;
        let ours = fs::read_to_string(workspace.file("infra/template.yaml"))?;
        assert!(ours.contains(TEMPLATE_ID) && is_our_template(&ours));
        // As it was deployed before.
        assert!(is_our_template(&ours.replace(TEMPLATE_ID, "")));
        let examples = fs::read_dir(workspace.file("infra/examples"))?.collect::<Result<Vec<_>, _>>()?;
        let examples = examples.iter().map(|file| fs::read_to_string(file.path())).collect::<Result<Vec<_>, _>>()?;
        assert!(examples.iter().any(|example| example.contains("Tableau Fanout")));
        for other in examples.iter().chain([&"Description: Looks after Tableau Fanout".to_owned()]) {
            assert!(!is_our_template(other), "{other}");
        }
        Ok(())
    }

    #[test]
    fn what_can_be_done_follows_from_the_state() {
        for (state, condition) in [
            ("CREATE_COMPLETE", Condition::Whole),
            ("UPDATE_COMPLETE", Condition::Whole),
            ("UPDATE_ROLLBACK_COMPLETE", Condition::Whole),
            ("UPDATE_FAILED", Condition::Whole),
            ("IMPORT_ROLLBACK_COMPLETE", Condition::Whole),
            ("UPDATE_IN_PROGRESS", Condition::Changing),
            ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", Condition::Changing),
            ("UPDATE_ROLLBACK_IN_PROGRESS", Condition::Changing),
            ("UPDATE_ROLLBACK_FAILED", Condition::Stuck),
            ("CREATE_IN_PROGRESS", Condition::Underway),
            ("ROLLBACK_IN_PROGRESS", Condition::Underway),
            ("DELETE_IN_PROGRESS", Condition::Underway),
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
