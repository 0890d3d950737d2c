//! A failing refresh, step by step: its event and alert, Tableau's reason, and the alert that it works again.

use anyhow::{Context, ensure};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use shared::alerts::message::AlertMessage;

use super::{
    servers::Servers,
    tour::{apply, find, published_id},
};
use crate::{
    sample::{self, SITE},
    stack::Stack,
    steps::{show, step},
};

/// Name of the data source that is refreshed.
const NAME: &str = "Superstore";

const PROJECT: &str = "Finance";

const OWNER: &str = "Grace Hopper";

/// Tableau's reason of the failure.
const REASON: &str = "[Microsoft][ODBC Driver 17 for SQL Server] Login failed for user 'etl'.";

/// Event of the failure.
const FAILED: &str = "DatasourceRefreshFailed";

/// The event's part that Tableau sent, byte for byte.
#[derive(Deserialize)]
struct Sent<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

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
    let title = "The alerts topic delivers the alert: by e-mail, and as a card in Slack or Teams";
    step(title, alerts.show_first(&event, stack)).await?;
    apply(cloud, stack, "Run the reconciler: it asks Tableau for the reason, as its schedule does within two minutes")
        .await?;
    let title = "The alerts topic delivers the reason, by SMS too, with project, owner and a link";
    let email = step(title, alerts.show_reason()).await?;
    step("Open the link", open_link(servers, &email)).await?;
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
async fn open_link(servers: &Servers<'_>, email: &str) -> anyhow::Result<()> {
    let link = email.lines().find_map(|line| line.strip_prefix("Open the datasource: "));
    let link = link.context("the alert has no link to the data source")?;
    // A browser keeps the part from `#` to itself, and the script of the page at `/` opens that path.
    let page = servers.simulator.http.get(link.replace("/#", "")).send().await?.error_for_status()?.text().await?;
    ensure!(page.contains(&format!("<h1>{NAME}</h1>")), "{link} opens another page: {page}");
    show(&format!("{link} opens the page of {NAME}"));
    Ok(())
}

impl Alerts<'_> {
    /// Waits for the alert with this subject, shows it as an e-mail, and returns its text.
    async fn show(&self, subject: &str) -> anyhow::Result<String> {
        let messages = self.servers.cloud.receive_some(&self.queue).await?;
        let alerts = messages.iter().filter_map(|message| message["Body"].as_str());
        let alerts: Vec<Value> = alerts.map(serde_json::from_str).collect::<Result<_, _>>()?;
        let arrived = alerts.iter().find(|alert| alert["Subject"] == subject);
        let arrived = arrived.with_context(|| format!("another alert arrived: {alerts:?}"))?;
        let text = arrived["Message"].as_str().context("an alert without a text")?;
        show(&format!("E-mail   {subject}\n\n{text}"));
        Ok(text.to_owned())
    }

    /// Shows the alert about the failure, as an e-mail and as a card.
    async fn show_first(&self, event: &str, stack: &Stack) -> anyhow::Result<()> {
        let Sent { data } = serde_json::from_str(event)?;
        let keyring = stack.keyring(&self.servers.cloud.aws).await?;
        let AlertMessage { subject, body } = sample::alert(FAILED, data.get(), &keyring)?;
        let texts: Value = serde_json::from_str(&body)?;
        // No e-mail leaves this machine. The queue gets the default text. If it is the text of this message, the other
        // texts are too.
        let arrived = self.show(&subject).await?;
        ensure!(texts["default"] == arrived, "the alert has another text than {}", texts["default"]);
        let card: Value = serde_json::from_str(texts["https"].as_str().context("an alert without a card")?)?;
        show(&format!("\nCard\n{card:#}"));
        Ok(())
    }

    /// Shows the alert with the reason of the failure. Returns its text.
    async fn show_reason(&self) -> anyhow::Result<String> {
        let email = self.show(&format!("Tableau {SITE}: why the datasource refresh failed: {NAME}")).await?;
        for part in [REASON, PROJECT, OWNER] {
            ensure!(email.contains(part), "the alert has no {part:?}");
        }
        Ok(email)
    }
}
