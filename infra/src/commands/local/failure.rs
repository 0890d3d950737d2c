//! A failing refresh, step by step: its event and alert, Tableau's reason, and the alert that it works again.

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use shared::alerts::{data::AlertData, message::AlertMessage};

use super::{
    servers::Servers,
    tour::{apply, find, published_id},
};
use crate::{
    sample::{self, SITE},
    stack::Stack,
    steps::{show, step},
    tail::data_of,
};

/// Name of the data source that is refreshed.
const NAME: &str = "Superstore";

const PROJECT: &str = "Finance";

const OWNER: &str = "Grace Hopper";

/// Tableau's reason of the failure.
const REASON: &str = "[Microsoft][ODBC Driver 17 for SQL Server] Login failed for user 'etl'.";

/// Event of the failure.
const FAILED: &str = "DatasourceRefreshFailed";

/// The alerts about a refresh.
struct Alerts<'a> {
    servers: &'a Servers<'a>,
    /// URL of a queue that gets all alerts.
    queue: String,
}

/// Shows a refresh that fails, is explained, and works again.
pub(super) async fn run(servers: &Servers<'_>, stack: &Stack) -> anyhow::Result<()> {
    let cloud = &servers.cloud;
    let subscribe = step("Subscribe a queue to failed refreshes, and another to the alerts topic", async {
        let failures = cloud.subscribe_queue(stack, "failures", &json!({ "action": ["refresh-failed"] })).await?;
        let queue = cloud.subscribe_queue_to(stack.output("AlertsTopicArn")?, "alerts", &json!({})).await?;
        Ok((failures, queue))
    });
    let (failures, queue) = subscribe.await?;
    let alerts = Alerts { servers, queue };
    let id = step("An extract refresh fails on Tableau, which calls the receiver", fail(servers)).await?;
    let event = step("The events topic delivers the event", find(cloud, &failures, &id)).await?;
    let title = "The alerts topic delivers the alert: by e-mail, by SMS, and as a card in Slack or Teams";
    step(title, alerts.show_first(&event, stack)).await?;
    apply(cloud, stack, "Run the reconciler: it asks Tableau for the reason, as its schedule does within two minutes")
        .await?;
    let title = "The alerts topic delivers the reason, with project, owner and a link";
    let reason = step(title, alerts.show_reason()).await?;
    step("Open the link", open_link(servers, &reason)).await?;
    step("The refresh succeeds on Tableau", refresh(servers, "succeeded", None)).await?;
    apply(cloud, stack, "Run the reconciler: it asks Tableau which refreshes still fail").await?;
    let subject = format!("Tableau {SITE}: datasource refresh works again: {NAME}");
    step("The alerts topic delivers the alert that it works again", alerts.show(&subject)).await?;
    Ok(())
}

/// Lets the refresh of a data source fail. Returns the identifier of the published event.
async fn fail(servers: &Servers<'_>) -> anyhow::Result<String> {
    let owner = json!({ "name": "grace", "full_name": OWNER, "email": "grace@example.com" });
    let content = json!({ "site": SITE, "kind": "datasource", "name": NAME, "project": PROJECT, "owner": owner });
    servers.simulator.call(Method::PUT, "content", &content).await?;
    show(&format!("{NAME}, in the project {PROJECT}, of {OWNER}"));
    refresh(servers, "failed", Some(REASON)).await
}

/// Refreshes the data source. Returns the identifier of the last published event.
async fn refresh(servers: &Servers<'_>, outcome: &str, notes: Option<&str>) -> anyhow::Result<String> {
    let refresh = json!({ "site": SITE, "kind": "datasource", "name": NAME, "outcome": outcome, "notes": notes });
    let refreshed = servers.simulator.call(Method::POST, "refreshes", &refresh).await?;
    let refreshed: Value = serde_json::from_str(&refreshed)?;
    published_id(&refreshed["deliveries"])
}

/// Opens the data source's page by the link of an alert.
async fn open_link(servers: &Servers<'_>, alert: &AlertData) -> anyhow::Result<()> {
    let link = alert.links.iter().find(|link| link.label == "Open the datasource");
    let link = &link.context("the alert has no link to the data source")?.url;
    // A browser keeps the part from `#` to itself, and the script of the page at `/` opens that path.
    let page = servers.simulator.http.get(link.replace("/#", "")).send().await?.error_for_status()?.text().await?;
    ensure!(page.contains(&format!("<h1>{NAME}</h1>")), "{link} opens another page: {page}");
    show(&format!("{link} opens the page of {NAME}"));
    Ok(())
}

impl Alerts<'_> {
    /// Waits for the alert with this subject, which the queue gets as JSON, shows it, and returns it.
    async fn show(&self, subject: &str) -> anyhow::Result<AlertData> {
        let alert = self.receive(subject).await?;
        let links = alert.links.iter().map(|link| format!("{}: {}", link.label, link.url));
        let lines: Vec<_> = [alert.text.clone()].into_iter().chain(links).collect();
        show(&format!("Alert    {subject}\n\n{}", lines.join("\n")));
        Ok(alert)
    }

    async fn receive(&self, subject: &str) -> anyhow::Result<AlertData> {
        let messages = self.servers.cloud.receive_some(&self.queue).await?;
        let alerts = messages.iter().filter_map(|message| message["Body"].as_str());
        let alerts: Vec<Value> = alerts.map(serde_json::from_str).collect::<Result<_, _>>()?;
        let arrived = alerts.iter().find(|alert| alert["Subject"] == subject);
        let arrived = arrived.with_context(|| format!("another alert arrived: {alerts:?}"))?;
        Ok(serde_json::from_str(arrived["Message"].as_str().context("an alert without a text")?)?)
    }

    /// Shows the alert about the failure, as an e-mail and as a card.
    async fn show_first(&self, event: &str, stack: &Stack) -> anyhow::Result<()> {
        let keyring = stack.keyring(&self.servers.cloud.aws).await?;
        let AlertMessage { subject, body } = sample::alert(FAILED, data_of(event)?, &keyring)?;
        let texts: Value = serde_json::from_str(&body)?;
        // No e-mail leaves this machine. The queue gets the alert as JSON. If it is that of this message, the texts are too.
        let arrived = self.receive(&subject).await?;
        let text = |protocol: &str| texts[protocol].as_str().unwrap_or_default();
        ensure!(serde_json::from_str::<AlertData>(text("sqs"))? == arrived, "another alert arrived: {arrived:?}");
        show(&format!("E-mail   {subject}\n\n{}\n", text("email")));
        show(&format!("SMS      {}\n", text("sms")));
        show(&format!("Card\n{:#}", serde_json::from_str::<Value>(text("https"))?));
        Ok(())
    }

    /// Shows the alert with the reason of the failure.
    async fn show_reason(&self) -> anyhow::Result<AlertData> {
        let alert = self.show(&format!("Tableau {SITE}: why the datasource refresh failed: {NAME}")).await?;
        for part in ["Login failed for user 'etl'.", PROJECT, OWNER] {
            ensure!(alert.text.contains(part), "the alert has no {part:?}: {}", alert.text);
        }
        Ok(alert)
    }
}
