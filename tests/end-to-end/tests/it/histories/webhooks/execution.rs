//! Executes histories of webhooks, and checks the sites after each run.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use end_to_end::declared::{Declared, secret_of};
use proptest::strategy::Strategy;
use reconciler::{
    config::DEFAULT_TIMEOUT,
    request::{Action, Request},
};
use serde_json::json;
use shared::events::catalogue::Event;
use tableau_simulator::{
    model::{Oddities, Webhook},
    server::Running,
};

use super::{
    super::{
        driver::{Executor, Tally},
        environment::{Environment, Invocation, Outcome, Sites, letter, report},
    },
    checks::{Snapshot, stored},
    history::{Drift, Entry, Fault, History, Original, Run, Step, any_history},
};

/// The calls of a run at a site that is as declared.
const CALLS_OF_NO_CHANGE: [&str; 3] = ["POST auth/signin", "GET sites/{site}/webhooks", "POST auth/signout"];

/// A run of all sites that nothing disturbs.
const QUIET_RUN: Run = Run { action: Action::Apply, site: None, is_short: false, crash: None };

/// A little more than the reconciler needs to begin with a site, so that it leaves some sites to the next run. Which of
/// them depends on its speed.
const SHORT_TIME: Duration = Duration::from_millis(60_040);

/// The URL that webhooks of others have.
const FOREIGN_URL: &str = "https://elsewhere.example/";

/// Executes one history after another with the same reconciler.
pub(super) struct Webhooks(Environment);

impl Executor for Webhooks {
    type History = History;

    const TEST: &'static str = "histories::webhooks";
    const DEFAULT_HISTORIES: u64 = 300;
    const AT_ONCE: usize = 150;

    fn new(tableau: Arc<Running>) -> anyhow::Result<Self> {
        Environment::new(tableau, Declared::default()).map(Self)
    }

    fn any_history() -> impl Strategy<Value = History> {
        any_history()
    }

    async fn execute(&self, number: usize, history: &History) -> anyhow::Result<Tally> {
        *self.0.recorder.declared() = Declared::default();
        let sites = Sites::add(&self.0, number, history.sites, history.shares_token);
        let entries = vec![Entry::Default; history.sites];
        let mut execution = Execution { sites, entries, webhooks_added: 0, tally: Tally::default() };
        for at in 0..history.sites {
            execution.declare(at, Entry::Default);
        }
        for (step, number) in history.steps.iter().zip(1..) {
            execution.step(step).await.with_context(|| format!("in step {number}"))?;
            execution.tally.add("steps", 1);
        }
        execution.end().await.context("after the last step")?;
        Ok(execution.tally)
    }
}

/// A history that is being executed.
pub(super) struct Execution<'a> {
    pub(super) sites: Sites<'a>,
    /// Each site's entry.
    pub(super) entries: Vec<Entry>,
    webhooks_added: usize,
    tally: Tally,
}

impl Execution<'_> {
    async fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        let count = self.sites.count();
        if !matches!(step, Step::Run(..)) {
            // Between two steps the token of a run that was cut off becomes free again.
            self.sites.environment.recorder.declared().table.age(Duration::from_secs(600).try_into()?);
        }
        match step {
            Step::Declare(site, entry) => self.declare(site % count, entry.clone()),
            Step::Drift(site, drift) => self.drift(site % count, drift)?,
            Step::Fault(site, fault) => self.fault(site % count, fault)?,
            Step::Run(run, other) => {
                self.run(run, other.as_ref()).await?;
            }
        }
        Ok(())
    }

    fn declare(&mut self, site: usize, entry: Entry) {
        let mut declared = self.sites.entry(site);
        let name = self.sites.names[site].clone();
        let entries = &mut self.sites.environment.recorder.declared().entries;
        match &entry {
            Entry::Missing => entries.remove(&name),
            Entry::Unreadable(text) => entries.insert(name, (*text).to_owned()),
            Entry::Default => entries.insert(name, declared.to_string()),
            Entry::Wanting(events) => {
                declared["events"] = json!(events);
                entries.insert(name, declared.to_string())
            }
        };
        self.entries[site] = entry;
    }

    fn drift(&mut self, site: usize, drift: &Drift) -> anyhow::Result<()> {
        let event = |name: &str| name.parse::<Event>();
        self.webhooks_added += 1;
        // Copies are compared by identifier: before or after those that Tableau creates.
        let first = if self.webhooks_added.is_multiple_of(2) { "0" } else { "z" };
        let id = format!("{first}-added-{}", self.webhooks_added);
        let change = |which: usize, change: &dyn Fn(&mut Webhook)| {
            self.sites.site(site, |site| {
                let count = site.webhooks.len();
                site.webhooks.get_mut(which % count.max(1)).map(change);
            })
        };
        match *drift {
            Drift::Disable(which, reason) => change(which, &|webhook| {
                webhook.is_enabled = false;
                webhook.status_change_reason = reason.map(str::to_owned);
            }),
            Drift::Move(which) => change(which, &|webhook| webhook.url = FOREIGN_URL.to_owned()),
            Drift::ChangeEvent(which, other) => {
                let other = event(other)?;
                change(which, &|webhook| webhook.event = other.clone())
            }
            Drift::Rename(which, name) => change(which, &|webhook| webhook.name = name.to_owned()),
            Drift::Delete(which) => self.sites.site(site, |site| {
                if !site.webhooks.is_empty() {
                    site.webhooks.remove(which % site.webhooks.len());
                }
            }),
            Drift::Copy(which, original) => self.sites.site(site, |site| {
                let count = site.webhooks.len();
                let copy = site.webhooks.get_mut(which % count.max(1)).map(|webhook| {
                    let copy = Webhook { id, ..webhook.clone() };
                    match original {
                        Original::Kept => {}
                        Original::Disabled => webhook.is_enabled = false,
                        Original::Moved => webhook.url = FOREIGN_URL.to_owned(),
                    }
                    copy
                });
                site.webhooks.extend(copy);
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
                self.sites.site(site, |site| site.webhooks.push(webhook))
            }
            Drift::Reverse => self.sites.site(site, |site| site.webhooks.reverse()),
        }
    }

    fn fault(&self, site: usize, fault: &Fault) -> anyhow::Result<()> {
        let right = secret_of(&self.sites.names[site]);
        let environment = self.sites.environment;
        self.sites.site(site, |site| match fault {
            Fault::Odd(oddities) => site.oddities = (**oddities).clone(),
            Fault::TokenReplaced => site.tokens[0].secret = format!("not-{right}"),
            Fault::OwnerDemoted => site.tokens[0].is_administrator = false,
            Fault::AlertsFail => environment.recorder.declared().people.are_unreachable = true,
            Fault::Over => {
                environment.recorder.declared().people.are_unreachable = false;
                site.oddities = Oddities::default();
                site.tokens[0].secret = right;
                site.tokens[0].is_administrator = true;
            }
        })
    }

    /// Runs the reconciler once, or twice at the same time, and checks what it did. Returns the state before and after it.
    async fn run(&mut self, run: &Run, other: Option<&Run>) -> anyhow::Result<(Snapshot, Snapshot, Vec<Outcome>)> {
        let before = self.snapshot()?;
        let (one, two) = (self.invocation(run), other.map(|other| self.invocation(other)));
        let outcomes = self.sites.run(one, two, &mut self.tally).await?;
        let after = self.snapshot()?;
        let runs: Vec<_> = [Some(run), other].into_iter().flatten().zip(&outcomes).collect();
        self.check(&before, &after, &runs)?;
        Ok((before, after, outcomes))
    }

    fn invocation(&self, run: &Run) -> Invocation {
        let Run { action, site, is_short, crash } = *run;
        let sites = site.map(|site| vec![self.sites.names[site % self.sites.count()].clone()]);
        let time = if is_short { SHORT_TIME } else { DEFAULT_TIMEOUT };
        Invocation { request: Request { action, sites }, time, crash }
    }

    /// Returns the events wanted on a site, or `None` if it is not declared.
    pub(super) fn wanted(&self, site: usize) -> anyhow::Result<Option<BTreeSet<Event>>> {
        let names = match &self.entries[site] {
            Entry::Missing | Entry::Unreadable(_) => return Ok(None),
            Entry::Default => self.sites.environment.recorder.declared().events.split(',').collect(),
            Entry::Wanting(events) => events.clone(),
        };
        Ok(Some(names.into_iter().map(str::parse).collect::<Result<_, _>>()?))
    }

    /// Whether a run processes a site.
    pub(super) fn is_processed(&self, run: &Run, site: usize) -> bool {
        let is_chosen = run.site.is_none_or(|chosen| chosen % self.sites.count() == site);
        is_chosen && matches!(self.entries[site], Entry::Default | Entry::Wanting(_))
    }

    /// Ends all faults, and runs the reconciler until nothing is left to do.
    async fn end(&mut self) -> anyhow::Result<()> {
        for site in 0..self.sites.count() {
            self.fault(site, &Fault::Over)?;
        }
        self.sites.environment.recorder.declared().table.age(Duration::from_secs(600).try_into()?);
        if !self.quiet_run().await.context("in the first quiet run")? {
            self.tally.add("histories that needed a second quiet run", 1);
            ensure!(self.quiet_run().await.context("in the second quiet run")?, "two quiet runs were not enough");
        }
        let (before, after, _) = self.run(&QUIET_RUN, None).await.context("in the last run")?;
        ensure!(stored(&before) == stored(&after), "the last run changed the keys");
        for (site, (before, after)) in before.sites.iter().zip(&after.sites).enumerate() {
            let name = letter(site);
            ensure!(before.webhooks == after.webhooks, "the last run changed {name}");
            if self.is_processed(&QUIET_RUN, site) {
                ensure!(after.calls == CALLS_OF_NO_CHANGE, "the last run called {name}: {:?}", after.calls);
                // Every alert was followed by one that its problem is resolved.
                let key = format!("site#{}", self.sites.names[site]);
                let state = self.sites.environment.recorder.declared().table.content(&key);
                ensure!(state.get("problems").is_none(), "an alert of {name} is still open: {state}");
            }
        }
        Ok(())
    }

    /// Runs the reconciler for all sites. Returns whether all that are declared are as declared.
    async fn quiet_run(&mut self) -> anyhow::Result<bool> {
        let (_, after, outcomes) = self.run(&QUIET_RUN, None).await?;
        let report = outcomes.first().and_then(report).context("the run did not report")?;
        let failed: BTreeSet<_> = report.sites.iter().filter(|site| site.failed()).map(|site| &site.site).collect();
        for site in 0..self.sites.count() {
            if !self.is_processed(&QUIET_RUN, site) {
                let is_unreadable = matches!(self.entries[site], Entry::Unreadable(_));
                ensure!(failed.contains(&self.sites.names[site]) == is_unreadable, "{}: {}", letter(site), report.text);
            } else if failed.contains(&self.sites.names[site]) {
                return Ok(false);
            } else {
                self.check_success(site, Action::Apply, &after)?;
            }
        }
        Ok(true)
    }
}
