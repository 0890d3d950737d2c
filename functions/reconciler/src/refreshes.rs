//! What a run does about refreshes: those that Tableau could not tell of are published, and failures are explained.
//!
//! Each job is told of once. Its end falls into the window of one run, and the windows of a site's runs follow one another
//! without a gap. Before a run publishes anything it stores how far it is about to go, so that a run after a crash knows
//! what may have been published, and leaves that alone.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::{
    metrics::MetricLog,
    topic::{Topic, is_refused_for_good, may_have_been_accepted},
    with_causes,
};
use futures_util::future::join_all;
use serde_json::json;
use shared::{
    alert::{AlertEvents, AlertMessage},
    event::Event,
    message::EventMessage,
    refresh::{EndedJob, Refresh, RefreshOutcome},
    refresh_alert::{explained_alerts, recovered_alert},
    registration::{Registration, SiteName},
    remembered::{Cursor, Lease, Remembered, SETTLED, SiteMemory, UNREAD_TIME},
};
use tableau::{OddJob, RefreshJobs, Session, WhichJobs};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    BoxError,
    config::Recovery,
    parameters::Parameters,
    report::{Explained, NotRecovered, Recovered, SiteReport},
};

/// How many jobs a run reads in full at most. With a run every quarter of an hour that stays below the 20,000 job queries
/// that Tableau Cloud allows a site each day, and the messages about them fit into the time after the visits.
const MOST_JOBS: usize = 200;

/// How much longer than a run may last its lease does: clocks differ, and Lambda takes a moment to end a run.
const LEASE_SLACK: time::Duration = time::Duration::minutes(1);

/// From when on a server's clock counts as slow. Answers take time, and are dated to the second.
const SLOW_CLOCK: time::Duration = time::Duration::seconds(-10);

/// How much time there must be left to publish one more message: itself, alerts, and storing what was done.
const PUBLISH_TIME: Duration = Duration::from_secs(40);

const CUT_OFF: &str = "a run was cut off while it published; whether it got that far is not known";

/// What a run knows and does of refreshes.
#[derive(Debug)]
pub(crate) struct Refreshes<'a, P> {
    parameters: &'a P,
    log: &'a MetricLog,
    reach: time::Duration,
    /// When the run began, to the second.
    now: OffsetDateTime,
    /// Version of this run's lease, `None` if another run's has not ended or nothing can be stored.
    lease: Option<i64>,
    /// Whether anything was remembered, of whatever site.
    is_remembered: bool,
    memory: Mutex<Memory>,
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Memory {
    remembered: Remembered,
    /// How often something was changed, and how many of these changes are stored.
    changes: u64,
    stored: u64,
    jobs_read: usize,
    /// How many more jobs can be set aside.
    room_for_unread: usize,
    found: Vec<SiteJobs>,
}

/// What is to be told of one site's refreshes.
#[derive(Debug)]
struct SiteJobs {
    site: SiteName,
    site_luid: String,
    memory: SiteMemory,
    /// In the order of their ends, after which come those that were set aside before.
    to_tell: Vec<ToTell>,
    /// What is given up as soon as its place is passed; without a place, as soon as anything is: the next run need not
    /// list it again.
    to_give_up: Vec<(Option<Cursor>, NotRecovered)>,
    /// Where they end.
    end: Cursor,
}

/// A refresh with something to tell.
#[derive(Debug)]
struct ToTell {
    refresh: Refresh,
    recover: Vec<(Event, OffsetDateTime)>,
    explain: bool,
}

/// One site's webhooks as they were listed, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look<'a> {
    pub(crate) site: &'a SiteName,
    /// The events wanted there.
    pub(crate) wanted: &'a BTreeSet<Event>,
    /// Those that the receiver is told of.
    pub(crate) heard: &'a BTreeSet<Event>,
    /// Those of which there is a webhook of ours, whatever its state.
    pub(crate) owned: &'a BTreeSet<Event>,
    /// How far the server's clock is ahead.
    pub(crate) ahead: Option<time::Duration>,
}

/// What came of it all, besides what the reports of the sites say.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) notes: Vec<String>,
    /// Why refreshes could not be told of.
    pub(crate) error: Option<String>,
    /// Why people could not be told.
    pub(crate) alerts_error: Option<String>,
}

impl<'a, P: Parameters> Refreshes<'a, P> {
    /// Takes the right to tell of refreshes, and reads what is remembered of them. A note says what hinders that.
    pub(crate) async fn begin(
        parameters: &'a P,
        log: &'a MetricLog,
        recovery: &Recovery,
        time_left: Duration,
    ) -> (Self, Result<Option<String>, BoxError>) {
        let now = OffsetDateTime::now_utc().truncate_to_second();
        let reach = recovery.reach.try_into().unwrap_or(time::Duration::DAY);
        let mut refreshes = Self {
            parameters,
            log,
            reach,
            now,
            lease: None,
            is_remembered: false,
            memory: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        };
        let result = refreshes.take_lease(time_left).await;
        (refreshes, result)
    }

    async fn take_lease(&mut self, time_left: Duration) -> Result<Option<String>, BoxError> {
        // The lease first: what is remembered may only be newer than that.
        let lease = self.parameters.refreshes_lease().await?;
        let (held_until, version) = match &lease {
            Some((text, version)) => (Lease::parse(text).map(|lease| lease.until), *version),
            None => (None, 0),
        };
        let stored = self.parameters.refreshes().await?;
        let remembered = stored.as_deref().map(Remembered::parse).transpose();
        let note = match &remembered {
            Ok(Some(_)) => None,
            Ok(None) => Some("Nothing is remembered of refreshes, since this is the first run or it was lost"),
            Err(_) => Some("What is remembered of refreshes cannot be read"),
        };
        let note = note.map(|why| format!("{why}: this run recovers none, and failures from now on are explained."));
        let remembered = remembered.ok().flatten();
        self.is_remembered = remembered.is_some();
        let remembered = remembered.unwrap_or_default();
        self.lock().room_for_unread = remembered.room_for_unread();
        let is_held = held_until.is_some_and(|until| until > self.now) && remembered.finished != version;
        self.lock().remembered = remembered;
        if !is_held {
            let until = self.now + time_left + LEASE_SLACK;
            let stored = self.parameters.store_refreshes_lease(&Lease::until(until).to_stored()).await?;
            // Another run was faster otherwise.
            self.lease = Some(stored).filter(|stored| *stored == version + 1);
        }
        if self.lease.is_none() {
            let other =
                "Another run tells of refreshes, or was cut off a moment ago: this one recovers and explains none.";
            return Ok(Some(other.to_owned()));
        }
        Ok(note)
    }

    /// Whether this run may change what is remembered.
    pub(crate) fn has_lease(&self) -> bool {
        self.lease.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // Nothing that could panic half-way changes it.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time by the run's clock or the server's, whichever is behind.
    fn now_at_most(&self, ahead: Option<time::Duration>) -> OffsetDateTime {
        match ahead {
            // To the full minute, so that sites of one server are stored together.
            Some(ahead) if ahead < SLOW_CLOCK => self.now + time::Duration::minutes(ahead.whole_minutes() - 1),
            Some(_) | None => self.now,
        }
    }

    /// Stores what is remembered now, together with what others changed meanwhile.
    async fn store(&self) -> Result<(), BoxError> {
        let wanted = self.lock().changes;
        let _alone = self.writing.lock().await;
        let (text, changes) = {
            let mut memory = self.lock();
            if memory.stored >= wanted {
                return Ok(());
            }
            (memory.remembered.to_stored(), memory.changes)
        };
        self.parameters.store_refreshes(&text).await?;
        self.lock().stored = changes;
        Ok(())
    }

    /// Looks which webhooks are silent, before anything is repaired, and stores what is new: after the repair nothing
    /// would show it any more. Returns what is remembered of the site, if anything is.
    pub(crate) async fn look(&self, look: Look<'_>, report: &mut SiteReport) -> Option<SiteMemory> {
        let Look { site, wanted, heard, owned, ahead } = look;
        let now = self.now_at_most(ahead);
        let known = self.lock().remembered.site(site).cloned();
        let Some(mut memory) = known else {
            let events: BTreeSet<_> =
                shared::remembered::refresh_events(wanted).into_iter().filter(|it| owned.contains(it)).collect();
            let events: BTreeSet<_> = events.into_iter().filter(|event| !heard.contains(event)).collect();
            if !events.is_empty() {
                let reason = "nothing is remembered of this site, so that it is not known since when they were silent";
                self.give_up(
                    report,
                    NotRecovered { job: None, events, from: None, until: Some(self.now), reason: reason.to_owned() },
                );
            }
            // Otherwise it is said of all.
            if self.is_remembered && self.lease.is_some() {
                report.notes.push("It is new, or forgotten: its refreshes are told of from now on.".to_owned());
            }
            return None;
        };
        if let Some(silence) = memory.look(now, wanted, heard) {
            let stored = match self.lease {
                Some(_) => {
                    {
                        let mut shared = self.lock();
                        shared.remembered.remember(site, memory.clone());
                        shared.changes += 1;
                    }
                    self.store().await
                }
                None => Err("another run tells of refreshes meanwhile".into()),
            };
            if let Err(error) = stored {
                let reason = format!("it could not be stored that they were silent: {}", with_causes(&*error));
                let shared::remembered::Silence { events, from, .. } = silence;
                let until = Some(OffsetDateTime::now_utc());
                self.give_up(report, NotRecovered { job: None, events, from: Some(from), until, reason });
            }
        }
        Some(memory)
    }

    /// Names what is given up, before anything else is done.
    fn give_up(&self, report: &mut SiteReport, not_recovered: NotRecovered) {
        self.log_given_up(&report.site, &[&not_recovered]);
        report.not_recovered.push(not_recovered);
    }

    fn log_given_up(&self, site: &str, given_up: &[&NotRecovered]) {
        if !given_up.is_empty() {
            let message = "refreshes that may be missing on the events topic were given up";
            self.log.line(&message, &json!({ "site": site, "not_recovered": given_up }), &[]);
        }
    }

    /// Takes note of what is silent after everything was repaired.
    pub(crate) fn look_again(
        &self,
        wanted: &BTreeSet<Event>,
        heard: &BTreeSet<Event>,
        ahead: Option<time::Duration>,
        memory: Option<SiteMemory>,
    ) -> Option<SiteMemory> {
        self.lease?;
        let mut memory = match memory {
            Some(memory) => memory,
            None => SiteMemory::new(self.now_at_most(ahead), heard),
        };
        let ahead = ahead.unwrap_or_default().max(time::Duration::ZERO);
        memory.look_again(OffsetDateTime::now_utc() + ahead + time::Duration::SECOND, wanted, heard);
        Some(memory)
    }

    /// Reads the jobs of a site as far as something is to be told of them. What goes wrong is a note of the report: the
    /// next run reads them from the same place on.
    pub(crate) async fn read(
        &self,
        session: &mut Session<'_>,
        site: &SiteName,
        wanted: &BTreeSet<Event>,
        mut memory: SiteMemory,
        report: &mut SiteReport,
        has_time: impl Fn() -> bool,
    ) {
        let until = self.now_at_most(session.ahead()) - SETTLED;
        let has_any = wanted.iter().any(is_failure) || memory.has_silences();
        let earliest = until - self.reach;
        if memory.read().at() < earliest {
            if has_any {
                report.not_recovered.push(NotRecovered {
                    job: None,
                    events: BTreeSet::new(),
                    from: Some(memory.read().at()),
                    until: Some(earliest),
                    reason: "it is longer ago than RECOVER_HOURS".to_owned(),
                });
            }
            memory.advance(Cursor::until(earliest));
        }
        let (site, site_luid) = (site.clone(), session.site_luid().to_owned());
        let end = Cursor::until(until);
        let mut found = SiteJobs { site, site_luid, memory, to_tell: Vec::new(), to_give_up: Vec::new(), end };
        if !has_any {
            // Nobody wants to hear of those that were set aside.
            found.memory.forget_unread(|_| true);
        } else if found.memory.read() < &found.end {
            let which = if found.memory.has_silences() { WhichJobs::All } else { WhichJobs::Failed };
            match session.refresh_jobs(found.memory.read().at(), until, which).await {
                Ok(jobs) => self.read_jobs(session, wanted, jobs, &mut found, report, has_time).await,
                Err(error) => {
                    report
                        .notes
                        .push(format!("Its jobs could not be read: {}. The next run does.", with_causes(&error)));
                    found.end = found.memory.read().clone();
                }
            }
        }
        // What was doubtful has been named.
        if found.memory.publishing().is_some_and(|publishing| *publishing <= found.end) {
            found.memory.give_up_publishing();
        }
        self.lock().found.push(found);
    }

    /// Reads listed jobs in full, one after another, and then those that could not be read before.
    async fn read_jobs(
        &self,
        session: &mut Session<'_>,
        wanted: &BTreeSet<Event>,
        jobs: RefreshJobs,
        found: &mut SiteJobs,
        report: &mut SiteReport,
        has_time: impl Fn() -> bool,
    ) {
        let RefreshJobs { mut ended, odd, others, nameless, listed, counted } = jobs;
        let (start, end) = (found.memory.read().clone(), found.end.clone());
        // Without a time they have no place.
        let odd = odd.into_iter().map(|OddJob { id, reason }| NotRecovered::job(&id, reason));
        let nameless = (nameless > 0).then(|| NotRecovered {
            job: None,
            events: BTreeSet::new(),
            from: Some(start.at()),
            until: Some(end.at()),
            reason: format!("rows without an id in Tableau's list of jobs: {nameless}"),
        });
        found.to_give_up.extend(odd.chain(nameless).map(|given_up| (None, given_up)));
        if others > 0 {
            report.notes.push(format!("{others} of its jobs are of a type that was not asked for, and were skipped."));
        }
        if counted > listed {
            tracing::warn!(counted, listed, "Tableau counts more refreshes than it lists");
            report.notes.push(format!("Tableau counts {counted} of its refreshes in this time and lists {listed}."));
        }
        let in_doubt = found.memory.publishing().cloned();
        let unread = found.memory.unread().iter().map(|unread| unread.job.clone());
        // Those after the place are listed again.
        let mut unread: Vec<_> = unread.filter(|job| start.has_passed(job.ended_at, &job.id)).collect();
        if in_doubt.is_some() {
            // The run that was cut off may have read and published them.
            for job in unread.drain(..) {
                found.memory.forget_unread(|unread| *unread == job.id);
                report.not_recovered.push(NotRecovered::job(&job.id, CUT_OFF));
            }
        }
        let explains = wanted.iter().any(is_failure);
        let may_matter = |EndedJob { outcome, started_at, ended_at, .. }: &EndedJob, memory: &SiteMemory| {
            (explains && *outcome == RefreshOutcome::Failed) || memory.may_owe(*outcome, *started_at, *ended_at)
        };
        ended.retain(|job| {
            let is_due = job.ended_at < end.at() && !start.has_passed(job.ended_at, &job.id);
            is_due && may_matter(job, &found.memory)
        });
        ended.sort_by(|a, b| (a.ended_at, &a.id).cmp(&(b.ended_at, &b.id)));
        found.end = start;
        let mut left = ended.len();
        for job in ended {
            let place = Cursor::after(job.ended_at, &job.id);
            if in_doubt.as_ref().is_some_and(|in_doubt| place <= *in_doubt) {
                report.not_recovered.push(NotRecovered::job(&job.id, CUT_OFF));
            } else if !has_time() || !self.read_job(session, wanted, &job, found, report).await {
                report.refreshes_left = left;
                return;
            }
            found.end = place;
            left -= 1;
        }
        found.end = end;
        for job in unread {
            if !may_matter(&job, &found.memory) {
                found.memory.forget_unread(|unread| *unread == job.id);
            } else if !has_time() || !self.read_job(session, wanted, &job, found, report).await {
                return;
            }
        }
    }

    /// Reads one job in full. Returns whether the others can be read.
    async fn read_job(
        &self,
        session: &mut Session<'_>,
        wanted: &BTreeSet<Event>,
        job: &EndedJob,
        found: &mut SiteJobs,
        report: &mut SiteReport,
    ) -> bool {
        let id = &job.id;
        if !self.may_read_a_job() {
            return false;
        }
        let reason = match session.refresh(job).await {
            Ok(Ok(refresh)) => {
                match ToTell::of(refresh, wanted, &found.memory) {
                    Some(to_tell) => found.to_tell.push(to_tell),
                    None => found.memory.forget_unread(|unread| unread == id),
                }
                return true;
            }
            Ok(Err(OddJob { reason, .. })) => reason,
            Err(error) => {
                let since = found.memory.unread().iter().find(|unread| unread.job.id == *id).map(|unread| unread.since);
                let is_set_aside =
                    !error.concerns_the_site() && (since.is_some() || self.set_aside(job, &mut found.memory));
                let error = with_causes(&error);
                if !is_set_aside {
                    report.notes.push(format!("Job {id} could not be read: {error}. The next run goes on with it."));
                    return false;
                }
                if since.is_none_or(|since| self.now < since + UNREAD_TIME) {
                    report.notes.push(format!("Job {id} could not be read: {error}. It is tried again for an hour."));
                    return true;
                }
                format!("it could not be read for an hour: {error}")
            }
        };
        let given_up = NotRecovered::job(id, reason);
        if found.memory.read().has_passed(job.ended_at, id) {
            // Its place was passed by an earlier run, so that nothing else would end it.
            found.memory.forget_unread(|unread| unread == id);
            report.not_recovered.push(given_up);
        } else {
            found.to_give_up.push((Some(Cursor::after(job.ended_at, id)), given_up));
        }
        true
    }

    /// Sets a job aside that could not be read. Returns whether there is room for that.
    fn set_aside(&self, job: &EndedJob, memory: &mut SiteMemory) -> bool {
        let room = &mut self.lock().room_for_unread;
        let has_room = *room > 0 && memory.has_room_for_unread();
        if has_room {
            *room -= 1;
            memory.set_aside(job.clone(), self.now);
        }
        has_room
    }

    fn may_read_a_job(&self) -> bool {
        let mut memory = self.lock();
        memory.jobs_read += 1;
        memory.jobs_read <= MOST_JOBS
    }

    /// Forgets a site whose webhooks were deleted on purpose.
    pub(crate) fn forget(&self, site: &SiteName) {
        let mut memory = self.lock();
        memory.remembered.forget(site);
        memory.changes += 1;
    }

    /// Tells of all that was found, and remembers it. What is told, and what is given up, is added to the reports.
    pub(crate) async fn tell<A: Topic<EventMessage> + Topic<AlertMessage>>(
        self,
        events: &A,
        alerts: Option<(&A, &AlertEvents)>,
        declared: &BTreeSet<SiteName>,
        reports: &mut [SiteReport],
        deadline: Instant,
    ) -> Told {
        let Some(lease) = self.lease else { return Told::default() };
        let mut told = Told::default();
        // Before anything is stored that goes past it: a run that is cut off has no other report than the log.
        let given_up: Vec<_> = reports.iter().map(|report| report.not_recovered.len()).collect();
        for report in reports.iter() {
            // What was named before it was repaired is in the log already.
            let new = report.not_recovered.iter().filter(|it| it.job.is_some() || it.events.is_empty());
            self.log_given_up(&report.site, &new.collect::<Vec<_>>());
        }
        let mut found = {
            let mut memory = self.lock();
            let mut found = mem::take(&mut memory.found);
            // In the order of the report.
            found.sort_by(|a, b| a.site.cmp(&b.site));
            memory.remembered.keep_only(declared);
            for SiteJobs { site, memory: of_site, to_tell, end, .. } in &found {
                let mut of_site = of_site.clone();
                if !to_tell.is_empty() {
                    of_site.begin_publishing(end.clone());
                }
                memory.remembered.remember(site, of_site);
            }
            memory.changes += 1;
            found
        };
        let mut goes_on = true;
        if found.iter().any(|site| !site.to_tell.is_empty())
            && let Err(error) = self.store().await
        {
            told.error = Some(format!("it could not be stored what was to be published: {}", with_causes(&*error)));
            goes_on = false;
        }
        let mut published = Published::default();
        for site in &mut found {
            let Some(report) = reports.iter_mut().find(|report| report.site == site.site.as_str()) else { continue };
            let has_begun = !site.to_tell.is_empty();
            let start = site.memory.read().clone();
            let read = publish(events, site, report, &mut published, &mut goes_on, &mut told.error, deadline).await;
            let is_passed = |place: &Option<Cursor>| place.as_ref().map_or(start < read, |place| *place <= read);
            for (_, given_up) in site.to_give_up.drain(..).filter(|(place, _)| is_passed(place)) {
                site.memory.forget_unread(|unread| given_up.job.as_ref() == Some(unread));
                report.not_recovered.push(given_up);
            }
            if has_begun {
                site.memory.end_publishing(read);
            } else {
                // What an earlier run was cut off from stays in doubt as long as its jobs could not be read.
                site.memory.advance(read);
            }
        }
        if let Some((topic, wanted)) = alerts {
            told.alerts_error = published.alert(topic, wanted).await.err().map(|error| with_causes(&*error));
        }
        for (report, count) in reports.iter().zip(given_up) {
            self.log_given_up(&report.site, &report.not_recovered.iter().skip(count).collect::<Vec<_>>());
        }
        {
            let mut memory = self.lock();
            for SiteJobs { site, memory: of_site, .. } in found {
                memory.remembered.remember(&site, of_site);
            }
            memory.remembered.finished = lease;
            memory.changes += 1;
        }
        if let Err(error) = self.store().await {
            told.error = Some(format!("the state could not be stored: {}", with_causes(&*error)));
        }
        let forgotten = self.lock().remembered.forgotten();
        if forgotten > 0 {
            told.notes.push(format!("There is no room to remember the refreshes of {forgotten} sites."));
        }
        told
    }
}

impl ToTell {
    /// What is to be told of a refresh, if anything is.
    fn of(refresh: Refresh, wanted: &BTreeSet<Event>, memory: &SiteMemory) -> Option<Self> {
        let recover: Vec<_> = refresh.events().filter(|(event, at)| memory.owes(event, *at)).collect();
        let explain = refresh.events().any(|(event, _)| is_failure(&event) && wanted.contains(&event));
        (explain || !recover.is_empty()).then_some(Self { refresh, recover, explain })
    }
}

/// Whether it is the event of a refresh that failed, which is explained.
fn is_failure(event: &Event) -> bool {
    event.action() == Some("refresh-failed")
}

/// What was published.
#[derive(Debug, Default)]
struct Published {
    recovered: Vec<(Registration, Refresh)>,
    explained: Vec<(SiteName, Refresh)>,
}

impl Published {
    /// Tells people.
    async fn alert(&self, topic: &impl Topic<AlertMessage>, wanted: &AlertEvents) -> Result<(), BoxError> {
        let recovered = self.recovered.iter().filter(|(registration, _)| wanted.contains(&registration.event));
        let recovered: Vec<_> = recovered.map(|(registration, refresh)| (registration.clone(), refresh)).collect();
        let is_wanted = |(_, refresh): &&(SiteName, Refresh)| {
            refresh.events().any(|(event, _)| is_failure(&event) && wanted.contains(&event))
        };
        let explained: Vec<_> =
            self.explained.iter().filter(is_wanted).map(|(site, refresh)| (site, refresh)).collect();
        let alerts = recovered_alert(&recovered).into_iter().chain(explained_alerts(&explained));
        // All are tried, whatever becomes of the others.
        join_all(alerts.map(|alert| topic.publish(alert))).await.into_iter().collect()
    }
}

/// Publishes what is to be told of a site, in order, as long as it goes on. Returns how far its jobs were told of.
async fn publish(
    topic: &impl Topic<EventMessage>,
    site: &mut SiteJobs,
    report: &mut SiteReport,
    published: &mut Published,
    goes_on: &mut bool,
    error: &mut Option<String>,
    deadline: Instant,
) -> Cursor {
    let mut read = site.memory.read().clone();
    let mut to_tell = mem::take(&mut site.to_tell).into_iter();
    while let Some(ToTell { refresh, recover, explain }) = to_tell.next() {
        let has_time = Instant::now() + PUBLISH_TIME < deadline;
        if !*goes_on || !has_time {
            *goes_on = false;
            report.refreshes_left += 1 + to_tell.len();
            return read;
        }
        let place = Cursor::after(refresh.ended_at, &refresh.job_id);
        let recoveries = recover.into_iter().map(|(event, at)| (Some((event, at)), "the recovered event"));
        let what: Vec<_> = recoveries.chain(explain.then_some((None, "the explanation"))).collect();
        let (mut is_begun, mut refused) = (false, Vec::new());
        for (recovery, name) in what {
            let (named, message) = match &recovery {
                Some((event, _)) => {
                    let registration = Registration { site: site.site.clone(), event: event.clone() };
                    (event.as_str(), refresh.recovered_event(&registration, &site.site_luid))
                }
                None => (shared::refresh::EXPLAINED, refresh.explained_event(&site.site, &site.site_luid)),
            };
            let Some(message) = message else {
                refused.push(format!("SNS takes no {named} of it"));
                continue;
            };
            if *goes_on {
                match topic.publish(message).await {
                    Ok(()) => {
                        is_begun = true;
                        match recovery {
                            Some((event, at)) => {
                                report.recovered.push(Recovered::of(&refresh, &event, at));
                                let registration = Registration { site: site.site.clone(), event };
                                published.recovered.push((registration, refresh.clone()));
                            }
                            None => {
                                report.explained.push(Explained::of(&refresh));
                                published.explained.push((site.site.clone(), refresh.clone()));
                            }
                        }
                        continue;
                    }
                    // That would be so in every run, and is no reason to keep anything else.
                    Err(refusal) if is_refused_for_good(&refusal) => {
                        refused.push(format!("SNS refuses its {named}: {}", with_causes(&*refusal)));
                        continue;
                    }
                    Err(refusal) => {
                        *goes_on = false;
                        // One that SNS may have must not be published again.
                        is_begun |= may_have_been_accepted(&refusal);
                        *error = Some(format!("SNS did not take {name} of a job: {}", with_causes(&*refusal)));
                    }
                }
            }
            if is_begun {
                let reason = format!("SNS may not have taken its {named}");
                report.not_recovered.push(NotRecovered::job(&refresh.job_id, reason));
            }
        }
        if !*goes_on && !is_begun {
            // Nothing of it was published: the next run tries it again.
            report.refreshes_left += 1 + to_tell.len();
            return read;
        }
        if !refused.is_empty() {
            report.not_recovered.push(NotRecovered::job(&refresh.job_id, refused.join("; ")));
        }
        site.memory.forget_unread(|unread| *unread == refresh.job_id);
        read = read.max(place);
    }
    site.end.clone().max(read)
}
