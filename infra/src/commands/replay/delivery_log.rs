//! Unpublished deliveries in the receiver's log.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::Value;
use shared::{
    events::{
        delivery::Delivery,
        delivery_log::{DeliveryRecord, Outcome},
        id::EventId,
        unverified::UnverifiedRecord,
    },
    registration::{
        claim::{Registration, Verified},
        keyring::Keyring,
    },
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::log;

/// Deliveries of the receiver's log.
#[derive(Debug, Default)]
pub(super) struct DeliveryLog {
    /// Authentic deliveries that were not published, once each, with the time of the first attempt.
    pub(super) unpublished: BTreeMap<EventId, Unpublished>,
    /// Every attempt that was not verified.
    pub(super) unverified: Vec<(OffsetDateTime, UnverifiedRecord)>,
    /// Deliveries that were published.
    pub(super) published: BTreeSet<EventId>,
    /// Number of records of undelivered or unverified events that cannot be parsed.
    pub(super) unreadable: usize,
}

/// An authentic delivery that was not published.
#[derive(Debug)]
pub(super) struct Unpublished {
    pub(super) at: OffsetDateTime,
    pub(super) registration: Registration,
    /// Type of the event to publish.
    pub(super) event_type: String,
    pub(super) id: EventId,
    resource_id: Option<String>,
    pub(super) body: Vec<u8>,
}

impl fmt::Display for Unpublished {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, registration: Registration { site, .. }, event_type, id, resource_id, body: _ } = self;
        let time = at.format(&Rfc3339).unwrap_or_default();
        let luid = resource_id.as_ref().map(|luid| format!(" {luid}")).unwrap_or_default();
        write!(formatter, "{time} {site} {event_type}{luid} (id {id})")
    }
}

impl Unpublished {
    fn undelivered(at: OffsetDateTime, record: DeliveryRecord) -> Option<Self> {
        let (registration, body) = (record.registration()?, record.body()?);
        let DeliveryRecord { event: event_type, event_id: id, resource_id, .. } = record;
        Some(Self { at, registration, event_type, id, resource_id, body })
    }

    fn verified(at: OffsetDateTime, verified: &Verified, body: Vec<u8>) -> Self {
        let delivery = Delivery::read(verified, &body);
        // Only the identifier of a test depends on the request, and tests are left out.
        let (event_type, id) = (delivery.event_type().to_owned(), delivery.id(""));
        let resource_id = delivery.plain_resource_luid().map(str::to_owned);
        Self { at, registration: verified.registration().clone(), event_type, id, resource_id, body }
    }
}

impl DeliveryLog {
    /// Parses lines, as pairs of time and text. Skips lines that are no delivery records.
    pub(super) fn read(&mut self, lines: &Value) {
        for (at, line) in log::in_json(lines) {
            let outcome = line["outcome"].clone();
            if outcome == UnverifiedRecord::OUTCOME {
                match serde_json::from_value::<UnverifiedRecord>(line) {
                    Ok(record) if record.body().is_some() => self.unverified.push((at, record)),
                    Ok(_) | Err(_) => self.unreadable += 1,
                }
                continue;
            }
            match serde_json::from_value::<DeliveryRecord>(line) {
                Ok(record) => match record.outcome {
                    Outcome::Published | Outcome::Duplicate => {
                        self.published.insert(record.event_id);
                    }
                    Outcome::Undelivered => match Unpublished::undelivered(at, record) {
                        Some(delivery) => self.keep_first(delivery),
                        None => self.unreadable += 1,
                    },
                    Outcome::TooLarge => {}
                },
                Err(_) if outcome == "undelivered" => self.unreadable += 1,
                Err(_) => {}
            }
        }
    }

    /// Verifies the unverified attempts and adds the authentic ones to the unpublished deliveries. Returns the number of
    /// authentic deliveries, each counted once, and of requests that are not authentic.
    pub(super) fn verify(&mut self, keyring: &Keyring) -> (usize, usize) {
        let (mut authentic, mut rejected) = (BTreeSet::new(), 0);
        for (at, record) in std::mem::take(&mut self.unverified) {
            match (record.verify(keyring), record.body()) {
                (Some(verified), Some(body)) => {
                    let delivery = Unpublished::verified(at, &verified, body);
                    authentic.insert(delivery.id);
                    self.keep_first(delivery);
                }
                _ => rejected += 1,
            }
        }
        (authentic.len(), rejected)
    }

    /// Adds an unpublished delivery, unless an earlier attempt of it is there.
    fn keep_first(&mut self, delivery: Unpublished) {
        match self.unpublished.get(&delivery.id) {
            Some(known) if known.at <= delivery.at => {}
            Some(_) | None => {
                self.unpublished.insert(delivery.id, delivery);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use serde_json::json;
    use shared::{
        events::delivery_log::Publication,
        registration::{claim::Claim, keyring::KEY_BYTES, signed_url::ReceiverUrl},
    };

    use super::*;

    fn claim(event: &str, key: u8) -> anyhow::Result<Claim> {
        let root = "https://receiver.example";
        let registration = Registration { site: "marketing".parse()?, event: event.parse()? };
        let receiver = ReceiverUrl::parse(root).context("a URL")?;
        let url = registration.signed_url(&receiver, &Keyring::of([key; KEY_BYTES]));
        url.expose().strip_prefix(root).and_then(Claim::parse).context("a claim")
    }

    /// Formats records as lines of the AWS CLI, a second apart.
    fn lines(records: &[Value]) -> Value {
        records.iter().zip(0..).map(|(record, second)| json!([second * 1000, record.to_string()])).collect()
    }

    #[test]
    fn each_authentic_delivery_is_found_once_whatever_its_records() -> anyhow::Result<()> {
        let keyring = Keyring::of([7; KEY_BYTES]);
        let created = claim("WorkbookCreated", 7)?;
        let unverified =
            |claim: &Claim, body: &[u8]| anyhow::Ok(json!(UnverifiedRecord::of(claim, body).context("too large")?));
        let undelivered = |claim: &Claim, body: &[u8]| {
            let verified = claim.verify(&keyring).context("a signature")?;
            let delivery = Delivery::read(&verified, body);
            let outcome = Outcome::Undelivered;
            let publication = Publication { outcome, alert: None, error: None, alert_error: None };
            Ok(json!(DeliveryRecord::of(&delivery, delivery.id(""), publication)))
        };
        let records: anyhow::Result<Vec<Value>> = [
            unverified(&created, b"{\"n\":1}"),
            unverified(&created, b"{\"n\":1}"),
            undelivered(&created, b"{\"n\":1}"),
            undelivered(&created, b"{\"n\":2}"),
            unverified(&created, b"{\"n\":2}"),
            unverified(&created, b"{\"n\":3}"),
            unverified(&claim("WorkbookCreated", 8)?, b"{\"n\":4}"),
            Ok(json!({ "outcome": "unverified", "site": "../x" })),
        ]
        .into_iter()
        .collect();
        let mut log = DeliveryLog::default();
        log.read(&lines(&records?));
        assert_eq!((log.verify(&keyring), log.unreadable), ((3, 1), 1));
        let found: Vec<_> =
            log.unpublished.values().map(|it| (it.at.unix_timestamp(), String::from_utf8_lossy(&it.body))).collect();
        let found: BTreeSet<_> = found.iter().map(|(at, body)| (*at, &**body)).collect();
        assert_eq!(found, [(0, "{\"n\":1}"), (3, "{\"n\":2}"), (5, "{\"n\":3}")].into());
        Ok(())
    }
}
