//! The end of a run: publishes due events, sends alerts, and then stores the state.

use std::collections::{BTreeMap, BTreeSet};

use lambda_support::{error_chain, topic::Topic};
use shared::{
    alerts::{
        message::AlertMessage,
        state::{AlertPlan, Findings},
    },
    events::cloud_event::EventMessage,
    problems::{Problem, ProblemKind},
    refreshes::failing::FailingResources,
    registration::site_name::SiteName,
    state::{
        Progress, RUN_KEY, RunState, SITE_PREFIX, SiteState, TOKEN_END_PREFIX, failing_key, site_key, to_item,
        token_end_key,
    },
};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    alerting,
    publishing::{EventPublisher, Published},
    refreshes::{SiteRefreshes, log_not_recovered},
    remedies::{alerts_lost, lost},
    request::Action,
    site_run::{RunContext, SiteOutcome},
    state::{SiteItems, State, Stored, Unstored},
    state_table::{StateTable, WriteError},
};

/// The end of a run, with what it adds to the report.
pub(crate) struct Ending<'a, T, A> {
    run: &'a RunContext<'a, T>,
    events: &'a A,
    /// The alerts topic, if there is one.
    alerts: Option<&'a A>,
    /// The names of the declared sites.
    declared: &'a BTreeSet<String>,
    pub(crate) notes: Vec<String>,
    /// The reason why events could not be published.
    pub(crate) refreshes_error: Option<String>,
    /// The reason why alerts could not be sent.
    pub(crate) alerts_error: Option<String>,
    /// The reason why the state could not be read or stored.
    pub(crate) state_error: Option<String>,
    /// The failing resources of each declared site, as they were stored; `None` for a site whose state was not stored.
    pub(crate) failing: BTreeMap<String, Option<FailingResources>>,
}

impl<'a, T: StateTable, A: Topic<AlertMessage> + Topic<EventMessage>> Ending<'a, T, A> {
    /// The end of a run, with its topics.
    pub(crate) fn new(
        run: &'a RunContext<'a, T>,
        events: &'a A,
        alerts: Option<&'a A>,
        declared: &'a BTreeSet<String>,
    ) -> Self {
        let (notes, refreshes_error, alerts_error, state_error) = (Vec::new(), None, None, None);
        let failing = declared.iter().map(|site| (site.clone(), None)).collect();
        Self { run, events, alerts, declared, notes, refreshes_error, alerts_error, state_error, failing }
    }

    /// Publishes, alerts, and stores. The next run publishes and alerts again what SNS did not accept.
    pub(crate) async fn carry_out(&mut self, outcomes: &mut [SiteOutcome], deadline: Instant) {
        if matches!(self.run.action, Action::Plan | Action::Test) {
            return;
        }
        // The webhooks of the sites were just deleted: their earlier state concerns nobody.
        if self.run.action != Action::Destroy {
            self.note_unknown_state();
        }
        let published = self.publish(outcomes, deadline).await;
        let mut sites = self.site_states(outcomes);
        self.alert_of_refreshes(&published, outcomes).await;
        let before = self.store_failing(outcomes, &mut sites).await;
        let mut run = self.run_state(outcomes);
        self.alert_of_problems(outcomes, &mut sites, &mut run).await;
        self.store(sites, run, before).await;
    }

    /// Reports which state of earlier runs is unknown, and whether that is a failure of this one.
    fn note_unknown_state(&mut self) {
        let state = self.run.state;
        if let Some(error) = &state.error {
            self.notes.push(format!(
                "The state cannot be read: {error}. Webhooks are kept all the same; no problem is alerted, and no refresh \
                 recovered or explained."
            ));
            self.state_error = Some(error.clone());
            return;
        }
        let is_first = state.run.version.is_none();
        if is_first && self.run.lookback.is_some() {
            self.notes.push(
                "There is no state yet, since this is the first run or it was lost: this run recovers no refresh, and \
                 failures from now on are explained."
                    .to_owned(),
            );
        }
        let mut invalid = state.invalid.clone();
        invalid.extend((!is_first && !state.run.is_known).then(|| "the runs".to_owned()));
        if !invalid.is_empty() {
            let error = format!("the state of {} is of another format, or was changed by hand", invalid.join(", "));
            self.notes.push(format!(
                "It is not known what earlier runs found there and how far they recovered refreshes: {error}. It is \
                 replaced."
            ));
            self.state_error = Some(error);
        }
    }

    async fn publish(&mut self, outcomes: &mut [SiteOutcome], deadline: Instant) -> Published {
        let mut published = Published::default();
        let publisher = EventPublisher { topic: self.events, log: self.run.log };
        for SiteOutcome { report, refreshes, .. } in outcomes {
            if let (Some(refreshes), Ok(site)) = (refreshes, report.site.parse::<SiteName>()) {
                refreshes.publish(&site, &publisher, report, &mut published, deadline).await;
            }
        }
        if let Some(error) = &published.error {
            self.notes.push(format!("Not all that is due of refreshes was published: {error}. The next run goes on."));
            self.refreshes_error = Some(error.clone());
        }
        published
    }

    /// Returns the state of each site after the run, with the alert state from before it. A site that is no longer declared
    /// has only the problems of which subscribers know.
    fn site_states(&self, outcomes: &mut [SiteOutcome]) -> BTreeMap<String, SiteItems> {
        let state = self.run.state;
        let names = self.declared.iter().map(String::as_str).chain(state.sites());
        let mut sites: BTreeMap<_, _> = names.map(|site| (site.to_owned(), state.items(site))).collect();
        for SiteOutcome { report, refreshes, stored, token_end, .. } in outcomes {
            let refreshes =
                refreshes.take().map(|refreshes| SiteRefreshes::into_state(refreshes, self.run.action, report));
            // The log has those that were found before the repair.
            log_not_recovered(self.run.log, &report.site, report.not_recovered.iter().filter(|it| it.is_new()));
            report.warnings.extend(lost(&report.not_recovered, &self.run.config.name_prefix.to_string()));
            if let Some(SiteItems { site, token_end: end, .. }) = sites.get_mut(&report.site) {
                let content = SiteState { refreshes, ..std::mem::take(&mut site.content) };
                *site = Stored { content, ..stored.clone() };
                *end = token_end.clone();
            }
        }
        sites
    }

    /// Stores the failing resources, before the state of a site says that their jobs are handled. Where that fails, the jobs
    /// count as not handled, so that the next run repeats them. Returns what could not be stored.
    async fn store_failing(&self, outcomes: &[SiteOutcome], sites: &mut BTreeMap<String, SiteItems>) -> Unstored {
        let (unstored, failed) = self.run.state.store_failing(self.declared, sites).await;
        for outcome in outcomes.iter().filter(|outcome| failed.contains(&outcome.report.site)) {
            if let Some(items) = sites.get_mut(&outcome.report.site) {
                items.site.content.refreshes.clone_from(&outcome.stored.content.refreshes);
            }
        }
        unstored
    }

    /// Returns the state of the runs after this one, with the alert state from before it.
    fn run_state(&self, outcomes: &[SiteOutcome]) -> Stored<RunState> {
        let mut state = self.run.state.run.clone();
        let progress = self.declared.iter().filter_map(|site| {
            let outcome = outcomes.iter().find(|outcome| outcome.report.site == *site);
            Some((site.parse().ok()?, outcome.map_or(Progress::Left, |outcome| outcome.progress)))
        });
        state.content.note_progress(&progress.collect(), self.run.now);
        state
    }

    /// Sends alerts about published events.
    async fn alert_of_refreshes(&mut self, published: &Published, outcomes: &mut [SiteOutcome]) {
        let Some(alerts) = self.alerts else { return };
        let errors = published.alert(alerts, &self.run.config.alert_events).await;
        let Some(error) = errors.first().map(|error| error_chain(error)) else { return };
        self.notes.push(format!("Alerts about refreshes could not be sent: {error}."));
        self.alerts_error = Some(error.clone());
        let sites: BTreeSet<_> = published.sites().into_iter().map(ToString::to_string).collect();
        for SiteOutcome { report, .. } in outcomes.iter_mut().filter(|outcome| sites.contains(&outcome.report.site)) {
            report.warnings.push(alerts_lost(&error));
        }
    }

    /// Sends alerts about problems that began or are over, and notes in the states which subscribers know of.
    async fn alert_of_problems(
        &mut self,
        outcomes: &[SiteOutcome],
        sites: &mut BTreeMap<String, SiteItems>,
        run: &mut Stored<RunState>,
    ) {
        if self.run.state.error.is_some() || self.run.action == Action::Destroy {
            return;
        }
        let mut findings = self.findings(outcomes, sites, run);
        let mut plan = AlertPlan::new(&findings, OffsetDateTime::now_utc());
        match self.alerts {
            Some(alerts) => {
                let (lost_sites, is_run_lost) = self.store_before_alerts(&plan, sites, run).await;
                if is_run_lost || !lost_sites.is_empty() {
                    // Another run stored them meanwhile, and alerts of what it finds.
                    findings.leave(&lost_sites, is_run_lost);
                    plan = AlertPlan::new(&findings, OffsetDateTime::now_utc());
                }
                if let Err(error) = alerting::send(alerts, &mut plan).await {
                    let is_for_good = error.is_for_good();
                    let next = if is_for_good { "They are not sent again." } else { "The next run sends them." };
                    let error = error_chain(&error);
                    self.notes.push(format!("Alerts could not be sent: {error}. {next}"));
                    self.alerts_error = Some(error);
                }
            }
            None => plan.alerts.clone().iter().for_each(|alert| plan.confirm(alert)),
        }
        for (site, alerts) in plan.sites {
            if let Some(site) = sites.get_mut(&site) {
                site.set_alerts(alerts);
            }
        }
        run.content = std::mem::take(&mut run.content).with_alerts(plan.run);
    }

    /// Collects the problems that the run found at declared sites. A site that is no longer declared has none, so that the
    /// alerts of its problems are ended.
    fn findings<'f>(
        &self,
        outcomes: &'f [SiteOutcome],
        sites: &BTreeMap<String, SiteItems>,
        run: &Stored<RunState>,
    ) -> Findings<'f>
    where
        'a: 'f,
    {
        let is_checked = |outcome: &&SiteOutcome| matches!(outcome.progress, Progress::Checked | Progress::Attempted);
        // A run that looks at no webhook leaves lasting problems to the schedule.
        let is_alerted = |kind: ProblemKind| kind.is_momentary() || self.run.action != Action::Explain;
        let is_problem = |(site, problem): &(&str, &Problem)| {
            self.declared.contains(*site) && problem.kind != ProblemKind::TokenInUse && is_alerted(problem.kind)
        };
        let alerts_of = |site: &str| sites.get(site).map(SiteItems::alerts).unwrap_or_default();
        let stages = outcomes.iter().filter_map(|outcome| Some((outcome.report.site.as_str(), outcome.token_stage?)));
        let checked = outcomes.iter().filter(is_checked).map(|outcome| outcome.report.site.as_str());
        let state: &'a State<'a, T> = self.run.state;
        let removed: Vec<_> = state.sites().filter(|site| !self.declared.contains(*site)).collect();
        let names = self.declared.iter().map(String::as_str).chain(removed.iter().copied());
        Findings {
            sites: names.map(|site| (site, alerts_of(site))).collect(),
            run: run.content.alerts(),
            checked: checked.chain(removed).collect(),
            found: outcomes.iter().flat_map(|outcome| outcome.report.problems()).filter(is_problem).collect(),
            token_stages: stages.collect(),
        }
    }

    /// Stores the state of the sites, and of the runs, with a problem that begins or is solved. Returns those that another run
    /// stored meanwhile. A write that fails otherwise holds no alert back: the end of the run reports it.
    async fn store_before_alerts(
        &self,
        plan: &AlertPlan,
        sites: &mut BTreeMap<String, SiteItems>,
        run: &mut Stored<RunState>,
    ) -> (BTreeSet<String>, bool) {
        let (changing, is_run_changing) = plan.changing();
        let mut writes = Vec::new();
        for site in changing {
            let (Some(before), Some(alerts)) = (sites.get(site), plan.sites.get(site)) else { continue };
            let mut items = before.clone();
            items.set_alerts(alerts.clone());
            let SiteItems { site: state, token_end, .. } = items;
            if state.content.alerts() != before.site.content.alerts() {
                writes.push((site_key(site), state.version, Some(to_item(&state.content))));
            }
            if token_end.content.alerts() != before.token_end.content.alerts() {
                writes.push((token_end_key(site), token_end.version, Some(to_item(&token_end.content))));
            }
        }
        let run_item = || to_item(&run.content.clone().with_alerts(plan.run.clone()));
        let run_write = is_run_changing.then(|| (RUN_KEY.to_owned(), run.version, Some(run_item())));
        let written = self.run.state.write_all(writes.into_iter().chain(run_write).collect()).await;
        let (mut lost_sites, mut is_run_lost) = (BTreeSet::new(), false);
        for (key, written) in written {
            let (site, of_token) = (key.strip_prefix(SITE_PREFIX), key.strip_prefix(TOKEN_END_PREFIX));
            match (written, site.or(of_token)) {
                (Ok(()), Some(name)) => {
                    let Some(items) = sites.get_mut(name) else { continue };
                    if site.is_some() { items.site.increment_version() } else { items.token_end.increment_version() }
                }
                (Ok(()), None) => run.increment_version(),
                (Err(WriteError::Conflict), Some(site)) => _ = lost_sites.insert(site.to_owned()),
                (Err(WriteError::Conflict), None) => is_run_lost = true,
                (Err(WriteError::Failed(_)), _) => {}
            }
        }
        (lost_sites, is_run_lost)
    }

    async fn store(&mut self, sites: BTreeMap<String, SiteItems>, run: Stored<RunState>, before: Unstored) {
        let of_site = |items: &SiteItems| items.site.content.refreshes.as_ref().map(|it| it.failing().clone());
        let failing: BTreeMap<_, _> = sites.iter().map(|(site, items)| (site.clone(), of_site(items))).collect();
        let Unstored { lost, error } = before.and(self.run.state.store(self.declared, sites, run).await);
        if error.is_none() {
            let is_lost = |site: &str| [site_key(site), failing_key(site)].iter().any(|key| lost.contains(key));
            let is_stored = |site: &String| self.declared.contains(site) && !is_lost(site);
            self.failing.extend(failing.into_iter().filter(|(site, _)| is_stored(site)));
        }
        if !lost.is_empty() {
            self.notes.push(format!("Another run stored {} meanwhile: its state stays.", lost.join(", ")));
        }
        let Some(error) = error else { return };
        if self.run.action == Action::Destroy {
            self.notes.push(format!("The state was not deleted: {error}."));
        } else if self.run.state.error.is_none() {
            self.notes
                .push(format!("The state could not be stored: {error}. The next run may repeat what this one did."));
            self.state_error = Some(error);
        }
    }
}
