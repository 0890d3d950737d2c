//! Signed requests of a sample site: URLs, the recorded Function URL event, and the alert about a delivery.

use std::fs;

use anyhow::Context;
use shared::{
    alerts::{message::AlertMessage, selection::DeliveryAlerts},
    events::delivery::Delivery,
    registration::{
        claim::{Claim, Registration, Verified},
        keyring::Keyring,
        signed_url::{ReceiverUrl, RegistrationUrl},
    },
};

use crate::workspace::Workspace;

/// Name of the site of the recorded event, and of the local stack's only site.
pub const SITE: &str = "local";

/// Event of the recorded request.
pub const EVENT: &str = "WorkbookCreated";

/// The recorded request, with a placeholder for the signature.
const RECORDED: &str = "tests/events/receiver-workbook-created.json";

/// Signs the URL of [`EVENT`] of [`SITE`] at `receiver`.
///
/// # Errors
///
/// `receiver` is no URL.
pub fn signed_url(receiver: &str, keyring: &Keyring) -> anyhow::Result<RegistrationUrl> {
    let receiver = ReceiverUrl::parse(receiver).with_context(|| format!("{receiver} is no URL"))?;
    Ok(registration(EVENT)?.signed_url(&receiver, keyring))
}

/// Returns the registration of an event of [`SITE`].
///
/// # Errors
///
/// `event` is no event name.
pub fn registration(event: &str) -> anyhow::Result<Registration> {
    Ok(Registration { site: SITE.parse()?, event: event.parse()? })
}

/// Renders the alert that the receiver sends about a delivery of [`SITE`].
///
/// # Errors
///
/// The event causes no alert.
pub fn alert(event: &str, body: &str, keyring: &Keyring) -> anyhow::Result<AlertMessage> {
    let verified = verified(&registration(event)?, keyring)?;
    let delivery = Delivery::read(&verified, body.as_bytes());
    // As a stack with its default `RecoverHours`.
    let alerts = DeliveryAlerts { reason_follows: true, ..DeliveryAlerts::default() };
    let alert = AlertMessage::of_delivery(&delivery, delivery.id(""), &alerts);
    alert.with_context(|| format!("{event} causes no alert"))
}

/// Signs a registration, and verifies it.
///
/// # Errors
///
/// None is known.
pub fn verified(registration: &Registration, keyring: &Keyring) -> anyhow::Result<Verified> {
    let root = "https://receiver.example";
    let url = registration.signed_url(&ReceiverUrl::parse(root).context("a URL")?, keyring);
    let claim = url.expose().strip_prefix(root).and_then(Claim::parse).context("a claim")?;
    claim.verify(keyring).context("a signature of ours")
}

/// Signs the recorded request, as input of `cargo lambda invoke`.
///
/// # Errors
///
/// The recording is missing.
pub fn signed_event(workspace: &Workspace, keyring: &Keyring) -> anyhow::Result<String> {
    // The signature does not depend on the receiver.
    let url = signed_url("https://receiver.example/", keyring)?;
    let signature = url.expose().rsplit('/').next().context("a URL without a signature")?;
    let recorded = fs::read_to_string(workspace.file(RECORDED)).with_context(|| format!("cannot read {RECORDED}"))?;
    Ok(recorded.replace("<signature>", signature))
}
