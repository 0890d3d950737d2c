//! Everything that is known of one event.

use serde::Serialize;
use serde_json::Value;
use shared::{
    refreshes::{explanation::EXPLAINED, resolution::RESOLVED},
    timestamp::Timestamp,
};

use crate::events::{record::Record, rendering::Rendering};

/// The end of the names of events about a failed refresh.
const REFRESH_FAILED: &str = "RefreshFailed";

/// Everything that is known of one event.
#[derive(Clone, Debug, Serialize)]
pub struct Story {
    /// The event.
    pub record: Record,
    /// The failed refresh that it explains or resolves.
    pub failure: Option<Record>,
    /// The explanation of the failed refresh.
    pub explanation: Option<Record>,
    /// The end of the failures.
    pub resolution: Option<Record>,
    /// The messages of an event that is not published.
    pub undelivered: Option<Rendering>,
    /// Its messages for targets.
    pub targets: Vec<TargetDelivery>,
    /// The command that publishes it.
    pub replay: Option<String>,
    /// Remarks for a reader.
    pub notes: Vec<String>,
}

/// The newest attempt to send a message about an event to a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetDelivery {
    /// Name of the target.
    pub target: String,
    /// When it was tried.
    pub at: Timestamp,
    /// The result, as the forwarder's log names it.
    pub outcome: String,
    /// How often it was tried.
    pub attempts: Option<u64>,
    /// The HTTP status of the answer.
    pub status: Option<u64>,
    /// Seconds since the message was published.
    pub age_s: Option<u64>,
    /// Why it was not sent.
    pub error: Option<String>,
    /// Identifier of the message: an event and its alert are two.
    #[serde(skip)]
    pub(super) message_id: String,
    /// Identifier of the event.
    #[serde(skip)]
    pub(super) event_id: String,
}

/// Other events about the same failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Related {
    pub(super) failure: Option<Record>,
    pub(super) explanation: Option<Record>,
    pub(super) resolution: Option<Record>,
}

impl TargetDelivery {
    /// Reads a line of the forwarder; `None` if it is about no event.
    pub(super) fn of_forwarder(at: Timestamp, line: &Value) -> Option<Self> {
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        Some(Self {
            target: text("target")?,
            at,
            outcome: text("outcome")?,
            attempts: line["attempts"].as_u64(),
            status: line["status"].as_u64(),
            age_s: line["age_s"].as_u64(),
            error: text("error"),
            message_id: text("message_id").unwrap_or_default(),
            event_id: text("event_id")?,
        })
    }
}

impl Related {
    /// Finds the failure, the explanation and the resolution that belong to an event. `records` has the newest first.
    ///
    /// An explanation belongs to the last failed refresh of the resource before it, and a resolution to the explanations
    /// since the last resolution.
    pub(super) fn of(record: &Record, records: &[Record]) -> Self {
        let same: Vec<_> = records.iter().filter(|other| record.has_resource_of(other)).collect();
        let Some(place) = same.iter().position(|other| other.event_id == record.event_id) else {
            return Self::default();
        };
        let (later, earlier) = (&same[..place], &same[place + 1..]);
        let next = |is: fn(&Record) -> bool, until: fn(&Record) -> bool| {
            let within = later.iter().rev().take_while(|other| !until(other));
            within.into_iter().find(|other| is(other)).map(|found| (*found).clone())
        };
        let last = |is: fn(&Record) -> bool, until: fn(&Record) -> bool| {
            let within = earlier.iter().take_while(|other| !until(other));
            within.into_iter().find(|other| is(other)).map(|found| (*found).clone())
        };
        match record {
            failed if is_failed(failed) => Self {
                failure: None,
                explanation: next(is_explanation, is_failed),
                resolution: next(is_resolution, |_| false),
            },
            explained if is_explanation(explained) => Self {
                failure: last(is_failed, |_| false),
                explanation: None,
                resolution: next(is_resolution, |_| false),
            },
            resolved if is_resolution(resolved) => Self {
                failure: last(is_failed, is_resolution),
                explanation: last(is_explanation, is_resolution),
                resolution: None,
            },
            _ => Self::default(),
        }
    }
}

fn is_failed(record: &Record) -> bool {
    record.event.ends_with(REFRESH_FAILED)
}

fn is_explanation(record: &Record) -> bool {
    record.event == EXPLAINED
}

fn is_resolution(record: &Record) -> bool {
    record.event == RESOLVED
}
