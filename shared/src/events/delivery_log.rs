//! What the log says of a delivery: people search it, and what was not published is published again from it.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    events::{catalogue::Event, delivery::Delivery, id::EventId},
    registration::{claim::Registration, site_name::SiteName},
};

/// What became of an authentic delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// SNS accepted all that was not published before.
    Published,
    /// All of it was published before.
    Duplicate,
    /// SNS would not take it, now or later.
    TooLarge,
    /// SNS did not accept all of it. Tableau's retry may have more luck.
    Undelivered,
}

/// A delivery and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRecord {
    /// What became of it.
    pub outcome: Outcome,
    /// Our name for the site.
    pub site: SiteName,
    /// What happened.
    pub event: EventRecord,
    /// What it happened to, if the payload names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceRecord>,
    /// Why it was not published, by topic: `events`, `alerts`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, String>,
    /// The body as it came, in base64, of what was [`Outcome::Undelivered`]: with it the delivery can be made again.
    /// What was published is on the topic and not repeated here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// The event of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// What the delivery's address was signed for.
    pub registered: Event,
    /// What it is published as: the same, `Test` or `Unrecognized`.
    pub r#type: String,
    /// Its identifier.
    pub id: EventId,
    /// What the payload calls it, if that is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_type: Option<String>,
}

/// What an event happened to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRecord {
    /// Tableau's identifier for it.
    pub luid: String,
}

impl DeliveryRecord {
    /// Says what became of a delivery, with the errors of the topics that did not accept it.
    pub fn of(delivery: &Delivery<'_>, id: EventId, outcome: Outcome, errors: BTreeMap<String, String>) -> Self {
        let Registration { site, event } = delivery.registration();
        Self {
            outcome,
            site: site.clone(),
            event: EventRecord {
                registered: event.clone(),
                r#type: delivery.event_type().to_owned(),
                id,
                payload_type: delivery.contradicting_event_type(),
            },
            resource: delivery.plain_resource_luid().map(|luid| ResourceRecord { luid: luid.to_owned() }),
            errors,
            body_base64: (outcome == Outcome::Undelivered).then(|| BASE64_STANDARD.encode(delivery.body())),
        }
    }

    /// The body as it came, `None` if the record has none.
    pub fn body(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(self.body_base64.as_ref()?).ok()
    }
}

/// One sentence, for people who read the log.
impl fmt::Display for DeliveryRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outcome, site, event: EventRecord { r#type, .. }, .. } = self;
        match outcome {
            Outcome::Published => write!(formatter, "published: {type} of {site}"),
            Outcome::Duplicate => write!(formatter, "published before: {type} of {site}"),
            Outcome::TooLarge => write!(formatter, "refused: {type} of {site} is larger than SNS takes"),
            Outcome::Undelivered => {
                write!(formatter, "undelivered: SNS did not accept {type} of {site} (cargo infra replay publishes it)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(body: &[u8], outcome: Outcome) -> DeliveryRecord {
        let registration = Registration {
            site: "marketing".parse().expect("a site"),
            event: "WorkbookCreated".parse().expect("an event"),
        };
        let verified = registration.verified_in_tests();
        let delivery = Delivery::read(&verified, body);
        DeliveryRecord::of(&delivery, delivery.id("request"), outcome, BTreeMap::new())
    }

    #[test]
    fn what_was_undelivered_is_recorded_whole_and_read_again() {
        for body in [&b""[..], b"{\"resource_luid\":\"99\"}\n", b"\xff\x00", "\u{2028}".as_bytes()] {
            let record = record(body, Outcome::Undelivered);
            let line = serde_json::to_string(&record).expect("a record is JSON");
            let read: DeliveryRecord = serde_json::from_str(&line).expect("a record");
            assert_eq!((read.body().as_deref(), &read), (Some(body), &record), "{line}");
        }
    }

    #[test]
    fn what_was_published_is_told_without_its_body() {
        let body = br#"{"event_type":"SiteDeleted","resource_luid":"99","resource_name":"Secret plans"}"#;
        let record = record(body, Outcome::Published);
        let expected = json!({
            "outcome": "published",
            "site": "marketing",
            "event": {
                "registered": "WorkbookCreated",
                "type": "WorkbookCreated",
                "id": record.event.id.to_string(),
                "payload_type": "SiteDeleted",
            },
            "resource": { "luid": "99" },
        });
        assert_eq!(serde_json::to_value(&record).ok(), Some(expected));
        assert_eq!(record.to_string(), "published: WorkbookCreated of marketing");
    }

    #[test]
    fn what_a_payload_says_cannot_make_a_line_long_or_odd() {
        let endless = "\u{2028}".repeat(10_000);
        let body = json!({ "event_type": endless, "resource_luid": endless, "resource_name": endless }).to_string();
        let record = record(body.as_bytes(), Outcome::Duplicate);
        let line = serde_json::to_string(&record).expect("a record is JSON");
        assert!(line.len() < 1024 && line.is_ascii() && record.resource.is_none(), "{line}");
    }

    #[test]
    fn a_record_with_a_name_that_is_none_is_none() {
        let line = serde_json::to_string(&record(b"{}", Outcome::Undelivered)).expect("a record is JSON");
        for (good, bad) in [("marketing", "../x"), ("WorkbookCreated", "a b"), ("undelivered", "lost")] {
            assert!(serde_json::from_str::<DeliveryRecord>(&line.replace(good, bad)).is_err(), "{bad}");
        }
    }
}
