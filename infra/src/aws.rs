//! The AWS CLI.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use thiserror::Error;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{
    aws_worker::{self, Workers},
    python::PythonTools,
    remedies,
    steps::show_command,
};

/// The first AWS CLI of each major version that honours `AWS_ENDPOINT_URL`. An older one would send calls for a local
/// cloud to AWS.
const MIN_VERSIONS: [(u32, u32); 2] = [(1, 29), (2, 13)];

/// Variable with the endpoint of a local cloud.
const ENDPOINT_URL: &str = "AWS_ENDPOINT_URL";

/// The AWS CLI.
#[derive(Clone, Debug)]
pub struct Aws {
    cli: Cli,
    /// The local cloud's. `None` for AWS.
    endpoint: Option<String>,
    folder: PathBuf,
    is_verbose: bool,
}

#[derive(Clone, Debug)]
enum Cli {
    /// The user's, with the user's settings.
    Installed,
    /// The pinned tools', with the settings of the local cloud.
    Tools(Arc<Workers>),
}

/// Account and region of the commands.
#[derive(Clone, Debug)]
pub struct Location {
    /// The account's number.
    pub account: String,
    /// The region.
    pub region: String,
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "account {}, region {}", self.account, self.region)
    }
}

/// Input of a command on `/dev/stdin`. Other users can see a command line, and a file could stay behind.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// No input.
    None,
    /// A text that may be printed.
    Text(&'a str),
    /// A secret, which is never printed.
    Secret(&'a SecretString),
}

/// A command that failed.
#[derive(Debug, Error)]
#[error("aws {command} failed: {stderr}")]
pub struct CommandFailed {
    command: String,
    stderr: String,
}

impl CommandFailed {
    /// Error code of the service, if the service answered with one.
    pub fn code(&self) -> Option<&str> {
        let (_, rest) = self.stderr.split_once("An error occurred (")?;
        rest.split_once(')').map(|(code, _)| code)
    }
}

impl Aws {
    /// The tools' CLI for a local cloud. It writes files to `folder`.
    pub fn local(tools: &PythonTools, endpoint: String, folder: &Path) -> Self {
        Self::local_as(tools, endpoint, folder, &[])
    }

    /// The same with other credentials, as variables.
    pub fn local_as(tools: &PythonTools, endpoint: String, folder: &Path, credentials: &[(&str, &str)]) -> Self {
        // `cloudformation package` honours only the variable, `sqs` only the option.
        let variables = [(ENDPOINT_URL, endpoint.as_str())].into_iter().chain(credentials.iter().copied());
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let cli = Cli::Tools(Arc::new(Workers::new(tools, folder, variables)));
        Self { cli, endpoint: Some(endpoint), folder: folder.to_owned(), is_verbose: false }
    }

    /// The installed CLI with the user's region, profile, credentials and endpoint.
    pub fn installed(folder: &Path) -> Self {
        let endpoint = env::var(ENDPOINT_URL).ok().filter(|endpoint| !endpoint.is_empty());
        Self { cli: Cli::Installed, endpoint, folder: folder.to_owned(), is_verbose: false }
    }

    /// Prints each command on standard error before it runs, if `is_verbose`.
    #[must_use]
    pub fn verbose(self, is_verbose: bool) -> Self {
        Self { is_verbose, ..self }
    }

    /// Folder of the CLI's files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Endpoint of the local cloud. `None` for AWS.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// Checks that an AWS CLI is installed and new enough.
    ///
    /// # Errors
    ///
    /// It is missing or too old.
    pub async fn check(&self) -> anyhow::Result<()> {
        let output = self.run(&["--version"]).await?;
        let version =
            version(&output).with_context(|| format!("`aws --version` printed no version: {}", output.trim()))?;
        let is_new_enough = MIN_VERSIONS.iter().any(|min| min.0 == version.0 && *min <= version) || version.0 > 2;
        let [(first, first_minor), (second, second_minor)] = MIN_VERSIONS;
        ensure!(
            is_new_enough,
            "the AWS CLI {}.{} is too old. Fix: install version {first}.{first_minor}, {second}.{second_minor} or newer, \
             see {}",
            version.0,
            version.1,
            remedies::AWS_CLI_URL
        );
        Ok(())
    }

    /// Returns the account and the region that commands act on.
    ///
    /// # Errors
    ///
    /// There are no credentials, AWS does not accept them, or there is no region.
    pub async fn location(&self) -> anyhow::Result<Location> {
        // The only command with which both major versions take the environment into account.
        let settings = self.run(&["configure", "list"]).await?;
        let region = region(&settings).context(remedies::NO_REGION)?.to_owned();
        let account = self.json(&["sts", "get-caller-identity"]).await?;
        let account = account["Account"].as_str().context("credentials without an account")?.to_owned();
        Ok(Location { account, region })
    }

    /// Runs a command and returns its output as JSON, null if the output is empty.
    ///
    /// # Errors
    ///
    /// The command failed, or its output is not JSON.
    pub async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        self.json_with(arguments, Input::None).await
    }

    /// The same with an input.
    ///
    /// # Errors
    ///
    /// As [`Aws::json`].
    pub async fn json_with(&self, arguments: &[&str], input: Input<'_>) -> anyhow::Result<Value> {
        let output = self.run_with(arguments, input).await?;
        if output.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&output).with_context(|| format!("aws {} printed no JSON", command_name(arguments)))
    }

    /// Runs a command and returns its output.
    ///
    /// # Errors
    ///
    /// The command failed. The error is a [`CommandFailed`], in the context of its fix if that is known.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run_with(arguments, Input::None).await
    }

    /// The same with an input.
    ///
    /// # Errors
    ///
    /// As [`Aws::run`].
    pub async fn run_with(&self, arguments: &[&str], input: Input<'_>) -> anyhow::Result<String> {
        if self.is_verbose {
            show_command(&self.as_typed(arguments, input));
        }
        let endpoint = self.endpoint.iter().flat_map(|endpoint| ["--endpoint-url", endpoint]);
        let all: Vec<_> = ["--output", "json"].into_iter().chain(arguments.iter().copied()).chain(endpoint).collect();
        let input = match input {
            Input::None => "",
            Input::Text(text) => text,
            Input::Secret(secret) => secret.expose_secret(),
        };
        let answer = match &self.cli {
            Cli::Installed => self.run_installed(&all, input).await?,
            Cli::Tools(workers) => workers.run(&all, input).await?,
        };
        if answer.code != 0 {
            let stderr = answer.errors.trim().to_owned();
            let remedy = remedies::for_aws_cli(&stderr);
            let error = anyhow::Error::new(CommandFailed { command: command_name(arguments), stderr });
            bail!(match remedy {
                Some(remedy) => error.context(remedy),
                None => error,
            });
        }
        Ok(answer.output)
    }

    /// Runs the installed CLI for one command.
    async fn run_installed(&self, arguments: &[&str], input: &str) -> anyhow::Result<aws_worker::Answer> {
        let mut command = Command::new("aws");
        command.args(arguments).current_dir(&self.folder);
        // A pager would wait for a key.
        command.env("AWS_PAGER", "").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.kill_on_drop(true).spawn();
        let mut child = child.with_context(remedies::no_aws_cli)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that fails before it has read its input reports the reason itself.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await?;
        Ok(aws_worker::Answer {
            code: output.status.code().unwrap_or(-1),
            output: String::from_utf8(output.stdout)?,
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Formats a command as a user would type it, without secrets.
    fn as_typed(&self, arguments: &[&str], input: Input<'_>) -> String {
        let endpoint = self.endpoint.iter().flat_map(|endpoint| ["--endpoint-url", endpoint]);
        let words = ["aws"].into_iter().chain(arguments.iter().copied()).chain(endpoint).map(shell_quoted);
        let command = words.collect::<Vec<_>>().join(" ");
        match input {
            Input::None => format!("$ {command}"),
            Input::Text(text) => format!("$ echo {} | {command}", shell_quoted(text)),
            Input::Secret(_) => format!("$ {command} < (a secret)"),
        }
    }
}

/// Returns whether a command failed with this error code of the service.
pub fn has_code(error: &anyhow::Error, code: &str) -> bool {
    error.downcast_ref::<CommandFailed>().and_then(CommandFailed::code) == Some(code)
}

/// Returns whether a command failed because a right is missing.
pub fn is_denied(error: &anyhow::Error) -> bool {
    ["AccessDenied", "AccessDeniedException"].iter().any(|code| has_code(error, code))
}

/// Quotes a word for a shell, if it needs quotes.
pub(crate) fn shell_quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Parses the major and minor number from the output of `aws --version`, such as `aws-cli/2.13.1 Python/3.11.4 …`.
fn version(output: &str) -> Option<(u32, u32)> {
    let mut numbers = output.trim().strip_prefix("aws-cli/")?.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Parses the region from the output of `aws configure list`, whose columns are separated by spaces or by colons.
fn region(settings: &str) -> Option<&str> {
    let mut words = settings.lines().map(|line| line.split([' ', ':']).filter(|word| !word.is_empty()));
    let mut line = words.find(|words| words.clone().next() == Some("region"))?;
    line.nth(1).filter(|region| !region.starts_with('<') && *region != "None")
}

/// Service and operation of a command. Its other arguments may hold a secret.
fn command_name(arguments: &[&str]) -> String {
    arguments[..arguments.len().min(2)].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_both_clis_is_parsed() {
        assert_eq!(version("aws-cli/1.45.11 Python/3.11.7 Linux/6.18 botocore/1.43.11\n"), Some((1, 45)));
        assert_eq!(version("aws-cli/2.13.1 Python/3.11.4 Linux/6.1 exe/x86_64.debian.12"), Some((2, 13)));
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn the_region_is_parsed_from_the_tables_of_both_clis() {
        let old = "      Name                    Value             Type    Location\n   \
                   profile                <not set>             None    None\n    \
                   region                us-east-1              env    AWS_DEFAULT_REGION\n";
        assert_eq!(region(old), Some("us-east-1"));
        assert_eq!(
            region("NAME : VALUE : TYPE : LOCATION\nregion : eu-west-1 : env : AWS_REGION\n"),
            Some("eu-west-1")
        );
        assert_eq!(region(&old.replace("us-east-1", "<not set>")), None);
        assert_eq!(region(""), None);
    }

    #[test]
    fn the_error_code_of_the_service_is_parsed() {
        let failed =
            |stderr: &str| CommandFailed { command: "ssm get-parameter".to_owned(), stderr: stderr.to_owned() };
        let stderr = "aws: [ERROR]: An error occurred (ParameterNotFound) when calling the GetParameter operation: ";
        assert_eq!(failed(stderr).code(), Some("ParameterNotFound"));
        assert_eq!(failed("Unable to locate credentials").code(), None);
        let error = anyhow::Error::new(failed(stderr)).context("one thing").context("another");
        assert!(has_code(&error, "ParameterNotFound") && !has_code(&error, "AccessDenied"));
    }

    #[test]
    fn a_printed_command_can_be_pasted_and_has_no_secret() {
        let aws = Aws { endpoint: None, ..Aws::installed(Path::new("")) };
        let put = ["ssm", "put-parameter", "--name", "/a/b", "--value", "file:///dev/stdin", "--description", "it's"];
        assert_eq!(
            aws.as_typed(&put, Input::Secret(&SecretString::from("s3cret"))),
            r"$ aws ssm put-parameter --name /a/b --value file:///dev/stdin --description 'it'\''s' < (a secret)"
        );
        let aws = Aws { endpoint: Some("http://127.0.0.1:1".to_owned()), ..aws };
        assert_eq!(
            aws.as_typed(&["lambda", "invoke"], Input::Text(r#"{"action":"plan"}"#)),
            r#"$ echo '{"action":"plan"}' | aws lambda invoke --endpoint-url http://127.0.0.1:1"#
        );
    }
}
