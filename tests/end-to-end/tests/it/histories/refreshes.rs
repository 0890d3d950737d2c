//! Random histories of refreshes, of webhooks that fall silent, and of runs that are cut off and overlap: whatever happens,
//! each refresh is told of or named, and none is told of twice.
//!
//! Time does not pass by itself: what is stored, and every job, becomes older.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::poll_fn,
    hash::{BuildHasher, RandomState},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use anyhow::{Context, ensure};
use end_to_end::declared::{Declared, secret_of, site};
use proptest::{collection::vec, option, prelude::*, sample::select};
use reconciler::{
    config::USUAL_TIME,
    reconciler::{Failure, Reconciler},
    report::Report,
    request::{Action, Request},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::{
    event::Event,
    keyring::Keyring,
    remembered::{Remembered, SETTLED},
};
use tableau_simulator::{
    model::{Job, JobOddities, Oddities, RefreshKind, RefreshOutcome},
    server::Running,
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    driver::{Executor, Tally, execute_histories},
    webhooks::execution::{Kept, settle, verified},
};
use crate::refreshes::{long_ago, pass};

/// The most steps of a history.
const MOST_STEPS: usize = 16;

/// The events that the sites want.
const WANTED: [&str; 5] = [
    "DatasourceRefreshFailed",
    "DatasourceRefreshSucceeded",
    "WorkbookRefreshFailed",
    "WorkbookRefreshStarted",
    "ViewDeleted",
];

const KINDS: [&str; 2] = ["datasource", "workbook"];

#[derive(Clone, Debug)]
struct History {
    sites: usize,
    steps: Vec<Step>,
}

/// Something that happens. Sites are counted from 0; one that there is not stands for one that there is.
#[derive(Clone, Debug)]
enum Step {
    /// A refresh begins, of a kind of thing.
    Begin(usize, usize),
    /// The refresh that began first ends. Those of one second are told apart by their identifiers alone.
    End(usize, RefreshOutcome),
    /// So many refreshes begin and end within a second.
    Refresh(usize, usize, RefreshOutcome, usize),
    /// A webhook falls silent.
    Silence(usize, usize, How),
    /// A webhook for failures of a kind falls silent, and then so many fail.
    Miss(usize, usize, How, usize),
    /// So many minutes pass.
    Pass(i64),
    /// The reconciler runs, so many minutes later, and perhaps twice at once.
    Run(i64, Option<Crash>, Option<Option<Crash>>),
    /// Tableau behaves oddly.
    Odd(usize, Box<Oddities>),
    /// SNS takes so many events more, and then no others.
    SnsTakes(usize),
    /// What is remembered is lost, or no longer readable.
    Forget(&'static str),
    /// Everything works again.
    Over,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Disabled,
    Deleted,
    Moved,
}

/// When a run is cut off: so many calls are made, of any kind or of one, and it went on so often.
#[derive(Clone, Copy, Debug)]
struct Crash {
    of: Option<&'static str>,
    done: usize,
    polls: usize,
}

fn any_history() -> impl Strategy<Value = History> {
    (1_usize..=2, vec(any_step(), 4..=MOST_STEPS)).prop_map(|(sites, steps)| History { sites, steps })
}

fn any_step() -> impl Strategy<Value = Step> {
    let at = || 0_usize..2;
    let crash = || {
        // First comes what is read and stored, then what is done at the sites, and then what is published.
        let done = prop_oneof![1 => 0_usize..12, 4 => 12_usize..45];
        let any = (done, 0_usize..5).prop_map(|(done, polls)| Crash { of: None, done, polls });
        let of = select(&["publish", "store refreshes", "store lease", "tell people", "PUT ", "POST sites"][..]);
        let late = (of, 1_usize..4, 0_usize..3).prop_map(|(of, done, polls)| Crash { of: Some(of), done, polls });
        option::weighted(0.5, prop_oneof![any, late])
    };
    let outcome = select(
        &[RefreshOutcome::Failed, RefreshOutcome::Failed, RefreshOutcome::Succeeded, RefreshOutcome::Cancelled][..],
    );
    let how = select(&[How::Disabled, How::Disabled, How::Deleted, How::Moved][..]);
    let odd =
        (select(&["errors", "requests", "changes", "answers", "jobs"][..]), 1_usize..4).prop_map(|(what, calls)| {
            let usual = Oddities::default();
            match what {
                "errors" => Oddities { server_errors: calls, ..usual },
                "requests" => Oddities { too_many_requests: calls, ..usual },
                "jobs" => {
                    Oddities { jobs: JobOddities { too_many_requests: calls, ..JobOddities::default() }, ..usual }
                }
                "changes" => Oddities { failed_changes: calls, ..usual },
                _ => Oddities { lost_answers: calls, ..usual },
            }
        });
    prop_oneof![
        2 => (at(), at()).prop_map(|(site, kind)| Step::Begin(site, kind)),
        3 => (at(), outcome.clone()).prop_map(|(site, outcome)| Step::End(site, outcome)),
        6 => (at(), at(), outcome, 1_usize..4)
            .prop_map(|(site, kind, outcome, count)| Step::Refresh(site, kind, outcome, count)),
        4 => (at(), at(), how.clone(), 1_usize..4)
            .prop_map(|(site, kind, how, count)| Step::Miss(site, kind, how, count)),
        4 => (at(), 0_usize..5, how).prop_map(|(site, event, how)| Step::Silence(site, event, how)),
        2 => (1_i64..25).prop_map(Step::Pass),
        12 => (select(&[0_i64, 7, 15][..]), crash(), option::weighted(0.2, crash()))
            .prop_map(|(minutes, crash, other)| Step::Run(minutes, crash, other)),
        1 => (at(), odd).prop_map(|(site, odd)| Step::Odd(site, Box::new(odd))),
        1 => (0_usize..4).prop_map(Step::SnsTakes),
        1 => select(&["", "half a"][..]).prop_map(Step::Forget),
        1 => Just(Step::Over),
    ]
}

impl fmt::Display for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{} sites", self.sites)?;
        self.steps.iter().zip(1..).try_for_each(|(step, number)| writeln!(formatter, "{number:3}. {step:?}"))
    }
}

/// A refresh as it really was.
#[derive(Clone, Debug)]
struct Real {
    site: usize,
    id: String,
    kind: &'static str,
    started_at: OffsetDateTime,
    ended: Option<(OffsetDateTime, RefreshOutcome)>,
    /// The events that Tableau delivered.
    delivered: BTreeSet<String>,
}

impl Real {
    /// The events that it has, with their times.
    fn events(&self) -> Vec<(String, OffsetDateTime)> {
        let kind = if self.kind == "workbook" { "Workbook" } else { "Datasource" };
        let ended = self.ended.and_then(|(at, outcome)| match outcome {
            RefreshOutcome::Succeeded => Some(("Succeeded", at)),
            RefreshOutcome::Failed => Some(("Failed", at)),
            RefreshOutcome::Cancelled => None,
        });
        let all = [Some(("Started", self.started_at)), ended].into_iter().flatten();
        let named = all.map(|(stage, at)| (format!("{kind}Refresh{stage}"), at));
        named.filter(|(name, _)| WANTED.contains(&name.as_str())).collect()
    }
}

/// What was given up in the log.
#[derive(Clone, Debug)]
struct Named {
    site: String,
    job: Option<String>,
    events: Vec<String>,
    from: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
}

impl Named {
    /// What a line of the log gives up.
    fn of(line: &str) -> Vec<Self> {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        let site = line["site"].as_str().unwrap_or_default();
        let named = line["not_recovered"].as_array().into_iter().flatten().map(|named| {
            let time = |name: &str| OffsetDateTime::parse(named[name].as_str()?, &Rfc3339).ok();
            let events = named["events"].as_array().into_iter().flatten().filter_map(Value::as_str);
            Self {
                site: site.to_owned(),
                job: named["job"].as_str().map(str::to_owned),
                events: events.map(str::to_owned).collect(),
                from: time("from"),
                until: time("until"),
            }
        });
        named.collect()
    }

    fn covers(&self, site: &str, job: &Real, event: &str, at: OffsetDateTime) -> bool {
        let is_it = match &self.job {
            Some(id) => *id == job.id,
            None => {
                self.from.is_none_or(|from| from <= at)
                    && self.until.is_none_or(|until| at <= until)
                    && (self.events.is_empty() || self.events.iter().any(|it| it == event))
            }
        };
        self.site == site && is_it
    }
}

/// A history on its way.
struct Living<'a> {
    tableau: &'a Running,
    kept: Kept,
    reconciler: Reconciler<Kept, Kept>,
    sites: Vec<String>,
    jobs: Vec<Real>,
    named: Vec<Named>,
    lines_seen: usize,
    /// Until when everything of a site may be unknown since what was remembered was lost, once a report has said so.
    lost_until: BTreeMap<usize, OffsetDateTime>,
    /// The sites of which that has not been said yet.
    forgotten: BTreeSet<usize>,
    tally: Tally,
}

impl Drop for Living<'_> {
    fn drop(&mut self) {
        let mut world = self.tableau.simulator.world();
        self.sites.iter().for_each(|site| drop(world.sites.remove(site)));
    }
}

/// Executes histories of refreshes, each with a reconciler of its own, whose log is then the history's.
struct Refreshes {
    tableau: Arc<Running>,
}

impl Executor for Refreshes {
    type History = History;

    const TEST: &'static str = "histories::refreshes";
    const DEFAULT_HISTORIES: u64 = 200;
    const AT_ONCE: usize = 32;

    fn new(tableau: Arc<Running>) -> anyhow::Result<Self> {
        Ok(Self { tableau })
    }

    fn any_history() -> impl Strategy<Value = History> {
        any_history()
    }

    async fn execute(&self, number: usize, history: &History) -> anyhow::Result<Tally> {
        let tableau = &*self.tableau;
        let sites: Vec<_> = (0..history.sites).map(|site| format!("r{number}-{site}")).collect();
        let kept = Kept::default();
        {
            let mut declared = kept.declared();
            *declared = Declared::default();
            declared.recover_hours = "24";
            for name in &sites {
                tableau.simulator.world().add_site(name, "fanout", &secret_of(name));
                let entry = json!({ "server": format!("http://{}", tableau.address), "site": name,
                    "token_name": "fanout", "token_secret": secret_of(name), "events": WANTED });
                declared.entries.insert(name.clone(), entry.to_string());
            }
        }
        let reconciler = kept.declared().clone().reconciler(kept.clone(), kept.clone())?;
        let mut living = Living {
            tableau,
            kept,
            reconciler,
            sites,
            jobs: Vec::new(),
            named: Vec::new(),
            lines_seen: 0,
            lost_until: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            tally: Tally::default(),
        };
        living.runs(None, None).await?;
        living.pass(15)?;
        for (step, number) in history.steps.iter().zip(1..) {
            living.step(step).await.with_context(|| format!("in step {number}"))?;
            living.tally.add("steps", 1);
        }
        living.end().await.context("at the end")?;
        Ok(std::mem::take(&mut living.tally))
    }
}

impl Living<'_> {
    async fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        let count = self.sites.len();
        match step {
            Step::Begin(site, kind) => self.begin(site % count, KINDS[kind % 2])?,
            Step::End(site, outcome) => self.end_job(site % count, *outcome)?,
            Step::Refresh(site, kind, outcome, jobs) => {
                for _ in 0..*jobs {
                    self.begin(site % count, KINDS[kind % 2])?;
                    self.end_job(site % count, *outcome)?;
                }
            }
            Step::Silence(site, event, how) => self.silence(site % count, WANTED[event % WANTED.len()], *how)?,
            Step::Miss(site, kind, how, jobs) => {
                let event = if kind % 2 == 0 { "DatasourceRefreshFailed" } else { "WorkbookRefreshFailed" };
                self.silence(site % count, event, *how)?;
                for _ in 0..*jobs {
                    self.begin(site % count, KINDS[kind % 2])?;
                    self.end_job(site % count, RefreshOutcome::Failed)?;
                }
            }
            Step::Pass(minutes) => self.pass(*minutes)?,
            Step::Run(minutes, crash, other) => {
                self.pass(*minutes)?;
                self.runs(*crash, *other).await?;
            }
            Step::Odd(at, oddities) => {
                site(self.tableau, &self.sites[at % count], |site| site.oddities = (**oddities).clone())?;
            }
            Step::SnsTakes(events) => self.sns_takes(Some(*events)),
            Step::Forget(text) => {
                let declared = self.kept.declared();
                let text = Some((*text).to_owned()).filter(|text| !text.is_empty());
                *declared.stored_refreshes() = text;
                self.forgotten = (0..count).collect();
            }
            Step::Over => self.over()?,
        }
        Ok(())
    }

    fn silence(&self, at: usize, event: &str, how: How) -> anyhow::Result<()> {
        let name = format!("fan-{event}");
        site(self.tableau, &self.sites[at], |site| match how {
            How::Deleted => site.webhooks.retain(|webhook| webhook.name != name),
            How::Disabled => {
                site.webhooks.iter_mut().filter(|it| it.name == name).for_each(|it| it.disable(None));
            }
            How::Moved => {
                let ours = site.webhooks.iter_mut().filter(|it| it.name == name);
                ours.for_each(|it| it.url = "https://elsewhere.example/".to_owned());
            }
        })
    }

    fn sns_takes(&self, events: Option<usize>) {
        let taken = self.kept.declared().people.events_taken.clone();
        if let Ok(mut taken) = taken.lock() {
            *taken = events;
        }
    }

    fn over(&self) -> anyhow::Result<()> {
        self.sns_takes(None);
        self.sites.iter().try_for_each(|name| site(self.tableau, name, |site| site.oddities = Oddities::default()))
    }

    /// Whether the receiver hears of an event now.
    fn hears(&self, site_number: usize, event: &str) -> anyhow::Result<bool> {
        let declared = self.kept.declared().clone();
        let stored =
            declared.stored_keyring().as_ref().map(|stored| Keyring::parse(stored.expose_secret())).transpose()?;
        let event: Event = event.parse()?;
        site(self.tableau, &self.sites[site_number], |site| {
            site.webhooks.iter().any(|webhook| {
                let is_for_it = |it: &shared::registration::Verified| it.registration().event == event;
                webhook.is_enabled
                    && webhook.event == event
                    && verified(webhook, stored.as_ref()).as_ref().is_some_and(is_for_it)
            })
        })
    }

    /// Takes note of what Tableau delivers of a job at this moment.
    fn deliver(&mut self, mut job: Real) -> anyhow::Result<Real> {
        let last = if job.ended.is_some() { job.ended.map(|(at, _)| at) } else { Some(job.started_at) };
        for (event, at) in job.events() {
            let is_now = if job.ended.is_some() { !event.ends_with("Started") } else { Some(at) == last };
            if is_now && self.hears(job.site, &event)? {
                job.delivered.insert(event);
            }
        }
        Ok(job)
    }

    fn begin(&mut self, site: usize, kind: &'static str) -> anyhow::Result<()> {
        // In no order that follows their ends.
        let id = format!("{:x}-{}", RandomState::new().hash_one(self.jobs.len()), self.jobs.len());
        let started_at = OffsetDateTime::now_utc().truncate_to_second();
        let job = Real { site, id, kind, started_at, ended: None, delivered: BTreeSet::new() };
        let job = self.deliver(job)?;
        self.jobs.push(job);
        Ok(())
    }

    fn end_job(&mut self, at: usize, outcome: RefreshOutcome) -> anyhow::Result<()> {
        let Some(place) = self.jobs.iter().position(|job| job.site == at && job.ended.is_none()) else { return Ok(()) };
        let mut job = self.jobs.remove(place);
        let ended_at = OffsetDateTime::now_utc().truncate_to_second();
        job.ended = Some((ended_at, outcome));
        let job = self.deliver(job)?;
        let stored = Job {
            id: job.id.clone(),
            kind: if job.kind == "workbook" { RefreshKind::Workbook } else { RefreshKind::Datasource },
            luid: format!("of-{}", job.id),
            name: "Sales".to_owned(),
            outcome,
            is_incremental: false,
            started_at: job.started_at,
            ended_at,
            notes: Some("Login failed.".to_owned()),
        };
        site(self.tableau, &self.sites[at], |site| site.jobs.push(stored))?;
        self.jobs.push(job);
        Ok(())
    }

    fn pass(&mut self, minutes: i64) -> anyhow::Result<()> {
        let time = Duration::minutes(minutes);
        let names: Vec<_> = self.sites.iter().map(String::as_str).collect();
        pass(self.tableau, &self.kept.declared().clone(), &names, time)?;
        for job in &mut self.jobs {
            job.started_at -= time;
            job.ended = job.ended.map(|(at, outcome)| (at - time, outcome));
        }
        for named in &mut self.named {
            named.from = named.from.map(|from| from - time);
            named.until = named.until.map(|until| until - time);
        }
        self.lost_until.values_mut().for_each(|until| *until -= time);
        Ok(())
    }

    async fn runs(&mut self, crash: Option<Crash>, other: Option<Option<Crash>>) -> anyhow::Result<()> {
        self.kept.uses().clear();
        for name in &self.sites {
            site(self.tableau, name, |site| site.calls.clear())?;
        }
        let (one, two) = tokio::join!(self.run(crash), async {
            match other {
                Some(crash) => Some(self.run(crash).await),
                None => None,
            }
        });
        let outcomes: Vec<_> = [Some(one), two].into_iter().flatten().collect();
        self.tally.add("runs", outcomes.len());
        for crashed in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            self.tally.add(format!("crashes after {crashed}"), 1);
        }
        if outcomes.iter().any(Result::is_err) {
            settle(self.tableau).await?;
        }
        self.note_what_is_said(&outcomes)?;
        let lines = self.kept.declared().log();
        self.named.extend(lines.iter().skip(self.lines_seen).flat_map(|line| Named::of(line)));
        self.lines_seen = lines.len();
        self.check_once()
    }

    /// Takes note of which sites are said to be unknown.
    fn note_what_is_said(&mut self, outcomes: &[Result<Report, &'static str>]) -> anyhow::Result<()> {
        let stored = self.kept.declared().stored_refreshes().clone();
        let stored = stored.and_then(|stored| Remembered::parse(&stored).ok());
        for at in self.forgotten.clone() {
            let name = self.sites[at].parse()?;
            let mut says_so = outcomes.iter().any(|outcome| match outcome {
                Ok(report) => {
                    let of_site = report.sites.iter().filter(|site| site.site == self.sites[at]);
                    report.text.contains("Nothing is remembered")
                        || report.text.contains("remembered of refreshes cannot be read")
                        || of_site.flat_map(|site| &site.notes).any(|note| note.starts_with("It is new, or forgotten"))
                }
                // It may have been about to say so.
                Err(_) => true,
            });
            says_so &= stored.as_ref().is_some_and(|stored| stored.site(&name).is_some());
            if says_so {
                self.forgotten.remove(&at);
                self.lost_until.insert(at, OffsetDateTime::now_utc() + Duration::SECOND);
            }
        }
        Ok(())
    }

    /// Runs the reconciler until its end or the crash, which is named by what was done last.
    async fn run(&self, crash: Option<Crash>) -> Result<Report, &'static str> {
        let request = Request { action: Action::Apply, sites: None };
        let deadline = tokio::time::Instant::now() + USUAL_TIME;
        let mut running = pin!(self.reconciler.run(request, deadline));
        let report = |result| match result {
            Ok(report) | Err(Failure::Sites(report) | Failure::Alerts(report) | Failure::Refreshes(report)) => report,
            Err(Failure::Request(_) | Failure::Parameters(_)) => Report::default(),
        };
        let Some(Crash { of, done, mut polls }) = crash else { return Ok(report(running.await)) };
        poll_fn(|context| {
            let last = self.kept.uses().last().copied().unwrap_or("nothing");
            let is_due = self.done(of) >= done;
            if is_due && polls == 0 {
                return Poll::Ready(Err(last));
            }
            if let Poll::Ready(result) = running.as_mut().poll(context) {
                return Poll::Ready(Ok(report(result)));
            }
            polls -= usize::from(is_due);
            if is_due && polls == 0 {
                return Poll::Ready(Err(self.kept.uses().last().copied().unwrap_or("nothing")));
            }
            Poll::Pending
        })
        .await
    }

    /// How much was done since the runs began.
    fn done(&self, of: Option<&'static str>) -> usize {
        if let Some(of) = of {
            let world = self.tableau.simulator.world();
            let calls = self.sites.iter().filter_map(|site| world.sites.get(site)).flat_map(|site| &site.calls);
            let calls = calls.filter(|call| call.starts_with(of)).count();
            return calls + self.kept.uses().iter().filter(|used| **used == of).count();
        }
        let world = self.tableau.simulator.world();
        let calls = self.sites.iter().filter_map(|site| world.sites.get(site)).map(|site| site.calls.len());
        self.kept.uses().len() + calls.sum::<usize>()
    }

    /// No event was published twice.
    fn check_once(&self) -> anyhow::Result<()> {
        let events = self.kept.declared().people.events();
        let mut ids = BTreeSet::new();
        for event in &events {
            ensure!(ids.insert(event.id), "published twice: {}", event.body);
        }
        Ok(())
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        self.over()?;
        for at in 0..self.sites.len() {
            while self.jobs.iter().any(|job| job.site == at && job.ended.is_none()) {
                self.end_job(at, RefreshOutcome::Failed)?;
            }
        }
        // Later than the lease of a run that was cut off, and than what has to settle; once more for what was silent.
        for _ in 0..3 {
            self.pass(SETTLED.whole_minutes() + 10)?;
            self.runs(None, None).await?;
        }
        let events = self.kept.declared().people.events();
        let of = |job: &Real, event_type: &str| {
            let luid = format!("of-{}", job.id);
            let attribute = |event: &shared::message::EventMessage, name: &str| event.attributes.get(name).cloned();
            let is_it = |event: &&shared::message::EventMessage| {
                attribute(event, "event_type").as_deref() == Some(event_type)
                    && attribute(event, "resource_luid").as_ref() == Some(&luid)
            };
            events.iter().filter(is_it).count()
        };
        for job in &self.jobs {
            let name = &self.sites[job.site];
            let is_named = |event: &str, at| self.named.iter().any(|named| named.covers(name, job, event, at));
            let is_lost = |at| self.lost_until.get(&job.site).is_some_and(|until| at <= *until);
            for (event, at) in job.events() {
                let (delivered, recovered) = (job.delivered.contains(&event), of(job, &event));
                let named = is_named(&event, at);
                let how = match (delivered, recovered > 0) {
                    (true, true) => "events delivered and recovered",
                    (true, false) => "events delivered",
                    (false, true) => "events recovered",
                    (false, false) if named => "events named in the log",
                    (false, false) => "events of a time of which all was forgotten",
                };
                self.tally.add(how, 1);
                ensure!(
                    delivered || recovered > 0 || named || is_lost(at),
                    "{event} of {job:?} at {name} is neither delivered nor recovered nor named: {:?}",
                    self.named
                );
            }
            if let Some((at, RefreshOutcome::Failed)) = job.ended {
                let explained = of(job, "RefreshFailureExplained");
                let named = is_named("", at) || self.named.iter().any(|named| named.job.as_ref() == Some(&job.id));
                self.tally.add("failures", 1);
                self.tally.add("failures explained", explained);
                ensure!(explained <= 1, "{job:?} is explained {explained} times");
                ensure!(explained == 1 || named || is_lost(at), "{job:?} is not explained: {:?}", self.named);
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn whatever_happens_each_refresh_is_told_of_or_named_and_none_is_told_of_twice() -> anyhow::Result<()> {
    execute_histories::<Refreshes>().await?;
    Ok(())
}

#[test]
fn what_was_stored_long_ago_is_older() -> anyhow::Result<()> {
    let stored = r#"{"groups":[{"seen":"2026-05-21T08:15:00Z","sites":"abcdef"}]}"#;
    let older = r#"{"groups":[{"seen":"2026-05-21T08:00:00Z","sites":"abcdef"}]}"#;
    assert_eq!(long_ago(stored, Duration::minutes(15))?, older);
    Ok(())
}
