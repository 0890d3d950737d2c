//! The declared targets outside of AWS, and new entries beside them.

use std::collections::BTreeMap;

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use shared::targets::{address::Address, entry::TargetEntry, name::TargetName};

use crate::{aws::Aws, parameters, stack::Stack};

/// Members that are secrets of the service behind an address.
const SECRETS: [&str; 2] = ["credentials", "signing_secret"];

/// A declared target.
#[derive(Debug)]
pub struct DeclaredTarget {
    /// Its name, which may be invalid.
    pub name: String,
    /// Its entry, or the reason for which it cannot be used.
    pub entry: Result<TargetEntry, String>,
    /// The time at which the entry was stored.
    pub stored_at: String,
    text: SecretString,
}

/// All declared targets, sorted by name.
#[derive(Debug)]
pub struct DeclaredTargets(Vec<DeclaredTarget>);

/// A valid entry that is not stored yet.
#[derive(Debug)]
pub struct NewTarget {
    /// The entry.
    pub entry: TargetEntry,
    /// The text to store.
    pub text: SecretString,
    /// Whether stored secrets were left out, since they are for another server.
    pub has_lost_secrets: bool,
}

/// Returns the SSM path of the targets of a stack.
pub fn path(stack: &str) -> String {
    format!("/{stack}/targets")
}

/// Returns the name of a target's parameter in SSM.
pub fn parameter(stack: &str, target: &str) -> String {
    format!("{}/{target}", path(stack))
}

impl DeclaredTargets {
    /// Reads them from SSM.
    ///
    /// # Errors
    ///
    /// The command fails.
    pub async fn read(aws: &Aws, stack: &Stack) -> anyhow::Result<Self> {
        let parameters = parameters::read_all(aws, &path(stack.name())).await?;
        let targets = parameters.into_iter().map(|parameters::Parameter { name, value: text, modified: stored_at }| {
            let name = name.rsplit('/').next().unwrap_or_default().to_owned();
            let parsed = name.parse::<TargetName>().map_err(|error| error.to_string());
            let entry = parsed
                .and_then(|name| TargetEntry::parse(&name, text.expose_secret()).map_err(|error| error.to_string()));
            DeclaredTarget { name, entry, stored_at, text }
        });
        Ok(Self(targets.collect()))
    }

    /// Returns them in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &DeclaredTarget> {
        self.0.iter()
    }

    /// Returns them by their names.
    pub fn into_map(self) -> BTreeMap<String, DeclaredTarget> {
        self.0.into_iter().map(|target| (target.name.clone(), target)).collect()
    }

    /// Finds a target by its name.
    pub fn find(&self, name: &str) -> Option<&DeclaredTarget> {
        self.iter().find(|target| target.name == name)
    }
}

impl DeclaredTarget {
    /// Returns the members of the stored entry, which may be any.
    pub fn members(&self) -> Map<String, Value> {
        serde_json::from_str(self.text.expose_secret()).unwrap_or_default()
    }
}

impl NewTarget {
    /// Creates an entry from members of its JSON form. Members that are left out stay as they are stored, if the preset is the
    /// same. Secrets stay only for the same server. A null removes a member.
    ///
    /// # Errors
    ///
    /// The entry is not valid. The error repeats nothing of it.
    pub fn new(
        name: &TargetName,
        mut members: Map<String, Value>,
        stored: Option<&DeclaredTarget>,
    ) -> anyhow::Result<Self> {
        let mut stored = stored.map(DeclaredTarget::members).unwrap_or_default();
        if members.get("preset").is_some_and(|preset| stored.get("preset") != Some(preset)) {
            stored.clear();
        }
        let is_moved = members.get("address").is_some_and(|address| !is_same_server(address, &stored));
        let lost = SECRETS.iter().filter(|secret| is_moved && stored.remove(**secret).is_some());
        let has_lost_secrets = lost.filter(|secret| !members.contains_key(**secret)).count() > 0;
        stored.into_iter().for_each(|(member, value)| _ = members.entry(member).or_insert(value));
        members.retain(|_, value| !value.is_null());
        let text = SecretString::from(Value::Object(members).to_string());
        let entry = TargetEntry::parse(name, text.expose_secret())?;
        Ok(Self { entry, text, has_lost_secrets })
    }
}

/// Whether an address is at the server of a stored entry.
pub fn is_same_server(address: &Value, stored: &Map<String, Value>) -> bool {
    server(address) == stored.get("address").and_then(server)
}

/// Returns the server of an address.
fn server(address: &Value) -> Option<String> {
    Some(Address::parse(address.as_str()?)?.url().origin().ascii_serialization())
}

/// Reads the members of an entry's JSON form.
///
/// # Errors
///
/// The text is not a JSON object.
pub fn members(text: &str) -> anyhow::Result<Map<String, Value>> {
    // The parser's error could repeat a part of the text.
    serde_json::from_str(text).ok().context("its value is not a JSON object")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn completed(given: &Value, stored: &Value) -> anyhow::Result<Value> {
        let name: TargetName = "ops".parse()?;
        let text = stored.to_string();
        let entry = TargetEntry::parse(&name, &text).map_err(|error| error.to_string());
        let stored = DeclaredTarget { name: "ops".to_owned(), entry, stored_at: String::new(), text: text.into() };
        let new = NewTarget::new(&name, members(&given.to_string())?, Some(&stored))?;
        assert_eq!(new.has_lost_secrets, given["address"] == "https://b.example/");
        Ok(serde_json::from_str(new.text.expose_secret())?)
    }

    #[test]
    fn members_that_are_left_out_stay_and_secrets_stay_only_for_their_server() -> anyhow::Result<()> {
        let stored = json!({ "preset": "plain", "address": "https://a.example/one", "per_second": 5,
            "credentials": { "type": "bearer", "token": "t" } });
        assert_eq!(completed(&json!({}), &stored)?, stored);
        let mut moved = stored.clone();
        moved["address"] = json!("https://a.example/two");
        assert_eq!(completed(&json!({ "address": "https://a.example/two" }), &stored)?, moved);
        let other = json!({ "preset": "plain", "address": "https://b.example/", "per_second": 5 });
        assert_eq!(completed(&json!({ "address": "https://b.example/" }), &stored)?, other);
        let slack = json!({ "preset": "slack", "address": "https://hooks.slack.com/services/T/B/x" });
        assert_eq!(completed(&slack, &stored)?, slack);
        let without = json!({ "preset": "plain", "address": "https://a.example/one" });
        assert_eq!(completed(&json!({ "per_second": null, "credentials": null }), &stored)?, without);
        let error = completed(&json!({ "address": "http://s3cret.example/" }), &stored).expect_err("no TLS");
        assert!(
            format!("{error:#}").contains("address is not valid") && !format!("{error:#}").contains("s3cret"),
            "{error:#}"
        );
        Ok(())
    }
}
