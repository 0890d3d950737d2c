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
    refresh::{EndedJob, RefreshOutcome},
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

/// How long a job that cannot be read is tried again. Longer than a restart of Tableau takes; and whoever waits for the
/// reason of a failure gets it within the hour or hears that there is none.
pub const UNREAD_TIME: Duration = Duration::hours(1);

/// The most jobs of a site that are set aside. Where more cannot be read it is not the jobs but the server that fails, and
/// the rest is left where it is.
const MAX_UNREAD: usize = 3;

/// Room that one of them takes in the stored text at most, with the site that then shares its state with no other.
const UNREAD_CHARACTERS: usize = 650;

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

/// A job that was passed without having been read, and is tried again by the next runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadJob {
    /// The job.
    #[serde(flatten)]
    pub job: EndedJob,
    /// When it could not be read for the first time, by our own clock.
    #[serde(with = "rfc3339")]
    pub since: OffsetDateTime,
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
    /// Jobs that could not be read, and are before the place that was come to.
    unread: Vec<UnreadJob>,
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
            unread: Vec::new(),
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

    /// The jobs that could not be read and are tried again.
    pub fn unread(&self) -> &[UnreadJob] {
        &self.unread
    }

    /// Whether there is room to try one more job again.
    pub fn has_room_for_unread(&self) -> bool {
        self.unread.len() < MAX_UNREAD
    }

    /// Notes that a job could not be read.
    pub fn set_aside(&mut self, job: EndedJob, now: OffsetDateTime) {
        self.unread.push(UnreadJob { job, since: now });
    }

    /// Tries the jobs of these identifiers no more: they were told of, or given up.
    pub fn forget_unread(&mut self, is_one: impl Fn(&String) -> bool) {
        self.unread.retain(|unread| !is_one(&unread.job.id));
    }

    /// When webhooks were silent, as far as jobs of that time are still to be told of.
    pub fn silences(&self) -> &[Silence] {
        &self.silences
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
        // What an unread job tells of may have been missed as well.
        let read = self.unread.iter().map(|unread| unread.job.ended_at).fold(self.read.at, OffsetDateTime::min);
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unread: Vec<UnreadJob>,
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
        for Group { seen, read, publishing, heard, silences, unread, sites: names } in groups {
            let silences = silences
                .into_iter()
                .map(|StoredSilence { events, from, until }| Some(Silence { events: events.events()?, from, until }));
            let silences = silences.collect::<Option<_>>().ok_or(InvalidMemory)?;
            let heard = heard.events().ok_or(InvalidMemory)?;
            let memory = SiteMemory { seen, read, publishing, heard, silences, unread };
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
        let silence = |Silence { events, from, until }: &Silence| StoredSilence {
            events: events.into(),
            from: *from,
            until: *until,
        };
        let groups = groups.into_iter().map(|(memory, sites)| {
            let SiteMemory { seen, read, publishing, heard, silences, unread } = memory.clone();
            let silences = silences.iter().map(silence).collect();
            Group { seen, read, publishing, heard: (&heard).into(), silences, unread, sites }
        });
        Stored { version: VERSION, finished: self.finished, groups: groups.collect() }
    }

    /// How many more jobs can be set aside until the text might be too long.
    pub fn room_for_unread(&self) -> usize {
        CHARACTERS.saturating_sub(to_json(&self.stored()).len()) / UNREAD_CHARACTERS
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::subsequence};
    use time::macros::datetime;

    use super::*;
    use crate::registration::RegistrationUrl;

    const NOW: OffsetDateTime = datetime!(2026-05-21 08:00:00 UTC);

    fn events(names: &[&str]) -> BTreeSet<Event> {
        names.iter().map(|name| name.parse().expect("an event")).collect()
    }

    fn event(name: &str) -> Event {
        name.parse().expect("an event")
    }

    fn site(name: &str) -> SiteName {
        name.parse().expect("a site")
    }

    fn minutes(count: i64) -> Duration {
        Duration::minutes(count)
    }

    #[test]
    fn what_a_webhook_that_was_disabled_missed_is_owed_from_when_it_last_worked_to_its_repair() {
        let failed = events(&["WorkbookRefreshFailed", "ViewDeleted"]);
        let mut memory = SiteMemory::new(NOW, &failed);
        assert_eq!(memory.look(NOW + minutes(15), &failed, &failed), None);
        let silence = memory.look(NOW + minutes(30), &failed, &events(&["ViewDeleted"])).expect("a silence");
        assert_eq!((silence.from, silence.until), (NOW + minutes(10), None));
        memory.look_again(NOW + minutes(30) + Duration::seconds(20), &failed, &failed);
        let owes = |memory: &SiteMemory, at| memory.owes(&event("WorkbookRefreshFailed"), at);
        for (at, owed) in [(9, false), (10, true), (30, true), (31, false)] {
            assert_eq!(owes(&memory, NOW + minutes(at)), owed, "{at}");
        }
        assert!(!memory.owes(&event("WorkbookRefreshStarted"), NOW + minutes(15)));
        let may = |outcome| memory.may_owe(outcome, None, NOW + minutes(15));
        assert!(may(RefreshOutcome::Failed) && !may(RefreshOutcome::Succeeded) && !may(RefreshOutcome::Cancelled));
        // What ended before the repair and is too young for this run is owed by the next one.
        memory.advance(Cursor::until(NOW + minutes(25)));
        assert!(memory.has_silences());
        memory.advance(Cursor::until(NOW + minutes(31)));
        assert!(!memory.has_silences());
    }

    #[test]
    fn a_webhook_that_is_new_or_no_longer_wanted_has_missed_nothing() {
        let (one, two) =
            (events(&["WorkbookRefreshFailed"]), events(&["WorkbookRefreshFailed", "DatasourceRefreshFailed"]));
        let mut memory = SiteMemory::new(NOW, &one);
        assert_eq!(memory.look(NOW + minutes(15), &two, &one), None);
        memory.look_again(NOW + minutes(15), &two, &two);
        assert!(memory.look(NOW + minutes(30), &two, &events(&[])).is_some());
        // It is not repaired, and then nobody wants it.
        memory.look_again(NOW + minutes(30), &two, &events(&[]));
        assert_eq!(memory.look(NOW + minutes(45), &one, &events(&[])), None);
        assert!(memory.owes(&event("WorkbookRefreshFailed"), NOW + minutes(40)));
        assert!(!memory.owes(&event("DatasourceRefreshFailed"), NOW + minutes(40)));
    }

    #[test]
    fn a_start_is_owed_for_as_long_as_a_refresh_may_take() {
        let wanted = events(&["DatasourceRefreshStarted", "DatasourceRefreshSucceeded"]);
        let mut memory = SiteMemory::new(NOW, &wanted);
        memory.look(NOW + minutes(15), &wanted, &events(&[]));
        memory.look_again(NOW + minutes(15), &wanted, &wanted);
        memory.advance(Cursor::until(NOW + minutes(75)));
        assert!(memory.may_owe(RefreshOutcome::Succeeded, Some(NOW + minutes(10)), NOW + minutes(80)));
        assert!(!memory.owes(&event("DatasourceRefreshSucceeded"), NOW + minutes(80)));
        memory.advance(Cursor::until(NOW + minutes(135)));
        assert!(!memory.has_silences());
    }

    #[test]
    fn a_job_is_before_a_place_or_after_it_and_those_of_one_second_are_told_apart() {
        let place = Cursor::after(NOW, "b");
        let second = Duration::SECOND;
        for (at, id, passed) in [(NOW - second, "z", true), (NOW, "a", true), (NOW, "b", true), (NOW, "c", false)] {
            assert_eq!(place.has_passed(at, id), passed, "{id}");
        }
        assert!(!Cursor::until(NOW).has_passed(NOW, "a") && Cursor::until(NOW + second).has_passed(NOW, "a"));
        assert!(Cursor::until(NOW) < place && place < Cursor::until(NOW + second));
    }

    #[test]
    fn what_was_about_to_be_published_is_known_until_it_is_given_up_or_done() {
        let mut memory = SiteMemory::new(NOW, &events(&[]));
        memory.begin_publishing(Cursor::until(NOW));
        memory.advance(Cursor::until(NOW - minutes(4)));
        assert_eq!(memory.publishing(), Some(&Cursor::until(NOW)));
        let mut done = memory.clone();
        done.end_publishing(Cursor::until(NOW - minutes(2)));
        assert_eq!((done.publishing(), done.read().at()), (None, NOW - minutes(2)));
        memory.give_up_publishing();
        assert_eq!((memory.publishing(), memory.read().at()), (None, NOW));
        // Nothing goes backwards.
        memory.advance(Cursor::until(NOW - minutes(9)));
        assert_eq!(memory.read().at(), NOW);
    }

    #[test]
    fn an_event_is_heard_by_a_webhook_that_is_enabled_and_has_an_address_the_receiver_believes() {
        let receiver = ReceiverUrl::parse("https://receiver.example/").expect("an address");
        let (old, other) = (Keyring::of([1; 32]), Keyring::of([9; 32]));
        let keyring = Keyring::of([1; 32]).with_newest([2; 32]);
        let url = |name: &str, keyring: &Keyring| {
            Registration { site: site("marketing"), event: event(name) }.signed_url(&receiver, keyring)
        };
        let webhook = |url: RegistrationUrl, event: Option<Event>, is_enabled| ObservedWebhook {
            id: "1".to_owned(),
            name: "whatever".to_owned(),
            event,
            url: Some(url),
            is_enabled,
            status_change_reason: None,
            updated_at: None,
        };
        let heard = |webhook: ObservedWebhook| {
            heard_events(&site("marketing"), &[webhook], &receiver, &keyring).contains(&event("ViewDeleted"))
        };
        let mine = Some(event("ViewDeleted"));
        assert!(heard(webhook(url("ViewDeleted", &keyring), mine.clone(), true)));
        assert!(heard(webhook(url("ViewDeleted", &old), None, true)), "what the previous key signed is believed");
        assert!(!heard(webhook(url("ViewDeleted", &keyring), mine.clone(), false)));
        assert!(!heard(webhook(url("ViewDeleted", &other), mine.clone(), true)));
        assert!(!heard(webhook(url("ViewDeleted", &keyring), Some(event("UserDeleted")), true)));
        let elsewhere = RegistrationUrl::observed("https://elsewhere.example/".to_owned());
        assert!(!heard(webhook(elsewhere, mine, true)));
    }

    #[test]
    fn what_is_stored_is_json_that_a_person_can_read() {
        let wanted = events(&["DatasourceRefreshFailed", "WorkbookRefreshFailed"]);
        let mut memory = SiteMemory::new(NOW, &wanted);
        memory.look(NOW + minutes(15), &wanted, &events(&["DatasourceRefreshFailed"]));
        let mut remembered = Remembered { finished: 7, ..Remembered::default() };
        remembered.remember(&site("finance"), SiteMemory::new(NOW, &wanted));
        remembered.remember(&site("sales"), SiteMemory::new(NOW, &wanted));
        remembered.remember(&site("marketing"), memory);
        insta::assert_snapshot!(remembered.to_stored(), @r#"{"version":1,"finished":7,"groups":[{"seen":"2026-05-21T08:00:00Z","read":{"at":"2026-05-21T07:55:00Z"},"heard":"25","sites":"4E6ykC6rdioD"},{"seen":"2026-05-21T08:15:00Z","read":{"at":"2026-05-21T07:55:00Z"},"heard":"2","silences":[{"events":"5","from":"2026-05-21T07:55:00Z"}],"sites":"4qUw4l"}]}"#);
    }

    #[test]
    fn five_hundred_sites_fit_and_of_more_those_that_are_behind_are_forgotten() {
        let wanted = events(&REFRESH_EVENTS);
        for (count, fits) in [(500, true), (620, false)] {
            let mut remembered = Remembered::default();
            for number in 0..count {
                let mut memory = SiteMemory::new(NOW, &wanted);
                // Some were silent, some were published, and some are behind.
                let behind = NOW - minutes(if number < 30 { 60 } else { 0 });
                let mut of_site = SiteMemory::new(behind, &wanted);
                if number % 2 == 0 {
                    memory.look(NOW + minutes(15), &wanted, &events(&[]));
                    memory.look_again(NOW + minutes(16), &wanted, &wanted);
                    memory.begin_publishing(Cursor::until(NOW + minutes(10)));
                    of_site = memory;
                }
                remembered.remember(&site(&format!("site-{number}")), of_site);
            }
            let stored = remembered.to_stored();
            println!("{count} sites: {} characters", stored.len());
            assert!(stored.len() <= CHARACTERS, "{}", stored.len());
            assert_eq!(remembered.forgotten() == 0, fits, "{} forgotten", remembered.forgotten());
            assert!(remembered.site(&site("site-100")).is_some());
            let read = Remembered::parse(&stored).expect("readable");
            assert_eq!(read.sites, remembered.sites);
        }
    }

    /// A job with everything that Tableau tells of one, at its longest.
    fn unread_job(number: usize, ended_at: OffsetDateTime) -> EndedJob {
        EndedJob {
            id: format!("{number:036}"),
            outcome: RefreshOutcome::Succeeded,
            started_at: Some((ended_at - minutes(1) + Duration::NANOSECOND).to_offset(time::macros::offset!(+05:30))),
            ended_at: (ended_at + Duration::NANOSECOND).to_offset(time::macros::offset!(+05:30)),
            is_via_bridge: true,
        }
    }

    #[test]
    fn a_job_that_could_not_be_read_is_still_owed_what_was_missed_then() {
        let wanted = events(&["WorkbookRefreshFailed"]);
        let mut memory = SiteMemory::new(NOW, &wanted);
        memory.look(NOW + minutes(15), &wanted, &events(&[]));
        memory.look_again(NOW + minutes(15), &wanted, &wanted);
        let job = unread_job(1, NOW + minutes(14));
        memory.set_aside(job.clone(), NOW + minutes(20));
        memory.advance(Cursor::until(NOW + minutes(75)));
        let mut remembered = Remembered::default();
        remembered.remember(&site("a"), memory);
        let stored = remembered.to_stored();
        let read = Remembered::parse(&stored).expect("readable");
        let mut memory = read.site(&site("a")).expect("the site").clone();
        assert_eq!(memory.unread(), [UnreadJob { job: job.clone(), since: NOW + minutes(20) }], "{stored}");
        assert!(memory.owes(&event("WorkbookRefreshFailed"), job.ended_at));
        memory.forget_unread(|id| id == "another");
        assert!(!memory.unread().is_empty());
        memory.forget_unread(|id| *id == job.id);
        memory.advance(Cursor::until(NOW + minutes(76)));
        assert!(memory.unread().is_empty() && !memory.has_silences());
    }

    #[test]
    fn jobs_that_could_not_be_read_make_no_site_forgotten() {
        let wanted = events(&REFRESH_EVENTS);
        for count in [1, 8, 100, 200, 300, 400, 500] {
            let mut remembered = Remembered::default();
            let mut usual = SiteMemory::new(NOW, &wanted);
            usual.look(NOW + minutes(15), &wanted, &events(&[]));
            usual.look_again(NOW + minutes(16), &wanted, &wanted);
            let name = |number: usize| site(&format!("site-{number}"));
            (0..count).for_each(|number| remembered.remember(&name(number), usual.clone()));
            let room = remembered.room_for_unread();
            println!("{count} sites: room for {room}");
            // Each at another site, as long as there are some, with places of their own.
            for number in 0..room {
                let at = name(number % count);
                let mut memory = remembered.site(&at).expect("a site").clone();
                memory.set_aside(unread_job(number, NOW), NOW);
                memory.advance(Cursor::after(NOW + minutes(1) + Duration::NANOSECOND, &format!("{number:036}")));
                memory
                    .begin_publishing(Cursor::after(NOW + minutes(2) + Duration::NANOSECOND, &format!("{number:036}")));
                remembered.remember(&at, memory);
            }
            assert!(remembered.to_stored().len() <= CHARACTERS);
            assert_eq!(remembered.forgotten(), 0, "{count}");
            assert!(count > 200 || room > MAX_UNREAD, "{count}: {room}");
        }
    }

    #[test]
    fn what_is_not_of_a_known_form_is_not_read() {
        for text in [
            "",
            "{}",
            r#"{"version":2,"finished":0,"groups":[]}"#,
            r#"{"version":1,"finished":0,"groups":[{"seen":"2026-05-21T08:15:00Z","read":{"at":"2026-05-21T07:55:00Z"},"heard":"9","sites":""}]}"#,
            r#"{"version":1,"finished":0,"groups":[{"seen":"2026-05-21T08:15:00Z","read":{"at":"2026-05-21T07:55:00Z"},"heard":"2","sites":"abc"}]}"#,
        ] {
            assert!(Remembered::parse(text).is_err(), "{text}");
        }
        let lease = Lease::until(NOW);
        assert_eq!(Lease::parse(&lease.to_stored()).map(|lease| lease.until), Some(NOW));
        assert!(Lease::parse("{}").is_none() && Lease::parse("").is_none());
    }

    #[test]
    fn sites_that_are_no_longer_declared_are_forgotten() {
        let mut remembered = Remembered::default();
        for name in ["a", "b", "c"] {
            remembered.remember(&site(name), SiteMemory::new(NOW, &events(&[])));
        }
        remembered.keep_only([&site("a"), &site("b")]);
        remembered.forget(&site("b"));
        let left = ["a", "b", "c"].map(|name| remembered.site(&site(name)).is_some());
        assert_eq!(left, [true, false, false]);
    }

    /// Something that happens within a quarter of an hour: which of two webhooks are silent when a run looks, which of
    /// them it repairs, and how much it has time to read.
    fn any_run() -> impl Strategy<Value = (Vec<&'static str>, Vec<&'static str>, i64)> {
        const TWO: [&str; 2] = ["WorkbookRefreshFailed", "DatasourceRefreshSucceeded"];
        (subsequence(TWO.to_vec(), 0..=2), subsequence(TWO.to_vec(), 0..=2), prop_oneof![2 => Just(0), 1 => 1_i64..20])
    }

    proptest! {
        #[test]
        fn every_moment_of_a_silence_is_owed_once_and_stored_memory_is_the_same(runs in vec(any_run(), 1..10)) {
            let wanted = events(&["WorkbookRefreshFailed", "DatasourceRefreshSucceeded"]);
            let mut memory = SiteMemory::new(NOW, &wanted);
            let mut heard_last = wanted.clone();
            for (number, (silent, repaired, behind)) in (1..).zip(&runs) {
                let now = NOW + minutes(15 * number);
                let heard: BTreeSet<_> = wanted.iter().filter(|event| !silent.contains(&event.as_str())).cloned().collect();
                memory.look(now, &wanted, &heard);
                let after: BTreeSet<_> = wanted
                    .iter()
                    .filter(|event| heard.contains(*event) || repaired.contains(&event.as_str()))
                    .cloned()
                    .collect();
                memory.look_again(now, &wanted, &after);
                for event in &wanted {
                    // What may have been missed since the last look, and is not told of yet.
                    if !heard.contains(event) {
                        let since = (now - minutes(15) - SETTLED).max(memory.read().at());
                        prop_assert!(memory.owes(event, since) && memory.owes(event, now - Duration::SECOND));
                    } else if heard_last.contains(event) && memory.silences.is_empty() {
                        prop_assert!(!memory.owes(event, now - minutes(1)));
                    }
                }
                let mut remembered = Remembered::default();
                remembered.remember(&site("a"), memory.clone());
                let read = Remembered::parse(&remembered.to_stored()).expect("readable");
                prop_assert_eq!(read.site(&site("a")), Some(&memory));
                let before = memory.read().clone();
                memory.advance(Cursor::until(now - SETTLED - minutes(*behind)));
                prop_assert!(*memory.read() >= before);
                heard_last = after;
            }
        }
    }
}
