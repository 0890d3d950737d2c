//! Input that cannot be used: every problem at once, each with what was expected.

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

/// Collects the problems of one input while it is read.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Notes a problem with the part of the input called `name`.
    pub fn add(&mut self, name: &str, problem: impl fmt::Display) {
        self.0.push(format!("{name} {problem}"));
    }

    /// Takes a value that must be there and must be readable; notes the problem otherwise.
    pub fn required<T>(
        &mut self,
        name: &str,
        value: Option<&str>,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            self.add(name, format_args!("is missing: expected {expected}"));
            return None;
        };
        self.parsed(name, value, expected, parse)
    }

    /// Takes a value that may be missing (or empty, as CloudFormation writes it) but must be readable if it is there.
    pub fn optional<T>(
        &mut self,
        name: &str,
        value: Option<&str>,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = value.filter(|value| !value.is_empty())?;
        self.parsed(name, value, expected, parse)
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

    /// The value that was read, or an error that tells of all problems: `subject` says what they were found in,
    /// `remedy` where to mend them.
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
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(Invalid { subject: subject.into(), problems: self.0, remedy: remedy.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_every_problem_and_repeats_no_value() {
        let mut problems = Problems::default();
        assert_eq!(problems.required("A", None, "a number", |text| text.parse::<u8>().ok()), None);
        assert_eq!(problems.required("B", Some("s3cret"), "a number", |text| text.parse::<u8>().ok()), None);
        assert_eq!(problems.required("C", Some("7"), "a number", |text| text.parse::<u8>().ok()), Some(7));
        assert_eq!(problems.optional("D", Some(""), "a number", |text| text.parse::<u8>().ok()), None);
        let error = problems.finish(Some(()), "the settings cannot be used", "Mend them.").expect_err("two problems");
        assert_eq!(
            error.to_string(),
            "the settings cannot be used: A is missing: expected a number; \
             B is not valid: expected a number. Mend them."
        );
    }
}
