//! Refreshes of a history, and the check that each of their events is on the topic or named in the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
};

use anyhow::{Context, ensure};
use serde_json::Value;
use shared::{
    events::{catalogue::Event, cloud_event::EventMessage},
    state::failing_key,
};
use tableau_simulator::model::{Job, RefreshKind, RefreshOutcome};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    driver::Tally,
    environment::{Environment, delivers, letter},
    history::{CONTENT, Refreshing},
};

/// The event that explains a failure.
const EXPLAINED: &str = "RefreshFailureExplained";

/// The event that a failing resource refreshed successfully.
const RESOLVED: &str = "RefreshFailureResolved";

/// The age at which Tableau lists every job. The reconciler expects each within an hour.
const MAX_DELAY: Duration = Duration::minutes(30);

/// Tableau's limit of a refresh. The reconciler learns of a start only at the end, and does not remember its outage for longer.
const LONGEST_REFRESH: Duration = Duration::hours(2);

/// All refreshes of a history, and what runs must have published of them.
#[derive(Debug, Default)]
pub(super) struct Refreshes {
    all: Vec<Refresh>,
    /// Jobs that Tableau lists only after the next run, with the site of each.
    unlisted: Vec<(usize, Job)>,
    not_recovered: Vec<NotRecovered>,
    lines_read: usize,
    /// The number of runs so far.
    pub(super) runs: usize,
    /// The run since which events of a site must not be lost: it ended after it registered and stored them.
    registered: BTreeMap<(usize, String), usize>,
    /// How often an event may be published again, since a run was cut off or could not store that it was published.
    pub(super) repetitions: usize,
}

/// A time within a history.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// The number of runs before, since seconds are too coarse to order what happens.
    runs: usize,
    at: OffsetDateTime,
}

/// A refresh on Tableau.
#[derive(Clone, Debug)]
struct Refresh {
    site: usize,
    job: String,
    /// The resource.
    luid: String,
    kind: RefreshKind,
    started: Moment,
    ended: Option<(Moment, RefreshOutcome)>,
    /// The events that Tableau delivered.
    delivered: BTreeSet<String>,
}

/// Events that the log says are not recovered.
#[derive(Clone, Debug)]
struct NotRecovered {
    site: String,
    job: Option<String>,
    events: Vec<String>,
    from: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
}

impl Refresh {
    /// Returns the events it has, with their times.
    fn events(&self) -> Vec<(String, Moment)> {
        let Self { kind, started, ended, .. } = self;
        let ended = ended.and_then(|(at, outcome)| match outcome {
            RefreshOutcome::Succeeded | RefreshOutcome::Failed => Some((outcome, at)),
            RefreshOutcome::Cancelled => None,
        });
        let ended = ended.map(|(outcome, at)| (format!("{kind:?}Refresh{outcome:?}"), at));
        [(format!("{kind:?}RefreshStarted"), *started)].into_iter().chain(ended).collect()
    }

    /// Returns when it ended as an event says, if it did.
    fn ended_as(&self, wanted: RefreshOutcome) -> Option<Moment> {
        self.ended.filter(|(_, outcome)| *outcome == wanted).map(|(ended, _)| ended)
    }

    /// Notes whether its last event is delivered, which happens now.
    fn deliver(&mut self, environment: &Environment) -> anyhow::Result<()> {
        let keyring = environment.keyring()?;
        let is_cancelled = matches!(self.ended, Some((_, RefreshOutcome::Cancelled)));
        let Some((name, _)) = self.events().pop().filter(|_| !is_cancelled) else { return Ok(()) };
        let event: Event = name.parse()?;
        let is_delivered = environment
            .site(self.site, |site| site.webhooks.iter().any(|webhook| delivers(webhook, &event, keyring.as_ref())))?;
        if is_delivered {
            if name.ends_with("Failed") {
                environment.send_failure(self.site, &event, &self.luid);
            }
            self.delivered.insert(name);
        }
        Ok(())
    }
}

impl NotRecovered {
    /// Reads them from a line of the log.
    fn parse(line: &str) -> Vec<Self> {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        let site = line["site"].as_str().unwrap_or_default();
        let all = line["not_recovered"].as_array().into_iter().flatten().map(|one| {
            let time = |name: &str| OffsetDateTime::parse(one[name].as_str()?, &Rfc3339).ok();
            let events = one["events"].as_array().into_iter().flatten().filter_map(Value::as_str);
            Self {
                site: site.to_owned(),
                job: one["job"].as_str().map(str::to_owned),
                events: events.map(str::to_owned).collect(),
                from: time("from"),
                until: time("until"),
            }
        });
        all.collect()
    }

    /// Whether an event of a refresh is among them.
    fn covers(&self, site: &str, refresh: &Refresh, event: &str, at: OffsetDateTime) -> bool {
        let is_it = match &self.job {
            // A row without an identifier may be any job.
            Some(job) => *job == refresh.job || job.starts_with("unnamed-"),
            None => {
                self.from.is_none_or(|from| from <= at)
                    && self.until.is_none_or(|until| at <= until)
                    && (self.events.is_empty() || self.events.iter().any(|it| it == event))
            }
        };
        self.site == site && is_it
    }
}

impl Refreshes {
    pub(super) fn refresh(&mut self, environment: &Environment, site: usize, step: &Refreshing) -> anyhow::Result<()> {
        match *step {
            Refreshing::Begin(kind) => self.begin(environment, site, kind, None),
            Refreshing::End(outcome) => self.end(environment, site, outcome),
            Refreshing::Whole(kind, outcome, count, _) => (0..count).try_for_each(|_| {
                self.begin(environment, site, kind, None)?;
                self.end(environment, site, outcome)
            }),
            Refreshing::ListedLate(kind, outcome) => {
                self.begin(environment, site, kind, None)?;
                self.end(environment, site, outcome)?;
                let job = environment.site(site, |site| site.jobs.pop())?;
                self.unlisted.extend(job.map(|job| (site, job)));
                Ok(())
            }
        }
    }

    /// Lists every job on Tableau.
    pub(super) fn list(&mut self, environment: &Environment) -> anyhow::Result<()> {
        self.unlisted.drain(..).try_for_each(|(at, job)| environment.site(at, |site| site.jobs.push(job)))
    }

    fn now(&self) -> Moment {
        Moment { runs: self.runs, at: OffsetDateTime::now_utc().truncate_to_second() }
    }

    /// Begins a refresh: of the named resource, or of any.
    fn begin(
        &mut self,
        environment: &Environment,
        site: usize,
        kind: RefreshKind,
        of: Option<String>,
    ) -> anyhow::Result<()> {
        // The order of identifiers does not follow the order in which refreshes end.
        let number = self.all.len();
        let job = format!("{:x}-{number}", RandomState::new().hash_one(number));
        let started = self.now();
        let luid = of.or_else(|| self.resource(site, kind, number)).unwrap_or_else(|| format!("of-{job}"));
        let mut refresh = Refresh { site, job, luid, kind, started, ended: None, delivered: BTreeSet::new() };
        refresh.deliver(environment)?;
        self.all.push(refresh);
        Ok(())
    }

    /// Returns a resource that was refreshed before, if this refresh is of one: the last that failed. It is not one that is
    /// being refreshed, or was within the same second.
    fn resource(&self, site: usize, kind: RefreshKind, number: usize) -> Option<String> {
        let now = self.now();
        let of_site = self.all.iter().filter(|it| (it.site, it.kind) == (site, kind));
        let is_over = |refresh: &Refresh| refresh.ended.is_some_and(|(ended, _)| ended.at < now.at);
        let mut known = of_site.filter(|refresh| self.all.iter().filter(|it| it.luid == refresh.luid).all(is_over));
        let failed = |refresh: &&Refresh| refresh.ended_as(RefreshOutcome::Failed).is_some();
        let chosen = (!number.is_multiple_of(3)).then(|| known.rfind(failed)).flatten();
        chosen.map(|refresh| refresh.luid.clone())
    }

    fn end(&mut self, environment: &Environment, site: usize, outcome: RefreshOutcome) -> anyhow::Result<()> {
        let (now, number) = (self.now(), self.all.len());
        let mut running = self.all.iter_mut().filter(|refresh| refresh.site == site && refresh.ended.is_none());
        let Some(refresh) = running.next() else { return Ok(()) };
        refresh.ended = Some((now, outcome));
        refresh.deliver(environment)?;
        let job = Job {
            id: refresh.job.clone(),
            kind: refresh.kind,
            luid: refresh.luid.clone(),
            name: CONTENT[number % CONTENT.len()].to_owned(),
            outcome,
            is_incremental: number.is_multiple_of(2),
            is_via_bridge: number.is_multiple_of(5),
            started_at: refresh.started.at,
            ended_at: now.at,
            notes: Some("Login failed.".to_owned()),
        };
        environment.site(site, |site| site.jobs.push(job))
    }

    /// Ends every refresh that is under way.
    pub(super) fn end_all(&mut self, environment: &Environment) -> anyhow::Result<()> {
        let running: Vec<_> = self.all.iter().filter(|it| it.ended.is_none()).map(|it| it.site).collect();
        running.into_iter().try_for_each(|site| self.end(environment, site, RefreshOutcome::Failed))
    }

    /// Refreshes every second resource whose last refresh failed, successfully. A failure that is not listed yet is resolved
    /// only by the run after the one that explains it.
    pub(super) fn resolve_some(&mut self, environment: &Environment) -> anyhow::Result<()> {
        let resources = self.by_resource();
        let last = resources.values().filter_map(|of_resource| of_resource.last());
        let is_listed = |refresh: &Refresh| self.unlisted.iter().all(|(_, job)| job.luid != refresh.luid);
        let failing =
            last.filter(|refresh| refresh.ended_as(RefreshOutcome::Failed).is_some() && is_listed(refresh)).step_by(2);
        let failing: Vec<_> = failing.map(|refresh| (refresh.site, refresh.kind, refresh.luid.clone())).collect();
        failing.into_iter().try_for_each(|(site, kind, luid)| {
            self.begin(environment, site, kind, Some(luid))?;
            self.end(environment, site, RefreshOutcome::Succeeded)
        })
    }

    /// Makes all of them older.
    pub(super) fn pass(&mut self, environment: &Environment, time: Duration) -> anyhow::Result<()> {
        environment.pass(time)?;
        for (_, job) in &mut self.unlisted {
            job.started_at -= time;
            job.ended_at -= time;
        }
        for refresh in &mut self.all {
            refresh.started.at -= time;
            if let Some((ended, _)) = &mut refresh.ended {
                ended.at -= time;
            }
        }
        for at in self.not_recovered.iter_mut().flat_map(|it| [&mut it.from, &mut it.until]).flatten() {
            *at -= time;
        }
        if self.unlisted.iter().any(|(_, job)| job.ended_at < OffsetDateTime::now_utc() - MAX_DELAY) {
            self.list(environment)?;
        }
        Ok(())
    }

    /// Notes that events of a site must not be lost from now on.
    pub(super) fn register(&mut self, site: usize, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.registered.entry((site, event.to_string())).or_insert(self.runs);
        }
    }

    /// Notes that those events of a site may be lost that are not kept.
    pub(super) fn keep(&mut self, site: usize, is_kept: impl Fn(&str) -> bool) {
        self.registered.retain(|(at, event), _| *at != site || is_kept(event));
    }

    /// Reads the log, and checks that one identifier is one event.
    pub(super) fn read(&mut self, environment: &Environment) -> anyhow::Result<()> {
        let declared = environment.recorder.declared().clone();
        let lines = declared.log();
        self.not_recovered.extend(lines.iter().skip(self.lines_read).flat_map(|line| NotRecovered::parse(line)));
        self.lines_read = lines.len();
        let (mut of_id, mut of_event) = (BTreeMap::new(), BTreeMap::new());
        for event in declared.topics.events() {
            let named = (["event_type", "site"].map(|name| event.attributes.get(name).cloned()), job_of(&event));
            ensure!(*of_id.entry(event.id).or_insert_with(|| named.clone()) == named, "one identifier: {named:?}");
            ensure!(*of_event.entry(named).or_insert(event.id) == event.id, "two identifiers: {}", event.body);
        }
        Ok(())
    }

    /// Checks that each event is on the topic or named in the log, and no other is on the topic.
    pub(super) fn check(&self, environment: &Environment, tally: &mut Tally) -> anyhow::Result<()> {
        let mut published: BTreeMap<_, usize> = BTreeMap::new();
        for event in environment.recorder.declared().topics.events() {
            let [site, event_type] = ["site", "event_type"].map(|name| event.attributes.get(name).cloned());
            let named = [site, job_of(&event), event_type].map(Option::unwrap_or_default);
            if named[2] != RESOLVED {
                *published.entry(named).or_default() += 1;
            }
        }
        for refresh in &self.all {
            let (ended, outcome) = refresh.ended.context("a refresh is under way")?;
            let failure = refresh.events().into_iter().filter(|_| outcome == RefreshOutcome::Failed).nth(1);
            let explained = failure.map(|(event, _)| (EXPLAINED.to_owned(), event, ended));
            let events = refresh.events().into_iter().map(|(event, at)| (event.clone(), event, at));
            for (event, registered, moment) in events.chain(explained) {
                let site = &environment.names[refresh.site];
                let copies = published.remove(&[site.clone(), refresh.job.clone(), event.clone()]).unwrap_or_default();
                let since = self.registered.get(&(refresh.site, registered));
                let how = if copies > 0 {
                    "published"
                } else if refresh.delivered.contains(&event) {
                    "delivered"
                } else if self.not_recovered.iter().any(|it| it.covers(site, refresh, &event, moment.at)) {
                    "named in the log"
                } else if since.is_none_or(|since| *since > moment.runs) {
                    "not registered"
                } else if ended.at - moment.at > LONGEST_REFRESH {
                    "of refreshes that ran for too long"
                } else {
                    let (site, log) = (letter(refresh.site), &self.not_recovered);
                    anyhow::bail!("{event} of {site} is lost: {refresh:?}, registered in {since:?}; {log:?}")
                };
                let kind = if event == EXPLAINED { "explanations" } else { "events" };
                tally.add(format!("{kind} {how}"), 1);
                tally.add("repetitions", copies.saturating_sub(1));
                ensure!(
                    copies <= 1 + self.repetitions,
                    "{event} of {refresh:?} was published {copies} times, where {} repetitions were due",
                    self.repetitions
                );
            }
        }
        ensure!(published.is_empty(), "these events did not happen: {published:?}");
        self.check_resolved(environment, tally)
    }

    /// Checks that each success after explained failures was published, and no other, and that no state has a healthy resource
    /// as failing.
    fn check_resolved(&self, environment: &Environment, tally: &mut Tally) -> anyhow::Result<()> {
        let events = environment.recorder.declared().topics.events();
        let last_of = |name: &str, luid: &str| {
            let attribute = |event: &EventMessage, name| event.attributes.get(name).cloned().unwrap_or_default();
            events.iter().rposition(|it| attribute(it, "event_type") == name && attribute(it, "resource_luid") == luid)
        };
        for event in events.iter().filter(|event| event.attributes["event_type"] == RESOLVED) {
            let job = job_of(event).context("a resolution without a job")?;
            let failed = self.all.iter().find(|it| it.job == job).context("no such job")?;
            let failed_at = failed.ended_as(RefreshOutcome::Failed).context("it did not fail")?.at;
            let succeeded = |it: &&Refresh| it.luid == failed.luid && it.ended_as(RefreshOutcome::Succeeded).is_some();
            let is_true =
                self.all.iter().filter(succeeded).any(|it| it.ended.is_some_and(|(ended, _)| ended.at > failed_at));
            ensure!(is_true, "{failed:?} was resolved without a success");
        }
        for (luid, of_resource) in self.by_resource() {
            let last = of_resource.iter().rev().find(|it| it.ended_as(RefreshOutcome::Cancelled).is_none());
            let Some(success) = last.filter(|it| it.ended_as(RefreshOutcome::Succeeded).is_some()) else { continue };
            let site = &environment.names[success.site];
            let is_named = |refresh: &Refresh, event: &str| {
                let at = refresh.ended.map(|(ended, _)| ended.at);
                at.is_some_and(|at| self.not_recovered.iter().any(|it| it.covers(site, refresh, event, at)))
            };
            let failures = of_resource.iter().filter(|it| it.ended_as(RefreshOutcome::Failed).is_some());
            let are_named = failures.clone().any(|it| is_named(it, EXPLAINED)) || is_named(success, RESOLVED);
            let is_kept = failures.clone().all(|failed| {
                let since = self.registered.get(&(failed.site, format!("{:?}RefreshFailed", failed.kind)));
                since.zip(failed.ended).is_some_and(|(since, (ended, _))| *since <= ended.runs)
            });
            let state = environment.recorder.declared().table.content(&failing_key(site));
            let how = match (last_of(EXPLAINED, luid), last_of(RESOLVED, luid)) {
                (None, _) => "of no failure",
                (Some(explained), Some(resolved)) if explained < resolved => "published",
                _ if are_named => "named in the log",
                _ if !is_kept => "not registered",
                _ => anyhow::bail!("that {luid} works again is lost: {of_resource:?}; {:?}", self.not_recovered),
            };
            tally.add(format!("resolutions {how}"), 1);
            // A site that is not declared is left as it is.
            let is_processed = self.registered.keys().any(|(at, _)| *at == success.site);
            let failing = &state["resources"][luid];
            ensure!(failing.is_null() || are_named || !is_processed, "{luid} works, and the state says {failing}");
        }
        Ok(())
    }

    /// Returns the refreshes of each resource in the order of their ends.
    fn by_resource(&self) -> BTreeMap<&str, Vec<&Refresh>> {
        let mut resources = BTreeMap::<_, Vec<_>>::new();
        for refresh in &self.all {
            resources.entry(refresh.luid.as_str()).or_default().push(refresh);
        }
        for of_resource in resources.values_mut() {
            of_resource.sort_by_key(|refresh| refresh.ended.map(|(ended, _)| ended.at));
        }
        resources
    }
}

/// Returns the job from which an event was made. That of a resolution is the last failed one.
fn job_of(EventMessage { body, .. }: &EventMessage) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    let data = &body["data"];
    let job = data["failed_job_id"].as_str().or(data["job_id"].as_str());
    let text = || data["text"].as_str()?.rsplit_once("recovered from job ").map(|(_, job)| job);
    job.or_else(text).map(str::to_owned)
}
