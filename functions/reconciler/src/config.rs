//! The reconciler's settings.

use std::{collections::BTreeSet, time::Duration};

use lambda_support::topic::TopicArn;
use shared::{
    alerts::selection::AlertEvents,
    events::catalogue::Event,
    refreshes::context::OwnerDetails,
    registration::signed_url::ReceiverUrl,
    settings::{SettingsError, SettingsReader},
    sites::{commands::SiteCommands, webhook::NamePrefix},
};

/// The longest wait for a connection to AWS. Within a region it takes milliseconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest time of an AWS call with its retries. Only the run waits for it.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

/// The time of a run without a deadline: the function's timeout in the template.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// The default of `RECOVER_HOURS`: the work of a night and a day.
const DEFAULT_RECOVER_HOURS: u32 = 24;

/// The maximum of `RECOVER_HOURS`. A week of jobs is a long list.
const MAX_RECOVER_HOURS: u32 = 168;

/// Settings from the environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the receiver.
    pub receiver: ReceiverUrl,
    /// SSM path of the site entries.
    pub sites_path: String,
    /// Name of the SSM parameter that holds the signing keys.
    pub signing_keys_parameter: String,
    /// Name of the DynamoDB table with the state.
    pub state_table: String,
    /// Name of the SSM parameter that may hold CA certificates of Tableau servers, besides the public ones.
    pub tableau_ca_parameter: Option<String>,
    /// The alerts topic. Without it no alert is sent.
    pub alerts_topic: Option<TopicArn>,
    /// The events that cause alerts.
    pub alert_events: AlertEvents,
    /// The events topic.
    pub events_topic: TopicArn,
    /// URL of the queue of failed refreshes. Without it they are explained on the schedule only.
    pub failures_queue: Option<String>,
    /// The details of owners in events and alerts.
    pub owner_details: OwnerDetails,
    /// How far back refreshes are recovered and explained; `None` if they are not.
    pub lookback: Option<time::Duration>,
    /// The prefix of our webhooks' names: the stack's name.
    pub name_prefix: NamePrefix,
    /// The events of a site whose entry names none.
    pub events: BTreeSet<Event>,
}

impl Config {
    /// Reads the settings through a lookup by variable name.
    ///
    /// # Errors
    ///
    /// Names every variable that is missing or not valid.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut fields = SettingsReader::new(lookup);
        let mut required = |name, expected| fields.required(name, expected, |text| Some(text.to_owned()));
        let sites_path = required("SITES_PATH", "the SSM path of the site entries, such as /tableau-fanout/sites");
        let signing_keys_parameter =
            required("SIGNING_KEYS_PARAMETER", "the name of an SSM parameter, such as /tableau-fanout/signing-keys");
        let state_table = required("STATE_TABLE", "the name of a DynamoDB table, such as tableau-fanout-state");
        let tableau_ca_parameter = fields.optional(
            "TABLEAU_CA_PARAMETER",
            "the name of an SSM parameter, such as /tableau-fanout/tableau-ca",
            |text| Some(text.to_owned()),
        );
        let alerts_topic = fields.optional("ALERTS_TOPIC_ARN", TopicArn::EXPECTED, |text| text.parse().ok());
        let failures_queue =
            fields.optional("FAILURES_QUEUE_URL", "the URL of an SQS queue", |text| Some(text.to_owned()));
        let receiver = fields.required("RECEIVER_URL", ReceiverUrl::EXPECTED, ReceiverUrl::parse);
        let name_prefix = fields.required(
            "NAME_PREFIX",
            "the stack's name: letters, digits and hyphens, such as tableau-fanout",
            |text| text.parse().ok(),
        );
        let events = fields.optional(
            "EVENTS",
            "event names separated by commas, such as WorkbookCreated,DatasourceRefreshFailed, or all",
            |text| Event::parse_list(text).ok(),
        );
        let alert_events = fields.optional(
            "ALERT_EVENTS",
            "event names separated by commas, such as WorkbookRefreshFailed, or all, or none",
            |text| AlertEvents::parse(text).ok(),
        );
        let expected = format!("a number of hours from 0 (never) to {MAX_RECOVER_HOURS}");
        let hours = fields.optional("RECOVER_HOURS", &expected, |text| {
            text.parse().ok().filter(|hours: &u32| *hours <= MAX_RECOVER_HOURS)
        });
        let hours = hours.unwrap_or(DEFAULT_RECOVER_HOURS);
        let owner_details = fields.optional("OWNER_DETAILS", "none, name or email", OwnerDetails::parse);
        let events_topic = fields.required("EVENTS_TOPIC_ARN", TopicArn::EXPECTED, |text| text.parse().ok());
        let config = || {
            Some(Self {
                receiver: receiver?,
                sites_path: sites_path?,
                signing_keys_parameter: signing_keys_parameter?,
                state_table: state_table?,
                tableau_ca_parameter,
                alerts_topic,
                alert_events: alert_events.unwrap_or_default(),
                events_topic: events_topic?,
                failures_queue,
                owner_details: owner_details.unwrap_or_default(),
                lookback: (hours > 0).then(|| time::Duration::hours(hours.into())),
                name_prefix: name_prefix?,
                events: events.unwrap_or_else(Event::default_selection),
            })
        };
        let config = config();
        fields.finish(
            config,
            "the reconciler's environment cannot be used",
            "Set these variables on the function; infra/template.yaml does.",
        )
    }

    /// Returns the commands that add, change and remove a site.
    pub fn site_commands(&self) -> SiteCommands<'_> {
        SiteCommands { stack: self.name_prefix.as_str(), sites_path: &self.sites_path }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: (&str, &str)) -> Result<Config, SettingsError> {
        Config::from_lookup(|name| {
            let default = match name {
                "RECEIVER_URL" => "https://receiver.example/",
                "SITES_PATH" => "/tableau-fanout/sites",
                "SIGNING_KEYS_PARAMETER" => "/tableau-fanout/signing-keys",
                "STATE_TABLE" => "tableau-fanout-state",
                "EVENTS_TOPIC_ARN" => "arn:aws:sns:eu-central-1:123456789012:events",
                "NAME_PREFIX" => "tableau-fanout",
                _ => "",
            };
            Some(if name == change.0 { change.1 } else { default }.to_owned())
        })
    }

    #[test]
    fn without_events_a_site_is_registered_for_the_default_selection() {
        assert_eq!(config(("EVENTS", "")).map(|config| config.events), Ok(Event::default_selection()));
        let two = config(("EVENTS", "ViewDeleted,FlowRunFailed")).map(|config| config.events.len());
        assert_eq!(two, Ok(2));
    }

    #[test]
    fn refreshes_are_recovered_for_a_number_of_hours_and_not_at_all_for_zero() {
        let lookback =
            |hours| config(("RECOVER_HOURS", hours)).map(|config| config.lookback.map(|it| it.whole_hours()));
        assert_eq!((lookback(""), lookback("2"), lookback("0")), (Ok(Some(24)), Ok(Some(2)), Ok(None)));
        for hours in ["169", "-1", "a day"] {
            assert!(lookback(hours).is_err(), "{hours}");
        }
    }

    #[test]
    fn every_missing_or_invalid_variable_is_named_at_once() {
        let error = Config::from_lookup(|_| None).expect_err("nothing is set");
        insta::assert_snapshot!(error, @"the reconciler's environment cannot be used: SITES_PATH is missing: expected the SSM path of the site entries, such as /tableau-fanout/sites; SIGNING_KEYS_PARAMETER is missing: expected the name of an SSM parameter, such as /tableau-fanout/signing-keys; STATE_TABLE is missing: expected the name of a DynamoDB table, such as tableau-fanout-state; RECEIVER_URL is missing: expected the receiver's https address, such as https://abc.lambda-url.eu-central-1.on.aws/; NAME_PREFIX is missing: expected the stack's name: letters, digits and hyphens, such as tableau-fanout; EVENTS_TOPIC_ARN is missing: expected the ARN of an SNS topic, such as arn:aws:sns:eu-central-1:123456789012:tableau-fanout-alerts. Set these variables on the function; infra/template.yaml does.");
        for (name, value) in [
            ("RECEIVER_URL", "http://receiver.example/"),
            ("NAME_PREFIX", "a b"),
            ("EVENTS", "Workbook-Created"),
            ("ALERTS_TOPIC_ARN", "alerts"),
        ] {
            let error = config((name, value)).expect_err(value).to_string();
            assert!(error.contains(&format!("{name} is not valid: expected ")), "{error}");
        }
    }
}
