//! The receiver's settings.

use std::time::Duration;

use lambda_support::topic::TopicArn;
use shared::{
    alerts::selection::{AlertEvents, DeliveryAlerts},
    settings::{SettingsError, SettingsReader},
};

/// How long after its invocation a request waits for AWS, for all calls together. Tableau reads an answer for 3 s
/// (`webhooks.http.timeout.read`). The network and a cold start take a part of that, so each answer is given within 2.4 s.
/// The rest is for the log record and for a slow processor.
pub const AWS_TIMEOUT: Duration = Duration::from_millis(2200);

/// Time limit of one attempt at a call, its connection included. SNS and SSM answer in tens of milliseconds, and a second
/// attempt succeeds more often than a longer wait. Two attempts fit into [`AWS_TIMEOUT`].
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1000);

/// Time limit of a connection to AWS, TLS included. It takes milliseconds, but a first handshake took three quarters of a
/// second on the smallest function, which has a fourteenth of a processor.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(900);

/// The longest pause before the second attempt; twice that before the third. The SDK's defaults, one and two seconds, would
/// leave no time for these attempts.
pub const RETRY_PAUSE: Duration = Duration::from_millis(150);

/// How long a start waits for the signing keys. Tableau's wait begins before the start, Lambda's invocation after it. The
/// first request reads keys that did not arrive in time.
pub const START_TIMEOUT: Duration = Duration::from_millis(500);

/// The settings of the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The events topic.
    pub events_topic: TopicArn,
    /// The alerts topic. Without it no alert is sent.
    pub alerts_topic: Option<TopicArn>,
    /// The alerts about deliveries.
    pub alerts: DeliveryAlerts,
    /// Name of the SSM parameter that holds the signing keys.
    pub signing_keys_parameter: String,
}

impl Config {
    /// Reads the settings through a lookup by variable name.
    ///
    /// # Errors
    ///
    /// All variables that are missing or not valid, at once.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut fields = SettingsReader::new(lookup);
        let events_topic = fields.required(
            "EVENTS_TOPIC_ARN",
            "the ARN of an SNS topic, such as arn:aws:sns:eu-central-1:123456789012:tableau-fanout-events",
            |text| text.parse().ok(),
        );
        let alerts_topic = fields.optional("ALERTS_TOPIC_ARN", TopicArn::EXPECTED, |text| text.parse().ok());
        let alert_events = fields.optional(
            "ALERT_EVENTS",
            "event names separated by commas, such as DatasourceRefreshFailed,ViewDeleted, or all, or none",
            |text| AlertEvents::parse(text).ok(),
        );
        // It concerns a sentence of alerts alone. The reconciler rejects what it cannot read.
        let reason_follows = |text: &str| Some(text.parse::<u32>().is_ok_and(|hours| hours > 0));
        let reason_follows = fields.optional("RECOVER_HOURS", "a number of hours", reason_follows);
        let signing_keys_parameter = fields.required(
            "SIGNING_KEYS_PARAMETER",
            "the name of an SSM parameter, such as /tableau-fanout/signing-keys",
            |text| Some(text.to_owned()),
        );
        let config = || {
            Some(Self {
                events_topic: events_topic?,
                alerts_topic,
                alerts: DeliveryAlerts {
                    events: alert_events.unwrap_or_default(),
                    reason_follows: reason_follows.unwrap_or_default(),
                },
                signing_keys_parameter: signing_keys_parameter?,
            })
        };
        let config = config();
        fields.finish(
            config,
            "the receiver's environment cannot be used",
            "Set these variables on the function; infra/template.yaml does.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_missing_variables_are_named_at_once() {
        let error = Config::from_lookup(|_| None).expect_err("nothing is set");
        insta::assert_snapshot!(error, @"the receiver's environment cannot be used: EVENTS_TOPIC_ARN is missing: expected the ARN of an SNS topic, such as arn:aws:sns:eu-central-1:123456789012:tableau-fanout-events; SIGNING_KEYS_PARAMETER is missing: expected the name of an SSM parameter, such as /tableau-fanout/signing-keys. Set these variables on the function; infra/template.yaml does.");
    }

    #[test]
    fn alert_settings_are_optional_but_not_invalid() {
        let config = |alerts_topic: &'static str, alert_events: &'static str, hours: &'static str| {
            Config::from_lookup(move |name| {
                let value = match name {
                    "EVENTS_TOPIC_ARN" => "arn:aws:sns:eu-central-1:123456789012:events",
                    "SIGNING_KEYS_PARAMETER" => "/tableau-fanout/signing-keys",
                    "ALERTS_TOPIC_ARN" => alerts_topic,
                    "ALERT_EVENTS" => alert_events,
                    "RECOVER_HOURS" => hours,
                    _ => return None,
                };
                Some(value.to_owned())
            })
        };
        assert_eq!(
            config("", "", "").map(|config| (config.alerts_topic, config.alerts)),
            Ok((None, DeliveryAlerts::default()))
        );
        // Where the reconciler reads no jobs, no reason follows.
        let follows = |hours| config("", "", hours).map(|config| config.alerts.reason_follows);
        for (hours, expected) in [("0", false), ("00", false), ("24", true), ("a day", false)] {
            assert_eq!(follows(hours), Ok(expected), "{hours}");
        }
        let error = config("alerts", "Workbook-Created", "").expect_err("both are invalid").to_string();
        assert!(
            error.contains("ALERTS_TOPIC_ARN is not valid: ") && error.contains("ALERT_EVENTS is not valid: "),
            "{error}"
        );
    }
}
