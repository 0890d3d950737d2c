//! The simulator's own behaviour, where it is Tableau's.

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};
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

/// Makes one of the simulator's own calls.
async fn control(tableau: &Running, method: Method, path: &str, body: &Value) -> anyhow::Result<(StatusCode, String)> {
    let url = format!("http://{}/_simulator/{path}", tableau.address);
    let response = http_client()?.request(method, url).json(body).send().await?;
    Ok((response.status(), response.text().await?))
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
    let call = async |method, path, body| control(&tableau, method, path, &body).await;
    let site = json!({ "site": SITE, "token_name": "fanout", "token_secret": secret_of(SITE) });
    assert_eq!(call(Method::POST, "sites", site).await?.0, StatusCode::CREATED);
    let oddities = json!({ "site": SITE, "oddities": { "enabled_as_text": true } });
    assert_eq!(call(Method::PUT, "oddities", oddities).await?.0, StatusCode::NO_CONTENT);
    let misspelt = json!({ "site": SITE, "oddities": { "enabled_as_txet": true } });
    assert!(call(Method::PUT, "oddities", misspelt).await?.0.is_client_error());

    let mut declared = Declared::default();
    let server = format!("http://{}", tableau.address);
    declared.entries.insert(SITE.to_owned(), json!({ "server": server }).to_string());
    for (member, value) in [("site", SITE), ("token_name", "fanout"), ("token_secret", &secret_of(SITE))] {
        declared.set(SITE, member, json!(value))?;
    }
    declared.apply().await??;
    destination.forget();
    let webhooks: Value = serde_json::from_str(&call(Method::GET, "webhooks", json!(null)).await?.1)?;
    assert_eq!(webhooks[0][1].as_array().map(Vec::len), Some(3), "{webhooks}");
    let event = json!({ "site": SITE, "event": "ViewDeleted", "body": "{}", "times": 2 });
    let deliveries: Value = serde_json::from_str(&call(Method::POST, "events", event).await?.1)?;
    assert_eq!(deliveries.as_array().map(Vec::len), Some(2), "{deliveries}");
    assert_eq!(destination.received().len(), 2);
    Ok(())
}

#[tokio::test]
async fn webhooks_are_made_changed_and_deleted_by_name_over_http() -> anyhow::Result<()> {
    let tableau = Simulator::start(None).await?;
    tableau.simulator.world().add_site(SITE, "fanout", &secret_of(SITE));
    let call = async |method, body| control(&tableau, method, "webhooks", &body).await;
    let seen = || {
        site(&tableau, SITE, |site| {
            let webhooks = site.webhooks.iter();
            let text = webhooks.map(|webhook| {
                let reason = webhook.status_change_reason.as_deref().unwrap_or("no reason");
                format!("{} {} {} {} {reason}", webhook.name, webhook.event, webhook.url, webhook.is_enabled)
            });
            text.collect::<Vec<_>>()
        })
    };
    let new = json!({ "site": SITE, "name": "theirs", "event": "ViewDeleted", "url": "https://a.example/" });
    for _ in 0..2 {
        assert_eq!(call(Method::POST, new.clone()).await?.0, StatusCode::CREATED);
    }
    for (change, after) in [
        (json!({}), "theirs ViewDeleted https://a.example/ true no reason"),
        (
            json!({ "is_enabled": false }),
            "theirs ViewDeleted https://a.example/ false Webhook disabled after 4 failed delivery attempts.",
        ),
        (
            json!({ "is_enabled": false, "status_change_reason": "Because." }),
            "theirs ViewDeleted https://a.example/ false Because.",
        ),
        (json!({ "event": "UserDeleted" }), "theirs UserDeleted https://a.example/ false Because."),
        (json!({ "is_enabled": true }), "theirs UserDeleted https://a.example/ true no reason"),
        (
            json!({ "url": "https://b.example/", "new_name": "ours" }),
            "ours UserDeleted https://b.example/ true no reason",
        ),
    ] {
        let mut body = change.clone();
        (body["site"], body["name"]) = (json!(SITE), json!("theirs"));
        assert_eq!(call(Method::PATCH, body).await?, (StatusCode::NO_CONTENT, String::new()), "{change}");
        assert_eq!(seen()?, [after, after], "{change}");
    }

    let before = seen()?;
    for (method, body, status, text) in [
        (Method::PATCH, json!({ "site": SITE, "name": "theirs" }), 404, "there is no webhook \"theirs\" on this site"),
        (Method::DELETE, json!({ "site": SITE, "name": "theirs" }), 404, "there is no webhook \"theirs\" on this site"),
        (Method::DELETE, json!({ "site": "sales", "name": "ours" }), 404, "there is no site \"sales\""),
        (Method::DELETE, json!({ "site": SITE, "name": "ours", "id": "1" }), 422, "unknown field `id`"),
        (Method::PATCH, json!({ "site": SITE, "name": "ours", "enabled": false }), 422, "unknown field `enabled`"),
        (
            Method::PATCH,
            json!({ "site": SITE, "name": "ours", "event": "View deleted" }),
            422,
            "event: an event name consists of letters only",
        ),
        (
            Method::PATCH,
            json!({ "site": SITE, "name": "ours", "status_change_reason": "Because." }),
            400,
            "a status_change_reason goes with \"is_enabled\": false",
        ),
        (Method::POST, json!({ "site": SITE, "name": "ours", "event": "ViewDeleted" }), 422, "missing field `url`"),
    ] {
        let (answered, said) = call(method, body.clone()).await?;
        assert!(answered == status && said.contains(text), "{body}: {answered} {said}");
    }
    assert_eq!(seen()?, before);

    let old = json!({ "site": SITE, "name": "ours" });
    assert_eq!(call(Method::DELETE, old).await?.0, StatusCode::NO_CONTENT);
    assert_eq!(seen()?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_revoked_token_loses_its_session_and_signs_in_no_more_until_there_is_another() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let mut declared = Declared::sites(&tableau, &[SITE]);
    let call = async |method, body| control(&tableau, method, "tokens", &body).await;
    let sign_in = json!({ "credentials": { "personalAccessTokenName": "fanout",
        "personalAccessTokenSecret": secret_of(SITE), "site": { "contentUrl": SITE } } });
    let api = |path: &str| format!("http://{}/api/3.27/{path}", tableau.address);
    let post = http_client()?.post(api("auth/signin")).header("accept", "application/json").json(&sign_in);
    let session: Value = post.send().await?.json().await?;
    let text = |pointer: &str| session.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let list = api(&format!("sites/{}/webhooks", text("/credentials/site/id")));
    let list = async || {
        let get = http_client()?.get(&list).header("x-tableau-auth", text("/credentials/token"));
        anyhow::Ok(get.send().await?.status())
    };
    assert_eq!(list().await?, StatusCode::OK);

    let old = json!({ "site": SITE, "token_name": "fanout" });
    assert_eq!(call(Method::DELETE, old.clone()).await?.0, StatusCode::NO_CONTENT);
    assert_eq!(list().await?, StatusCode::UNAUTHORIZED);
    let report = declared.apply_to_first().await?;
    assert!(report.errors.iter().any(|error| error.to_string().contains("refused the token")), "{:?}", report.errors);
    let gone = (StatusCode::NOT_FOUND, "there is no token \"fanout\" on this site".to_owned());
    assert_eq!(call(Method::DELETE, old).await?, gone);

    let mut new = json!({ "site": "sales", "token_name": "second", "token_secret": "new" });
    assert_eq!(call(Method::POST, new.clone()).await?.0, StatusCode::NOT_FOUND);
    new["site"] = json!(SITE);
    assert_eq!(call(Method::POST, new).await?.0, StatusCode::CREATED);
    for (member, value) in [("token_name", "second"), ("token_secret", "new")] {
        declared.set(SITE, member, json!(value))?;
    }
    let report = declared.apply_to_first().await?;
    assert!(!report.failed(), "{:?}", report.errors);
    Ok(())
}
