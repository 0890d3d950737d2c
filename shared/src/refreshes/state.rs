//! Rules for recovering missed refresh events and explaining failures: which jobs are due, and how far a site's jobs were
//! processed.
//!
//! Delivery is at least once. Jobs are read over a window that overlaps the last one, because Tableau may list a job late,
//! and those that were handled are told by their identifiers. All times are the Tableau server's own.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::{
    events::catalogue::Event,
    refreshes::{
        health::{is_failure, refresh_events},
        job::{EndedJob, Refresh, RefreshOutcome},
        window::{Clock, SETTLED, Window},
    },
    timestamp::Timestamp,
};

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

impl DueJob {
    /// Whether nothing of it is to be published.
    pub fn is_empty(&self) -> bool {
        self.recover.is_empty() && !self.explain
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
        let behind = clock.skew.unwrap_or_default().min(Duration::ZERO);
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
mod tests;
