//! What those learn who cannot sign, and what they cost.

use std::time::Duration;

use serde_json::json;

use crate::doubles::{Answer, Harness, KEY, Stored, event, path};

const WRONG_KEY: u8 = KEY + 1;

#[tokio::test]
async fn a_stranger_learns_nothing_but_not_found() {
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
fn told(harness: &Harness, metric: &str) -> Vec<u64> {
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
    assert_eq!(told(&harness, "Rejected"), [1]);
    tokio::time::advance(Duration::from_secs(60)).await;
    for _ in 0..1000 {
        harness.post("/wp-login.php", "{}").await;
    }
    assert_eq!(harness.parameter.reads(), at_start + 1);
    assert_eq!(told(&harness, "Rejected"), [1, 1000]);
    tokio::time::advance(Duration::from_secs(60)).await;
    harness.post(&path("marketing", "WorkbookCreated", WRONG_KEY), "{}").await;
    assert_eq!(harness.parameter.reads(), at_start + 2);
    assert_eq!(told(&harness, "KeyringRefreshes"), [1, 1]);
    assert_eq!(told(&harness, "KeyringFailures"), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_was_turned_away_is_told_with_the_next_delivery_after_a_minute() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    for _ in 0..3 {
        harness.post("/", "{}").await;
    }
    let delivery = path("marketing", "WorkbookCreated", KEY);
    harness.post(&delivery, "{}").await;
    assert_eq!(told(&harness, "Rejected"), [1]);
    tokio::time::advance(Duration::from_secs(60)).await;
    harness.post(&delivery, "{}").await;
    assert_eq!(told(&harness, "Rejected"), [1, 2]);
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
async fn a_new_key_is_known_within_a_minute_even_if_strangers_guess() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    harness.post(&path("marketing", "WorkbookCreated", WRONG_KEY), "{}").await;
    harness.parameter.store(Stored::Key(WRONG_KEY));
    let moved = path("marketing", "WorkbookCreated", WRONG_KEY);
    assert_eq!(harness.post(&moved, "{}").await, Answer::empty(404));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(harness.post(&moved, "{}").await.outcome(), "200 published");
}

#[tokio::test(start_paused = true)]
async fn before_there_is_a_keyring_nobody_is_believed_and_soon_after_it_is_made_everybody_who_signed() {
    let harness = Harness::start(Stored::Missing).await;
    let path = path("marketing", "WorkbookCreated", KEY);
    assert_eq!(harness.post(&path, "{}").await, Answer::empty(404));
    harness.parameter.store(Stored::Key(KEY));
    assert_eq!(harness.parameter.reads(), 2);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(harness.post(&path, "{}").await.outcome(), "200 published");
}

#[tokio::test(start_paused = true)]
async fn while_the_keyring_cannot_be_read_a_delivery_is_asked_for_again() {
    let harness = Harness::start(Stored::Unavailable).await;
    let path = path("marketing", "WorkbookCreated", KEY);
    assert_eq!(harness.post(&path, "{}").await, Answer::empty(503));
    assert_eq!((told(&harness, "Unverified"), told(&harness, "KeyringFailures")), (vec![1], vec![1]));
    harness.parameter.store(Stored::Key(KEY));
    assert_eq!(harness.parameter.reads(), 2);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(harness.post(&path, "{}").await.outcome(), "200 published");
}

#[tokio::test(start_paused = true)]
async fn a_keyring_that_was_read_serves_while_it_cannot_be_read_again() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    harness.parameter.store(Stored::Unavailable);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(harness.post(&path("marketing", "WorkbookCreated", WRONG_KEY), "{}").await, Answer::empty(503));
    assert_eq!(harness.post(&path("marketing", "WorkbookCreated", KEY), "{}").await.outcome(), "200 published");
}
