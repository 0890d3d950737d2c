//! Executes histories of refreshes, and checks at the end how each event reached the topic.
//!
//! No time passes: everything that is stored, and every job, becomes older.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    mem,
    sync::{Arc, PoisonError},
};

use anyhow::{Context, ensure};
use end_to_end::declared::Declared;
use proptest::strategy::Strategy;
use reconciler::{
    config::DEFAULT_TIMEOUT,
    request::{Action, Request},
};
use serde_json::json;
use shared::{
    events::{catalogue::Event, cloud_event::EventMessage},
    refreshes::window::SETTLED,
    state::{SiteState, read_item, site_key},
};
use tableau_simulator::{
    model::{Job, Oddities, RefreshKind, RefreshOutcome},
    server::Running,
};
use time::{Duration, OffsetDateTime};

use super::{
    super::{
        crash::Crash,
        driver::{Executor, Tally},
        environment::{Environment, Invocation, Outcome, Sites, delivers, report},
    },
    events::{NotRecovered, Refresh},
    history::{History, KINDS, NAMES, Outage, Step, WANTED, any_history},
};
use crate::refreshes::pass;

/// Executes each history with a reconciler of its own, so that the log has the lines of one history only.
pub(super) struct Refreshes(Arc<Running>);

impl Executor for Refreshes {
    type History = History;

    const TEST: &'static str = "histories::refreshes";
    const DEFAULT_HISTORIES: u64 = 200;
    const AT_ONCE: usize = 64;

    fn new(tableau: Arc<Running>) -> anyhow::Result<Self> {
        Ok(Self(tableau))
    }

    fn any_history() -> impl Strategy<Value = History> {
        any_history()
    }

    async fn execute(&self, number: usize, history: &History) -> anyhow::Result<Tally> {
        let mut declared = Declared::default();
        declared.recover_hours = "24";
        let environment = Environment::new(self.0.clone(), declared)?;
        let sites = Sites::add(&environment, number, history.sites, true);
        for (at, name) in sites.names.iter().enumerate() {
            let mut entry = sites.entry(at);
            entry["events"] = json!(WANTED);
            environment.recorder.declared().entries.insert(name.clone(), entry.to_string());
        }
        let mut execution = Execution {
            sites,
            refreshes: Vec::new(),
            not_recovered: Vec::new(),
            lines_read: 0,
            unknown_until: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            tally: Tally::default(),
        };
        execution.run(None, None).await?;
        execution.pass(15)?;
        for (step, number) in history.steps.iter().zip(1..) {
            execution.step(step).await.with_context(|| format!("in step {number}"))?;
            execution.tally.add("steps", 1);
        }
        execution.end().await.context("after the last step")?;
        Ok(execution.tally)
    }
}

/// A history that is being executed.
struct Execution<'a> {
    sites: Sites<'a>,
    refreshes: Vec<Refresh>,
    not_recovered: Vec<NotRecovered>,
    lines_read: usize,
    /// The end of the time of which nothing may be known at a site, since the stored state was lost and a report said so.
    unknown_until: BTreeMap<usize, OffsetDateTime>,
    /// The sites of which no report has said so yet.
    forgotten: BTreeSet<usize>,
    tally: Tally,
}

impl Execution<'_> {
    async fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        let count = self.sites.count();
        match step {
            Step::Begin(site, kind) => self.begin_refresh(site % count, *kind)?,
            Step::End(site, outcome) => self.end_refresh(site % count, *outcome)?,
            Step::Refresh(site, kind, outcome, refreshes) => {
                self.refresh(site % count, *kind, *outcome, *refreshes)?;
            }
            Step::Outage(site, event, outage) => self.outage(site % count, WANTED[*event], *outage)?,
            Step::Miss(site, kind, outage, refreshes) => {
                let event = if *kind == 0 { "DatasourceRefreshFailed" } else { "WorkbookRefreshFailed" };
                self.outage(site % count, event, *outage)?;
                self.refresh(site % count, *kind, RefreshOutcome::Failed, *refreshes)?;
            }
            Step::Pass(minutes) => self.pass(*minutes)?,
            Step::Run(minutes, crash, other) => {
                self.pass(*minutes)?;
                self.run(*crash, *other).await?;
            }
            Step::Odd(site, oddities) => {
                self.sites.site(site % count, |site| site.oddities = (**oddities).clone())?;
            }
            Step::SnsAccepts(events) => self.sns_accepts(Some(*events)),
            Step::SnsRefuses(text) => self.sns_refuses(Some(*text)),
            Step::Forget(text) => {
                let table = self.sites.environment.recorder.declared().table.clone();
                if text.is_empty() {
                    table.items().clear();
                } else {
                    table.items().values_mut().for_each(|item| item.content = json!({ "format": text }));
                }
                self.forgotten = (0..count).collect();
            }
            Step::Over => self.end_faults()?,
        }
        Ok(())
    }

    fn outage(&self, site: usize, event: &str, outage: Outage) -> anyhow::Result<()> {
        let name = format!("fan-{event}");
        self.sites.site(site, |site| match outage {
            Outage::Deleted => site.webhooks.retain(|webhook| webhook.name != name),
            Outage::Disabled => {
                site.webhooks.iter_mut().filter(|it| it.name == name).for_each(|it| it.disable(None));
            }
            Outage::Moved => {
                let ours = site.webhooks.iter_mut().filter(|it| it.name == name);
                ours.for_each(|it| it.url = "https://elsewhere.example/".to_owned());
            }
        })
    }

    fn sns_accepts(&self, events: Option<usize>) {
        let taken = self.sites.environment.recorder.declared().people.events_taken.clone();
        *taken.lock().unwrap_or_else(PoisonError::into_inner) = events;
    }

    fn sns_refuses(&self, text: Option<&str>) {
        let refused = self.sites.environment.recorder.declared().people.refused.clone();
        *refused.lock().unwrap_or_else(PoisonError::into_inner) = text.map(str::to_owned);
    }

    fn end_faults(&self) -> anyhow::Result<()> {
        self.sns_accepts(None);
        self.sns_refuses(None);
        (0..self.sites.count()).try_for_each(|at| self.sites.site(at, |site| site.oddities = Oddities::default()))
    }

    /// Notes the events of a refresh that are delivered at this moment.
    fn deliver(&self, refresh: &mut Refresh) -> anyhow::Result<()> {
        let keyring = self.sites.keyring()?;
        for (name, _) in refresh.events() {
            let event: Event = name.parse()?;
            let is_now = refresh.ended.is_none() || !name.ends_with("Started");
            let is_delivered = self.sites.site(refresh.site, |site| {
                site.webhooks.iter().any(|webhook| delivers(webhook, &event, keyring.as_ref()))
            })?;
            if is_now && is_delivered {
                refresh.delivered.insert(name);
            }
        }
        Ok(())
    }

    fn refresh(&mut self, site: usize, kind: usize, outcome: RefreshOutcome, count: usize) -> anyhow::Result<()> {
        (0..count).try_for_each(|_| {
            self.begin_refresh(site, kind)?;
            self.end_refresh(site, outcome)
        })
    }

    fn begin_refresh(&mut self, site: usize, kind: usize) -> anyhow::Result<()> {
        // The order of identifiers does not follow the order in which refreshes end.
        let id = format!("{:x}-{}", RandomState::new().hash_one(self.refreshes.len()), self.refreshes.len());
        let started_at = OffsetDateTime::now_utc().truncate_to_second();
        let mut refresh = Refresh { site, id, kind: KINDS[kind], started_at, ended: None, delivered: BTreeSet::new() };
        self.deliver(&mut refresh)?;
        self.refreshes.push(refresh);
        Ok(())
    }

    fn end_refresh(&mut self, at: usize, outcome: RefreshOutcome) -> anyhow::Result<()> {
        let first = self.refreshes.iter().position(|refresh| refresh.site == at && refresh.ended.is_none());
        let Some(first) = first else { return Ok(()) };
        let mut refresh = self.refreshes.remove(first);
        let ended_at = OffsetDateTime::now_utc().truncate_to_second();
        refresh.ended = Some((ended_at, outcome));
        self.deliver(&mut refresh)?;
        let job = Job {
            id: refresh.id.clone(),
            kind: if refresh.kind == "workbook" { RefreshKind::Workbook } else { RefreshKind::Datasource },
            luid: format!("of-{}", refresh.id),
            name: NAMES[self.refreshes.len() % NAMES.len()].to_owned(),
            outcome,
            is_incremental: self.refreshes.len().is_multiple_of(2),
            is_via_bridge: self.refreshes.len().is_multiple_of(5),
            started_at: refresh.started_at,
            ended_at,
            notes: Some("Login failed.".to_owned()),
        };
        self.sites.site(at, |site| site.jobs.push(job))?;
        self.refreshes.push(refresh);
        Ok(())
    }

    fn pass(&mut self, minutes: i64) -> anyhow::Result<()> {
        let time = Duration::minutes(minutes);
        let names: Vec<_> = self.sites.names.iter().map(String::as_str).collect();
        let Environment { tableau, recorder, .. } = self.sites.environment;
        pass(tableau, &recorder.declared().clone(), &names, time)?;
        for refresh in &mut self.refreshes {
            refresh.started_at -= time;
            refresh.ended = refresh.ended.map(|(at, outcome)| (at - time, outcome));
        }
        for not_recovered in &mut self.not_recovered {
            not_recovered.from = not_recovered.from.map(|from| from - time);
            not_recovered.until = not_recovered.until.map(|until| until - time);
        }
        self.unknown_until.values_mut().for_each(|until| *until -= time);
        Ok(())
    }

    /// Runs the reconciler once, or twice at the same time, and notes what its reports and log lines say.
    async fn run(&mut self, crash: Option<Crash>, other: Option<Option<Crash>>) -> anyhow::Result<()> {
        let invocation = |crash| {
            let request = Request { action: Action::Apply, sites: None };
            Invocation { request, time: DEFAULT_TIMEOUT, crash }
        };
        let outcomes = self.sites.run(invocation(crash), other.map(invocation), &mut self.tally).await?;
        self.note_unknown(&outcomes)?;
        let declared = self.sites.environment.recorder.declared().clone();
        let lines = declared.log();
        self.not_recovered.extend(lines.iter().skip(self.lines_read).flat_map(|line| NotRecovered::parse(line)));
        self.lines_read = lines.len();
        // One identifier is one event, however often it is published.
        let (mut of_id, mut of_event) = (BTreeMap::new(), BTreeMap::new());
        for event in declared.people.events() {
            let named = ["event_type", "site", "resource_luid"].map(|name| event.attributes.get(name).cloned());
            ensure!(*of_id.entry(event.id).or_insert_with(|| named.clone()) == named, "one identifier: {named:?}");
            ensure!(*of_event.entry(named).or_insert(event.id) == event.id, "two identifiers: {}", event.body);
        }
        Ok(())
    }

    /// Notes which forgotten sites a report says are unknown.
    fn note_unknown(&mut self, outcomes: &[Outcome]) -> anyhow::Result<()> {
        let table = self.sites.environment.recorder.declared().table.clone();
        for at in self.forgotten.clone() {
            let name = &self.sites.names[at];
            let mut says_so = outcomes.iter().any(|outcome| match report(outcome) {
                Some(report) => {
                    let of_site = report.sites.iter().filter(|site| site.site == self.sites.names[at]);
                    report.text.contains("There is no state yet")
                        || report.text.contains("It is not known what earlier runs found")
                        || of_site.flat_map(|site| &site.notes).any(|note| note.starts_with("It is new"))
                }
                // A run that was cut off may have been about to say so.
                None => outcome.is_err(),
            });
            let stored = read_item::<SiteState>(&table.content(&site_key(name)));
            says_so &= stored.is_ok_and(|stored| stored.refreshes.is_some());
            if says_so {
                self.forgotten.remove(&at);
                self.unknown_until.insert(at, OffsetDateTime::now_utc() + Duration::SECOND);
            }
        }
        Ok(())
    }

    /// Ends all faults and refreshes, runs the reconciler until nothing is left to do, and checks each event.
    async fn end(&mut self) -> anyhow::Result<()> {
        self.end_faults()?;
        for at in 0..self.sites.count() {
            while self.refreshes.iter().any(|refresh| refresh.site == at && refresh.ended.is_none()) {
                self.end_refresh(at, RefreshOutcome::Failed)?;
            }
        }
        // Long enough for the lease of a run that was cut off, and for jobs to settle; and once more after an outage.
        for _ in 0..3 {
            self.pass(SETTLED.whole_minutes() + 10)?;
            self.run(None, None).await?;
        }
        let published = self.sites.environment.recorder.declared().people.events();
        let mut tally = mem::take(&mut self.tally);
        self.refreshes.iter().try_for_each(|refresh| self.check(refresh, &published, &mut tally))?;
        self.tally = tally;
        Ok(())
    }

    /// Checks that each event of a refresh reached the topic or was given up in the log.
    fn check(&self, refresh: &Refresh, published: &[EventMessage], tally: &mut Tally) -> anyhow::Result<()> {
        let Self { sites, not_recovered, .. } = self;
        let name = &sites.names[refresh.site];
        let luid = format!("of-{}", refresh.id);
        let count = |event_type: &str| {
            let has = |event: &EventMessage, name: &str, value: &str| {
                event.attributes.get(name).is_some_and(|it| it == value)
            };
            let is_it =
                |event: &&EventMessage| has(event, "event_type", event_type) && has(event, "resource_luid", &luid);
            published.iter().filter(is_it).count()
        };
        let is_named = |event: &str, at| not_recovered.iter().any(|it| it.covers(name, refresh, event, at));
        let is_unknown = |at| self.unknown_until.get(&refresh.site).is_some_and(|until| at <= *until);
        for (event, at) in refresh.events() {
            let (is_delivered, is_recovered) = (refresh.delivered.contains(&event), count(&event) > 0);
            let is_named = is_named(&event, at);
            let kind = match (is_delivered, is_recovered) {
                (true, true) => "events delivered and recovered",
                (true, false) => "events delivered",
                (false, true) => "events recovered",
                (false, false) if is_named => "events named in the log",
                (false, false) => "events before the stored state was lost",
            };
            tally.add(kind, 1);
            ensure!(
                is_delivered || is_recovered || is_named || is_unknown(at),
                "{event} of {refresh:?} at {name} is neither delivered nor recovered nor named: {not_recovered:?}"
            );
        }
        if let Some((at, RefreshOutcome::Failed)) = refresh.ended {
            let explained = count("RefreshFailureExplained");
            let is_named = is_named("", at) || not_recovered.iter().any(|it| it.job.as_ref() == Some(&refresh.id));
            tally.add("failures", 1);
            tally.add("failures explained", explained);
            ensure!(explained > 0 || is_named || is_unknown(at), "{refresh:?} is not explained: {not_recovered:?}");
        }
        Ok(())
    }
}
