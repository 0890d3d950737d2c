//! What is remembered of each site's refreshes, so that what Tableau did not deliver is told, and told once.
//!
//! Two things for each site: how far its jobs were told of, and when which of its webhooks were silent.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::{Duration, OffsetDateTime, serde::rfc3339};

use crate::{
    event::Event,
    keyring::Keyring,
    refresh::RefreshOutcome,
    registration::{Claim, ReceiverUrl, Registration, SiteName},
    told::CHARACTERS,
    webhook::ObservedWebhook,
};

/// The only version of the stored forms so far.
const VERSION: u32 = 1;

/// The events that jobs tell of. Their places are how they are stored.
const REFRESH_EVENTS: [&str; 6] = [
    "DatasourceRefreshStarted",
    "DatasourceRefreshSucceeded",
    "DatasourceRefreshFailed",
    "WorkbookRefreshStarted",
    "WorkbookRefreshSucceeded",
    "WorkbookRefreshFailed",
];

/// How long ago a job must have ended to be told of. By then it is listed, and Tableau has delivered its event or has
/// given it up and disabled the webhook: it tries four times, with gaps that are not published. So a webhook that works
/// has delivered all that is older, and what is younger is told of by the next run.
pub const SETTLED: Duration = Duration::minutes(5);

/// How long a refresh may take: what Tableau Cloud allows at most, and Tableau Server unless it is told otherwise. One
/// that began while its webhook was silent is known only when it has ended.
const LONGEST_REFRESH: Duration = Duration::hours(2);

/// Characters that stand for a site: 36 bits, so that two of six hundred names stand for the same once in 400,000 stacks.
const SITE_CHARACTERS: usize = 6;

/// A place among a site's jobs, which are ordered by their end and then by their identifier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor {
    /// Jobs that ended earlier are before this place.
    #[serde(with = "rfc3339")]
    at: OffsetDateTime,
    /// Of those that ended at that time, the ones up to this are before it; none without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job: Option<String>,
}

impl Cursor {
    /// After all jobs that ended before a time.
    pub fn until(at: OffsetDateTime) -> Self {
        Self { at, job: None }
    }

    /// After one job.
    pub fn after(ended_at: OffsetDateTime, job_id: &str) -> Self {
        Self { at: ended_at, job: Some(job_id.to_owned()) }
    }

    /// The end of the jobs around it.
    pub fn at(&self) -> OffsetDateTime {
        self.at
    }

    /// Whether a job is before this place.
    pub fn has_passed(&self, ended_at: OffsetDateTime, job_id: &str) -> bool {
        (ended_at, Some(job_id)) <= (self.at, self.job.as_deref())
    }
}

/// When webhooks for some events may have been silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The events.
    pub events: BTreeSet<Event>,
    /// Since when.
    pub from: OffsetDateTime,
    /// Until when; `None` while it lasts.
    pub until: Option<OffsetDateTime>,
}

/// What is remembered of one site. All times are the Tableau server's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteMemory {
    /// When its webhooks were last looked at.
    seen: OffsetDateTime,
    /// How far its jobs were told of.
    read: Cursor,
    /// How far a run was about to tell. While that is there, what became of those jobs is not known.
    publishing: Option<Cursor>,
    /// The events of refreshes whose webhooks worked when they were last looked at.
    heard: BTreeSet<Event>,
    /// When webhooks were silent, as far as jobs of that time are still to be told of.
    silences: Vec<Silence>,
}

/// The events, of some, that jobs tell of.
pub fn refresh_events(events: &BTreeSet<Event>) -> BTreeSet<Event> {
    events.iter().filter(|event| REFRESH_EVENTS.contains(&event.as_str())).cloned().collect()
}

/// The events that the receiver is told of, by a **complete** list of a site's webhooks: each by one that is enabled and
/// has an address that the receiver believes, whatever key signed it and whatever the webhook is called.
pub fn heard_events(
    site: &SiteName,
    observed: &[ObservedWebhook],
    receiver: &ReceiverUrl,
    keyring: &Keyring,
) -> BTreeSet<Event> {
    let enabled = observed.iter().filter(|webhook| webhook.is_enabled);
    let believed = enabled.filter_map(|webhook| {
        let verified = Claim::parse(receiver.path_of(webhook.url.as_ref()?)?)?.verify(keyring)?;
        let Registration { site: signed_for, event } = verified.registration();
        // An event that the answer did not tell is no reason to doubt it.
        let is_for_it = webhook.event.as_ref().is_none_or(|observed| observed == event);
        (signed_for == site && is_for_it).then(|| event.clone())
    });
    believed.collect()
}

impl SiteMemory {
    /// A site of which nothing is known yet: what ended so far is past.
    pub fn new(now: OffsetDateTime, heard: &BTreeSet<Event>) -> Self {
        Self {
            seen: now,
            read: Cursor::until(now - SETTLED),
            publishing: None,
            heard: refresh_events(heard),
            silences: Vec::new(),
        }
    }

    /// How far its jobs were told of.
    pub fn read(&self) -> &Cursor {
        &self.read
    }

    /// How far a run was about to tell that was cut off.
    pub fn publishing(&self) -> Option<&Cursor> {
        self.publishing.as_ref()
    }

    /// Whether anything was silent of which jobs are still to be told.
    pub fn has_silences(&self) -> bool {
        !self.silences.is_empty()
    }

    /// Takes note of which wanted events the receiver is told of before anything is repaired. Returns the newest silence,
    /// if there is a new one: what is not remembered of it before the repair could never be found out afterwards.
    pub fn look(&mut self, now: OffsetDateTime, wanted: &BTreeSet<Event>, heard: &BTreeSet<Event>) -> Option<Silence> {
        let wanted = refresh_events(wanted);
        for silence in &mut self.silences {
            // What nobody wants any more is nothing to make up for.
            silence.events.retain(|event| wanted.contains(event));
        }
        self.silences.retain(|silence| !silence.events.is_empty());
        // One that never worked, since it is new, has missed nothing.
        let events: BTreeSet<_> = self.heard.intersection(&wanted).filter(|event| !heard.contains(event)).collect();
        let events: BTreeSet<Event> = events.into_iter().cloned().collect();
        let silence = (!events.is_empty()).then(|| Silence { events, from: self.seen - SETTLED, until: None });
        self.silences.extend(silence.clone());
        self.heard = wanted.intersection(heard).cloned().collect();
        self.seen = self.seen.max(now);
        silence
    }

    /// Takes note of which events the receiver is told of now: their silence is over. `now` may be late but not early.
    pub fn look_again(&mut self, now: OffsetDateTime, wanted: &BTreeSet<Event>, heard: &BTreeSet<Event>) {
        // To the full minute, so that sites that were repaired together are stored together.
        let minute = Duration::minutes(1);
        let past = Duration::seconds(i64::from(now.second())) + Duration::nanoseconds(i64::from(now.nanosecond()));
        let until = if past.is_zero() { now } else { now - past + minute };
        let mut over = Vec::new();
        for silence in self.silences.iter_mut().filter(|silence| silence.until.is_none()) {
            let (ended, lasting) = std::mem::take(&mut silence.events).into_iter().partition(|it| heard.contains(it));
            silence.events = lasting;
            over.push(Silence { events: ended, from: silence.from, until: Some(until) });
        }
        self.silences.extend(over);
        self.silences.retain(|silence| !silence.events.is_empty());
        self.heard = refresh_events(wanted).intersection(heard).cloned().collect();
    }

    /// Whether an event of that time was missed.
    pub fn owes(&self, event: &Event, at: OffsetDateTime) -> bool {
        self.silences.iter().any(|silence| {
            silence.from <= at && silence.until.is_none_or(|until| at < until) && silence.events.contains(event)
        })
    }

    /// Whether a job may tell of an event that was missed, as far as a list says what it refreshed.
    pub fn may_owe(
        &self,
        outcome: RefreshOutcome,
        started_at: Option<OffsetDateTime>,
        ended_at: OffsetDateTime,
    ) -> bool {
        let ended = match outcome {
            RefreshOutcome::Succeeded => Some("refresh-succeeded"),
            RefreshOutcome::Failed => Some("refresh-failed"),
            RefreshOutcome::Cancelled => None,
        };
        let told = started_at.map(|at| ("refresh-started", at)).into_iter().chain(ended.map(|ended| (ended, ended_at)));
        told.into_iter().any(|(action, at)| {
            let events = self.silences.iter().flat_map(|silence| &silence.events);
            let mut of_that_action = events.filter(|event| event.action() == Some(action));
            of_that_action.any(|event| self.owes(event, at))
        })
    }

    /// Notes that a run is about to tell of the jobs up to a place.
    pub fn begin_publishing(&mut self, until: Cursor) {
        self.publishing = Some(until);
    }

    /// Notes that its jobs were told of up to a place, or given up.
    pub fn advance(&mut self, read: Cursor) {
        self.read = self.read.clone().max(read);
        self.publishing = self.publishing.take().filter(|publishing| *publishing > self.read);
        let read = self.read.at;
        self.silences.retain(|Silence { events, until, .. }| {
            let is_start = |event: &Event| event.action() == Some("refresh-started");
            let late = if events.iter().any(is_start) { LONGEST_REFRESH } else { Duration::ZERO };
            until.is_none_or(|until| read < until + late)
        });
    }

    /// Ends what is known of a publishing that was cut off: the jobs up to it are given up.
    pub fn give_up_publishing(&mut self) {
        if let Some(publishing) = self.publishing.take() {
            self.advance(publishing);
        }
    }

    /// Notes that the publishing that this run began has come to its end.
    pub fn end_publishing(&mut self, read: Cursor) {
        self.publishing = None;
        self.advance(read);
    }
}

/// What is remembered of all sites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Version of the lease of the run that stored this at its end.
    pub finished: i64,
    sites: BTreeMap<String, SiteMemory>,
    forgotten: usize,
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    finished: i64,
    groups: Vec<Group>,
}

/// Sites of which the same is remembered. Mostly that is all of them.
#[derive(Serialize, Deserialize)]
struct Group {
    #[serde(with = "rfc3339")]
    seen: OffsetDateTime,
    read: Cursor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    publishing: Option<Cursor>,
    heard: Codes,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    silences: Vec<StoredSilence>,
    /// What stands for each site, one after the other.
    sites: String,
}

/// Events by their places in [`REFRESH_EVENTS`].
#[derive(Serialize, Deserialize)]
struct Codes(String);

#[derive(Serialize, Deserialize)]
struct StoredSilence {
    events: Codes,
    #[serde(with = "rfc3339")]
    from: OffsetDateTime,
    #[serde(default, with = "rfc3339::option", skip_serializing_if = "Option::is_none")]
    until: Option<OffsetDateTime>,
}

impl From<&BTreeSet<Event>> for Codes {
    fn from(events: &BTreeSet<Event>) -> Self {
        let is_one = |name: &str| events.iter().any(|event| event.as_str() == name);
        let places = REFRESH_EVENTS.iter().zip('0'..).filter(|(name, _)| is_one(name));
        Self(places.map(|(_, place)| place).collect())
    }
}

impl Codes {
    fn events(&self) -> Option<BTreeSet<Event>> {
        let event = |place: char| REFRESH_EVENTS.get(place.to_digit(10)? as usize)?.parse().ok();
        self.0.chars().map(event).collect()
    }
}

/// The stored text is not of a form that this release knows.
#[derive(Debug, Error)]
#[error("it is not what this release stores there")]
pub struct InvalidMemory;

impl Remembered {
    /// Reads the stored text.
    ///
    /// # Errors
    ///
    /// It is of no form that is known.
    pub fn parse(text: &str) -> Result<Self, InvalidMemory> {
        let Stored { version, finished, groups } = serde_json::from_str(text).map_err(|_| InvalidMemory)?;
        if version != VERSION {
            return Err(InvalidMemory);
        }
        let mut sites = BTreeMap::new();
        for Group { seen, read, publishing, heard, silences, sites: names } in groups {
            let silences = silences
                .into_iter()
                .map(|StoredSilence { events, from, until }| Some(Silence { events: events.events()?, from, until }));
            let silences = silences.collect::<Option<_>>().ok_or(InvalidMemory)?;
            let heard = heard.events().ok_or(InvalidMemory)?;
            let memory = SiteMemory { seen, read, publishing, heard, silences };
            if !names.is_ascii() || names.len() % SITE_CHARACTERS != 0 {
                return Err(InvalidMemory);
            }
            for name in names.as_bytes().chunks(SITE_CHARACTERS) {
                sites.insert(String::from_utf8_lossy(name).into_owned(), memory.clone());
            }
        }
        Ok(Self { finished, sites, forgotten: 0 })
    }

    /// The text to store: JSON of at most [`CHARACTERS`]. What does not fit is forgotten, the sites first whose jobs were
    /// read the longest ago.
    pub fn to_stored(&mut self) -> String {
        loop {
            let text = to_json(&self.stored());
            let oldest = self.sites.iter().min_by_key(|(_, memory)| &memory.read).map(|(site, _)| site.clone());
            match oldest {
                Some(oldest) if text.len() > CHARACTERS => {
                    self.sites.remove(&oldest);
                    self.forgotten += 1;
                }
                _ => return text,
            }
        }
    }

    fn stored(&self) -> Stored {
        let mut groups: Vec<(&SiteMemory, String)> = Vec::new();
        for (site, memory) in &self.sites {
            match groups.iter_mut().find(|(other, _)| *other == memory) {
                Some((_, sites)) => sites.push_str(site),
                None => groups.push((memory, site.clone())),
            }
        }
        let groups = groups.into_iter().map(|(SiteMemory { seen, read, publishing, heard, silences }, sites)| Group {
            seen: *seen,
            read: read.clone(),
            publishing: publishing.clone(),
            heard: heard.into(),
            silences: silences
                .iter()
                .map(|Silence { events, from, until }| StoredSilence {
                    events: events.into(),
                    from: *from,
                    until: *until,
                })
                .collect(),
            sites,
        });
        Stored { version: VERSION, finished: self.finished, groups: groups.collect() }
    }

    /// What is remembered of a site.
    pub fn site(&self, name: &SiteName) -> Option<&SiteMemory> {
        self.sites.get(&short(name))
    }

    /// Remembers something else of a site.
    pub fn remember(&mut self, name: &SiteName, memory: SiteMemory) {
        self.sites.insert(short(name), memory);
    }

    /// Forgets a site.
    pub fn forget(&mut self, name: &SiteName) {
        self.sites.remove(&short(name));
    }

    /// How many sites were forgotten since they did not fit.
    pub fn forgotten(&self) -> usize {
        self.forgotten
    }

    /// Forgets the sites that are none of these.
    pub fn keep_only<'a>(&mut self, names: impl IntoIterator<Item = &'a SiteName>) {
        let kept: BTreeSet<_> = names.into_iter().map(short).collect();
        self.sites.retain(|site, _| kept.contains(site));
    }
}

/// What stands for a site.
fn short(name: &SiteName) -> String {
    let mut text = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(name.as_str()));
    text.truncate(SITE_CHARACTERS);
    text
}

/// The right of one run to tell of refreshes, until it ends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lease {
    version: u32,
    /// When the run has ended in any case.
    #[serde(with = "rfc3339")]
    pub until: OffsetDateTime,
}

impl Lease {
    /// A lease until a time.
    pub fn until(until: OffsetDateTime) -> Self {
        Self { version: VERSION, until }
    }

    /// Reads the stored text, `None` if it is of no form that is known.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|lease: &Self| lease.version == VERSION)
    }

    /// The text to store.
    pub fn to_stored(&self) -> String {
        to_json(self)
    }
}

#[expect(clippy::expect_used, reason = "times and texts under fixed names can always be written as JSON")]
fn to_json(stored: &impl Serialize) -> String {
    serde_json::to_string(stored).expect("what is remembered is JSON")
}
