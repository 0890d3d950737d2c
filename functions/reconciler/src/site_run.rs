//! A visit to one site: signed in to, listed, compared, put right, listed again, signed out of.

use std::{collections::BTreeSet, time::Duration};

use lambda_support::{error_chain, metrics::MetricLog};
use shared::{
    events::catalogue::Event,
    problems::ProblemKind,
    redaction::known_secrets::KnownSecrets,
    refreshes::{
        health::{healthy_events, refresh_events},
        state::RefreshState,
        window::Clock,
    },
    registration::keyring::Keyring,
    sites::{
        entry::SiteEntry,
        plan::{Change, Plan},
        webhook::{DesiredWebhook, ObservedWebhook},
    },
    state::{Progress, SiteState},
};
use tableau::{Session, Tableau, TableauError, Webhooks};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    config::Config,
    recovery::{JobBudget, SiteRefreshes, log_given_up},
    remedies::{Advice, out_of_time},
    report::{Enabled, NotRecovered, Outcome, SiteReport, Tested},
    request::Action,
    state::{State, Stored},
    state_table::StateTable,
};

/// How much time there must be left for a site to be looked at: signing in, listing and signing out, with Tableau as slow
/// as it has been seen.
const SITE_TIME: Duration = Duration::from_secs(60);

/// How much time there must be left for a change or a test: itself, listing again and signing out.
const CHANGE_TIME: Duration = Duration::from_secs(45);

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
    pub(crate) jobs: JobBudget,
    /// When the run began.
    pub(crate) now: OffsetDateTime,
    /// When the run of each site must have ended.
    pub(crate) deadline: Instant,
}

/// What came of one site.
#[derive(Debug)]
pub(crate) struct SiteOutcome {
    pub(crate) report: SiteReport,
    pub(crate) progress: Progress,
    /// The state as it is stored at this moment.
    pub(crate) stored: Stored<SiteState>,
    /// What is due of its refreshes, and their state from now on; `None` if there is none.
    pub(crate) refreshes: Option<SiteRefreshes>,
}

/// The run of one site, and what came of it so far.
struct SiteRun<'a, T> {
    run: &'a RunContext<'a, T>,
    advice: Advice<'a>,
    wanted: &'a BTreeSet<Event>,
    stored: Stored<SiteState>,
    /// The state of its refreshes, if they are recovered and it has one.
    refreshes: Option<RefreshState>,
    progress: Progress,
    report: SiteReport,
    /// When the run of the site must have ended.
    deadline: Instant,
}

impl SiteOutcome {
    /// An outcome of which nothing but the report is new.
    pub(crate) fn unchanged(report: SiteReport, progress: Progress, stored: Stored<SiteState>) -> Self {
        let refreshes = stored.content.refreshes.clone().map(SiteRefreshes::unread);
        Self { report, progress, stored, refreshes }
    }
}

impl<T: StateTable> RunContext<'_, T> {
    /// Does at one site what was asked for, until the `deadline` of its turn.
    #[tracing::instrument(skip_all, fields(site = %entry.name))]
    pub(crate) async fn site(&self, entry: &SiteEntry, deadline: Instant) -> SiteOutcome {
        let Self { config, tableau, action, keyring, .. } = self;
        let stored = self.state.site(entry.name.as_str());
        if Instant::now() + SITE_TIME >= self.deadline {
            let then = action.or_again("The next run begins with it");
            let what = format!("Not looked at, since there was no time left. {then}.");
            let report = SiteReport::of_failure(entry.name.as_str(), out_of_time(what));
            return SiteOutcome::unchanged(report, Progress::OutOfTime, stored);
        }
        let Config { name_prefix, receiver, events, .. } = config;
        let events = entry.events.as_ref().unwrap_or(events);
        let mut site = SiteRun {
            run: self,
            advice: Advice { config, action: *action, entry },
            wanted: events,
            refreshes: stored.content.refreshes.clone().filter(|_| self.lookback.is_some()),
            stored,
            progress: Progress::Attempted,
            report: SiteReport::new(entry.name.as_str()),
            deadline,
        };
        site.report.notes.extend(events.iter().filter(|event| !event.is_known()).map(unknown_event));
        let desired = match action {
            Action::Destroy => Vec::new(),
            _ => DesiredWebhook::all(&entry.name, events, name_prefix, receiver, keyring),
        };
        let mut refreshes = None;
        let secrets = KnownSecrets::of_addresses(&entry.name, events.iter().cloned(), keyring);
        match tableau.sign_in(entry, secrets, deadline).await {
            Ok(mut session) => {
                let result = match action {
                    Action::Plan => site.plan(&mut session, desired).await,
                    Action::Apply | Action::Rotate | Action::Destroy => site.converge(&mut session, desired).await,
                    Action::Test => site.test_all(&mut session).await,
                };
                match result {
                    Ok(()) => refreshes = site.read_jobs(&mut session).await,
                    Err(error) => site.report.errors.push(site.advice.on_site(&error)),
                }
                if let Err(error) = session.sign_out().await {
                    let error = error_chain(&error);
                    tracing::warn!(error, "the session could not be ended; it ends by itself or at the next sign-in");
                }
            }
            Err(error) => site.report.errors.push(site.advice.on_site(&error)),
        }
        let SiteRun { report, progress, stored, refreshes: unread, .. } = site;
        tracing::info!(
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
        SiteOutcome { report, progress, stored, refreshes: refreshes.or(unread.map(SiteRefreshes::unread)) }
    }
}

impl<T: StateTable> SiteRun<'_, T> {
    fn has_time(&self, needed: Duration) -> bool {
        Instant::now() + needed < self.deadline
    }

    /// Lists the site's webhooks, of which each that may be ours can be read.
    async fn list(&self, session: &mut Session<'_>) -> Result<Webhooks, TableauError> {
        let Config { name_prefix, receiver, .. } = self.run.config;
        session.list(|odd| name_prefix.may_own(odd, receiver)).await
    }

    /// Compares, and reports what there is to change as if it were done.
    async fn plan(&mut self, session: &mut Session<'_>, desired: Vec<DesiredWebhook>) -> Result<(), TableauError> {
        let prefix = &self.run.config.name_prefix;
        let Webhooks { readable, odd } = self.list(session).await?;
        let Plan { changes, unchanged, foreign } = Plan::new(prefix, desired, readable);
        self.report.unchanged = unchanged;
        self.report.add_foreign(foreign, odd);
        changes.into_iter().for_each(|change| self.done(change));
        Ok(())
    }

    /// Compares, changes, compares again, and has Tableau test what is new.
    async fn converge(&mut self, session: &mut Session<'_>, desired: Vec<DesiredWebhook>) -> Result<(), TableauError> {
        let prefix = &self.run.config.name_prefix;
        let Webhooks { readable: mut observed, odd } = self.list(session).await?;
        self.progress = Progress::Checked;
        self.note_outages(session, &observed).await;
        let Plan { mut changes, unchanged, foreign } = Plan::new(prefix, desired.clone(), observed.clone());
        self.report.unchanged = unchanged;
        self.report.add_foreign(foreign, odd);
        let mut may_repeat = true;
        let mut not_right = BTreeSet::new();
        while !changes.is_empty() {
            let uncertain = self.carry_out_all(session, changes, &mut not_right).await?;
            // Before there is another one to keep.
            drop(observed);
            observed = self.list(session).await?.readable;
            let left = Plan::new(prefix, desired.clone(), observed.clone()).changes;
            // What became of a change without a good answer, the list tells. What is missing is made, once more: never
            // without looking, or there would be two. What is left to do for the same webhook may be another thing, too: a
            // copy that somebody else made is no reason to make a third.
            let what = |change: &Change| (kind_of(change), name_of(change).to_owned());
            let left_to_do: BTreeSet<_> = left.iter().map(what).collect();
            let is_left = |change: &Change| left_to_do.contains(&what(change));
            let (failed, done): (Vec<_>, Vec<_>) = uncertain.into_iter().partition(|(change, _)| is_left(change));
            for (change, _) in done {
                not_right.remove(name_of(&change));
                self.done(change);
            }
            if !failed.is_empty() && may_repeat {
                may_repeat = false;
                changes = failed.into_iter().map(|(change, _)| change).collect();
                continue;
            }
            let errors = failed.iter().filter_map(|(_, error)| error.as_ref());
            self.report.errors.extend(errors.map(|error| self.advice.on_site(error)));
            // A change that failed is reported already, by its cause.
            if !left.is_empty() && !self.report.failed() {
                self.report.errors.push(self.advice.on_differences(left.iter().map(name_of)));
            }
            break;
        }
        self.note_repaired(session, &observed);
        // What Tableau disabled, and one of those with a new address: the others differ from it in nothing that a test
        // could show. So too where the last test failed, until one succeeds.
        let SiteReport { updated, created, unchanged, enabled, .. } = &self.report;
        let test_failed = self.stored.content.problems.keys().any(|problem| problem.kind == ProblemKind::TestFailed);
        let new = updated.iter().chain(created).chain(unchanged.iter().filter(|_| test_failed)).take(1);
        let to_test: BTreeSet<_> = enabled.iter().map(|Enabled { name, .. }| name).chain(new).cloned().collect();
        self.test(session, observed, &to_test).await;
        Ok(())
    }

    /// Whether refreshes of the site are recovered and explained. Webhooks deleted on purpose are not missed.
    fn is_recovered(&self) -> bool {
        self.run.lookback.is_some() && self.run.action != Action::Destroy
    }

    /// Notes which webhooks are down, and stores what is new of it before anything is repaired: afterwards nothing would
    /// show it any more.
    async fn note_outages(&mut self, session: &Session<'_>, observed: &[ObservedWebhook]) {
        if !self.is_recovered() {
            return;
        }
        let Self { run, wanted, stored, refreshes, report, advice, .. } = self;
        let Config { name_prefix, receiver, .. } = run.config;
        let site = &advice.entry.name;
        let healthy = healthy_events(site, observed, receiver, run.keyring);
        let clock = Clock { now: run.now, ahead: session.clock_skew() };
        let owned: BTreeSet<_> = observed.iter().filter_map(|webhook| name_prefix.event_of(&webhook.name)).collect();
        let Some(state) = refreshes else {
            let is_down = |event: &Event| owned.contains(event) && !healthy.contains(event);
            let events: BTreeSet<_> = refresh_events(wanted).into_iter().filter(is_down).collect();
            if !events.is_empty() {
                let reason = "there is no state of this site, so that it is not known since when they were down";
                let not_recovered =
                    NotRecovered { job: None, events, from: None, until: Some(run.now), reason: reason.to_owned() };
                log_given_up(run.log, site.as_str(), [&not_recovered]);
                report.not_recovered.push(not_recovered);
            }
            // Otherwise that is said of all sites.
            if run.state.run.is_known {
                report.notes.push("It is new, or its state was lost: its refreshes count from now on.".to_owned());
            }
            return;
        };
        let outages = state.note_outages(run.state.run.content.checked(site), clock, wanted, &healthy, &owned);
        if outages.is_empty() {
            return;
        }
        let content = SiteState { refreshes: Some(state.clone()), ..stored.content.clone() };
        match run.state.checkpoint(site.as_str(), &content, &mut stored.version).await {
            Ok(()) => stored.content = content,
            Err(error) => {
                let not_recovered = NotRecovered {
                    job: None,
                    events: outages.iter().map(|outage| outage.event.clone()).collect(),
                    from: outages.iter().map(|outage| outage.from.0).min(),
                    until: Some(OffsetDateTime::now_utc()),
                    reason: format!("it could not be stored that they were down: {}", error_chain(&*error)),
                };
                log_given_up(run.log, site.as_str(), [&not_recovered]);
                report.not_recovered.push(not_recovered);
            }
        }
    }

    /// Notes which webhooks work after the repair.
    fn note_repaired(&mut self, session: &Session<'_>, observed: &[ObservedWebhook]) {
        if !self.is_recovered() || self.run.state.error.is_some() {
            return;
        }
        let Config { receiver, .. } = self.run.config;
        let healthy = healthy_events(&self.advice.entry.name, observed, receiver, self.run.keyring);
        let started = Clock { now: self.run.now, ahead: session.clock_skew() };
        let state = self.refreshes.get_or_insert_with(|| RefreshState::new(started, &healthy));
        let clock = Clock { now: OffsetDateTime::now_utc(), ..started };
        state.note_repaired(clock, self.wanted, &healthy);
    }

    /// Reads the site's jobs, after everything else.
    async fn read_jobs(&mut self, session: &mut Session<'_>) -> Option<SiteRefreshes> {
        if self.run.action == Action::Destroy {
            self.refreshes = None;
        }
        if !self.is_recovered() || !self.has_time(CHANGE_TIME) || self.run.state.error.is_some() {
            return None;
        }
        let (state, deadline) = (self.refreshes.clone()?, self.deadline);
        let times = (self.run.now, self.run.lookback?);
        let has_time = || Instant::now() + CHANGE_TIME < deadline;
        let report = (&mut self.report, &self.run.jobs);
        Some(SiteRefreshes::read(session, state, times, self.wanted, report, has_time).await)
    }

    /// Carries changes out, as far as there is time. Returns those without a good answer, with what went wrong if they were
    /// tried at all.
    ///
    /// `not_right` holds the names of what could not be put right. Surplus copies of such a webhook stay, since one of
    /// them may be what works.
    async fn carry_out_all(
        &mut self,
        session: &mut Session<'_>,
        changes: Vec<Change>,
        not_right: &mut BTreeSet<String>,
    ) -> Result<Vec<(Change, Option<TableauError>)>, TableauError> {
        let mut uncertain = Vec::new();
        for change in changes {
            let name = name_of(&change).to_owned();
            if !self.has_time(CHANGE_TIME) {
                let then = self.run.action.or_again("The next run goes on");
                self.report.errors.push(out_of_time(format!("No time was left for {name}. {then}.")));
                continue;
            }
            if matches!(change, Change::Delete { is_surplus: true, .. }) && not_right.contains(&name) {
                uncertain.push((change, None));
                continue;
            }
            let is_delete = matches!(change, Change::Delete { .. });
            match carry_out(session, &change).await {
                Ok(()) => {
                    tracing::info!(webhook.name = name, change = kind_of(&change), "changed a webhook");
                    not_right.remove(&name);
                    self.done(change);
                    continue;
                }
                // The other changes are as right as before.
                Err(error) if error.is_local() => self.report.errors.push(self.advice.on_change(&change, &error)),
                Err(error) if error.is_uncertain() => uncertain.push((change, Some(error))),
                Err(error) => return Err(error),
            }
            // A copy that cannot be deleted is no reason to keep it.
            if !is_delete {
                not_right.insert(name);
            }
        }
        Ok(uncertain)
    }

    /// Has Tableau test every webhook of ours.
    async fn test_all(&mut self, session: &mut Session<'_>) -> Result<(), TableauError> {
        let is_ours = |webhook: &ObservedWebhook| self.run.config.name_prefix.event_of(&webhook.name).is_some();
        let observed: Vec<_> = self.list(session).await?.readable.into_iter().filter(is_ours).collect();
        let names = observed.iter().map(|webhook| webhook.name.clone()).collect();
        self.test(session, observed, &names).await;
        // Whoever asks for tests asks whether they succeed.
        let failed = std::mem::take(&mut self.report.warnings);
        self.report.errors.extend(failed);
        Ok(())
    }

    /// Has Tableau test webhooks, by name. A test that fails changes nothing and is a warning.
    async fn test(&mut self, session: &mut Session<'_>, mut observed: Vec<ObservedWebhook>, names: &BTreeSet<String>) {
        // Sorted, so that a report reads the same whatever order Tableau lists in.
        observed.sort_by(|a, b| a.name.cmp(&b.name));
        for webhook in observed.into_iter().filter(|webhook| names.contains(&webhook.name)) {
            if !self.has_time(CHANGE_TIME) {
                let what = format!("{} was not tested, since there was no time left.", webhook.name);
                self.report.notes.push(what.clone());
                self.report.warnings.push(out_of_time(what));
                continue;
            }
            let outcome = match session.test(&webhook.id).await {
                Ok(status) => Outcome::Status(status),
                Err(error) => Outcome::Error(error_chain(&error)),
            };
            self.report.tests.push(Tested { name: webhook.name, outcome });
        }
        self.report.warnings.extend(self.advice.on_tests(&self.report.tests));
    }

    /// Reports a change.
    fn done(&mut self, change: Change) {
        let report = &mut self.report;
        let disabled = match change {
            Change::Update { observed, desired } => {
                report.updated.push(desired.name);
                Some(observed).filter(|observed| !observed.is_enabled)
            }
            Change::Enable { observed, .. } => Some(observed),
            Change::Create { desired } => {
                report.created.push(desired.name);
                None
            }
            Change::Delete { observed, is_surplus } => {
                if is_surplus { &mut report.surplus } else { &mut report.deleted }.push(observed.name);
                None
            }
        };
        if let Some(ObservedWebhook { name, status_change_reason, updated_at, .. }) = disabled {
            let enabled = Enabled { name, reason: status_change_reason, since: updated_at };
            report.warnings.push(self.advice.on_disabled(&enabled));
            report.enabled.push(enabled);
        }
    }
}

async fn carry_out(session: &mut Session<'_>, change: &Change) -> Result<(), TableauError> {
    match change {
        Change::Update { observed, desired } | Change::Enable { observed, desired } => {
            session.update(&observed.id, desired).await
        }
        Change::Create { desired } => session.create(desired).await,
        Change::Delete { observed, .. } => session.delete(&observed.id).await,
    }
}

fn name_of(change: &Change) -> &str {
    match change {
        Change::Create { desired } => &desired.name,
        Change::Update { observed, .. } | Change::Enable { observed, .. } | Change::Delete { observed, .. } => {
            &observed.name
        }
    }
}

fn kind_of(change: &Change) -> &'static str {
    match change {
        Change::Create { .. } => "create",
        Change::Update { .. } => "move",
        Change::Enable { .. } => "enable",
        Change::Delete { .. } => "delete",
    }
}

fn unknown_event(event: &Event) -> String {
    format!("{event} is not an event this release knows; it is registered all the same")
}
