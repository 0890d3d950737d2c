//! An outage of the events topic.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::alerts::phrasing::pluralize;
use tempfile::TempDir;

use super::report::{Line, Report};
use crate::{
    aws::Aws,
    local_files::{DELETED_TOPIC, RunningStack},
    python::PythonTools,
    stack::Stack,
    stack_name::StackName,
};

/// Attributes of a subscription that the new topic gets again.
const ATTRIBUTES: [&str; 4] = ["FilterPolicy", "FilterPolicyScope", "RawMessageDelivery", "RedrivePolicy"];

/// The events topic of a running stack.
pub(super) struct Topic<'a> {
    aws: Aws,
    stack: &'a StackName,
    running: &'a RunningStack,
    _folder: TempDir,
}

/// A topic that was deleted.
#[derive(Serialize, Deserialize)]
struct Deleted {
    arn: String,
    subscriptions: Vec<Subscription>,
}

#[derive(Serialize, Deserialize)]
struct Subscription {
    protocol: String,
    endpoint: String,
    attributes: BTreeMap<String, Value>,
}

impl<'a> Topic<'a> {
    pub(super) fn connect(running: &'a RunningStack, stack: &'a StackName) -> anyhow::Result<Self> {
        let folder = TempDir::new().context("no temporary folder")?;
        let tools = PythonTools::for_local_stack(&running.workspace)?;
        let aws = Aws::local(&tools, running.endpoint.clone(), folder.path());
        Ok(Self { aws, stack, running, _folder: folder })
    }

    /// Deletes the topic, and notes its subscriptions.
    pub(super) async fn delete(&self, report: Report<'_>) -> anyhow::Result<()> {
        ensure!(
            !self.running.path(DELETED_TOPIC).exists(),
            "the events topic is deleted already. Nothing was done. Fix: bring it back with `cargo infra simulate restore-topic`"
        );
        let stack = Stack::read(&self.aws, &self.stack.to_string()).await?;
        let arn = stack.output("EventsTopicArn")?.to_owned();
        let deleted = Deleted { subscriptions: self.subscriptions(&arn).await?, arn };
        self.running.write(DELETED_TOPIC, &serde_json::to_string(&deleted)?)?;
        self.aws.run(&["sns", "delete-topic", "--topic-arn", &deleted.arn]).await?;
        report(Line::Done("The events topic is deleted: SNS rejects every event from now on.".to_owned()));
        report(Line::next("cargo infra simulate publish --name Lost", "shows Tableau's attempts fail"));
        Ok(())
    }

    /// Creates the topic again, with its subscriptions.
    pub(super) async fn restore(&self, report: Report<'_>) -> anyhow::Result<()> {
        let deleted = self.running.read(DELETED_TOPIC).context(
            "the events topic is not deleted. Nothing was done. Fix: delete it with `cargo infra simulate break-topic` first",
        )?;
        let Deleted { arn, subscriptions } =
            serde_json::from_str(&deleted).context("the list of subscriptions is no JSON")?;
        let name = arn.rsplit(':').next().context("a topic without a name")?;
        let fifo: &[&str] = if name.ends_with(".fifo") { &["--attributes", "FifoTopic=true"] } else { &[] };
        self.aws.run(&[&["sns", "create-topic", "--name", name], fifo].concat()).await?;
        for Subscription { protocol, endpoint, attributes } in &subscriptions {
            let subscribe = ["sns", "subscribe", "--topic-arn", &arn, "--protocol", protocol];
            let options = ["--notification-endpoint", endpoint, "--attributes", &json!(attributes).to_string()];
            self.aws.run(&[&subscribe[..], &options].concat()).await?;
        }
        fs::remove_file(self.running.path(DELETED_TOPIC)).context("the list of subscriptions cannot be deleted")?;
        let count = pluralize(subscriptions.len(), "subscription", "subscriptions");
        report(Line::Done(format!("The events topic is back, with its {count}.")));
        report(Line::next("cargo infra replay 1", "publishes the events that SNS rejected"));
        report(Line::next("cargo infra reconcile apply", "enables the webhooks that Tableau disabled"));
        Ok(())
    }

    async fn subscriptions(&self, topic: &str) -> anyhow::Result<Vec<Subscription>> {
        let list = ["sns", "list-subscriptions-by-topic", "--topic-arn", topic];
        let listed = self.aws.json(&list).await?;
        let mut subscriptions = Vec::new();
        for listed in listed["Subscriptions"].as_array().into_iter().flatten() {
            let text = |member: &str| listed[member].as_str().unwrap_or_default().to_owned();
            let arn = text("SubscriptionArn");
            let mut attributes = BTreeMap::new();
            // One that waits for its confirmation has none.
            if arn.starts_with("arn:") {
                let get = ["sns", "get-subscription-attributes", "--subscription-arn", &arn];
                let all: BTreeMap<String, Value> =
                    serde_json::from_value(self.aws.json(&get).await?["Attributes"].take())?;
                attributes
                    .extend(all.into_iter().filter(|(name, value)| ATTRIBUTES.contains(&name.as_str()) && value != ""));
            }
            subscriptions.push(Subscription { protocol: text("Protocol"), endpoint: text("Endpoint"), attributes });
        }
        Ok(subscriptions)
    }
}
