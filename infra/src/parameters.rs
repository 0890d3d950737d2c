//! Parameters in SSM Parameter Store, through the AWS CLI.

use secrecy::SecretString;

use crate::aws::{Aws, Input, has_code};

/// The most parameters that one call deletes (SSM API reference, `DeleteParameters`).
const MAX_DELETED_AT_ONCE: usize = 10;

/// Lists the names of all parameters of the stack called `name`, sorted.
///
/// # Errors
///
/// The command fails.
pub async fn list(aws: &Aws, name: &str) -> anyhow::Result<Vec<String>> {
    let path = format!("/{name}");
    let list = ["ssm", "get-parameters-by-path", "--path", &path, "--recursive", "--query", "Parameters[].Name"];
    let names = aws.json(&list).await?;
    let names = names.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned));
    let mut names: Vec<_> = names.collect();
    names.sort();
    Ok(names)
}

/// Returns whether a parameter exists, without its value.
///
/// # Errors
///
/// The command fails.
pub async fn exists(aws: &Aws, name: &str) -> anyhow::Result<bool> {
    match aws.run(&["ssm", "get-parameter", "--name", name, "--query", "Parameter.Version"]).await {
        Ok(_) => Ok(true),
        Err(error) if has_code(&error, "ParameterNotFound") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads and decrypts a parameter. `None` if it does not exist.
///
/// # Errors
///
/// The command fails.
pub async fn read(aws: &Aws, name: &str) -> anyhow::Result<Option<SecretString>> {
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
/// The command fails, for example because the parameter exists and `overwrite` is false.
pub async fn put(aws: &Aws, name: &str, key: &str, value: &SecretString, overwrite: bool) -> anyhow::Result<()> {
    let put = ["ssm", "put-parameter", "--name", name, "--type", "SecureString", "--key-id", key];
    let overwrite: &[&str] = if overwrite { &["--overwrite"] } else { &[] };
    let from = ["--value", "file:///dev/stdin"];
    aws.run_with(&[&put[..], overwrite, &from].concat(), Input::Secret(value)).await.map(drop)
}

/// Deletes parameters.
///
/// # Errors
///
/// A command fails.
pub async fn delete(aws: &Aws, names: &[String]) -> anyhow::Result<()> {
    for some in names.chunks(MAX_DELETED_AT_ONCE) {
        let names: Vec<_> = some.iter().map(String::as_str).collect();
        aws.run(&[&["ssm", "delete-parameters", "--names"][..], &names].concat()).await?;
    }
    Ok(())
}
