//! A signed address, the recorded Function URL event signed for one, and what people are told of a delivery.

use std::fs;

use anyhow::Context;
use shared::{
    alerts::{message::AlertMessage, selection::AlertEvents},
    events::delivery::Delivery,
    registration::{
        claim::{Claim, Registration, Verified},
        keyring::Keyring,
        signed_url::{ReceiverUrl, RegistrationUrl},
    },
};

use crate::workspace::Workspace;

/// Our name for the site that the recorded event is from, and for its only one in a local stack.
pub const SITE: &str = "local";

/// What the recorded event is registered for.
pub const EVENT: &str = "WorkbookCreated";

/// The recorded event, with a place for the signature.
const RECORDED: &str = "tests/events/receiver-workbook-created.json";

/// The address at which `receiver` takes [`EVENT`] of [`SITE`].
///
/// # Errors
///
/// `receiver` is no address.
pub fn signed_url(receiver: &str, keyring: &Keyring) -> anyhow::Result<RegistrationUrl> {
    let receiver = ReceiverUrl::parse(receiver).with_context(|| format!("{receiver} is no address"))?;
    Ok(registration(EVENT)?.signed_url(&receiver, keyring))
}

fn registration(event: &str) -> anyhow::Result<Registration> {
    Ok(Registration { site: SITE.parse()?, event: event.parse()? })
}

/// What people are told of a delivery of [`SITE`]: the message that the receiver makes of it.
///
/// # Errors
///
/// It is no event that people are told of.
pub fn alert(event: &str, body: &str, keyring: &Keyring) -> anyhow::Result<AlertMessage> {
    let verified = verified(event, keyring)?;
    let delivery = Delivery::read(&verified, body.as_bytes());
    let alert = AlertMessage::of_delivery(&delivery, delivery.id(""), &AlertEvents::default());
    alert.with_context(|| format!("nobody is told of {event}"))
}

/// The right to deliver an event of [`SITE`], come by as anybody must: with a signature, verified.
///
/// # Errors
///
/// It is no event.
pub fn verified(event: &str, keyring: &Keyring) -> anyhow::Result<Verified> {
    let root = "https://receiver.example";
    let url = registration(event)?.signed_url(&ReceiverUrl::parse(root).context("an address")?, keyring);
    let claim = url.expose().strip_prefix(root).and_then(Claim::parse).context("a claim")?;
    claim.verify(keyring).context("a signature of ours")
}

/// The recorded Function URL event, signed, as `cargo lambda invoke` takes it.
///
/// # Errors
///
/// The recording is not there.
pub fn signed_event(workspace: &Workspace, keyring: &Keyring) -> anyhow::Result<String> {
    // The signature does not depend on the receiver.
    let url = signed_url("https://receiver.example/", keyring)?;
    let signature = url.expose().rsplit('/').next().context("an address without a signature")?;
    let recorded = fs::read_to_string(workspace.file(RECORDED)).with_context(|| format!("cannot read {RECORDED}"))?;
    Ok(recorded.replace("<signature>", signature))
}
