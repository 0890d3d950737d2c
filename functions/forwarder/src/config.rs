//! The forwarder's settings.

use std::time::Duration;

use delivery::addresses::AllowedAddresses;
use lambda_support::topic::TopicArn;
use shared::settings::{SettingsError, SettingsReader};

/// The longest wait for a connection to AWS. Within a region it takes milliseconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest time of an AWS call with its retries. A failed one costs a repetition later.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest time of a call of a target, to the end of its answer.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The time of an invocation without a deadline: the function's timeout in the template.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The end of `TARGETS_PATH`, which begins with the stack's name.
const TARGETS: &str = "/targets";

/// Settings from the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the stack, which the names of the queues begin with.
    pub stack: String,
    /// SSM path of the targets.
    pub targets_path: String,
    /// Name of the state table.
    pub state_table: String,
    /// The alerts topic.
    pub alerts_topic: TopicArn,
    /// The addresses to which messages are sent.
    pub addresses: AllowedAddresses,
}

impl Config {
    /// Reads the settings through a lookup by variable name.
    ///
    /// # Errors
    ///
    /// Names every variable that is missing or not valid.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut fields = SettingsReader::new(lookup);
        let path =
            fields.required("TARGETS_PATH", "the SSM path of the targets, such as /tableau-fanout/targets", |path| {
                let stack = path.strip_prefix('/')?.strip_suffix(TARGETS)?;
                (!stack.is_empty() && !stack.contains('/')).then(|| (stack.to_owned(), path.to_owned()))
            });
        let addresses = fields.optional("ALLOW_LOOPBACK_TARGETS", "true, on a local stack only, or nothing", |text| {
            (text == "true").then_some(AllowedAddresses::PublicAndLoopback)
        });
        let expected = "the name of a DynamoDB table, such as tableau-fanout-state";
        let state_table = fields.required("STATE_TABLE", expected, |text| Some(text.to_owned()));
        let alerts_topic = fields.required("ALERTS_TOPIC_ARN", TopicArn::EXPECTED, |text| text.parse().ok());
        let config = || {
            let (stack, targets_path) = path?;
            let addresses = addresses.unwrap_or(AllowedAddresses::Public);
            Some(Self { stack, targets_path, state_table: state_table?, alerts_topic: alerts_topic?, addresses })
        };
        fields.finish(
            config(),
            "the forwarder's environment cannot be used",
            "Set these variables on the function; infra/template.yaml does.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: &str, loopback: &str) -> Result<Config, SettingsError> {
        Config::from_lookup(|name| match name {
            "TARGETS_PATH" => Some(path.to_owned()),
            "ALLOW_LOOPBACK_TARGETS" => Some(loopback.to_owned()),
            "STATE_TABLE" => Some("tableau-fanout-state".to_owned()),
            "ALERTS_TOPIC_ARN" => Some("arn:aws:sns:eu-central-1:123456789012:alerts".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn the_path_of_the_targets_names_the_stack() {
        let config = config("/tableau-fanout/targets", "").expect("usable");
        assert_eq!((&*config.stack, &*config.targets_path), ("tableau-fanout", "/tableau-fanout/targets"));
    }

    #[test]
    fn only_the_explicit_switch_allows_loopback_addresses() {
        let addresses = |loopback| config("/tableau-fanout/targets", loopback).map(|config| config.addresses);
        assert_eq!(addresses(""), Ok(AllowedAddresses::Public));
        assert_eq!(addresses("true"), Ok(AllowedAddresses::PublicAndLoopback));
        for switch in ["1", "TRUE", "yes", "false"] {
            assert!(addresses(switch).is_err(), "{switch}");
        }
    }

    #[test]
    fn every_missing_or_invalid_variable_is_named_at_once() {
        let error = config("", "no").expect_err("not usable");
        insta::assert_snapshot!(error, @"the forwarder's environment cannot be used: TARGETS_PATH is missing: expected the SSM path of the targets, such as /tableau-fanout/targets; ALLOW_LOOPBACK_TARGETS is not valid: expected true, on a local stack only, or nothing. Set these variables on the function; infra/template.yaml does.");
        for path in ["tableau-fanout/targets", "/targets", "//targets", "/a/b/targets", "/tableau-fanout/sites"] {
            let error = config(path, "").expect_err(path).to_string();
            assert!(error.contains("TARGETS_PATH is not valid: expected "), "{error}");
        }
    }
}
