//! Recovers missed refresh events and explains failures: reads a site's jobs, and publishes due events.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use lambda_support::{
    error_chain,
    metrics::MetricLog,
    topic::{Topic, is_refused_for_good},
};
use serde_json::json;
use shared::{
    alerts::{
        message::AlertMessage,
        refresh_alert::{explained_alerts, recovered_alert},
        selection::AlertEvents,
    },
    events::{catalogue::Event, cloud_event::EventMessage},
    refreshes::{
        health::is_failure,
        job::{EXPLAINED, EndedJob, Refresh},
        state::{DueJob, Handled, Narrowed, RefreshState},
        window::{Clock, Window},
    },
    registration::{claim::Registration, site_name::SiteName},
};
use tableau::{OddJob, RefreshJobs, Session, WhichJobs};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::Level;

use crate::report::{Explained, NotRecovered, Recovered, SiteReport, format_time};

/// The most jobs of a site that a run reads in full. With a run every quarter of an hour that stays below the 20,000 job
/// queries that Tableau Cloud allows a site each day.
const MAX_JOBS_OF_A_SITE: usize = 200;

/// The most jobs that a run reads in full. With 10 KB each they take 4 MB of memory, and their events can be published in the
/// time that is kept for the end of the run.
const MAX_JOBS: usize = 400;

/// The most unreadable jobs in a row. After them the server fails, not the jobs.
const MAX_FAILURES_IN_A_ROW: usize = 3;

/// The time that must be left to publish one more job: its events, alerts, and the state.
const PUBLISH_TIME: Duration = Duration::from_secs(40);

/// The number of jobs that a run may still read in full.
#[derive(Debug)]
pub(crate) struct JobBudget(AtomicUsize);

/// The refreshes of a site, as far as a run has processed them.
#[derive(Debug)]
pub(crate) struct SiteRefreshes {
    pub(crate) state: RefreshState,
    site_luid: String,
    wanted: BTreeSet<Event>,
    /// The list of jobs, if it was read.
    listing: Option<Listing>,
    /// The jobs with due events, in the order of their ends.
    due: Vec<DueJob>,
}

#[derive(Debug)]
struct Listing {
    window: Window,
    /// The end of each job.
    ends: BTreeMap<String, OffsetDateTime>,
    /// The jobs that may have due events.
    candidates: Vec<EndedJob>,
}

/// The published events of all sites.
#[derive(Debug, Default)]
pub(crate) struct Published {
    recovered: Vec<(Registration, Refresh)>,
    explained: Vec<(SiteName, Refresh)>,
    /// The reason why SNS accepts no more.
    pub(crate) error: Option<String>,
}

impl Default for JobBudget {
    fn default() -> Self {
        Self(AtomicUsize::new(MAX_JOBS))
    }
}

impl JobBudget {
    fn take(&self) -> bool {
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

    /// Reads the jobs of a site that may have due events. An error is a note of the report: the next run reads them again.
    pub(crate) async fn read(
        session: &mut Session<'_>,
        state: RefreshState,
        (now, lookback): (OffsetDateTime, time::Duration),
        wanted: &BTreeSet<Event>,
        (report, budget): (&mut SiteReport, &JobBudget),
        has_time: impl Fn() -> bool,
    ) -> Self {
        let clock = Clock { now, skew: session.clock_skew() };
        let site_luid = session.site_luid().to_owned();
        let mut refreshes = Self { state, site_luid, wanted: wanted.clone(), listing: None, due: Vec::new() };
        let has_outages = !refreshes.state.outages().is_empty();
        let is_needed = has_outages || wanted.iter().any(is_failure);
        let (window, expired) = refreshes.state.window(clock, lookback);
        if !is_needed {
            refreshes.state.skip(window);
            return refreshes;
        }
        report.not_recovered.extend(expired.map(|(from, until)| NotRecovered {
            job: None,
            events: BTreeSet::new(),
            from: Some(from),
            until: Some(until),
            reason: "they ended longer ago than RECOVER_HOURS".to_owned(),
        }));
        let which = if has_outages { WhichJobs::All } else { WhichJobs::Failed };
        match session.refresh_jobs(window.from, window.until, which).await {
            Ok(jobs) => refreshes.read_jobs(session, jobs, window, now, (report, budget), has_time).await,
            Err(error) => {
                report.notes.push(format!("Its jobs could not be read: {}. The next run does.", error_chain(&error)));
            }
        }
        refreshes
    }

    /// Reads listed jobs in full, one after another, those that could not be read before last.
    async fn read_jobs(
        &mut self,
        session: &mut Session<'_>,
        jobs: RefreshJobs,
        window: Window,
        now: OffsetDateTime,
        (report, budget): (&mut SiteReport, &JobBudget),
        has_time: impl Fn() -> bool,
    ) {
        let RefreshJobs { ended, odd, others, listed, total } = jobs;
        if others > 0 {
            report.notes.push(format!("{others} of its jobs are of a type that was not asked for, and were skipped."));
        }
        if total > listed {
            tracing::warn!(counted = total, listed, "Tableau counts more refreshes than it lists");
            report.notes.push(format!("Tableau counts {total} of its refreshes in this time and lists {listed}."));
        }
        // An odd job has no end: it stays in the window while it is listed.
        let ends = ended.iter().map(|job| (job.id.clone(), job.ended_at));
        let ends = ends.chain(odd.iter().map(|odd| (odd.id.clone(), window.until))).collect();
        for OddJob { id, reason } in odd {
            if !self.state.is_handled(&id) {
                self.drop_job(&id, reason, report);
            }
        }
        let mut candidates: Vec<_> =
            ended.into_iter().filter(|job| self.state.may_be_due(job, window, &self.wanted)).collect();
        let order = |job: &EndedJob| (self.state.is_unreadable(&job.id), job.ended_at, job.id.clone());
        candidates.sort_by_cached_key(order);
        let mut failures_in_a_row = 0;
        for (number, job) in candidates.iter().enumerate() {
            let may_go_on = number < MAX_JOBS_OF_A_SITE && failures_in_a_row < MAX_FAILURES_IN_A_ROW && has_time();
            if !may_go_on || !budget.take() {
                report.refreshes_left = candidates.len() - number;
                break;
            }
            match session.refresh(job).await {
                Ok(Ok(refresh)) => {
                    failures_in_a_row = 0;
                    let due = self.state.due(refresh, window, &self.wanted);
                    if due.is_empty() {
                        self.state.note_handled(&job.id, due.handled);
                    } else {
                        self.due.push(due);
                    }
                }
                Ok(Err(OddJob { id, reason })) => {
                    failures_in_a_row = 0;
                    self.drop_job(&id, reason, report);
                }
                Err(error) if error.concerns_the_site() => {
                    let error = error_chain(&error);
                    report.notes.push(format!("Job {} could not be read: {error}. The next run reads it.", job.id));
                    report.refreshes_left = candidates.len() - number;
                    break;
                }
                Err(error) => {
                    failures_in_a_row += 1;
                    let error = error_chain(&error);
                    if self.state.note_unreadable(&job.id, now) {
                        self.drop_job(&job.id, format!("it could not be read for an hour: {error}"), report);
                    } else {
                        let note = format!("Job {} could not be read: {error}. It is tried again for an hour.", job.id);
                        report.notes.push(note);
                    }
                }
            }
        }
        self.due.sort_by(|a, b| (a.refresh.ended_at, &a.refresh.job_id).cmp(&(b.refresh.ended_at, &b.refresh.job_id)));
        self.listing = Some(Listing { window, ends, candidates });
    }

    fn drop_job(&mut self, job_id: &str, reason: impl Into<String>, report: &mut SiteReport) {
        self.state.note_handled(job_id, Handled::Done);
        report.not_recovered.push(NotRecovered::job(job_id, reason));
    }

    /// Publishes due events while SNS accepts them and there is time, and notes each job with all of its events published.
    pub(crate) async fn publish(
        &mut self,
        topic: &impl Topic<EventMessage>,
        report: &mut SiteReport,
        published: &mut Published,
        deadline: Instant,
    ) {
        let Ok(site) = report.site.parse::<SiteName>() else { return };
        for DueJob { refresh, recover, explain, handled } in std::mem::take(&mut self.due) {
            if published.error.is_some() || Instant::now() + PUBLISH_TIME >= deadline {
                report.refreshes_left += 1;
                continue;
            }
            let mut refused = Vec::new();
            let explanation = explain.then(|| (EXPLAINED, None, refresh.explained_event(&site, &self.site_luid)));
            let recovered = recover.iter().map(|(event, at)| {
                let registration = Registration { site: site.clone(), event: event.clone() };
                let message = refresh.recovered_event(&registration, &self.site_luid);
                (event.as_str(), Some((registration, *at)), message)
            });
            for (name, recovered, message) in recovered.chain(explanation) {
                let result = match message {
                    Some(message) => topic.publish(message).await,
                    None => {
                        refused.push(format!("its {name} is larger than SNS accepts"));
                        continue;
                    }
                };
                match (result, recovered) {
                    (Ok(()), Some((registration, at))) => {
                        report.recovered.push(Recovered::of(&refresh, &registration.event, at));
                        published.recovered.push((registration, refresh.clone()));
                    }
                    (Ok(()), None) => {
                        report.explained.push(Explained::of(&refresh));
                        published.explained.push((site.clone(), refresh.clone()));
                    }
                    // SNS refuses it in every run: it must not keep the others back.
                    (Err(error), _) if is_refused_for_good(&error) => {
                        refused.push(format!("SNS refuses its {name}: {}", error_chain(&*error)));
                    }
                    (Err(error), _) => {
                        let error = error_chain(&*error);
                        published.error = Some(format!("SNS did not accept the {name} of a job: {error}"));
                        break;
                    }
                }
            }
            if published.error.is_some() {
                // The next run publishes all of its events, with the same identifiers.
                report.refreshes_left += 1;
            } else if refused.is_empty() {
                self.state.note_handled(&refresh.job_id, handled);
            } else {
                self.drop_job(&refresh.job_id, refused.join("; "), report);
            }
        }
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
                format_time(from)
            )),
            None => {}
        }
        self.state
    }
}

impl Published {
    /// Sends alerts about the published events.
    pub(crate) async fn alert(
        &self,
        topic: &impl Topic<AlertMessage>,
        wanted: &AlertEvents,
    ) -> Vec<lambda_support::BoxError> {
        let recovered = self.recovered.iter().filter(|(registration, _)| wanted.contains(&registration.event));
        let recovered: Vec<_> = recovered.map(|(registration, refresh)| (registration.clone(), refresh)).collect();
        let is_wanted = |(_, refresh): &&(SiteName, Refresh)| {
            refresh.events().any(|(event, _)| is_failure(&event) && wanted.contains(&event))
        };
        let explained: Vec<_> =
            self.explained.iter().filter(is_wanted).map(|(site, refresh)| (site, refresh)).collect();
        let alerts = recovered_alert(&recovered).into_iter().chain(explained_alerts(&explained));
        // All are tried, even if some fail.
        join_all(alerts.map(|alert| topic.publish(alert))).await.into_iter().filter_map(Result::err).collect()
    }

    /// Returns the sites with published events.
    pub(crate) fn sites(&self) -> BTreeSet<&SiteName> {
        let recovered = self.recovered.iter().map(|(registration, _)| &registration.site);
        recovered.chain(self.explained.iter().map(|(site, _)| site)).collect()
    }
}
