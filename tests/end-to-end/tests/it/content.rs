//! Workbooks, data sources, their owners and refresh tasks: on the simulated Tableau, and read by the client.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, ensure};
use axum::http::{Method, StatusCode};
use end_to_end::declared::{secret_of, site};
use infra::service::http_client;
use serde_json::{Value, json};
use shared::{
    redaction::known_secrets::KnownSecrets,
    refreshes::{
        context::{RefreshTask, ResourceContext, ResourceKey, UserContext},
        job::RefreshedKind,
    },
    sites::entry::SiteEntry,
};
use tableau::{ErrorKind, Tableau, TableauError};
use tableau_simulator::{
    echo::{Echo, EchoPlace, EchoedSecret, Spelling},
    server::{Running, Simulator},
};

use crate::tableau::{control, sign_in};

const SITE: &str = "marketing";

/// A simulated site with a session.
struct Site {
    tableau: Running,
    address: String,
    token: String,
}

impl Site {
    async fn start() -> anyhow::Result<Self> {
        let tableau = Simulator::start(None).await?;
        tableau.simulator.world().add_site(SITE, "fanout", &secret_of(SITE));
        let (site_id, token) = sign_in(&tableau).await?;
        let address = format!("http://{}/api/3.27/sites/{site_id}", tableau.address);
        Ok(Self { tableau, address, token })
    }

    async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, String)> {
        let get = http_client()?.get(format!("{}/{path}", self.address)).header("accept", "application/json");
        let response = get.header("x-tableau-auth", &self.token).send().await?;
        Ok((response.status(), response.text().await?))
    }

    async fn json(&self, path: &str) -> anyhow::Result<Value> {
        let (status, answer) = self.get(path).await?;
        ensure!(status == StatusCode::OK, "{path}: {status} {answer}");
        Ok(serde_json::from_str(&answer)?)
    }

    async fn control(&self, method: Method, path: &str, mut body: Value) -> anyhow::Result<(StatusCode, String)> {
        body["site"] = json!(SITE);
        control(&self.tableau, method, path, &body).await
    }

    /// Runs a refresh of the workbook `Sales`. Returns the job's identifier and the workbook's.
    async fn refresh(&self, outcome: &str) -> anyhow::Result<(String, String)> {
        let refresh = json!({ "kind": "workbook", "name": "Sales", "outcome": outcome });
        let (status, answer) = self.control(Method::POST, "refreshes", refresh).await?;
        ensure!(status == StatusCode::OK, "{status} {answer}");
        let refreshed: Value = serde_json::from_str(&answer)?;
        let text = |member: &str| refreshed[member].as_str().map(str::to_owned).context("no text");
        Ok((text("job")?, text("luid")?))
    }

    /// Returns the consecutive failures of the only task.
    async fn failures(&self) -> anyhow::Result<Value> {
        let tasks = self.json("tasks/extractRefreshes").await?;
        Ok(tasks["tasks"]["task"][0]["extractRefresh"]["consecutiveFailedCount"].clone())
    }

    async fn set_oddities(&self, content: Value) -> anyhow::Result<()> {
        self.set_all_oddities(json!({ "content": content })).await
    }

    async fn set_all_oddities(&self, oddities: Value) -> anyhow::Result<()> {
        let (status, answer) = self.control(Method::PUT, "oddities", json!({ "oddities": oddities })).await?;
        ensure!(status == StatusCode::NO_CONTENT, "{answer}");
        Ok(())
    }
}

/// Describes the workbook `Sales`.
async fn describe(site: &Site) -> anyhow::Result<()> {
    let content = json!({ "kind": "workbook", "name": "Sales", "project": "Finance", "tags": ["daily", "<b>"],
        "owner": { "name": "grace", "full_name": "Grace Hopper", "email": "grace@example.com" } });
    let (status, answer) = site.control(Method::PUT, "content", content).await?;
    ensure!(status == StatusCode::NO_CONTENT, "{answer}");
    Ok(())
}

/// Opens a page as a browser does, which keeps the part from `#` to itself and runs the script at `/`.
async fn browse(tableau: &Running, link: &str) -> anyhow::Result<(StatusCode, String)> {
    let (server, path) = link.split_once("/#").context("no path")?;
    assert_eq!(server, format!("http://{}", tableau.address));
    let root = http_client()?.get(server).send().await?.text().await?;
    assert!(root.contains("location.replace(location.hash.slice(1))"), "{root}");
    let page = http_client()?.get(format!("{server}{path}")).send().await?;
    Ok((page.status(), page.text().await?))
}

#[tokio::test]
async fn content_has_a_project_an_owner_tags_and_a_page() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let (_, luid) = site.refresh("failed").await?;
    let workbook = site.json(&format!("workbooks/{luid}")).await?;
    assert_eq!(
        (&workbook["workbook"]["project"]["name"], &workbook["workbook"]["tags"]),
        (&json!("Default"), &json!({}))
    );
    describe(&site).await?;
    let workbook = site.json(&format!("workbooks/{luid}")).await?["workbook"].take();
    assert_eq!(
        (&workbook["id"], &workbook["name"], &workbook["contentUrl"]),
        (&json!(luid), &json!("Sales"), &json!("Sales"))
    );
    assert_eq!(workbook["project"]["name"], "Finance");
    assert_eq!(workbook["tags"], json!({ "tag": [{ "label": "daily" }, { "label": "<b>" }] }));
    let user = format!("users/{}", workbook["owner"]["id"].as_str().context("no owner")?);
    let names = async || {
        let user = site.json(&user).await?["user"].take();
        anyhow::Ok((user["name"].clone(), user["fullName"].clone(), user["email"].clone()))
    };
    assert_eq!(names().await?, (json!("grace@example.com"), json!("Grace Hopper"), json!("grace@example.com")));
    site.set_oddities(json!({ "on_server": true })).await?;
    assert_eq!(names().await?, (json!("grace"), json!("Grace Hopper"), json!("grace@example.com")));

    let link = workbook["webpageUrl"].as_str().context("no link")?;
    let (status, page) = browse(&site.tableau, link).await?;
    assert_eq!(status, StatusCode::OK);
    for text in ["<h1>Sales</h1>", "Finance", "Grace Hopper", "&lt;b&gt;"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let tasks = page.split_once("href=\"").and_then(|(_, rest)| rest.split_once('"')).context("no link")?.0;
    let (status, page) = browse(&site.tableau, &format!("http://{}{tasks}", site.tableau.address)).await?;
    assert!(status == StatusCode::OK && page.contains("<td>Sales</td><td>1</td>"), "{page}");

    assert_eq!(site.control(Method::DELETE, "content", named("Sales")).await?.0, StatusCode::NO_CONTENT);
    assert_eq!(site.get(&format!("workbooks/{luid}")).await?.0, StatusCode::NOT_FOUND);
    assert_eq!(browse(&site.tableau, link).await?.0, StatusCode::NOT_FOUND);
    assert_eq!(site.json("tasks/extractRefreshes").await?, json!({ "tasks": {} }));
    assert_eq!(site.control(Method::DELETE, "content", named("Sales")).await?.0, StatusCode::NOT_FOUND);
    Ok(())
}

fn named(name: &str) -> Value {
    json!({ "kind": "workbook", "name": name })
}

#[tokio::test]
async fn failures_in_a_row_are_counted_until_a_success_or_the_end_of_a_suspension() -> anyhow::Result<()> {
    let site = Site::start().await?;
    for (outcome, count) in [("failed", 1), ("failed", 2), ("cancelled", 2), ("succeeded", 0), ("failed", 1)] {
        site.refresh(outcome).await?;
        assert_eq!(site.failures().await?, count, "{outcome}");
    }
    let resume = async || anyhow::Ok(site.control(Method::DELETE, "suspensions", named("Sales")).await?.0);
    assert_eq!(resume().await?, StatusCode::NOT_FOUND);
    for _ in 0..4 {
        site.refresh("failed").await?;
    }
    assert_eq!(site.failures().await?, 5);
    let link = format!("http://{}/#/site/{SITE}/tasks/extractRefreshes", site.tableau.address);
    assert!(browse(&site.tableau, &link).await?.1.contains("<td>5</td><td>suspended</td>"));
    assert_eq!(resume().await?, StatusCode::NO_CONTENT);
    assert_eq!(site.failures().await?, 0);
    site.refresh("failed").await?;
    assert_eq!(site.failures().await?, 1);
    Ok(())
}

/// Time limit for the rounds of a schedule, on the test's clock. They take a second each.
const SCHEDULE_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_suspended_refresh_does_not_run_until_it_is_resumed() -> anyhow::Result<()> {
    let simulated = Site::start().await?;
    let refresh = json!({ "site": SITE, "kind": "workbook", "name": "Sales", "outcome": "failed" });
    let schedule = json!({ "every_seconds": 1, "refresh": refresh });
    assert_eq!(control(&simulated.tableau, Method::POST, "schedules", &schedule).await?.0, StatusCode::CREATED);
    let jobs = || site(&simulated.tableau, SITE, |site| site.jobs.len());
    // The simulator's schedule uses this runtime's clock.
    let pass = async |seconds| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
        simulated.failures().await
    };
    for suspended_at in [5, 10] {
        let seen = tokio::time::timeout(SCHEDULE_TIMEOUT, async {
            while jobs()? < suspended_at {
                pass(1).await?;
            }
            anyhow::Ok(())
        });
        seen.await.context("the schedule does not run")??;
        for _ in 0..10 {
            pass(1).await?;
        }
        assert_eq!(jobs()?, suspended_at);
        assert_eq!(simulated.control(Method::DELETE, "suspensions", named("Sales")).await?.0, StatusCode::NO_CONTENT);
    }
    Ok(())
}

#[tokio::test]
async fn a_job_is_listed_late_and_its_event_is_fired_at_once() -> anyhow::Result<()> {
    let simulated = Site::start().await?;
    let webhook = json!({ "name": "theirs", "event": "WorkbookRefreshFailed", "url": "https://a.example/" });
    assert_eq!(simulated.control(Method::POST, "webhooks", webhook).await?.0, StatusCode::CREATED);
    let refresh = json!({ "kind": "workbook", "name": "Sales", "outcome": "failed", "listed_after_seconds": 60 });
    let (_, refreshed) = simulated.control(Method::POST, "refreshes", refresh).await?;
    let refreshed: Value = serde_json::from_str(&refreshed)?;
    assert_eq!(refreshed["deliveries"][0]["webhook"], "theirs");
    assert_eq!(simulated.json("jobs").await?["pagination"]["totalAvailable"], "0");
    site(&simulated.tableau, SITE, |site| site.jobs[0].ended_at -= time::Duration::MINUTE)?;
    assert_eq!(simulated.json("jobs").await?["backgroundJobs"]["backgroundJob"][0]["id"], refreshed["job"]);
    Ok(())
}

#[tokio::test]
async fn a_list_of_tasks_has_every_odd_shape() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let list = async |oddities| {
        site.set_all_oddities(oddities).await?;
        anyhow::Ok(site.json("tasks/extractRefreshes").await?["tasks"].take())
    };
    assert_eq!(list(json!({})).await?, json!({}));
    assert_eq!(list(json!({ "empty_list": "list" })).await?, json!([]));
    let (_, luid) = site.refresh("failed").await?;
    let task = list(json!({})).await?["task"][0].take();
    let members = |task: &Value| {
        let schedule = task["extractRefresh"]["schedule"].as_object().map(|it| it.keys().cloned().collect::<Vec<_>>());
        schedule.unwrap_or_default().join(" ")
    };
    assert_eq!(task["extractRefresh"]["workbook"], json!({ "id": luid }));
    assert_eq!(members(&task), "frequency frequencyDetails nextRunAt");
    assert_eq!(list(json!({ "lone_object": true })).await?["task"], task);
    assert_eq!(list(json!({ "content": { "bare_list": true } })).await?, json!([task]));
    let on_server = list(json!({ "content": { "on_server": true, "schedule_suspended": true } })).await?;
    assert_eq!(members(&on_server["task"][0]), "frequency id name nextRunAt priority state type");
    assert_eq!(on_server["task"][0]["extractRefresh"]["schedule"]["state"], "Suspended");
    let changed = json!({ "content": { "counts_as_text": true, "missing": ["nextRunAt"], "odd_tasks": [null, 7] } });
    let changed = list(changed).await?;
    assert_eq!((&changed["task"][0], &changed["task"][1]), (&json!(null), &json!(7)));
    assert_eq!(changed["task"][2]["extractRefresh"]["consecutiveFailedCount"], "1");
    assert_eq!(members(&changed["task"][2]), "frequency frequencyDetails");
    let many = list(json!({ "content": { "other_tasks": 20_000 } })).await?;
    assert_eq!(many["task"].as_array().map(Vec::len), Some(20_001));
    Ok(())
}

#[tokio::test]
async fn content_users_and_tasks_have_every_odd_answer() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let (_, luid) = site.refresh("failed").await?;
    let workbook = format!("workbooks/{luid}");
    let owner = site.json(&workbook).await?["workbook"]["owner"]["id"].take();
    let user = format!("users/{}", owner.as_str().context("no owner")?);
    for (member, path) in [("resource", workbook.as_str()), ("user", &user), ("tasks", "tasks/extractRefreshes")] {
        for (answer, status, text) in [
            ("forbidden", 403, "403004"),
            ("not_found", 404, "\"404"),
            ("server_error", 500, "500000"),
            ("page", 200, "<html>"),
            ("not_found_page", 404, "<html>"),
            ("xml", 200, "<tsResponse"),
            ("null", 200, ":null}"),
        ] {
            site.set_oddities(json!({ member: answer })).await?;
            let (answered, body) = site.get(path).await?;
            assert!(answered == status && body.contains(text), "{member} {answer}: {answered} {body}");
        }
    }
    site.set_oddities(json!({ "resource": "forbidden", "only": "Other", "webpage_url": "https://evil.example/" }))
        .await?;
    assert_eq!(site.json(&workbook).await?["workbook"]["webpageUrl"], "https://evil.example/");
    site.set_oddities(json!({ "answered_before": 1, "too_many_requests": 1 })).await?;
    for status in [200, 429, 200] {
        assert_eq!(site.get(&user).await?.0, status);
    }
    for path in ["workbooks/none", "datasources/none", "users/none", "workbooks/", "tasks/runFlow"] {
        assert_eq!(site.get(path).await?.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(site.get("tasks/extractRefreshes?pageSize=100").await?.0, StatusCode::BAD_REQUEST);
    Ok(())
}

/// A failed refresh as the client reads it.
#[derive(Debug)]
struct Read {
    resource: Result<ResourceContext, TableauError>,
    owner: Option<Result<UserContext, TableauError>>,
    tasks: Result<BTreeMap<ResourceKey, RefreshTask>, TableauError>,
}

impl Site {
    /// Reads the context of a workbook with the client, in one session.
    async fn read(&self, key: &ResourceKey) -> anyhow::Result<Read> {
        let server = format!("http://{}", self.tableau.address);
        let entry = json!({ "server": server, "site": SITE, "token_name": "fanout", "token_secret": secret_of(SITE) });
        let entry = SiteEntry::parse(&format!("/sites/{SITE}"), &entry.to_string())?;
        let client = Tableau::new()?;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let mut session = client.sign_in(&entry, KnownSecrets::default(), deadline).await?;
        let (kind, luid) = key;
        let resource = session.resource(*kind, luid).await;
        let owner = match resource.as_ref().ok().and_then(|resource| resource.owner_id.as_deref()) {
            Some(id) => Some(session.user(id).await),
            None => None,
        };
        let tasks = session.extract_tasks(&BTreeSet::from([key.clone()])).await;
        session.sign_out().await?;
        Ok(Read { resource, owner, tasks })
    }

    /// Runs a failing refresh of the described workbook. Returns its key.
    async fn failed(&self) -> anyhow::Result<ResourceKey> {
        let (_, luid) = self.refresh("failed").await?;
        describe(self).await?;
        Ok((RefreshedKind::Workbook, luid))
    }
}

#[tokio::test]
async fn the_client_reads_the_context_of_a_failure_on_cloud_and_server() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let key = site.failed().await?;
    for (on_server, name) in [(false, "grace@example.com"), (true, "grace")] {
        site.set_oddities(json!({ "on_server": on_server })).await?;
        let Read { resource, owner, tasks } = site.read(&key).await?;
        let resource = resource?;
        assert_eq!((resource.name.as_deref(), resource.tags.join(" ")), (Some("Sales"), "daily <b>".to_owned()));
        assert_eq!(resource.project.map(|project| project.name).as_deref(), Some("Finance"));
        let link = resource.webpage_url.context("no link")?;
        let (status, page) = browse(&site.tableau, link.as_str()).await?;
        assert!(status == StatusCode::OK && page.contains("<h1>Sales</h1>"), "{page}");
        let owner = owner.context("no owner")??;
        assert_eq!((owner.name.as_deref(), owner.name_without_address()), (Some(name), Some("Grace Hopper")));
        assert_eq!(owner.email.as_deref(), Some("grace@example.com"));
        let task = tasks?[&key];
        assert_eq!((task.consecutive_failures, task.is_suspended), (Some(1), Some(false)));
        assert!(task.next_run_at.is_some_and(|at| at > time::OffsetDateTime::now_utc()));
    }
    let refresh = json!({ "kind": "datasource", "name": "Orders", "outcome": "failed", "luid": "99" });
    assert_eq!(site.control(Method::POST, "refreshes", refresh).await?.0, StatusCode::OK);
    let datasource = site.read(&(RefreshedKind::Datasource, "99".to_owned())).await?;
    assert_eq!(datasource.resource?.name.as_deref(), Some("Orders"));
    assert_eq!(datasource.tasks?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn the_client_reads_tasks_in_every_shape_and_among_twenty_thousand() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let key = site.failed().await?;
    for oddities in [
        json!({}),
        json!({ "lone_object": true }),
        json!({ "wrapping": "gzip" }),
        json!({ "wrapping": "byte_order_mark" }),
        json!({ "content": { "bare_list": true, "counts_as_text": true } }),
        json!({ "content": { "other_tasks": 20_000, "odd_tasks": [null, 7, {}] } }),
    ] {
        site.set_all_oddities(oddities.clone()).await?;
        let tasks = site.read(&key).await?.tasks?;
        let failures = tasks.into_iter().map(|(key, task)| (key, task.consecutive_failures)).collect::<Vec<_>>();
        assert_eq!(failures, [(key.clone(), Some(1))], "{oddities}");
    }
    site.set_all_oddities(json!({ "wrapping": "gzip", "content": { "other_tasks": 50_000 } })).await?;
    let Read { resource, owner, tasks } = site.read(&key).await?;
    let error = tasks.err().context("a list")?;
    assert!(error.to_string().ends_with("the list exceeds 16 MiB"), "{error}");
    assert!(resource.is_ok() && owner.is_some_and(|owner| owner.is_ok()));
    Ok(())
}

#[tokio::test]
async fn a_suspended_task_is_read_without_next_run_until_it_is_resumed() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let key = site.failed().await?;
    for _ in 0..4 {
        site.refresh("failed").await?;
    }
    let read = async || anyhow::Ok(site.read(&key).await?.tasks?[&key]);
    assert_eq!(read().await?, RefreshTask::new(None, Some(5), None));
    assert_eq!(site.control(Method::DELETE, "suspensions", named("Sales")).await?.0, StatusCode::NO_CONTENT);
    let resumed = read().await?;
    assert_eq!((resumed.consecutive_failures, resumed.next_run_at.is_some()), (Some(0), true));
    site.set_oddities(json!({ "on_server": true, "schedule_suspended": true })).await?;
    assert_eq!(read().await?, RefreshTask::new(None, Some(0), Some(true)));
    Ok(())
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_costs_only_its_own_piece_of_context() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let key = site.failed().await?;
    for (answer, kind) in [
        ("forbidden", ErrorKind::NotAdministrator),
        ("not_found", ErrorKind::Failed),
        ("not_found_page", ErrorKind::Failed),
        ("page", ErrorKind::Unreadable),
        ("xml", ErrorKind::Unreadable),
    ] {
        site.set_oddities(json!({ "resource": answer })).await?;
        let read = site.read(&key).await?;
        assert_eq!(read.resource.as_ref().err().map(TableauError::kind), Some(kind), "{answer}");
        assert!(read.owner.is_none() && read.tasks.is_ok(), "{answer}");
        site.set_oddities(json!({ "user": answer })).await?;
        let read = site.read(&key).await?;
        let error = read.owner.and_then(Result::err).context("an owner")?;
        assert_eq!(error.kind(), kind, "{answer}");
        assert!(read.resource.is_ok() && read.tasks.is_ok(), "{answer}");
        site.set_oddities(json!({ "tasks": answer })).await?;
        let read = site.read(&key).await?;
        assert_eq!(read.tasks.as_ref().err().map(TableauError::kind), Some(kind), "{answer}");
        assert!(read.resource.is_ok() && read.owner.is_some_and(|owner| owner.is_ok()), "{answer}");
    }
    // A wait of half an hour is not worth it.
    site.set_oddities(json!({ "answered_before": 1, "too_many_requests": 1 })).await?;
    let read = site.read(&key).await?;
    let error = read.owner.and_then(Result::err).context("an owner")?;
    assert!(error.kind() == ErrorKind::RateLimited && read.resource.is_ok() && read.tasks.is_ok(), "{error}");
    let missing = ["name", "webpageUrl", "project", "tags", "email", "nextRunAt", "consecutiveFailedCount"];
    site.set_oddities(json!({ "missing": missing })).await?;
    let Read { resource, owner, tasks } = site.read(&key).await?;
    let expected =
        ResourceContext { owner_id: resource.as_ref().ok().and_then(|it| it.owner_id.clone()), ..Default::default() };
    assert_eq!(resource?, expected);
    let full_name = Some("Grace Hopper".to_owned());
    assert_eq!(owner.context("no owner")??, UserContext { full_name, ..Default::default() });
    assert_eq!(tasks?[&key], RefreshTask::default());
    assert_eq!(site.control(Method::DELETE, "content", named("Sales")).await?.0, StatusCode::NO_CONTENT);
    let read = site.read(&key).await?;
    assert!(read.resource.is_err_and(|error| error.is_local()) && read.tasks?.is_empty());
    Ok(())
}

#[tokio::test]
async fn hostile_context_is_read_without_links_to_others_or_secrets() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let key = site.failed().await?;
    site.set_oddities(json!({ "webpage_url": "https://evil.example/#/site/marketing/workbooks/1" })).await?;
    assert_eq!(site.read(&key).await?.resource?.webpage_url, None);
    for luid in ["", "..", "../users", "a/b", "\u{202e}"] {
        let (calls, key) = (site.calls()?, (RefreshedKind::Workbook, luid.to_owned()));
        let read = site.read(&key).await?;
        assert_eq!(read.resource?, ResourceContext::default(), "{luid}");
        assert!(read.tasks?.is_empty() && site.calls()? == calls + 1, "{luid}");
    }
    let echo = Echo { secret: EchoedSecret::Token, place: EchoPlace::Content, spelling: Spelling::Percent };
    site.set_all_oddities(json!({ "echo": echo })).await?;
    let Read { resource, owner, .. } = site.read(&key).await?;
    let (resource, owner) = (resource?, owner.context("no owner")??);
    assert_eq!(resource.name.as_deref(), Some("Sales [redacted]"));
    let names = [resource.project.map(|project| project.name), owner.full_name, owner.name];
    assert_eq!(names, ["Finance [redacted]", "Sales [redacted]", "Sales [redacted]"].map(|name| Some(name.to_owned())));
    Ok(())
}

impl Site {
    /// Returns the number of calls for content and tasks.
    fn calls(&self) -> anyhow::Result<usize> {
        site(&self.tableau, SITE, |site| {
            let is_counted = |call: &&String| call.contains("/workbooks") || call.contains("/tasks");
            site.calls.iter().filter(is_counted).count()
        })
    }
}
