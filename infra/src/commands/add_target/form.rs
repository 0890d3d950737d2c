//! The values that a user types for a target entry. None that may be a secret is shown.

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use shared::targets::{
    address::Address,
    entry::{Preset, ROUTING_KEY},
};

use super::services;
use crate::{
    prompt,
    target_entries::{DeclaredTarget, is_same_server},
    terminal::{bad, print},
};

/// The input ended, for example with Ctrl-D.
const ENDED: &str = "the input ended. Nothing was stored";

/// Credentials besides those in the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum CredentialsKind {
    /// None. Removes stored ones.
    None,
    /// A header, such as X-Api-Key.
    Header,
    /// A user and a password.
    Basic,
    /// A bearer token.
    Bearer,
    /// A parameter in the query of the address.
    Query,
    /// A member of the JSON that is sent.
    Body,
}

/// The values to ask for, and the stored ones.
#[derive(Debug)]
pub(super) struct Form {
    preset: Preset,
    credentials: Option<CredentialsKind>,
    is_eu: bool,
    /// Members of the stored entry of the same preset.
    stored: Map<String, Value>,
}

impl Form {
    /// A form for a preset.
    pub(super) fn new(
        preset: Preset,
        credentials: Option<CredentialsKind>,
        is_eu: bool,
        stored: Option<&DeclaredTarget>,
    ) -> Self {
        let stored = stored.map(DeclaredTarget::members).unwrap_or_default();
        let is_same = stored.get("preset") == Some(&json!(preset.as_str()));
        Self { preset, credentials, is_eu, stored: if is_same { stored } else { Map::new() } }
    }

    /// Asks for the members of the entry. One that stays as it is stored is left out.
    ///
    /// # Errors
    ///
    /// The input ended.
    pub(super) async fn ask(mut self) -> anyhow::Result<Map<String, Value>> {
        let mut members = Map::new();
        let address = self.ask_address().await?;
        // Stored secrets stay only for their server.
        if address.as_ref().is_some_and(|address| !is_same_server(address, &self.stored)) {
            self.stored.clear();
        }
        let mut add = |member: &str, value: Option<Value>| {
            value.map(|value| members.insert(member.to_owned(), value));
        };
        add("address", address);
        if self.preset == Preset::PagerDuty {
            let key = self.ask_secret("Integration key of the PagerDuty service", "credentials").await?;
            add("credentials", key.map(|key| json!({ "type": "body", "member": ROUTING_KEY, "value": key })));
            return Ok(members);
        }
        if let Some(kind) = self.credentials {
            add("credentials", Some(ask_credentials(kind).await?));
        }
        if self.preset == Preset::Plain {
            let kept = if self.stored.contains_key("signing_secret") {
                "Enter keeps the stored one"
            } else {
                "Enter for none"
            };
            let secret = secret(&format!("Signing secret, whsec_… (not shown; {kept}): ")).await?;
            add("signing_secret", (!secret.is_empty()).then(|| secret.into()));
        }
        Ok(members)
    }

    /// Asks for the address, or for its parts. `None` if the stored one stays.
    async fn ask_address(&self) -> anyhow::Result<Option<Value>> {
        match self.preset {
            Preset::PagerDuty if self.stored.contains_key("address") && !self.is_eu => Ok(None),
            Preset::PagerDuty => Ok(Some(services::pagerduty(self.is_eu).into())),
            Preset::Ifttt => self.ask_ifttt().await,
            preset => loop {
                let Some(text) = self.ask_secret(services::question(preset), "address").await? else { return Ok(None) };
                if Address::parse(&text).is_some() {
                    return Ok(Some(text.into()));
                }
                print(bad("this is not an https address without a user and a password"));
            },
        }
    }

    /// Asks for the event and the key of a webhook of IFTTT.
    async fn ask_ifttt(&self) -> anyhow::Result<Option<Value>> {
        let kept = if self.stored.contains_key("address") { " (Enter keeps the stored address)" } else { "" };
        loop {
            let event = prompt::line(&format!("Name of the event in IFTTT{kept}: ")).await?.context(ENDED)?;
            match (event.is_empty(), kept.is_empty()) {
                (true, false) => return Ok(None),
                (true, true) => print(bad("the name is empty")),
                (false, _) => {
                    let key = ask_some("Key of IFTTT's Webhooks service").await?;
                    return Ok(services::ifttt(&event, &key).map(|url| String::from(url).into()));
                }
            }
        }
    }

    /// Asks for a secret until there is one. `None` if the stored member stays.
    async fn ask_secret(&self, question: &str, member: &str) -> anyhow::Result<Option<String>> {
        if !self.stored.contains_key(member) {
            return ask_some(question).await.map(Some);
        }
        let answer = secret(&format!("{question} (not shown; Enter keeps the stored one): ")).await?;
        Ok(Some(answer).filter(|answer| !answer.is_empty()))
    }
}

/// Asks for credentials of a kind.
async fn ask_credentials(kind: CredentialsKind) -> anyhow::Result<Value> {
    Ok(match kind {
        CredentialsKind::None => json!({ "type": "none" }),
        CredentialsKind::Header => {
            json!({ "type": "header", "name": ask_name("Name of the header").await?, "value": ask_some("Its value").await? })
        }
        CredentialsKind::Basic => {
            json!({ "type": "basic", "user": ask_name("User").await?, "password": secret("Password (not shown): ").await? })
        }
        CredentialsKind::Bearer => json!({ "type": "bearer", "token": ask_some("Token").await? }),
        CredentialsKind::Query => {
            let name = ask_name("Name of the parameter").await?;
            json!({ "type": "query", "name": name, "value": ask_some("Its value").await? })
        }
        CredentialsKind::Body => {
            let member = ask_name("Name of the member").await?;
            json!({ "type": "body", "member": member, "value": ask_some("Its value").await? })
        }
    })
}

/// Asks for a text, which is shown, until there is one.
async fn ask_name(question: &str) -> anyhow::Result<String> {
    loop {
        match prompt::line(&format!("{question}: ")).await?.context(ENDED)? {
            text if text.is_empty() => print(bad("this is empty")),
            text => return Ok(text),
        }
    }
}

/// Asks for a secret until there is one.
async fn ask_some(question: &str) -> anyhow::Result<String> {
    loop {
        match secret(&format!("{question} (not shown): ")).await? {
            text if text.is_empty() => print(bad("this is empty")),
            text => return Ok(text),
        }
    }
}

/// Asks a question and reads the answer without showing it.
async fn secret(question: &str) -> anyhow::Result<String> {
    Ok(prompt::secret(question).await?.context(ENDED)?.trim().to_owned())
}
