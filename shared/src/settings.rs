//! Reading of settings that reports all problems at once, each with the expected value.

pub mod address;

use std::fmt;

use thiserror::Error;

/// All problems of some settings, such as a function's environment or a site entry. [`SettingsReader`] has an example.
///
/// Names each setting and the expected value. Never repeats a value, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct SettingsError {
    subject: String,
    problems: Vec<String>,
    remedy: String,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, problems, remedy } = self;
        write!(formatter, "{subject}: {}.", problems.join("; "))?;
        if remedy.is_empty() { Ok(()) } else { write!(formatter, " {remedy}") }
    }
}

/// Reads settings by name, such as variables or members of an object, and collects all problems.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use shared::{
///     alerts::selection::AlertEvents, registration::signed_url::ReceiverUrl, settings::SettingsReader,
/// };
///
/// let environment =
///     BTreeMap::from([("RECEIVER_URL", "http://receiver.example"), ("ALERT_EVENTS", "")]);
/// let lookup = |name: &str| environment.get(name).map(|value| (*value).to_owned());
/// let mut reader = SettingsReader::new(lookup);
/// let receiver = reader.required("RECEIVER_URL", "an https address", ReceiverUrl::parse);
/// let table = reader.required("STATE_TABLE", "the name of a table", |text| Some(text.to_owned()));
/// let alerts =
///     reader.optional("ALERT_EVENTS", "event names", |text| AlertEvents::parse(text).ok());
/// assert_eq!(alerts, None);
///
/// let (subject, remedy) = ("the environment cannot be used", "Set these variables.");
/// let settings = reader.finish(receiver.zip(table), subject, remedy);
/// assert_eq!(
///     settings.map_err(|error| error.to_string()),
///     Err("the environment cannot be used: \
///          RECEIVER_URL is not valid: expected an https address; \
///          STATE_TABLE is missing: expected the name of a table. \
///          Set these variables."
///         .to_owned())
/// );
/// ```
#[derive(Debug)]
pub struct SettingsReader<L> {
    lookup: L,
    problems: Vec<String>,
}

impl<L: Fn(&str) -> Option<String>> SettingsReader<L> {
    /// Returns a reader of the settings that `lookup` finds.
    pub fn new(lookup: L) -> Self {
        Self { lookup, problems: Vec::new() }
    }

    /// Adds a problem with the setting called `name`.
    pub fn add(&mut self, name: &str, problem: impl fmt::Display) {
        self.problems.push(format!("{name} {problem}"));
    }

    /// Reads a required setting. Adds a problem if it is missing or not valid.
    pub fn required<T>(&mut self, name: &str, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = (self.lookup)(name).filter(|value| !value.is_empty());
        if value.is_none() {
            self.add(name, format_args!("is missing: expected {expected}"));
        }
        self.parsed(name, &value?, expected, parse)
    }

    /// Reads an optional setting, which is missing or empty (as CloudFormation writes it) or valid. Adds a problem otherwise.
    pub fn optional<T>(&mut self, name: &str, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = (self.lookup)(name).filter(|value| !value.is_empty())?;
        self.parsed(name, &value, expected, parse)
    }

    fn parsed<T>(
        &mut self,
        name: &str,
        value: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(value);
        if parsed.is_none() {
            self.add(name, format_args!("is not valid: expected {expected}"));
        }
        parsed
    }

    /// Returns the value, or an error with all problems: `subject` names the settings, `remedy` is the fix or empty.
    ///
    /// # Errors
    ///
    /// There is a problem, or no value.
    pub fn finish<T>(
        self,
        value: Option<T>,
        subject: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Result<T, SettingsError> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(SettingsError { subject: subject.into(), problems: self.problems, remedy: remedy.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_every_problem_and_repeats_no_value() {
        let values = [("B", "s3cret"), ("C", "7"), ("D", "")];
        let mut reader = SettingsReader::new(|name: &str| {
            values.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        });
        let number = |text: &str| text.parse::<u8>().ok();
        assert_eq!(reader.required("A", "a number", number), None);
        assert_eq!(reader.required("B", "a number", number), None);
        assert_eq!(reader.required("C", "a number", number), Some(7));
        assert_eq!(reader.optional("D", "a number", number), None);
        let error = reader.finish(Some(()), "the settings cannot be used", "Correct them.").expect_err("two problems");
        assert_eq!(
            error.to_string(),
            "the settings cannot be used: A is missing: expected a number; \
             B is not valid: expected a number. Correct them."
        );
    }
}
