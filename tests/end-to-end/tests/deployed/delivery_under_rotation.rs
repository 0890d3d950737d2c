//! Rotation of the signing keys while Tableau delivers.

use axum::http::StatusCode;
use end_to_end::local_stack::LocalStack;
use serde_json::json;

#[tokio::test]
async fn every_delivery_is_accepted_at_once_while_keys_rotate() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    stack.declare("marketing", &["WorkbookCreated", "ViewDeleted"]).await?;
    stack.cloud.apply(&stack.stack).await?;
    // A wrong signature makes the receiver read the keys again, and then not again for a minute.
    let guess = format!("{}hooks/marketing/ViewDeleted/{}", receiver(&stack)?, "A".repeat(43));
    assert_eq!(stack.http.post(&guess).send().await?.status(), StatusCode::NOT_FOUND);

    let mut rotation = Box::pin(stack.cloud.reconcile(&stack.stack, "rotate"));
    let mut delivered = 0_usize;
    let report = loop {
        let event = if delivered.is_multiple_of(2) { "WorkbookCreated" } else { "ViewDeleted" };
        let fired = async {
            // One after another, until the rotation ends.
            let body =
                json!({ "event_type": event, "resource_luid": "99", "resource_name": format!("{delivered} 📈") });
            let answers = stack.fire("marketing", event, &body, 1).await?;
            anyhow::ensure!(answers == [Some(200)], "delivery {delivered} was answered {answers:?}");
            anyhow::Ok(())
        };
        tokio::select! {
            biased;
            report = &mut rotation => break report?,
            result = fired => { result?; delivered += 1; }
        }
    };
    println!("{delivered} deliveries while the keys were rotated");
    assert!(delivered > 10, "{delivered} deliveries");
    assert_eq!(report["sites"][0]["updated"].as_array().map(Vec::len), Some(2), "{report}");
    assert!(report["text"].as_str().is_some_and(|text| text.contains("test was answered 200")), "{report}");
    for event in ["WorkbookCreated", "ViewDeleted"] {
        let body = json!({ "event_type": event, "resource_name": "after 📈" });
        assert_eq!(stack.fire("marketing", event, &body, 1).await?, [Some(200)]);
    }
    Ok(())
}

/// Returns the receiver's URL for this machine.
fn receiver(stack: &LocalStack) -> anyhow::Result<String> {
    stack.stack.reachable_receiver_url(&stack.cloud.aws)
}
