//! Everything that is known of one event.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use shared::{
    refreshes::{explanation::EXPLAINED, health::is_failure, resolution::RESOLVED},
    timestamp::Timestamp,
};
use time::OffsetDateTime;

use crate::events::{record::Record, rendering::Rendering};

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
    /// A resolution belongs to the failures and explanations since the last resolution.
    pub(super) fn of(record: &Record, records: &[Record]) -> Self {
        let same: Vec<_> = records.iter().filter(|other| record.has_resource_of(other)).collect();
        let Some(place) = same.iter().position(|other| other.event_id == record.event_id) else {
            return Self::default();
        };
        let pairs = explained(&same);
        let explanation_of = |failure: &Record| {
            pairs
                .iter()
                .find(|(explained, _)| explained.event_id == failure.event_id)
                .map(|(_, explanation)| *explanation)
        };
        let failure_of = |explanation: &Record| {
            pairs.iter().find(|(_, other)| other.event_id == explanation.event_id).map(|(failure, _)| *failure)
        };
        let resolution = same[..place].iter().rev().copied().find(|later| is_resolution(later));
        let last = |is: fn(&Record) -> bool| {
            let mut within = same[place + 1..].iter().copied().take_while(|earlier| !is_resolution(earlier));
            within.find(|earlier| is(earlier))
        };
        let (failure, explanation, resolution) = if is_failed(record) {
            (None, explanation_of(record), resolution)
        } else if is_explanation(record) {
            (failure_of(record), None, resolution)
        } else if is_resolution(record) {
            let failure = last(is_failed);
            (failure, failure.map_or_else(|| last(is_explanation), explanation_of), None)
        } else {
            (None, None, None)
        };
        Self { failure: failure.cloned(), explanation: explanation.cloned(), resolution: resolution.cloned() }
    }
}

/// Pairs the failures of a resource with their explanations, each at most once: those with the nearest ends of their jobs
/// first. An explanation is not before its failure.
fn explained<'a>(records: &[&'a Record]) -> Vec<(&'a Record, &'a Record)> {
    let all = |is: fn(&Record) -> bool| records.iter().copied().filter(move |record| is(record));
    let pairs = all(is_explanation).flat_map(|explanation| {
        all(is_failed).filter(|failure| failure.at <= explanation.at).map(move |failure| (failure, explanation))
    });
    let mut candidates: Vec<_> = pairs.collect();
    candidates.sort_by_key(|(failure, explanation)| (job_end(failure) - job_end(explanation)).abs());
    let mut pairs = Vec::<(&Record, &Record)>::new();
    for (failure, explanation) in candidates {
        let is_used =
            |pair: &(&Record, &Record)| pair.0.event_id == failure.event_id || pair.1.event_id == explanation.event_id;
        if !pairs.iter().any(is_used) {
            pairs.push((failure, explanation));
        }
    }
    pairs
}

/// Returns when the job of an event ended. Tableau delivers an event at that time.
fn job_end(record: &Record) -> OffsetDateTime {
    record.at.0 - Duration::from_secs(record.delay_s.unwrap_or_default())
}

fn is_failed(record: &Record) -> bool {
    record.event.parse().is_ok_and(|event| is_failure(&event))
}

fn is_explanation(record: &Record) -> bool {
    record.event == EXPLAINED
}

fn is_resolution(record: &Record) -> bool {
    record.event == RESOLVED
}
