//! Deliveries: requests to a verified registration, and the messages they become.

use crate::{
    events::{
        catalogue::Event,
        cloud_event::{Data, Envelope, EventMessage, TooLarge, is_plain},
        id::EventId,
        payload::Payload,
    },
    registration::claim::{Registration, Verified},
};

/// The most characters logged of a contradicting `event_type`. Every known name has fewer than 30.
const MAX_EVENT_TYPE_CHARACTERS: usize = 80;

/// The `event_type` of Tableau's test call.
pub const TEST: &str = "Test";

/// The `event_type` of a delivery that is no JSON object.
pub const UNRECOGNIZED: &str = "Unrecognized";

/// A delivery to a verified registration.
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
/// // Tableau posts to the signed URL for WorkbookRefreshFailed of the site marketing.
/// let delivery = Delivery::read(&verified, br#"{"resource_name":"Regional Sales"}"#);
/// assert_eq!(delivery.event_type(), "WorkbookRefreshFailed");
/// assert_eq!(Delivery::read(&verified, b"").event_type(), "Test");
/// assert_eq!(Delivery::read(&verified, b"no JSON").event_type(), "Unrecognized");
///
/// // Tableau's next attempt has the same body, and subscribers recognize the repetition.
/// assert_eq!(delivery.id("request-1"), delivery.id("request-2"));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Delivery<'a> {
    registration: &'a Registration,
    body: &'a [u8],
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    /// The registration's event.
    Event(Payload<'a>),
    /// Tableau's test call, with or without a payload.
    Test(Option<Payload<'a>>),
    /// No JSON object. Published all the same: nothing authentic is dropped.
    Unrecognized,
}

impl<'a> Delivery<'a> {
    /// Reads the body of a verified request. Every body is valid.
    pub fn read(verified: &'a Verified, body: &'a [u8]) -> Self {
        let content = match Payload::parse(body) {
            Some(payload) if payload.event_type.as_deref() == Some(TEST) => Content::Test(Some(payload)),
            Some(payload) => Content::Event(payload),
            None if body.is_empty() => Content::Test(None),
            None => Content::Unrecognized,
        };
        Self { registration: verified.registration(), body, content }
    }

    /// Returns the registration that Tableau delivered to.
    pub fn registration(&self) -> &'a Registration {
        self.registration
    }

    /// Returns the body, byte for byte.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Returns the published event type: the registration's event, `Test` or `Unrecognized`.
    pub fn event_type(&self) -> &'a str {
        match self.content {
            Content::Event(_) => self.registration.event.as_str(),
            Content::Test(_) => TEST,
            Content::Unrecognized => UNRECOGNIZED,
        }
    }

    /// Returns the payload's `event_type` if it contradicts the registration: its beginning, with a question mark for each
    /// character that is not printable ASCII.
    pub fn contradicting_event_type(&self) -> Option<String> {
        let Content::Event(Payload { event_type: Some(event_type), .. }) = &self.content else { return None };
        let characters = event_type.chars().take(MAX_EVENT_TYPE_CHARACTERS);
        let shown =
            || characters.map(|character| if is_printable_ascii(character) { character } else { '?' }).collect();
        (event_type != self.registration.event.as_str()).then(shown)
    }

    /// Returns the identifier of the resource, if it is a word of ASCII, as Tableau's are.
    pub fn plain_resource_luid(&self) -> Option<&str> {
        self.payload()?.resource_luid.as_deref().filter(|luid| is_plain(luid))
    }

    /// Returns the name of the resource, if the payload has one.
    pub(crate) fn resource_name(&self) -> Option<&str> {
        self.payload()?.resource_name.as_deref()
    }

    /// Returns the event's identifier: a digest of registration and body, so that Tableau's retries share it. For a test it
    /// includes the request's identifier, so that subscribers see each test.
    pub fn id(&self, request_id: &str) -> EventId {
        let Registration { site, event } = self.registration;
        let request_id = matches!(self.content, Content::Test(_)).then_some(request_id.as_bytes());
        EventId::of([site.as_str().as_bytes(), event.as_str().as_bytes(), self.body].into_iter().chain(request_id))
    }

    /// Returns the message to publish.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if SNS would not accept it.
    pub fn message(&self, id: EventId) -> Result<EventMessage, TooLarge> {
        let event = matches!(self.content, Content::Event(_)).then_some(&self.registration.event);
        let payload = self.payload();
        Envelope {
            site: &self.registration.site,
            event_type: self.event_type(),
            resource_type: event.and_then(Event::resource_type),
            action: event.and_then(Event::action),
            site_luid: payload.and_then(|payload| payload.site_luid.as_deref()),
            resource_luid: payload.and_then(|payload| payload.resource_luid.as_deref()),
            resource_name: payload.and_then(|payload| payload.resource_name.as_deref()),
            project: None,
            owner: None,
            time: payload.and_then(|payload| payload.created_at.as_deref()),
            is_recovered: false,
            data: payload.map_or(Data::Bytes(self.body), |payload| Data::Json(payload.json)),
        }
        .message(id)
    }

    /// Returns the payload of the registration's event; `None` for a test or an unrecognized body, which are no events on
    /// Tableau.
    pub(crate) fn event_payload(&self) -> Option<&Payload<'a>> {
        match &self.content {
            Content::Event(payload) => Some(payload),
            Content::Test(_) | Content::Unrecognized => None,
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

fn is_printable_ascii(character: char) -> bool {
    (' '..='~').contains(&character)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::{Value, json};

    use super::*;
    use crate::events::{
        attributes::MAX_ATTRIBUTE_BYTES,
        cloud_event::{MAX_GROUP_CHARACTERS, MAX_MESSAGE_BYTES},
    };

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
    fn the_id_depends_on_site_event_and_body_and_for_a_test_on_the_request() {
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
    fn an_invalid_time_is_left_out() {
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
    fn an_odd_or_long_identifier_is_no_subject_or_group() {
        let sent = |luid: &str| message("WorkbookCreated", format!(r#"{{"resource_luid":"{luid}"}}"#).as_bytes());
        let ordinary = sent("99");
        assert_eq!((envelope(&ordinary)["subject"].as_str(), ordinary.group.as_str()), (Some("99"), "99"));
        let odd = sent("9\\u0007 9");
        assert_eq!((envelope(&odd).get("subject"), odd.group.as_str()), (None, "marketing"));
        let long = sent(&"9".repeat(MAX_GROUP_CHARACTERS + 1));
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
        assert_eq!(named(&"n".repeat(MAX_ATTRIBUTE_BYTES)), Some("n".repeat(MAX_ATTRIBUTE_BYTES)));
        assert_eq!(named(&"n".repeat(MAX_ATTRIBUTE_BYTES + 1)), None);
    }

    #[test]
    fn a_message_has_at_most_the_size_that_sns_accepts() {
        let verified = verified("marketing", "WorkbookCreated");
        let of_padding = |padding: usize| {
            let body = format!(r#"{{"padding":"{}"}}"#, "x".repeat(padding));
            let delivery = Delivery::read(&verified, body.as_bytes());
            delivery.message(delivery.id("request")).map(|message| message.size_bytes())
        };
        let overhead = of_padding(0).expect("small enough");
        assert_eq!(of_padding(MAX_MESSAGE_BYTES - overhead), Ok(MAX_MESSAGE_BYTES));
        assert_eq!(of_padding(MAX_MESSAGE_BYTES - overhead + 1), Err(TooLarge { size_bytes: MAX_MESSAGE_BYTES + 1 }));
    }

    #[test]
    fn an_unknown_event_is_published_without_type_and_action() {
        let message = message("FlowRunFailed", b"{}");
        assert_eq!(envelope(&message)["type"], "com.tableau.FlowRunFailed");
        assert_eq!(message.attributes.keys().copied().collect::<Vec<_>>(), ["event_id", "event_type", "site"]);
    }

    /// Whether SNS accepts a message and every filter policy can match it.
    fn is_deliverable(message: &EventMessage) -> bool {
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

    /// Any text, with special characters more often than by chance.
    fn any_text() -> impl Strategy<Value = String> {
        let special = select(
            "📈𝐛𠮷\u{10ffff}\u{ffff}\u{fffe}\u{fffd}\"\\\t\n\r\u{0}\u{7f}\u{85}\u{9f}".chars().collect::<Vec<_>>(),
        );
        vec(prop_oneof![special, any::<char>(), proptest::char::range(' ', '~')], 0..40).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn any_body_becomes_a_message_that_sns_accepts(body: Vec<u8>) {
            let message = message("WorkbookCreated", &body);
            prop_assert!(is_deliverable(&message), "{:?}", message);
            prop_assert!(envelope(&message).is_object());
        }

        #[test]
        fn any_payload_becomes_a_message_that_every_filter_can_match(
            name in any_text(), luid in any_text(), site_luid in any_text(), time in any_text(), kind in any_text(),
        ) {
            let payload = json!({ "event_type": kind, "resource_name": name, "resource_luid": luid,
                "site_luid": site_luid, "created_at": time });
            let sent = message("WorkbookCreated", payload.to_string().as_bytes());
            prop_assert!(is_deliverable(&sent), "{:?}", sent);
            prop_assert_eq!(&envelope(&sent)["data"], &payload);
        }

        #[test]
        fn any_text_is_published_as_unrecognized(body in ".*") {
            prop_assume!(Payload::parse(body.as_bytes()).is_none() && !body.is_empty());
            let sent = envelope(&message("WorkbookCreated", body.as_bytes()));
            prop_assert_eq!(sent["data"].as_str(), Some(body.as_str()));
            prop_assert_eq!(sent["type"].as_str(), Some("com.tableau.Unrecognized"));
        }

        #[test]
        fn the_data_is_the_body_byte_for_byte(name in ".*", space in "[ \n\t]{0,3}") {
            let name = serde_json::to_string(&name).expect("a text is JSON");
            let body = format!("{{{space}\"resource_name\":{space}{name}{space}}}");
            let message = message("WorkbookCreated", body.as_bytes());
            let data = format!(r#""data":{body}}}"#);
            prop_assert!(message.body.ends_with(&data), "{}", message.body);
        }
    }
}
