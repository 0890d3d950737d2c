//! Parameters in SSM Parameter Store, through the AWS CLI.

use anyhow::Context;
use secrecy::SecretString;
use serde_json::Value;
use shared::timestamp::Timestamp;
use time::OffsetDateTime;

use crate::aws::{Aws, Input, has_code};

/// The most parameters that one call deletes (SSM API reference, `DeleteParameters`).
const MAX_DELETED_AT_ONCE: usize = 10;

/// The most bytes of a parameter in the standard tier, which is free (SSM quotas). A larger one costs.
pub const MAX_STANDARD_BYTES: usize = 4096;

/// The most bytes of any parameter.
pub const MAX_BYTES: usize = 8192;

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

/// A parameter with its value.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: SecretString,
    /// The time of the last change, in RFC 3339; empty if it is unknown.
    pub modified: String,
}

/// Reads and decrypts all parameters directly under a path, sorted by name.
///
/// # Errors
///
/// The command fails.
pub async fn read_all(aws: &Aws, path: &str) -> anyhow::Result<Vec<Parameter>> {
    let read = ["ssm", "get-parameters-by-path", "--path", path, "--with-decryption", "--query", "Parameters"];
    let found = aws.json(&read).await?;
    let text = |parameter: &Value, member: &str| parameter[member].as_str().unwrap_or_default().to_owned();
    let parameters = found.as_array().context("no list of parameters")?.iter().map(|parameter| Parameter {
        name: text(parameter, "Name"),
        value: SecretString::from(text(parameter, "Value")),
        modified: time_of(&parameter["LastModifiedDate"]).unwrap_or_default(),
    });
    let mut parameters: Vec<_> = parameters.collect();
    parameters.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(parameters)
}

/// Formats a time of the AWS CLI: version 1 prints seconds, version 2 a text.
fn time_of(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    let seconds = value.as_number()?.to_string();
    let seconds = seconds.split('.').next()?.parse().ok()?;
    Timestamp(OffsetDateTime::from_unix_timestamp(seconds).ok()?).format()
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

/// Stores a SecureString, in the free tier while SSM allows that.
///
/// # Errors
///
/// The command fails, for example because the parameter exists and `overwrite` is false.
pub async fn put(aws: &Aws, name: &str, key: &str, value: &SecretString, overwrite: bool) -> anyhow::Result<()> {
    let put = ["ssm", "put-parameter", "--name", name, "--type", "SecureString", "--key-id", key];
    let overwrite: &[&str] = if overwrite { &["--overwrite"] } else { &[] };
    // Without a tier, SSM refuses a short value for a parameter that had a long one.
    let from = ["--tier", "Intelligent-Tiering", "--value", "file:///dev/stdin"];
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_times_of_both_clis_are_formatted() {
        for (value, expected) in [
            (json!("2026-05-21T08:00:00.123000+00:00"), Some("2026-05-21T08:00:00.123000+00:00")),
            (json!(1_779_350_400.123), Some("2026-05-21T08:00:00Z")),
            (json!(1_779_350_400), Some("2026-05-21T08:00:00Z")),
            (json!(null), None),
        ] {
            assert_eq!(time_of(&value).as_deref(), expected, "{value}");
        }
    }
}
