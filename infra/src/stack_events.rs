//! Progress of CloudFormation: each resource of a stack, when its creation, update or deletion ends.

use std::{pin::pin, time::Duration};

use serde_json::Value;
use tokio::time::sleep;

use crate::{
    aws::Aws,
    steps::show,
    terminal::{bad, good, warning},
};

/// Time between two requests for events.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Events of one request, newest first. Fewer happen between two requests.
const MAX_EVENTS: &str = "200";

/// Runs `work`, which changes the stack, and shows the stack's events until it ends. Returns its result, and the resources
/// whose change failed, each with the reason.
pub async fn shown_during<T>(aws: &Aws, stack: &str, work: impl Future<Output = T>) -> (T, Vec<String>) {
    let mut events = StackEvents::after_now(aws, stack).await;
    let mut work = pin!(work);
    loop {
        let result = tokio::select! {
            result = &mut work => Some(result),
            () = sleep(POLL_INTERVAL) => None,
        };
        events.show_new().await;
        if let Some(result) = result {
            return (result, events.failures);
        }
    }
}

/// The events of a stack since a time.
struct StackEvents {
    /// Prints no command, since a request is repeated every few seconds.
    aws: Aws,
    stack: String,
    /// Identifier of the newest event that is not to be shown any more.
    last: Option<String>,
    /// The resources whose change failed.
    failures: Vec<String>,
    is_unreadable: bool,
}

impl StackEvents {
    async fn after_now(aws: &Aws, stack: &str) -> Self {
        let (aws, stack) = (aws.clone().verbose(false), stack.to_owned());
        let mut events = Self { aws, stack, last: None, failures: Vec::new(), is_unreadable: false };
        // A stack that does not exist yet has no events.
        if let Ok(now) = events.read().await {
            events.last = id(now.first());
        }
        events
    }

    /// Reads the newest events.
    async fn read(&self) -> anyhow::Result<Vec<Value>> {
        let describe = ["cloudformation", "describe-stack-events", "--stack-name", &self.stack];
        let options = ["--max-items", MAX_EVENTS, "--query", "StackEvents"];
        Ok(serde_json::from_value::<Option<_>>(self.aws.json(&[&describe[..], &options].concat()).await?)?
            .unwrap_or_default())
    }

    async fn show_new(&mut self) {
        let events = match self.read().await {
            Ok(events) => events,
            // The stack's creation has not begun, or it is shown once why there is no progress.
            Err(error) => {
                if !format!("{error:#}").contains("does not exist") && !self.is_unreadable {
                    self.is_unreadable = true;
                    show(&warning(format!("CloudFormation's progress cannot be read. Details: {error:#}")));
                }
                return;
            }
        };
        let new: Vec<_> = events.iter().take_while(|event| id(Some(event)) != self.last).collect();
        for event in new.into_iter().rev() {
            line(event).iter().for_each(|line| show(line));
            self.failures.extend(failure(event));
        }
        self.last = id(events.first()).or(self.last.take());
    }
}

fn id(event: Option<&Value>) -> Option<String> {
    event?["EventId"].as_str().map(str::to_owned)
}

/// Formats the failed change of a resource, with the reason.
fn failure(event: &Value) -> Option<String> {
    let text = |name: &str| event[name].as_str();
    let reason = text("ResourceStatusReason").unwrap_or("no reason given");
    let is_failure = text("ResourceStatus")?.ends_with("_FAILED") && text("PhysicalResourceId") != text("StackId");
    is_failure.then(|| format!("{}: {reason}", text("LogicalResourceId").unwrap_or_default()))
}

/// Formats an event, if a resource's change ended with it, or the stack began to roll back.
fn line(event: &Value) -> Option<String> {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let (name, status) = (text("LogicalResourceId"), text("ResourceStatus"));
    let reason = match text("ResourceStatusReason") {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    // The stack itself is among its resources.
    if text("PhysicalResourceId") == text("StackId") {
        let is_rollback = matches!(status, "ROLLBACK_IN_PROGRESS" | "UPDATE_ROLLBACK_IN_PROGRESS");
        return is_rollback.then(|| warning(format!("CloudFormation takes the changes back{reason}")));
    }
    let done = match status {
        "CREATE_COMPLETE" => "created",
        "UPDATE_COMPLETE" => "updated",
        "DELETE_COMPLETE" => "deleted",
        "DELETE_SKIPPED" => "kept",
        status => return status.ends_with("_FAILED").then(|| bad(format!("{name} {status}{reason}"))),
    };
    Some(good(format!("{name} {done}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_shown_if_it_ends_the_change_of_a_resource() {
        for (name, status, expected) in [
            ("Receiver", "CREATE_IN_PROGRESS", None),
            ("Receiver", "CREATE_COMPLETE", Some("Receiver created")),
            ("Receiver", "UPDATE_COMPLETE", Some("Receiver updated")),
            ("Receiver", "DELETE_COMPLETE", Some("Receiver deleted")),
            ("Key", "DELETE_SKIPPED", Some("Key kept")),
            ("Receiver", "UPDATE_FAILED", Some("Receiver UPDATE_FAILED: why")),
            ("stack", "CREATE_COMPLETE", None),
            ("stack", "UPDATE_ROLLBACK_IN_PROGRESS", Some("CloudFormation takes the changes back: why")),
        ] {
            let event = json!({ "StackId": "stack", "PhysicalResourceId": name, "LogicalResourceId": name,
                "ResourceStatus": status, "ResourceStatusReason": "why" });
            let line = line(&event).map(|line| anstream::adapter::strip_str(&line).to_string());
            assert_eq!(line.as_deref().map(|line| &line[line.find(' ').unwrap_or(0) + 1..]), expected, "{status}");
        }
    }
}
