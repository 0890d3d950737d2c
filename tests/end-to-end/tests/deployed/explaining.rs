//! Failed refreshes on the deployed template: from Tableau's event to the reason with its context.

use std::time::Duration;

use anyhow::Context;
use end_to_end::local_stack::LocalStack;
use reqwest::Method;
use serde_json::{Value, json};
use shared::alerts::data::AlertData;
use tokio::time::timeout;

/// Longer than a failure waits for its explanation: the delay of the queue, the next minute of the schedule, and a run.
const EXPLAINED_TIMEOUT: Duration = Duration::from_secs(180);

/// Waits for the alert with the reason.
async fn reason(stack: &LocalStack, alerts: &str) -> anyhow::Result<AlertData> {
    loop {
        for message in stack.cloud.receive(alerts).await? {
            let body: Value = serde_json::from_str(message["Body"].as_str().context("no body")?)?;
            if body["Subject"].as_str().is_some_and(|subject| subject.contains("why the workbook refresh failed")) {
                return Ok(serde_json::from_str(body["Message"].as_str().context("no message")?)?);
            }
        }
    }
}

#[tokio::test]
async fn the_schedule_explains_a_failure_with_its_project_and_owner_and_a_page_to_open() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    stack.declare("marketing", &["WorkbookRefreshFailed"]).await?;
    stack.cloud.apply(&stack.stack).await?;
    let of_finance = json!({ "event_type": ["RefreshFailureExplained"], "project": ["Finance"] });
    let of_finance = stack.cloud.subscribe_queue(&stack.stack, "finance", &of_finance).await?;
    let of_others = json!({ "event_type": ["RefreshFailureExplained"], "project": ["Sales"] });
    let of_others = stack.cloud.subscribe_queue(&stack.stack, "sales", &of_others).await?;
    let alerts = stack.cloud.subscribe_queue_to(stack.stack.output("AlertsTopicArn")?, "alerts", &json!({})).await?;
    let owner = json!({ "name": "grace@example.com", "full_name": "Grace Hopper", "email": "grace@example.com" });
    let content =
        json!({ "site": "marketing", "kind": "workbook", "name": "Budget", "project": "Finance", "owner": owner });
    stack.simulate(Method::PUT, "content", &content).await?;
    let refresh = json!({ "site": "marketing", "kind": "workbook", "name": "Budget", "outcome": "failed",
        "notes": "Login failed for user 'etl'." });
    stack.simulate(Method::POST, "refreshes", &refresh).await?;

    let alert = timeout(EXPLAINED_TIMEOUT, reason(&stack, &alerts)).await.context("no reason was sent")??;
    for expected in ["Login failed for user 'etl'.", "Project: Finance. Owner: Grace Hopper.", "Next run: "] {
        assert!(alert.text.contains(expected), "{alert:?}");
    }
    assert!(!format!("{alert:?}").contains("grace@"), "{alert:?}");
    // A browser keeps the part from `#` to itself, and the page's script opens it.
    for (label, shown) in [("Open the workbook", "<h1>Budget</h1>"), ("Refreshes of the site", "<td>Budget</td>")] {
        let link = alert.links.iter().find(|link| link.label == label).context("no link")?;
        let page = stack.http.get(link.url.replace("/#", "")).send().await?.text().await?;
        assert!(page.contains(shown), "{link:?}: {page}");
    }
    let explained = stack.cloud.receive_some(&of_finance).await?;
    let event: Value = serde_json::from_str(explained[0]["Body"].as_str().context("no body")?)?;
    assert_eq!(explained[0]["MessageAttributes"]["owner"]["StringValue"], "Grace Hopper");
    assert_eq!(event["data"]["notes"], "Login failed for user 'etl'.");
    assert_eq!(stack.cloud.receive(&of_others).await?, Vec::<Value>::new());
    Ok(())
}
