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
        job::EndedJob,
        state::{DueJob, Handled, Narrowed, RefreshState},
        window::Window,
    },
    timestamp::Timestamp,
};
use time::OffsetDateTime;
use tracing::Level;

use crate::report::{NotRecovered, SiteReport};

/// The most jobs that a run reads in full. With 10 KB each they take 4 MB of memory, and their events can be published in the
/// time that is kept for the end of the run.
const MAX_JOBS: usize = 400;

/// The number of jobs that a run may still read in full.
#[derive(Debug)]
pub(crate) struct JobBudget(AtomicUsize);

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
}

/// The jobs that Tableau listed.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) window: Window,
    /// The end of each job.
    pub(crate) ends: BTreeMap<String, OffsetDateTime>,
    /// The jobs that may have due events.
    pub(crate) candidates: Vec<EndedJob>,
}

impl Default for JobBudget {
    fn default() -> Self {
        Self(AtomicUsize::new(MAX_JOBS))
    }
}

impl JobBudget {
    /// Takes one job. Returns whether there was one left.
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
        Self { state, site_luid: String::new(), wanted: BTreeSet::new(), listing: None, due: Vec::new() }
    }

    /// Reports that a job is not recovered, and does not try it again.
    pub(crate) fn drop_job(&mut self, job_id: &str, reason: impl Into<String>, report: &mut SiteReport) {
        self.state.note_handled(job_id, Handled::Done);
        report.not_recovered.push(NotRecovered::job(job_id, reason));
    }

    /// Returns the state to store, after the due events were published.
    pub(crate) fn into_state(mut self, report: &mut SiteReport) -> RefreshState {
        let Some(Listing { window, ends, candidates }) = self.listing else { return self.state };
        let left = candidates.iter().filter(|job| self.state.may_be_due(job, window, &self.wanted));
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
