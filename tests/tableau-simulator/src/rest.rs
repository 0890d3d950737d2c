//! The REST API: from a call and the server's state to an answer, without I/O.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use shared::events::catalogue::Event;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{
    content, echo, jobs,
    model::{
        AccessToken, EmptyList, EventShape, Hostility, Oddities, RefreshKind, Site, TestBody, Webhook, World, Wrapping,
    },
    refusal::{
        INTERNAL, MALFORMED, NO_SUCH_PATH, NO_SUCH_SITE, NO_SUCH_WEBHOOK, NOT_AN_ADMINISTRATOR, REASON_OF_ENABLED,
        Refusal, SESSION_GONE, SIGN_IN_REFUSED, WEBHOOK_GONE, WRONG_METHOD,
    },
    tasks, tokens,
};

/// First API versions that list jobs and tasks.
const JOBS: (u32, u32) = (3, 1);
const TASKS: (u32, u32) = (2, 6);

/// First API version that lists a user's tokens.
const TOKENS: (u32, u32) = (3, 26);

/// First API versions with webhooks, their update, and the `event` attribute.
const WEBHOOKS: (u32, u32) = (3, 6);
const UPDATE: (u32, u32) = (3, 8);
const EVENT_ATTRIBUTE: (u32, u32) = (3, 9);

/// A call, from JSON or XML.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// The path before `/api/`.
    pub(crate) prefix: String,
    /// The path after `/api/`.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) host: String,
    pub(crate) token: Option<String>,
    /// The body, `None` if it is empty or cannot be read.
    pub(crate) body: Option<Value>,
}

/// An answer.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A status and a body.
    Body(u16, Value),
    /// 204.
    Nothing,
    /// 301 to an address.
    Moved(String),
    /// A status, and an incomplete body.
    Broken,
    /// 200 and an HTML page.
    Page,
    /// 200 and XML, whatever the client accepts.
    Xml,
    /// A hostile page, with its number.
    Hostile(Hostility, usize),
    /// The result of a test delivery, which is to be made first.
    Test { id: String, url: String, body: &'static str, status_member: &'static str },
}

/// How an answer is sent, apart from its content.
#[derive(Debug, Default)]
pub(crate) struct Transport {
    /// Added delay.
    pub(crate) delay_ms: u64,
    /// Skew of the server's clock.
    pub(crate) clock_offset_seconds: i64,
    /// Encoding of its JSON.
    pub(crate) wrapping: Wrapping,
}

/// Answers a call.
pub(crate) fn answer(world: &mut World, call: &Call) -> (Result<Reply, Refusal>, Transport) {
    let mut segments = call.path.trim_matches('/').split('/');
    let Some(version) = segments.next().and_then(version).filter(|version| *version <= world.newest_version) else {
        return (Err(NO_SUCH_PATH), Transport::default());
    };
    let segments: Vec<_> = segments.collect();
    let (site, result) = match (call.method.as_str(), &segments[..]) {
        // The documentation writes it one way, Tableau's own Python client the other.
        ("GET", ["serverinfo" | "serverInfo"]) if world.server_info_errors > 0 => {
            world.server_info_errors -= 1;
            (None, Err(INTERNAL))
        }
        ("GET", ["serverinfo" | "serverInfo"]) => (None, Ok(server_info(world.newest_version))),
        ("POST", ["auth", "signin"]) => sign_in(world, call),
        ("POST", ["auth", "signout"]) => sign_out(world, call),
        (_, ["sites", site, "webhooks", ..]) if version >= WEBHOOKS => {
            of_site(world, call, version, site, &segments[2..])
        }
        (_, ["sites", site, "jobs", ..]) if version >= JOBS => of_site(world, call, version, site, &segments[2..]),
        (_, ["sites", site, "tasks", "extractRefreshes"]) if version >= TASKS => {
            of_site(world, call, version, site, &segments[2..])
        }
        (_, ["sites", site, "workbooks" | "datasources" | "users", _]) => {
            of_site(world, call, version, site, &segments[2..])
        }
        (_, ["sites", site, "users", _, "personal-access-tokens"]) if version >= TOKENS => {
            of_site(world, call, version, site, &segments[2..])
        }
        (_, ["serverinfo" | "serverInfo"] | ["auth", "signin" | "signout"]) => (None, Err(WRONG_METHOD)),
        _ => (None, Err(NO_SUCH_PATH)),
    };
    let Some(site) = site else { return (result, Transport::default()) };
    let path = segments.join("/").replace(&site.id, "{site}").replace(&site.owner_id, "{user}");
    site.calls.push(format!("{} {path}", call.method));
    let Oddities { html_errors: is_html, error_shape: shape, wrapping, delay_ms, .. } = site.oddities;
    let clock_offset_seconds = site.oddities.jobs.clock_offset_seconds;
    let transport = Transport { delay_ms, clock_offset_seconds, wrapping };
    let result = echo::add_echo(site, call, &segments, result);
    let shaped = |refusal: Refusal| Refusal { is_html: refusal.is_html || is_html, shape, ..refusal };
    (result.map_err(shaped), transport)
}

fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn server_info((major, minor): (u32, u32)) -> Reply {
    let product = json!({ "value": "2026.1.0", "build": "20261.26.0501.0000" });
    let info = json!({ "productVersion": product, "restApiVersion": format!("{major}.{minor}") });
    Reply::Body(200, json!({ "serverInfo": info }))
}

type Answered<'a> = (Option<&'a mut Site>, Result<Reply, Refusal>);

fn sign_in<'a>(world: &'a mut World, call: &Call) -> Answered<'a> {
    let credentials = call.body.as_ref().map(|body| &body["credentials"]);
    let text = |member: &str| credentials.and_then(|credentials| credentials[member].as_str());
    let content_url = credentials.and_then(|credentials| credentials["site"]["contentUrl"].as_str());
    let (Some(name), Some(secret), Some(content_url)) =
        (text("personalAccessTokenName"), text("personalAccessTokenSecret"), content_url)
    else {
        return (None, Err(MALFORMED));
    };
    let now = OffsetDateTime::now_utc();
    let clock = |site: &Site| now.saturating_add(Duration::seconds(site.oddities.jobs.clock_offset_seconds));
    let is_named = |token: &AccessToken| token.name == name && token.secret == secret;
    let query = if call.query.is_empty() { String::new() } else { format!("?{}", call.query) };
    let here = format!("{}/api/{}{query}", call.prefix, call.path);
    let redirect = |site: &Site| {
        if site.oddities.hostility == Some(Hostility::SignInLoop) {
            return Some(here.clone());
        }
        let location = site.oddities.sign_in_moved_to.as_ref()?;
        let is_here =
            *location == here || location.split_once("//").is_some_and(|(_, to)| to == call.host.clone() + &here);
        (!is_here).then(|| location.clone())
    };
    let is_accepted = |token: &AccessToken, now: OffsetDateTime| is_named(token) && !token.has_ended(now);
    let accepts =
        |site: &Site| redirect(site).is_none() && site.tokens.iter().any(|token| is_accepted(token, clock(site)));
    if world.sites.get(content_url).is_some_and(accepts) {
        // A token has one session for all sites: a new one ends the last.
        let tokens = world.sites.values_mut().flat_map(|site| &mut site.tokens);
        tokens.filter(|token| is_named(token)).for_each(|token| token.session = None);
    }
    // A wrong, revoked or expired token and one of another site get the same answer.
    let Some(site) = world.sites.get_mut(content_url) else { return (None, Err(SIGN_IN_REFUSED)) };
    if let Some(location) = redirect(site) {
        return (Some(site), Ok(Reply::Moved(location)));
    }
    let (id, owner_id, now) = (site.id.clone(), site.owner_id.clone(), clock(site));
    let Some(token) = site.tokens.iter_mut().find(|token| is_accepted(token, now)) else {
        return (Some(site), Err(SIGN_IN_REFUSED));
    };
    // Not in hexadecimal: pieces of it would now and then occur in identifiers of events.
    let random = || BASE64_URL_SAFE_NO_PAD.encode(Uuid::new_v4());
    let session = format!("{}|{}{}", random(), random(), random());
    token.session = Some(session.clone());
    token.last_used_at = Some(now);
    site.sessions.push(session.clone());
    let answer = json!({ "credentials": {
        "site": { "id": id, "contentUrl": content_url },
        "user": { "id": owner_id },
        "token": session,
        "estimatedTimeToExpiration": "177:05:38",
    } });
    (Some(site), Ok(Reply::Body(200, answer)))
}

fn sign_out<'a>(world: &'a mut World, call: &Call) -> Answered<'a> {
    for site in world.sites.values_mut().filter(|site| site.path_prefix() == call.prefix) {
        if let Some(token) = session_of(site, call) {
            token.session = None;
            let result = if call.body.is_some() { Err(MALFORMED) } else { Ok(Reply::Nothing) };
            return (Some(site), result);
        }
    }
    (None, Err(SESSION_GONE))
}

fn session_of<'a>(site: &'a mut Site, call: &Call) -> Option<&'a mut AccessToken> {
    site.tokens.iter_mut().find(|token| token.session.is_some() && token.session == call.token)
}

fn of_site<'a>(world: &'a mut World, call: &Call, version: (u32, u32), site_id: &str, rest: &[&str]) -> Answered<'a> {
    let Some(site) = world.sites.values_mut().find(|site| site.id == site_id) else {
        return (None, Err(NO_SUCH_SITE));
    };
    if site.path_prefix() != call.prefix {
        return (Some(site), Err(NO_SUCH_PATH));
    }
    let result = on_site(site, call, version, rest);
    (Some(site), result)
}

fn on_site(site: &mut Site, call: &Call, version: (u32, u32), rest: &[&str]) -> Result<Reply, Refusal> {
    if let Some(calls) = site.oddities.sessions_gone_after {
        site.oddities.sessions_gone_after = calls.checked_sub(1);
        if calls == 0 {
            site.tokens.iter_mut().for_each(|token| token.session = None);
        }
    }
    if site.oddities.token_is_shared {
        site.tokens.iter_mut().for_each(|token| token.session = None);
    }
    let is_administrator = session_of(site, call).ok_or(SESSION_GONE)?.is_administrator;
    if site.oddities.is_deleted {
        return Err(NO_SUCH_SITE);
    }
    if !is_administrator {
        return Err(NOT_AN_ADMINISTRATOR);
    }
    let is_of_jobs = rest.first() == Some(&"jobs");
    let mut is_of_content = ["workbooks", "datasources", "users", "tasks"].contains(rest.first().unwrap_or(&""));
    let too_many = || Refusal::too_many(&site.oddities);
    let (one, other, another) = (too_many(), too_many(), too_many());
    let oddities = &mut site.oddities;
    if is_of_content && oddities.content.answered_before > 0 {
        oddities.content.answered_before -= 1;
        is_of_content = false;
    }
    for (left, applies, refusal) in [
        (&mut oddities.too_many_requests, true, one),
        (&mut oddities.jobs.too_many_requests, is_of_jobs, other),
        (&mut oddities.content.too_many_requests, is_of_content, another),
        (&mut oddities.server_errors, true, INTERNAL),
    ] {
        if applies && *left > 0 {
            *left -= 1;
            return Err(refusal);
        }
    }
    let is_change = call.method != "GET";
    if is_change && site.oddities.failed_changes > 0 {
        site.oddities.failed_changes -= 1;
        return Err(INTERNAL);
    }
    let answer = carry_out(site, call, version, rest)?;
    if is_change && site.oddities.lost_answers > 0 {
        site.oddities.lost_answers -= 1;
        return Err(INTERNAL);
    }
    if is_change && site.oddities.broken_answers > 0 {
        site.oddities.broken_answers -= 1;
        return Ok(Reply::Broken);
    }
    Ok(answer)
}

fn carry_out(site: &mut Site, call: &Call, version: (u32, u32), rest: &[&str]) -> Result<Reply, Refusal> {
    match (call.method.as_str(), rest) {
        ("GET", ["jobs"]) => jobs::list(site, &call.query),
        ("GET", ["jobs", id]) => jobs::get(site, id),
        ("GET", ["tasks", "extractRefreshes"]) => tasks::list(site, &call.query),
        ("GET", ["workbooks", id]) => content::get(site, RefreshKind::Workbook, id, &call.host),
        ("GET", ["datasources", id]) => content::get(site, RefreshKind::Datasource, id, &call.host),
        ("GET", ["users", id]) => content::user(site, id),
        ("GET", ["users", user, "personal-access-tokens"]) => tokens::list(site, user, call.token.as_deref()),
        ("GET", ["webhooks"]) => match site.oddities.hostility {
            Some(hostility) => Ok(Reply::Hostile(hostility, page_number(&call.query))),
            None => list(site, &call.query),
        },
        ("POST", ["webhooks"]) => {
            let webhook = read_webhook(call, version, &site.oddities, None)?;
            let answer = Reply::Body(201, json!({ "webhook": write_webhook(&webhook, &site.oddities) }));
            site.webhooks.push(webhook);
            Ok(answer)
        }
        ("DELETE", ["webhooks", id]) => {
            let position = site.webhooks.iter().position(|webhook| webhook.id == *id).ok_or(WEBHOOK_GONE)?;
            site.webhooks.remove(position);
            Ok(Reply::Nothing)
        }
        ("PUT", ["webhooks", _]) if version < UPDATE => Err(NO_SUCH_PATH),
        ("GET" | "PUT", ["webhooks", id]) | ("GET", ["webhooks", id, "test"]) => {
            let webhook = site.webhooks.iter_mut().find(|webhook| webhook.id == *id).ok_or(NO_SUCH_WEBHOOK)?;
            if rest.len() == 3 {
                return Ok(test(webhook, &site.oddities));
            }
            let mut status = 200;
            if call.method == "PUT" {
                *webhook = read_webhook(call, version, &site.oddities, Some(webhook))?;
                status = site.oddities.update_status.unwrap_or(201);
            }
            Ok(Reply::Body(status, json!({ "webhook": write_webhook(webhook, &site.oddities) })))
        }
        (_, ["webhooks" | "jobs"] | [_, _] | ["webhooks", _, "test"] | ["users", ..]) => Err(WRONG_METHOD),
        _ => Err(NO_SUCH_PATH),
    }
}

fn list(site: &Site, query: &str) -> Result<Reply, Refusal> {
    let oddities = &site.oddities;
    let webhooks = site.webhooks.iter().map(|webhook| write_webhook(webhook, oddities));
    let mut webhooks: Vec<_> = oddities.odd_webhooks.iter().cloned().chain(webhooks).collect();
    let mut answer = Map::new();
    if let Some(size) = oddities.page_size {
        let (number, total) = (page_number(query), webhooks.len());
        let pagination = json!({ "pageNumber": number.to_string(), "pageSize": size.to_string(), "totalAvailable": total.to_string() });
        answer.insert("pagination".to_owned(), pagination);
        webhooks = webhooks.into_iter().skip((number - 1) * size).take(size).collect();
        if oddities.last_page_missing && number * size >= total {
            webhooks.clear();
        }
    }
    write_list(&mut answer, ["webhooks", "webhook"], webhooks, oddities);
    Ok(Reply::Body(200, Value::Object(answer)))
}

/// Returns the requested page of a list of webhooks.
fn page_number(query: &str) -> usize {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == "pageNumber").find_map(|(_, value)| value.parse().ok()).unwrap_or(1)
}

/// Adds a list to an answer, in one of Tableau's shapes. The names are the list's and an item's.
pub(crate) fn write_list(
    answer: &mut Map<String, Value>,
    [list, item]: [&str; 2],
    mut items: Vec<Value>,
    oddities: &Oddities,
) {
    let written = match (items.len(), oddities.empty_list) {
        (0, EmptyList::Object) => Some(json!({})),
        (0, EmptyList::Missing) => None,
        (0, EmptyList::Null) => Some(Value::Null),
        (0, EmptyList::List) => Some(json!([])),
        (1, _) if oddities.lone_object => Some(json!({ item: items.remove(0) })),
        _ => Some(json!({ item: items })),
    };
    answer.extend(written.map(|written| (list.to_owned(), written)));
}

fn test(webhook: &Webhook, oddities: &Oddities) -> Reply {
    let body = match oddities.test_body {
        TestBody::Empty => "",
        TestBody::Text => "This is a test of your webhook.",
        TestBody::Json => r#"{"event_type":"Test","resource":"TEST","created_at":"2022-03-01T09:30:00Z"}"#,
    };
    let status_member = if oddities.test_status_code { "statusCode" } else { "status" };
    Reply::Test { id: webhook.id.clone(), url: webhook.url.clone(), body, status_member }
}

/// Reads the body of a create or, with the webhook `before` it, of an update. Refuses unknown members.
fn read_webhook(
    call: &Call,
    version: (u32, u32),
    oddities: &Oddities,
    before: Option<&Webhook>,
) -> Result<Webhook, Refusal> {
    let body = only_members(call.body.as_ref(), &["webhook"])?;
    let known = ["name", "event", "isEnabled", "statusChangeReason", "webhook-source", "webhook-destination"];
    let webhook = only_members(body.get("webhook"), &known)?;
    let name = webhook.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()).ok_or(MALFORMED)?;
    let attribute = webhook.get("event").map(|event| event.as_str().and_then(|name| name.parse::<Event>().ok()));
    let source = webhook.get("webhook-source").map(|source| {
        let mut elements = source.as_object()?.keys();
        elements.next().filter(|_| elements.len() == 0).and_then(|element| Event::from_source_element(element))
    });
    let event = match (attribute, source) {
        (Some(event), None) if version >= EVENT_ATTRIBUTE => Some(event.ok_or(MALFORMED)?),
        (None, Some(event)) => Some(event.ok_or(MALFORMED)?),
        (None, None) => None,
        _ => return Err(MALFORMED),
    };
    let is_refused = |event: &Event| {
        !event.is_known() || (oddities.refuses_site_events && ["SiteCreated", "SiteUpdated"].contains(&event.as_str()))
    };
    if event.as_ref().is_some_and(is_refused) {
        return Err(MALFORMED);
    }
    let url = webhook.get("webhook-destination").map(|destination| {
        let destination = only_members(Some(destination), &["webhook-destination-http"])?;
        let http = only_members(destination.get("webhook-destination-http"), &["method", "url"])?;
        let url = http.get("url").and_then(Value::as_str).filter(|url| url.starts_with("https://"));
        url.filter(|_| http.get("method").and_then(Value::as_str) == Some("POST")).ok_or(MALFORMED)
    });
    let is_enabled = match webhook.get("isEnabled") {
        None => before.is_none_or(|before| before.is_enabled),
        Some(Value::Bool(is_enabled)) => *is_enabled,
        Some(Value::String(text)) => text.parse().map_err(|_| MALFORMED)?,
        Some(_) => return Err(MALFORMED),
    };
    let reason = webhook.get("statusChangeReason").and_then(Value::as_str).map(str::to_owned);
    if is_enabled && reason.is_some() {
        return Err(REASON_OF_ENABLED);
    }
    Ok(Webhook {
        id: before.map_or_else(|| Uuid::new_v4().to_string(), |before| before.id.clone()),
        name: name.to_owned(),
        event: event.or_else(|| before.map(|before| before.event.clone())).ok_or(MALFORMED)?,
        url: url
            .transpose()?
            .map(str::to_owned)
            .or_else(|| before.map(|before| before.url.clone()))
            .ok_or(MALFORMED)?,
        is_enabled,
        status_change_reason: reason,
    })
}

fn only_members<'a>(value: Option<&'a Value>, known: &[&str]) -> Result<&'a Map<String, Value>, Refusal> {
    let members = value.and_then(Value::as_object).ok_or(MALFORMED)?;
    if members.keys().all(|member| known.contains(&member.as_str())) { Ok(members) } else { Err(MALFORMED) }
}

fn write_webhook(webhook: &Webhook, oddities: &Oddities) -> Value {
    let Webhook { id, name, event, url, is_enabled, status_change_reason } = webhook;
    let rewritten = || {
        let (host, path) = url.strip_prefix("https://")?.split_once('/')?;
        Some(format!("https://{}:443/{path}", host.to_ascii_uppercase()))
    };
    let url = Some(url).filter(|_| !oddities.urls_rewritten).cloned().or_else(rewritten);
    let mut written = json!({
        "id": id,
        "name": name,
        "isEnabled": if oddities.enabled_as_text { json!(is_enabled.to_string()) } else { json!(is_enabled) },
        "statusChangeReason": status_change_reason.as_deref().unwrap_or_default(),
        "webhook-destination": { "webhook-destination-http": { "method": "POST", "url": url } },
        "owner": { "id": "8a5d4f80-0000-4000-8000-000000000000", "name": "administrator" },
    });
    if oddities.event_shape != EventShape::Source {
        written["event"] = json!(event);
    }
    if oddities.event_shape != EventShape::Event {
        written["webhook-source"] = json!({ event.source_element(): {} });
    }
    written
}
