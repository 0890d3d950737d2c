//! A sample for a target that is not stored yet, sent by the forwarder's own code.

use std::time::Duration;

use anyhow::{Context, bail};
use delivery::{
    addresses::AllowedAddresses,
    render::render,
    sender::{HttpSender, Sender},
};
use serde_json::{Value, json};
use shared::{
    refreshes::{explanation::EXPLAINED, resolution::RESOLVED},
    targets::{
        answer::{Attempt, Judgement, TargetAnswer},
        entry::{Preset, TargetEntry},
        message::TargetMessage,
    },
    timestamp::Timestamp,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    steps::show,
    target_messages::Topic,
    terminal::{bad, good, warning},
};

/// How long to wait for an answer, as the forwarder does.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Name of the sample's site.
const SITE: &str = "sample";

/// Name of the sample's workbook.
const WORKBOOK: &str = "Sample of Tableau Fanout";

/// The sentence that says what the sample is.
const TEXT: &str = "This is a sample, which cargo infra add-target sends. No refresh has failed.";

/// A sample for a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample<'a> {
    pub(super) entry: &'a TargetEntry,
    /// The topic whose messages the target gets.
    pub(super) topic: Topic,
    /// Whether the stack is in a local cloud, which may use addresses of this machine.
    pub(super) is_local: bool,
}

impl Sample<'_> {
    /// Sends it, and shows the answer. With `force`, an answer that is no success is only shown.
    ///
    /// # Errors
    ///
    /// The message cannot be rendered, or the target does not accept it.
    pub(super) async fn send(self, force: bool) -> anyhow::Result<()> {
        let Self { entry, is_local, .. } = self;
        let addresses = if is_local { AllowedAddresses::PublicAndLoopback } else { AllowedAddresses::Public };
        let sender = HttpSender::new(addresses, TIMEOUT).context("no HTTPS client")?;
        for (message, accepted) in self.messages(OffsetDateTime::now_utc())?.into_iter().zip(0..) {
            let now = OffsetDateTime::now_utc();
            let rendered = render(entry, &message, message.id(), now)
                .context("the sample cannot be rendered. Nothing was stored. Fix: correct the values in the details")?;
            let answer = sender.send(entry, rendered).await;
            let attempt = Attempt { tries: 1, sent_at: now, now, jitter: 0.0 };
            let is_accepted = attempt.judge(&answer, entry.redirect_is_success) == Judgement::Delivered;
            let described = describe(&answer);
            if is_accepted {
                show(&good(described));
                continue;
            }
            show(&bad(&described));
            if force {
                show(&warning(format!("continues because of --force.{}", open(accepted))));
                return Ok(());
            }
            bail!(
                "the target did not accept the sample: {described}.{} Nothing was stored. Fix: {}, and run this command again; \
                 or add --force to store it all the same",
                open(accepted),
                fix(&answer)
            );
        }
        match entry.preset {
            Preset::Teams => show(&warning(
                "Teams answers before it posts anything, so the answer proves nothing: look for the sample in the channel",
            )),
            Preset::PagerDuty => show("PagerDuty has an incident of the sample, which a second message resolved"),
            _ => {}
        }
        Ok(())
    }

    /// Returns the messages of the sample. PagerDuty gets its end too, so that no incident stays open.
    fn messages(self, now: OffsetDateTime) -> anyhow::Result<Vec<TargetMessage>> {
        let thread = Uuid::new_v4().simple().to_string();
        let has_end = self.entry.preset == Preset::PagerDuty;
        let messages = [false, true].into_iter().filter(|is_end| has_end || !is_end).map(|is_end| {
            let message = match self.topic {
                Topic::Alerts => alert(&thread, is_end),
                Topic::Events => event(&thread, is_end, now),
            };
            TargetMessage::parse(&message.to_string()).context("the sample is no message")
        });
        messages.collect()
    }
}

fn alert(thread: &str, is_end: bool) -> Value {
    json!({
        "kind": "test",
        "severity": "info",
        "title": "a sample of Tableau Fanout",
        "text": TEXT,
        "next_steps": ["No action is needed."],
        "links": [],
        "sites": [],
        "thread": format!("{SITE}/{thread}"),
        "resolved": is_end,
        "event_id": Uuid::new_v4().simple().to_string(),
    })
}

fn event(thread: &str, is_end: bool, now: OffsetDateTime) -> Value {
    let event_type = if is_end { RESOLVED } else { EXPLAINED };
    let now = Timestamp(now.truncate_to_second());
    let mut data = json!({
        "event_type": event_type,
        "job_id": "sample",
        "resource_type": "workbook",
        "resource_luid": thread,
        "resource_name": WORKBOOK,
        "project": { "id": "sample", "name": "Sample" },
        "owner": { "id": "sample", "name": "Sample" },
        "tags": [],
    });
    let details = if is_end {
        json!({ "failed_job_id": "sample", "failing_since": now, "failures": 1, "resolved_at": now, "duration_seconds": 0 })
    } else {
        json!({ "started_at": now, "ended_at": now, "duration_seconds": 0, "notes": TEXT, "failures_in_a_row": 1 })
    };
    if let (Some(data), Value::Object(details)) = (data.as_object_mut(), details) {
        data.extend(details);
    }
    json!({
        "specversion": "1.0",
        "id": Uuid::new_v4().simple().to_string(),
        "source": format!("/tableau/{SITE}"),
        "type": format!("com.tableau.{event_type}"),
        "subject": thread,
        "time": now,
        "datacontenttype": "application/json",
        "data": data,
    })
}

/// Names the incident that PagerDuty opened by the first message of a sample, if the second one was not accepted.
fn open(accepted: usize) -> String {
    if accepted == 0 {
        String::new()
    } else {
        format!(" The incident of {WORKBOOK:?} stays open in PagerDuty, until somebody resolves it there.")
    }
}

/// Describes an answer without the address.
fn describe(answer: &TargetAnswer) -> String {
    match answer {
        TargetAnswer::Status { code, .. } => format!("the target answered {code}"),
        TargetAnswer::NoAnswer(reason) => format!("the target did not answer ({reason})"),
    }
}

/// Returns the fix for an answer.
fn fix(answer: &TargetAnswer) -> &'static str {
    match answer {
        TargetAnswer::Status { code: 401 | 403, .. } => "correct the credentials or the address",
        TargetAnswer::Status { code: 404 | 405 | 410, .. } => {
            "correct the address, or create a new webhook in the service"
        }
        TargetAnswer::Status { code: 300..=399, .. } => {
            "correct the address, or give the member redirect_is_success in the JSON for a service such as Apps Script"
        }
        TargetAnswer::Status { code: 400 | 413 | 422, .. } => "correct the preset, the template or the key",
        TargetAnswer::Status { code: 408 | 425 | 429 | 500.., .. } => "wait until the service works",
        TargetAnswer::Status { .. } => "correct the target",
        TargetAnswer::NoAnswer(_) => "correct the address, or add --no-sample if only AWS reaches it",
    }
}
