//! The messages that arrived while the console runs, for every open page.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use serde_json::value::RawValue;
use shared::{
    alerts::selection::DeliveryAlerts, events::catalogue, registration::claim::Registration, timestamp::Timestamp,
};
use tokio::sync::watch;

use crate::{
    events::rendering::{AlertTexts, Rendering},
    tail::{Arrival, Event, Message, Tone, as_published, data_of},
    terminal::json_line,
};

/// The most arrivals that are kept. A page that reloads shows them again.
const MAX_ARRIVALS: usize = 500;

/// The feed. Clones share it.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Feed {
    state: Arc<Mutex<State>>,
    /// The number of the last change.
    changes: watch::Sender<u64>,
    /// Which deliveries have an alert.
    alerts: Arc<DeliveryAlerts>,
}

#[derive(Debug, Default)]
struct State {
    arrivals: VecDeque<Kept>,
    error: Option<String>,
}

/// An arrival that is kept.
#[derive(Debug)]
struct Kept {
    number: u64,
    kind: &'static str,
    /// Of the event, or of the event that an alert is about.
    event_id: String,
    json: Box<RawValue>,
}

/// An arrival as a page gets it.
#[derive(Serialize)]
struct Content<'a> {
    number: u64,
    at: Timestamp,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<EventContent<'a>>,
    #[serde(flatten)]
    other: Option<&'a Message>,
}

/// An event as a page gets it.
#[derive(Serialize)]
struct EventContent<'a> {
    site: String,
    event: String,
    event_id: String,
    resource_name: String,
    resource_id: String,
    tone: Tone,
    recovered: bool,
    findings: String,
    resource_url: Option<String>,
    #[serde(serialize_with = "as_published")]
    envelope: &'a str,
    attributes: &'a BTreeMap<String, String>,
    alert: Option<AlertTexts>,
}

/// The news for a page.
#[derive(Debug)]
pub(super) struct News {
    /// Arrivals with their numbers, oldest first.
    pub(super) arrivals: Vec<(u64, Box<RawValue>)>,
    /// Why nothing arrives now, if so.
    pub(super) error: Option<String>,
}

impl Feed {
    /// An empty feed of a stack whose deliveries have these alerts.
    pub(in crate::commands) fn new(alerts: DeliveryAlerts) -> Self {
        Self { state: Arc::default(), changes: watch::Sender::new(0), alerts: Arc::new(alerts) }
    }

    /// Adds an arrival.
    pub(in crate::commands) fn push(&self, arrival: &Arrival) {
        let Arrival { at, message } = arrival;
        let (event, event_id) = match message {
            Message::Event(event) => (Some(EventContent::of(event, &self.alerts)), event.id()),
            Message::Alert(alert) => (None, alert.data.event_id.clone()),
            Message::Target(_) | Message::Other(_) => (None, String::new()),
        };
        let (kind, other) = (message.kind(), event.is_none().then_some(message));
        let mut content = Content { number: 0, at: Timestamp(*at), kind, event, other };
        self.change(|state, number| {
            content.number = number;
            // Each part was JSON, or is a text. Server-sent events have no room for line feeds.
            if let Ok(json) = json_line(&content).and_then(|line| Ok(RawValue::from_string(line)?)) {
                state.arrivals.push_back(Kept { number, kind, event_id, json });
            }
            state.arrivals.drain(..state.arrivals.len().saturating_sub(MAX_ARRIVALS));
        });
    }

    /// Notes why nothing arrives, or that messages arrive again.
    pub(super) fn set_error(&self, error: Option<String>) {
        self.change(|state, _| state.error = error);
    }

    /// Returns a receiver of the numbers of changes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns what arrived after a number.
    pub(super) fn news(&self, after: u64) -> News {
        let state = self.lock();
        let arrivals = state.arrivals.iter().filter(|kept| kept.number > after);
        let arrivals = arrivals.map(|kept| (kept.number, kept.json.clone())).collect();
        News { arrivals, error: state.error.clone() }
    }

    /// Returns the event of an identifier, and the alerts about it, if they arrived.
    pub(super) fn about(&self, id: &str) -> (Option<Box<RawValue>>, Vec<Box<RawValue>>) {
        let state = self.lock();
        let of = |kind: &str| {
            let kept = state.arrivals.iter().filter(|kept| kept.kind == kind && kept.event_id == id);
            kept.map(|kept| kept.json.clone()).collect::<Vec<_>>()
        };
        (of("event").pop(), of("alert"))
    }

    fn change(&self, change: impl FnOnce(&mut State, u64)) {
        self.changes.send_modify(|number| {
            *number += 1;
            change(&mut self.lock(), *number);
        });
    }

    // No code under the lock can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> EventContent<'a> {
    fn of(event: &'a Event, alerts: &DeliveryAlerts) -> Self {
        Self {
            site: event.site(),
            event: event.name(),
            event_id: event.id(),
            resource_name: event.resource_name(),
            resource_id: event.resource_id(),
            tone: event.tone(),
            recovered: event.is_recovered(),
            findings: event.findings().trim().to_owned(),
            resource_url: event.page(),
            envelope: &event.body,
            attributes: &event.attributes,
            alert: alert(event, alerts),
        }
    }
}

/// Returns the alert that the receiver sends with an event, if it sends one.
fn alert(event: &Event, alerts: &DeliveryAlerts) -> Option<AlertTexts> {
    let registered: catalogue::Event = event.name().parse().ok()?;
    // The reconciler's own events have no delivery.
    if event.is_recovered() || !registered.is_known() {
        return None;
    }
    let registration = Registration { site: event.site().parse().ok()?, event: registered };
    let id = event.id().parse().ok()?;
    Rendering::of(&registration, data_of(&event.body).ok()?.as_bytes(), id, alerts).ok()?.alert
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use time::OffsetDateTime;

    use super::*;

    fn arrival(text: &str) -> Arrival {
        Arrival { at: OffsetDateTime::UNIX_EPOCH, message: Message::Other(text.to_owned()) }
    }

    #[test]
    fn a_page_gets_what_it_does_not_have_and_the_oldest_are_dropped() {
        let feed = Feed::new(DeliveryAlerts::default());
        for number in 0..MAX_ARRIVALS + 2 {
            feed.push(&arrival(&number.to_string()));
        }
        feed.set_error(Some("the session has expired".to_owned()));
        let news = feed.news(0);
        assert_eq!((news.arrivals.len(), news.error.as_deref()), (MAX_ARRIVALS, Some("the session has expired")));
        let (number, first) = &news.arrivals[0];
        let first: Value = serde_json::from_str(first.get()).expect("JSON");
        assert_eq!(
            (*number, &first),
            (3, &json!({ "number": 3, "at": "1970-01-01T00:00:00Z", "kind": "other", "other": "2" }))
        );
        let last = news.arrivals.last().map(|(number, _)| *number).unwrap_or_default();
        assert!(feed.news(last).arrivals.is_empty());
    }
}
