//! The window of a running stack: each event and each alert as it arrives, a line each.

use serde_json::{Value, json};
use shared::{
    alerts::{phrasing::pluralize, text::plain},
    refreshes::{explanation::EXPLAINED, resolution::RESOLVED},
};
use time::{OffsetDateTime, macros::format_description};

use super::servers::Servers;
use crate::{
    cloud::Cloud,
    queue,
    stack::Stack,
    terminal::{BAD, BOLD, DIM, GOOD, WARNING, print, styled},
};

/// Begins the name of every event's type.
const TYPE_PREFIX: &str = "com.tableau.";

/// Width of the column with the name of the event: the longest is `DatasourceRefreshSucceeded`.
const EVENT_WIDTH: usize = 26;

/// Queues that get everything that the stack publishes.
pub(super) struct Window<'a> {
    cloud: &'a Cloud,
    events: String,
    alerts: String,
}

impl<'a> Window<'a> {
    /// Subscribes the queues.
    pub(super) async fn open(servers: &'a Servers<'_>, stack: &Stack) -> anyhow::Result<Self> {
        let cloud = &servers.cloud;
        let raw = json!({ "RawMessageDelivery": "true" });
        let events = cloud.subscribe_queue_to(stack.output("EventsTopicArn")?, "window-events", &raw).await?;
        let alerts = cloud.subscribe_queue_to(stack.output("AlertsTopicArn")?, "window-alerts", &json!({})).await?;
        Ok(Self { cloud, events, alerts })
    }

    /// Prints the messages until an error.
    pub(super) async fn show(&self) -> anyhow::Result<()> {
        tokio::try_join!(self.show_all(&self.events, event_line), self.show_all(&self.alerts, alert_line))?;
        Ok(())
    }

    async fn show_all(&self, queue: &str, format: fn(&Value) -> String) -> anyhow::Result<()> {
        let now = format_description!("[hour]:[minute]:[second]");
        loop {
            for message in queue::receive(&self.cloud.aws, queue).await? {
                let body = message["Body"].as_str().unwrap_or_default();
                let arrival = styled(DIM, OffsetDateTime::now_utc().format(&now)?);
                // Everybody may publish to a topic of the local cloud.
                let line = serde_json::from_str(body).map_or_else(|_| plain(body), |message| format(&message));
                print(format!("{arrival}  {line}"));
            }
        }
    }
}

/// Formats an event: site, event, resource, and what the reconciler found out about it.
fn event_line(event: &Value) -> String {
    let text = |value: &Value| plain(value.as_str().unwrap_or_default());
    let (source, name) = (text(&event["source"]), text(&event["type"]));
    let (site, name) = (source.trim_start_matches("/tableau/"), name.trim_start_matches(TYPE_PREFIX));
    let style = match name {
        _ if name.ends_with("Failed") || name == EXPLAINED => BAD,
        _ if name.ends_with("Succeeded") || name == RESOLVED => GOOD,
        _ => BOLD,
    };
    let resource = text(&event["data"]["resource_name"]);
    let findings = findings(&event["data"]);
    let recovered = if event["recovered"] == true { "  (recovered from Tableau's jobs)" } else { "" };
    let line =
        format!("event  {site}  {}  {resource}{findings}{recovered}", styled(style, format!("{name:EVENT_WIDTH$}")));
    line.trim_end().to_owned()
}

/// Formats what an event of the reconciler says of a resource: its project and owner, how often it had failed until it worked
/// again, and the reason of its failure with the page to open.
fn findings(data: &Value) -> String {
    let text = |value: &Value| value.as_str().map(plain);
    let named = |name: &str| Some(format!("{name} {}", text(&data[name]["name"])?));
    let context: Vec<_> = ["project", "owner"].into_iter().filter_map(named).collect();
    let context = if context.is_empty() { String::new() } else { format!(" ({})", context.join(", ")) };
    let failures = data["failures"].as_u64().and_then(|failures| usize::try_from(failures).ok());
    let failures =
        failures.map(|failures| format!(" works again after {}", pluralize(failures, "failure", "failures")));
    let reason = text(&data["notes"]).map(|notes| format!(": {notes}"));
    let page = text(&data["resource_url"]).filter(|_| failures.is_none()).map(|page| format!(" {page}"));
    [Some(context), failures, reason, page].into_iter().flatten().collect()
}

/// Formats an alert: its title, which names the site.
fn alert_line(alert: &Value) -> String {
    let subject = plain(alert["Subject"].as_str().unwrap_or_default());
    // Such as `Tableau marketing: workbook refresh works again: Sales`.
    let happened = subject.split(": ").nth(1).unwrap_or_default();
    let is_over = happened == "solved" || ["works again", "work again"].iter().any(|end| happened.ends_with(end));
    format!("{}  {subject}", styled(if is_over { GOOD } else { WARNING }, "alert"))
}
