//! The refreshes of one site, as far as a run has processed them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use lambda_support::metrics::MetricLog;
use serde_json::json;
use shared::{
    events::catalogue::Event,
    refreshes::{
        job::{EndedJob, RefreshOutcome},
        resolution::FailureEnd,
        state::{DueJob, Handled, Narrowed, RefreshState},
        window::Window,
    },
    timestamp::Timestamp,
};
use time::OffsetDateTime;
use tracing::Level;

use crate::{
    report::{NotRecovered, SiteReport},
    request::Action,
};

/// The most jobs that a run reads in full. With 10 KB each they take 4 MB of memory, and their events can be published in the
/// time that is kept for the end of the run.
const MAX_JOBS: usize = 400;

/// The most successful jobs that a run reads in full, since they may be the ends of failures. Mostly the tasks show the ends.
const MAX_SUCCESSES: usize = 200;

/// The most resources of which a run reads the context. A large burst has few reasons, and its alert names some resources.
const MAX_RESOURCES: usize = 50;

/// The number of jobs, or of resources, that a run may still read in full.
#[derive(Debug)]
pub(crate) struct Budget(AtomicUsize);

/// The refreshes of a site, as far as a run has processed them.
#[derive(Debug)]
pub(crate) struct SiteRefreshes {
    pub(crate) state: RefreshState,
    pub(crate) site_luid: String,
    pub(crate) wanted: BTreeSet<Event>,
    /// The list of jobs, if it was read.
    pub(crate) listing: Option<Listing>,
    /// The jobs with due events, in the order of their ends.
    pub(crate) due: Vec<DueJob>,
    /// The number of jobs that were read in full.
    pub(crate) jobs_read: usize,
    /// Successes that ended later are read, since they may be the ends of failures.
    pub(crate) successes_after: Option<Timestamp>,
    /// The ends of failures that tasks and resources show.
    pub(crate) ends: Vec<FailureEnd>,
}

/// The jobs that Tableau listed.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) window: Window,
    /// The end of each job.
    pub(crate) ends: BTreeMap<String, OffsetDateTime>,
    /// The jobs that may have due events.
    pub(crate) candidates: Vec<EndedJob>,
    /// The other jobs that may be the ends of failures.
    pub(crate) successes: Vec<EndedJob>,
}

impl Budget {
    /// The jobs of a run.
    pub(crate) fn jobs() -> Self {
        Self(AtomicUsize::new(MAX_JOBS))
    }

    /// The successful jobs of a run that may be the ends of failures.
    pub(crate) fn successes() -> Self {
        Self(AtomicUsize::new(MAX_SUCCESSES))
    }

    /// The resources of a run.
    pub(crate) fn resources() -> Self {
        Self(AtomicUsize::new(MAX_RESOURCES))
    }

    /// Takes one. Returns whether there was one left.
    pub(crate) fn take(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Logs refreshes that are not recovered. A run that is cut off has no other report.
pub(crate) fn log_not_recovered<'a>(
    log: &MetricLog,
    site: &str,
    not_recovered: impl IntoIterator<Item = &'a NotRecovered>,
) {
    let not_recovered: Vec<_> = not_recovered.into_iter().collect();
    if !not_recovered.is_empty() {
        let message = "Events of these refreshes may be missing on the events topic: the run could not recover them";
        let fields = json!({ "site": site, "outcome": "not-recovered", "not_recovered": not_recovered });
        log.line(Level::ERROR, Some(message), &fields, &[]);
    }
}

impl SiteRefreshes {
    /// The refreshes of a site whose jobs were not read.
    pub(crate) fn unread(state: RefreshState) -> Self {
        Self {
            state,
            site_luid: String::new(),
            wanted: BTreeSet::new(),
            listing: None,
            due: Vec::new(),
            jobs_read: 0,
            successes_after: None,
            ends: Vec::new(),
        }
    }

    /// Whether a listed job may have due events, or be the end of failures that no task shows.
    pub(crate) fn may_be_due(&self, job: &EndedJob, window: Window) -> bool {
        self.state.may_be_due(job, window, &self.wanted)
            || self.successes_after.is_some_and(|after| self.may_resolve(job, after))
    }

    /// Whether a listed job is an unread success that ended after a time.
    pub(crate) fn may_resolve(&self, job: &EndedJob, after: Timestamp) -> bool {
        job.outcome == RefreshOutcome::Succeeded && job.ended_at > after.0 && !self.state.is_handled(&job.id)
    }

    /// Reports that a job is not recovered, and does not try it again.
    pub(crate) fn drop_job(&mut self, job_id: &str, reason: impl Into<String>, report: &mut SiteReport) {
        self.state.note_handled(job_id, Handled::Done);
        report.not_recovered.push(NotRecovered::job(job_id, reason));
    }

    /// Returns the state to store, after the due events were published.
    pub(crate) fn into_state(mut self, action: Action, report: &mut SiteReport) -> RefreshState {
        // It moves no watermark, and it lists failed jobs alone: others are handled for all that.
        if action == Action::Explain && !self.state.is_full() {
            return self.state;
        }
        let Some(Listing { window, ends, candidates, successes }) = self.listing.take() else { return self.state };
        let left = candidates.iter().chain(&successes).filter(|job| self.may_be_due(job, window));
        let left = left.map(|job| job.ended_at).min();
        match self.state.advance(window, left, &ends) {
            Some(Narrowed { from: until, passes_due: true }) => report.not_recovered.push(NotRecovered {
                job: None,
                events: BTreeSet::new(),
                from: left,
                until: Some(until),
                reason: "there were more jobs in an hour than can be stored".to_owned(),
            }),
            Some(Narrowed { from, passes_due: false }) => report.notes.push(format!(
                "It had more jobs in an hour than can be stored. A job that ended before {} and that Tableau lists only \
                 later is missed.",
                Timestamp(from)
            )),
            None => {}
        }
        self.state
    }
}
