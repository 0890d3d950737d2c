//! Renders messages for targets: the body of a request and its headers.
//!
//! Chat services and the like get an alert; an event is put into words first. Each preset is a template, as is the user's own.

mod adf;
mod content;
mod event;
#[cfg(test)]
mod hostile;
mod signature;
mod template;
mod text;

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use shared::targets::{
    credentials::Credentials,
    entry::{Preset, TargetEntry},
    message::TargetMessage,
};
use thiserror::Error;
use time::OffsetDateTime;

use crate::render::content::Content;
pub use crate::render::template::TemplateError;

/// The most characters of the text in a message: Slack's limit for a section, which is enough to read.
const MAX_TEXT: usize = 3000;

/// The text lengths that are tried in turn if a message is too large for Teams.
const SHORTER_TEXTS: [usize; 3] = [1500, 600, 200];

/// The most bytes that Teams accepts in a message.
const MAX_TEAMS_BYTES: usize = 28 * 1024;

/// The most bytes of any message: twice those of the largest message that SNS accepts.
const MAX_BYTES: usize = 512 * 1024;

const JSON: &str = "application/json";

/// The content type of a CloudEvent in structured mode (CloudEvents, HTTP protocol binding).
const CLOUD_EVENT: &str = "application/cloudevents+json";

/// A rendered message. Debug output shows neither its body nor values of its headers.
pub struct Rendered {
    /// Body of the request. It may contain the target's credentials.
    pub body: Vec<u8>,
    /// Value of the header `content-type`.
    pub content_type: &'static str,
    /// Further headers of the message. Those of the credentials are the sender's.
    pub headers: Vec<(String, SecretString)>,
}

impl fmt::Debug for Rendered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        formatter
            .debug_struct("Rendered")
            .field("bytes", &self.body.len())
            .field("content_type", &self.content_type)
            .field("headers", &names)
            .finish()
    }
}

/// A message could not be rendered, and cannot be with this entry. It repeats nothing of the entry or the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RenderError {
    /// The template failed.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The entry has no template.
    #[error("the target has the preset custom, and no template")]
    NoTemplate,
    /// The credentials belong into an object.
    #[error("the target's credentials belong into the body, and the body is not a JSON object")]
    NoObject,
    /// The signing secret cannot be read.
    #[error("the target's signing secret is not whsec_ and base64")]
    InvalidSigningSecret,
    /// The message is too large for the service.
    #[error("the message has {bytes} bytes, and at most {max} are sent")]
    TooLarge {
        /// Size of the message.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// Renders a message for a target. `id` is the same in each repetition of the message.
///
/// Credentials in the body are part of the result. All others are the sender's task.
///
/// # Errors
///
/// The entry does not fit the message. A further attempt has the same result.
pub fn render(
    entry: &TargetEntry,
    message: &TargetMessage,
    id: &str,
    now: OffsetDateTime,
) -> Result<Rendered, RenderError> {
    let with_text = |source, max_text, max_bytes| {
        let content = Content::of(message, id, now, max_text);
        finished(template::render(source, &content)?, &entry.credentials, max_bytes)
    };
    let whole = |source| with_text(source, MAX_TEXT, MAX_BYTES);
    let body = match entry.preset {
        Preset::Plain => received(message, &entry.credentials),
        Preset::Custom => whole(entry.template.as_deref().ok_or(RenderError::NoTemplate)?),
        Preset::Slack => whole(include_str!("../presets/slack.json.j2")),
        Preset::PagerDuty => whole(include_str!("../presets/pagerduty.json.j2")),
        Preset::Zapier => whole(include_str!("../presets/zapier.json.j2")),
        Preset::Coefficient => counted(1, &entry.credentials),
        Preset::Ifttt => whole(include_str!("../presets/ifttt.json.j2")),
        Preset::Teams => {
            smallest(|max_text| with_text(include_str!("../presets/teams.json.j2"), max_text, MAX_TEAMS_BYTES))
        }
    }?;
    let secret = entry.signing_secret.as_ref();
    let headers =
        secret.map(|secret| signature::headers(secret, id, now, &body).ok_or(RenderError::InvalidSigningSecret));
    let headers = headers.transpose()?.unwrap_or_default();
    Ok(Rendered { body, content_type: content_type(entry.preset, message), headers })
}

/// Renders one message for several, as a preset that coalesces sends it.
///
/// # Errors
///
/// The entry does not fit the message.
pub fn coalesced(entry: &TargetEntry, messages: usize) -> Result<Rendered, RenderError> {
    let body = counted(messages, &entry.credentials)?;
    Ok(Rendered { body, content_type: JSON, headers: Vec::new() })
}

fn counted(messages: usize, credentials: &Credentials) -> Result<Vec<u8>, RenderError> {
    finished(json!({ "messages": messages }), credentials, MAX_BYTES)
}

/// Renders with shorter texts until the message is small enough.
fn smallest(render: impl Fn(usize) -> Result<Vec<u8>, RenderError>) -> Result<Vec<u8>, RenderError> {
    let mut result = render(MAX_TEXT);
    for max_text in SHORTER_TEXTS {
        if !matches!(result, Err(RenderError::TooLarge { .. })) {
            break;
        }
        result = render(max_text);
    }
    result
}

/// Returns the message as it was received, with the credentials if they belong into the body.
fn received(message: &TargetMessage, credentials: &Credentials) -> Result<Vec<u8>, RenderError> {
    match (message, credentials) {
        (TargetMessage::Event(event), Credentials::Body { .. }) => {
            finished(event.json().clone(), credentials, MAX_BYTES)
        }
        (TargetMessage::Event(event), _) => bounded(event.text().as_bytes().to_vec(), MAX_BYTES),
        (TargetMessage::Alert(alert), _) => finished(json!(alert), credentials, MAX_BYTES),
    }
}

/// Adds credentials that belong into the body, and checks the size.
fn finished(mut json: Value, credentials: &Credentials, max: usize) -> Result<Vec<u8>, RenderError> {
    if let Credentials::Body { member, value } = credentials {
        let object = json.as_object_mut().ok_or(RenderError::NoObject)?;
        object.insert(member.clone(), value.expose_secret().into());
    }
    bounded(json.to_string().into_bytes(), max)
}

fn bounded(body: Vec<u8>, max: usize) -> Result<Vec<u8>, RenderError> {
    if body.len() > max { Err(RenderError::TooLarge { bytes: body.len(), max }) } else { Ok(body) }
}

fn content_type(preset: Preset, message: &TargetMessage) -> &'static str {
    match (preset, message) {
        (Preset::Plain, TargetMessage::Event(_)) => CLOUD_EVENT,
        _ => JSON,
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod properties;
