//! The stack that a command is about, and the way to it.

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

/// Which stack, and where. Region, profile and credentials are the AWS CLI's own business.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// Name of the stack: at most 53 characters, and not beginning with aws or ssm.
    #[arg(long, default_value = STACK)]
    pub stack: StackName,
    /// Endpoint of a local cloud, as `cargo infra local` tells it. Without, the AWS CLI's own settings count (region,
    /// profile, credentials, AWS_ENDPOINT_URL).
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    /// Print each AWS command before it runs, without secrets.
    #[arg(long)]
    verbose: bool,
}

/// The way to a stack.
#[derive(Debug)]
pub struct Way {
    /// The AWS CLI.
    pub aws: Aws,
    /// The name of the stack, which need not be there yet.
    pub name: String,
    /// Where the AWS CLI's files are for as long as we run.
    _folder: TempDir,
}

impl Target {
    /// Prepares the AWS CLI.
    ///
    /// # Errors
    ///
    /// There is none, or it is too old.
    pub async fn way(self) -> anyhow::Result<Way> {
        let Self { stack: name, endpoint_url, verbose } = self;
        let folder = TempDir::new().context("no temporary folder")?;
        let aws = match endpoint_url {
            Some(endpoint) => {
                Aws::local(&PythonTools::for_local_stack(&Workspace::locate()?)?, endpoint, folder.path())
            }
            None => Aws::installed(folder.path()),
        };
        aws.check().await?;
        Ok(Way { aws: aws.verbose(verbose), name: name.to_string(), _folder: folder })
    }
}

impl Way {
    /// Looks at the stack.
    ///
    /// # Errors
    ///
    /// As [`Stack::read`].
    pub async fn stack(&self) -> anyhow::Result<Stack> {
        Stack::read(&self.aws, &self.name).await
    }

    /// A client for the stack's Function URL.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn http(&self) -> anyhow::Result<Client> {
        if self.aws.endpoint().is_some() { http_client() } else { internet_client() }
    }
}
