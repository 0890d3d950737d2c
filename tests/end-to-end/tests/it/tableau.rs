//! The simulator's own behaviour, where it is Tableau's.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use end_to_end::{
    declared::{Declared, secret_of, site},
    destination::Destination,
};
use infra::service::http_client;
use serde_json::{Value, json};
use tableau_simulator::server::{Running, Simulator};

const SITE: &str = "marketing";

async fn registered(destination: &Destination) -> anyhow::Result<Running> {
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    Declared::sites(&tableau, &[SITE]).apply().await??;
    // The test of a new webhook.
    destination.forget();
    Ok(tableau)
}

#[tokio::test]
async fn an_event_is_delivered_once_with_the_headers_seen_on_the_wire() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = registered(&destination).await?;
    let body = r#"{"event_type":"WorkbookCreated"}"#;
    let deliveries = tableau.simulator.fire(SITE, &"WorkbookCreated".parse()?, body, 1).await;
    assert_eq!(deliveries.iter().map(|delivery| delivery.attempts.len()).collect::<Vec<_>>(), [1]);
    let received = destination.received();
    assert_eq!(received.len(), 1);
    let (headers, sent) = &received[0];
    assert_eq!(sent, body);
    for (name, value) in [
        ("host", "receiver.example"),
        ("user-agent", "TableauWebhooks/1.0"),
        ("content-type", "application/json"),
        ("charset", "utf-8"),
    ] {
        assert_eq!(headers.get(name).and_then(|value| value.to_str().ok()), Some(value), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_webhook_that_fails_four_times_is_disabled_and_gets_nothing_more() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::BAD_GATEWAY).await?;
    let tableau = registered(&destination).await?;
    for attempts in [4, 0] {
        let deliveries = tableau.simulator.fire(SITE, &"WorkbookCreated".parse()?, "{}", 1).await;
        assert_eq!(deliveries.iter().map(|delivery| delivery.attempts.len()).sum::<usize>(), attempts);
    }
    let bodies: BTreeSet<_> = destination.received().into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, BTreeSet::from(["{}".to_owned()]));
    let disabled = site(&tableau, SITE, |site| {
        let disabled = site.webhooks.iter().filter(|webhook| !webhook.is_enabled);
        disabled.map(|webhook| (webhook.name.clone(), webhook.status_change_reason.is_some())).collect::<Vec<_>>()
    })?;
    assert_eq!(disabled, [("fan-WorkbookCreated".to_owned(), true)]);
    Ok(())
}

#[tokio::test]
async fn sites_oddities_and_events_are_made_over_http() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let http = http_client()?;
    let control = |path: &str| format!("http://{}/_simulator/{path}", tableau.address);
    let site = json!({ "site": SITE, "token_name": "fanout", "token_secret": secret_of(SITE) });
    assert_eq!(http.post(control("sites")).json(&site).send().await?.status(), StatusCode::CREATED);
    let oddities = json!({ "site": SITE, "oddities": { "enabled_as_text": true } });
    assert_eq!(http.put(control("oddities")).json(&oddities).send().await?.status(), StatusCode::NO_CONTENT);
    let misspelt = json!({ "site": SITE, "oddities": { "enabled_as_txet": true } });
    assert!(http.put(control("oddities")).json(&misspelt).send().await?.status().is_client_error());

    let mut declared = Declared::default();
    let server = format!("http://{}", tableau.address);
    declared.entries.insert(SITE.to_owned(), json!({ "server": server }).to_string());
    for (member, value) in [("site", SITE), ("token_name", "fanout"), ("token_secret", &secret_of(SITE))] {
        declared.set(SITE, member, json!(value))?;
    }
    declared.apply().await??;
    destination.forget();
    let webhooks: Value = http.get(control("webhooks")).send().await?.json().await?;
    assert_eq!(webhooks[0][1].as_array().map(Vec::len), Some(3), "{webhooks}");
    let event = json!({ "site": SITE, "event": "ViewDeleted", "body": "{}", "times": 2 });
    let deliveries: Value = http.post(control("events")).json(&event).send().await?.json().await?;
    assert_eq!(deliveries.as_array().map(Vec::len), Some(2), "{deliveries}");
    assert_eq!(destination.received().len(), 2);
    Ok(())
}
