//! One line of a log: an attempt to publish an event.

use serde::Deserialize;
use serde_json::Value;
use shared::{
    events::{
        delivery::Delivery,
        delivery_log::{self, DeliveryRecord, Publication},
        unverified::UnverifiedRecord,
    },
    refreshes::event_log::JobEventRecord,
    registration::claim::Registration,
    timestamp::Timestamp,
};

use crate::events::{
    record::{Outcome, Record, Source},
    rendering::assumed,
};

/// An attempt to publish an event.
pub(super) struct Attempt {
    /// The event with this attempt alone.
    pub(super) record: Record,
    /// The delivery, if it is authentic and was not published.
    pub(super) undelivered: Option<Undelivered>,
}

/// An authentic delivery that was not published.
#[derive(Clone, Debug)]
pub(super) struct Undelivered {
    pub(super) registration: Registration,
    pub(super) body: Vec<u8>,
}

impl Attempt {
    /// Reads a line of the receiver; `None` if it is about no delivery.
    pub(super) fn of_receiver(at: Timestamp, line: Value) -> Option<Self> {
        if line["outcome"] == UnverifiedRecord::OUTCOME {
            let record = of_delivery(at, claimed(&line)?);
            return Some(Self { record: Record { outcome: Outcome::Unverified, ..record }, undelivered: None });
        }
        let latency_ms = line["PublishLatency"].as_u64();
        let delivery: DeliveryRecord = serde_json::from_value(line).ok()?;
        let undelivered = delivery.registration().zip(delivery.body());
        let undelivered = undelivered.map(|(registration, body)| Undelivered { registration, body });
        let record = of_delivery(at, delivery);
        let latency_ms = latency_ms.filter(|_| record.outcome.is_published());
        Some(Self { record: Record { latency_ms, ..record }, undelivered })
    }

    /// Reads a line of the reconciler; `None` if it is about no published event.
    pub(super) fn of_reconciler(at: Timestamp, line: Value) -> Option<Self> {
        let event: JobEventRecord = serde_json::from_value(line).ok()?;
        let JobEventRecord { site, event, event_id, resource_id, resource_name, recovered, job_id, delay_s, .. } =
            event;
        let record = Record {
            at,
            site: site.to_string(),
            event,
            event_id,
            resource_id,
            resource_name,
            outcome: if recovered { Outcome::Recovered } else { Outcome::Published },
            alert: None,
            error: None,
            latency_ms: None,
            delay_s: Some(delay_s),
            attempts: 1,
            source: Source::Job,
            job: job_id,
        };
        Some(Self { record, undelivered: None })
    }
}

fn of_delivery(at: Timestamp, delivery: DeliveryRecord) -> Record {
    let DeliveryRecord { site, event, event_id, resource_id, resource_name, outcome, .. } = delivery;
    Record {
        at,
        site: site.to_string(),
        event,
        event_id,
        resource_id,
        resource_name,
        outcome: outcome.into(),
        alert: delivery.alert,
        error: delivery.error.or(delivery.alert_error),
        latency_ms: None,
        delay_s: None,
        attempts: 1,
        source: Source::Webhook,
        job: None,
    }
}

/// Returns the record of the delivery that an unverified line claims to be. Its identifier joins it to the attempt that was
/// verified.
fn claimed(line: &Value) -> Option<DeliveryRecord> {
    let site = line["site"].as_str()?.parse().ok()?;
    let registration = Registration { site, event: line["event"].as_str()?.parse().ok()? };
    let body = UnverifiedRecord::deserialize(line).ok()?.body()?;
    let verified = assumed(&registration).ok()?;
    let delivery = Delivery::read(&verified, &body);
    let id = delivery.id(line["requestId"].as_str().unwrap_or_default());
    let publication =
        Publication { outcome: delivery_log::Outcome::Undelivered, alert: None, error: None, alert_error: None };
    Some(DeliveryRecord::of(&delivery, id, publication))
}
