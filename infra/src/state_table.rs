//! The DynamoDB table with the reconciler's state, through the AWS CLI.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use shared::{
    sites::{
        entry::SiteEntry,
        token_end::{TokenEnd, TokenEndState},
    },
    state::{SITE_PREFIX, SiteState, TOKEN_END_PREFIX, TokenHold, read_item, to_item, token_key},
    timestamp::Timestamp,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, sleep};

use crate::aws::{Aws, has_code};

/// How long to wait for a token in use. A run takes seconds.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between two attempts to hold a token.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A token that the reconciler does not use until it is released.
#[derive(Debug)]
pub struct HeldToken {
    table: String,
    key: String,
    version: String,
}

/// The content of a table about sites, by their names.
#[derive(Debug, Default)]
pub struct StoredSites {
    /// The state of each, `None` if an item cannot be parsed.
    pub states: BTreeMap<String, Option<SiteState>>,
    /// When the token of each ends, as far as the last run knew.
    pub token_ends: BTreeMap<String, TokenEnd>,
}

/// Reads the content about sites.
///
/// # Errors
///
/// The command fails.
pub async fn sites(aws: &Aws, table: &str) -> anyhow::Result<StoredSites> {
    let stored = aws.json(&["dynamodb", "scan", "--table-name", table, "--consistent-read"]).await?;
    let mut sites = StoredSites::default();
    for item in stored["Items"].as_array().context("no list of items")? {
        let Some((key, item)) = item_of(item) else { continue };
        if let Some(site) = key.strip_prefix(SITE_PREFIX) {
            sites.states.insert(site.to_owned(), read_item(&item).ok());
        } else if let Some(site) = key.strip_prefix(TOKEN_END_PREFIX) {
            let end = read_item::<TokenEndState>(&item).ok().and_then(|state| state.ends());
            sites.token_ends.extend(end.map(|end| (site.to_owned(), end)));
        }
    }
    Ok(sites)
}

/// Returns the key of an item, and its other members without the version.
fn item_of(item: &Value) -> Option<(String, Value)> {
    let mut members: Map<_, _> = item.as_object()?.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
    let key = members.remove("pk")?.as_str()?.to_owned();
    members.remove("version");
    Some((key, members.into()))
}

/// Waits until no run uses an entry's token, then holds the token for at most `time`. A second sign-in would end the session
/// of a run.
///
/// # Errors
///
/// The token stays in use, or the command fails.
pub async fn hold_token(aws: &Aws, table: &str, entry: &SiteEntry, time: Duration) -> anyhow::Result<HeldToken> {
    let deadline = Instant::now() + TOKEN_TIMEOUT;
    let key = token_key(entry);
    loop {
        let now = OffsetDateTime::now_utc();
        // Unique among the versions of this item.
        let version = (now.unix_timestamp_nanos() / 1_000_000).to_string();
        let until = Timestamp((now + time).truncate_to_second());
        let hold = to_item(&TokenHold { holder: "cargo infra".to_owned(), until });
        let mut item: Map<_, _> =
            hold.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), typed(value))).collect();
        item.insert("pk".to_owned(), json!({ "S": key }));
        item.insert("version".to_owned(), json!({ "N": version }));
        let (item, now) =
            (Value::Object(item).to_string(), json!({ ":now": { "S": now.format(&Rfc3339)? } }).to_string());
        let put = ["dynamodb", "put-item", "--table-name", table, "--item", &item];
        let free = ["--condition-expression", "attribute_not_exists(pk) OR #until < :now"];
        let names = ["--expression-attribute-names", r##"{"#until":"until"}"##, "--expression-attribute-values", &now];
        match aws.run(&[&put[..], &free, &names].concat()).await {
            Ok(_) => return Ok(HeldToken { table: table.to_owned(), key, version }),
            Err(error) if !has_code(&error, "ConditionalCheckFailedException") => return Err(error),
            Err(_) if Instant::now() > deadline => bail!(
                "the reconciler uses the token {:?}. Nothing was stored. Fix: try again in a few minutes",
                entry.token_name
            ),
            Err(_) => sleep(POLL_INTERVAL).await,
        }
    }
}

/// Releases a token.
///
/// # Errors
///
/// The command fails. The hold then ends with its time.
pub async fn release_token(aws: &Aws, HeldToken { table, key, version }: HeldToken) -> anyhow::Result<()> {
    let (key, value) = (json!({ "pk": { "S": key } }).to_string(), json!({ ":own": { "N": version } }).to_string());
    let delete = ["dynamodb", "delete-item", "--table-name", &table, "--key", &key];
    let own = ["--condition-expression", "version = :own", "--expression-attribute-values", &value];
    aws.run(&[&delete[..], &own].concat()).await.map(drop)
}

/// Deletes items. Each may be missing.
///
/// # Errors
///
/// A command fails.
pub async fn delete(aws: &Aws, table: &str, keys: &[String]) -> anyhow::Result<()> {
    for key in keys {
        let key = json!({ "pk": { "S": key } }).to_string();
        aws.run(&["dynamodb", "delete-item", "--table-name", table, "--key", &key]).await?;
    }
    Ok(())
}

/// Adds DynamoDB's type to a value.
fn typed(value: &Value) -> Value {
    match value {
        Value::String(text) => json!({ "S": text }),
        Value::Number(number) => json!({ "N": number.to_string() }),
        Value::Array(values) => json!({ "L": values.iter().map(typed).collect::<Vec<_>>() }),
        Value::Object(members) => {
            let members: Map<_, _> = members.iter().map(|(name, value)| (name.clone(), typed(value))).collect();
            json!({ "M": members })
        }
        Value::Bool(value) => json!({ "BOOL": value }),
        Value::Null => json!({ "NULL": true }),
    }
}

/// Removes DynamoDB's type from a value. `Value::Null` for a type that the state does not use.
fn plain(value: &Value) -> Value {
    let Some((kind, value)) = value.as_object().and_then(|value| value.iter().next()) else { return Value::Null };
    match (kind.as_str(), value) {
        ("S" | "BOOL", value) => value.clone(),
        ("N", Value::String(number)) => serde_json::from_str(number).unwrap_or_default(),
        ("L", Value::Array(values)) => values.iter().map(plain).collect(),
        ("M", Value::Object(members)) => {
            members.iter().map(|(name, value)| (name.clone(), plain(value))).collect::<Map<_, _>>().into()
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_and_removing_the_type_keeps_a_value() {
        let value = json!({ "a": "b", "c": [1, { "d": null }, true], "e": {} });
        assert_eq!(plain(&typed(&value)), value);
        assert_eq!(plain(&json!({ "B": "AA==" })), Value::Null);
    }
}
