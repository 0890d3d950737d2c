//! Executes histories, and checks sites, events and alerts after each run and at the end.
//!
//! No time passes: everything that is stored, and every job, becomes older.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, ensure};
use end_to_end::declared::secret_of;
use reconciler::{report::Report, request::Action};
use serde_json::json;
use shared::{
    events::catalogue::Event,
    state::{RUN_KEY, TOKEN_PREFIX, site_key},
};
use tableau_simulator::{
    model::{Oddities, Webhook},
    server::Running,
};

use super::{
    alerts::LastAlerts,
    checks::{Snapshot, is_left, stored},
    crash::Point,
    driver::Tally,
    environment::{Environment, Outcome, delivers, letter, report},
    history::{DEFAULT_EVENTS, Drift, Entry, Fault, History, Items, Outage, Refreshing, Run, Step},
    recorder::TableFaults,
    refreshes::Refreshes,
};

/// The calls of a run at a site that is as declared, but for lists of jobs, and of tokens once a day.
const CALLS_OF_NO_CHANGE: [&str; 3] = ["POST auth/signin", "GET sites/{site}/webhooks", "POST auth/signout"];

/// A call that lists jobs.
const JOBS_CALL: &str = "GET sites/{site}/jobs";

/// A call that lists refresh tasks, where resources fail.
const TASKS_CALL: &str = "GET sites/{site}/tasks/extractRefreshes";

/// A call that lists tokens.
const TOKENS_CALL: &str = "GET sites/{site}/users/{user}/personal-access-tokens";

/// A run of all sites that nothing disturbs.
const QUIET_RUN: Run = Run { action: Action::Apply, site: None, is_short: false, crash: None };

/// The time before a run at the end: a token that a run held is free again, and jobs have settled.
const QUIET_MINUTES: i64 = 15;

/// The URL that webhooks of others have.
const FOREIGN_URL: &str = "https://elsewhere.example/";

/// A history that is being executed.
pub(super) struct Execution {
    pub(super) environment: Environment,
    /// Each site's entry.
    pub(super) entries: Vec<Entry>,
    /// Whether the state table has had no fault since before the last run.
    pub(super) is_table_quiet: bool,
    refreshes: Refreshes,
    alerts: LastAlerts,
    /// The sites whose state was lost, and whether a run has reported so since or was cut off before it could.
    lost: BTreeMap<usize, bool>,
    webhooks_added: usize,
    tally: Tally,
}

/// Executes a history. The `number` is its own, and tells its sites from those of others.
pub(super) async fn execute(tableau: Arc<Running>, number: usize, history: &History) -> anyhow::Result<Tally> {
    let mut execution = Execution {
        environment: Environment::new(tableau, number, history.sites, history.shares_token)?,
        entries: vec![Entry::Default; history.sites],
        is_table_quiet: true,
        refreshes: Refreshes::default(),
        alerts: LastAlerts::default(),
        lost: BTreeMap::new(),
        webhooks_added: 0,
        tally: Tally::default(),
    };
    for at in 0..history.sites {
        execution.declare(at, Entry::Default);
    }
    if history.is_registered {
        execution.step(&Step::Run(0, QUIET_RUN, None)).await.context("before the first step")?;
    }
    for (step, number) in history.steps.iter().zip(1..) {
        execution.step(step).await.with_context(|| format!("in step {number}"))?;
        execution.tally.add("steps", 1);
    }
    execution.end().await.context("after the last step")?;
    Ok(execution.tally)
}

impl Execution {
    async fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        let count = self.environment.count();
        match step {
            Step::Declare(site, entry) => self.declare(site % count, entry.clone()),
            Step::Drift(site, drift) => self.drift(site % count, drift)?,
            Step::Fault(site, fault) => self.fault(site % count, fault)?,
            Step::Refresh(site, refreshing) => self.refresh(site % count, refreshing)?,
            Step::Pass(minutes) => self.pass(*minutes)?,
            Step::Run(minutes, run, other) => {
                self.pass(*minutes)?;
                self.run(run, other.as_ref()).await?;
            }
        }
        Ok(())
    }

    fn pass(&mut self, minutes: i64) -> anyhow::Result<()> {
        self.refreshes.pass(&self.environment, time::Duration::minutes(minutes))
    }

    fn declare(&mut self, site: usize, entry: Entry) {
        let mut declared = self.environment.entry(site);
        let name = self.environment.names[site].clone();
        let entries = &mut self.environment.recorder.declared().entries;
        match &entry {
            Entry::Missing => {
                entries.remove(&name);
                self.refreshes.keep(site, |_| false);
                // No alert says that the problems of a deleted entry are solved.
                self.alerts.void(Some(&name));
            }
            Entry::Unreadable(text) => {
                entries.insert(name, (*text).to_owned());
            }
            Entry::Default => {
                entries.insert(name, declared.to_string());
                self.refreshes.keep(site, |event| DEFAULT_EVENTS.split(',').any(|name| name == event));
            }
            Entry::Wanting(events) => {
                declared["events"] = json!(events);
                entries.insert(name, declared.to_string());
                self.refreshes.keep(site, |event| events.contains(&event));
            }
        }
        self.entries[site] = entry;
        self.refreshes.repetitions += 1;
    }

    fn refresh(&mut self, site: usize, refreshing: &Refreshing) -> anyhow::Result<()> {
        if let Refreshing::Whole(kind, outcome, _, Some(outage)) = refreshing {
            let name = format!("fan-{kind:?}Refresh{outcome:?}");
            self.environment.site(site, |site| {
                let at = site.webhooks.iter().position(|webhook| webhook.name == name);
                if let Some(at) = at {
                    break_webhook(&mut site.webhooks, at, *outage);
                }
            })?;
        }
        self.refreshes.refresh(&self.environment, site, refreshing)
    }

    fn drift(&mut self, site: usize, drift: &Drift) -> anyhow::Result<()> {
        let event = |name: &str| name.parse::<Event>();
        self.webhooks_added += 1;
        // Copies are compared by identifier: before or after those that Tableau creates.
        let first = if self.webhooks_added.is_multiple_of(2) { "0" } else { "z" };
        let id = format!("{first}-added-{}", self.webhooks_added);
        let change = |which: usize, change: &dyn Fn(&mut Vec<Webhook>, usize)| {
            self.environment.site(site, |site| {
                let count = site.webhooks.len();
                (count > 0).then(|| change(&mut site.webhooks, which % count));
            })
        };
        match *drift {
            Drift::Break(which, outage) => change(which, &|webhooks, at| break_webhook(webhooks, at, outage)),
            Drift::ChangeEvent(which, other) => {
                let other = event(other)?;
                change(which, &|webhooks, at| webhooks[at].event = other.clone())
            }
            Drift::Rename(which, name) => change(which, &|webhooks, at| webhooks[at].name = name.to_owned()),
            Drift::Copy(which, outage) => change(which, &|webhooks, at| {
                webhooks.push(Webhook { id: id.clone(), ..webhooks[at].clone() });
                if let Some(outage) = outage {
                    break_webhook(webhooks, at, outage);
                }
            }),
            Drift::Add(name, for_event) => {
                let webhook = Webhook {
                    url: format!("{FOREIGN_URL}{id}"),
                    id,
                    name: name.to_owned(),
                    event: event(for_event)?,
                    is_enabled: true,
                    status_change_reason: None,
                };
                self.environment.site(site, |site| site.webhooks.push(webhook))
            }
            Drift::Reverse => self.environment.site(site, |site| site.webhooks.reverse()),
        }
    }

    fn fault(&mut self, site: usize, fault: &Fault) -> anyhow::Result<()> {
        let right = secret_of(self.environment.token(site));
        let recorder = self.environment.recorder.clone();
        let set_events_taken = |taken| set(&recorder.declared().topics.events_taken, taken);
        let set_refused = |text| set(&recorder.declared().topics.refused, text);
        match fault {
            Fault::Odd(oddities) => self.environment.site(site, |site| site.oddities = (**oddities).clone())?,
            Fault::TokenReplaced => {
                self.environment.site(site, |site| site.tokens[0].secret = format!("not-{right}"))?;
            }
            Fault::OwnerDemoted => self.environment.site(site, |site| site.tokens[0].is_administrator = false)?,
            Fault::AlertsFail => recorder.declared().topics.alerts_fail = true,
            Fault::EventsFail(after) => set_events_taken(Some(*after)),
            Fault::Refused(text) => set_refused(Some((*text).to_owned())),
            Fault::TableFails(after) => recorder.table_faults().fails_after = Some(*after),
            Fault::Conflicts(count) => recorder.table_faults().conflicts = *count,
            Fault::Lost(items) => {
                let of = self.lose(site, *items);
                recorder.declared().table.items().retain(|key, _| !of(key));
            }
            Fault::Edited(items) => {
                let of = self.lose(site, *items);
                let table = recorder.declared().table.clone();
                let mut items = table.items();
                let edited = items.iter_mut().filter(|(key, _)| of(key));
                edited.for_each(|(_, item)| item.content = json!({ "format": "half a" }));
            }
            Fault::SiteOver => self.environment.site(site, |site| {
                site.oddities = Oddities::default();
                site.tokens[0].secret = right;
                site.tokens[0].is_administrator = true;
            })?,
            Fault::AwsOver => {
                recorder.declared().topics.alerts_fail = false;
                set_events_taken(None);
                set_refused(None);
                *recorder.table_faults() = TableFaults::default();
            }
        }
        Ok(())
    }

    /// Notes which state is lost. Returns whether a key is of it.
    fn lose(&mut self, site: usize, items: Items) -> impl Fn(&str) -> bool + use<> {
        let names = &self.environment.names;
        for (at, name) in names.iter().enumerate() {
            if items == Items::All || items == Items::Site && at == site {
                self.refreshes.keep(at, |_| false);
                self.alerts.void(Some(name));
                self.lost.insert(at, false);
            }
        }
        if matches!(items, Items::All | Items::Run) {
            self.alerts.void(None);
        }
        self.refreshes.repetitions += 1;
        let site = site_key(&names[site]);
        move |key| match items {
            Items::All => true,
            Items::Site => key == site,
            Items::Run => key == RUN_KEY,
            Items::Tokens => key.starts_with(TOKEN_PREFIX),
        }
    }

    /// Runs the reconciler, perhaps a second time meanwhile, and checks what it did. Returns the state before and after it.
    async fn run(
        &mut self,
        run: &Run,
        other: Option<&(Point, Run)>,
    ) -> anyhow::Result<(Snapshot, Snapshot, Vec<Outcome>)> {
        self.refreshes.runs += 1;
        let table_faults = *self.environment.recorder.table_faults();
        self.is_table_quiet = table_faults == TableFaults::default();
        let before = self.snapshot()?;
        let outcomes = self.environment.run(run, other, &mut self.tally).await?;
        self.refreshes.list(&self.environment)?;
        let after = self.snapshot()?;
        let runs: Vec<_> = [Some(run), other.map(|(_, other)| other)].into_iter().flatten().zip(&outcomes).collect();
        self.check_harm(&before, &after, &runs)?;
        self.refreshes.read(&self.environment)?;
        self.note_refreshes(&runs)?;
        let alerts = self.environment.recorder.declared().topics.take_alerts();
        alerts.iter().for_each(|alert| self.alerts.read(alert, table_faults.fails_after.is_none()));
        if let [(run, outcome)] = runs[..]
            && let Some(report) = report(outcome)
            && self.is_table_quiet
            && run.site.is_none()
            && matches!(run.action, Action::Apply | Action::Rotate)
            && report.alerts_error.is_none()
        {
            self.alerts.check_begun(report)?;
        }
        Ok((before, after, outcomes))
    }

    /// Notes which events must not be lost after runs, and how often they may repeat others.
    fn note_refreshes(&mut self, runs: &[(&Run, &Outcome)]) -> anyhow::Result<()> {
        let reports: Vec<_> = runs.iter().filter_map(|(_, outcome)| report(outcome)).collect();
        let has_crashed = reports.len() < runs.len();
        let are_stored = self.is_table_quiet
            && !has_crashed
            && !reports.iter().any(|report| report.text.contains("Another run stored"));
        let is_page_missing = (0..self.environment.count())
            .map(|at| self.environment.site(at, |site| site.oddities.last_page_missing))
            .collect::<Result<Vec<_>, _>>()?;
        if !are_stored
            || runs.len() > 1
            || reports.iter().any(|report| report.refreshes_error.is_some())
            || is_page_missing.contains(&true)
        {
            self.refreshes.repetitions += runs.len();
        }
        let keyring = self.environment.keyring()?;
        for site in 0..self.environment.count() {
            let name = &self.environment.names[site];
            if let Some(is_reported) = self.lost.get_mut(&site) {
                *is_reported |= has_crashed || reports.iter().any(|report| reports_lost_state(report, name));
            }
            if runs.iter().any(|(run, _)| run.action == Action::Destroy && self.is_processed(run, site)) {
                self.refreshes.keep(site, |_| false);
                self.refreshes.repetitions += 1;
                continue;
            }
            let is_stored = |(run, outcome): &&(&Run, &Outcome)| {
                let report = report(outcome).and_then(|report| report.sites.iter().find(|it| it.site == *name));
                matches!(run.action, Action::Apply | Action::Rotate)
                    && report.is_some_and(|report| !report.failed() && !is_left(report))
            };
            if are_stored && runs.iter().any(|run| is_stored(&run)) && self.wanted(site)?.is_some() {
                ensure!(self.lost.remove(&site).unwrap_or(true), "no run reports that the state of {name} was lost");
                let webhooks = self.environment.site(site, |site| site.webhooks.clone())?;
                let is_delivered =
                    |event: &Event| webhooks.iter().any(|webhook| delivers(webhook, event, keyring.as_ref()));
                let wanted = self.wanted(site)?.into_iter().flatten();
                self.refreshes.register(site, wanted.filter(is_delivered));
            }
        }
        Ok(())
    }

    /// Returns the events wanted on a site, or `None` if it is not declared.
    pub(super) fn wanted(&self, site: usize) -> anyhow::Result<Option<BTreeSet<Event>>> {
        let names = match &self.entries[site] {
            Entry::Missing | Entry::Unreadable(_) => return Ok(None),
            Entry::Default => DEFAULT_EVENTS.split(',').collect(),
            Entry::Wanting(events) => events.clone(),
        };
        Ok(Some(names.into_iter().map(str::parse).collect::<Result<_, _>>()?))
    }

    /// Whether a run processes a site.
    pub(super) fn is_processed(&self, run: &Run, site: usize) -> bool {
        let is_chosen = run.site.is_none_or(|chosen| chosen % self.environment.count() == site);
        is_chosen && matches!(self.entries[site], Entry::Default | Entry::Wanting(_))
    }

    /// Ends all faults and refreshes, runs the reconciler until nothing is left to do, and checks the result.
    async fn end(&mut self) -> anyhow::Result<()> {
        for site in 0..self.environment.count() {
            self.fault(site, &Fault::SiteOver)?;
        }
        self.fault(0, &Fault::AwsOver)?;
        self.refreshes.end_all(&self.environment)?;
        self.pass(1)?;
        self.refreshes.resolve_some(&self.environment)?;
        if !self.quiet_run().await.context("in the first quiet run")? {
            self.tally.add("histories that needed a second quiet run", 1);
        }
        ensure!(self.quiet_run().await.context("in the second quiet run")?, "two quiet runs were not enough");
        self.pass(QUIET_MINUTES)?;
        let (before, after, outcomes) = self.run(&QUIET_RUN, None).await.context("in the last run")?;
        ensure!(stored(&before) == stored(&after), "the last run changed the keys");
        for (site, (before, after)) in before.sites.iter().zip(&after.sites).enumerate() {
            let name = letter(site);
            ensure!(before.webhooks == after.webhooks, "the last run changed {name}");
            if !self.is_processed(&QUIET_RUN, site) {
                self.refreshes.keep(site, |_| false);
            } else {
                let others = [JOBS_CALL, TASKS_CALL, TOKENS_CALL];
                let calls: Vec<_> = after.calls.iter().filter(|call| !others.contains(&call.as_str())).collect();
                ensure!(calls == CALLS_OF_NO_CHANGE, "the last run called {name}: {calls:?}");
            }
        }
        self.alerts.check_solved(outcomes.first().and_then(report).context("the last run did not report")?)?;
        self.refreshes.check(&self.environment, &mut self.tally)
    }

    /// Runs the reconciler for all sites. Returns whether all that are declared are as declared.
    async fn quiet_run(&mut self) -> anyhow::Result<bool> {
        self.pass(QUIET_MINUTES)?;
        let (_, after, outcomes) = self.run(&QUIET_RUN, None).await?;
        let report = outcomes.first().and_then(report).context("the run did not report")?;
        let failed: BTreeSet<_> = report.sites.iter().filter(|site| site.failed()).map(|site| &site.site).collect();
        for site in 0..self.environment.count() {
            if !self.is_processed(&QUIET_RUN, site) {
                let is_unreadable = matches!(self.entries[site], Entry::Unreadable(_));
                let has_failed = failed.contains(&self.environment.names[site]);
                ensure!(has_failed == is_unreadable, "{}: {}", letter(site), report.text);
            } else if failed.contains(&self.environment.names[site]) {
                return Ok(false);
            } else {
                self.check_success(site, Action::Apply, &after)?;
            }
        }
        Ok(true)
    }
}

/// Whether a report says that the state of a site was lost.
fn reports_lost_state(report: &Report, name: &str) -> bool {
    let mut of_site = report.sites.iter().filter(|site| site.site == name).flat_map(|site| &site.notes);
    report.text.contains("There is no state yet")
        || report.text.contains("It is not known what earlier runs found")
        || of_site.any(|note| note.starts_with("It is new"))
}

fn set<T>(mutex: &Mutex<T>, value: T) {
    *mutex.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

/// Lets a webhook go down.
fn break_webhook(webhooks: &mut Vec<Webhook>, at: usize, outage: Outage) {
    match outage {
        Outage::Disabled => webhooks[at].disable(None),
        Outage::Deleted => {
            webhooks.remove(at);
        }
        Outage::Moved => webhooks[at].url = FOREIGN_URL.to_owned(),
    }
}
