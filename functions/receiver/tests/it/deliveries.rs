//! Authentic deliveries.

use base64::{Engine, prelude::BASE64_STANDARD};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::doubles::{Answer, Harness, KEY, Stored, event, path};

macro_rules! payload {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/payloads/", $name))
    };
}

/// Returns the message of one delivery: the envelope, then the attributes.
async fn published(event: &str, body: &str) -> String {
    let harness = Harness::start(Stored::Key(KEY)).await;
    let answer = harness.post(&path("marketing", event, KEY), body).await;
    let message = harness.only_message();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body, format!(r#"{{"status":"published","id":"{}"}}"#, message.id));
    let attributes: String = message.attributes.iter().map(|(name, value)| format!("\n{name}: {value}")).collect();
    format!("{}{attributes}\ngroup: {}", message.body, message.group)
}

#[tokio::test]
async fn the_delivery_captured_in_2019_is_published() {
    assert_snapshot!(published("WorkbookCreated", payload!("workbook-created-2019.json")).await);
}

#[tokio::test]
async fn a_delivery_with_text_and_fractional_seconds_is_published() {
    assert_snapshot!(published("WorkbookCreated", payload!("workbook-created-2021.json")).await);
}

#[tokio::test]
async fn a_failed_refresh_has_the_resource_type_of_its_event() {
    assert_snapshot!(published("DatasourceRefreshFailed", payload!("datasource-refresh-failed.json")).await);
}

#[tokio::test]
async fn a_test_call_with_a_payload_is_published_as_a_test() {
    let published = published("WorkbookCreated", payload!("test-2022.json")).await;
    assert_snapshot!(without_id(&published));
}

#[tokio::test]
async fn a_test_call_without_a_body_is_published_as_a_test() {
    let published = published("WorkbookCreated", "").await;
    assert_snapshot!(without_id(&published));
}

#[tokio::test]
async fn a_test_call_of_plain_text_is_kept_as_unrecognized() {
    assert_snapshot!(published("WorkbookCreated", payload!("test-2020.txt")).await);
}

/// Replaces the identifier, which depends on the request's for a test.
fn without_id(published: &str) -> String {
    let envelope: Value = serde_json::from_str(published.lines().next().expect("an envelope")).expect("JSON");
    published.replace(envelope["id"].as_str().expect("an id"), "<id>")
}

#[tokio::test]
async fn a_body_that_is_no_text_is_published_as_base64() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    let answer = harness.send(event("POST", &path("marketing", "WorkbookCreated", KEY), json!("/wD+"), true)).await;
    assert_eq!(answer.outcome(), "200 published");
    let envelope: Value = serde_json::from_str(&harness.only_message().body).expect("JSON");
    assert_eq!((envelope.get("data"), envelope["data_base64"].as_str()), (None, Some("/wD+")));
}

#[tokio::test]
async fn a_body_that_is_not_the_base64_it_claims_to_be_is_kept() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    let answer = harness.send(event("POST", &path("marketing", "WorkbookCreated", KEY), json!("%%"), true)).await;
    assert_eq!(answer.outcome(), "200 published");
    assert!(harness.only_message().body.contains(r#""data":"%%""#));
}

#[tokio::test]
async fn the_sample_event_for_invoke_is_the_recorded_delivery() {
    let sample: Value =
        serde_json::from_str(include_str!("../../../../tests/events/receiver-workbook-created.json")).expect("JSON");
    assert_eq!(sample["body"].as_str(), Some(payload!("workbook-created-2019.json")));
}

#[tokio::test]
async fn a_url_is_valid_for_its_event_and_site_alone() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    let body = r#"{"event_type":"SiteDeleted","site":"finance","source":"/tableau/finance","type":"com.tableau.SiteDeleted",
        "resource":"SITE","resource_type":"site","action":"deleted","event_id":"1","specversion":"0.3"}"#;
    harness.post(&path("marketing", "WorkbookCreated", KEY), body).await;
    let message = harness.only_message();
    let id = message.id.to_string();
    let expected = [
        ("action", "created"),
        ("event_id", id.as_str()),
        ("event_type", "WorkbookCreated"),
        ("resource_type", "workbook"),
        ("site", "marketing"),
    ];
    let attributes = message.attributes.iter().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(attributes.collect::<Vec<_>>(), expected);
    let envelope: Value = serde_json::from_str(&message.body).expect("JSON");
    let context = ["specversion", "id", "source", "type"].map(|name| envelope[name].as_str().expect("a text"));
    assert_eq!(context, ["1.0", id.as_str(), "/tableau/marketing", "com.tableau.WorkbookCreated"]);
    assert!(message.body.ends_with(&format!(r#""data":{body}}}"#)), "{}", message.body);
}

#[tokio::test]
async fn a_repeated_delivery_is_not_published_again() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    let path = path("marketing", "WorkbookCreated", KEY);
    let first = harness.post(&path, payload!("workbook-created-2019.json")).await;
    let second = harness.post(&path, payload!("workbook-created-2019.json")).await;
    assert_eq!((first.outcome().as_str(), second.outcome().as_str()), ("200 published", "200 duplicate"));
    assert!(second.body.contains(&harness.only_message().id.to_string()));
}

#[tokio::test]
async fn a_repeated_test_is_no_duplicate() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    for request in ["first", "second"] {
        let mut test = event("POST", &path("marketing", "WorkbookCreated", KEY), json!(""), false);
        test["requestContext"]["requestId"] = json!(request);
        assert_eq!(harness.send(test).await.outcome(), "200 published");
    }
    assert_eq!(harness.topic.published().len(), 2);
}

#[tokio::test]
async fn an_event_that_sns_did_not_accept_is_published_on_the_retry() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    let path = path("marketing", "WorkbookCreated", KEY);
    harness.topic.refuse(true);
    assert_eq!(harness.post(&path, "{}").await, Answer::empty(503));
    harness.topic.refuse(false);
    assert_eq!(harness.post(&path, "{}").await.outcome(), "200 published");
}

#[tokio::test]
async fn an_event_larger_than_sns_accepts_is_answered_413() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    let body = format!(r#"{{"padding":"{}"}}"#, "x".repeat(256 * 1024));
    assert_eq!(harness.post(&path("marketing", "WorkbookCreated", KEY), &body).await, Answer::empty(413));
    assert!(harness.topic.published().is_empty());
}

#[tokio::test]
async fn a_body_of_six_megabytes_is_answered_413_and_a_compressed_one_is_kept() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    let path = path("marketing", "WorkbookCreated", KEY);
    let largest = BASE64_STANDARD.encode(vec![0; 6 * 1024 * 1024 / 4 * 3]);
    assert_eq!(harness.send(event("POST", &path, json!(largest), true)).await, Answer::empty(413));

    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0xae, 5, 0, 0x43, 0xbf, 0xa6, 0xa3, 2, 0, 0, 0];
    let mut compressed = event("POST", &path, json!(BASE64_STANDARD.encode(gzip)), true);
    compressed["headers"]["content-encoding"] = json!("gzip");
    assert_eq!(harness.send(compressed).await.outcome(), "200 published");
    let envelope: Value = serde_json::from_str(&harness.only_message().body).expect("JSON");
    assert_eq!(envelope["data_base64"].as_str(), Some(&*BASE64_STANDARD.encode(gzip)));
}

#[tokio::test]
async fn a_query_string_has_no_effect() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    let mut queried = event("POST", &path("marketing", "WorkbookCreated", KEY), json!("{}"), false);
    queried["rawQueryString"] = json!("event=SiteDeleted&event=%zz&&=");
    queried["queryStringParameters"] = json!({ "event": "SiteDeleted,%zz" });
    assert_eq!(harness.send(queried).await.outcome(), "200 published");
    assert_eq!(harness.only_message().attributes["event_type"], "WorkbookCreated");
}

#[tokio::test]
async fn only_posts_are_deliveries() {
    let harness = Harness::start(Stored::Key(KEY)).await;
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let answer = harness.send(event(method, &path("marketing", "WorkbookCreated", KEY), json!(""), false)).await;
        let allow = vec![("allow".to_owned(), "POST".to_owned())];
        assert_eq!(answer, Answer { headers: allow, ..Answer::empty(405) }, "{method}");
    }
    assert!(harness.topic.published().is_empty());
}
