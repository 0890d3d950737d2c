//! Messages in the queue of a target.

use serde_json::{Map, Value};
use thiserror::Error;

use crate::{
    alerts::data::AlertData,
    events::cloud_event::SOURCE_PREFIX,
    targets::{
        alarm::{Alarm, QUEUE},
        name::{TARGET, TargetName},
        selection::Selection,
    },
};

/// The most characters of an identifier, which is part of headers and of keys of the targets.
const MAX_ID_CHARACTERS: usize = 255;

/// A message in the queue of a target.
///
/// ```
/// use shared::targets::{entry::TargetEntry, message::TargetMessage};
///
/// let body = r#"{
///     "specversion": "1.0",
///     "id": "e5382930c3df8e121f80ac403357ca8b",
///     "source": "/tableau/marketing",
///     "type": "com.tableau.RefreshFailureExplained",
///     "data": { "resource_name": "Regional Sales", "project": { "name": "Finance" } }
/// }"#;
/// let message = TargetMessage::parse(body)?;
/// assert_eq!(message.id(), "e5382930c3df8e121f80ac403357ca8b");
///
/// let selects = |selection: &str| {
///     let entry = format!(
///         r#"{{"preset":"plain","address":"https://target.example/","selection":{selection}}}"#
///     );
///     let entry = TargetEntry::parse(&"bi-team".parse()?, &entry)?;
///     Ok::<_, Box<dyn std::error::Error>>(message.is_selected(&entry.selection))
/// };
/// assert!(selects(r#"{"sites":["marketing","sales"],"projects":["Finance"]}"#)?);
/// assert!(!selects(r#"{"sites":["sales"]}"#)?);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a function holds a few of them for a short time")]
pub enum TargetMessage {
    /// A CloudEvent of the events topic: a JSON object with the strings `id`, `source` and `type`.
    Event(ReceivedEvent),
    /// An alert of the alerts topic. An alarm of CloudWatch is one of the kind `alarm`: `OK` resolves it, and its thread is its
    /// name.
    Alert(AlertData),
}

/// An event as it was received. Its text keeps the order of members and the form of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedEvent {
    text: String,
    json: Value,
}

impl ReceivedEvent {
    /// Returns its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns its JSON.
    pub fn json(&self) -> &Value {
        &self.json
    }
}

/// An event that was not received as a text.
impl From<Value> for ReceivedEvent {
    fn from(json: Value) -> Self {
        Self { text: json.to_string(), json }
    }
}

/// The message is neither an event nor an alert. Its texts repeat nothing of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoMessage {
    /// It is not a JSON object.
    #[error("the message is not a JSON object")]
    NoObject,
    /// It has no members by which it is recognized.
    #[error("the message is neither an event nor an alert nor an alarm")]
    Unknown,
    /// It has a `specversion`.
    #[error("the message is an event without a usable specversion, id, source or type")]
    InvalidEvent,
    /// It has a kind and a title.
    #[error("the message is an alert, and a member is missing or not valid")]
    InvalidAlert,
    /// It has an `AlarmName`.
    #[error("the message is an alarm, and a member is missing or not valid")]
    InvalidAlarm,
}

impl TargetMessage {
    /// Reads the body of a message. Unwraps it first if its subscription has no raw delivery.
    ///
    /// # Errors
    ///
    /// It is neither an event nor an alert.
    pub fn parse(body: &str) -> Result<Self, NoMessage> {
        let message = object(body)?;
        match wrapped(&message) {
            Some(wrapped) => Self::of(wrapped, object(wrapped)?),
            None => Self::of(body, message),
        }
    }

    fn of(text: &str, message: Map<String, Value>) -> Result<Self, NoMessage> {
        let has = |member: &str| message.contains_key(member);
        if has("specversion") {
            let is_event = is_event(&message);
            let event = ReceivedEvent { text: text.to_owned(), json: Value::Object(message) };
            is_event.then_some(Self::Event(event)).ok_or(NoMessage::InvalidEvent)
        } else if has("AlarmName") {
            let alarm: Alarm = serde_json::from_value(message.into()).map_err(|_| NoMessage::InvalidAlarm)?;
            alarm.try_into().map(Self::Alert).map_err(|_| NoMessage::InvalidAlarm)
        } else if has("kind") && has("title") {
            let alert: AlertData = serde_json::from_value(message.into()).map_err(|_| NoMessage::InvalidAlert)?;
            is_id(&alert.event_id).then_some(Self::Alert(alert)).ok_or(NoMessage::InvalidAlert)
        } else {
            Err(NoMessage::Unknown)
        }
    }

    /// Returns the identifier of the event or alert: 1 to 255 visible ASCII characters. A repetition has the same.
    pub fn id(&self) -> &str {
        match self {
            Self::Event(ReceivedEvent { json, .. }) => json["id"].as_str().unwrap_or_default(),
            Self::Alert(alert) => &alert.event_id,
        }
    }

    /// Whether a selection has the message.
    pub fn is_selected(&self, selection: &Selection) -> bool {
        match self {
            Self::Event(ReceivedEvent { json, .. }) => {
                let source = json["source"].as_str().unwrap_or_default();
                let site = source.strip_prefix(SOURCE_PREFIX).unwrap_or_default();
                selection.has_event(site, json["data"]["project"]["name"].as_str())
            }
            Self::Alert(alert) => selection.has_alert(alert),
        }
    }

    /// Whether it is an alarm about a queue of a target in a stack, or an alert about the target. The target must not get it:
    /// each attempt that fails would keep the alarm up.
    pub fn is_about(&self, target: &TargetName, stack: &str) -> bool {
        let Self::Alert(AlertData { resource: Some(resource), .. }) = self else { return false };
        match &*resource.kind {
            QUEUE => [target.queue(stack), target.dead_letters(stack)].contains(&resource.id),
            TARGET => resource.id == target.as_str(),
            _ => false,
        }
    }
}

fn object(text: &str) -> Result<Map<String, Value>, NoMessage> {
    serde_json::from_str(text).map_err(|_| NoMessage::NoObject)
}

/// Returns the message in SNS's own envelope (Amazon SNS developer guide, "Raw message delivery").
fn wrapped(message: &Map<String, Value>) -> Option<&str> {
    let text = |member: &str| message.get(member).and_then(Value::as_str);
    let is_envelope = text("Type") == Some("Notification") && text("TopicArn").is_some();
    text("Message").filter(|_| is_envelope)
}

/// Whether an object has the attributes that CloudEvents 1.0 requires.
fn is_event(message: &Map<String, Value>) -> bool {
    let text = |member: &str| message.get(member).and_then(Value::as_str).unwrap_or_default();
    text("specversion") == "1.0" && is_id(text("id")) && !text("source").is_empty() && !text("type").is_empty()
}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID_CHARACTERS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests;
