//! Messages on the events topic: a CloudEvent and the attributes to filter it by.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::value::RawValue;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    events::{attributes::attribute_value, id::EventId},
    registration::site_name::SiteName,
};

/// The most bytes SNS takes in one publish, attributes included (Amazon SNS quotas: 256 KiB).
pub(crate) const MESSAGE_BYTES: usize = 256 * 1024;

/// The most characters SNS takes as a message group (Amazon SNS API reference, `MessageGroupId`).
pub(crate) const GROUP_CHARACTERS: usize = 128;

/// What is published to the events topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventMessage {
    /// The event's identifier; on a FIFO topic also the deduplication id.
    pub id: EventId,
    /// The message: a CloudEvent in structured JSON.
    pub body: String,
    /// Message attributes, all of type String, none empty, at most 9 (SNS drops raw deliveries with more than 10).
    pub attributes: BTreeMap<&'static str, String>,
    /// On a FIFO topic the message group: events of one resource stay in order.
    pub group: String,
}

/// What a message says, whoever found it out.
pub(crate) struct Envelope<'a> {
    /// Our name for the site.
    pub(crate) site: &'a SiteName,
    /// What happened.
    pub(crate) event_type: &'a str,
    /// Kind of thing it happened to.
    pub(crate) resource_type: Option<&'a str>,
    /// What was done to it.
    pub(crate) action: Option<&'a str>,
    /// Identifier of the site.
    pub(crate) site_luid: Option<&'a str>,
    /// Identifier of the thing.
    pub(crate) resource_luid: Option<&'a str>,
    /// Name of the thing.
    pub(crate) resource_name: Option<&'a str>,
    /// When it happened. What is no timestamp is left out.
    pub(crate) time: Option<&'a str>,
    /// Whether Tableau did not deliver it, and it was found out otherwise.
    pub(crate) is_recovered: bool,
    /// What is told of it.
    pub(crate) data: Data<'a>,
}

/// The data of a message.
pub(crate) enum Data<'a> {
    /// Written as it is, byte for byte.
    Json(&'a RawValue),
    /// No JSON: a text, something else, or nothing.
    Bytes(&'a [u8]),
}

impl Envelope<'_> {
    /// The message to publish.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if SNS would not take it.
    pub(crate) fn message(&self, id: EventId) -> Result<EventMessage, TooLarge> {
        let group = self.resource_luid.filter(|luid| is_plain(luid)).unwrap_or(self.site.as_str()).to_owned();
        let message =
            EventMessage { id, body: CloudEvent::of(self, id).to_json(), attributes: self.attributes(id), group };
        let size_bytes = message.size_bytes();
        if size_bytes > MESSAGE_BYTES { Err(TooLarge { size_bytes }) } else { Ok(message) }
    }

    fn attributes(&self, id: EventId) -> BTreeMap<&'static str, String> {
        let candidates = [
            ("event_type", Some(self.event_type)),
            ("resource_type", self.resource_type),
            ("action", self.action),
            ("site", Some(self.site.as_str())),
            ("site_luid", self.site_luid),
            ("resource_luid", self.resource_luid),
            ("resource_name", self.resource_name),
            ("event_id", Some(&*id.to_string())),
            ("recovered", self.is_recovered.then_some("true")),
        ];
        candidates.into_iter().filter_map(|(name, value)| Some((name, attribute_value(value?)?))).collect()
    }
}

/// A message that SNS would not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message has {size_bytes} bytes with its attributes, and SNS takes at most {MESSAGE_BYTES}")]
pub struct TooLarge {
    /// Size of message and attributes.
    pub size_bytes: usize,
}

impl EventMessage {
    /// Data type of every attribute; its bytes count towards the size.
    pub const ATTRIBUTE_TYPE: &str = "String";

    pub(crate) fn size_bytes(&self) -> usize {
        let attributes = self.attributes.iter();
        let attributes = attributes.map(|(name, value)| name.len() + Self::ATTRIBUTE_TYPE.len() + value.len());
        self.body.len() + attributes.sum::<usize>()
    }
}

/// A CloudEvent 1.0 in structured JSON.
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<&'a str>,
    /// An extension of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<JsonData<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum JsonData<'a> {
    Raw(&'a RawValue),
    Text(&'a str),
}

impl<'a> CloudEvent<'a> {
    fn of(said: &Envelope<'a>, id: EventId) -> Self {
        let (datacontenttype, data, data_base64) = match said.data {
            Data::Json(json) => (Some("application/json"), Some(JsonData::Raw(json)), None),
            Data::Bytes([]) => (None, None, None),
            Data::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => (Some("text/plain"), Some(JsonData::Text(text)), None),
                Err(_) => (Some("application/octet-stream"), None, Some(BASE64_STANDARD.encode(bytes))),
            },
        };
        Self {
            specversion: "1.0",
            id: id.to_string(),
            source: format!("/tableau/{}", said.site),
            r#type: format!("com.tableau.{}", said.event_type),
            subject: said.resource_luid.filter(|luid| !luid.chars().any(is_refused_by_cloudevents)),
            time: said.time.filter(|time| is_timestamp(time)),
            recovered: said.is_recovered.then_some(true),
            datacontenttype,
            data,
            data_base64,
        }
    }

    #[expect(clippy::expect_used, reason = "texts under fixed names can always be written as JSON")]
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an envelope is JSON")
    }
}

/// Whether an identifier is as plain as Tableau's are: a word of ASCII, which can be a message group.
pub(crate) fn is_plain(luid: &str) -> bool {
    (1..=GROUP_CHARACTERS).contains(&luid.len()) && luid.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_timestamp(text: &str) -> bool {
    // The parser also takes a space in place of the T, which the grammar of RFC 3339 does not.
    OffsetDateTime::parse(text, &Rfc3339).is_ok() && matches!(text.as_bytes().get(10), Some(b'T' | b't'))
}

/// Characters a CloudEvents attribute must not contain (CloudEvents 1.0.2, "Type System", String).
fn is_refused_by_cloudevents(character: char) -> bool {
    character.is_control() || is_noncharacter(character)
}

fn is_noncharacter(character: char) -> bool {
    let code = u32::from(character);
    (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
}
