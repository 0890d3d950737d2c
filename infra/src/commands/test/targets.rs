//! The targets in a test: whether each one that gets the test's messages took them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::Value;
use shared::{
    alerts::phrasing::pluralize,
    sites::commands::infra,
    targets::{entry::TargetEntry, message::TargetMessage},
};
use time::OffsetDateTime;
use tokio::time::sleep;

use super::queues::Received;
use crate::{
    aws::Aws,
    log,
    stack::Stack,
    steps::{show, step},
    target_messages::{Topic, lets_test_through},
    target_stack,
    targets::{self, Target},
    terminal::{bad, good, warning},
};

/// How long a message may take to a target, and the forwarder's line to the log.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between two reads of the log.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Lines of the forwarder's log about messages.
const HANDLED: &str = "{ $.target = * }";

/// Status of a target that limits its rate. The message is sent again soon.
const TOO_MANY_REQUESTS: u64 = 429;

/// The part of a test about targets.
#[derive(Clone, Copy, Debug)]
pub(super) struct TargetTest<'a> {
    pub(super) aws: &'a Aws,
    pub(super) stack: &'a Stack,
    /// The begin of the test.
    pub(super) start: OffsetDateTime,
    pub(super) received: &'a Received,
}

/// The test of a target.
enum Expectation {
    /// It gets the message with this identifier.
    Gets(String),
    /// It may get it: only SNS knows its filter policy.
    MayGet(String),
    /// It does not get any, for this reason.
    NotTried(String),
    /// It cannot get any.
    Broken { problem: String, fix: String },
}

/// The forwarder's result for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Forwarded,
    Failed(String),
}

impl TargetTest<'_> {
    /// Checks the targets, in a step if there are any. Returns the failures.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub(super) async fn check(self) -> anyhow::Result<Vec<String>> {
        let targets = targets::read(self.aws, self.stack, OffsetDateTime::now_utc()).await?;
        if targets.is_empty() {
            return Ok(Vec::new());
        }
        step("Deliver to the targets", self.check_all(&targets)).await
    }

    async fn check_all(self, targets: &[Target]) -> anyhow::Result<Vec<String>> {
        let expected: Vec<_> = targets.iter().map(|target| (target, self.expectation(target))).collect();
        let results = self.results(&expected).await?;
        let width = targets.iter().map(|target| target.name.len()).max().unwrap_or_default();
        let mut failed = 0;
        for (target, expectation) in &expected {
            let line = |text: &str| format!("{:width$}  {text}", target.name);
            let result = results.get(&*target.name);
            match (expectation, result) {
                (Expectation::Gets(_) | Expectation::MayGet(_), Some(Outcome::Forwarded)) => {
                    show(&good(line("took the message of the test")));
                }
                (Expectation::Gets(_) | Expectation::MayGet(_), Some(Outcome::Failed(error))) => {
                    failed += 1;
                    show(&bad(line(error)));
                    show(&format!("  Fix: {}", self.fix(target)));
                }
                (Expectation::Gets(_), None) => {
                    failed += 1;
                    let seconds = ARRIVAL_TIMEOUT.as_secs();
                    show(&bad(line(&format!("took no message within {seconds} s"))));
                    show(&format!("  Fix: see its queue with {}", infra("targets", self.stack.name())));
                }
                (Expectation::MayGet(_), None) => {
                    show(&warning(line("took no message. Its filter policy may not let the test through")));
                }
                (Expectation::NotTried(reason), _) => show(&warning(line(reason))),
                (Expectation::Broken { problem, fix }, _) => {
                    failed += 1;
                    show(&bad(line(problem)));
                    show(&format!("  Fix: {fix}"));
                }
            }
        }
        let failures =
            (failed > 0).then(|| format!("{failed} of {} failed", pluralize(targets.len(), "target", "targets")));
        Ok(failures.into_iter().collect())
    }

    fn fix(self, target: &Target) -> String {
        let change = infra(&format!("add-target {} --overwrite", target.name), self.stack.name());
        format!("correct the target, such as with {change}")
    }

    /// Returns the part of a target in the test.
    fn expectation(self, target: &Target) -> Expectation {
        let reading = target.reading(self.stack);
        if let Some(problem) = reading.problem {
            return Expectation::Broken { problem, fix: reading.fix };
        }
        let (Some(entry), Some((topic, policy))) = (target.entry(), target.subscription(self.stack)) else {
            return Expectation::Broken { problem: "its stack has no subscription".to_owned(), fix: self.fix(target) };
        };
        if entry.preset.coalesces() {
            return Expectation::NotTried("not tried, since it gets one call at most every 6 minutes".to_owned());
        }
        let sample = infra(&format!("add-target {} --overwrite < /dev/null", target.name), self.stack.name());
        let other = format!(
            "not tried, since it gets {} only. To send it a sample: {sample}",
            reading.gets.unwrap_or_default()
        );
        let (message, lets_through) = match topic {
            Topic::Events => {
                let event = self.received.event.as_ref();
                let site = event.map(|event| event.attribute("site")).unwrap_or_default();
                (event.and_then(|event| TargetMessage::parse(event.body()).ok()), lets_test_through(&policy, site))
            }
            Topic::Alerts => {
                let alert = self.received.alert.as_ref().and_then(|alert| alert.data.clone());
                (alert.map(TargetMessage::Alert), Some(true))
            }
        };
        match (message, lets_through) {
            (_, Some(false)) => Expectation::NotTried(other),
            (None, _) => Expectation::NotTried(format!("not tried, since no message came to the {topic}")),
            (Some(message), _) if !is_selected(&message, entry) => Expectation::NotTried(other),
            (Some(message), Some(true)) => Expectation::Gets(message.id().to_owned()),
            (Some(message), None) => Expectation::MayGet(message.id().to_owned()),
        }
    }

    /// Waits for the forwarder's lines about the messages, and returns the results by target.
    async fn results(self, expected: &[(&Target, Expectation)]) -> anyhow::Result<BTreeMap<String, Outcome>> {
        let forwarder = target_stack::forwarder(self.stack.name());
        let wait_start = Instant::now();
        loop {
            let lines = log::lines(self.aws, &forwarder, self.start, HANDLED).await?;
            let mut results = BTreeMap::new();
            let mut is_complete = true;
            for (target, expectation) in expected {
                let (Expectation::Gets(id) | Expectation::MayGet(id)) = expectation else { continue };
                match result(&lines, &target.name, id) {
                    Some(result) => drop(results.insert(target.name.clone(), result)),
                    None => is_complete &= matches!(expectation, Expectation::MayGet(_)),
                }
            }
            if is_complete || wait_start.elapsed() > ARRIVAL_TIMEOUT {
                return Ok(results);
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}

fn is_selected(message: &TargetMessage, entry: &TargetEntry) -> bool {
    message.is_selected(&entry.selection)
}

/// Finds the result for a message in the forwarder's log.
fn result(lines: &Value, target: &str, id: &str) -> Option<Outcome> {
    let about = log::in_json(lines).filter(|(_, line)| line["target"] == target && line["event_id"] == id);
    let (_, line) = about.max_by_key(|(at, _)| *at)?;
    let error = || line["error"].as_str().unwrap_or("no reason is known").to_owned();
    match line["outcome"].as_str()? {
        "forwarded" => Some(Outcome::Forwarded),
        "dead letter" => Some(Outcome::Failed(format!("{}. The message is a dead letter", error()))),
        "again" if line["status"] != TOO_MANY_REQUESTS => {
            Some(Outcome::Failed(format!("{}. It is sent again", error())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_line_about_a_message_is_its_result() {
        let line = |target: &str, id: &str, outcome: &str, status: u16| {
            json!({ "target": target, "event_id": id, "outcome": outcome, "status": status, "error": "it broke" })
                .to_string()
        };
        let failed = |text: &str| Some(Outcome::Failed(text.to_owned()));
        for (lines, expected) in [
            (vec![], None),
            (vec![line("b", "1", "forwarded", 200), line("a", "2", "forwarded", 200)], None),
            (vec![line("a", "1", "again", 500), line("a", "1", "forwarded", 200)], Some(Outcome::Forwarded)),
            (vec![line("a", "1", "again", 500)], failed("it broke. It is sent again")),
            (vec![line("a", "1", "again", 429)], None),
            (vec![line("a", "1", "postponed", 0)], None),
            (vec![line("a", "1", "dead letter", 422)], failed("it broke. The message is a dead letter")),
        ] {
            let lines: Vec<_> = lines.into_iter().zip(1..).map(|(line, at)| json!([at, line])).collect();
            assert_eq!(result(&json!(lines), "a", "1"), expected, "{lines:?}");
        }
    }
}
