//! From a delivery to the message on the events topic: a CloudEvent and the attributes to filter it by.

use std::{collections::BTreeMap, fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    alert::{AlertEvents, AlertMessage},
    event::Event,
    payload::Payload,
    registration::{Registration, SiteName, Verified},
};

/// The most bytes SNS takes in one publish, attributes included (Amazon SNS quotas: 256 KiB).
const MESSAGE_BYTES: usize = 256 * 1024;

/// The most bytes of an attribute's value: Tableau's longest names have 255 characters, of three bytes at most. A longer
/// value is left out whole: its beginning could be the name of something else, and all of it would take from the message
/// what SNS allows it.
const ATTRIBUTE_BYTES: usize = 1024;

/// The most characters SNS takes as a message group (Amazon SNS API reference, `MessageGroupId`).
const GROUP_CHARACTERS: usize = 128;

/// The most characters that are told of what a payload calls its event: every known name has fewer than 30.
const EVENT_TYPE_CHARACTERS: usize = 80;

/// What `event_type` says for Tableau's test call.
pub const TEST: &str = "Test";

/// What `event_type` says for a delivery that is no JSON object.
pub const UNRECOGNIZED: &str = "Unrecognized";

/// Identifier of an event: the same bytes delivered for the same registration have the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct EventId([u8; 16]);

/// The text is not an event's identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event's identifier consists of 32 hexadecimal digits")]
pub struct InvalidEventId;

impl EventId {
    /// The identifier that follows from some texts, in their order.
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let digest = parts.into_iter().fold(Sha256::new(), |digest, part| {
            // The length in front keeps apart what would otherwise run together.
            digest.chain_update((part.len() as u64).to_be_bytes()).chain_update(part)
        });
        let mut id = [0; 16];
        id.copy_from_slice(&digest.finalize()[..16]);
        Self(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidEventId);
        }
        let id = u128::from_str_radix(text, 16).map_err(|_| InvalidEventId)?;
        Ok(Self(id.to_be_bytes()))
    }
}

impl TryFrom<String> for EventId {
    type Error = InvalidEventId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.to_string()
    }
}

/// What a verified registration was sent.
#[derive(Debug)]
pub struct Delivery<'a> {
    registration: &'a Registration,
    body: &'a [u8],
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    /// The event its registration is for.
    Event(Payload<'a>),
    /// Tableau's test call, with or without a payload.
    Test(Option<Payload<'a>>),
    /// No JSON object. Kept, since nothing authentic is lost.
    Unrecognized,
}

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

impl<'a> Delivery<'a> {
    /// Reads what a verified registration was sent. Every body means something.
    pub fn read(verified: &'a Verified, body: &'a [u8]) -> Self {
        let content = match Payload::parse(body) {
            Some(payload) if payload.event_type.as_deref() == Some(TEST) => Content::Test(Some(payload)),
            Some(payload) => Content::Event(payload),
            None if body.is_empty() => Content::Test(None),
            None => Content::Unrecognized,
        };
        Self { registration: verified.registration(), body, content }
    }

    /// What it was sent for.
    pub fn registration(&self) -> &'a Registration {
        self.registration
    }

    /// What was sent, as it came.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// What it is published as: the registration's event, `Test` or `Unrecognized`.
    pub fn event_type(&self) -> &'a str {
        match self.content {
            Content::Event(_) => self.registration.event.as_str(),
            Content::Test(_) => TEST,
            Content::Unrecognized => UNRECOGNIZED,
        }
    }

    /// The `event_type` of a payload that says something else than its registration is for: its beginning, with a
    /// question mark for each character that is not printable ASCII.
    pub fn contradicting_event_type(&self) -> Option<String> {
        let Content::Event(Payload { event_type: Some(event_type), .. }) = &self.content else { return None };
        let characters = event_type.chars().take(EVENT_TYPE_CHARACTERS);
        let shown =
            || characters.map(|character| if is_printable_ascii(character) { character } else { '?' }).collect();
        (event_type != self.registration.event.as_str()).then(shown)
    }

    /// Identifier of the resource, if the payload has one that is as plain as Tableau's are: a word of ASCII.
    pub fn plain_resource_luid(&self) -> Option<&str> {
        self.payload()?.resource_luid.as_deref().filter(|luid| is_plain(luid))
    }

    /// The delivery's identifier: a digest of registration and body, so that Tableau's repetitions share it, and of
    /// the request's identifier besides for a test, which is meant to be seen each time.
    pub fn id(&self, request_id: &str) -> EventId {
        let Registration { site, event } = self.registration;
        let request_id = matches!(self.content, Content::Test(_)).then_some(request_id.as_bytes());
        EventId::of([site.as_str().as_bytes(), event.as_str().as_bytes(), self.body].into_iter().chain(request_id))
    }

    /// The message to publish.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if SNS would not take it.
    pub fn message(&self, id: EventId) -> Result<EventMessage, TooLarge> {
        let event = matches!(self.content, Content::Event(_)).then_some(&self.registration.event);
        let payload = self.payload();
        Said {
            site: &self.registration.site,
            event_type: self.event_type(),
            resource_type: event.and_then(Event::resource_type),
            action: event.and_then(Event::action),
            site_luid: payload.and_then(|payload| payload.site_luid.as_deref()),
            resource_luid: payload.and_then(|payload| payload.resource_luid.as_deref()),
            resource_name: payload.and_then(|payload| payload.resource_name.as_deref()),
            time: payload.and_then(|payload| payload.created_at.as_deref()),
            is_recovered: false,
            data: payload.map_or(Data::Bytes(self.body), |payload| Data::Json(payload.json)),
        }
        .message(id)
    }

    /// What to tell people, if it is one of the events they want to be told of. A test or something unrecognized is
    /// nothing that happened on Tableau.
    pub fn alert(&self, id: EventId, wanted: &AlertEvents) -> Option<AlertMessage> {
        match &self.content {
            Content::Event(payload) if wanted.contains(&self.registration.event) => {
                Some(AlertMessage::about(self.registration, payload, id))
            }
            Content::Event(_) | Content::Test(_) | Content::Unrecognized => None,
        }
    }

    fn payload(&self) -> Option<&Payload<'a>> {
        match &self.content {
            Content::Event(payload) => Some(payload),
            Content::Test(payload) => payload.as_ref(),
            Content::Unrecognized => None,
        }
    }
}

/// What a message says, whoever found it out.
pub(crate) struct Said<'a> {
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

impl Said<'_> {
    /// The message to publish.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if SNS would not take it.
    pub(crate) fn message(&self, id: EventId) -> Result<EventMessage, TooLarge> {
        let group = self.resource_luid.filter(|luid| is_plain(luid)).unwrap_or(self.site.as_str()).to_owned();
        let message =
            EventMessage { id, body: Envelope::of(self, id).to_json(), attributes: self.attributes(id), group };
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

    fn size_bytes(&self) -> usize {
        let attributes = self.attributes.iter();
        let attributes = attributes.map(|(name, value)| name.len() + Self::ATTRIBUTE_TYPE.len() + value.len());
        self.body.len() + attributes.sum::<usize>()
    }
}

/// A CloudEvent 1.0 in structured JSON.
#[derive(Serialize)]
struct Envelope<'a> {
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

impl<'a> Envelope<'a> {
    fn of(said: &Said<'a>, id: EventId) -> Self {
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

fn is_printable_ascii(character: char) -> bool {
    (' '..='~').contains(&character)
}

/// Whether an identifier is as plain as Tableau's are: a word of ASCII, which can be a message group.
fn is_plain(luid: &str) -> bool {
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

/// The value of a message attribute: the text without the characters of [`is_lost_in_attributes`]. `None` if nothing is
/// left or it is too long to be a name.
fn attribute_value(text: &str) -> Option<String> {
    let value: String = text.chars().filter(|character| !is_lost_in_attributes(*character)).collect();
    (!value.is_empty() && value.len() <= ATTRIBUTE_BYTES).then_some(value)
}

/// Whether a character in a message attribute would cost the message. SNS refuses a publish with one above U+FFFF, and
/// SQS takes none above U+FFFD. SNS accepts the others, and then every subscription with a filter policy on attributes
/// drops the message without a word, since the value is no inside of a JSON string (Amazon SNS developer guide, "Message
/// attributes").
fn is_lost_in_attributes(character: char) -> bool {
    character.is_control() || matches!(character, '"' | '\\' | '\u{FFFE}'..)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::{Value, json};

    use super::*;

    fn verified(site: &str, event: &str) -> Verified {
        let registration =
            Registration { site: site.parse().expect("a site name"), event: event.parse().expect("an event") };
        registration.verified_in_tests()
    }

    fn message(event: &str, body: &[u8]) -> EventMessage {
        let verified = verified("marketing", event);
        let delivery = Delivery::read(&verified, body);
        delivery.message(delivery.id("request")).expect("small enough")
    }

    fn envelope(message: &EventMessage) -> Value {
        serde_json::from_str(&message.body).expect("an envelope is JSON")
    }

    #[test]
    fn the_id_follows_from_site_event_and_body_and_from_the_request_for_a_test() {
        let id = |site, event, body: &[u8], request| Delivery::read(&verified(site, event), body).id(request);
        let body = br#"{"a":1}"#;
        let first = id("a", "WorkbookCreated", body, "1");
        assert_eq!(first, id("a", "WorkbookCreated", body, "2"));
        for other in [
            id("b", "WorkbookCreated", body, "1"),
            id("a", "WorkbookDeleted", body, "1"),
            id("a", "WorkbookCreated", br#"{"a":2}"#, "1"),
        ] {
            assert_ne!(first, other);
        }
        for test in [&b""[..], br#"{"event_type":"Test"}"#] {
            assert_ne!(id("a", "WorkbookCreated", test, "1"), id("a", "WorkbookCreated", test, "2"));
        }
        // Computed with Python's hashlib over the length-prefixed parts.
        assert_eq!(first.to_string(), "cd9ff88b30a6413cc62746011b6c37e6");
    }

    #[test]
    fn an_id_is_read_as_it_is_written_and_nothing_else_is() {
        let written = "00ff88b30a6413cc62746011b6c37e60";
        assert_eq!(written.parse::<EventId>().map(|id| id.to_string()), Ok(written.to_owned()));
        for bad in
            ["", "00", &written[1..], &format!("{written}0"), &written.replace('f', "g"), &written.replace("00", "+0")]
        {
            assert_eq!(bad.parse::<EventId>(), Err(InvalidEventId), "{bad}");
        }
    }

    #[test]
    fn a_time_that_is_none_is_left_out() {
        let time = |text: &str| {
            let body = format!(r#"{{"created_at":"{text}"}}"#);
            envelope(&message("WorkbookCreated", body.as_bytes())).get("time").cloned()
        };
        for good in ["2019-10-17T17:12:03Z", "2019-10-17T17:12:03.242Z", "2019-10-17T17:12:03+02:00"] {
            assert_eq!(time(good), Some(Value::from(good)));
        }
        for bad in ["yesterday", "2019-10-17", "2019-10-17 17:12:03Z", "2019-13-17T17:12:03Z", "1571332323"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_resource_that_cannot_be_a_subject_or_a_group_is_none() {
        let sent = |luid: &str| message("WorkbookCreated", format!(r#"{{"resource_luid":"{luid}"}}"#).as_bytes());
        let ordinary = sent("99");
        assert_eq!((envelope(&ordinary)["subject"].as_str(), ordinary.group.as_str()), (Some("99"), "99"));
        let odd = sent("9\\u0007 9");
        assert_eq!((envelope(&odd).get("subject"), odd.group.as_str()), (None, "marketing"));
        let long = sent(&"9".repeat(GROUP_CHARACTERS + 1));
        assert_eq!(long.group, "marketing");
    }

    #[test]
    fn no_name_can_make_a_publish_fail() {
        let named = |name: &str| {
            let body = json!({ "resource_name": name }).to_string();
            message("WorkbookCreated", body.as_bytes()).attributes.get("resource_name").cloned()
        };
        for (name, expected) in [
            ("Umsätze", Some("Umsätze")),
            ("Sales 📈", Some("Sales ")),
            ("𝐛𝐨𝐥𝐝 🇩🇪 𠮷 a", Some("   a")),
            ("Sales \"North\"", Some("Sales North")),
            ("C:\\extracts", Some("C:extracts")),
            ("a\u{0}b\tc\nd\u{1b}e\u{7f}f\u{85}g\u{9f}h", Some("abcdefgh")),
            ("\u{d7ff}\u{e000}\u{fffd}\u{fffe}\u{ffff}\u{10000}", Some("\u{d7ff}\u{e000}\u{fffd}")),
            ("📈", None),
            ("\"\"", None),
            ("", None),
        ] {
            assert_eq!(named(name).as_deref(), expected, "{name:?}");
        }
        assert_eq!(named(&"n".repeat(ATTRIBUTE_BYTES)), Some("n".repeat(ATTRIBUTE_BYTES)));
        assert_eq!(named(&"n".repeat(ATTRIBUTE_BYTES + 1)), None);
    }

    #[test]
    fn a_message_may_be_as_large_as_sns_takes_and_no_byte_larger() {
        let verified = verified("marketing", "WorkbookCreated");
        let of_padding = |padding: usize| {
            let body = format!(r#"{{"padding":"{}"}}"#, "x".repeat(padding));
            let delivery = Delivery::read(&verified, body.as_bytes());
            delivery.message(delivery.id("request")).map(|message| message.size_bytes())
        };
        let overhead = of_padding(0).expect("small enough");
        assert_eq!(of_padding(MESSAGE_BYTES - overhead), Ok(MESSAGE_BYTES));
        assert_eq!(of_padding(MESSAGE_BYTES - overhead + 1), Err(TooLarge { size_bytes: MESSAGE_BYTES + 1 }));
    }

    #[test]
    fn an_event_of_tomorrow_is_published_without_type_and_action() {
        let message = message("FlowRunFailed", b"{}");
        assert_eq!(envelope(&message)["type"], "com.tableau.FlowRunFailed");
        assert_eq!(message.attributes.keys().copied().collect::<Vec<_>>(), ["event_id", "event_type", "site"]);
    }

    /// Whether SNS takes a message, and every subscriber gets it.
    fn is_taken_whole(message: &EventMessage) -> bool {
        let is_whole = |value: &String| {
            let read: Result<String, _> = serde_json::from_str(&format!("\"{value}\""));
            !value.is_empty()
                && read.is_ok_and(|read| read == *value)
                && value.chars().all(|it| !it.is_control() && it <= '\u{fffd}')
        };
        (1..=128).contains(&message.group.len())
            && message.group.bytes().all(|byte| byte.is_ascii_graphic())
            && message.attributes.len() <= 10
            && message.attributes.values().all(is_whole)
    }

    /// Any text, with characters that are seldom come upon by chance.
    fn any_text() -> impl Strategy<Value = String> {
        let special = select(
            "📈𝐛𠮷\u{10ffff}\u{ffff}\u{fffe}\u{fffd}\"\\\t\n\r\u{0}\u{7f}\u{85}\u{9f}".chars().collect::<Vec<_>>(),
        );
        vec(prop_oneof![special, any::<char>(), proptest::char::range(' ', '~')], 0..40).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn any_body_becomes_a_message_that_sns_takes(body: Vec<u8>) {
            let message = message("WorkbookCreated", &body);
            prop_assert!(is_taken_whole(&message), "{:?}", message);
            prop_assert!(envelope(&message).is_object());
        }

        #[test]
        fn whatever_a_payload_says_sns_takes_it_and_every_filter_can_see_it(
            name in any_text(), luid in any_text(), site_luid in any_text(), time in any_text(), kind in any_text(),
        ) {
            let payload = json!({ "event_type": kind, "resource_name": name, "resource_luid": luid,
                "site_luid": site_luid, "created_at": time });
            let sent = message("WorkbookCreated", payload.to_string().as_bytes());
            prop_assert!(is_taken_whole(&sent), "{:?}", sent);
            prop_assert_eq!(&envelope(&sent)["data"], &payload);
        }

        #[test]
        fn any_text_is_kept(body in ".*") {
            prop_assume!(Payload::parse(body.as_bytes()).is_none() && !body.is_empty());
            let sent = envelope(&message("WorkbookCreated", body.as_bytes()));
            prop_assert_eq!(sent["data"].as_str(), Some(body.as_str()));
            prop_assert_eq!(sent["type"].as_str(), Some("com.tableau.Unrecognized"));
        }

        #[test]
        fn the_data_is_what_was_sent_byte_for_byte(name in ".*", space in "[ \n\t]{0,3}") {
            let name = serde_json::to_string(&name).expect("a text is JSON");
            let body = format!("{{{space}\"resource_name\":{space}{name}{space}}}");
            let message = message("WorkbookCreated", body.as_bytes());
            let data = format!(r#""data":{body}}}"#);
            prop_assert!(message.body.ends_with(&data), "{}", message.body);
        }
    }
}
