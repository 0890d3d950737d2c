//! The simulator's behaviour: Tableau's, and that of its own calls.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context;
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
    // Drops the test of a new webhook.
    destination.forget();
    Ok(tableau)
}

/// Makes one of the simulator's own calls.
pub(crate) async fn control(
    tableau: &Running,
    method: Method,
    path: &str,
    body: &Value,
) -> anyhow::Result<(StatusCode, String)> {
    let url = format!("http://{}/_simulator/{path}", tableau.address);
    let response = http_client()?.request(method, url).json(body).send().await?;
    Ok((response.status(), response.text().await?))
}

/// Opens a session. Returns the site's identifier and the session's token.
pub(crate) async fn sign_in(tableau: &Running) -> anyhow::Result<(String, String)> {
    let credentials = json!({ "credentials": { "personalAccessTokenName": "fanout",
        "personalAccessTokenSecret": secret_of(SITE), "site": { "contentUrl": SITE } } });
    let post = http_client()?.post(format!("http://{}/api/3.27/auth/signin", tableau.address));
    let session: Value = post.header("accept", "application/json").json(&credentials).send().await?.json().await?;
    let text = |pointer| session.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((text("/credentials/site/id"), text("/credentials/token")))
}

#[tokio::test]
async fn an_event_is_delivered_once_with_the_observed_headers() -> anyhow::Result<()> {
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
async fn a_webhook_is_disabled_after_four_failures() -> anyhow::Result<()> {
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
async fn sites_oddities_and_events_are_controlled_over_http() -> anyhow::Result<()> {
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

/// Describes a site's webhooks.
fn webhooks(tableau: &Running) -> anyhow::Result<Vec<String>> {
    site(tableau, SITE, |site| {
        let webhooks = site.webhooks.iter();
        let texts = webhooks.map(|webhook| {
            let reason = webhook.status_change_reason.as_deref().unwrap_or("no reason");
            format!("{} {} {} {} {reason}", webhook.name, webhook.event, webhook.url, webhook.is_enabled)
        });
        texts.collect()
    })
}

#[tokio::test]
async fn webhooks_are_created_changed_and_deleted_by_name_over_http() -> anyhow::Result<()> {
    let tableau = Simulator::start(None).await?;
    tableau.simulator.world().add_site(SITE, "fanout", &secret_of(SITE));
    let call = async |method, body| control(&tableau, method, "webhooks", &body).await;
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
        assert_eq!(webhooks(&tableau)?, [after, after], "{change}");
    }
    let old = json!({ "site": SITE, "name": "ours" });
    assert_eq!(call(Method::DELETE, old).await?.0, StatusCode::NO_CONTENT);
    assert_eq!(webhooks(&tableau)?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_wrong_change_of_a_webhook_is_refused_with_a_reason() -> anyhow::Result<()> {
    let tableau = Simulator::start(None).await?;
    tableau.simulator.world().add_site(SITE, "fanout", &secret_of(SITE));
    let call = async |method, body| control(&tableau, method, "webhooks", &body).await;
    let new = json!({ "site": SITE, "name": "ours", "event": "ViewDeleted", "url": "https://a.example/" });
    assert_eq!(call(Method::POST, new).await?.0, StatusCode::CREATED);
    let before = webhooks(&tableau)?;
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
        let (answered, answer) = call(method, body.clone()).await?;
        assert!(answered == status && answer.contains(text), "{body}: {answered} {answer}");
    }
    assert_eq!(webhooks(&tableau)?, before);
    Ok(())
}

#[tokio::test]
async fn a_revoked_token_loses_its_session_and_cannot_sign_in() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let mut declared = Declared::sites(&tableau, &[SITE]);
    let call = async |method, body| control(&tableau, method, "tokens", &body).await;
    let (site_id, token) = sign_in(&tableau).await?;
    let list = format!("http://{}/api/3.27/sites/{site_id}/webhooks", tableau.address);
    let list = async || {
        let get = http_client()?.get(&list).header("x-tableau-auth", &token);
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

/// A site with a session for reading its jobs.
struct Jobs {
    tableau: Running,
    address: String,
    token: String,
}

impl Jobs {
    async fn start(destination: &Destination) -> anyhow::Result<Self> {
        let tableau = registered(destination).await?;
        let (site_id, token) = sign_in(&tableau).await?;
        let address = format!("http://{}/api/3.27/sites/{site_id}/jobs", tableau.address);
        Ok(Self { tableau, address, token })
    }

    async fn get(&self, rest: &str) -> anyhow::Result<(StatusCode, Value)> {
        let get = http_client()?.get(format!("{}{rest}", self.address)).header("accept", "application/json");
        let response = get.header("x-tableau-auth", &self.token).send().await?;
        Ok((response.status(), response.json().await?))
    }

    /// Lists jobs. Returns their names and the total.
    async fn listed(&self, query: &str) -> anyhow::Result<(Vec<String>, String)> {
        let (status, list) = self.get(query).await?;
        anyhow::ensure!(status == StatusCode::OK, "{query}: {status} {list}");
        let jobs = list["backgroundJobs"]["backgroundJob"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok((jobs.iter().map(|job| text(&job["title"])).collect(), text(&list["pagination"]["totalAvailable"])))
    }

    async fn refresh(&self, refresh: Value) -> anyhow::Result<Value> {
        let mut body = json!({ "site": SITE, "kind": "workbook" });
        let members = refresh.as_object().into_iter().flatten();
        members.for_each(|(name, value)| body[name] = value.clone());
        let (status, answer) = control(&self.tableau, Method::POST, "refreshes", &body).await?;
        anyhow::ensure!(status == StatusCode::OK, "{status} {answer}");
        Ok(serde_json::from_str(&answer)?)
    }
    /// Runs a refresh that fails. Returns the job's identifier.
    async fn refresh_once(&self) -> anyhow::Result<String> {
        let refresh = json!({ "name": "A", "outcome": "failed", "ended_at": "2026-05-21T08:00:00Z", "notes": "Why." });
        Ok(self.refresh(refresh).await?["job"].as_str().context("no job")?.to_owned())
    }

    /// Sets oddities. Returns the list of jobs and one of them.
    async fn odd(&self, id: &str, oddities: Value) -> anyhow::Result<((StatusCode, Value), (StatusCode, Value))> {
        let body = json!({ "site": SITE, "oddities": oddities });
        let (status, answer) = control(&self.tableau, Method::PUT, "oddities", &body).await?;
        anyhow::ensure!(status == StatusCode::NO_CONTENT, "{answer}");
        Ok((self.get("").await?, self.get(&format!("/{id}")).await?))
    }
}

#[tokio::test]
async fn a_refresh_fires_its_events_and_leaves_a_job_with_its_reason() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let jobs = Jobs::start(&destination).await?;
    assert_eq!(jobs.get("").await?.1["backgroundJobs"], json!({}));
    let ended = json!({ "name": "Superstore", "luid": "99", "outcome": "failed", "notes": "Login failed for user.",
        "took_seconds": 90, "ended_at": "2026-05-21T08:01:30Z" });
    let first = jobs.refresh(ended).await?;
    let id = first["job"].as_str().unwrap_or_default();
    assert_eq!(
        jobs.get("").await?.1,
        json!({
            "pagination": { "pageNumber": "1", "pageSize": "100", "totalAvailable": "1" },
            "backgroundJobs": { "backgroundJob": [{
                "id": id, "status": "Failed", "jobType": "refresh_extracts", "priority": "50", "title": "Superstore",
                "createdAt": "2026-05-21T08:00:00Z", "startedAt": "2026-05-21T08:00:00Z",
                "endedAt": "2026-05-21T08:01:30Z",
            }] },
        })
    );
    assert_eq!(
        jobs.get(&format!("/{id}")).await?.1,
        json!({ "job": {
            "id": id, "mode": "Asynchronous", "type": "RefreshExtract", "progress": "100", "finishCode": "1",
            "createdAt": "2026-05-21T08:00:00Z", "startedAt": "2026-05-21T08:00:00Z",
            "completedAt": "2026-05-21T08:01:30Z",
            "extractRefreshJob": { "workbook": { "id": "99", "name": "Superstore" }, "notes": "Login failed for user." },
        } })
    );
    let second = jobs.refresh(json!({ "name": "Superstore", "outcome": "cancelled" })).await?;
    assert_eq!(second["luid"], "99");
    let bodies: Vec<Value> =
        destination.received().iter().filter_map(|(_, body)| serde_json::from_str(body).ok()).collect();
    // The site is registered for failed refreshes only.
    assert_eq!(
        bodies,
        [json!({ "resource": "EXTRACTS", "event_type": "WorkbookRefreshFailed", "resource_name": "Superstore",
            "site_luid": bodies[0]["site_luid"], "resource_luid": "99", "created_at": "2026-05-21T08:01:30Z" })]
    );
    let calls = site(&jobs.tableau, SITE, |site| site.calls.iter().filter(|call| call.contains("jobs")).count())?;
    assert_eq!(calls, 3);
    Ok(())
}

#[tokio::test]
async fn jobs_are_filtered_and_paged_and_an_unknown_query_is_refused() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let jobs = Jobs::start(&destination).await?;
    for (name, outcome, minute) in [("A", "failed", 10), ("B", "succeeded", 20), ("C", "failed", 30)] {
        let ended_at = format!("2026-05-21T08:{minute}:00Z");
        let (is_incremental, is_via_bridge) = (name == "C", name == "B");
        jobs.refresh(json!({ "name": name, "outcome": outcome, "ended_at": ended_at,
            "is_incremental": is_incremental, "is_via_bridge": is_via_bridge }))
            .await?;
    }
    let from = |time| format!("?filter=status:eq:Failed,completedAt:gte:2026-05-21T08:{time}:00Z");
    for (query, names, total) in [
        (String::new(), "C B A", "3"),
        (from(10), "C A", "2"),
        (from(11), "C", "1"),
        (from(31), "", "0"),
        ("?filter=completedAt%3Alt%3A2026-05-21T08%3A20%3A00Z".to_owned(), "A", "1"),
        ("?filter=jobType:eq:increment_extracts".to_owned(), "C", "1"),
        ("?filter=jobType:in:[refresh_extracts,increment_extracts]&pageSize=1".to_owned(), "C", "2"),
        ("?filter=jobType:in:[refresh_extracts_via_bridge,increment_extracts_via_bridge]".to_owned(), "B", "1"),
        ("?pageSize=2&pageNumber=2".to_owned(), "A", "3"),
    ] {
        let expected = (names.split_whitespace().map(str::to_owned).collect(), total.to_owned());
        assert_eq!(jobs.listed(&query).await?, expected, "{query}");
    }
    for (query, code) in [
        ("?filter=state:eq:Failed", "400000"),
        ("?filter=jobType:in:[refresh_extracts,refresh_flows]", "400000"),
        ("?filter=", "400000"),
        ("?sorting=none", "400000"),
        ("?pageSize=1001", "400007"),
        ("?pageNumber=0", "400006"),
        ("?pageSize=2&pageNumber=3", "400006"),
        ("/none", "404031"),
    ] {
        let (status, answer) = jobs.get(query).await?;
        assert!(status.is_client_error() && answer["error"]["code"] == code, "{query}: {status} {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn a_list_of_jobs_has_every_odd_shape() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let jobs = Jobs::start(&destination).await?;
    let id = jobs.refresh_once().await?;
    let ((_, list), _) = jobs.odd(&id, json!({ "lone_object": true })).await?;
    assert!(list["backgroundJobs"]["backgroundJob"].is_object(), "{list}");
    let ((_, list), _) = jobs.odd(&id, json!({ "last_page_missing": true })).await?;
    assert_eq!((&list["backgroundJobs"], &list["pagination"]["totalAvailable"]), (&json!({}), &json!("1")));
    let ((_, list), (_, job)) = jobs
        .odd(
            &id,
            json!({ "jobs": { "without_resource": true, "without_end": true,
        "finish_code": "3", "job_type": "Brew", "clock_offset_seconds": -3600 } }),
        )
        .await?;
    let listed = &list["backgroundJobs"]["backgroundJob"][0];
    assert_eq!((&listed["jobType"], listed.get("endedAt")), (&json!("Brew"), None));
    let job = &job["job"];
    assert_eq!((&job["type"], &job["finishCode"], job.get("completedAt")), (&json!("Brew"), &json!("3"), None));
    assert_eq!(
        (&job["extractRefreshJob"]["workbook"], &job["startedAt"]),
        (&json!(null), &json!("2026-05-21T06:59:00Z"))
    );
    for (row, written) in [("null", json!(null)), ("number", json!(7)), ("text", json!(id))] {
        let ((_, list), _) = jobs.odd(&id, json!({ "jobs": { "row": row } })).await?;
        assert_eq!(list["backgroundJobs"]["backgroundJob"], json!([written]));
        let ((_, list), _) = jobs.odd(&id, json!({ "jobs": { "row": row, "only": "B" } })).await?;
        assert_eq!(list["backgroundJobs"]["backgroundJob"][0]["status"], "Failed");
    }
    let ((_, list), _) = jobs.odd(&id, json!({ "jobs": { "row": "without_id", "not_listed": 2 } })).await?;
    let listed = &list["backgroundJobs"]["backgroundJob"][0];
    assert_eq!((listed.get("id"), &listed["status"]), (None, &json!("Failed")));
    assert_eq!(list["pagination"]["totalAvailable"], "3");
    jobs.odd(&id, json!({ "jobs": { "pages_go_on": true } })).await?;
    assert_eq!(jobs.get("?pageNumber=2").await?.1["backgroundJobs"], json!({}));
    Ok(())
}

#[tokio::test]
async fn a_job_has_every_odd_shape() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let jobs = Jobs::start(&destination).await?;
    let id = jobs.refresh_once().await?;
    for (detail, status, code) in [
        ("not_queryable", 400, "400031"),
        ("forbidden", 403, "403004"),
        ("not_found", 404, "404031"),
        ("server_error", 500, "500000"),
    ] {
        let (_, (answered, job)) = jobs.odd(&id, json!({ "jobs": { "detail": detail } })).await?;
        assert_eq!((answered.as_u16(), &job["error"]["code"]), (status, &json!(code)));
    }
    let (_, answer) = jobs.odd(&id, json!({ "jobs": { "detail": "null" } })).await?;
    assert_eq!(answer, (StatusCode::OK, json!({ "job": null })));
    for (notes, member, written) in [
        ("beside", "notes", json!("Why.")),
        (
            "lone_status_note",
            "statusNotes",
            json!({ "statusNote": { "type": "message", "value": "", "text": "Why." } }),
        ),
        ("status_value", "statusNotes", json!({ "statusNote": [{ "type": "message", "value": "Why." }] })),
    ] {
        let (_, (_, job)) = jobs.odd(&id, json!({ "jobs": { "notes": notes } })).await?;
        assert_eq!((&job["job"][member], job["job"]["extractRefreshJob"].get("notes")), (&written, None));
    }
    let ((first, _), (second, _)) = jobs.odd(&id, json!({ "jobs": { "too_many_requests": 1 } })).await?;
    assert_eq!((first, second), (StatusCode::TOO_MANY_REQUESTS, StatusCode::OK));
    Ok(())
}

/// Time limit for two rounds of a schedule, on the test's clock. They take a second each.
const SCHEDULE_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_refresh_runs_on_a_schedule_until_that_ends() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let jobs = Jobs::start(&destination).await?;
    let refresh = json!({ "site": SITE, "kind": "workbook", "name": "A", "outcome": "succeeded" });
    let call = async |method, body| control(&jobs.tableau, method, "schedules", &body).await;
    let never = json!({ "every_seconds": 0, "refresh": refresh });
    assert_eq!(call(Method::POST, never).await?.0, StatusCode::BAD_REQUEST);
    let often = json!({ "every_seconds": 1, "refresh": refresh });
    assert_eq!(call(Method::POST, often).await?.0, StatusCode::CREATED);
    let ran = async || anyhow::Ok(jobs.listed("").await?.0.len());
    // The simulator's schedule uses this runtime's clock.
    let pass = async |seconds| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    };
    let seen = tokio::time::timeout(SCHEDULE_TIMEOUT, async {
        while ran().await? < 2 {
            pass(1).await;
        }
        anyhow::Ok(())
    });
    seen.await.context("the schedule does not run")??;
    let old = json!({ "site": SITE, "name": "A" });
    assert_eq!(call(Method::DELETE, old.clone()).await?.0, StatusCode::NO_CONTENT);
    let before = ran().await?;
    pass(60).await;
    assert_eq!(ran().await?, before);
    assert_eq!(call(Method::DELETE, old).await?.0, StatusCode::NOT_FOUND);
    Ok(())
}
