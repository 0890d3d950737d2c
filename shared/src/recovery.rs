//! Rules for recovering missed refresh events and explaining failures: which jobs are due, and how far a site's jobs were
//! processed.
//!
//! Delivery is at least once. Jobs are read over a window that overlaps the last one, because Tableau may list a job late,
//! and those that were handled are told by their identifiers. All times are the Tableau server's own.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::{
    event::Event,
    keyring::Keyring,
    refresh::{EndedJob, Refresh, RefreshOutcome},
    registration::{Claim, ReceiverUrl, Registration, SiteName},
    state::Timestamp,
    webhook::ObservedWebhook,
};

/// How long ago a job must have ended for its missed event to be recovered. By then Tableau has delivered the event or has
/// given it up and disabled the webhook: it tries four times, with gaps that are not published.
pub const SETTLED: Duration = Duration::minutes(5);

/// How much of the last window is read again. Tableau does not publish how late it may list a job; an hour is longer than
/// anybody has reported.
const OVERLAP: Duration = Duration::hours(1);

/// How long a refresh may take: what Tableau Cloud allows at most, and Tableau Server by default. One that began while its
/// webhook was down is known only when it has ended.
const LONGEST_REFRESH: Duration = Duration::hours(2);

/// How long a job that cannot be read is tried again. Longer than a restart of Tableau takes; and whoever waits for the
/// reason of a failure gets it within the hour or hears that there is none.
const UNREADABLE_TIME: Duration = Duration::hours(1);

/// How far the watermark moves before that alone is worth a write: a quarter of the writes with a run every 15 minutes.
const WATERMARK_STEP: Duration = Duration::hours(1);

/// The most identifiers of handled jobs that are stored. Of 64 bytes at most each they fill half of an item.
const MAX_HANDLED: usize = 2000;

/// The most bytes of a job's identifier. Tableau's have 36.
pub const MAX_ID_BYTES: usize = 64;

/// Progress at one site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshState {
    /// No job that ended before this is still to be published.
    watermark: Timestamp,
    /// Jobs that ended before this are not read, though the window would reach so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_before: Option<Timestamp>,
    /// The refresh events whose webhooks worked when they were last checked.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    healthy: BTreeSet<Event>,
    /// Times at which webhooks did not work, as long as jobs of them may be due.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outages: Vec<Outage>,
    /// Jobs in the window of which something was published or given up.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    handled: BTreeMap<String, Handled>,
    /// Jobs that could not be read, and since when, by our own clock.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    unreadable: BTreeMap<String, Timestamp>,
}

/// A time at which the webhook for an event did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// The event.
    pub event: Event,
    /// The earliest time at which it may have begun.
    pub from: Timestamp,
    /// When it was over; `None` while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// How far a job was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handled {
    /// Its failure was explained. Its event may still be recovered, should Tableau turn out not to deliver it.
    Explained,
    /// Nothing is left to do.
    Done,
}

/// The jobs that a run reads, by their ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The earliest end.
    pub from: OffsetDateTime,
    /// The latest end, by the server's clock or ours, whichever is ahead.
    pub until: OffsetDateTime,
    /// Events of jobs that ended before this are recovered.
    settled: OffsetDateTime,
}

/// The clocks of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The time by our clock.
    pub now: OffsetDateTime,
    /// How far the server's clock is ahead of ours, if an answer has said so.
    pub ahead: Option<Duration>,
}

/// A job that was read in full, and what of it is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueJob {
    /// The job, in full.
    pub refresh: Refresh,
    /// The missed events, with the time of each.
    pub recover: Vec<(Event, OffsetDateTime)>,
    /// Whether its failure is to be explained.
    pub explain: bool,
    /// How far it is handled once all of that is published.
    pub handled: Handled,
}

/// Returns those of some events that jobs tell of.
pub fn refresh_events(events: &BTreeSet<Event>) -> BTreeSet<Event> {
    let is_refresh = |event: &&Event| event.action().is_some_and(|action| action.starts_with("refresh-"));
    let is_of_extract = |event: &&Event| matches!(event.resource_type(), Some("datasource" | "workbook"));
    events.iter().filter(is_refresh).filter(is_of_extract).cloned().collect()
}

/// Returns the events that reach the receiver, by a **complete** list of a site's webhooks: each by one that is enabled and
/// has an address that the receiver accepts, whatever key signed it and whatever the webhook is called.
pub fn healthy_events(
    site: &SiteName,
    observed: &[ObservedWebhook],
    receiver: &ReceiverUrl,
    keyring: &Keyring,
) -> BTreeSet<Event> {
    let enabled = observed.iter().filter(|webhook| webhook.is_enabled);
    let accepted = enabled.filter_map(|webhook| {
        let verified = Claim::parse(receiver.path_of(webhook.url.as_ref()?)?)?.verify(keyring)?;
        let Registration { site: signed_for, event } = verified.registration();
        // An event that the answer did not name is no reason to doubt it.
        let is_for_it = webhook.event.as_ref().is_none_or(|observed| observed == event);
        (signed_for == site && is_for_it).then(|| event.clone())
    });
    accepted.collect()
}

/// Whether it is the event of a refresh that failed, which is explained.
pub fn is_failure(event: &Event) -> bool {
    event.action() == Some("refresh-failed")
}

impl DueJob {
    /// Whether nothing of it is to be published.
    pub fn is_empty(&self) -> bool {
        self.recover.is_empty() && !self.explain
    }
}

impl Clock {
    /// The time by the clock that is behind.
    fn earliest(self) -> OffsetDateTime {
        self.now + self.ahead.unwrap_or_default().min(Duration::ZERO)
    }

    /// The time by the clock that is ahead.
    fn latest(self) -> OffsetDateTime {
        self.now + self.ahead.unwrap_or_default().max(Duration::ZERO)
    }
}

impl RefreshState {
    /// Begins with a site: what ended so far is past.
    pub fn new(clock: Clock, healthy: &BTreeSet<Event>) -> Self {
        let start = Timestamp((clock.earliest() - SETTLED).truncate_to_second());
        Self {
            watermark: start,
            not_before: Some(start),
            healthy: refresh_events(healthy),
            outages: Vec::new(),
            handled: BTreeMap::new(),
            unreadable: BTreeMap::new(),
        }
    }

    /// No job that ended before this is still to be published.
    pub fn watermark(&self) -> OffsetDateTime {
        self.watermark.0
    }

    /// Times at which webhooks did not work.
    pub fn outages(&self) -> &[Outage] {
        &self.outages
    }

    /// Notes which wanted events reach the receiver before anything is repaired, and of which there is a webhook of ours at
    /// all. Returns the outages that are new: they have to be stored before the repair, after which nothing shows them any
    /// more. `checked` is when the webhooks were last checked, by our own clock.
    pub fn note_outages(
        &mut self,
        checked: Option<OffsetDateTime>,
        clock: Clock,
        wanted: &BTreeSet<Event>,
        healthy: &BTreeSet<Event>,
        owned: &BTreeSet<Event>,
    ) -> Vec<Outage> {
        let wanted = refresh_events(wanted);
        // Nobody misses what nobody wants.
        self.outages.retain(|outage| wanted.contains(&outage.event));
        let behind = clock.ahead.unwrap_or_default().min(Duration::ZERO);
        let from = checked.map_or(self.watermark.0, |checked| checked + behind) - SETTLED;
        let is_open = |event: &&Event| self.outages.iter().any(|it| it.event == **event && it.until.is_none());
        // One that is there and never worked may be of a run that was cut off. One that is not there is new, and has missed
        // nothing.
        let known = self.healthy.union(owned);
        let down = known.filter(|event| wanted.contains(event) && !healthy.contains(event) && !is_open(event));
        let new: Vec<_> =
            down.map(|event| Outage { event: event.clone(), from: Timestamp(from), until: None }).collect();
        self.outages.extend(new.iter().cloned());
        self.healthy = wanted.intersection(healthy).cloned().collect();
        new
    }

    /// Notes which wanted events reach the receiver now: their outages are over.
    pub fn note_repaired(&mut self, clock: Clock, wanted: &BTreeSet<Event>, healthy: &BTreeSet<Event>) {
        // Later by a second, since Tableau writes times to the second.
        let until = Timestamp(clock.latest().truncate_to_second() + Duration::SECOND);
        for outage in &mut self.outages {
            if outage.until.is_none() && healthy.contains(&outage.event) {
                outage.until = Some(until);
            }
        }
        self.healthy = refresh_events(wanted).intersection(healthy).cloned().collect();
    }

    /// Returns the jobs to read, and the time before them that is too long ago to be read, if there is any.
    pub fn window(&mut self, clock: Clock, lookback: Duration) -> (Window, Option<(OffsetDateTime, OffsetDateTime)>) {
        let earliest = (clock.earliest() - lookback).truncate_to_second();
        let expired = (self.watermark.0 < earliest).then_some((self.watermark.0, earliest));
        if expired.is_some() {
            self.watermark = Timestamp(earliest);
            self.not_before = Some(Timestamp(earliest));
        }
        let from = (self.watermark.0 - OVERLAP).max(self.not_before.map_or(earliest, |Timestamp(at)| at));
        (Window { from, until: clock.latest(), settled: clock.earliest() - SETTLED }, expired)
    }

    /// Whether an event of that time was missed.
    fn is_missed(&self, event: &Event, at: OffsetDateTime) -> bool {
        self.outages.iter().any(|outage| {
            outage.from.0 <= at && outage.until.is_none_or(|Timestamp(until)| at < until) && outage.event == *event
        })
    }

    /// Whether anything of a listed job may be due.
    pub fn may_be_due(&self, job: &EndedJob, window: Window, wanted: &BTreeSet<Event>) -> bool {
        if job.ended_at < window.from {
            return false;
        }
        let handled = self.handled.get(&job.id).copied();
        let is_explained = handled.is_some() || job.outcome != RefreshOutcome::Failed || !wanted.iter().any(is_failure);
        let is_recovered = handled == Some(Handled::Done) || !self.may_be_missed(job, window);
        !is_explained || !is_recovered
    }

    /// Whether the job may tell of an event that was missed, as far as a list says what it refreshed.
    fn may_be_missed(&self, job: &EndedJob, window: Window) -> bool {
        let ended = match job.outcome {
            RefreshOutcome::Succeeded => Some("refresh-succeeded"),
            RefreshOutcome::Failed => Some("refresh-failed"),
            RefreshOutcome::Cancelled => None,
        };
        let started = job.started_at.map(|at| ("refresh-started", at));
        let mut times = started.into_iter().chain(ended.map(|ended| (ended, job.ended_at)));
        job.ended_at < window.settled
            && times.any(|(action, at)| {
                let mut of_that_action = self.outages.iter().filter(|it| it.event.action() == Some(action));
                of_that_action.any(|outage| self.is_missed(&outage.event, at))
            })
    }

    /// Returns what is due of a job that was read in full: perhaps nothing.
    pub fn due(&self, refresh: Refresh, window: Window, wanted: &BTreeSet<Event>) -> DueJob {
        let before = self.handled.get(&refresh.job_id).copied();
        let is_settled = refresh.ended_at < window.settled;
        let explain =
            before.is_none() && refresh.events().any(|(event, _)| is_failure(&event) && wanted.contains(&event));
        let is_recovered = !is_settled || before == Some(Handled::Done);
        let is_due = |(event, at): &(Event, OffsetDateTime)| !is_recovered && self.is_missed(event, *at);
        let recover = refresh.events().filter(is_due).collect();
        let handled = if is_settled { Handled::Done } else { Handled::Explained };
        DueJob { refresh, recover, explain, handled }
    }

    /// Notes that a job could not be read. Returns whether that has lasted for so long that it is given up.
    pub fn note_unreadable(&mut self, job_id: &str, now: OffsetDateTime) -> bool {
        let since = self.unreadable.entry(job_id.to_owned()).or_insert(Timestamp(now.truncate_to_second()));
        now >= since.0 + UNREADABLE_TIME
    }

    /// How many jobs could not be read and are tried again.
    pub fn unreadable_count(&self) -> usize {
        self.unreadable.len()
    }

    /// Whether a job could not be read before.
    pub fn is_unreadable(&self, job_id: &str) -> bool {
        self.unreadable.contains_key(job_id)
    }

    /// Notes that a job was handled. Later runs leave it alone.
    pub fn note_handled(&mut self, job_id: &str, handled: Handled) {
        self.unreadable.remove(job_id);
        self.handled.insert(job_id.to_owned(), handled);
    }

    /// Whether anything of a job was published, or it was given up.
    pub fn is_handled(&self, job_id: &str) -> bool {
        self.handled.contains_key(job_id)
    }

    /// Passes over a window, whose jobs nobody wants to hear of.
    pub fn skip(&mut self, window: Window) {
        self.advance(window, None, &BTreeMap::new());
    }

    /// Moves the watermark after all jobs of a window were handled that could be. `left` is the earliest end of those that
    /// are still due, and `listed` holds the identifiers that Tableau listed. Returns the time before which no job is read
    /// any more though some of them were to be, if there are more handled jobs than can be stored.
    pub fn advance(
        &mut self,
        window: Window,
        left: Option<OffsetDateTime>,
        listed: &BTreeMap<String, OffsetDateTime>,
    ) -> Option<OffsetDateTime> {
        let watermark = left.map_or(window.settled, |left| left.min(window.settled)).truncate_to_second();
        self.watermark = self.watermark.max(Timestamp(watermark));
        let mut from = self.watermark.0 - OVERLAP;
        let is_in_window = |id: &String| listed.get(id).is_some_and(|ended_at| *ended_at >= from);
        self.handled.retain(|id, _| is_in_window(id));
        self.unreadable.retain(|id, _| listed.contains_key(id));
        let mut narrowed = None;
        if self.handled.len() > MAX_HANDLED {
            let mut ends: Vec<_> = self.handled.keys().filter_map(|id| listed.get(id).copied()).collect();
            ends.sort_unstable();
            // To the second after, so that of several within one second none is read again.
            from = ends[ends.len() - MAX_HANDLED].truncate_to_second() + Duration::SECOND;
            self.handled.retain(|id, _| listed.get(id).is_some_and(|ended_at| *ended_at >= from));
            self.unreadable.retain(|id, _| listed.get(id).is_some_and(|ended_at| *ended_at >= from));
            self.not_before = Some(Timestamp(from));
            narrowed = (self.watermark.0 < from).then_some(from);
            self.watermark = self.watermark.max(Timestamp(from));
        }
        self.not_before = self.not_before.filter(|Timestamp(at)| *at > self.watermark.0 - OVERLAP);
        let read_from = self.watermark.0 - OVERLAP;
        self.outages.retain(|Outage { event, until, .. }| {
            let is_start = event.action() == Some("refresh-started");
            let late = if is_start { LONGEST_REFRESH } else { Duration::ZERO };
            until.is_none_or(|Timestamp(until)| read_from < until + late)
        });
        narrowed
    }

    /// Whether storing it in place of `before` is worth a write: anything but a small step of the watermark.
    pub(crate) fn differs_from(&self, before: &Self) -> bool {
        let is_small = self.watermark.0 < before.watermark.0 + WATERMARK_STEP;
        let watermark = if is_small { before.watermark } else { self.watermark };
        // That it is no longer needed is the passing of time.
        let not_before = if is_small && self.not_before.is_none() { before.not_before } else { self.not_before };
        Self { watermark, not_before, ..self.clone() } != *before
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::{
        refresh::{RefreshedKind, RefreshedResource},
        registration::RegistrationUrl,
    };

    const NOW: OffsetDateTime = datetime!(2026-05-21 08:00:00 UTC);

    const DAY: Duration = Duration::DAY;

    /// The most bytes of an item. DynamoDB takes 400 KB; the rest is for how it counts names and numbers.
    const MAX_ITEM_BYTES: usize = 256 * 1024;

    fn events(names: &[&str]) -> BTreeSet<Event> {
        names.iter().map(|name| event(name)).collect()
    }

    fn event(name: &str) -> Event {
        name.parse().expect("an event")
    }

    fn minutes(count: i64) -> Duration {
        Duration::minutes(count)
    }

    fn clock(at: i64) -> Clock {
        Clock { now: NOW + minutes(at), ahead: None }
    }

    fn job(id: &str, outcome: RefreshOutcome, ended: i64) -> EndedJob {
        EndedJob { id: id.to_owned(), outcome, started_at: None, ended_at: NOW + minutes(ended), is_via_bridge: false }
    }

    fn in_full(job: &EndedJob) -> Refresh {
        Refresh {
            job_id: job.id.clone(),
            resource: RefreshedResource { kind: RefreshedKind::Workbook, luid: "luid".to_owned(), name: None },
            started_at: job.started_at,
            ended_at: job.ended_at,
            outcome: job.outcome,
            notes: None,
        }
    }

    /// A run: reads the jobs that are listed, and publishes all that is due. Returns it as event and job.
    fn run(state: &mut RefreshState, at: i64, listed: &[EndedJob], wanted: &BTreeSet<Event>) -> Vec<String> {
        let (window, _) = state.window(clock(at), DAY);
        let listed: Vec<_> =
            listed.iter().filter(|job| window.from <= job.ended_at && job.ended_at <= window.until).collect();
        let mut published = Vec::new();
        for job in &listed {
            if state.may_be_due(job, window, wanted) {
                let due = state.due(in_full(job), window, wanted);
                published.extend(due.recover.iter().map(|(event, _)| format!("{event} {}", job.id)));
                published.extend(due.explain.then(|| format!("explained {}", job.id)));
                state.note_handled(&job.id, due.handled);
            }
        }
        let ends = listed.iter().map(|job| (job.id.clone(), job.ended_at)).collect();
        assert_eq!(state.advance(window, None, &ends), None);
        published
    }

    #[test]
    fn a_missed_event_is_recovered_from_when_its_webhook_last_worked_to_its_repair() {
        let wanted = events(&["WorkbookRefreshSucceeded", "ViewDeleted"]);
        let mut state = RefreshState::new(clock(0), &wanted);
        assert_eq!(state.note_outages(Some(NOW), clock(15), &wanted, &wanted, &wanted), []);
        let outages =
            state.note_outages(Some(NOW + minutes(15)), clock(30), &wanted, &events(&["ViewDeleted"]), &wanted);
        let outage = json!({ "event": "WorkbookRefreshSucceeded", "from": "2026-05-21T08:10:00Z" });
        assert_eq!(json!(outages), json!([outage]));
        state.note_repaired(clock(30), &wanted, &wanted);
        let jobs = [9, 10, 30, 31].map(|at| job(&format!("j{at}"), RefreshOutcome::Succeeded, at));
        // What is too young for this run is recovered by the next.
        assert_eq!(run(&mut state, 31, &jobs, &wanted), ["WorkbookRefreshSucceeded j10"]);
        assert_eq!(run(&mut state, 45, &jobs, &wanted), ["WorkbookRefreshSucceeded j30"]);
        assert_eq!(run(&mut state, 60, &jobs, &wanted), [""; 0]);
        // As long as a late one may be listed the outage is known.
        assert_eq!(state.outages().len(), 1);
        run(&mut state, 100, &jobs, &wanted);
        assert_eq!(state.outages(), []);
    }

    #[test]
    fn a_failure_is_explained_at_once_and_recovered_should_its_webhook_turn_out_to_be_down() {
        let wanted = events(&["WorkbookRefreshFailed"]);
        let mut state = RefreshState::new(clock(0), &wanted);
        let failed = [job("j", RefreshOutcome::Failed, 14)];
        assert_eq!(run(&mut state, 15, &failed, &wanted), ["explained j"]);
        // Tableau tried four times to deliver it, and then disabled the webhook.
        let outages = state.note_outages(Some(NOW + minutes(15)), clock(30), &wanted, &events(&[]), &wanted);
        assert_eq!(outages.len(), 1);
        state.note_repaired(clock(30), &wanted, &wanted);
        assert_eq!(run(&mut state, 30, &failed, &wanted), ["WorkbookRefreshFailed j"]);
        assert_eq!(run(&mut state, 45, &failed, &wanted), [""; 0]);
    }

    #[test]
    fn a_job_that_is_listed_late_is_not_passed_over_and_none_is_handled_twice() {
        let wanted = events(&["WorkbookRefreshFailed"]);
        let mut state = RefreshState::new(clock(0), &wanted);
        let (early, late) = (job("early", RefreshOutcome::Failed, 20), job("late", RefreshOutcome::Failed, 10));
        assert_eq!(run(&mut state, 30, std::slice::from_ref(&early), &wanted), ["explained early"]);
        let both = [late, early];
        assert_eq!(run(&mut state, 60, &both, &wanted), ["explained late"]);
        for at in [75, 90, 105, 120, 135] {
            assert_eq!(run(&mut state, at, &both, &wanted), [""; 0]);
        }
        assert_eq!(json!(state), json!({ "watermark": "2026-05-21T10:10:00Z", "healthy": ["WorkbookRefreshFailed"] }));
    }

    #[test]
    fn a_webhook_that_is_new_or_no_longer_wanted_has_missed_nothing() {
        let (one, two) =
            (events(&["WorkbookRefreshFailed"]), events(&["WorkbookRefreshFailed", "DatasourceRefreshFailed"]));
        let mut state = RefreshState::new(clock(0), &one);
        assert_eq!(state.note_outages(Some(NOW), clock(15), &two, &one, &one), []);
        state.note_repaired(clock(15), &two, &two);
        assert_eq!(state.note_outages(Some(NOW), clock(30), &two, &events(&[]), &two).len(), 2);
        // It is not repaired, and then nobody wants it.
        state.note_repaired(clock(30), &two, &events(&[]));
        assert_eq!(state.note_outages(Some(NOW), clock(45), &one, &events(&[]), &one), []);
        assert_eq!(
            state.outages().iter().map(|outage| outage.event.as_str()).collect::<Vec<_>>(),
            ["WorkbookRefreshFailed"]
        );
    }

    #[test]
    fn a_webhook_that_a_run_made_and_was_cut_off_before_it_stored_that_has_missed_what_it_may_have() {
        let wanted = events(&["WorkbookRefreshFailed"]);
        let mut state = RefreshState::new(clock(0), &events(&[]));
        assert_eq!(state.note_outages(Some(NOW), clock(15), &wanted, &events(&[]), &events(&[])), []);
        let outages = state.note_outages(Some(NOW), clock(30), &wanted, &events(&[]), &wanted);
        assert_eq!(outages.iter().map(|outage| outage.from.0).collect::<Vec<_>>(), [NOW - SETTLED]);
        // It cannot be repaired: that is no other outage.
        state.note_repaired(clock(30), &wanted, &events(&[]));
        assert_eq!(state.note_outages(Some(NOW + minutes(30)), clock(45), &wanted, &events(&[]), &wanted), []);
    }

    #[test]
    fn a_missed_start_is_recovered_when_the_refresh_has_ended() {
        let wanted = events(&["WorkbookRefreshStarted"]);
        let mut state = RefreshState::new(clock(0), &wanted);
        state.note_outages(Some(NOW), clock(15), &wanted, &events(&[]), &wanted);
        state.note_repaired(clock(15), &wanted, &wanted);
        let long = EndedJob { started_at: Some(NOW + minutes(10)), ..job("j", RefreshOutcome::Succeeded, 120) };
        run(&mut state, 75, &[], &wanted);
        assert_eq!(run(&mut state, 130, std::slice::from_ref(&long), &wanted), ["WorkbookRefreshStarted j"]);
    }

    #[test]
    fn a_job_that_cannot_be_read_holds_the_watermark_and_is_given_up_after_an_hour() {
        let wanted = events(&["WorkbookRefreshFailed"]);
        let mut state = RefreshState::new(clock(0), &wanted);
        let failed = job("j", RefreshOutcome::Failed, 10);
        let ends = BTreeMap::from([("j".to_owned(), failed.ended_at)]);
        for at in [20, 40, 60, 79] {
            let (window, _) = state.window(clock(at), DAY);
            assert!(state.may_be_due(&failed, window, &wanted) && !state.note_unreadable("j", NOW + minutes(at)));
            state.advance(window, Some(failed.ended_at), &ends);
            assert_eq!(state.watermark(), failed.ended_at);
        }
        assert!(state.is_unreadable("j") && state.note_unreadable("j", NOW + minutes(80)));
        state.note_handled("j", Handled::Done);
        let (window, _) = state.window(clock(80), DAY);
        assert!(!state.may_be_due(&failed, window, &wanted) && !state.is_unreadable("j"));
    }

    #[test]
    fn each_time_that_is_too_long_ago_is_returned_once() {
        let mut state = RefreshState::new(clock(0), &events(&["WorkbookRefreshFailed"]));
        let stored = state.clone();
        let (_, expired) = state.window(clock(2 * 24 * 60), DAY);
        assert_eq!(expired, Some((NOW - minutes(5), NOW + DAY)));
        assert!(state.differs_from(&stored));
        assert_eq!(state.window(clock(2 * 24 * 60), DAY).1, None);
        assert_eq!(state.window(clock(2 * 24 * 60 + 15), DAY).1, Some((NOW + DAY, NOW + DAY + minutes(15))));
    }

    #[test]
    fn the_plain_passing_of_time_is_worth_one_write_an_hour() {
        let wanted = events(&["WorkbookRefreshFailed"]);
        let mut state = RefreshState::new(clock(0), &wanted);
        run(&mut state, 120, &[], &wanted);
        let mut writes = 0;
        for at in (135..135 + 4 * 60).step_by(15) {
            let mut after = state.clone();
            after.note_outages(Some(NOW + minutes(at - 15)), clock(at), &wanted, &wanted, &wanted);
            after.note_repaired(clock(at), &wanted, &wanted);
            run(&mut after, at, &[], &wanted);
            if after.differs_from(&state) {
                writes += 1;
                state = after;
            }
        }
        assert_eq!(writes, 4);
    }

    #[test]
    fn of_more_jobs_than_fit_the_latest_are_kept_and_the_window_begins_with_them() {
        let wanted = events(&["WorkbookRefreshFailed"]);
        let mut state = RefreshState::new(clock(0), &wanted);
        let end = |number: i64| NOW + Duration::seconds(number);
        let id = |number: i64| format!("{number:064}");
        let ends: BTreeMap<_, _> = (0..3000).map(|number| (id(number), end(number))).collect();
        ends.keys().for_each(|id| state.note_handled(id, Handled::Explained));
        let (window, _) = state.window(clock(60), DAY);
        assert_eq!(state.clone().advance(window, None, &ends), None, "nothing that is due is passed over");
        assert_eq!(state.advance(window, Some(end(10)), &ends), Some(end(1001)));
        assert!(!state.is_handled(&id(1000)) && state.is_handled(&id(1001)));
        assert!(serde_json::to_string(&state).is_ok_and(|json| json.len() < MAX_ITEM_BYTES));
        assert_eq!(state.window(clock(61), DAY).0.from, end(1001));
    }

    #[test]
    fn an_event_reaches_the_receiver_by_a_webhook_that_is_enabled_and_has_an_accepted_address() {
        let receiver = ReceiverUrl::parse("https://receiver.example/").expect("an address");
        let (old, other) = (Keyring::of([1; 32]), Keyring::of([9; 32]));
        let keyring = Keyring::of([1; 32]).with_newest([2; 32]);
        let site = |name: &str| name.parse::<SiteName>().expect("a site");
        let url = |name: &str, keyring: &Keyring| {
            Registration { site: site("marketing"), event: event(name) }.signed_url(&receiver, keyring)
        };
        let webhook = |url: RegistrationUrl, event: Option<Event>, is_enabled| ObservedWebhook {
            id: "1".to_owned(),
            name: "whatever".to_owned(),
            event,
            url: Some(url),
            is_enabled,
            status_change_reason: None,
            updated_at: None,
        };
        let name = "WorkbookRefreshFailed";
        let healthy = |webhook| healthy_events(&site("marketing"), &[webhook], &receiver, &keyring);
        for accepted in [
            webhook(url(name, &keyring), Some(event(name)), true),
            webhook(url(name, &old), Some(event(name)), true),
            webhook(url(name, &keyring), None, true),
        ] {
            assert_eq!(healthy(accepted), events(&[name]));
        }
        for down in [
            webhook(url(name, &keyring), Some(event(name)), false),
            webhook(url(name, &other), Some(event(name)), true),
            webhook(url(name, &keyring), Some(event("ViewDeleted")), true),
            webhook(RegistrationUrl::observed("https://elsewhere.example/".to_owned()), Some(event(name)), true),
        ] {
            assert_eq!(healthy(down), events(&[]));
        }
        let elsewhere = webhook(url(name, &keyring), Some(event(name)), true);
        assert_eq!(healthy_events(&site("sales"), &[elsewhere], &receiver, &keyring), events(&[]));
    }

    proptest! {
        /// Whatever runs crash before they store anything, each failure is explained, and each success that its webhook
        /// missed is recovered.
        #[test]
        fn whatever_runs_are_cut_off_nothing_is_passed_over(
            jobs in vec((0_i64..300, any::<bool>()), 1..30),
            runs in vec((any::<bool>(), any::<bool>()), 20),
        ) {
            let wanted = events(&["WorkbookRefreshFailed", "WorkbookRefreshSucceeded"]);
            let mut stored = RefreshState::new(clock(0), &wanted);
            let mut checked = NOW;
            let mut published = BTreeSet::new();
            let mut missed = BTreeSet::new();
            let all: Vec<_> = jobs.iter().enumerate().map(|(number, (at, failed))| {
                let outcome = if *failed { RefreshOutcome::Failed } else { RefreshOutcome::Succeeded };
                job(&format!("j{number}"), outcome, *at)
            }).collect();
            let mut broken_since = None;
            for (at, (breaks, is_cut_off)) in (15..).step_by(15).zip(runs) {
                let healthy = if broken_since.is_some() { events(&[]) } else { wanted.clone() };
                let mut state = stored.clone();
                let outages = state.note_outages(Some(checked), clock(at), &wanted, &healthy, &wanted);
                if !outages.is_empty() {
                    stored = state.clone();
                }
                if let Some(since) = broken_since.take() {
                    missed.extend(all.iter().filter(|job| (NOW + minutes(since)..NOW + minutes(at)).contains(&job.ended_at)).map(|job| job.id.clone()));
                }
                state.note_repaired(clock(at), &wanted, &wanted);
                published.extend(run(&mut state, at, &all, &wanted));
                if !is_cut_off {
                    stored = state;
                    checked = NOW + minutes(at);
                }
                if breaks {
                    broken_since = Some(at);
                }
            }
            for at in [330, 345, 360] {
                let mut state = stored.clone();
                let healthy = if broken_since.take().is_some() { events(&[]) } else { wanted.clone() };
                state.note_outages(Some(checked), clock(at), &wanted, &healthy, &wanted);
                state.note_repaired(clock(at), &wanted, &wanted);
                published.extend(run(&mut state, at, &all, &wanted));
                stored = state;
            }
            for job in &all {
                let (explained, recovered) = (format!("explained {}", job.id), format!("WorkbookRefreshSucceeded {}", job.id));
                match job.outcome {
                    RefreshOutcome::Failed => prop_assert!(published.contains(&explained), "{job:?}"),
                    _ => prop_assert!(!missed.contains(&job.id) || published.contains(&recovered), "{job:?}"),
                }
            }
        }

        #[test]
        fn what_is_stored_is_read_again(names in vec(select(&["WorkbookRefreshFailed", "DatasourceRefreshStarted"][..]), 0..3)) {
            let wanted = events(&names);
            let mut state = RefreshState::new(clock(0), &wanted);
            state.note_outages(Some(NOW), clock(5), &wanted, &events(&[]), &wanted);
            state.note_handled("j", Handled::Explained);
            state.note_unreadable("k", NOW);
            let stored = serde_json::to_string(&state).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<RefreshState>(&stored).ok(), Some(state));
        }
    }
}
