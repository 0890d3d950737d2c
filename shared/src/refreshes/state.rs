//! Rules for recovering missed refresh events and explaining failures: which jobs are due, and how far a site's jobs were
//! processed.
//!
//! Delivery is at least once. Jobs are read over a window that overlaps the last one, because Tableau may list a job late.
//! Handled jobs are recognized by their identifiers. All times are of the Tableau server's clock.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::{
    events::catalogue::Event,
    refreshes::{
        context::FailureContext,
        failing::FailingResources,
        health::{is_failure, refresh_events},
        job::{EndedJob, Refresh, RefreshOutcome},
        job_queries::JobQueries,
        window::{Clock, SETTLED, Window},
    },
    timestamp::Timestamp,
};

/// The part of the last window that is read again. Tableau does not document how late it may list a job. An hour is longer
/// than any reported delay.
const OVERLAP: Duration = Duration::hours(1);

/// The longest refresh: the limit of Tableau Cloud, and the default of Tableau Server. A refresh that began while its webhook
/// was down is known only when it has ended.
const LONGEST_REFRESH: Duration = Duration::hours(2);

/// The time for which an unreadable job is tried again: longer than a restart of Tableau, and short enough to wait for the
/// reason of a failure.
const UNREADABLE_TIME: Duration = Duration::hours(1);

/// The step of the watermark that is worth a write by itself. With a run every 15 minutes it saves three of four writes.
const WATERMARK_STEP: Duration = Duration::hours(1);

/// The most identifiers of handled jobs that are stored. Of 64 bytes at most each they fill half of an item.
const MAX_HANDLED: usize = 2000;

/// The most bytes of a job's identifier. Tableau's have 36.
pub const MAX_ID_BYTES: usize = 64;

/// Progress at one site.
///
/// ```
/// use std::collections::BTreeSet;
///
/// use shared::{
///     events::catalogue::Event,
///     refreshes::{
///         job::{EndedJob, RefreshOutcome},
///         state::RefreshState,
///         window::Clock,
///     },
/// };
/// use time::{Duration, macros::datetime};
///
/// let clock = |now| Clock { now, skew: None };
/// let wanted = Event::parse_list("WorkbookRefreshSucceeded")?;
///
/// // The run at 8:00 finds the webhook healthy. The run at 9:00 finds it disabled, and enables it.
/// let (at_8, at_9) = (datetime!(2026-05-21 08:00 UTC), datetime!(2026-05-21 09:00 UTC));
/// let mut state = RefreshState::new(clock(at_8), &wanted);
/// state.note_outages(Some(at_8), clock(at_9), &wanted, &BTreeSet::new(), &wanted);
/// state.note_repaired(clock(at_9), &wanted, &wanted);
///
/// // The next run recovers the events of the outage.
/// let (window, _) = state.window(clock(datetime!(2026-05-21 09:15 UTC)), Duration::DAY);
/// let is_due = |ended_at| {
///     let (id, outcome) = ("a1b2".to_owned(), RefreshOutcome::Succeeded);
///     let job = EndedJob { id, outcome, started_at: None, ended_at, is_via_bridge: false };
///     state.may_be_due(&job, window, &wanted)
/// };
/// assert!(is_due(datetime!(2026-05-21 08:30 UTC)));
/// // The enabled webhook delivered the event of this one.
/// assert!(!is_due(datetime!(2026-05-21 09:05 UTC)));
/// # Ok::<_, shared::events::catalogue::InvalidEvent>(())
/// ```
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
    /// Outages, as long as jobs of their times may be due.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outages: Vec<Outage>,
    /// Handled jobs in the window.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    handled: BTreeMap<String, Handled>,
    /// Unreadable jobs, and since when, by our own clock.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    unreadable: BTreeMap<String, Timestamp>,
    /// Resources whose last refresh failed. They are stored in an item of their own, since an earlier release would take this
    /// one with them for unreadable.
    #[serde(skip)]
    failing: FailingResources,
    /// The job queries of the day, in that item too.
    #[serde(skip)]
    job_queries: JobQueries,
}

/// A time at which the webhook for an event did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// The event.
    pub event: Event,
    /// The earliest time at which it may have begun.
    pub from: Timestamp,
    /// The time at which it ended; `None` while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A window that begins later than it should, since more jobs were handled than are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Narrowed {
    /// No job that ended before this is read any more.
    pub from: OffsetDateTime,
    /// Whether jobs that ended before that are still due.
    pub passes_due: bool,
}

/// How far a job was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handled {
    /// Its failure was explained. Its event may still be recovered, if Tableau does not deliver it.
    Explained,
    /// Nothing is left to do.
    Done,
}

/// A job that was read in full, with its due events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueJob {
    /// The job, in full.
    pub refresh: Refresh,
    /// The missed events, with the time of each.
    pub recover: Vec<(Event, OffsetDateTime)>,
    /// Whether its failure is to be explained.
    pub explain: bool,
    /// All that Tableau shows of its resource besides the job.
    pub context: FailureContext,
    /// How far it is handled once its events are published.
    pub handled: Handled,
}

impl DueJob {
    /// Whether no event of it is due. A success may be the end of failures that are published before it.
    pub fn is_empty(&self) -> bool {
        self.recover.is_empty() && !self.explain && self.refresh.outcome != RefreshOutcome::Succeeded
    }
}

impl RefreshState {
    /// Begins with a site. Jobs that have ended so far are not read.
    pub fn new(clock: Clock, healthy: &BTreeSet<Event>) -> Self {
        let start = Timestamp((clock.earliest() - SETTLED).truncate_to_second());
        Self {
            watermark: start,
            not_before: Some(start),
            healthy: refresh_events(healthy),
            outages: Vec::new(),
            handled: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            failing: FailingResources::default(),
            job_queries: JobQueries::default(),
        }
    }

    /// No job that ended before this is still to be published.
    pub fn watermark(&self) -> OffsetDateTime {
        self.watermark.0
    }

    /// Resources whose last refresh failed.
    pub fn failing(&self) -> &FailingResources {
        &self.failing
    }

    /// Resources whose last refresh failed, to note what was published of them.
    pub fn failing_mut(&mut self) -> &mut FailingResources {
        &mut self.failing
    }

    /// Returns the job queries of the day.
    pub fn job_queries(&self) -> &JobQueries {
        &self.job_queries
    }

    /// Returns the job queries of the day, to change them.
    pub fn job_queries_mut(&mut self) -> &mut JobQueries {
        &mut self.job_queries
    }

    /// Times at which webhooks did not work.
    pub fn outages(&self) -> &[Outage] {
        &self.outages
    }

    /// Notes which wanted events reach the receiver before a repair, and which have an owned webhook. Returns the new
    /// outages, which must be stored before the repair: no later list shows them. `checked` is the time of the last check,
    /// by our own clock.
    pub fn note_outages(
        &mut self,
        checked: Option<OffsetDateTime>,
        clock: Clock,
        wanted: &BTreeSet<Event>,
        healthy: &BTreeSet<Event>,
        owned: &BTreeSet<Event>,
    ) -> Vec<Outage> {
        let wanted = refresh_events(wanted);
        // An event that is no longer wanted is not missed.
        self.outages.retain(|outage| wanted.contains(&outage.event));
        let behind = clock.skew.unwrap_or_default().min(Duration::ZERO);
        let from = checked.map_or(self.watermark.0, |checked| checked + behind) - SETTLED;
        let is_open = |event: &&Event| self.outages.iter().any(|it| it.event == **event && it.until.is_none());
        // A webhook that exists and never worked may come from a run that was cut off. One that does not exist is new.
        let known = self.healthy.union(owned);
        let down = known.filter(|event| wanted.contains(event) && !healthy.contains(event) && !is_open(event));
        let new: Vec<_> =
            down.map(|event| Outage { event: event.clone(), from: Timestamp(from), until: None }).collect();
        self.outages.extend(new.iter().cloned());
        self.healthy = wanted.intersection(healthy).cloned().collect();
        new
    }

    /// Notes which wanted events reach the receiver after a repair: their outages are over.
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

    /// Returns the window to read, and the time before it that is further back than `lookback`, if there is any.
    pub fn window(&mut self, clock: Clock, lookback: Duration) -> (Window, Option<(OffsetDateTime, OffsetDateTime)>) {
        let earliest = (clock.earliest() - lookback).truncate_to_second();
        // With a short lookback, an overlap as long would reach beyond it in every run.
        let unread = self.watermark.0 - OVERLAP.min(lookback / 2);
        let unread = self.not_before.map_or(unread, |Timestamp(at)| unread.max(at));
        let expired = (unread < earliest).then_some((unread, earliest));
        if expired.is_some() {
            self.watermark = self.watermark.max(Timestamp(earliest));
            self.not_before = Some(Timestamp(earliest));
        }
        let from = unread.max(earliest);
        (Window { from, until: clock.latest(), settled: clock.earliest() - SETTLED }, expired)
    }

    /// Returns a window for a run that does not look at webhooks. It does not know of a new outage, so that no more jobs
    /// settle: the watermark stays.
    #[must_use]
    pub fn without_settling(&self, window: Window) -> Window {
        Window { settled: self.watermark.0.min(window.settled), ..window }
    }

    /// Whether an event of that time was missed.
    fn is_missed(&self, event: &Event, at: OffsetDateTime) -> bool {
        self.outages.iter().any(|outage| {
            outage.from.0 <= at && outage.until.is_none_or(|Timestamp(until)| at < until) && outage.event == *event
        })
    }

    /// Whether a listed job may have due events.
    pub fn may_be_due(&self, job: &EndedJob, window: Window, wanted: &BTreeSet<Event>) -> bool {
        if job.ended_at < window.from {
            return false;
        }
        let handled = self.handled.get(&job.id).copied();
        let is_explained = handled.is_some() || job.outcome != RefreshOutcome::Failed || !wanted.iter().any(is_failure);
        let is_recovered = handled == Some(Handled::Done) || !self.may_be_missed(job, window);
        !is_explained || !is_recovered
    }

    /// Whether the job may have a missed event. A list does not say which resource it refreshed.
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

    /// Returns the due events of a job that was read in full: perhaps none.
    pub fn due(&self, refresh: Refresh, window: Window, wanted: &BTreeSet<Event>) -> DueJob {
        let before = self.handled.get(&refresh.job_id).copied();
        let is_settled = refresh.ended_at < window.settled;
        let explain =
            before.is_none() && refresh.events().any(|(event, _)| is_failure(&event) && wanted.contains(&event));
        let is_recovered = !is_settled || before == Some(Handled::Done);
        let is_due = |(event, at): &(Event, OffsetDateTime)| !is_recovered && self.is_missed(event, *at);
        let recover = refresh.events().filter(is_due).collect();
        let handled = if is_settled { Handled::Done } else { Handled::Explained };
        DueJob { refresh, recover, explain, context: FailureContext::default(), handled }
    }

    /// Notes that a job could not be read. Returns whether it is not tried again.
    pub fn note_unreadable(&mut self, job_id: &str, now: OffsetDateTime) -> bool {
        let since = self.unreadable.entry(job_id.to_owned()).or_insert(Timestamp(now.truncate_to_second()));
        now >= since.0 + UNREADABLE_TIME
    }

    /// Returns the number of unreadable jobs that are tried again.
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

    /// Whether a job is handled.
    pub fn is_handled(&self, job_id: &str) -> bool {
        self.handled.contains_key(job_id)
    }

    /// Whether there are more handled jobs than are kept.
    pub fn is_full(&self) -> bool {
        self.handled.len() > MAX_HANDLED
    }

    /// Passes over a window: no event of its jobs is wanted.
    pub fn skip(&mut self, window: Window) {
        self.advance(window, None, &BTreeMap::new());
    }

    /// Moves the watermark after a run handled the jobs of a window. `left` is the earliest end of those that are still due,
    /// and `listed` holds the end of each job that Tableau listed. Returns the narrowed window if there are more handled
    /// jobs than can be stored.
    pub fn advance(
        &mut self,
        window: Window,
        left: Option<OffsetDateTime>,
        listed: &BTreeMap<String, OffsetDateTime>,
    ) -> Option<Narrowed> {
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
            narrowed = Some(Narrowed { from, passes_due: self.watermark.0 < from });
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
        // It ends with the passing of time, which is no difference.
        let not_before = if is_small && self.not_before.is_none() { before.not_before } else { self.not_before };
        let Self { failing, job_queries, .. } = before.clone();
        Self { watermark, not_before, failing, job_queries, ..self.clone() } != *before
    }
}

#[cfg(test)]
mod tests;
