//! The log record of a delivery, from which an undelivered event is replayed.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    alerts::text::changes_direction,
    events::{attributes::attribute_value, catalogue::Event, delivery::Delivery, id::EventId},
    registration::{claim::Registration, site_name::SiteName},
};

/// The most characters of a resource's name in the log. Names are user input of up to 255 characters, and a line's bytes
/// are paid for.
const NAME_CHARACTERS: usize = 80;

/// Result of an authentic delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// SNS accepted all that was not published before.
    Published,
    /// All of it was published before.
    Duplicate,
    /// SNS accepts no message of this size.
    TooLarge,
    /// SNS did not accept all of it. Tableau's retry may succeed.
    Undelivered,
}

/// Result of the alert about a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertOutcome {
    /// SNS accepted it.
    Sent,
    /// It was sent before.
    Duplicate,
    /// SNS did not accept it.
    Failed,
}

/// Result of publishing a delivery to both topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Result of both topics.
    pub outcome: Outcome,
    /// Result of the alert, if the event has one.
    pub alert: Option<AlertOutcome>,
    /// Why the event was not published.
    pub error: Option<String>,
    /// Why the alert was not sent.
    pub alert_error: Option<String>,
}

/// A delivery and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRecord {
    /// Name of the site entry.
    pub site: SiteName,
    /// The event that it is published as: the one of its registration, `Test` or `Unrecognized`.
    pub event: String,
    /// The event's identifier.
    pub event_id: EventId,
    /// The event of its registration, if it is published as another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_event: Option<Event>,
    /// The event that the payload names, if that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_event: Option<String>,
    /// Tableau's identifier of the resource, if the payload has a plain one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    /// The resource's name, if the payload has one: without control and direction characters, and cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// Result of the delivery.
    pub outcome: Outcome,
    /// Result of the alert, if the event has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<AlertOutcome>,
    /// Why the event was not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why the alert was not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_error: Option<String>,
    /// The body in base64, of an undelivered event alone: from it the delivery can be repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

impl DeliveryRecord {
    /// Records a delivery and the result of publishing it.
    pub fn of(delivery: &Delivery<'_>, event_id: EventId, publication: Publication) -> Self {
        let Registration { site, event: registered } = delivery.registration();
        let Publication { outcome, alert, error, alert_error } = publication;
        let event = delivery.event_type();
        Self {
            site: site.clone(),
            event: event.to_owned(),
            registered_event: (event != registered.as_str()).then(|| registered.clone()),
            event_id,
            payload_event: delivery.contradicting_event_type(),
            resource_id: delivery.plain_resource_luid().map(str::to_owned),
            resource_name: delivery.resource_name().and_then(short_name),
            outcome,
            alert,
            error,
            alert_error,
            body_base64: (outcome == Outcome::Undelivered).then(|| BASE64_STANDARD.encode(delivery.body())),
        }
    }

    /// Returns the registration of the delivery, `None` if the record was changed since.
    pub fn registration(&self) -> Option<Registration> {
        let event = self.registered_event.clone().or_else(|| self.event.parse().ok())?;
        Some(Registration { site: self.site.clone(), event })
    }

    /// Returns the body as it came, `None` if the record has none.
    pub fn body(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(self.body_base64.as_ref()?).ok()
    }

    /// Returns the sentence of the line, if it says more than the fields.
    pub fn message(&self) -> Option<&'static str> {
        match self.outcome {
            Outcome::Published | Outcome::Duplicate => None,
            Outcome::TooLarge => Some("SNS accepts no message as large as this event. It is not published."),
            Outcome::Undelivered => Some(
                "SNS did not accept the event. Tableau was asked to send it again. If it stays unpublished, run: \
                 cargo infra replay 24",
            ),
        }
    }
}

/// Returns a name's beginning as one plain text, `None` if nothing of it can be shown.
pub(crate) fn short_name(name: &str) -> Option<String> {
    let name = attribute_value(name)?;
    let is_shown = |character: &char| !changes_direction(*character) && !matches!(character, '\u{2028}' | '\u{2029}');
    let name: String = name.chars().filter(is_shown).take(NAME_CHARACTERS).collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(body: &[u8], outcome: Outcome) -> DeliveryRecord {
        let verified = registration().verified_in_tests();
        let delivery = Delivery::read(&verified, body);
        let publication = Publication { outcome, alert: None, error: None, alert_error: None };
        DeliveryRecord::of(&delivery, delivery.id("request"), publication)
    }

    fn registration() -> Registration {
        Registration { site: "marketing".parse().expect("a site"), event: "WorkbookCreated".parse().expect("an event") }
    }

    #[test]
    fn an_undelivered_event_is_recorded_whole_and_read_again() {
        for body in [&b""[..], b"{\"resource_luid\":\"99\"}\n", b"\xff\x00", "\u{2028}".as_bytes()] {
            let record = record(body, Outcome::Undelivered);
            let line = serde_json::to_string(&record).expect("a record is JSON");
            let read: DeliveryRecord = serde_json::from_str(&line).expect("a record");
            assert_eq!((read.body().as_deref(), read.registration()), (Some(body), Some(registration())), "{line}");
            assert_eq!(read, record);
        }
    }

    #[test]
    fn a_published_event_is_recorded_without_its_body() {
        let body = br#"{"event_type":"SiteDeleted","resource_luid":"99","resource_name":"Plans","site_luid":"7"}"#;
        let record = record(body, Outcome::Published);
        let expected = json!({
            "site": "marketing",
            "event": "WorkbookCreated",
            "event_id": record.event_id.to_string(),
            "payload_event": "SiteDeleted",
            "resource_id": "99",
            "resource_name": "Plans",
            "outcome": "published",
        });
        assert_eq!(serde_json::to_value(&record).ok(), Some(expected));
    }

    #[test]
    fn no_payload_makes_a_line_long_or_odd() {
        let endless = "\u{2028}".repeat(10_000);
        let body = json!({ "event_type": endless, "resource_luid": endless, "resource_name": endless }).to_string();
        let record = record(body.as_bytes(), Outcome::Duplicate);
        let line = serde_json::to_string(&record).expect("a record is JSON");
        assert!(line.len() < 512 && line.is_ascii() && record.resource_id.is_none(), "{line}");
    }

    #[test]
    fn a_name_is_cut_and_has_no_characters_that_change_the_text_around_it() {
        let longest = "ü".repeat(NAME_CHARACTERS);
        for (name, expected) in [
            ("Umsätze 2026", Some("Umsätze 2026")),
            ("a\u{1b}[31m\n\"b\"\\\u{202e}c", Some("a[31mbc")),
            ("\u{202e}", None),
            (&format!("{longest}x"), Some(&longest)),
        ] {
            assert_eq!(short_name(name).as_deref(), expected, "{name:?}");
        }
    }

    #[test]
    fn a_record_with_an_invalid_name_is_no_record() {
        let line = serde_json::to_string(&record(b"{}", Outcome::Undelivered)).expect("a record is JSON");
        for (good, bad) in [("marketing", "../x"), ("WorkbookCreated", "a b"), ("undelivered", "lost")] {
            let read = serde_json::from_str::<DeliveryRecord>(&line.replace(good, bad));
            assert!(read.ok().and_then(|record| record.registration()).is_none(), "{bad}");
        }
    }
}
