//! The window of a running stack: each event, each alert, and each message to a target as it arrives, a line each.

use serde_json::{Value, json};
use shared::{
    alerts::{phrasing::pluralize, text::plain},
    refreshes::{explanation::EXPLAINED, resolution::RESOLVED},
};
use time::{OffsetDateTime, macros::format_description};

use super::{
    servers::Servers,
    sink::{Arrival, Sink},
};
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
    pub(super) async fn show(&self, sink: &mut Sink) -> anyhow::Result<()> {
        let (events, alerts) = (self.show_all(&self.events, event_line), self.show_all(&self.alerts, alert_line));
        tokio::try_join!(events, alerts, show_targets(sink))?;
        Ok(())
    }

    async fn show_all(&self, queue: &str, format: fn(&Value) -> String) -> anyhow::Result<()> {
        loop {
            for message in queue::receive(&self.cloud.aws, queue).await? {
                let body = message["Body"].as_str().unwrap_or_default();
                // Everybody may publish to a topic of the local cloud.
                print_arrival(&serde_json::from_str(body).map_or_else(|_| plain(body), |message| format(&message)))?;
            }
        }
    }
}

/// Prints the messages of targets until an error.
async fn show_targets(sink: &mut Sink) -> anyhow::Result<()> {
    loop {
        let Arrival { target, text } = sink.arrival().await?;
        print_arrival(&format!("{}  {target}  {text}", styled(BOLD, "target")))?;
    }
}

/// Prints a line with the time.
fn print_arrival(line: &str) -> anyhow::Result<()> {
    let now = OffsetDateTime::now_utc().format(format_description!("[hour]:[minute]:[second]"))?;
    print(format!("{}  {line}", styled(DIM, now)));
    Ok(())
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
