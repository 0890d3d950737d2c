//! The messages that a target gets: from which topic, with which filter policy, and by which selection of its entry.

use std::{fmt, str::FromStr};

use anyhow::ensure;
use serde_json::{Map, Value, json};
use shared::{
    alerts::data::AlertKind,
    refreshes::{explanation::EXPLAINED, resolution::RESOLVED},
    registration::site_name::SiteName,
    targets::{entry::Preset, selection::Selection},
};
use thiserror::Error;

/// Events about failed refreshes, by their names: Tableau's, the reason, and the end.
const FAILURE_EVENTS: [&str; 4] = ["DatasourceRefreshFailed", "WorkbookRefreshFailed", EXPLAINED, RESOLVED];

/// Alerts about failed refreshes.
const FAILURE_ALERTS: [AlertKind; 4] =
    [AlertKind::RefreshFailed, AlertKind::RefreshExplained, AlertKind::RefreshResolved, AlertKind::RefreshStopped];

/// The messages that a user wants at a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    /// Failed refreshes, their reasons and their ends.
    Failures,
    /// Alerts, as other subscribers of alerts get them.
    Alerts,
    /// Events.
    Everything,
    /// The events that a filter policy on the attributes lets through.
    Policy(Map<String, Value>),
}

/// The text names no messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(r#"expected failures, alerts, everything, or a filter policy as JSON, such as '{{"action":["created"]}}'"#)]
pub struct InvalidOn;

impl FromStr for On {
    type Err = InvalidOn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "failures" => Ok(Self::Failures),
            "alerts" => Ok(Self::Alerts),
            "everything" => Ok(Self::Everything),
            policy => serde_json::from_str(policy).map(Self::Policy).map_err(|_| InvalidOn),
        }
    }
}

/// A topic of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The events topic.
    Events,
    /// The alerts topic. Its messages have no attributes, so it takes no filter policy.
    Alerts,
}

impl Topic {
    /// Returns the output of the stack with the topic's ARN.
    pub fn output(self) -> &'static str {
        match self {
            Self::Events => "EventsTopicArn",
            Self::Alerts => "AlertsTopicArn",
        }
    }
}

/// The subscription of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    /// The topic.
    pub topic: Topic,
    /// The filter policy, empty for everything.
    pub policy: Map<String, Value>,
    /// The member `selection` of the entry; empty if it selects everything.
    pub selection: Map<String, Value>,
}

impl Messages {
    /// Returns the messages for a preset, of these sites and projects only; of all if there are none.
    ///
    /// A chat gets alerts, in which failures at the same time are one message. PagerDuty and programs get events: only an event
    /// has the thread of its resource, by which the end of a failure resolves it.
    ///
    /// # Errors
    ///
    /// The filter policy has an attribute that the sites or projects would replace.
    pub fn new(on: &On, preset: Preset, sites: &[SiteName], projects: &[String]) -> anyhow::Result<Self> {
        let is_chat = matches!(preset, Preset::Slack | Preset::Teams);
        let (topic, mut policy, mut selection) = match on {
            On::Failures if is_chat => {
                (Topic::Alerts, Map::new(), Map::from_iter([("kinds".to_owned(), json!(FAILURE_ALERTS))]))
            }
            On::Failures => (Topic::Events, failure_policy(), Map::new()),
            On::Alerts => (Topic::Alerts, Map::new(), Map::new()),
            On::Everything => (Topic::Events, Map::new(), Map::new()),
            On::Policy(policy) => (Topic::Events, policy.clone(), Map::new()),
        };
        for (attribute, member, values, is_any) in [
            ("site", "sites", json!(sites), sites.is_empty()),
            ("project", "projects", json!(projects), projects.is_empty()),
        ] {
            if is_any {
                continue;
            }
            ensure!(
                !policy.contains_key(attribute),
                "the filter policy has the attribute {attribute} already. Nothing was stored. Fix: leave out --{attribute}, \
                 or the attribute in --on"
            );
            match topic {
                Topic::Events => policy.insert(attribute.to_owned(), values),
                Topic::Alerts => selection.insert(member.to_owned(), values),
            };
        }
        Ok(Self { topic, policy, selection })
    }

    /// Describes the messages of a target with a filter policy and the selection of its entry.
    pub fn describe(topic: Topic, policy: &Map<String, Value>, selection: &Selection) -> String {
        let mut policy = policy.clone();
        let mut narrowed = Vec::new();
        for attribute in ["site", "project"] {
            // Only a list of names, which has no operators.
            let is_plain =
                policy.get(attribute).and_then(Value::as_array).is_some_and(|list| list.iter().all(Value::is_string));
            if let Some(Value::Array(values)) = is_plain.then(|| policy.remove(attribute)).flatten() {
                narrowed
                    .push((attribute, values.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()));
            }
        }
        narrowed.push(("site", selection.sites.iter().map(ToString::to_string).collect()));
        narrowed.push(("project", selection.projects.iter().cloned().collect()));
        narrowed.push(("severity", selection.severities.iter().map(|severity| name(json!(severity))).collect()));
        let kinds: Vec<_> = selection.kinds.iter().copied().collect();
        let what = match topic {
            Topic::Alerts if kinds.is_empty() => "alerts".to_owned(),
            Topic::Alerts if kinds == FAILURE_ALERTS => "failures".to_owned(),
            Topic::Alerts => {
                format!("alerts: {}", kinds.iter().map(|kind| name(json!(kind))).collect::<Vec<_>>().join(", "))
            }
            Topic::Events if policy.is_empty() => "events".to_owned(),
            Topic::Events if policy == failure_policy() => "failures".to_owned(),
            Topic::Events => format!("events {}", Value::Object(policy)),
        };
        let narrowed = narrowed.into_iter().filter(|(_, values)| !values.is_empty());
        let narrowed = narrowed.map(|(attribute, values)| format!(", {attribute} {}", values.join(" or ")));
        format!("{what}{}", narrowed.collect::<String>())
    }
}

/// Returns whether a filter policy lets the event of a test through: `None` if that takes more than a look at `event_type`.
pub fn lets_test_through(policy: &Map<String, Value>, site: &str) -> Option<bool> {
    let mut is_certain = true;
    for (attribute, values) in policy {
        let value = match attribute.as_str() {
            "event_type" => shared::events::delivery::TEST,
            "site" => site,
            // A test is about no resource.
            "project" | "action" | "resource_type" => "",
            _ => {
                is_certain = false;
                continue;
            }
        };
        match values.as_array() {
            Some(values) if values.iter().all(Value::is_string) => {
                if !values.iter().any(|allowed| *allowed == value) {
                    return Some(false);
                }
            }
            _ => is_certain = false,
        }
    }
    is_certain.then_some(true)
}

fn failure_policy() -> Map<String, Value> {
    Map::from_iter([("event_type".to_owned(), json!(FAILURE_EVENTS))])
}

/// Returns the name of a variant in JSON.
fn name(value: Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Events => "events topic",
            Self::Alerts => "alerts topic",
        })
    }
}

#[cfg(test)]
mod tests {
    use shared::{
        events::catalogue::Event,
        targets::{entry::TargetEntry, name::TargetName},
    };

    use super::*;

    fn messages(on: &str, preset: Preset, sites: &[&str], projects: &[&str]) -> anyhow::Result<Messages> {
        let sites = sites.iter().map(|site| site.parse()).collect::<Result<Vec<_>, _>>()?;
        let projects: Vec<_> = projects.iter().map(|project| (*project).to_owned()).collect();
        Messages::new(&on.parse()?, preset, &sites, &projects)
    }

    fn description(messages: &Messages) -> anyhow::Result<String> {
        let entry = json!({ "preset": "slack", "address": "https://hooks.slack.com/services/T/B/x",
            "selection": messages.selection });
        let entry = TargetEntry::parse(&"a".parse::<TargetName>()?, &entry.to_string())?;
        Ok(Messages::describe(messages.topic, &messages.policy, &entry.selection))
    }

    #[test]
    fn a_chat_gets_alerts_of_failures_and_any_other_target_the_events() -> anyhow::Result<()> {
        for preset in Preset::ALL {
            let of_chat = matches!(preset, Preset::Slack | Preset::Teams);
            let Messages { topic, policy, selection } = messages("failures", preset, &["emea"], &["Finance"])?;
            let expected = if of_chat { Topic::Alerts } else { Topic::Events };
            assert_eq!((topic, policy.is_empty(), selection.is_empty()), (expected, of_chat, !of_chat), "{preset}");
        }
        let slack = messages("failures", Preset::Slack, &[], &["R&D"])?;
        let kinds = ["refresh-failed", "refresh-explained", "refresh-resolved", "refresh-stopped"];
        assert_eq!(Value::from(slack.selection), json!({ "kinds": kinds, "projects": ["R&D"] }));
        let failed = |event: &&str| event.parse::<Event>().is_ok_and(|event| event.action() == Some("refresh-failed"));
        let known: Vec<_> = Event::catalogue().filter(|event| event.action() == Some("refresh-failed")).collect();
        assert_eq!(FAILURE_EVENTS.iter().filter(|event| failed(event)).count(), known.len(), "{known:?}");
        Ok(())
    }

    #[test]
    fn the_messages_of_a_target_are_described() -> anyhow::Result<()> {
        for (on, preset, expected) in [
            ("failures", Preset::Slack, "failures, site emea or sales, project Finance"),
            ("failures", Preset::PagerDuty, "failures, site emea or sales, project Finance"),
            ("alerts", Preset::Plain, "alerts, site emea or sales, project Finance"),
            ("everything", Preset::Plain, "events, site emea or sales, project Finance"),
            (
                r#"{"action":["created"]}"#,
                Preset::Plain,
                r#"events {"action":["created"]}, site emea or sales, project Finance"#,
            ),
        ] {
            assert_eq!(description(&messages(on, preset, &["emea", "sales"], &["Finance"])?)?, expected);
        }
        assert_eq!(description(&messages("everything", Preset::Slack, &[], &[])?)?, "events");
        let policy = messages(r#"{"site":[{"prefix":"a"}]}"#, Preset::Plain, &[], &[])?;
        assert_eq!(description(&policy)?, r#"events {"site":[{"prefix":"a"}]}"#);
        let error = messages(r#"{"site":["a"]}"#, Preset::Plain, &["emea"], &[]).expect_err("two lists of sites");
        assert!(error.to_string().contains("has the attribute site already"), "{error}");
        assert!("failure".parse::<On>().is_err() && "[]".parse::<On>().is_err());
        Ok(())
    }

    #[test]
    fn a_policy_says_whether_it_lets_a_test_through_or_is_left_to_sns() -> anyhow::Result<()> {
        for (on, expected) in [
            ("everything", Some(true)),
            ("failures", Some(false)),
            (r#"{"event_type":["Test"]}"#, Some(true)),
            (r#"{"event_type":["Test"],"site":["emea"]}"#, Some(true)),
            (r#"{"site":["sales"]}"#, Some(false)),
            (r#"{"action":["created"]}"#, Some(false)),
            (r#"{"event_type":[{"anything-but":["Test"]}]}"#, None),
            (r#"{"$or":[{"site":["emea"]}]}"#, None),
        ] {
            let policy = messages(on, Preset::Plain, &[], &[])?.policy;
            assert_eq!(lets_test_through(&policy, "emea"), expected, "{on}");
        }
        Ok(())
    }
}
