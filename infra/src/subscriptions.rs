//! Subscribers of the stack's topics, without addresses that hold a secret or a whole personal address.

use std::fmt;

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Url;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{
    aws::{Aws, has_code},
    findings::Finding,
    stack::Stack,
    temporary_queues::{NO_TOPIC, is_temporary},
    terminal::{BAD, styled},
};

/// The most subscriptions of a topic whose filter policies are read.
const MAX_FILTERS: usize = 100;

/// Calls side by side. Each is a process of the AWS CLI.
const CALLS_AT_ONCE: usize = 4;

/// Error codes of SNS for a subscription of another account, and for one that was deleted since.
const UNREADABLE: [&str; 2] = ["AuthorizationError", "NotFound"];

/// The end of the host at which Amazon Q Developer in chat applications, once AWS Chatbot, subscribes.
const AMAZON_Q: &str = ".chatbot.amazonaws.com";

/// The most characters of a filter policy.
const MAX_FILTER_CHARACTERS: usize = 60;

/// The most subscribers of a topic in one line.
const MAX_IN_LINE: usize = 3;

/// A subscriber of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subscription {
    /// SNS's name of the protocol, such as `sqs` or `email`.
    pub protocol: String,
    /// The name of a queue, function or stream, the host of a URL, or a part of a personal address.
    pub endpoint: String,
    /// Which messages it gets.
    pub filter: Filter,
    /// Whether its owner has confirmed it. Until then it gets nothing.
    pub confirmed: bool,
}

/// Which messages of a topic a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All.
    None,
    /// Those that a policy on the attributes lets through.
    Attributes(Value),
    /// Those that a policy on the body lets through.
    Body(Value),
    /// SNS does not show it.
    Unknown,
}

/// The subscribers of both topics of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Subscribers {
    /// Of the events topic.
    pub events: Vec<Subscription>,
    /// Of the alerts topic.
    pub alerts: Vec<Subscription>,
    /// ARN of the alerts topic.
    #[serde(skip)]
    pub alerts_topic: String,
    /// ARNs of topics that somebody deleted.
    #[serde(skip)]
    pub missing_topics: Vec<String>,
}

impl Subscribers {
    /// Reads the subscribers, without the stack's own queue and the temporary ones of `cargo infra test`.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn read(aws: &Aws, stack: &Stack) -> anyhow::Result<Self> {
        let (events_topic, alerts_topic) = (stack.output("EventsTopicArn")?, stack.output("AlertsTopicArn")?);
        let (events, alerts) = tokio::try_join!(of_topic(aws, events_topic), of_topic(aws, alerts_topic))?;
        let missing_topics = [(events_topic, &events), (alerts_topic, &alerts)];
        let missing_topics = missing_topics.into_iter().filter(|(_, subscribers)| subscribers.is_none());
        let missing_topics = missing_topics.map(|(topic, _)| topic.to_owned()).collect();
        let (mut events, mut alerts) = (events.unwrap_or_default(), alerts.unwrap_or_default());
        let own_queue = format!("{}-failures", stack.name());
        for subscribers in [&mut events, &mut alerts] {
            let is_ours = |queue: &str| queue == own_queue || is_temporary(stack.name(), queue);
            subscribers.retain(|it| it.protocol != "sqs" || !is_ours(&it.endpoint));
        }
        Ok(Self { events, alerts, alerts_topic: alerts_topic.to_owned(), missing_topics })
    }

    /// Returns what is wrong with the topics: one is missing, or alerts reach nobody.
    pub fn findings(&self) -> Vec<Finding> {
        let missing = self.missing_topics.iter().map(|topic| missing_topic(topic));
        let alerts = if self.missing_topics.contains(&self.alerts_topic) { None } else { self.alerts_reach_nobody() };
        missing.chain(alerts).collect()
    }

    fn alerts_reach_nobody(&self) -> Option<Finding> {
        let Self { events, alerts, alerts_topic, .. } = self;
        if alerts.iter().any(|subscriber| subscriber.confirmed) {
            return None;
        }
        let subscribe = format!(
            "aws sns subscribe --topic-arn {alerts_topic} --protocol email --notification-endpoint you@example.com"
        );
        let effect = "Failed refreshes and problems of sites reach nobody.";
        Some(match alerts.first() {
            Some(subscriber) => Finding::wrong(
                format!("no subscriber of alerts has confirmed. {effect}"),
                format!(
                    "confirm by the message that AWS sent to {}. AWS sends it again with: {subscribe}",
                    subscriber.endpoint
                ),
            ),
            None if events.is_empty() => {
                Finding::wrong(format!("nobody is subscribed to events or alerts. {effect}"), subscribe)
            }
            None => Finding::wrong(format!("nobody is subscribed to alerts. {effect}"), subscribe),
        })
    }

    /// Formats both topics in one line.
    pub fn short(&self) -> String {
        format!("events: {}; alerts: {}", in_short(&self.events), in_short(&self.alerts))
    }

    /// Formats each subscriber in a line.
    pub fn lines(&self) -> Vec<String> {
        let of = |topic: &'static str, subscribers: &[Subscription]| {
            let lines: Vec<_> = subscribers.iter().map(|subscriber| format!("{topic}  {subscriber}")).collect();
            if lines.is_empty() { vec![format!("{topic}  {}", nobody())] } else { lines }
        };
        [of("events", &self.events), of("alerts", &self.alerts)].concat()
    }
}

fn nobody() -> String {
    styled(BAD, "nobody")
}

fn in_short(subscribers: &[Subscription]) -> String {
    let named: Vec<_> = subscribers.iter().take(MAX_IN_LINE).map(ToString::to_string).collect();
    match subscribers.len() {
        0 => nobody(),
        count if count > MAX_IN_LINE => format!("{} and {} more", named.join(", "), count - MAX_IN_LINE),
        _ => named.join(", "),
    }
}

/// Describes a topic that somebody deleted. CloudFormation does not create it again while its template stays as it is.
fn missing_topic(topic: &str) -> Finding {
    let name = topic.rsplit(':').next().unwrap_or_default();
    let fifo = if name.ends_with(".fifo") { " --attributes FifoTopic=true" } else { "" };
    Finding::wrong(
        format!("the topic {name} does not exist. SNS rejects everything for it; the receiver's log keeps the events."),
        format!("aws sns create-topic --name {name}{fifo}, subscribe again, then cargo infra replay 24"),
    )
}

/// Reads the subscriptions of a topic, sorted. `None` if it does not exist.
async fn of_topic(aws: &Aws, topic: &str) -> anyhow::Result<Option<Vec<Subscription>>> {
    let query = "Subscriptions[].[Protocol, Endpoint, SubscriptionArn]";
    let listed = aws.json(&["sns", "list-subscriptions-by-topic", "--topic-arn", topic, "--query", query]).await;
    let listed = match listed {
        Err(error) if has_code(&error, NO_TOPIC) => return Ok(None),
        listed => listed?,
    };
    let listed = listed.as_array().cloned().context("no list of subscriptions")?;
    let read = listed.into_iter().enumerate().map(|(index, subscription)| async move {
        let text = |index: usize| subscription[index].as_str().unwrap_or_default();
        let (protocol, endpoint) = (text(0).to_owned(), shorten(text(0), text(1)));
        // SNS shows an ARN only of a confirmed subscription. A local cloud always does.
        let (filter, confirmed) = match text(2) {
            arn if !arn.starts_with("arn:") => (Filter::Unknown, false),
            _ if index >= MAX_FILTERS => (Filter::Unknown, true),
            arn => attributes(aws, arn).await?,
        };
        anyhow::Ok(Subscription { protocol, endpoint, filter, confirmed })
    });
    let mut all: Vec<_> = stream::iter(read).buffered(CALLS_AT_ONCE).try_collect().await?;
    // SNS lists them in any order.
    all.sort_by(|a, b| (&a.protocol, &a.endpoint).cmp(&(&b.protocol, &b.endpoint)));
    Ok(Some(all))
}

/// Reads the filter of a subscription, and whether it is confirmed.
async fn attributes(aws: &Aws, arn: &str) -> anyhow::Result<(Filter, bool)> {
    let get = ["sns", "get-subscription-attributes", "--subscription-arn", arn, "--query", "Attributes"];
    let attributes = match aws.json(&get).await {
        Err(error) if UNREADABLE.iter().any(|code| has_code(&error, code)) => return Ok((Filter::Unknown, true)),
        attributes => attributes?,
    };
    Ok((Filter::of(&attributes), attributes["PendingConfirmation"] != "true"))
}

/// Shortens an endpoint, so that its owner recognizes it, and nobody can call or write to it.
fn shorten(protocol: &str, endpoint: &str) -> String {
    let characters: Vec<_> = endpoint.chars().collect();
    match protocol {
        // The path, the query and the user may be secrets.
        "http" | "https" => {
            let url = Url::parse(endpoint).ok();
            url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| "an unreadable URL".to_owned())
        }
        "email" | "email-json" => match endpoint.split_once('@') {
            Some((user, domain)) => format!("{}…@{domain}", user.chars().take(2).collect::<String>()),
            None => "…".to_owned(),
        },
        "sms" => format!("…{}", characters[characters.len().saturating_sub(3)..].iter().collect::<String>()),
        "sqs" | "lambda" | "firehose" => endpoint.rsplit([':', '/']).next().unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

impl Filter {
    fn of(attributes: &Value) -> Self {
        let Some(policy) = attributes["FilterPolicy"].as_str().filter(|policy| !policy.is_empty()) else {
            return Self::None;
        };
        match serde_json::from_str::<Value>(policy) {
            Ok(Value::Object(policy)) if policy.is_empty() => Self::None,
            Ok(policy) if attributes["FilterPolicyScope"] == "MessageBody" => Self::Body(policy),
            Ok(policy) => Self::Attributes(policy),
            Err(_) => Self::Unknown,
        }
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_none(),
            Self::Attributes(policy) | Self::Body(policy) => policy.serialize(serializer),
            Self::Unknown => serializer.serialize_str("unknown"),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scope, policy) = match self {
            Self::None => return Ok(()),
            Self::Unknown => return formatter.write_str("unknown filter"),
            Self::Attributes(policy) => ("", policy),
            Self::Body(policy) => ("body ", policy),
        };
        let keys =
            policy.as_object().into_iter().flatten().map(|(key, values)| format!("{key}={}", values_in_short(values)));
        let text = keys.collect::<Vec<_>>().join(" ");
        let short: String = text.chars().take(MAX_FILTER_CHARACTERS).collect();
        write!(formatter, "{scope}{short}{}", if short.len() < text.len() { "…" } else { "" })
    }
}

/// Formats the values of a key: texts as they are, anything else as JSON.
fn values_in_short(values: &Value) -> String {
    let Some(values) = values.as_array() else { return values.to_string() };
    let values = values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    values.collect::<Vec<_>>().join(",")
}

impl fmt::Display for Subscription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, endpoint, filter, confirmed } = self;
        match &**protocol {
            "https" if endpoint.ends_with(AMAZON_Q) => formatter.write_str("Amazon Q (Slack or Teams)")?,
            protocol if endpoint.is_empty() => formatter.write_str(protocol)?,
            protocol => write!(formatter, "{protocol} {endpoint}")?,
        }
        match (confirmed, filter) {
            (false, _) => formatter.write_str(" (not confirmed)"),
            (true, Filter::None) => Ok(()),
            (true, filter) => write!(formatter, " ({filter})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use serde_json::json;

    use super::*;

    #[test]
    fn an_endpoint_is_shortened_without_its_secrets() {
        for (protocol, endpoint, shown) in [
            ("https", "https://user:pass@hooks.example.com/services/T0/secret?sig=secret", "https hooks.example.com"),
            ("https", "https://global.sns-api.chatbot.amazonaws.com", "Amazon Q (Slack or Teams)"),
            ("https", "https://chatbot.amazonaws.com.evil.example/", "https chatbot.amazonaws.com.evil.example"),
            ("https", "secret", "https an unreadable URL"),
            ("email", "john.doe@example.com", "email jo…@example.com"),
            ("email-json", "a@example.com", "email-json a…@example.com"),
            ("sms", "+15555550100", "sms …100"),
            ("sqs", "arn:aws:sqs:us-east-1:111122223333:tableau-failures", "sqs tableau-failures"),
            ("lambda", "arn:aws:lambda:us-east-1:111122223333:function:content", "lambda content"),
            ("firehose", "arn:aws:firehose:us-east-1:111122223333:deliverystream/archive", "firehose archive"),
            ("application", "arn:aws:sns:us-east-1:111122223333:endpoint/GCM/app/a-token", "application"),
        ] {
            assert_eq!(subscriber(protocol, endpoint, true).to_string(), shown);
        }
        assert_eq!(subscriber("email", "john@example.com", false).to_string(), "email jo…@example.com (not confirmed)");
    }

    #[test]
    fn a_filter_policy_is_shown_in_short() {
        let filter = |policy: Value, scope: &str| {
            Filter::of(&json!({ "FilterPolicy": policy.to_string(), "FilterPolicyScope": scope })).to_string()
        };
        let both = json!({ "action": ["refresh-failed"], "site": ["finance", { "prefix": "m" }] });
        assert_eq!(filter(both, "MessageAttributes"), r#"action=refresh-failed site=finance,{"prefix":"m"}"#);
        assert_eq!(filter(json!({ "type": ["a"] }), "MessageBody"), "body type=a");
        assert_eq!(filter(json!({}), "MessageBody"), "");
        let long = filter(json!({ "resource_name": ["ä".repeat(80)] }), "MessageAttributes");
        assert_eq!((long.chars().count(), long.ends_with('…')), (MAX_FILTER_CHARACTERS + 1, true));
        assert_eq!(Filter::of(&json!({})), Filter::None);
        assert_eq!(
            json!([Filter::None, Filter::Attributes(json!({ "a": [1] })), Filter::Unknown]),
            json!([null, { "a": [1] }, "unknown"])
        );
    }

    #[test]
    fn alerts_that_reach_nobody_are_wrong_and_the_fix_names_the_topic() {
        let queue = subscriber("sqs", "arn:aws:sqs:us-east-1:111122223333:q", true);
        let of = |alerts: &[Subscription], events: &[Subscription]| Subscribers {
            events: events.to_vec(),
            alerts: alerts.to_vec(),
            alerts_topic: "arn:alerts".to_owned(),
            missing_topics: Vec::new(),
        };
        let finding = |subscribers: Subscribers| subscribers.findings().pop();
        let none = finding(of(&[], &[])).expect("a finding");
        assert!(none.is_wrong && none.what.starts_with("nobody is subscribed to events or alerts."), "{none:?}");
        assert!(none.fix.starts_with("aws sns subscribe --topic-arn arn:alerts --protocol email"), "{none:?}");
        let pending = finding(of(&[subscriber("email", "jo@example.com", false)], &[])).expect("a finding");
        assert!(pending.what.starts_with("no subscriber of alerts has confirmed."), "{pending:?}");
        assert_eq!(finding(of(from_ref(&queue), &[])), None);
        for topic in ["arn:alerts", "arn:fan-events.fifo"] {
            let findings =
                Subscribers { missing_topics: vec![topic.to_owned()], ..of(from_ref(&queue), &[]) }.findings();
            assert!(findings.len() == 1 && findings[0].what.contains("does not exist"), "{findings:?}");
        }
        let many = vec![queue; MAX_IN_LINE + 2];
        assert_eq!(of(&many, &[]).short(), format!("events: {}; alerts: sqs q, sqs q, sqs q and 2 more", nobody()));
    }

    fn subscriber(protocol: &str, endpoint: &str, confirmed: bool) -> Subscription {
        Subscription {
            protocol: protocol.to_owned(),
            endpoint: shorten(protocol, endpoint),
            filter: Filter::None,
            confirmed,
        }
    }
}
