//! A deployed stack, on AWS or in a local cloud.

use std::collections::BTreeMap;

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use shared::keyring::Keyring;

use crate::aws::Aws;

/// A stack, with its outputs.
#[derive(Clone, Debug)]
pub struct Stack {
    name: String,
    outputs: BTreeMap<String, String>,
}

impl Stack {
    /// Looks at the stack called `name`.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be looked at.
    pub async fn read(aws: &Aws, name: &str) -> anyhow::Result<Self> {
        let stacks = aws.json(&["cloudformation", "describe-stacks", "--stack-name", name]).await?;
        let outputs = stacks["Stacks"][0]["Outputs"].as_array().into_iter().flatten();
        let outputs = outputs
            .filter_map(|output| Some((output["OutputKey"].as_str()?.into(), output["OutputValue"].as_str()?.into())));
        Ok(Self { name: name.to_owned(), outputs: outputs.collect() })
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

    /// The signing keys, as the reconciler made them.
    ///
    /// # Errors
    ///
    /// There are none, or they cannot be read.
    pub async fn keyring(&self, aws: &Aws) -> anyhow::Result<Keyring> {
        let get = ["ssm", "get-parameter", "--with-decryption", "--name", &self.parameter("signing-keys")];
        let parameter = aws.json(&get).await?;
        let value = SecretString::from(parameter["Parameter"]["Value"].as_str().unwrap_or_default());
        Ok(Keyring::parse(value.expose_secret())?)
    }
}
