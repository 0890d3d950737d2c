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
};

/// The oldest AWS CLI of each major version that goes by `AWS_ENDPOINT_URL`. One that does not would take to AWS what is
/// meant for a local cloud.
const OLDEST: [(u32, u32); 2] = [(1, 29), (2, 13)];

/// Variable that names another endpoint for all of AWS: a local cloud's.
const ENDPOINT_URL: &str = "AWS_ENDPOINT_URL";

/// Where to get the AWS CLI.
const GET_IT: &str = "see https://aws.amazon.com/cli/";

/// Errors of the AWS CLI that come before any answer of the service asked, by what it says, and what to do about them.
const REMEDIES: [(&str, &str); 12] = [
    ("Unable to locate credentials", NO_CREDENTIALS),
    ("Partial credentials found", NO_CREDENTIALS),
    ("You must specify a region", NO_REGION),
    ("The config profile", "the AWS CLI does not know this profile: correct AWS_PROFILE"),
    ("ExpiredToken", EXPIRED),
    ("Token has expired", EXPIRED),
    ("Error loading SSO Token", EXPIRED),
    ("InvalidClientTokenId", UNKNOWN_CREDENTIALS),
    ("UnrecognizedClientException", UNKNOWN_CREDENTIALS),
    ("SignatureDoesNotMatch", UNKNOWN_CREDENTIALS),
    ("Could not connect to the endpoint URL", "AWS cannot be reached: is the region's name right, is there a network?"),
    (
        "AccessDenied",
        "these credentials do not allow it: ask the account's administrator for the permission named here",
    ),
];

const NO_CREDENTIALS: &str = "the AWS CLI has no credentials: give it some with `aws configure` or `aws sso login`, or choose a profile with \
     AWS_PROFILE";

const NO_REGION: &str =
    "the AWS CLI has no region: set AWS_DEFAULT_REGION, or choose one for good with `aws configure set region`";

const EXPIRED: &str = "the credentials have expired: sign in again, for example with `aws sso login`";

const UNKNOWN_CREDENTIALS: &str = "AWS does not accept these credentials: are they the right ones, and complete?";

/// The AWS CLI.
#[derive(Clone, Debug)]
pub struct Aws {
    cli: Cli,
    /// A local cloud's, or none for the AWS account that the environment is set for.
    endpoint: Option<String>,
    folder: PathBuf,
    is_verbose: bool,
}

/// Which AWS CLI.
#[derive(Clone, Debug)]
enum Cli {
    /// A person's, with a person's settings.
    Installed,
    /// The tools', with ours.
    Tools(Arc<Workers>),
}

/// Where commands act.
#[derive(Clone, Debug)]
pub struct Place {
    /// The account's number.
    pub account: String,
    /// The region.
    pub region: String,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "account {}, region {}", self.account, self.region)
    }
}

/// What a command reads from `/dev/stdin`: neither on its command line, which others can see, nor in a file.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Nothing.
    None,
    /// Something that may be shown.
    Text(&'a str),
    /// Something that is never shown.
    Secret(&'a SecretString),
}

/// A command that failed.
#[derive(Debug, Error)]
#[error("aws {command} failed: {said}")]
pub struct Failed {
    command: String,
    said: String,
}

impl Failed {
    /// The error code of the service, if it answered with one.
    pub fn code(&self) -> Option<&str> {
        let (_, rest) = self.said.split_once("An error occurred (")?;
        rest.split_once(')').map(|(code, _)| code)
    }

    /// What the CLI said.
    pub fn said(&self) -> &str {
        &self.said
    }
}

impl Aws {
    /// The CLI of the tools, for a local cloud; files it is to write go to `folder`.
    pub fn local(tools: &PythonTools, endpoint: String, folder: &Path) -> Self {
        Self::local_as(tools, endpoint, folder, &[])
    }

    /// The same with other credentials, as variables.
    pub fn local_as(tools: &PythonTools, endpoint: String, folder: &Path, credentials: &[(&str, &str)]) -> Self {
        // `cloudformation package` goes by the variable, `sqs` by the option.
        let variables = [(ENDPOINT_URL, endpoint.as_str())].into_iter().chain(credentials.iter().copied());
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let cli = Cli::Tools(Arc::new(Workers::new(tools, folder, variables)));
        Self { cli, endpoint: Some(endpoint), folder: folder.to_owned(), is_verbose: false }
    }

    /// The CLI that is installed, with region, profile, credentials and endpoint as it finds them.
    pub fn installed(folder: &Path) -> Self {
        let endpoint = env::var(ENDPOINT_URL).ok().filter(|endpoint| !endpoint.is_empty());
        Self { cli: Cli::Installed, endpoint, folder: folder.to_owned(), is_verbose: false }
    }

    /// The same, which prints each command before it runs it, on standard error.
    #[must_use]
    pub fn verbose(self, is_verbose: bool) -> Self {
        Self { is_verbose, ..self }
    }

    /// The folder for its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The local cloud's endpoint, none for AWS itself.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// Makes sure that there is an AWS CLI, and none that is too old.
    ///
    /// # Errors
    ///
    /// There is none, or it is too old.
    pub async fn check(&self) -> anyhow::Result<()> {
        let said = self.run(&["--version"]).await?;
        let version = version(&said).with_context(|| format!("`aws --version` says no version: {}", said.trim()))?;
        let is_new_enough = OLDEST.iter().any(|oldest| oldest.0 == version.0 && *oldest <= version) || version.0 > 2;
        let [(first, first_minor), (second, second_minor)] = OLDEST;
        ensure!(
            is_new_enough,
            "the AWS CLI {}.{} is too old: {first}.{first_minor} or {second}.{second_minor} is needed, or anything \
             newer; {GET_IT}",
            version.0,
            version.1
        );
        Ok(())
    }

    /// Account and region that commands are about.
    ///
    /// # Errors
    ///
    /// There are no credentials, AWS does not know them, or there is no region.
    pub async fn place(&self) -> anyhow::Result<Place> {
        // The only command that counts the environment in with both AWS CLIs.
        let settings = self.run(&["configure", "list"]).await?;
        let region = region(&settings).context(NO_REGION)?.to_owned();
        let account = self.json(&["sts", "get-caller-identity"]).await?;
        let account = account["Account"].as_str().context("credentials without an account")?.to_owned();
        Ok(Place { account, region })
    }

    /// Runs a command and returns what it printed as JSON, null if it printed nothing.
    ///
    /// # Errors
    ///
    /// The command failed, or printed something else. The error shows what it said.
    pub async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        self.json_with(arguments, Input::None).await
    }

    /// The same with an input.
    ///
    /// # Errors
    ///
    /// As [`Aws::json`].
    pub async fn json_with(&self, arguments: &[&str], input: Input<'_>) -> anyhow::Result<Value> {
        let printed = self.run_with(arguments, input).await?;
        if printed.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&printed).with_context(|| format!("aws {} printed no JSON", named(arguments)))
    }

    /// Runs a command and returns what it printed.
    ///
    /// # Errors
    ///
    /// The command failed, as [`Failed`] says, under what to do about it if that is known.
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
            eprintln!("{}", self.plain(arguments, input));
        }
        let endpoint = self.endpoint.iter().flat_map(|endpoint| ["--endpoint-url", endpoint]);
        let all: Vec<_> = ["--output", "json"].into_iter().chain(arguments.iter().copied()).chain(endpoint).collect();
        let input = match input {
            Input::None => "",
            Input::Text(text) => text,
            Input::Secret(secret) => secret.expose_secret(),
        };
        let answer = match &self.cli {
            Cli::Installed => self.start(&all, input).await?,
            Cli::Tools(workers) => workers.run(&all, input).await?,
        };
        if answer.code != 0 {
            let said = answer.errors.trim().to_owned();
            let remedy = REMEDIES.iter().find(|(sign, _)| said.contains(sign)).map(|(_, remedy)| *remedy);
            let error = anyhow::Error::new(Failed { command: named(arguments), said });
            bail!(match remedy {
                Some(remedy) => error.context(remedy),
                None => error,
            });
        }
        Ok(answer.output)
    }

    /// Starts the installed CLI for one command.
    async fn start(&self, arguments: &[&str], input: &str) -> anyhow::Result<aws_worker::Answer> {
        let mut command = Command::new("aws");
        command.args(arguments).current_dir(&self.folder);
        // Nobody is here to leaf through its output.
        command.env("AWS_PAGER", "").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.kill_on_drop(true).spawn();
        let mut child = child.with_context(|| format!("cannot start aws: is the AWS CLI installed? {GET_IT}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that fails before it has read all says why itself.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await?;
        Ok(aws_worker::Answer {
            code: output.status.code().unwrap_or(-1),
            output: String::from_utf8(output.stdout)?,
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// A command as a person would type it.
    fn plain(&self, arguments: &[&str], input: Input<'_>) -> String {
        let endpoint = self.endpoint.iter().flat_map(|endpoint| ["--endpoint-url", endpoint]);
        let words = ["aws"].into_iter().chain(arguments.iter().copied()).chain(endpoint).map(quoted);
        let command = words.collect::<Vec<_>>().join(" ");
        match input {
            Input::None => format!("$ {command}"),
            Input::Text(text) => format!("$ echo {} | {command}", quoted(text)),
            Input::Secret(_) => format!("$ {command} < (a secret)"),
        }
    }
}

/// Whether a command failed with an error code of the service.
pub fn has_code(error: &anyhow::Error, code: &str) -> bool {
    error.downcast_ref::<Failed>().and_then(Failed::code) == Some(code)
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The major and minor number of what `aws --version` says, such as `aws-cli/2.13.1 Python/3.11.4 …`.
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.trim().strip_prefix("aws-cli/")?.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// The region in what `aws configure list` says, whose columns are parted by spaces or by colons.
fn region(settings: &str) -> Option<&str> {
    let mut words = settings.lines().map(|line| line.split([' ', ':']).filter(|word| !word.is_empty()));
    let mut line = words.find(|words| words.clone().next() == Some("region"))?;
    line.nth(1).filter(|region| !region.starts_with('<') && *region != "None")
}

/// Service and operation. The rest may hold a secret.
fn named(arguments: &[&str]) -> String {
    arguments[..arguments.len().min(2)].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_either_cli_is_read() {
        assert_eq!(version("aws-cli/1.45.11 Python/3.11.7 Linux/6.18 botocore/1.43.11\n"), Some((1, 45)));
        assert_eq!(version("aws-cli/2.13.1 Python/3.11.4 Linux/6.1 exe/x86_64.debian.12"), Some((2, 13)));
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn the_region_is_read_from_either_table() {
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
    fn the_code_of_an_error_is_what_the_service_said() {
        let failed = |said: &str| Failed { command: "ssm get-parameter".to_owned(), said: said.to_owned() };
        let said = "aws: [ERROR]: An error occurred (ParameterNotFound) when calling the GetParameter operation: ";
        assert_eq!(failed(said).code(), Some("ParameterNotFound"));
        assert_eq!(failed("Unable to locate credentials").code(), None);
        let error = anyhow::Error::new(failed(said)).context("one thing").context("another");
        assert!(has_code(&error, "ParameterNotFound") && !has_code(&error, "AccessDenied"));
    }

    #[test]
    fn a_command_is_printed_as_a_shell_takes_it_and_without_a_secret() {
        let aws = Aws { endpoint: None, ..Aws::installed(Path::new("")) };
        let put = ["ssm", "put-parameter", "--name", "/a/b", "--value", "file:///dev/stdin", "--description", "it's"];
        assert_eq!(
            aws.plain(&put, Input::Secret(&SecretString::from("s3cret"))),
            r"$ aws ssm put-parameter --name /a/b --value file:///dev/stdin --description 'it'\''s' < (a secret)"
        );
        let aws = Aws { endpoint: Some("http://127.0.0.1:1".to_owned()), ..aws };
        assert_eq!(
            aws.plain(&["lambda", "invoke"], Input::Text(r#"{"action":"plan"}"#)),
            r#"$ echo '{"action":"plan"}' | aws lambda invoke --endpoint-url http://127.0.0.1:1"#
        );
    }
}
