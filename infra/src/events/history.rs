//! The events of a stack since a time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, hash_map::Entry},
};

use serde_json::Value;
use shared::{
    alerts::selection::DeliveryAlerts,
    events::{delivery::TEST, id::EventId},
    sites::commands::infra,
    timestamp::Timestamp,
};
use time::OffsetDateTime;

use crate::{
    aws::Aws,
    events::{
        attempt::{Attempt, Undelivered},
        filter::Filter,
        listing::{Listing, plot},
        record::{Outcome, Record},
        rendering::{Rendering, delivery_alerts},
        search::{Lines, Search},
        story::{Related, Story, TargetDelivery},
    },
    log,
    stack::Stack,
};

/// The hours of `cargo infra replay` at least.
const MIN_REPLAY_HOURS: u64 = 24;

/// The note about every event that SNS accepted.
const NO_TEXT: &str =
    "The text of a published event is stored nowhere. `cargo infra tail` shows events as they are published.";

/// The note about an event that was not verified.
const UNVERIFIED: &str = "The signing keys could not be read when it arrived. It may not be genuine: site, event and resource are those \
     that it claims. The replay verifies it first.";

/// The events of a stack since a time.
#[derive(Debug)]
pub struct History {
    stack: String,
    since: OffsetDateTime,
    /// Newest first.
    records: Vec<Record>,
    undelivered: HashMap<EventId, Undelivered>,
    /// Oldest first.
    forwarded: Vec<TargetDelivery>,
    alerts: DeliveryAlerts,
    notes: Vec<String>,
}

impl History {
    /// Reads the logs of a stack.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn read(aws: &Aws, stack: &Stack, search: Search) -> anyhow::Result<Self> {
        let lines = search.lines(aws).await?;
        let history = Self::of(stack.name(), search.since, &lines, delivery_alerts(stack));
        Ok(Self { notes: search.notes, ..history })
    }

    fn of(stack: &str, since: OffsetDateTime, lines: &Lines, alerts: DeliveryAlerts) -> Self {
        let mut attempts: Vec<_> =
            in_json(&lines.receiver).filter_map(|(at, line)| Attempt::of_receiver(at, line)).collect();
        attempts.extend(in_json(&lines.reconciler).filter_map(|(at, line)| Attempt::of_reconciler(at, line)));
        attempts.sort_by_key(|attempt| attempt.record.at);
        let (mut records, mut undelivered) = (HashMap::<EventId, Record>::new(), HashMap::new());
        for Attempt { record, undelivered: delivery } in attempts {
            undelivered.extend(delivery.map(|delivery| (record.event_id, delivery)));
            match records.entry(record.event_id) {
                Entry::Occupied(mut known) => known.get_mut().add(record),
                Entry::Vacant(vacant) => drop(vacant.insert(record)),
            }
        }
        let mut records: Vec<_> = records.into_values().collect();
        // The identifier makes the order of simultaneous events always the same.
        records.sort_by_key(|record| Reverse((record.at, record.event_id)));
        let mut forwarded: Vec<_> =
            in_json(&lines.forwarder).filter_map(|(at, line)| TargetDelivery::of_forwarder(at, &line)).collect();
        forwarded.sort_by_key(|delivery| delivery.at);
        Self { stack: stack.to_owned(), since, records, undelivered, forwarded, alerts, notes: Vec::new() }
    }

    /// Returns the selected events, newest first.
    pub fn records(&self, filter: &Filter) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| filter.selects(record))
    }

    /// Lists the newest selected events.
    pub fn listing(&self, filter: &Filter, limit: usize, now: OffsetDateTime) -> Listing<'_> {
        let selected: Vec<_> = self.records(filter).collect();
        Listing {
            since: Timestamp(self.since.truncate_to_second()),
            total: selected.len(),
            plot: plot(selected.iter().copied(), now),
            events: selected.into_iter().take(limit).collect(),
            notes: &self.notes,
        }
    }

    /// Returns everything that is known of an event; `None` if the logs do not have it.
    ///
    /// # Errors
    ///
    /// A delivery cannot be rendered.
    pub fn story(&self, id: EventId, now: OffsetDateTime) -> anyhow::Result<Option<Story>> {
        let Some(record) = self.records.iter().find(|record| record.event_id == id) else { return Ok(None) };
        let undelivered = self.undelivered.get(&id).filter(|_| record.outcome == Outcome::Undelivered);
        let rendered = undelivered.map(|it| Rendering::of(&it.registration, &it.body, id, &self.alerts)).transpose()?;
        let Related { failure, explanation, resolution } = Related::of(record, &self.records);
        let note = match record.outcome {
            Outcome::Unverified => Some(UNVERIFIED),
            outcome if outcome.is_published() => Some(NO_TEXT),
            _ => None,
        };
        Ok(Some(Story {
            record: record.clone(),
            failure,
            explanation,
            resolution,
            undelivered: rendered,
            targets: self.targets(id),
            replay: self.replay(record, now),
            notes: note.map(str::to_owned).into_iter().collect(),
        }))
    }

    /// Returns the command that publishes an event, if there is one.
    pub fn replay(&self, record: &Record, now: OffsetDateTime) -> Option<String> {
        if !record.outcome.is_replayable() || record.event == TEST {
            return None;
        }
        let age: u64 = (now - record.at.0).whole_seconds().try_into().unwrap_or_default();
        let hours = (age / 3600 + 1).max(MIN_REPLAY_HOURS);
        Some(infra(&format!("replay {hours} --id {}", record.event_id), &self.stack))
    }

    /// Returns the newest attempt for each message of an event, by target.
    fn targets(&self, id: EventId) -> Vec<TargetDelivery> {
        let id = id.to_string();
        let about = self.forwarded.iter().filter(|delivery| delivery.event_id == id);
        let newest: BTreeMap<_, _> = about.map(|it| ((it.target.as_str(), it.message_id.as_str()), it)).collect();
        newest.into_values().cloned().collect()
    }
}

fn in_json(lines: &Value) -> impl Iterator<Item = (Timestamp, Value)> {
    log::in_json(lines).map(|(at, line)| (Timestamp(at), line))
}

#[cfg(test)]
mod tests;
