//! A signed address, and the recorded Function URL event signed for one.

use std::fs;

use anyhow::Context;
use shared::{
    keyring::Keyring,
    registration::{ReceiverUrl, Registration, RegistrationUrl},
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
    let registration = Registration { site: SITE.parse()?, event: EVENT.parse()? };
    let receiver = ReceiverUrl::parse(receiver).with_context(|| format!("{receiver} is no address"))?;
    Ok(registration.signed_url(&receiver, keyring))
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
