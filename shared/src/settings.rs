//! Input that cannot be used: every problem at once, each with what was expected.

pub mod address;

use std::fmt;

use thiserror::Error;

/// What is wrong with one input (a function's environment, a site entry), so that a person mends it in one go.
///
/// The texts name things and say what was expected; they never repeat a value, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Invalid {
    subject: String,
    problems: Vec<String>,
    remedy: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, problems, remedy } = self;
        write!(formatter, "{subject}: {}. {remedy}", problems.join("; "))
    }
}

/// An input while it is read, by the names of its parts: variables, or members of an object. Collects every problem.
#[derive(Debug)]
pub struct Fields<L> {
    lookup: L,
    problems: Vec<String>,
}

impl<L: Fn(&str) -> Option<String>> Fields<L> {
    /// An input whose parts are looked up by name.
    pub fn new(lookup: L) -> Self {
        Self { lookup, problems: Vec::new() }
    }

    /// Notes a problem with the part called `name`.
    pub fn add(&mut self, name: &str, problem: impl fmt::Display) {
        self.problems.push(format!("{name} {problem}"));
    }

    /// Takes a part that must be there and must be readable; notes the problem otherwise.
    pub fn required<T>(&mut self, name: &str, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = (self.lookup)(name).filter(|value| !value.is_empty());
        if value.is_none() {
            self.add(name, format_args!("is missing: expected {expected}"));
        }
        self.parsed(name, &value?, expected, parse)
    }

    /// Takes a part that may be missing (or empty, as CloudFormation writes it) but must be readable if it is there.
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

    /// What was read, or an error that tells of all problems: `subject` says what they were found in, `remedy` where
    /// to mend them.
    ///
    /// # Errors
    ///
    /// A problem was noted, or there is no value.
    pub fn finish<T>(
        self,
        value: Option<T>,
        subject: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Result<T, Invalid> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(Invalid { subject: subject.into(), problems: self.problems, remedy: remedy.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_every_problem_and_repeats_no_value() {
        let values = [("B", "s3cret"), ("C", "7"), ("D", "")];
        let mut fields =
            Fields::new(|name: &str| values.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()));
        let number = |text: &str| text.parse::<u8>().ok();
        assert_eq!(fields.required("A", "a number", number), None);
        assert_eq!(fields.required("B", "a number", number), None);
        assert_eq!(fields.required("C", "a number", number), Some(7));
        assert_eq!(fields.optional("D", "a number", number), None);
        let error = fields.finish(Some(()), "the settings cannot be used", "Mend them.").expect_err("two problems");
        assert_eq!(
            error.to_string(),
            "the settings cannot be used: A is missing: expected a number; \
             B is not valid: expected a number. Mend them."
        );
    }
}
