//! The simulated Tableau of a running stack.

use anyhow::{Context, ensure};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use shared::events::catalogue::Event;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::report::{Line, Report};
use crate::service::http_client;

/// Destination of a webhook that is not the stack's.
const FOREIGN_URL: &str = "https://their.example/hook";

/// A site of the simulated Tableau.
pub(super) struct Tableau {
    http: Client,
    address: String,
    pub(super) site: String,
}

impl Tableau {
    pub(super) fn new(address: &str, site: String) -> anyhow::Result<Self> {
        Ok(Self { http: http_client()?, address: address.to_owned(), site })
    }

    /// Fires an event. Returns its deliveries.
    pub(super) async fn fire(&self, event: &Event, name: &str) -> anyhow::Result<Vec<Value>> {
        let event = json!({ "site": self.site, "event": event, "name": name });
        let deliveries = self.call_site("events", &event).await?;
        deliveries.as_array().cloned().context("the simulator answered without deliveries")
    }

    /// Runs an extract refresh. Returns the deliveries of its events, and whether it ended failures.
    pub(super) async fn refresh(&self, refresh: &Value) -> anyhow::Result<(Vec<Value>, bool)> {
        let refreshed = self.call_site("refreshes", refresh).await?;
        let deliveries = refreshed["deliveries"].as_array().cloned();
        Ok((deliveries.context("the simulator answered without deliveries")?, refreshed["ends_failures"] == true))
    }

    pub(super) async fn disable(&self, name: &str, reason: Option<&str>, report: Report<'_>) -> anyhow::Result<()> {
        let change = json!({ "site": self.site, "name": name, "is_enabled": false, "status_change_reason": reason });
        self.change_webhook(Method::PATCH, &change).await?;
        self.report(&format!("Tableau disabled the webhook {name}"), report);
        Ok(())
    }

    pub(super) async fn delete(&self, name: &str, report: Report<'_>) -> anyhow::Result<()> {
        self.change_webhook(Method::DELETE, &json!({ "site": self.site, "name": name })).await?;
        self.report(&format!("An administrator deleted the webhook {name}"), report);
        Ok(())
    }

    pub(super) async fn rename(&self, name: &str, new_name: &str, report: Report<'_>) -> anyhow::Result<()> {
        let change = json!({ "site": self.site, "name": name, "new_name": new_name });
        self.change_webhook(Method::PATCH, &change).await?;
        self.report(&format!("An administrator renamed the webhook {name} to {new_name}"), report);
        Ok(())
    }

    pub(super) async fn add_foreign(&self, name: &str, event: &Event, report: Report<'_>) -> anyhow::Result<()> {
        let webhook = json!({ "site": self.site, "name": name, "event": event, "url": FOREIGN_URL });
        self.call_site("webhooks", &webhook).await?;
        self.report(&format!("An administrator added the webhook {name} for {event}"), report);
        Ok(())
    }

    pub(super) async fn expire_token(&self, name: &str, report: Report<'_>) -> anyhow::Result<()> {
        let token = json!({ "site": self.site, "token_name": name });
        self.call(Method::DELETE, "tokens", &token).await?.with_context(|| no_token(&self.site, name))?;
        report(Line::Done(format!("The token {name} of the site {} expired.", self.site)));
        report(Line::next("cargo infra reconcile apply", "reports it"));
        Ok(())
    }

    pub(super) async fn expire_token_in(&self, name: &str, days: i64, report: Report<'_>) -> anyhow::Result<()> {
        let ends_at = (OffsetDateTime::now_utc() + Duration::days(days)).format(&Rfc3339)?;
        let change = json!({ "site": self.site, "token_name": name, "ends_at": ends_at });
        self.call(Method::PATCH, "tokens", &change).await?.with_context(|| no_token(&self.site, name))?;
        report(Line::Done(format!("The token {name} of the site {} ends on {ends_at}.", self.site)));
        let effect = "reads that, within a day of the last time, and announces it from 30 days before on";
        report(Line::next("cargo infra reconcile apply", effect));
        Ok(())
    }

    pub(super) async fn add_token(&self, name: &str, secret: &str) -> anyhow::Result<()> {
        let token = json!({ "site": self.site, "token_name": name, "token_secret": secret });
        self.call_site("tokens", &token).await.map(drop)
    }

    /// Makes a call that needs the site alone.
    async fn call_site(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, body).await?.with_context(|| {
            format!("the simulated Tableau has no site {}. Nothing was done. Fix: leave out --site", self.site)
        })
    }

    /// Changes a webhook, which must exist.
    async fn change_webhook(&self, method: Method, change: &Value) -> anyhow::Result<()> {
        self.call(method, "webhooks", change).await?.map(drop).with_context(|| {
            let name = change["name"].as_str().unwrap_or_default();
            format!(
                "the site {} has no webhook {name}. Nothing was changed. Fix: correct the event, or register the stack's webhooks \
                 with `cargo infra reconcile apply`",
                self.site
            )
        })
    }

    fn report(&self, change: &str, report: Report<'_>) {
        report(Line::Done(format!("{change} on the site {}.", self.site)));
        report(Line::next("cargo infra reconcile plan", "shows what the reconciler will do"));
    }

    /// Makes a call of the simulator's own. Returns the answer, null if it is empty, and `None` if there is nothing to act on.
    async fn call(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Option<Value>> {
        let url = format!("{}/_simulator/{path}", self.address);
        let response = self.http.request(method, &url).json(body).send().await;
        let response =
            response.context("the Tableau simulator does not answer. Fix: start `cargo infra local` again")?;
        let (status, text) = (response.status(), response.text().await?);
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        ensure!(status.is_success(), "the Tableau simulator answered {status}. Nothing was changed. Details: {text}");
        if text.is_empty() {
            return Ok(Some(Value::Null));
        }
        serde_json::from_str(&text).map(Some).context("the Tableau simulator's answer is no JSON")
    }
}

/// Describes that a site has no token of a name.
fn no_token(site: &str, name: &str) -> String {
    format!("the site {site} has no token {name}. Nothing was changed. Fix: run `cargo infra simulate new-token`")
}
