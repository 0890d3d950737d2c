//! The lines of deliveries.

use insta::assert_snapshot;
use serde_json::Value;
use shared::events::delivery_log::{AlertOutcome, DeliveryRecord};

use crate::doubles::{Harness, KEY, Stored, path};

const FAILED: &str = include_str!("../../../../tests/payloads/datasource-refresh-failed.json");

/// Returns the lines without times.
fn lines(harness: &Harness) -> String {
    let lines = harness.log().into_iter().map(|mut line| {
        line["_aws"]["Timestamp"] = Value::from(0);
        line["timestamp"] = Value::from("");
        if line.get("PublishLatency").is_some() {
            line["PublishLatency"] = Value::from(0);
        }
        line.to_string()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn each_delivery_is_one_line_with_its_metrics() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    let failed = path("marketing", "DatasourceRefreshFailed", KEY);
    let other = path("marketing", "ViewDeleted", KEY);
    for (path, body) in [(&failed, FAILED), (&failed, FAILED), (&other, FAILED), (&other, "what?")] {
        assert_eq!(harness.post(path, body).await.status, 200);
    }
    let too_large = format!(r#"{{"padding":"{}"}}"#, "x".repeat(256 * 1024));
    assert_eq!(harness.post(&other, &too_large).await.status, 413);
    harness.topic.refuse(true);
    assert_eq!(harness.post(&other, "{}").await.status, 503);
    assert_snapshot!(lines(&harness));
}

#[tokio::test]
async fn a_test_counts_as_one() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    harness.post(&path("marketing", "ViewDeleted", KEY), "").await;
    assert_eq!(harness.log()[0]["Tests"], 1.0);
}

#[tokio::test]
async fn an_undelivered_event_is_recorded_whole_without_its_signature() {
    for alerts_refuse in [true, false] {
        let harness = Harness::start(Stored::Key(KEY)).await;
        if alerts_refuse {
            harness.alerts.refuse(true)
        } else {
            harness.topic.refuse(true)
        }
        let path = path("marketing", "DatasourceRefreshFailed", KEY);
        assert_eq!(harness.post(&path, FAILED).await.status, 503);
        let log = harness.log();
        assert_eq!(log.len(), 1, "{log:?}");
        let record: DeliveryRecord = serde_json::from_value(log[0].clone()).expect("a record");
        assert_eq!(record.body().as_deref(), Some(FAILED.as_bytes()));
        assert_eq!((record.error.is_some(), record.alert_error.is_some()), (!alerts_refuse, alerts_refuse));
        assert_eq!(record.alert, Some(if alerts_refuse { AlertOutcome::Failed } else { AlertOutcome::Sent }));
        let signature = path.rsplit('/').next().expect("a signature");
        assert!(!log[0].to_string().contains(signature), "{}", log[0]);
    }
}
