use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::json;
use time::macros::datetime;

use super::*;
use crate::refreshes::job::{RefreshedKind, RefreshedResource};

const NOW: OffsetDateTime = datetime!(2026-05-21 08:00:00 UTC);

const DAY: Duration = Duration::DAY;

/// The most bytes of an item. DynamoDB takes 400 KB; the rest is for how it counts names and numbers.
const MAX_ITEM_BYTES: usize = 256 * 1024;

fn events(names: &[&str]) -> BTreeSet<Event> {
    names.iter().map(|name| event(name)).collect()
}

fn event(name: &str) -> Event {
    name.parse().expect("an event")
}

fn minutes(count: i64) -> Duration {
    Duration::minutes(count)
}

fn clock(at: i64) -> Clock {
    Clock { now: NOW + minutes(at), skew: None }
}

fn job(id: &str, outcome: RefreshOutcome, ended: i64) -> EndedJob {
    EndedJob { id: id.to_owned(), outcome, started_at: None, ended_at: NOW + minutes(ended), is_via_bridge: false }
}

fn in_full(job: &EndedJob) -> Refresh {
    Refresh {
        job_id: job.id.clone(),
        resource: RefreshedResource { kind: RefreshedKind::Workbook, luid: "luid".to_owned(), name: None },
        started_at: job.started_at,
        ended_at: job.ended_at,
        outcome: job.outcome,
        notes: None,
    }
}

/// A run: reads the jobs that are listed, and publishes all that is due. Returns it as event and job.
fn run(state: &mut RefreshState, at: i64, listed: &[EndedJob], wanted: &BTreeSet<Event>) -> Vec<String> {
    let (window, _) = state.window(clock(at), DAY);
    let listed: Vec<_> =
        listed.iter().filter(|job| window.from <= job.ended_at && job.ended_at <= window.until).collect();
    let mut published = Vec::new();
    for job in &listed {
        if state.may_be_due(job, window, wanted) {
            let due = state.due(in_full(job), window, wanted);
            published.extend(due.recover.iter().map(|(event, _)| format!("{event} {}", job.id)));
            published.extend(due.explain.then(|| format!("explained {}", job.id)));
            state.note_handled(&job.id, due.handled);
        }
    }
    let ends = listed.iter().map(|job| (job.id.clone(), job.ended_at)).collect();
    assert_eq!(state.advance(window, None, &ends), None);
    published
}

#[test]
fn a_missed_event_is_recovered_from_when_its_webhook_last_worked_to_its_repair() {
    let wanted = events(&["WorkbookRefreshSucceeded", "ViewDeleted"]);
    let mut state = RefreshState::new(clock(0), &wanted);
    assert_eq!(state.note_outages(Some(NOW), clock(15), &wanted, &wanted, &wanted), []);
    let outages = state.note_outages(Some(NOW + minutes(15)), clock(30), &wanted, &events(&["ViewDeleted"]), &wanted);
    let outage = json!({ "event": "WorkbookRefreshSucceeded", "from": "2026-05-21T08:10:00Z" });
    assert_eq!(json!(outages), json!([outage]));
    state.note_repaired(clock(30), &wanted, &wanted);
    let jobs = [9, 10, 30, 31].map(|at| job(&format!("j{at}"), RefreshOutcome::Succeeded, at));
    // What is too young for this run is recovered by the next.
    assert_eq!(run(&mut state, 31, &jobs, &wanted), ["WorkbookRefreshSucceeded j10"]);
    assert_eq!(run(&mut state, 45, &jobs, &wanted), ["WorkbookRefreshSucceeded j30"]);
    assert_eq!(run(&mut state, 60, &jobs, &wanted), [""; 0]);
    // As long as a late one may be listed the outage is known.
    assert_eq!(state.outages().len(), 1);
    run(&mut state, 100, &jobs, &wanted);
    assert_eq!(state.outages(), []);
}

#[test]
fn a_failure_is_explained_at_once_and_recovered_should_its_webhook_turn_out_to_be_down() {
    let wanted = events(&["WorkbookRefreshFailed"]);
    let mut state = RefreshState::new(clock(0), &wanted);
    let failed = [job("j", RefreshOutcome::Failed, 14)];
    assert_eq!(run(&mut state, 15, &failed, &wanted), ["explained j"]);
    // Tableau tried four times to deliver it, and then disabled the webhook.
    let outages = state.note_outages(Some(NOW + minutes(15)), clock(30), &wanted, &events(&[]), &wanted);
    assert_eq!(outages.len(), 1);
    state.note_repaired(clock(30), &wanted, &wanted);
    assert_eq!(run(&mut state, 30, &failed, &wanted), ["WorkbookRefreshFailed j"]);
    assert_eq!(run(&mut state, 45, &failed, &wanted), [""; 0]);
}

#[test]
fn a_job_that_is_listed_late_is_not_passed_over_and_none_is_handled_twice() {
    let wanted = events(&["WorkbookRefreshFailed"]);
    let mut state = RefreshState::new(clock(0), &wanted);
    let (early, late) = (job("early", RefreshOutcome::Failed, 20), job("late", RefreshOutcome::Failed, 10));
    assert_eq!(run(&mut state, 30, std::slice::from_ref(&early), &wanted), ["explained early"]);
    let both = [late, early];
    assert_eq!(run(&mut state, 60, &both, &wanted), ["explained late"]);
    for at in [75, 90, 105, 120, 135] {
        assert_eq!(run(&mut state, at, &both, &wanted), [""; 0]);
    }
    assert_eq!(json!(state), json!({ "watermark": "2026-05-21T10:10:00Z", "healthy": ["WorkbookRefreshFailed"] }));
}

#[test]
fn a_webhook_that_is_new_or_no_longer_wanted_has_missed_nothing() {
    let (one, two) =
        (events(&["WorkbookRefreshFailed"]), events(&["WorkbookRefreshFailed", "DatasourceRefreshFailed"]));
    let mut state = RefreshState::new(clock(0), &one);
    assert_eq!(state.note_outages(Some(NOW), clock(15), &two, &one, &one), []);
    state.note_repaired(clock(15), &two, &two);
    assert_eq!(state.note_outages(Some(NOW), clock(30), &two, &events(&[]), &two).len(), 2);
    // It is not repaired, and then nobody wants it.
    state.note_repaired(clock(30), &two, &events(&[]));
    assert_eq!(state.note_outages(Some(NOW), clock(45), &one, &events(&[]), &one), []);
    assert_eq!(
        state.outages().iter().map(|outage| outage.event.as_str()).collect::<Vec<_>>(),
        ["WorkbookRefreshFailed"]
    );
}

#[test]
fn a_webhook_that_a_run_made_and_was_cut_off_before_it_stored_that_has_missed_what_it_may_have() {
    let wanted = events(&["WorkbookRefreshFailed"]);
    let mut state = RefreshState::new(clock(0), &events(&[]));
    assert_eq!(state.note_outages(Some(NOW), clock(15), &wanted, &events(&[]), &events(&[])), []);
    let outages = state.note_outages(Some(NOW), clock(30), &wanted, &events(&[]), &wanted);
    assert_eq!(outages.iter().map(|outage| outage.from.0).collect::<Vec<_>>(), [NOW - SETTLED]);
    // It cannot be repaired: that is no other outage.
    state.note_repaired(clock(30), &wanted, &events(&[]));
    assert_eq!(state.note_outages(Some(NOW + minutes(30)), clock(45), &wanted, &events(&[]), &wanted), []);
}

#[test]
fn a_missed_start_is_recovered_when_the_refresh_has_ended() {
    let wanted = events(&["WorkbookRefreshStarted"]);
    let mut state = RefreshState::new(clock(0), &wanted);
    state.note_outages(Some(NOW), clock(15), &wanted, &events(&[]), &wanted);
    state.note_repaired(clock(15), &wanted, &wanted);
    let long = EndedJob { started_at: Some(NOW + minutes(10)), ..job("j", RefreshOutcome::Succeeded, 120) };
    run(&mut state, 75, &[], &wanted);
    assert_eq!(run(&mut state, 130, std::slice::from_ref(&long), &wanted), ["WorkbookRefreshStarted j"]);
}

#[test]
fn a_job_that_cannot_be_read_holds_the_watermark_and_is_given_up_after_an_hour() {
    let wanted = events(&["WorkbookRefreshFailed"]);
    let mut state = RefreshState::new(clock(0), &wanted);
    let failed = job("j", RefreshOutcome::Failed, 10);
    let ends = BTreeMap::from([("j".to_owned(), failed.ended_at)]);
    for at in [20, 40, 60, 79] {
        let (window, _) = state.window(clock(at), DAY);
        assert!(state.may_be_due(&failed, window, &wanted) && !state.note_unreadable("j", NOW + minutes(at)));
        state.advance(window, Some(failed.ended_at), &ends);
        assert_eq!(state.watermark(), failed.ended_at);
    }
    assert!(state.is_unreadable("j") && state.note_unreadable("j", NOW + minutes(80)));
    state.note_handled("j", Handled::Done);
    let (window, _) = state.window(clock(80), DAY);
    assert!(!state.may_be_due(&failed, window, &wanted) && !state.is_unreadable("j"));
}

#[test]
fn each_time_that_is_too_long_ago_is_returned_once() {
    let mut state = RefreshState::new(clock(0), &events(&["WorkbookRefreshFailed"]));
    let stored = state.clone();
    let (_, expired) = state.window(clock(2 * 24 * 60), DAY);
    assert_eq!(expired, Some((NOW - minutes(5), NOW + DAY)));
    assert!(state.differs_from(&stored));
    assert_eq!(state.window(clock(2 * 24 * 60), DAY).1, None);
    assert_eq!(state.window(clock(2 * 24 * 60 + 15), DAY).1, Some((NOW + DAY, NOW + DAY + minutes(15))));
}

#[test]
fn the_plain_passing_of_time_is_worth_one_write_an_hour() {
    let wanted = events(&["WorkbookRefreshFailed"]);
    let mut state = RefreshState::new(clock(0), &wanted);
    run(&mut state, 120, &[], &wanted);
    let mut writes = 0;
    for at in (135..135 + 4 * 60).step_by(15) {
        let mut after = state.clone();
        after.note_outages(Some(NOW + minutes(at - 15)), clock(at), &wanted, &wanted, &wanted);
        after.note_repaired(clock(at), &wanted, &wanted);
        run(&mut after, at, &[], &wanted);
        if after.differs_from(&state) {
            writes += 1;
            state = after;
        }
    }
    assert_eq!(writes, 4);
}

#[test]
fn after_a_long_pause_the_overlap_that_is_not_read_is_named() {
    let wanted = events(&["WorkbookRefreshFailed"]);
    let mut state = RefreshState::new(clock(0), &wanted);
    run(&mut state, 180, &[], &wanted);
    // Tableau may list a job of the overlap only during the pause.
    for (pause, unread) in [(22 * 60, None), (23 * 60 + 30, Some((115, 150))), (25 * 60, Some((115, 240)))] {
        let (window, expired) = state.clone().window(clock(180 + pause), DAY);
        assert_eq!(expired, unread.map(|(from, until)| (NOW + minutes(from), NOW + minutes(until))), "{pause}");
        assert_eq!(window.from, NOW + minutes(unread.map_or(115, |(_, until)| until)), "{pause}");
    }
    for at in (195..600).step_by(15) {
        let (window, expired) = state.window(clock(at), OVERLAP);
        assert_eq!(expired, None, "{at}");
        state.advance(window, None, &BTreeMap::new());
    }
}

#[test]
fn of_more_jobs_than_fit_the_latest_are_kept_and_the_window_begins_with_them() {
    let wanted = events(&["WorkbookRefreshFailed"]);
    let mut state = RefreshState::new(clock(0), &wanted);
    let end = |number: i64| NOW + Duration::seconds(number);
    let id = |number: i64| format!("{number:064}");
    let ends: BTreeMap<_, _> = (0..3000).map(|number| (id(number), end(number))).collect();
    ends.keys().for_each(|id| state.note_handled(id, Handled::Explained));
    let (window, _) = state.window(clock(60), DAY);
    let narrowed = |passes_due| Some(Narrowed { from: end(1001), passes_due });
    assert_eq!(state.clone().advance(window, None, &ends), narrowed(false));
    assert_eq!(state.advance(window, Some(end(10)), &ends), narrowed(true));
    assert!(!state.is_handled(&id(1000)) && state.is_handled(&id(1001)));
    assert!(serde_json::to_string(&state).is_ok_and(|json| json.len() < MAX_ITEM_BYTES));
    assert_eq!(state.window(clock(61), DAY).0.from, end(1001));
}

proptest! {
    /// Runs crash before they store anything. Each failure is explained all the same, and each success that its webhook
    /// missed is recovered.
    #[test]
    fn runs_that_are_cut_off_pass_no_job_over(
        jobs in vec((0_i64..300, any::<bool>()), 1..30),
        runs in vec((any::<bool>(), any::<bool>()), 20),
    ) {
        let wanted = events(&["WorkbookRefreshFailed", "WorkbookRefreshSucceeded"]);
        let mut stored = RefreshState::new(clock(0), &wanted);
        let mut checked = NOW;
        let mut published = BTreeSet::new();
        let mut missed = BTreeSet::new();
        let all: Vec<_> = jobs.iter().enumerate().map(|(number, (at, failed))| {
            let outcome = if *failed { RefreshOutcome::Failed } else { RefreshOutcome::Succeeded };
            job(&format!("j{number}"), outcome, *at)
        }).collect();
        let mut broken_since = None;
        for (at, (breaks, is_cut_off)) in (15..).step_by(15).zip(runs) {
            let healthy = if broken_since.is_some() { events(&[]) } else { wanted.clone() };
            let mut state = stored.clone();
            let outages = state.note_outages(Some(checked), clock(at), &wanted, &healthy, &wanted);
            if !outages.is_empty() {
                stored = state.clone();
            }
            if let Some(since) = broken_since.take() {
                missed.extend(all.iter().filter(|job| (NOW + minutes(since)..NOW + minutes(at)).contains(&job.ended_at)).map(|job| job.id.clone()));
            }
            state.note_repaired(clock(at), &wanted, &wanted);
            published.extend(run(&mut state, at, &all, &wanted));
            if !is_cut_off {
                stored = state;
                checked = NOW + minutes(at);
            }
            if breaks {
                broken_since = Some(at);
            }
        }
        for at in [330, 345, 360] {
            let mut state = stored.clone();
            let healthy = if broken_since.take().is_some() { events(&[]) } else { wanted.clone() };
            state.note_outages(Some(checked), clock(at), &wanted, &healthy, &wanted);
            state.note_repaired(clock(at), &wanted, &wanted);
            published.extend(run(&mut state, at, &all, &wanted));
            stored = state;
        }
        for job in &all {
            let (explained, recovered) = (format!("explained {}", job.id), format!("WorkbookRefreshSucceeded {}", job.id));
            match job.outcome {
                RefreshOutcome::Failed => prop_assert!(published.contains(&explained), "{job:?}"),
                _ => prop_assert!(!missed.contains(&job.id) || published.contains(&recovered), "{job:?}"),
            }
        }
    }

    #[test]
    fn what_is_stored_is_read_again(names in vec(select(&["WorkbookRefreshFailed", "DatasourceRefreshStarted"][..]), 0..3)) {
        let wanted = events(&names);
        let mut state = RefreshState::new(clock(0), &wanted);
        state.note_outages(Some(NOW), clock(5), &wanted, &events(&[]), &wanted);
        state.note_handled("j", Handled::Explained);
        state.note_unreadable("k", NOW);
        let stored = serde_json::to_string(&state).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<RefreshState>(&stored).ok(), Some(state));
    }
}
