//! Names of stacks.

use std::{fmt, str::FromStr};

use shared::sites::webhook::NamePrefix;
use thiserror::Error;

/// The most characters of a function's name.
const MAX_FUNCTION_CHARACTERS: usize = 64;

/// Suffix of the longest function name, which limits the stack's name. Topics, queues, alarms and parameters, also those of
/// `cargo infra test`, allow longer names.
const LONGEST_SUFFIX: &str = "-reconciler";

/// The most characters of a stack's name.
const MAX_CHARACTERS: usize = MAX_FUNCTION_CHARACTERS - LONGEST_SUFFIX.len();

/// Prefixes that SSM reserves for itself, in any case. Our parameters begin with the stack's name.
const RESERVED: [&str; 2] = ["aws", "ssm"];

/// A name that CloudFormation accepts, and every service with a resource named after the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackName(String);

/// The text is no such name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidStackName {
    /// CloudFormation would reject it.
    #[error("a stack's name has letters, digits and hyphens only, and begins with a letter")]
    Characters,
    /// A function's name would be too long.
    #[error(
        "it has {0} characters, at most {MAX_CHARACTERS} are allowed: Lambda allows {MAX_FUNCTION_CHARACTERS} for a \
         function's name, such as <stack>{LONGEST_SUFFIX}"
    )]
    Length(usize),
    /// SSM would reject the parameters.
    #[error("it begins with {0}, which SSM does not allow for the path of a parameter: choose another name")]
    Reserved(&'static str),
}

impl FromStr for StackName {
    type Err = InvalidStackName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_CHARACTERS {
            return Err(InvalidStackName::Length(text.chars().count()));
        }
        // The prefix of the webhooks' names has CloudFormation's rules too.
        if text.parse::<NamePrefix>().is_err() {
            return Err(InvalidStackName::Characters);
        }
        let lower_case = text.to_ascii_lowercase();
        match RESERVED.into_iter().find(|reserved| lower_case.starts_with(reserved)) {
            Some(reserved) => Err(InvalidStackName::Reserved(reserved)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for StackName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_service_rejects_is_invalid() {
        let rejected = |text: &str| text.parse::<StackName>().expect_err(text);
        for name in ["tableau-fanout", "T", "fan-out-2", "my-aws", "was", "Ssn", &"a".repeat(MAX_CHARACTERS)] {
            assert_eq!(name.parse::<StackName>().map(|name| name.to_string()), Ok(name.to_owned()));
        }
        for name in ["", "2fan", "-fan", "fan_out", "fan.out", "fan/out", "fän", "arn:aws:cloudformation"] {
            assert_eq!(rejected(name), InvalidStackName::Characters);
        }
        for (name, reserved) in [("aws", "aws"), ("AWS-fanout", "aws"), ("awsome", "aws"), ("Ssm1", "ssm")] {
            assert_eq!(rejected(name), InvalidStackName::Reserved(reserved));
        }
        assert_eq!(rejected(&"a".repeat(54)), InvalidStackName::Length(54));
        assert_eq!(
            rejected(&"a".repeat(200)).to_string(),
            "it has 200 characters, at most 53 are allowed: Lambda allows 64 for a function's name, such as <stack>-reconciler"
        );
    }

    #[test]
    fn every_name_in_the_template_fits_with_the_longest_stack_name() {
        let longest = "a".repeat(MAX_CHARACTERS);
        // The most characters that each service allows.
        let limits = [
            ("AlarmName", 255),
            ("AliasName", 256),
            ("DashboardName", 255),
            ("FunctionName", MAX_FUNCTION_CHARACTERS),
            ("LogGroupName", 512),
            ("QueueName", 80),
            ("TableName", 255),
            ("TopicName", 256),
        ];
        let mut named = 0;
        let template = include_str!("../template.yaml");
        for line in template.lines().filter(|line| line.contains("${AWS::StackName}")) {
            let Some((property, name)) = line.trim().split_once(": !Sub ") else { continue };
            if !property.ends_with("Name") {
                continue;
            }
            let name = name.trim_matches('"').replace("${AWS::StackName}", &longest);
            let limit = limits.iter().find(|(known, _)| *known == property).map(|(_, limit)| *limit);
            assert!(limit.is_some_and(|limit| name.len() <= limit), "{property}: {name}");
            named += 1;
        }
        assert!(named > 10, "{named}");
    }
}
