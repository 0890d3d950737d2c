//! The alerts about deliveries.

use crate::doubles::{Answer, Harness, KEY, Stored, path};

const FAILED: &str = include_str!("../../../../tests/payloads/datasource-refresh-failed.json");

async fn harness() -> (Harness, String) {
    (Harness::start(Stored::Key(KEY)).await, path("marketing", "DatasourceRefreshFailed", KEY))
}

#[tokio::test]
async fn a_failed_refresh_is_an_event_and_an_alert_with_the_same_id() {
    let (harness, path) = harness().await;
    assert_eq!(harness.post(&path, FAILED).await.outcome(), "200 published");
    let alerts = harness.alerts.published();
    assert_eq!(alerts.len(), 1);
    assert!(alerts[0].body.contains(&harness.only_message().id.to_string()), "{}", alerts[0].body);
}

#[tokio::test]
async fn a_created_workbook_a_test_and_plain_text_have_no_alert() {
    let (harness, failed) = harness().await;
    let created = path("marketing", "WorkbookCreated", KEY);
    for (path, body) in [(&created, FAILED), (&failed, ""), (&failed, r#"{"event_type":"Test"}"#), (&failed, "text")] {
        assert_eq!(harness.post(path, body).await.outcome(), "200 published");
    }
    assert_eq!((harness.topic.published().len(), harness.alerts.published()), (4, Vec::new()));
}

#[tokio::test]
async fn when_one_topic_refuses_the_retry_publishes_to_that_one_alone() {
    for alerts_refuse in [true, false] {
        let (harness, path) = harness().await;
        let refuse = |refuses| {
            if alerts_refuse { harness.alerts.refuse(refuses) } else { harness.topic.refuse(refuses) }
        };
        refuse(true);
        assert_eq!(harness.post(&path, FAILED).await, Answer::empty(503));
        refuse(false);
        assert_eq!(harness.post(&path, FAILED).await.outcome(), "200 published");
        assert_eq!((harness.topic.published().len(), harness.alerts.published().len()), (1, 1));
        assert_eq!(harness.post(&path, FAILED).await.outcome(), "200 duplicate");
    }
}
