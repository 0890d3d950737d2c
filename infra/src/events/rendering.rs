//! The messages that a delivery becomes, by the receiver's own rules.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use shared::{
    alerts::{
        message::AlertMessage,
        selection::{AlertEvents, DeliveryAlerts},
    },
    events::{cloud_event::EventMessage, delivery::Delivery, id::EventId},
    registration::{
        claim::{Registration, Verified},
        keyring::{KEY_BYTES, Keyring},
    },
};

use crate::{sample, stack::Stack};

/// The messages that a delivery becomes.
#[derive(Clone, Debug, Serialize)]
pub struct Rendering {
    /// The event: a CloudEvent.
    pub envelope: Box<RawValue>,
    /// The attributes to filter by.
    pub attributes: BTreeMap<&'static str, String>,
    /// The alert, if the event has one.
    pub alert: Option<AlertTexts>,
}

/// The texts of an alert.
#[derive(Clone, Debug, Serialize)]
pub struct AlertTexts {
    /// Subject of the e-mail.
    pub subject: String,
    /// The e-mail.
    pub email: String,
    /// The text message.
    pub sms: String,
    /// The card of Amazon Q Developer: title, description, next steps, keywords.
    pub card: Value,
}

impl AlertTexts {
    /// Reads the texts of a message for the alerts topic.
    ///
    /// # Errors
    ///
    /// It does not have the texts of all protocols.
    pub fn of(AlertMessage { subject, body }: &AlertMessage) -> anyhow::Result<Self> {
        let texts: Value = serde_json::from_str(body)?;
        let text = |protocol: &str| texts[protocol].as_str().with_context(|| format!("an alert without {protocol}"));
        let mut card: Value = serde_json::from_str(text("https")?)?;
        Ok(Self {
            subject: subject.clone(),
            email: text("email")?.to_owned(),
            sms: text("sms")?.to_owned(),
            card: card["content"].take(),
        })
    }
}

impl Rendering {
    /// Renders a delivery as the receiver does. `id` is the identifier in its log.
    ///
    /// # Errors
    ///
    /// SNS would not accept the event.
    pub fn of(registration: &Registration, body: &[u8], id: EventId, alerts: &DeliveryAlerts) -> anyhow::Result<Self> {
        let verified = assumed(registration)?;
        let delivery = Delivery::read(&verified, body);
        let alert = AlertMessage::of_delivery(&delivery, id, alerts);
        let EventMessage { body, attributes, .. } = delivery.message(id)?;
        let alert = alert.as_ref().map(AlertTexts::of).transpose()?;
        Ok(Self { envelope: RawValue::from_string(body)?, attributes, alert })
    }
}

/// Takes a registration for verified. It is for showing a delivery: nothing is published.
pub(super) fn assumed(registration: &Registration) -> anyhow::Result<Verified> {
    sample::verified(registration, &Keyring::of([0; KEY_BYTES]))
}

/// Returns which deliveries have an alert, by the parameters of the stack.
pub fn delivery_alerts(stack: &Stack) -> DeliveryAlerts {
    let events = stack.setting("AlertEvents").and_then(|events| AlertEvents::parse(events).ok());
    let hours = stack.setting("RecoverHours").and_then(|hours| hours.parse::<u32>().ok());
    DeliveryAlerts { events: events.unwrap_or_default(), reason_follows: hours.is_some_and(|hours| hours > 0) }
}
