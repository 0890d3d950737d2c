//! Alert state: the problems that subscribers know of, and the alerts that follow when problems begin and end.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;

use crate::{
    alerts::notification::Notification,
    problems::{Place, Problem, ProblemKey, ProblemKind, Problems},
    timestamp::Timestamp,
};

/// Problems of one site, or those of the runs themselves, as subscribers know them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertState {
    /// Problems that subscribers were alerted of. A momentary one is here only while its alert is still to be sent.
    pub known: Problems,
    /// Problems of which subscribers know or not: a run was about to alert that they begin, or that they are solved, and was
    /// cut off or got no answer from SNS.
    pub alerting: Problems,
}

/// The results of a run, from which alerts follow.
#[derive(Clone, Debug, Default)]
pub struct Findings<'a> {
    /// The alert state of each declared site before the run.
    pub sites: BTreeMap<&'a str, AlertState>,
    /// The alert state of the runs themselves before the run.
    pub run: AlertState,
    /// The sites that the run checked.
    pub checked: BTreeSet<&'a str>,
    /// The problems found, with the site of each.
    pub found: Vec<(&'a str, &'a Problem)>,
    /// When the present stage of the token's end began, by site. Each stage is alerted once.
    pub token_stages: BTreeMap<&'a str, OffsetDateTime>,
}

/// Alerts to send, and the alert state before they are sent. The [module](crate::alerts) has an example.
///
/// The state is stored before the alerts are sent. A run that is cut off could otherwise leave subscribers with a problem that
/// no later run knows of, or with a solved one that later runs take for known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertPlan {
    /// The alert state of each declared site.
    pub sites: BTreeMap<String, AlertState>,
    /// The alert state of the runs themselves.
    pub run: AlertState,
    /// The alerts.
    pub alerts: Vec<Alert>,
}

/// An alert about problems of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The message.
    pub notification: Notification,
    changes: Vec<Change>,
}

/// One problem in an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    /// The site; `None` for a problem of the runs.
    site: Option<String>,
    key: ProblemKey,
    /// The time since which subscribers know of the problem once the alert is sent; `None` if it is over then.
    since: Option<Timestamp>,
}

impl AlertPlan {
    /// Plans the alerts of a run that ends at `now`. A site that was not checked keeps its state, and so do problems that
    /// another one masks. A site that is no longer declared has no problems.
    pub fn new(findings: &Findings<'_>, now: OffsetDateTime) -> Self {
        let now = Timestamp(now.truncate_to_second());
        let mut changes = Changes::default();
        let mut plan = Self { run: findings.run.clone(), ..Self::default() };
        for (site, before) in &findings.sites {
            let mut state = before.clone();
            changes.of_site(site, &mut state, findings, now);
            plan.sites.insert((*site).to_owned(), state);
        }
        changes.of_run(&mut plan.run, findings, now);
        plan.alerts = changes.alerts(now);
        plan
    }

    /// Returns the sites with a problem that begins or is solved, and whether the runs have one: their state is to be stored
    /// before the alerts are sent.
    pub fn changing(&self) -> (BTreeSet<&str>, bool) {
        let is_lasting = |change: &&Change| !change.key.kind.is_momentary();
        let changing: Vec<_> = self.alerts.iter().flat_map(|alert| &alert.changes).filter(is_lasting).collect();
        let sites = changing.iter().filter_map(|change| change.site.as_deref()).collect();
        (sites, changing.iter().any(|change| change.site.is_none()))
    }

    /// Notes that an alert was sent.
    pub fn confirm(&mut self, alert: &Alert) {
        for Change { site, key, since } in &alert.changes {
            let state = match site {
                Some(site) => self.sites.entry(site.clone()).or_default(),
                None => &mut self.run,
            };
            state.alerting.remove(key);
            match since {
                Some(since) => state.known.insert(key.clone(), *since),
                None => state.known.remove(key),
            };
        }
    }
}

impl Findings<'_> {
    /// Leaves the problems of some sites, and of the runs if `run` is set, to another run.
    pub fn leave(&mut self, sites: &BTreeSet<String>, run: bool) {
        self.checked.retain(|site| !sites.contains(*site));
        let is_left = |site: &str, problem: &Problem| sites.contains(site) || (run && problem.kind.is_run_wide());
        self.found.retain(|(site, problem)| !is_left(site, problem));
        if run {
            self.run = AlertState::default();
        }
    }

    /// Whether the run would have found a problem of the kind at a site.
    fn could_find(&self, kind: ProblemKind, site: &str) -> bool {
        let mut here = self.found.iter().filter(|(at, _)| *at == site);
        self.checked.contains(site) && !here.any(|(_, problem)| problem.kind.masks(kind))
    }
}

/// All changes of problems, grouped as they are alerted: a server that is down is one message for all its sites.
#[derive(Debug, Default)]
struct Changes<'a> {
    begun: BTreeMap<ProblemKind, BTreeMap<Place, &'a Problem>>,
    over: BTreeMap<(ProblemKind, Timestamp), BTreeSet<Place>>,
    late: BTreeMap<(ProblemKind, Timestamp), BTreeSet<Place>>,
}

impl<'a> Changes<'a> {
    /// Collects the changes of a site, and notes in its state which problems begin and end.
    fn of_site(&mut self, site: &str, state: &mut AlertState, findings: &Findings<'a>, now: Timestamp) {
        let place = |key: &ProblemKey| Place { site: site.to_owned(), event: key.event.clone() };
        let found = findings.found.iter().filter(|(at, problem)| *at == site && !problem.kind.is_run_wide());
        let mut found: BTreeMap<_, _> = found.map(|(_, problem)| (problem.key(), *problem)).collect();
        let kinds: Vec<_> = found.keys().map(|key| key.kind).collect();
        let is_concluded = |key: &ProblemKey| kinds.iter().any(|kind| kind.concludes(key.kind));
        found.retain(|key, _| !is_concluded(key));
        for (key, since) in state.open() {
            if key.kind.is_momentary() {
                self.late.entry((key.kind, since)).or_default().insert(place(&key));
            } else if is_concluded(&key) {
                state.forget(&key);
            } else if !found.contains_key(&key) && findings.could_find(key.kind, site) {
                state.end(&key, since);
                self.over.entry((key.kind, since)).or_default().insert(place(&key));
            }
        }
        for (key, problem) in found {
            let stage = findings.token_stages.get(site).filter(|_| key.kind == ProblemKind::TokenEnding);
            if state.begin(&key, now, stage.copied()) {
                self.begun.entry(key.kind).or_default().insert(place(&key), problem);
            }
        }
    }

    /// Collects the changes of the runs themselves, at whichever sites their problems were found.
    fn of_run(&mut self, state: &mut AlertState, findings: &Findings<'a>, now: Timestamp) {
        let found: Vec<_> = findings.found.iter().filter(|(_, problem)| problem.kind.is_run_wide()).collect();
        for (key, since) in state.open() {
            let is_found = found.iter().any(|(_, problem)| problem.kind == key.kind);
            // A site whose run ended early had time, so that no problem masks this one.
            if !is_found && findings.sites.keys().all(|site| findings.checked.contains(site)) {
                state.end(&key, since);
                self.over.entry((key.kind, since)).or_default();
            }
        }
        for (site, problem) in found {
            let key = ProblemKey { kind: problem.kind, event: None };
            if state.begin(&key, now, None) || self.begun.contains_key(&key.kind) {
                let place = Place { site: (*site).to_owned(), event: problem.event.clone() };
                self.begun.entry(key.kind).or_default().insert(place, problem);
            }
        }
    }

    fn alerts(&self, now: Timestamp) -> Vec<Alert> {
        let Self { begun, over, late } = self;
        // One that was found again stays until the alert of that is sent.
        let is_found = |kind, place: &Place| begun.get(&kind).is_some_and(|places| places.contains_key(place));
        let late = late.iter().map(|((kind, since), places)| {
            let notification = Notification::late(*kind, since.0, places);
            let places = places.iter().filter(|place| !is_found(*kind, place));
            Alert { notification, changes: changes(*kind, places, None) }
        });
        let over = over.iter().map(|((kind, since), places)| {
            let notification = Notification::solved(*kind, since.0, places, now.0);
            Alert { notification, changes: changes(*kind, places, None) }
        });
        let begun = begun.iter().map(|(kind, places)| {
            let notification = Notification::new(*kind, now.0, places);
            Alert { notification, changes: changes(*kind, places.keys(), (!kind.is_momentary()).then_some(now)) }
        });
        late.chain(over).chain(begun).collect()
    }
}

impl AlertState {
    /// Keeps the problems of some kinds.
    pub(crate) fn only(mut self, is_kept: impl Fn(ProblemKind) -> bool) -> Self {
        self.known.retain(|key, _| is_kept(key.kind));
        self.alerting.retain(|key, _| is_kept(key.kind));
        self
    }

    /// Adds the problems of another state.
    #[must_use]
    pub fn and(mut self, Self { known, alerting }: Self) -> Self {
        self.known.extend(known);
        self.alerting.extend(alerting);
        self
    }

    /// Returns the problems that are open as far as subscribers may know.
    fn open(&self) -> Problems {
        let Self { known, alerting } = self;
        alerting.iter().chain(known).map(|(key, since)| (key.clone(), *since)).collect()
    }

    /// Notes that a problem is over: until the alert is sent, subscribers may know of it.
    fn end(&mut self, key: &ProblemKey, since: Timestamp) {
        self.known.remove(key);
        self.alerting.insert(key.clone(), since);
    }

    /// Removes a problem without a message.
    fn forget(&mut self, key: &ProblemKey) {
        self.known.remove(key);
        self.alerting.remove(key);
    }

    /// Adds a problem that was found. Returns whether it is to be alerted: subscribers do not know of it for sure, or not of
    /// its present `stage`, which began at that time.
    fn begin(&mut self, key: &ProblemKey, now: Timestamp, stage: Option<OffsetDateTime>) -> bool {
        if key.kind.is_momentary() {
            self.known.insert(key.clone(), now);
            return true;
        }
        let is_known = |Timestamp(since): &Timestamp| stage.is_none_or(|began| *since >= began);
        if self.known.get(key).is_some_and(is_known) {
            return false;
        }
        self.alerting.insert(key.clone(), now);
        true
    }
}

/// Returns the changes of an alert about problems of one kind.
fn changes<'a>(
    kind: ProblemKind,
    places: impl IntoIterator<Item = &'a Place>,
    since: Option<Timestamp>,
) -> Vec<Change> {
    if kind.is_run_wide() {
        return vec![Change { site: None, key: ProblemKey { kind, event: None }, since }];
    }
    let change = |place: &Place| {
        let key = ProblemKey { kind, event: place.event.clone() };
        Change { site: Some(place.site.clone()), key, since }
    };
    places.into_iter().map(change).collect()
}

#[cfg(test)]
mod tests;
