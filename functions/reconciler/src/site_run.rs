//! Run of one site: its context, its state, and its outcome.

use std::{collections::BTreeSet, time::Duration};

use lambda_support::{error_chain, metrics::MetricLog};
use shared::{
    events::catalogue::Event,
    problems::{ProblemKey, ProblemKind},
    refreshes::{
        health::{healthy_events, refresh_events},
        state::{Outage, RefreshState},
        window::Clock,
    },
    registration::keyring::Keyring,
    sites::{entry::SiteEntry, plan::Change, token_end::TokenEndState, webhook::ObservedWebhook},
    state::{Progress, SiteState},
    timestamp::Timestamp,
};
use tableau::{Session, Tableau};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    config::Config,
    refreshes::{Budget, SiteRefreshes, log_not_recovered},
    remedies::Advice,
    report::{NotRecovered, SiteReport},
    request::Action,
    state::{SiteItems, State, Stored},
    state_table::StateTable,
};

/// The time that must be left for a change or a test: itself, listing again and signing out.
pub(crate) const CHANGE_TIME: Duration = Duration::from_secs(45);

/// Context of a run: the same for all its sites.
#[derive(Debug)]
pub(crate) struct RunContext<'a, T> {
    pub(crate) config: &'a Config,
    pub(crate) tableau: &'a Tableau,
    pub(crate) log: &'a MetricLog,
    pub(crate) action: Action,
    pub(crate) keyring: &'a Keyring,
    pub(crate) state: &'a State<'a, T>,
    /// How long ago a refresh may have ended to be recovered or explained; `None` if none is.
    pub(crate) lookback: Option<time::Duration>,
    pub(crate) jobs: Budget,
    pub(crate) successes: Budget,
    pub(crate) resources: Budget,
    /// When the run began.
    pub(crate) now: OffsetDateTime,
    /// When the run of each site must have ended.
    pub(crate) deadline: Instant,
    /// When the whole run must have ended.
    pub(crate) ends_by: Instant,
}

/// Outcome of the run of one site.
#[derive(Debug)]
pub(crate) struct SiteOutcome {
    pub(crate) report: SiteReport,
    pub(crate) progress: Progress,
    /// Whether another run had its token.
    pub(crate) is_left: bool,
    /// The state as it is stored at this moment.
    pub(crate) stored: Stored<SiteState>,
    /// Due events of its refreshes, and their state from now on; `None` if they have no state.
    pub(crate) refreshes: Option<SiteRefreshes>,
    /// The end of its token, as it is known from now on.
    pub(crate) token_end: Stored<TokenEndState>,
    /// When the present stage of that end began, if it is announced.
    pub(crate) token_stage: Option<OffsetDateTime>,
}

/// The run of one site, and its outcome so far.
pub(crate) struct SiteRun<'a, T> {
    pub(crate) run: &'a RunContext<'a, T>,
    pub(crate) advice: Advice<'a>,
    pub(crate) wanted: &'a BTreeSet<Event>,
    stored: Stored<SiteState>,
    /// The state of its refreshes, if they are recovered and it has one.
    pub(crate) refreshes: Option<RefreshState>,
    /// The end of its token, as far as it is known.
    pub(crate) token_end: Stored<TokenEndState>,
    /// Whether Tableau accepted the token.
    pub(crate) is_signed_in: bool,
    progress: Progress,
    pub(crate) report: SiteReport,
    /// When the run of the site must have ended.
    deadline: Instant,
}

impl<T> RunContext<'_, T> {
    /// Returns the progress at a site that the run tried to check. A run that looks at no webhook leaves checks to others.
    pub(crate) fn attempted(&self) -> Progress {
        if self.action == Action::Explain { Progress::Left } else { Progress::Attempted }
    }
}

impl SiteOutcome {
    /// An outcome that changes no state.
    pub(crate) fn unchanged(mut report: SiteReport, progress: Progress, items: SiteItems) -> Self {
        let SiteItems { site: stored, token_end, .. } = items;
        let refreshes = stored.content.refreshes.clone().map(SiteRefreshes::unread);
        report.token_ends = token_end.content.ends();
        Self { report, progress, is_left: false, stored, refreshes, token_end, token_stage: None }
    }
}

impl<'a, T: StateTable> SiteRun<'a, T> {
    /// Begins with a site, until the `deadline` of its turn.
    pub(crate) fn new(run: &'a RunContext<'a, T>, entry: &'a SiteEntry, deadline: Instant) -> Self {
        let SiteItems { site: stored, token_end, .. } = run.state.items(entry.name.as_str());
        let wanted = entry.events.as_ref().unwrap_or(&run.config.events);
        let mut report = SiteReport::new(entry.name.as_str());
        report.notes.extend(wanted.iter().filter(|event| !event.is_known()).map(unknown_event));
        Self {
            run,
            advice: Advice { config: run.config, action: run.action, entry },
            wanted,
            refreshes: stored.content.refreshes.clone().filter(|_| run.lookback.is_some()),
            token_end,
            stored,
            is_signed_in: false,
            progress: run.attempted(),
            report,
            deadline,
        }
    }

    /// Returns the outcome, with the refreshes whose jobs were read.
    pub(crate) fn into_outcome(mut self, refreshes: Option<SiteRefreshes>) -> SiteOutcome {
        let token_stage = self.note_token_end();
        let Self { report, progress, stored, refreshes: unread, token_end, .. } = self;
        tracing::info!(
            outcome = if report.failed() { "failed" } else { "succeeded" },
            updated = report.updated.len(),
            enabled = report.enabled.len(),
            created = report.created.len(),
            deleted = report.deleted.len() + report.surplus.len(),
            unchanged = report.unchanged.len(),
            foreign = report.foreign.len(),
            tests = report.tests.len(),
            errors = report.errors.len(),
            "ended the run of the site"
        );
        let refreshes = refreshes.or(unread.map(SiteRefreshes::unread));
        SiteOutcome { report, progress, is_left: false, stored, refreshes, token_end, token_stage }
    }
}

impl<T: StateTable> SiteRun<'_, T> {
    pub(crate) fn has_time(&self, needed: Duration) -> bool {
        Instant::now() + needed < self.deadline
    }

    /// Notes that the webhooks were listed.
    pub(crate) fn note_checked(&mut self) {
        self.progress = Progress::Checked;
    }

    /// Whether subscribers know of a problem of this kind.
    pub(crate) fn has_known_problem(&self, kind: ProblemKind) -> bool {
        self.stored.content.problems.keys().any(|problem| problem.kind == kind)
    }

    /// Whether refreshes of the site are recovered and explained. Nobody misses events of webhooks that were deleted on
    /// request.
    fn is_recovered(&self) -> bool {
        self.run.lookback.is_some() && self.run.action != Action::Destroy
    }

    /// Stores new outages and disabled webhooks before the repair, after which no list shows them any more.
    pub(crate) async fn checkpoint_before_repair(
        &mut self,
        session: &Session<'_>,
        observed: &[ObservedWebhook],
        changes: &[Change],
    ) {
        let outages = if self.is_recovered() { self.note_outages(session, observed) } else { Vec::new() };
        let disabled: Vec<_> = self.disabled(changes).collect();
        if outages.is_empty() && disabled.is_empty() {
            return;
        }
        let before = self.stored.content.clone();
        let now = Timestamp(self.run.now.truncate_to_second());
        self.stored.content.problems.extend(disabled.into_iter().map(|problem| (problem, now)));
        self.stored.content.refreshes = self.refreshes.clone();
        let site = self.advice.entry.name.as_str();
        let Err(error) = self.run.state.checkpoint(site, &mut self.stored).await else { return };
        self.stored.content = before;
        if !outages.is_empty() {
            let reason = format!("it could not be stored that they were down: {}", error_chain(&*error));
            self.report_not_recovered(NotRecovered {
                job: None,
                events: outages.iter().map(|outage| outage.event.clone()).collect(),
                from: outages.iter().map(|outage| outage.from.0).min(),
                until: Some(OffsetDateTime::now_utc()),
                reason,
            });
        }
    }

    /// Returns the problem of each disabled webhook that the changes enable again.
    fn disabled<'c>(&self, changes: &'c [Change]) -> impl Iterator<Item = ProblemKey> + use<'c, '_, T> {
        let prefix = &self.run.config.name_prefix;
        changes.iter().filter_map(|change| match change {
            Change::Enable { observed, .. } | Change::Update { observed, .. } if !observed.is_enabled => {
                Some(ProblemKey { kind: ProblemKind::WebhookDisabled, event: prefix.event_of(&observed.name) })
            }
            _ => None,
        })
    }

    /// Notes which webhooks are down. Returns the new outages.
    fn note_outages(&mut self, session: &Session<'_>, observed: &[ObservedWebhook]) -> Vec<Outage> {
        let Self { run, wanted, refreshes, report, advice, .. } = self;
        let Config { name_prefix, receiver, .. } = run.config;
        let site = &advice.entry.name;
        let healthy = healthy_events(site, observed, receiver, run.keyring);
        let owned: BTreeSet<_> = observed.iter().filter_map(|webhook| name_prefix.event_of(&webhook.name)).collect();
        if let Some(state) = refreshes {
            let clock = Clock { now: run.now, skew: session.clock_skew() };
            return state.note_outages(run.state.run.content.checked(site), clock, wanted, &healthy, &owned);
        }
        // Without state of the runs, the report says so of all sites at once.
        if run.state.run.is_known {
            report.notes.push("It is new, or its state was lost: its refreshes count from now on.".to_owned());
        }
        // With unreadable state, a webhook that is not there may be new or may have been deleted.
        let is_unknown = run.state.error.is_some();
        let is_down = |event: &Event| (is_unknown || owned.contains(event)) && !healthy.contains(event);
        let events: BTreeSet<_> = refresh_events(wanted).into_iter().filter(is_down).collect();
        if !events.is_empty() {
            let reason = match &run.state.error {
                Some(_) => "the state cannot be read, so that it is not known since when they were down",
                None => "there is no state of this site, so that it is not known since when they were down",
            };
            let reason = reason.to_owned();
            let until = Some(run.now);
            self.report_not_recovered(NotRecovered { job: None, events, from: None, until, reason });
        }
        Vec::new()
    }

    /// Reports refreshes that are not recovered, and logs them: a run that is cut off later has no other report.
    fn report_not_recovered(&mut self, not_recovered: NotRecovered) {
        log_not_recovered(self.run.log, self.advice.entry.name.as_str(), [&not_recovered]);
        self.report.not_recovered.push(not_recovered);
    }

    /// Notes which webhooks work after the repair.
    pub(crate) fn note_repaired(&mut self, session: &Session<'_>, observed: &[ObservedWebhook]) {
        if !self.is_recovered() || self.run.state.error.is_some() {
            return;
        }
        let Config { receiver, .. } = self.run.config;
        let healthy = healthy_events(&self.advice.entry.name, observed, receiver, self.run.keyring);
        let started = Clock { now: self.run.now, skew: session.clock_skew() };
        let state = self.refreshes.get_or_insert_with(|| RefreshState::new(started, &healthy));
        let clock = Clock { now: OffsetDateTime::now_utc(), ..started };
        state.note_repaired(clock, self.wanted, &healthy);
    }

    /// Returns the state of the site's refreshes and how far back to read jobs, if they are read.
    pub(crate) fn refreshes_to_read(&mut self) -> Option<(RefreshState, time::Duration)> {
        if self.run.action == Action::Destroy {
            self.refreshes = None;
        }
        if !self.is_recovered() || !self.has_time(CHANGE_TIME) || self.run.state.error.is_some() {
            return None;
        }
        Some((self.refreshes.clone()?, self.run.lookback?))
    }
}

fn unknown_event(event: &Event) -> String {
    format!("{event} is not an event this release knows; it is registered all the same")
}
