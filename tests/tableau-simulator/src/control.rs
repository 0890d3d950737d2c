//! Calls that no Tableau server has. They create sites, fire events, run refreshes, switch oddities on, and change webhooks
//! and tokens as other administrators would.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{delete, get, post, put},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::events::catalogue::Event;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, serde::rfc3339};
use uuid::Uuid;

use crate::{
    delivery::Delivery,
    model::{Oddities, RefreshKind, RefreshOutcome, Schedule, Site, Webhook, World},
    server::Simulator,
};

/// `POST /_simulator/sites`: creates a site with one administrator's token. `POST /_simulator/tokens`: adds a token to an
/// existing site.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// The site's contentUrl.
    pub site: String,
    /// Name of the token.
    pub token_name: String,
    /// Secret of the token.
    pub token_secret: String,
    /// When the token ends; never if not set.
    #[serde(default, with = "rfc3339::option")]
    pub ends_at: Option<OffsetDateTime>,
}

/// `PATCH /_simulator/tokens`: sets when a token ends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenChange {
    /// The site's contentUrl.
    pub site: String,
    /// Name of the token.
    pub token_name: String,
    /// When it ends.
    #[serde(with = "rfc3339")]
    pub ends_at: OffsetDateTime,
}

/// `POST /_simulator/events`: fires an event. The answer is a list of [`Delivery`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    /// The site's contentUrl.
    pub site: String,
    /// The event.
    pub event: Event,
    /// The body to deliver, byte for byte. If not set, a new one as Tableau writes it.
    #[serde(default)]
    pub body: Option<String>,
    /// Name of the resource in a new body.
    #[serde(default)]
    pub name: String,
    /// Number of deliveries, since Tableau repeats some. Once if not set.
    #[serde(default = "once")]
    pub times: usize,
}

/// `POST /_simulator/refreshes`: runs an extract refresh, which leaves a job and fires its events: that it started, and that
/// it succeeded or failed. The answer is a [`Refreshed`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRefresh {
    /// The site's contentUrl.
    pub site: String,
    /// The kind of resource to refresh.
    pub kind: RefreshKind,
    /// Its name.
    pub name: String,
    /// Its identifier. If not set, that of an earlier refresh of the same name, or a new one.
    #[serde(default)]
    pub luid: Option<String>,
    /// How it ends.
    pub outcome: RefreshOutcome,
    /// The job's notes, which say why it failed.
    #[serde(default)]
    pub notes: Option<String>,
    /// Whether only new rows are fetched.
    #[serde(default)]
    pub is_incremental: bool,
    /// Whether the data comes through Tableau Bridge.
    #[serde(default)]
    pub is_via_bridge: bool,
    /// Its duration; a minute if not set.
    #[serde(default = "a_minute")]
    pub took_seconds: u32,
    /// When it ended; now if not set.
    #[serde(default, with = "rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// The time after its end until its job is listed. Its events are fired at once.
    #[serde(default)]
    pub listed_after_seconds: u32,
}

/// The result of a refresh.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refreshed {
    /// Identifier of the job.
    pub job: String,
    /// Identifier of the refreshed resource.
    pub luid: String,
    /// Whether the resource had failed, and does not fail any more.
    pub ends_failures: bool,
    /// The deliveries of its events.
    pub deliveries: Vec<Delivery>,
}

/// `POST /_simulator/schedules`: runs an extract refresh repeatedly, for the first time after one interval. It does not run
/// while Tableau has its task suspended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSchedule {
    /// The time between two runs, in seconds; at least 1.
    pub every_seconds: u32,
    /// The refresh to run.
    pub refresh: NewRefresh,
}

/// `DELETE /_simulator/schedules`: ends all schedules of a name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldSchedule {
    /// The site's contentUrl.
    pub site: String,
    /// Name of the refreshed resource.
    pub name: String,
}

/// `PUT /_simulator/content`: sets the project, owner and tags of a workbook or data source. Creates it if there is none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewContent {
    /// The site's contentUrl.
    pub site: String,
    /// The kind.
    pub kind: RefreshKind,
    /// The name.
    pub name: String,
    /// The project's name; the default project if not set.
    pub project: Option<String>,
    /// The owner; the default owner if not set.
    pub owner: Option<NewOwner>,
    /// The tags.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// An owner of content. Owners of one name are one user.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOwner {
    /// The name with which it signs in to Tableau Server.
    pub name: String,
    /// The name that people see.
    pub full_name: String,
    /// The e-mail address.
    pub email: String,
}

/// `DELETE /_simulator/content`: deletes a workbook or data source, but none of its jobs. `DELETE /_simulator/suspensions`:
/// resumes its suspended task, as a user does.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedContent {
    /// The site's contentUrl.
    pub site: String,
    /// The kind.
    pub kind: RefreshKind,
    /// The name.
    pub name: String,
}

/// `PUT /_simulator/oddities`: sets a site's oddities.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOddities {
    /// The site's contentUrl.
    pub site: String,
    /// All its oddities; those not named are off.
    pub oddities: Oddities,
}

/// `POST /_simulator/webhooks`: creates a webhook of any name, as another administrator would.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewWebhook {
    /// The site's contentUrl.
    pub site: String,
    /// The webhook's name. Another may have the same.
    pub name: String,
    /// The event it is for.
    pub event: Event,
    /// The event's destination.
    pub url: String,
}

/// `PATCH /_simulator/webhooks`: changes all webhooks of a name. Members that are not set stay as they are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookChange {
    /// The site's contentUrl.
    pub site: String,
    /// The name before the change.
    pub name: String,
    /// The name after it.
    pub new_name: Option<String>,
    /// The event.
    pub event: Option<Event>,
    /// The event's destination.
    pub url: Option<String>,
    /// Whether it is enabled.
    pub is_enabled: Option<bool>,
    /// The reason why it is disabled; Tableau's usual reason if not set.
    pub status_change_reason: Option<String>,
}

/// `DELETE /_simulator/webhooks`: deletes all webhooks of a name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldWebhook {
    /// The site's contentUrl.
    pub site: String,
    /// The webhook's name.
    pub name: String,
}

/// `DELETE /_simulator/tokens`: ends a token with its session, as expiry and revocation do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldToken {
    /// The site's contentUrl.
    pub site: String,
    /// Name of the token.
    pub token_name: String,
}

fn once() -> usize {
    1
}

fn a_minute() -> u32 {
    60
}

type Refused = (StatusCode, String);

pub(crate) fn router() -> Router<Simulator> {
    Router::new()
        .route("/_simulator/sites", post(add_site))
        .route("/_simulator/events", post(fire))
        .route("/_simulator/refreshes", post(refresh))
        .route("/_simulator/schedules", post(add_schedule).delete(end_schedules))
        .route("/_simulator/content", put(set_content).delete(delete_content))
        .route("/_simulator/suspensions", delete(resume))
        .route("/_simulator/oddities", put(set_oddities))
        .route("/_simulator/webhooks", get(webhooks).post(add_webhook).patch(change_webhooks).delete(delete_webhooks))
        .route("/_simulator/tokens", post(add_token).patch(change_token).delete(revoke_token))
}

async fn add_site(State(simulator): State<Simulator>, Json(new): Json<NewToken>) -> StatusCode {
    let NewToken { site, token_name, token_secret, ends_at } = new;
    let mut world = simulator.world();
    let tokens = &mut world.add_site(&site, &token_name, &token_secret).tokens;
    tokens.iter_mut().for_each(|token| token.ends_at = ends_at);
    StatusCode::CREATED
}

async fn fire(State(simulator): State<Simulator>, Json(new): Json<NewEvent>) -> Result<Json<Vec<Delivery>>, Refused> {
    let site_luid = site(&mut simulator.world(), &new.site)?.id.clone();
    let body = new.body.unwrap_or_else(|| payload(&new.event, &new.name, &site_luid));
    Ok(Json(simulator.fire(&new.site, &new.event, &body, new.times).await))
}

/// Writes the payload of an event of a new resource, as Tableau does.
fn payload(event: &Event, name: &str, site_luid: &str) -> String {
    let payload = json!({
        "resource": event.resource_type().unwrap_or_default().to_uppercase(),
        "event_type": event,
        "resource_name": name,
        "site_luid": site_luid,
        "resource_luid": Uuid::new_v4().to_string(),
        "created_at": OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
    });
    payload.to_string()
}

async fn refresh(State(simulator): State<Simulator>, Json(new): Json<NewRefresh>) -> Result<Json<Refreshed>, Refused> {
    let has_failures = || Ok(site(&mut simulator.world(), &new.site)?.failures(new.kind, &new.name) > 0);
    let had_failures = has_failures()?;
    let (job, deliveries) = simulator.refresh(&new).await.ok_or_else(|| no_site(&new.site))?;
    let ends_failures = had_failures && !has_failures()?;
    Ok(Json(Refreshed { job: job.id, luid: job.luid, ends_failures, deliveries }))
}

async fn add_schedule(State(simulator): State<Simulator>, Json(new): Json<NewSchedule>) -> Result<StatusCode, Refused> {
    let NewSchedule { every_seconds, refresh } = new;
    if every_seconds == 0 {
        return Err((StatusCode::BAD_REQUEST, "every_seconds is at least 1".to_owned()));
    }
    let (content_url, name) = (refresh.site.clone(), refresh.name.clone());
    let runs = simulator.clone();
    let mut world = simulator.world();
    let schedules = &mut site(&mut world, &content_url)?.schedules;
    let task = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(every_seconds.into())).await;
            if !runs.is_suspended(&refresh) {
                runs.refresh(&refresh).await;
            }
        }
    });
    schedules.push(Schedule { name, task: task.abort_handle() });
    Ok(StatusCode::CREATED)
}

async fn end_schedules(
    State(simulator): State<Simulator>,
    Json(old): Json<OldSchedule>,
) -> Result<StatusCode, Refused> {
    let mut world = simulator.world();
    let schedules = &mut site(&mut world, &old.site)?.schedules;
    answer_for(schedules.extract_if(.., |schedule| schedule.name == old.name).count(), "schedule", &old.name)
}

async fn set_content(State(simulator): State<Simulator>, Json(new): Json<NewContent>) -> Result<StatusCode, Refused> {
    site(&mut simulator.world(), &new.site)?.set_content(new);
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_content(
    State(simulator): State<Simulator>,
    Json(old): Json<NamedContent>,
) -> Result<StatusCode, Refused> {
    let mut world = simulator.world();
    let site = site(&mut world, &old.site)?;
    let deleted = site.declare(old.kind, &old.name).map(|content| content.is_deleted = true).count();
    answer_for(deleted, "content", &old.name)
}

async fn resume(State(simulator): State<Simulator>, Json(named): Json<NamedContent>) -> Result<StatusCode, Refused> {
    let mut world = simulator.world();
    let site = site(&mut world, &named.site)?;
    if !site.is_suspended(named.kind, &named.name) {
        return answer_for(0, "suspended task of", &named.name);
    }
    answer_for(site.resume(named.kind, &named.name), "content", &named.name)
}

async fn set_oddities(State(simulator): State<Simulator>, Json(new): Json<NewOddities>) -> Result<StatusCode, Refused> {
    site(&mut simulator.world(), &new.site)?.oddities = new.oddities;
    Ok(StatusCode::NO_CONTENT)
}

async fn webhooks(State(simulator): State<Simulator>) -> Json<Vec<(String, Vec<Webhook>)>> {
    let world = simulator.world();
    Json(world.sites.iter().map(|(name, site)| (name.clone(), site.webhooks.clone())).collect())
}

async fn add_webhook(State(simulator): State<Simulator>, Json(new): Json<NewWebhook>) -> Result<StatusCode, Refused> {
    let NewWebhook { site: content_url, name, event, url } = new;
    let id = Uuid::new_v4().to_string();
    let webhook = Webhook { id, name, event, url, is_enabled: true, status_change_reason: None };
    site(&mut simulator.world(), &content_url)?.webhooks.push(webhook);
    Ok(StatusCode::CREATED)
}

async fn change_webhooks(
    State(simulator): State<Simulator>,
    Json(change): Json<WebhookChange>,
) -> Result<StatusCode, Refused> {
    let WebhookChange { site: content_url, name, new_name, event, url, is_enabled, status_change_reason } = change;
    if status_change_reason.is_some() && is_enabled != Some(false) {
        return Err((StatusCode::BAD_REQUEST, "a status_change_reason goes with \"is_enabled\": false".to_owned()));
    }
    let mut world = simulator.world();
    let webhooks = &mut site(&mut world, &content_url)?.webhooks;
    let mut named: Vec<_> = webhooks.iter_mut().filter(|webhook| webhook.name == name).collect();
    for webhook in &mut named {
        webhook.name = new_name.as_ref().unwrap_or(&webhook.name).clone();
        webhook.event = event.as_ref().unwrap_or(&webhook.event).clone();
        webhook.url = url.as_ref().unwrap_or(&webhook.url).clone();
        match is_enabled {
            Some(true) => (webhook.is_enabled, webhook.status_change_reason) = (true, None),
            Some(false) => webhook.disable(status_change_reason.clone()),
            None => {}
        }
    }
    answer_for(named.len(), "webhook", &name)
}

async fn delete_webhooks(
    State(simulator): State<Simulator>,
    Json(old): Json<OldWebhook>,
) -> Result<StatusCode, Refused> {
    let mut world = simulator.world();
    let webhooks = &mut site(&mut world, &old.site)?.webhooks;
    answer_for(webhooks.extract_if(.., |webhook| webhook.name == old.name).count(), "webhook", &old.name)
}

async fn add_token(State(simulator): State<Simulator>, Json(new): Json<NewToken>) -> Result<StatusCode, Refused> {
    let NewToken { site: content_url, token_name, token_secret, ends_at } = new;
    let mut world = simulator.world();
    let site = site(&mut world, &content_url)?;
    site.add_token(&token_name, &token_secret);
    site.tokens.iter_mut().rev().take(1).for_each(|token| token.ends_at = ends_at);
    Ok(StatusCode::CREATED)
}

async fn change_token(
    State(simulator): State<Simulator>,
    Json(change): Json<TokenChange>,
) -> Result<StatusCode, Refused> {
    let mut world = simulator.world();
    let tokens = &mut site(&mut world, &change.site)?.tokens;
    let named: Vec<_> = tokens.iter_mut().filter(|token| token.name == change.token_name).collect();
    let count = named.len();
    named.into_iter().for_each(|token| token.ends_at = Some(change.ends_at));
    answer_for(count, "token", &change.token_name)
}

async fn revoke_token(State(simulator): State<Simulator>, Json(old): Json<OldToken>) -> Result<StatusCode, Refused> {
    let mut world = simulator.world();
    let tokens = &mut site(&mut world, &old.site)?.tokens;
    answer_for(tokens.extract_if(.., |token| token.name == old.token_name).count(), "token", &old.token_name)
}

fn site<'a>(world: &'a mut World, content_url: &str) -> Result<&'a mut Site, Refused> {
    world.sites.get_mut(content_url).ok_or_else(|| no_site(content_url))
}

fn no_site(content_url: &str) -> Refused {
    (StatusCode::NOT_FOUND, format!("there is no site {content_url:?}"))
}

/// Answers a call that changed `count` things of a name.
fn answer_for(count: usize, kind: &str, name: &str) -> Result<StatusCode, Refused> {
    match count {
        0 => Err((StatusCode::NOT_FOUND, format!("there is no {kind} {name:?} on this site"))),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}
