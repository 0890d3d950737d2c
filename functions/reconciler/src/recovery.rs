//! Reads the jobs of a site that may have due events: missed refresh events to recover, and failures to explain.

use std::collections::BTreeSet;

use lambda_support::error_chain;
use shared::refreshes::{
    health::is_failure,
    job::EndedJob,
    job_queries::MAX_TO_EXPLAIN,
    state::{DueJob, RefreshState},
    window::{Clock, Window},
};
use tableau::{OddJob, RefreshJobs, Session, TableauError, WhichJobs};

use crate::{
    refreshes::{Budget, Listing, SiteRefreshes},
    report::NotRecovered,
    request::Action,
    site_run::{CHANGE_TIME, SiteRun},
    state_table::StateTable,
};

/// The most jobs of a site that a run reads in full. With a run every quarter of an hour that stays below the 20,000 job
/// queries that Tableau Cloud allows a site each day.
const MAX_JOBS_OF_A_SITE: usize = 200;

/// The most unreadable jobs in a row. After them the server fails, not the jobs.
const MAX_FAILURES_IN_A_ROW: usize = 3;

impl<T: StateTable> SiteRun<'_, T> {
    /// Reads the site's jobs from the window that its state asks for. An error is a note of the report: the next run reads
    /// them again.
    pub(crate) async fn read_jobs(
        &mut self,
        session: &mut Session<'_>,
        state: RefreshState,
        lookback: time::Duration,
    ) -> SiteRefreshes {
        let clock = Clock { now: self.run.now, skew: session.clock_skew() };
        let mut refreshes = SiteRefreshes {
            site_luid: session.site_luid().to_owned(),
            wanted: self.wanted.clone(),
            ..SiteRefreshes::unread(state)
        };
        let has_outages = !refreshes.state.outages().is_empty();
        let resolves = self.run.action != Action::Explain && !refreshes.state.failing().is_empty();
        let is_needed = has_outages || resolves || self.wanted.iter().any(is_failure);
        let (mut window, expired) = refreshes.state.window(clock, lookback);
        if self.run.action == Action::Explain {
            window = refreshes.state.without_settling(window);
        }
        if !is_needed {
            refreshes.state.skip(window);
            return refreshes;
        }
        self.report.not_recovered.extend(expired.map(|(from, until)| NotRecovered {
            job: None,
            events: BTreeSet::new(),
            from: Some(from),
            until: Some(until),
            reason: "they ended longer ago than RECOVER_HOURS".to_owned(),
        }));
        let which = if has_outages || resolves { WhichJobs::All } else { WhichJobs::Failed };
        match session.refresh_jobs(window.from, window.until, which).await {
            Ok(jobs) => {
                let mut listing = self.note_listed(jobs, window, &mut refreshes);
                let candidates: Vec<_> = listing.candidates.iter().collect();
                let read = self.read_candidates(session, &candidates, &self.run.jobs, &mut refreshes, window).await;
                self.report.refreshes_left += candidates.len() - read;
                self.read_context(session, &mut listing, &mut refreshes).await;
                refreshes.listing = Some(listing);
            }
            Err(error) => {
                let note = format!("Its jobs could not be read: {}. The next run does.", error_chain(&error));
                self.report.notes.push(note);
            }
        }
        refreshes.state.job_queries_mut().add(session.job_queries(), self.run.now);
        refreshes
    }

    /// Whether a run that explains may read the site's jobs today. If not, the report says so.
    pub(crate) fn may_explain(&mut self) -> bool {
        let may_explain = self.refreshes.as_ref().is_none_or(|state| state.job_queries().leave_room(self.run.now));
        if !may_explain {
            tracing::warn!("the job queries of the day are used up: runs on the schedule explain the failures");
            self.report.notes.push(format!(
                "It had {MAX_TO_EXPLAIN} job queries today, and Tableau Cloud allows 20,000. Until midnight UTC the runs on the \
                 schedule explain its failures."
            ));
        }
        may_explain
    }

    /// Notes the odd ones of the listed jobs, and returns which may have due events, or be the ends of failures: those that
    /// could not be read before come last.
    fn note_listed(&mut self, jobs: RefreshJobs, window: Window, refreshes: &mut SiteRefreshes) -> Listing {
        let RefreshJobs { ended, odd, others, listed, total } = jobs;
        let notes = &mut self.report.notes;
        if others > 0 {
            notes.push(format!("{others} of its jobs are of a type that was not asked for, and were skipped."));
        }
        if total > listed {
            tracing::warn!(counted = total, listed, "Tableau counts more refreshes than it lists");
            notes.push(format!("Tableau counts {total} of its refreshes in this time and lists {listed}."));
        }
        // An odd job has no end: it stays in the window while it is listed.
        let ends = ended.iter().map(|job| (job.id.clone(), job.ended_at));
        let ends = ends.chain(odd.iter().map(|odd| (odd.id.clone(), window.until))).collect();
        for OddJob { id, reason } in odd {
            if !refreshes.state.is_handled(&id) {
                refreshes.drop_job(&id, reason, &mut self.report);
            }
        }
        let may_be_due = |job: &EndedJob| refreshes.state.may_be_due(job, window, &refreshes.wanted);
        let (mut candidates, mut successes): (Vec<_>, Vec<_>) = ended.into_iter().partition(may_be_due);
        let first_failure = refreshes.state.failing().iter().map(|(_, resource)| resource.last).min();
        successes.retain(|job| first_failure.is_some_and(|after| refreshes.may_resolve(job, after)));
        let order = |job: &EndedJob| (refreshes.state.is_unreadable(&job.id), job.ended_at, job.id.clone());
        candidates.sort_by_cached_key(order);
        successes.sort_by_cached_key(order);
        Listing { window, ends, candidates, successes }
    }

    /// Reads jobs in full, one after another, while there is time. Returns how many it came to.
    pub(crate) async fn read_candidates(
        &mut self,
        session: &mut Session<'_>,
        candidates: &[&EndedJob],
        budget: &Budget,
        refreshes: &mut SiteRefreshes,
        window: Window,
    ) -> usize {
        let (mut read, mut failures_in_a_row) = (0, 0);
        for &job in candidates {
            let has_room = refreshes.jobs_read < MAX_JOBS_OF_A_SITE && failures_in_a_row < MAX_FAILURES_IN_A_ROW;
            if !has_room || !self.has_time(CHANGE_TIME) || !budget.take() {
                break;
            }
            refreshes.jobs_read += 1;
            match session.refresh(job).await {
                Ok(Ok(refresh)) => {
                    failures_in_a_row = 0;
                    let due = refreshes.state.due(refresh, window, &refreshes.wanted);
                    if due.is_empty() {
                        refreshes.state.note_handled(&job.id, due.handled);
                    } else {
                        refreshes.due.push(due);
                    }
                }
                Ok(Err(OddJob { id, reason })) => {
                    failures_in_a_row = 0;
                    refreshes.drop_job(&id, reason, &mut self.report);
                }
                Err(error) if error.concerns_the_site() => {
                    let error = error_chain(&error);
                    let note = format!("Job {} could not be read: {error}. The next run reads it.", job.id);
                    self.report.notes.push(note);
                    break;
                }
                Err(error) => {
                    failures_in_a_row += 1;
                    self.note_unreadable(job, &error, refreshes);
                }
            }
            read += 1;
        }
        let order = |due: &DueJob| (due.refresh.ended_at, due.refresh.job_id.clone());
        refreshes.due.sort_by_cached_key(order);
        read
    }

    /// Notes that a job could not be read. It is tried again for an hour.
    fn note_unreadable(&mut self, job: &EndedJob, error: &TableauError, refreshes: &mut SiteRefreshes) {
        let error = error_chain(error);
        if refreshes.state.note_unreadable(&job.id, self.run.now) {
            refreshes.drop_job(&job.id, format!("it could not be read for an hour: {error}"), &mut self.report);
        } else {
            let note = format!("Job {} could not be read: {error}. It is tried again for an hour.", job.id);
            self.report.notes.push(note);
        }
    }
}
