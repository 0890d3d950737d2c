//! Open problems as state, and the alerts that follow from how they change: one when a problem begins, one when it is over.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;

use crate::{
    alerts::notification::Notification,
    problems::{Place, Problem, ProblemKey, ProblemKind},
    timestamp::Timestamp,
};

/// Problems that people know of, and since when.
///
/// Those that a run both finds and ends (a webhook was disabled, refreshes were lost) are in it only while people could not
/// be alerted.
pub type Problems = BTreeMap<ProblemKey, Timestamp>;

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Findings<'a> {
    /// Every declared site, with the problems of it that people know of.
    pub before: BTreeMap<&'a str, &'a Problems>,
    /// The problems of the runs themselves that people know of.
    pub run_before: Problems,
    /// The sites that the run checked.
    pub checked: BTreeSet<&'a str>,
    /// The problems found, with the site of each.
    pub found: Vec<(&'a str, &'a Problem)>,
}

/// Problems after a run, and the alerts about what is different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The problems of each declared site.
    pub sites: BTreeMap<String, Problems>,
    /// The problems of the runs themselves.
    pub run: Problems,
    /// The alerts, each of which is to be sent before the outcome is stored.
    pub alerts: Vec<Alert>,
}

/// An alert about problems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The message.
    pub notification: Notification,
    /// The state of each problem, should the message not be accepted: then the next run sends it.
    unsent: Vec<(Option<String>, ProblemKey, Option<Timestamp>)>,
}

impl Outcome {
    /// Returns the problems after a run at `now`, and the alerts. Nothing is concluded about a site that was not checked, or
    /// about what an earlier problem masks; a site that is no longer declared has no problems.
    pub fn of(findings: &Findings<'_>, now: OffsetDateTime) -> Self {
        let now = Timestamp(now.truncate_to_second());
        let mut changes = Changes::default();
        let mut outcome = Self::default();
        for (site, before) in &findings.before {
            let found: BTreeMap<_, _> = (findings.found.iter())
                .filter(|(at, problem)| at == site && !problem.kind.is_run_wide())
                .map(|(_, problem)| (key_of(problem), *problem))
                .collect();
            let after = changes.of_site(site, before, &found, |kind| findings.could_find(kind, site), now);
            outcome.sites.insert((*site).to_owned(), after);
        }
        outcome.run = changes.of_run(findings, now);
        outcome.alerts = changes.alerts(now);
        outcome
    }

    /// Takes back what an alert says that was not accepted.
    pub fn undo(&mut self, alert: &Alert) {
        for (site, key, state) in &alert.unsent {
            let problems = match site {
                Some(site) => self.sites.entry(site.clone()).or_default(),
                None => &mut self.run,
            };
            match state {
                Some(since) => problems.insert(key.clone(), *since),
                None => problems.remove(key),
            };
        }
    }
}

impl Findings<'_> {
    /// Whether the run would have found a problem of the kind at a site.
    fn could_find(&self, kind: ProblemKind, site: &str) -> bool {
        let mut here = self.found.iter().filter(|(at, _)| *at == site);
        self.checked.contains(site) && !here.any(|(_, problem)| problem.kind.masks(kind))
    }
}

fn key_of(problem: &Problem) -> ProblemKey {
    ProblemKey { kind: problem.kind, event: problem.event.clone() }
}

/// Everything that is different, grouped as it is alerted: a server that is down is one message for all its sites.
#[derive(Debug, Default)]
struct Changes<'a> {
    begun: BTreeMap<ProblemKind, BTreeMap<Place, &'a Problem>>,
    over: BTreeMap<(ProblemKind, Timestamp), BTreeSet<Place>>,
    late: BTreeMap<(ProblemKind, Timestamp), BTreeSet<Place>>,
}

impl<'a> Changes<'a> {
    /// Returns the problems of a site after the run.
    fn of_site(
        &mut self,
        site: &str,
        before: &Problems,
        found: &BTreeMap<ProblemKey, &'a Problem>,
        could_find: impl Fn(ProblemKind) -> bool,
        now: Timestamp,
    ) -> Problems {
        let place = |key: &ProblemKey| Place { site: site.to_owned(), event: key.event.clone() };
        let mut after = Problems::new();
        for (key, since) in before {
            if key.kind.is_momentary() {
                self.late.entry((key.kind, *since)).or_default().insert(place(key));
            } else if found.contains_key(key) || !could_find(key.kind) {
                after.insert(key.clone(), *since);
            } else {
                self.over.entry((key.kind, *since)).or_default().insert(place(key));
            }
        }
        for (key, problem) in found {
            if !after.contains_key(key) {
                self.begun.entry(key.kind).or_default().insert(place(key), problem);
                if !key.kind.is_momentary() {
                    after.insert(key.clone(), now);
                }
            }
        }
        after
    }

    /// Returns the problems of the runs themselves, wherever they were found.
    fn of_run(&mut self, findings: &Findings<'a>, now: Timestamp) -> Problems {
        let mut after = Problems::new();
        for (key, since) in &findings.run_before {
            let is_found = findings.found.iter().any(|(_, problem)| problem.kind == key.kind);
            if is_found || !findings.before.keys().all(|site| findings.could_find(key.kind, site)) {
                after.insert(key.clone(), *since);
            } else {
                self.over.entry((key.kind, *since)).or_default();
            }
        }
        for (site, problem) in findings.found.iter().filter(|(_, problem)| problem.kind.is_run_wide()) {
            let key = ProblemKey { kind: problem.kind, event: None };
            if !findings.run_before.contains_key(&key) {
                let place = Place { site: (*site).to_owned(), event: problem.event.clone() };
                self.begun.entry(key.kind).or_default().insert(place, problem);
                after.insert(key, now);
            }
        }
        after
    }

    fn alerts(self, now: Timestamp) -> Vec<Alert> {
        let Self { begun, over, late } = self;
        let late = late.into_iter().map(|((kind, since), places)| {
            let unsent = unsent(kind, &places, Some(since));
            Alert { notification: Notification::late(kind, since.0, &places), unsent }
        });
        let over =
            over.into_iter().filter(|((kind, _), _)| kind.notifies_when_resolved()).map(|((kind, since), places)| {
                let unsent = unsent(kind, &places, Some(since));
                Alert { notification: Notification::solved(kind, since.0, &places, now.0), unsent }
            });
        let begun = begun.into_iter().map(|(kind, places)| {
            let unsent = unsent(kind, places.keys(), kind.is_momentary().then_some(now));
            Alert { notification: Notification::new(kind, now.0, &places), unsent }
        });
        late.chain(over).chain(begun).collect()
    }
}

/// The state of problems of a kind, should people not be alerted of them.
fn unsent<'a>(
    kind: ProblemKind,
    places: impl IntoIterator<Item = &'a Place>,
    state: Option<Timestamp>,
) -> Vec<(Option<String>, ProblemKey, Option<Timestamp>)> {
    if kind.is_run_wide() {
        return vec![(None, ProblemKey { kind, event: None }, state)];
    }
    let of_site = |place: &Place| (Some(place.site.clone()), ProblemKey { kind, event: place.event.clone() }, state);
    places.into_iter().map(of_site).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::json;
    use time::{Duration, macros::datetime};

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-05-21 08:00:00.5 UTC);

    const SITES: [&str; 4] = ["a", "b", "c", "d"];

    fn problem(kind: ProblemKind, event: Option<&str>) -> Problem {
        let event = event.map(|event| event.parse().expect("an event"));
        Problem { kind, event, what: "It broke.".to_owned(), remedy: "Fix it.".to_owned(), detail: None }
    }

    /// The problems after a run at `now` that checked some of the declared sites.
    fn after(
        before: &Outcome,
        declared: &[&str],
        checked: &[&str],
        found: &[(&str, &Problem)],
        now: OffsetDateTime,
    ) -> Outcome {
        let none = Problems::new();
        let findings = Findings {
            before: declared.iter().map(|site| (*site, before.sites.get(*site).unwrap_or(&none))).collect(),
            run_before: before.run.clone(),
            checked: checked.iter().copied().collect(),
            found: found.to_vec(),
        };
        Outcome::of(&findings, now)
    }

    fn headlines(outcome: &Outcome) -> Vec<&str> {
        outcome.alerts.iter().map(|alert| alert.notification.headline.as_str()).collect()
    }

    fn is_empty(outcome: &Outcome) -> bool {
        outcome.run.is_empty() && outcome.sites.values().all(BTreeMap::is_empty)
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn a_problem_is_alerted_when_it_begins_and_when_it_is_over_and_not_between() {
        let refused = problem(ProblemKind::TokenRefused, None);
        let begun = after(&Outcome::default(), &["a", "b"], &["a", "b"], &[("a", &refused)], NOW);
        assert_eq!(headlines(&begun), ["a: token refused"]);
        assert_eq!(json!(begun.sites["a"]), json!({ "token-refused": "2026-05-21T08:00:00Z" }));
        let same = after(&begun, &["a", "b"], &["a", "b"], &[("a", &refused)], NOW + Duration::minutes(15));
        assert_eq!((headlines(&same), &same.sites), (NOTHING.to_vec(), &begun.sites));
        let over = after(&same, &["a", "b"], &["a", "b"], &[], NOW + Duration::minutes(30));
        assert_eq!((headlines(&over), is_empty(&over)), (vec!["a: solved: token refused"], true));
    }

    #[test]
    fn nothing_is_concluded_about_a_site_that_was_not_checked_or_not_as_far() {
        let (refused, unreachable) =
            (problem(ProblemKind::TokenRefused, None), problem(ProblemKind::ServerUnreachable, None));
        let begun = after(&Outcome::default(), &["a", "b"], &["a", "b"], &[("a", &refused)], NOW);
        let other = after(&begun, &["a", "b"], &["b"], &[], NOW);
        assert_eq!((headlines(&other), &other.sites), (NOTHING.to_vec(), &begun.sites));
        let masked = after(&other, &["a", "b"], &["a", "b"], &[("a", &unreachable)], NOW);
        assert_eq!(headlines(&masked), ["a: server not reachable"]);
        let unmasked = after(&masked, &["a", "b"], &["a", "b"], &[("a", &refused)], NOW);
        assert_eq!(headlines(&unmasked), ["a: solved: server not reachable"]);
        // Whoever deletes an entry knows that its site is not kept any more; the last one, too.
        for declared in [&["b"][..], &[]] {
            let gone = after(&unmasked, declared, declared, &[], NOW);
            assert_eq!((headlines(&gone), is_empty(&gone)), (NOTHING.to_vec(), true));
        }
    }

    #[test]
    fn a_disabled_webhook_is_alerted_once_also_where_that_has_to_wait() {
        let disabled = problem(ProblemKind::WebhookDisabled, Some("ViewDeleted"));
        let mut found = after(&Outcome::default(), &["a"], &["a"], &[("a", &disabled)], NOW);
        assert_eq!((headlines(&found), is_empty(&found)), (vec!["a: webhook was disabled"], true));
        assert_eq!(headlines(&after(&found, &["a"], &["a"], &[], NOW)), NOTHING);
        let alert = found.alerts.remove(0);
        found.undo(&alert);
        assert_eq!(json!(found.sites["a"]), json!({ "webhook-disabled/ViewDeleted": "2026-05-21T08:00:00Z" }));
        let late = after(&found, &["a"], &[], &[], NOW + Duration::minutes(15));
        assert_eq!((headlines(&late), is_empty(&late)), (vec!["a: webhook was disabled"], true));
    }

    #[test]
    fn a_problem_of_many_sites_is_one_alert() {
        let refused = problem(ProblemKind::TokenRefused, None);
        let sites: Vec<_> = (0..12).map(|number| format!("site-{number:02}")).collect();
        let sites: Vec<_> = sites.iter().map(String::as_str).collect();
        let found: Vec<_> = sites.iter().map(|site| (*site, &refused)).collect();
        let begun = after(&Outcome::default(), &sites, &sites, &found, NOW);
        assert_eq!(headlines(&begun), ["12 sites: token refused"]);
        assert_eq!(headlines(&after(&begun, &sites, &sites, &found[..3], NOW)), ["9 sites: solved: token refused"]);
    }

    #[test]
    fn that_runs_have_no_time_for_all_sites_is_one_problem_whichever_sites_they_are() {
        let late = problem(ProblemKind::OutOfTime, None);
        let first = after(&Outcome::default(), &["a", "b"], &["b"], &[("a", &late)], NOW);
        assert_eq!(headlines(&first), ["a: no time left"]);
        let second = after(&first, &["a", "b"], &["a"], &[("b", &late)], NOW);
        // A run for one site says nothing about the time that all take.
        let one = after(&second, &["a", "b"], &["a"], &[], NOW);
        assert_eq!((headlines(&second), headlines(&one), is_empty(&one)), (NOTHING.to_vec(), NOTHING.to_vec(), false));
        let over = after(&one, &["a", "b"], &["a", "b"], &[], NOW);
        assert_eq!((headlines(&over), is_empty(&over)), (vec!["all sites: solved: no time left"], true));
    }

    #[test]
    fn a_key_is_read_again_and_nothing_else_is_one() {
        for text in ["token-refused", "webhook-refused/ViewDeleted"] {
            assert_eq!(text.parse::<ProblemKey>().map(String::from), Ok(text.to_owned()));
        }
        for text in ["", "/", "new", "token-refused/", "token-refused/a b", "a/ViewDeleted"] {
            assert!(text.parse::<ProblemKey>().is_err(), "{text}");
        }
    }

    prop_compose! {
        /// The declared sites, those that a run checks, the problems it finds there, and which alerts are not accepted.
        fn any_run()(
            declared in proptest::sample::subsequence(SITES.to_vec(), 0..=4),
            checked in proptest::sample::subsequence(SITES.to_vec(), 0..=4),
            found in vec((select(&SITES[..]), any_kind(), any::<bool>()), 0..6),
            unsent in any::<u8>(),
        ) -> (Vec<&'static str>, Vec<&'static str>, Vec<(&'static str, Problem)>, u8) {
            let checked: Vec<_> = checked.into_iter().filter(|site| declared.contains(site)).collect();
            let is_at_event = |kind| matches!(kind, ProblemKind::WebhookRefused | ProblemKind::WebhookDisabled);
            let found = found.into_iter().filter(|(site, ..)| checked.contains(site)).map(|(site, kind, first)| {
                let event = if first { "ViewDeleted" } else { "UserDeleted" };
                (site, problem(kind, Some(event).filter(|_| is_at_event(kind))))
            });
            let found = found.collect();
            (declared, checked, found, unsent)
        }
    }

    fn any_kind() -> impl Strategy<Value = ProblemKind> {
        select(vec![
            ProblemKind::EntryUnusable,
            ProblemKind::ServerUnreachable,
            ProblemKind::TokenRefused,
            ProblemKind::OutOfTime,
            ProblemKind::WebhookRefused,
            ProblemKind::WebhookDisabled,
            ProblemKind::RefreshesLost,
            ProblemKind::TestFailed,
        ])
    }

    /// The problems that last, without those that a run both finds and ends.
    fn lasting(problems: &Problems) -> Problems {
        let lasting = problems.iter().filter(|(key, _)| !key.kind.is_momentary());
        lasting.map(|(key, since)| (key.clone(), *since)).collect()
    }

    proptest! {
        /// A person who reads the accepted alerts believes at the end what is so.
        #[test]
        fn whoever_reads_the_alerts_knows_every_problem_and_believes_in_none_that_is_over(runs in vec(any_run(), 1..8)) {
            let mut state = Outcome::default();
            for (number, (declared, checked, found, unsent)) in (0..).zip(&runs) {
                let found: Vec<_> = found.iter().map(|(site, problem)| (*site, problem)).collect();
                let mut outcome = after(&state, declared, checked, &found, NOW + Duration::minutes(number));
                let alerts = std::mem::take(&mut outcome.alerts);
                for (_, alert) in alerts.iter().enumerate().filter(|(place, _)| unsent & (1 << (place % 8)) != 0) {
                    outcome.undo(alert);
                }
                if *unsent == 0 {
                    prop_assert!(outcome.sites.values().all(|problems| lasting(problems) == *problems));
                    for (site, problem) in found.iter().filter(|(_, problem)| !problem.kind.is_momentary()) {
                        let known = if problem.kind.is_run_wide() { &outcome.run } else { &outcome.sites[*site] };
                        prop_assert!(known.contains_key(&key_of(problem)), "{} at {}", problem.kind, site);
                    }
                    // The same again is no news.
                    let again = after(&outcome, declared, checked, &found, NOW + Duration::hours(1));
                    let is_lasting = |alert: &&Alert| alert.unsent.iter().any(|(_, key, _)| !key.kind.is_momentary());
                    prop_assert_eq!(again.alerts.iter().filter(is_lasting).count(), 0);
                }
                if *unsent == u8::MAX {
                    // Nothing was accepted: people know what they knew, and what is over by itself is kept for later.
                    for (site, problems) in &outcome.sites {
                        let before = state.sites.get(site).cloned().unwrap_or_default();
                        prop_assert_eq!(lasting(problems), lasting(&before));
                        let is_kept = |key: &ProblemKey| problems.contains_key(key);
                        prop_assert!(before.keys().filter(|key| key.kind.is_momentary()).all(is_kept));
                    }
                }
                state = outcome;
            }
            let over = after(&state, &SITES, &SITES, &[], NOW + Duration::hours(2));
            prop_assert!(is_empty(&over));
        }
    }
}
