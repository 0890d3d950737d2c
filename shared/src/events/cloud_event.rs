//! Messages on the events topic: CloudEvents with attributes to filter by.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::value::RawValue;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    events::{attributes::attribute_value, id::EventId},
    registration::site_name::SiteName,
};

/// The most bytes SNS accepts in one publish, attributes included (Amazon SNS quotas: 256 KiB).
pub(crate) const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// The most characters of a message group (Amazon SNS API reference, `MessageGroupId`).
pub(crate) const MAX_GROUP_CHARACTERS: usize = 128;

/// The beginning of an event's `source`, before the site's name.
pub const SOURCE_PREFIX: &str = "/tableau/";

/// The beginning of an event's `type`, before Tableau's name for the event.
pub const TYPE_PREFIX: &str = "com.tableau.";

/// A message for the events topic.
///
/// ```
/// # use shared::registration::{claim::{Claim, Registration}, keyring::Keyring, signed_url::ReceiverUrl};
/// # let (keyring, receiver) = (Keyring::of([7; 32]), ReceiverUrl::parse("https://receiver.example").ok_or("")?);
/// # let registration = Registration { site: "marketing".parse()?, event: "WorkbookRefreshFailed".parse()? };
/// # let url = registration.signed_url(&receiver, &keyring);
/// # let claim = Claim::parse(url.expose().trim_start_matches("https://receiver.example")).ok_or("")?;
/// # let verified = claim.verify(&keyring).ok_or("")?;
/// use shared::events::delivery::Delivery;
///
/// let body = br#"{
///     "resource_name": "Regional Sales",
///     "resource_luid": "5998aaaf",
///     "created_at": "2026-05-21T08:00:00Z"
/// }"#;
/// let delivery = Delivery::read(&verified, body);
/// let message = delivery.message(delivery.id("request-1"))?;
///
/// let event: serde_json::Value = serde_json::from_str(&message.body)?;
/// assert_eq!(event["type"], "com.tableau.WorkbookRefreshFailed");
/// assert_eq!(event["source"], "/tableau/marketing");
/// assert_eq!(event["subject"], "5998aaaf");
/// assert_eq!(event["time"], "2026-05-21T08:00:00Z");
/// assert_eq!(event["data"]["resource_name"], "Regional Sales");
/// assert_eq!(event["id"], message.id.to_string());
/// assert_eq!(message.group, "5998aaaf");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventMessage {
    /// The event's identifier, and on a FIFO topic the deduplication id.
    pub id: EventId,
    /// The message: a CloudEvent in structured JSON.
    pub body: String,
    /// Message attributes of type String, none empty, at most 9: SNS drops raw deliveries with more than 10.
    pub attributes: BTreeMap<&'static str, String>,
    /// The message group on a FIFO topic, which keeps events of one resource in order.
    pub group: String,
}

/// Content of a message, from a delivery or from a job.
pub(crate) struct Envelope<'a> {
    /// Name of the site.
    pub(crate) site: &'a SiteName,
    /// Name of the event.
    pub(crate) event_type: &'a str,
    /// Type of the resource.
    pub(crate) resource_type: Option<&'a str>,
    /// Action on the resource.
    pub(crate) action: Option<&'a str>,
    /// Tableau's identifier of the site.
    pub(crate) site_luid: Option<&'a str>,
    /// Tableau's identifier of the resource.
    pub(crate) resource_luid: Option<&'a str>,
    /// Name of the resource.
    pub(crate) resource_name: Option<&'a str>,
    /// Name of the resource's project.
    pub(crate) project: Option<&'a str>,
    /// Name of the resource's owner.
    pub(crate) owner: Option<&'a str>,
    /// Time of the event. An invalid timestamp is left out.
    pub(crate) time: Option<&'a str>,
    /// Whether Tableau did not deliver the event, and a job shows it.
    pub(crate) is_recovered: bool,
    /// Data of the event.
    pub(crate) data: Data<'a>,
}

/// The data of a message.
pub(crate) enum Data<'a> {
    /// JSON, published byte for byte.
    Json(&'a RawValue),
    /// Text, other bytes or nothing.
    Bytes(&'a [u8]),
}

impl Envelope<'_> {
    /// Returns the message to publish.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if SNS would not accept it.
    pub(crate) fn message(&self, id: EventId) -> Result<EventMessage, TooLarge> {
        let group = self.resource_luid.filter(|luid| is_plain(luid)).unwrap_or(self.site.as_str()).to_owned();
        let message =
            EventMessage { id, body: CloudEvent::of(self, id).to_json(), attributes: self.attributes(id), group };
        let size_bytes = message.size_bytes();
        if size_bytes > MAX_MESSAGE_BYTES { Err(TooLarge { size_bytes }) } else { Ok(message) }
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
            ("project", self.project),
            ("owner", self.owner),
            ("event_id", Some(&*id.to_string())),
            ("recovered", self.is_recovered.then_some("true")),
        ];
        candidates.into_iter().filter_map(|(name, value)| Some((name, attribute_value(value?)?))).collect()
    }
}

/// The message is larger than SNS accepts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message has {size_bytes} bytes with its attributes, and SNS accepts at most {MAX_MESSAGE_BYTES}")]
pub struct TooLarge {
    /// Size of the message with its attributes.
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
    /// Extension attribute.
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
    fn of(envelope: &Envelope<'a>, id: EventId) -> Self {
        let (datacontenttype, data, data_base64) = match envelope.data {
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
            source: format!("{SOURCE_PREFIX}{}", envelope.site),
            r#type: format!("{TYPE_PREFIX}{}", envelope.event_type),
            subject: envelope.resource_luid.filter(|luid| !luid.chars().any(is_refused_by_cloudevents)),
            time: envelope.time.filter(|time| is_timestamp(time)),
            recovered: envelope.is_recovered.then_some(true),
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

/// Whether an identifier is a word of ASCII, as Tableau's are, so that it can be a message group.
pub(crate) fn is_plain(luid: &str) -> bool {
    (1..=MAX_GROUP_CHARACTERS).contains(&luid.len()) && luid.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_timestamp(text: &str) -> bool {
    // The parser accepts a space in place of the T, which RFC 3339 does not.
    OffsetDateTime::parse(text, &Rfc3339).is_ok() && matches!(text.as_bytes().get(10), Some(b'T' | b't'))
}

/// Whether a CloudEvents attribute must not have this character (CloudEvents 1.0.2, "Type System", String).
fn is_refused_by_cloudevents(character: char) -> bool {
    character.is_control() || is_noncharacter(character)
}

fn is_noncharacter(character: char) -> bool {
    let code = u32::from(character);
    (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
}
