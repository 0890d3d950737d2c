//! Deliveries while the signing keys cannot be read.

use std::time::Duration;

use serde_json::{Value, json};
use shared::{
    events::unverified::{MINUTE_BYTES, UnverifiedRecord},
    registration::keyring::{KEY_BYTES, Keyring},
};

use crate::doubles::{Answer, Harness, KEY, Stored, event, path};

const FAILED: &str = include_str!("../../../../tests/payloads/datasource-refresh-failed.json");

/// Returns the lines of unverified deliveries, and the records in them.
fn recorded(harness: &Harness) -> Vec<(Value, UnverifiedRecord)> {
    let lines = harness.log().into_iter().filter(|line| line["outcome"] == UnverifiedRecord::OUTCOME);
    lines.map(|line| (line.clone(), serde_json::from_value(line).expect("a record"))).collect()
}

fn sum(harness: &Harness, metric: &str) -> usize {
    harness.log().iter().filter_map(|line| line.get(metric)?.as_f64()).sum::<f64>() as usize
}

#[tokio::test]
async fn a_delivery_is_recorded_whole_and_can_be_verified_later() {
    // Keys that cannot be read at all, and newer keys that cannot be read.
    for (stored, key) in [(Stored::Unavailable, KEY), (Stored::Key(KEY), KEY + 1)] {
        let harness = Harness::start(stored).await;
        harness.parameter.store(Stored::Unavailable);
        let path = path("marketing", "DatasourceRefreshFailed", key);
        assert_eq!(harness.post(&path, FAILED).await, Answer::empty(503));
        let recorded = recorded(&harness);
        let [(line, record)] = &recorded[..] else { panic!("{recorded:?}") };
        let verified = record.verify(&Keyring::of([key; KEY_BYTES])).expect("a genuine delivery");
        assert_eq!(verified.registration().event.as_str(), "DatasourceRefreshFailed");
        assert_eq!(verified.registration().site.as_str(), "marketing");
        assert_eq!(record.body().as_deref(), Some(FAILED.as_bytes()));
        let signature = path.rsplit('/').next().expect("a signature");
        assert!(!line.to_string().contains(signature), "{line}");
    }
}

#[tokio::test]
async fn a_request_that_is_no_delivery_or_is_rejected_is_not_recorded() {
    let path = path("marketing", "WorkbookCreated", KEY + 1);
    for (stored, method, path, status) in [
        (Stored::Unavailable, "GET", path.as_str(), 503),
        (Stored::Unavailable, "POST", "/hooks/marketing/WorkbookCreated", 404),
        (Stored::Missing, "POST", &path, 404),
        (Stored::Key(KEY), "POST", &path, 404),
    ] {
        let harness = Harness::start(stored.clone()).await;
        assert_eq!(harness.send(event(method, path, json!("{}"), false)).await, Answer::empty(status));
        assert_eq!((recorded(&harness).len(), sum(&harness, "Unrecorded")), (0, 0), "{stored:?} {method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_recorded_within_its_budget_and_the_rest_is_counted() {
    const MINUTES: usize = 10;
    const A_MINUTE: usize = 1000;
    let harness = Harness::start(Stored::Unavailable).await;
    let junk = path("marketing", "ViewDeleted", KEY + 1);
    let genuine = path("marketing", "DatasourceRefreshFailed", KEY);
    for minute in 0..MINUTES {
        // The first of a minute: earlier requests take nothing from its budget.
        harness.post(&genuine, FAILED).await;
        for number in 0..A_MINUTE {
            harness.post(&junk, &"x".repeat(number % 100 * 100)).await;
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        let keyring = Keyring::of([KEY; KEY_BYTES]);
        let count = recorded(&harness).iter().filter(|(_, record)| record.verify(&keyring).is_some()).count();
        assert_eq!(count, minute + 1);
    }
    // The last minute's numbers come with the next request.
    harness.post("/", "").await;
    let recorded = recorded(&harness);
    let bytes: usize = recorded.iter().map(|(line, _)| line.to_string().len()).sum();
    assert!((MINUTES * MINUTE_BYTES / 2..=MINUTES * MINUTE_BYTES).contains(&bytes), "{bytes} bytes");
    assert_eq!(sum(&harness, "Unverified"), MINUTES * (A_MINUTE + 1));
    assert_eq!(sum(&harness, "Unrecorded"), MINUTES * (A_MINUTE + 1) - recorded.len());
}
