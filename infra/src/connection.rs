//! The stack that a command acts on, and the connection to it.

use anyhow::Context;
use clap::Args;
use reqwest::Client;
use tempfile::TempDir;

use crate::{
    aws::Aws,
    cloud::STACK,
    python::PythonTools,
    service::{http_client, internet_client},
    stack::Stack,
    stack_name::StackName,
    workspace::Workspace,
};

/// Options that choose the stack. The AWS CLI's own settings choose region, profile and credentials.
#[derive(Clone, Debug, Args)]
pub struct StackOptions {
    /// Name of the stack. At most 53 characters, not beginning with aws or ssm.
    #[arg(long, default_value = STACK)]
    pub stack: StackName,
    /// Endpoint of a local cloud, as `cargo infra local` prints it. By default the AWS CLI's own settings apply (region,
    /// profile, credentials, AWS_ENDPOINT_URL).
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    /// Show details, and print each AWS command before it runs, without secrets.
    #[arg(long)]
    verbose: bool,
}

/// The AWS CLI, and the name of the stack.
#[derive(Debug)]
pub struct Connection {
    /// The AWS CLI.
    pub aws: Aws,
    /// Name of the stack, which need not exist yet.
    pub name: String,
    /// Holds the AWS CLI's files while the command runs.
    _folder: TempDir,
}

impl StackOptions {
    /// Whether the command shows details too.
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Prepares the AWS CLI.
    ///
    /// # Errors
    ///
    /// It is missing or too old.
    pub async fn connect(self) -> anyhow::Result<Connection> {
        let Self { stack: name, endpoint_url, verbose } = self;
        let folder = TempDir::new().context("no temporary folder")?;
        let aws = match endpoint_url {
            Some(endpoint) => {
                Aws::local(&PythonTools::for_local_stack(&Workspace::locate()?)?, endpoint, folder.path())
            }
            None => Aws::installed(folder.path()),
        };
        aws.check().await?;
        Ok(Connection { aws: aws.verbose(verbose), name: name.to_string(), _folder: folder })
    }
}

impl Connection {
    /// Connects to a local cloud.
    ///
    /// # Errors
    ///
    /// There is no room for temporary files.
    pub fn local(tools: &PythonTools, endpoint: &str, name: &str) -> anyhow::Result<Self> {
        let folder = TempDir::new().context("no temporary folder")?;
        let aws = Aws::local(tools, endpoint.to_owned(), folder.path());
        Ok(Self { aws, name: name.to_owned(), _folder: folder })
    }

    /// Reads the stack.
    ///
    /// # Errors
    ///
    /// As [`Stack::read`].
    pub async fn stack(&self) -> anyhow::Result<Stack> {
        Stack::read(&self.aws, &self.name).await
    }

    /// Creates an HTTP client for the stack's Function URL.
    ///
    /// # Errors
    ///
    /// It cannot be created.
    pub fn http(&self) -> anyhow::Result<Client> {
        if self.aws.endpoint().is_some() { http_client() } else { internet_client() }
    }
}
