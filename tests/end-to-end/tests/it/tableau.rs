//! The simulator's own behaviour, where it is Tableau's.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use end_to_end::{
    declared::{Declared, site},
    destination::Destination,
};
use tableau_simulator::server::{Running, Simulator};

const SITE: &str = "marketing";

async fn registered(destination: &Destination) -> anyhow::Result<Running> {
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    Declared::sites(&tableau, &[SITE]).apply().await??;
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
