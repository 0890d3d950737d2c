//! Target entries: where and how the forwarder sends messages.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::SecretString;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{
    settings::{SettingsError, SettingsReader},
    targets::{address::Address, credentials::Credentials, members, name::TargetName, selection::Selection},
};

/// The most messages a second, whatever an entry says. One environment sends no faster.
const MAX_PER_SECOND: u32 = 1000;

/// The beginning of a signing secret, and the bytes of its key (Standard Webhooks, "Signature scheme").
const SECRET_PREFIX: &str = "whsec_";
const MIN_KEY_BYTES: usize = 24;
const MAX_KEY_BYTES: usize = 64;

/// The member of the body in which PagerDuty expects the key of a service (Events API, version 2).
pub const ROUTING_KEY: &str = "routing_key";

/// The kind of service, which decides the form of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// An incoming webhook of Slack.
    Slack,
    /// A workflow of Microsoft Teams.
    Teams,
    /// PagerDuty's Events API, version 2.
    PagerDuty,
    /// A JSON message as it is, which may be signed as Standard Webhooks say.
    Plain,
    /// A catch hook of Zapier.
    Zapier,
    /// A webhook of IFTTT.
    Ifttt,
    /// A webhook of Coefficient, which refreshes a spreadsheet. It gets one call for all messages.
    Coefficient,
    /// A template in the entry.
    Custom,
}

/// The text is not the name of a preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a preset is one of slack, teams, pagerduty, plain, zapier, ifttt, coefficient, custom")]
pub struct InvalidPreset;

impl Preset {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Slack,
        Self::Teams,
        Self::PagerDuty,
        Self::Plain,
        Self::Zapier,
        Self::Ifttt,
        Self::Coefficient,
        Self::Custom,
    ];

    /// Returns its name in an entry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Teams => "teams",
            Self::PagerDuty => "pagerduty",
            Self::Plain => "plain",
            Self::Zapier => "zapier",
            Self::Ifttt => "ifttt",
            Self::Coefficient => "coefficient",
            Self::Custom => "custom",
        }
    }

    /// Returns the most messages a second, unless the entry has its own number.
    ///
    /// Slack accepts one ("Rate limits", incoming webhooks). PagerDuty accepts 120 a minute for an integration. Zapier refuses
    /// more than 30, and 20 leave room for other senders. A target that coalesces has a gap of its own. The others publish no
    /// limit.
    pub const fn default_per_second(self) -> NonZeroU32 {
        let per_second = match self {
            Self::Slack | Self::Coefficient => 1,
            Self::PagerDuty => 2,
            Self::Zapier => 20,
            Self::Teams | Self::Plain | Self::Ifttt | Self::Custom => 10,
        };
        NonZeroU32::MIN.saturating_add(per_second - 1)
    }

    /// Whether the service gets one call for all messages that arrived.
    pub const fn coalesces(self) -> bool {
        match self {
            Self::Coefficient => true,
            Self::Slack | Self::Teams | Self::PagerDuty | Self::Plain | Self::Zapier | Self::Ifttt | Self::Custom => {
                false
            }
        }
    }
}

impl FromStr for Preset {
    type Err = InvalidPreset;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|preset| preset.as_str() == text).ok_or(InvalidPreset)
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A target as its SSM parameter declares it.
///
/// ```
/// use secrecy::ExposeSecret;
/// use shared::targets::{
///     credentials::Credentials,
///     entry::{Preset, TargetEntry},
/// };
///
/// let stored = r#"{
///     "preset": "plain",
///     "address": "https://target.example/hooks/5f2c",
///     "credentials": { "type": "bearer", "token": "the-token" },
///     "per_second": 5,
///     "selection": { "kinds": ["refresh-explained"], "sites": ["marketing"] }
/// }"#;
/// let entry = TargetEntry::parse(&"bi-team".parse()?, stored)?;
/// assert_eq!((entry.preset, entry.per_second.get()), (Preset::Plain, 5));
/// assert_eq!(entry.address.url().host_str(), Some("target.example"));
/// let Credentials::Bearer { token } = &entry.credentials else { return Err("no token".into()) };
/// assert_eq!(token.expose_secret(), "the-token");
///
/// // Nothing of the entry but the preset is shown.
/// assert_eq!(
///     format!("{entry:?}"),
///     r#"TargetEntry { name: TargetName("bi-team"), preset: Plain, .. }"#
/// );
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct TargetEntry {
    /// Name of the target: the last segment of the parameter's name.
    pub name: TargetName,
    /// The kind of service.
    pub preset: Preset,
    /// Address of the service.
    pub address: Address,
    /// Credentials besides those in the address. PagerDuty's key is the member [`ROUTING_KEY`] of the body.
    pub credentials: Credentials,
    /// The secret that signs messages: `whsec_` and 24 to 64 bytes in base64. For the preset `plain` only.
    pub signing_secret: Option<SecretString>,
    /// The template. For the preset `custom` only, which requires it.
    pub template: Option<String>,
    /// The most messages a second.
    pub per_second: NonZeroU32,
    /// The messages that the target gets.
    pub selection: Selection,
    /// Whether the service answers a success with a redirect, as Apps Script does.
    pub redirect_is_success: bool,
}

const MEMBERS: [&str; 8] = [
    "preset",
    "address",
    "credentials",
    "signing_secret",
    "template",
    "per_second",
    "selection",
    "redirect_is_success",
];

impl TargetEntry {
    /// Reads the entry of the target called `name`.
    ///
    /// # Errors
    ///
    /// All problems of the entry. They repeat nothing of it, since it has secrets.
    pub fn parse(name: &TargetName, text: &str) -> Result<Self, SettingsError> {
        let entry = serde_json::from_str::<Map<String, Value>>(text);
        let mut reader = SettingsReader::new(|path: &str| members::find(entry.as_ref().ok()?, path).map(str::to_owned));
        let subject = format!("the target entry {name} cannot be used");
        // Those who report the error know the commands.
        let remedy = "";
        let Ok(members) = &entry else {
            reader.add("its value", "is not a JSON object");
            return reader.finish(None, subject, remedy);
        };
        members::check("it", members, &MEMBERS, &mut reader);
        let presets = format!("one of {}", Preset::ALL.map(Preset::as_str).join(", "));
        let preset = reader.required("preset", &presets, |text| text.parse::<Preset>().ok());
        let address = reader.required(
            "address",
            "an https address without a user and a password, such as https://target.example/hook",
            Address::parse,
        );
        let credentials = Credentials::read(members, &mut reader);
        // Not `optional`: a secret of another type must not be taken for none.
        let signing_secret = members.contains_key("signing_secret").then(|| {
            let expected = "whsec_ and 24 to 64 bytes in base64, or no such member";
            reader.required("signing_secret", expected, parse_signing_secret)
        });
        let template = members
            .contains_key("template")
            .then(|| reader.required("template", "a template, or no such member", |text| Some(text.to_owned())));
        let per_second = read_per_second(members, &mut reader);
        let selection = Selection::read(members, &mut reader);
        let redirect_is_success = read_redirect_is_success(members, &mut reader);
        if let Some(preset) = preset {
            check_members_of_preset(preset, members, credentials.as_ref(), &mut reader);
        }
        let entry = || {
            let preset = preset?;
            Some(Self {
                name: name.clone(),
                preset,
                address: address?,
                credentials: credentials?,
                signing_secret: signing_secret.flatten(),
                template: template.flatten(),
                per_second: per_second.unwrap_or(preset.default_per_second()),
                selection: selection?,
                redirect_is_success: redirect_is_success?,
            })
        };
        let entry = entry();
        reader.finish(entry, subject, remedy)
    }

    /// Returns the least time from the start of one call to the start of the next.
    pub fn gap(&self) -> Duration {
        Duration::from_secs(1) / self.per_second.get()
    }
}

/// Shows no member that an administrator writes as text: a secret may be in the wrong one.
impl fmt::Debug for TargetEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, preset, .. } = self;
        formatter.debug_struct("TargetEntry").field("name", name).field("preset", preset).finish_non_exhaustive()
    }
}

fn parse_signing_secret(text: &str) -> Option<SecretString> {
    let key = BASE64_STANDARD.decode(text.strip_prefix(SECRET_PREFIX)?).ok()?;
    (MIN_KEY_BYTES..=MAX_KEY_BYTES).contains(&key.len()).then(|| text.into())
}

fn read_per_second<L: Fn(&str) -> Option<String>>(
    members: &Map<String, Value>,
    reader: &mut SettingsReader<L>,
) -> Option<NonZeroU32> {
    let number = members.get("per_second")?.as_u64().and_then(|number| u32::try_from(number).ok());
    let number = number.filter(|number| *number <= MAX_PER_SECOND).and_then(NonZeroU32::new);
    if number.is_none() {
        let expected = format_args!("a whole number from 1 to {MAX_PER_SECOND}, or no such member");
        reader.add("per_second", format_args!("is not valid: expected {expected}"));
    }
    number
}

fn read_redirect_is_success<L: Fn(&str) -> Option<String>>(
    members: &Map<String, Value>,
    reader: &mut SettingsReader<L>,
) -> Option<bool> {
    let Some(value) = members.get("redirect_is_success") else { return Some(false) };
    let value = value.as_bool();
    if value.is_none() {
        reader.add("redirect_is_success", "is not valid: expected true or false, or no such member");
    }
    value
}

/// Checks the members that a preset requires, and those that are for another one.
fn check_members_of_preset<L: Fn(&str) -> Option<String>>(
    preset: Preset,
    members: &Map<String, Value>,
    credentials: Option<&Credentials>,
    reader: &mut SettingsReader<L>,
) {
    match (preset == Preset::Custom, members.contains_key("template")) {
        (true, false) => reader.add("template", "is missing: the preset custom requires it"),
        (false, true) => reader.add("template", "is for the preset custom only"),
        (true, true) | (false, false) => {}
    }
    if preset != Preset::Plain && members.contains_key("signing_secret") {
        reader.add("signing_secret", "is for the preset plain only");
    }
    if preset.coalesces() && members.contains_key("per_second") {
        reader.add("per_second", format_args!("is not for the preset {preset}, which gets one call each five minutes"));
    }
    let is_routing_key =
        |credentials: &Credentials| matches!(credentials, Credentials::Body { member, .. } if member == ROUTING_KEY);
    if preset == Preset::PagerDuty && credentials.is_some_and(|credentials| !is_routing_key(credentials)) {
        let expected = format_args!(r#"{{"type":"body","member":"{ROUTING_KEY}","value":"…"}}"#);
        reader.add("credentials", format_args!("have no routing key: the preset pagerduty expects {expected}"));
    }
}

#[cfg(test)]
mod tests;
