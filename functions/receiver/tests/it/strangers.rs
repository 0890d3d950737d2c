//! Requests without a valid signature: their answers and their cost.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    doubles::{Answer, Harness, KEY, Stored, event, path},
    time::on_a_paused_clock,
};

const WRONG_KEY: u8 = KEY + 1;

#[tokio::test]
async fn a_request_without_a_valid_signature_is_answered_404() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    let good = path("marketing", "WorkbookCreated", KEY);
    for path in [
        "/",
        "/hooks",
        "/favicon.ico",
        "/hooks/marketing/WorkbookCreated",
        &path("marketing", "WorkbookCreated", WRONG_KEY),
        &good.replace("marketing", "finance"),
        &good.replace("Created", "Deleted"),
        &format!("{good}/"),
        &format!("/x/..{good}"),
        &good.replace("/hooks", "/%68ooks"),
        &good.replacen("/hooks/", "/hooks%2F", 1),
        &good.replace("marketing/", "marketing%2f"),
        &good.replace("WorkbookCreated", "WORKBOOKCREATED"),
        &good.replace("marketing", "MARKETING"),
        &format!("{good}?signature=1&signature=2"),
    ] {
        for method in ["POST", "GET", "HEAD", "OPTIONS"] {
            let answer = harness.send(event(method, path, json!(r#"{"event_type":"Test"}"#), false)).await;
            assert_eq!(answer, Answer::empty(404), "{method} {path}");
        }
    }
    assert!(harness.topic.published().is_empty());
}

/// The value of a metric in each line that has it.
fn logged(harness: &Harness, metric: &str) -> Vec<u64> {
    harness.log().iter().filter_map(|line| line.get(metric)?.as_f64().map(|value| value as u64)).collect()
}

#[tokio::test(start_paused = true)]
async fn wrong_signatures_cost_one_read_of_the_keyring_and_one_line_a_minute() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    for _ in 0..1000 {
        harness.post(&path("marketing", "WorkbookCreated", WRONG_KEY), "{}").await;
    }
    let at_start = 1;
    assert_eq!(harness.parameter.reads(), at_start + 1);
    assert_eq!(logged(&harness, "Rejected"), [1]);
    tokio::time::advance(Duration::from_secs(60)).await;
    for _ in 0..1000 {
        harness.post("/wp-login.php", "{}").await;
    }
    assert_eq!(harness.parameter.reads(), at_start + 1);
    assert_eq!(logged(&harness, "Rejected"), [1, 1000]);
    tokio::time::advance(Duration::from_secs(60)).await;
    harness.post(&path("marketing", "WorkbookCreated", WRONG_KEY), "{}").await;
    assert_eq!(harness.parameter.reads(), at_start + 2);
    assert_eq!(logged(&harness, "KeyringRefreshes"), [1, 0, 1]);
    assert_eq!(logged(&harness, "KeyringFailures"), [0, 0, 0]);
}

const HOUR: Duration = Duration::from_secs(3600);

/// The most reads of an hour in which SSM answers always the same: one a minute, and six in the first.
const READS: usize = 59 + 6;

/// The most reads of an hour in which SSM fails and recovers at the worst moments: four short pauses after each success. No
/// request can cause that.
const READS_WHILE_SSM_COMES_AND_GOES: usize = 5 * 3600 / 75 + 6;

/// Sends requests with a wrong signature, one after another, for a time.
async fn flood(harness: &Harness, interval: Duration, lasts: Duration) {
    let end = Instant::now() + lasts;
    let path = path("marketing", "WorkbookCreated", WRONG_KEY);
    while Instant::now() < end {
        harness.post(&path, "{}").await;
        tokio::time::advance(interval).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_flood_costs_one_read_and_one_line_a_minute_whatever_ssm_says() {
    for stored in [Stored::Key(KEY), Stored::Missing, Stored::Unavailable] {
        let harness = Harness::start(stored.clone()).await;
        flood(&harness, Duration::from_millis(400), HOUR).await;
        let (reads, lines) = (harness.parameter.reads() - 1, other_lines(&harness));
        assert!((60..=READS).contains(&reads), "{stored:?}: {reads} reads");
        assert!((60..=61).contains(&lines), "{stored:?}: {lines} lines");
    }
}

/// Counts the lines besides the records of deliveries.
fn other_lines(harness: &Harness) -> usize {
    harness.log().iter().filter(|line| line.get("outcome").is_none()).count()
}

fn any_stored() -> impl Strategy<Value = Stored> {
    prop_oneof![Just(Stored::Key(KEY)), Just(Stored::Missing), Just(Stored::Unavailable)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_sequence_of_requests_costs_more_reads_or_lines_than_are_allowed(
        times in prop::collection::vec((any_stored(), 1_u64..200, 150_u64..5000), 1..30),
    ) {
        on_a_paused_clock(async {
            let harness = Harness::start(Stored::Missing).await;
            let start = Instant::now();
            let mut times = times.into_iter().cycle();
            while start.elapsed() < HOUR {
                let (stored, seconds, interval) = times.next().expect("an endless cycle");
                harness.parameter.store(stored);
                flood(&harness, Duration::from_millis(interval), Duration::from_secs(seconds)).await;
            }
            // The floods exceed the hour by less than four minutes.
            let (reads, lines) = (harness.parameter.reads(), other_lines(&harness));
            prop_assert!(reads <= READS_WHILE_SSM_COMES_AND_GOES + 16, "{reads} reads");
            prop_assert!(lines <= 61 + 4 + reads, "{lines} lines");
            Ok(())
        })?;
    }

    #[test]
    fn the_first_keys_are_known_after_as_long_again_as_they_were_missing(
        missing_for in 0_u64..300, interval in 100_u64..1000,
    ) {
        on_a_paused_clock(async {
            let harness = Harness::start(Stored::Missing).await;
            let (missing_for, interval) = (Duration::from_secs(missing_for), Duration::from_millis(interval));
            flood(&harness, interval, missing_for).await;
            harness.parameter.store(Stored::Key(KEY));
            let start = Instant::now();
            let signed = path("marketing", "WorkbookCreated", KEY);
            while harness.post(&signed, "{}").await.status != 200 {
                tokio::time::advance(interval).await;
            }
            let most = missing_for.clamp(Duration::from_secs(1), Duration::from_secs(60));
            prop_assert!(start.elapsed() <= most + interval * 8, "{:?}", start.elapsed());
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_requests_are_logged_with_the_next_delivery_after_a_minute() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    for _ in 0..3 {
        harness.post("/", "{}").await;
    }
    let delivery = path("marketing", "WorkbookCreated", KEY);
    harness.post(&delivery, "{}").await;
    assert_eq!(logged(&harness, "Rejected"), [1]);
    tokio::time::advance(Duration::from_secs(60)).await;
    harness.post(&delivery, "{}").await;
    assert_eq!(logged(&harness, "Rejected"), [1, 2]);
}

#[tokio::test]
async fn malformed_paths_cost_no_read_of_the_keyring() {
    let harness = Harness::start(Stored::Unavailable).await;
    assert_eq!(harness.post("/hooks/marketing", "{}").await, Answer::empty(404));
    assert_eq!(harness.parameter.reads(), 1);
}

#[tokio::test]
async fn a_new_key_is_known_with_the_first_delivery_it_signed() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    harness.parameter.store(Stored::Key(WRONG_KEY));
    assert_eq!(harness.post(&path("marketing", "WorkbookCreated", WRONG_KEY), "{}").await.outcome(), "200 published");
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_known_within_a_minute_even_during_a_flood() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    harness.post(&path("marketing", "WorkbookCreated", WRONG_KEY), "{}").await;
    harness.parameter.store(Stored::Key(WRONG_KEY));
    let moved = path("marketing", "WorkbookCreated", WRONG_KEY);
    assert_eq!(harness.post(&moved, "{}").await, Answer::empty(404));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(harness.post(&moved, "{}").await.outcome(), "200 published");
}

#[tokio::test(start_paused = true)]
async fn no_request_is_verified_before_there_is_a_keyring_and_each_soon_after() {
    let harness = Harness::start(Stored::Missing).await;
    let path = path("marketing", "WorkbookCreated", KEY);
    assert_eq!(harness.post(&path, "{}").await, Answer::empty(404));
    harness.parameter.store(Stored::Key(KEY));
    assert_eq!(harness.parameter.reads(), 2);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(harness.post(&path, "{}").await.outcome(), "200 published");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_answered_503_while_the_keyring_cannot_be_read() {
    let harness = Harness::start(Stored::Unavailable).await;
    let path = path("marketing", "WorkbookCreated", KEY);
    assert_eq!(harness.post(&path, "{}").await, Answer::empty(503));
    assert_eq!((logged(&harness, "Unverified"), logged(&harness, "KeyringFailures")), (vec![1], vec![1]));
    harness.parameter.store(Stored::Key(KEY));
    assert_eq!(harness.parameter.reads(), 2);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(harness.post(&path, "{}").await.outcome(), "200 published");
}

#[tokio::test(start_paused = true)]
async fn an_earlier_keyring_stays_in_use_while_it_cannot_be_read_again() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    harness.parameter.store(Stored::Unavailable);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(harness.post(&path("marketing", "WorkbookCreated", WRONG_KEY), "{}").await, Answer::empty(503));
    assert_eq!(harness.post(&path("marketing", "WorkbookCreated", KEY), "{}").await.outcome(), "200 published");
}
