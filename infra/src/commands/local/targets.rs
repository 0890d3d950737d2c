//! Targets outside of AWS, which a service on this machine plays.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, json};
use shared::targets::entry::Preset;
use tokio::time::timeout;

use super::{servers::Servers, sink::Sink};
use crate::{
    commands::add_target::store,
    stack::Stack,
    steps::{show, step},
    target_entries::NewTarget,
    target_messages::{Messages, On},
};

/// Name of the target that gets failures, as Slack would.
const CHAT: &str = "chat";

/// The targets: name, preset, messages.
const TARGETS: [(&str, Preset, On); 2] =
    [(CHAT, Preset::Slack, On::Failures), ("archive", Preset::Plain, On::Everything)];

/// Messages of the failure that the chat gets: the failure, its reason, and its end.
const MESSAGES: usize = 3;

/// How long a message may take to a target.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Adds the targets, as `cargo infra add-target` does.
pub(super) async fn add(servers: &Servers<'_>, stack: &Stack, sink: &Sink) -> anyhow::Result<()> {
    for (name, preset, on) in &TARGETS {
        let address = format!("{}/{name}", sink.address);
        let messages = Messages::new(on, *preset, &[], &[])?;
        let mut members =
            Map::from_iter([("preset".to_owned(), json!(preset.as_str())), ("address".to_owned(), json!(address))]);
        if !messages.selection.is_empty() {
            members.insert("selection".to_owned(), messages.selection.clone().into());
        }
        let new = NewTarget::new(&name.parse()?, members, None)?;
        store(&servers.cloud.aws, stack, &new, Some(&messages), false).await?;
    }
    Ok(())
}

/// Shows the messages of the failure that the chat got.
pub(super) async fn show_failure(sink: &mut Sink) -> anyhow::Result<()> {
    step("The forwarder sends the failure, its reason and its end to Slack, which this command plays", async {
        for _ in 0..MESSAGES {
            let arrival = timeout(ARRIVAL_TIMEOUT, arrival(sink)).await;
            show(&arrival.context("the forwarder sent no message in time")??);
        }
        Ok(())
    })
    .await
}

/// Waits for a message of the chat.
async fn arrival(sink: &mut Sink) -> anyhow::Result<String> {
    loop {
        let arrival = sink.arrival().await?;
        if arrival.target == CHAT {
            return Ok(arrival.text);
        }
    }
}
