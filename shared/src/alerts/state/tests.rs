//! Tests of the alert state.

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

/// Plans the alerts of a run at `now` that checked some of the declared sites.
fn planned(
    before: &AlertPlan,
    declared: &[&str],
    checked: &[&str],
    found: &[(&str, &Problem)],
    now: OffsetDateTime,
) -> AlertPlan {
    let findings = Findings {
        sites: declared.iter().map(|site| (*site, before.sites.get(*site).cloned().unwrap_or_default())).collect(),
        run: before.run.clone(),
        checked: checked.iter().copied().collect(),
        found: found.to_vec(),
        token_stages: BTreeMap::new(),
    };
    AlertPlan::new(&findings, now)
}

/// Plans the alerts of a run, and sends all of them.
fn after(
    before: &AlertPlan,
    declared: &[&str],
    checked: &[&str],
    found: &[(&str, &Problem)],
    now: OffsetDateTime,
) -> AlertPlan {
    let mut plan = planned(before, declared, checked, found, now);
    plan.alerts.clone().iter().for_each(|alert| plan.confirm(alert));
    plan
}

fn headlines(plan: &AlertPlan) -> Vec<&str> {
    plan.alerts.iter().map(|alert| alert.notification.headline.as_str()).collect()
}

fn is_empty(plan: &AlertPlan) -> bool {
    plan.sites.values().chain([&plan.run]).all(|state| *state == AlertState::default())
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_problem_is_alerted_when_it_begins_and_when_it_is_over_and_not_between() {
    let refused = problem(ProblemKind::TokenRefused, None);
    let begun = after(&AlertPlan::default(), &["a", "b"], &["a", "b"], &[("a", &refused)], NOW);
    assert_eq!(headlines(&begun), ["a: token refused"]);
    assert_eq!(json!(begun.sites["a"].known), json!({ "token-refused": "2026-05-21T08:00:00Z" }));
    let same = after(&begun, &["a", "b"], &["a", "b"], &[("a", &refused)], NOW + Duration::minutes(15));
    assert_eq!((headlines(&same), &same.sites), (NOTHING.to_vec(), &begun.sites));
    let over = after(&same, &["a", "b"], &["a", "b"], &[], NOW + Duration::minutes(30));
    assert_eq!((headlines(&over), is_empty(&over)), (vec!["a: solved: token refused"], true));
}

#[test]
fn nothing_is_concluded_about_a_site_that_was_not_checked_or_not_as_far() {
    let (refused, unreachable) =
        (problem(ProblemKind::TokenRefused, None), problem(ProblemKind::ServerUnreachable, None));
    let begun = after(&AlertPlan::default(), &["a", "b"], &["a", "b"], &[("a", &refused)], NOW);
    let other = after(&begun, &["a", "b"], &["b"], &[], NOW);
    assert_eq!((headlines(&other), &other.sites), (NOTHING.to_vec(), &begun.sites));
    let masked = after(&other, &["a", "b"], &["a", "b"], &[("a", &unreachable)], NOW);
    assert_eq!(headlines(&masked), ["a: server not reachable"]);
    let unmasked = after(&masked, &["a", "b"], &["a", "b"], &[("a", &refused)], NOW);
    assert_eq!(headlines(&unmasked), ["a: solved: server not reachable"]);
    // A deleted entry causes no alert, even if it was the last.
    for declared in [&["b"][..], &[]] {
        let gone = after(&unmasked, declared, declared, &[], NOW);
        assert_eq!((headlines(&gone), is_empty(&gone)), (NOTHING.to_vec(), true));
    }
}

#[test]
fn a_disabled_webhook_is_alerted_once_even_if_that_has_to_wait() {
    let disabled = problem(ProblemKind::WebhookDisabled, Some("ViewDeleted"));
    let found = after(&AlertPlan::default(), &["a"], &["a"], &[("a", &disabled)], NOW);
    assert_eq!((headlines(&found), is_empty(&found)), (vec!["a: webhook was disabled"], true));
    assert_eq!(headlines(&after(&found, &["a"], &["a"], &[], NOW)), NOTHING);
    let unsent = planned(&AlertPlan::default(), &["a"], &["a"], &[("a", &disabled)], NOW);
    assert_eq!(json!(unsent.sites["a"].known), json!({ "webhook-disabled/ViewDeleted": "2026-05-21T08:00:00Z" }));
    let late = after(&unsent, &["a"], &[], &[], NOW + Duration::minutes(15));
    assert_eq!((headlines(&late), is_empty(&late)), (vec!["a: webhook was disabled"], true));
}

#[test]
fn a_problem_whose_alert_may_have_been_sent_is_alerted_again_or_solved() {
    let refused = problem(ProblemKind::TokenRefused, None);
    let cut_off = planned(&AlertPlan::default(), &["a", "b"], &["a", "b"], &[("a", &refused)], NOW);
    assert_eq!(cut_off.changing(), (BTreeSet::from(["a"]), false));
    let again = after(&cut_off, &["a", "b"], &["a", "b"], &[("a", &refused)], NOW + Duration::minutes(15));
    assert_eq!(headlines(&again), ["a: token refused"]);
    assert_eq!(json!(again.sites["a"].known), json!({ "token-refused": "2026-05-21T08:15:00Z" }));
    let unchecked = after(&cut_off, &["a", "b"], &["b"], &[], NOW + Duration::minutes(15));
    assert_eq!((headlines(&unchecked), &unchecked.sites), (NOTHING.to_vec(), &cut_off.sites));
    // The run was cut off when it might have sent that the problem is solved.
    let solved = planned(&again, &["a", "b"], &["a", "b"], &[], NOW + Duration::minutes(30));
    assert_eq!(
        (headlines(&solved), solved.changing()),
        (vec!["a: solved: token refused"], (BTreeSet::from(["a"]), false))
    );
    let begun = after(&solved, &["a", "b"], &["a", "b"], &[("a", &refused)], NOW + Duration::minutes(45));
    assert_eq!(headlines(&begun), ["a: token refused"]);
    for before in [cut_off, again, unchecked, solved] {
        let over = after(&before, &["a", "b"], &["a", "b"], &[], NOW + Duration::minutes(30));
        assert_eq!((headlines(&over), is_empty(&over)), (vec!["a: solved: token refused"], true));
    }
}

#[test]
fn a_problem_of_many_sites_is_one_alert() {
    let refused = problem(ProblemKind::TokenRefused, None);
    let sites: Vec<_> = (0..12).map(|number| format!("site-{number:02}")).collect();
    let sites: Vec<_> = sites.iter().map(String::as_str).collect();
    let found: Vec<_> = sites.iter().map(|site| (*site, &refused)).collect();
    let begun = after(&AlertPlan::default(), &sites, &sites, &found, NOW);
    assert_eq!(headlines(&begun), ["12 sites: token refused"]);
    assert_eq!(headlines(&after(&begun, &sites, &sites, &found[..3], NOW)), ["9 sites: solved: token refused"]);
}

#[test]
fn that_runs_have_no_time_for_all_sites_is_one_problem_whichever_sites_they_are() {
    let late = problem(ProblemKind::OutOfTime, None);
    let first = after(&AlertPlan::default(), &["a", "b"], &["b"], &[("a", &late)], NOW);
    assert_eq!(headlines(&first), ["a: no time left"]);
    let second = after(&first, &["a", "b"], &["a"], &[("b", &late)], NOW);
    // A run for one site says nothing about the time that all take.
    let one = after(&second, &["a", "b"], &["a"], &[], NOW);
    assert_eq!((headlines(&second), headlines(&one), is_empty(&one)), (NOTHING.to_vec(), NOTHING.to_vec(), false));
    let unusable = problem(ProblemKind::EntryUnusable, None);
    let over = after(&one, &["a", "b"], &["a", "b"], &[("a", &unusable)], NOW);
    assert_eq!(headlines(&over), ["all sites: solved: no time left", "a: site entry cannot be used"]);
}

/// Plans the alerts of a run that found that the token of the site `a` ends, and sends them. The present stage of the end
/// began at `began`.
fn after_stage(before: &AlertPlan, began: OffsetDateTime, now: OffsetDateTime) -> AlertPlan {
    let ending = problem(ProblemKind::TokenEnding, None);
    let findings = Findings {
        sites: [("a", before.sites.get("a").cloned().unwrap_or_default())].into(),
        checked: ["a"].into(),
        found: vec![("a", &ending)],
        token_stages: [("a", began)].into(),
        ..Findings::default()
    };
    let mut plan = AlertPlan::new(&findings, now);
    plan.alerts.clone().iter().for_each(|alert| plan.confirm(alert));
    plan
}

#[test]
fn each_stage_of_a_tokens_end_is_alerted_once_and_its_renewal_is_one_alert() {
    let first = after_stage(&AlertPlan::default(), NOW, NOW + Duration::hours(1));
    assert_eq!(headlines(&first), ["a: token ends soon"]);
    let same = after_stage(&first, NOW, NOW + Duration::days(15));
    assert_eq!((headlines(&same), &same.sites), (NOTHING.to_vec(), &first.sites));
    let second = after_stage(&same, NOW + Duration::days(16), NOW + Duration::days(17));
    assert_eq!(headlines(&second), ["a: token ends soon"]);
    let over = after(&second, &["a"], &["a"], &[], NOW + Duration::days(18));
    assert_eq!((headlines(&over), is_empty(&over)), (vec!["a: solved: token ends soon"], true));
    // At the end Tableau refuses the token.
    let refused = problem(ProblemKind::TokenRefused, None);
    let ended = after(&second, &["a"], &["a"], &[("a", &refused)], NOW + Duration::days(30));
    assert_eq!(headlines(&ended), ["a: token refused"]);
    let over = after(&ended, &["a"], &["a"], &[], NOW + Duration::days(31));
    assert_eq!((headlines(&over), is_empty(&over)), (vec!["a: solved: token refused"], true));
}

prop_compose! {
    /// The declared sites, those that a run checks, and the problems it finds there.
    fn any_run()(
        declared in proptest::sample::subsequence(SITES.to_vec(), 0..=4),
        checked in proptest::sample::subsequence(SITES.to_vec(), 0..=4),
        found in vec((select(&SITES[..]), any_kind(), any::<bool>()), 0..6),
    ) -> (Vec<&'static str>, Vec<&'static str>, Vec<(&'static str, Problem)>) {
        let checked: Vec<_> = checked.into_iter().filter(|site| declared.contains(site)).collect();
        let is_at_event = |kind| matches!(kind, ProblemKind::WebhookRefused | ProblemKind::WebhookDisabled);
        let found = found.into_iter().filter(|(site, ..)| checked.contains(site)).map(|(site, kind, first)| {
            let event = if first { "ViewDeleted" } else { "UserDeleted" };
            (site, problem(kind, Some(event).filter(|_| is_at_event(kind))))
        });
        let found = found.collect();
        (declared, checked, found)
    }
}

fn any_kind() -> impl Strategy<Value = ProblemKind> {
    select(vec![
        ProblemKind::EntryUnusable,
        ProblemKind::ServerUnreachable,
        ProblemKind::TokenRefused,
        ProblemKind::OutOfTime,
        ProblemKind::TokenEnding,
        ProblemKind::WebhookRefused,
        ProblemKind::WebhookDisabled,
        ProblemKind::RefreshesLost,
        ProblemKind::TestFailed,
    ])
}

/// Which alerts SNS confirms, a bit each: mostly all.
fn any_answers() -> impl Strategy<Value = u8> {
    prop_oneof![Just(u8::MAX), any::<u8>()]
}

/// The problems that are open as far as a subscriber has read.
type Open = BTreeSet<(Option<String>, ProblemKey)>;

fn read(open: &mut Open, alert: &Alert) {
    for Change { site, key, since } in &alert.changes {
        let problem = (site.clone(), key.clone());
        // A reader of either message knows that the announced end is history.
        open.retain(|(at, open)| at != site || !key.kind.concludes(open.kind));
        if since.is_some() {
            open.insert(problem)
        } else {
            open.remove(&problem)
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Runs are cut off at any point, and SNS accepts some of their alerts, perhaps without an answer.
    #[test]
    fn subscribers_know_every_open_problem_and_none_that_is_over(
        runs in vec((any_run(), prop_oneof![Just(usize::MAX), 0_usize..4], any_answers(), any::<bool>()), 1..8),
    ) {
        let (mut stored, mut open) = (AlertPlan::default(), Open::new());
        for (number, ((declared, checked, found), sent, answers, is_stored)) in (0..).zip(&runs) {
            let found: Vec<_> = found.iter().map(|(site, problem)| (*site, problem)).collect();
            let mut plan = planned(&stored, declared, checked, &found, NOW + Duration::minutes(number));
            let (sites, run) = plan.changing();
            for site in sites {
                stored.sites.insert(site.to_owned(), plan.sites[site].clone());
            }
            if run {
                stored.run = plan.run.clone();
            }
            let alerts = plan.alerts.clone();
            for (at, alert) in alerts.iter().enumerate().take(*sent) {
                read(&mut open, alert);
                if answers & (1 << (at % 8)) != 0 {
                    plan.confirm(alert);
                }
            }
            stored.sites.retain(|site, _| declared.contains(&site.as_str()));
            open.retain(|(site, _)| site.as_ref().is_none_or(|site| declared.contains(&site.as_str())));
            if *sent < alerts.len() || !is_stored {
                continue;
            }
            stored = plan;
            if *answers == u8::MAX {
                for (site, problem) in found.iter().filter(|(_, problem)| !problem.kind.is_momentary()) {
                    let is_of_site = |found: &&(&str, &Problem)| found.0 == *site;
                    if found.iter().filter(is_of_site).any(|(_, found)| found.kind.concludes(problem.kind)) {
                        continue;
                    }
                    let site = (!problem.kind.is_run_wide()).then(|| (*site).to_owned());
                    prop_assert!(open.contains(&(site, problem.key())), "{}", problem.kind);
                }
                // The same again is no news.
                let again = planned(&stored, declared, checked, &found, NOW + Duration::hours(1));
                prop_assert_eq!(again.changing(), (BTreeSet::new(), false));
            }
        }
        let over = after(&stored, &SITES, &SITES, &[], NOW + Duration::hours(2));
        over.alerts.iter().for_each(|alert| read(&mut open, alert));
        prop_assert!(is_empty(&over) && open.is_empty(), "{open:?}");
    }
}
