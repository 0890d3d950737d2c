//! Templates that render JSON.
//!
//! Each `{{ … }}` of a template becomes one JSON value: a string with its quotation marks, a number, a list, an object. Nothing
//! in a template turns that off, so no text can change the structure of the JSON.

use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, value::Serde};
use serde::Serialize;
use thiserror::Error;

use crate::render::{adf::document, text};

/// The work that a template may cause: instructions, and 64 bytes of text each. It ends within a second, below 16 MB.
const FUEL: u64 = 200_000;

/// A template did not render JSON. It repeats neither the template nor the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// The template is not valid.
    #[error("the template does not compile: {kind} in line {line}")]
    Invalid {
        /// The kind of error.
        kind: ErrorKind,
        /// The line of the template.
        line: usize,
    },
    /// The template failed.
    #[error("the template failed: {kind} in line {line}")]
    Failed {
        /// The kind of error.
        kind: ErrorKind,
        /// The line of the template.
        line: usize,
    },
    /// The template does not end, or renders too much.
    #[error("the template does too much work: it has an endless loop, or renders too much text")]
    Endless,
    /// The result is not JSON.
    #[error("the template rendered no JSON: line {line}, column {column} of the result is wrong")]
    NoJson {
        /// The line of the result.
        line: usize,
        /// The column of the result.
        column: usize,
    },
}

/// Renders a template to JSON.
///
/// # Errors
///
/// The template does not compile, fails, does too much work, or renders no JSON.
pub(crate) fn render(source: &str, context: &impl Serialize) -> Result<serde_json::Value, TemplateError> {
    let environment = environment();
    let template = environment
        .template_from_str(source)
        .map_err(|error| TemplateError::Invalid { kind: error.kind(), line: error.line().unwrap_or_default() })?;
    let rendered = template.render(Value::from(Serde(context))).map_err(|error| failed(&error))?;
    serde_json::from_str(&rendered)
        .map_err(|error| TemplateError::NoJson { line: error.line(), column: error.column() })
}

fn failed(error: &Error) -> TemplateError {
    match error.kind() {
        ErrorKind::OutOfFuel => TemplateError::Endless,
        kind => TemplateError::Failed { kind, line: error.line().unwrap_or_default() },
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    // A member that an event lacks is `null`, as are its members.
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    // The one way in which a value gets into the result, also within a block without escaping.
    environment.set_formatter(|output, _, value| {
        let json = serde_json::to_string(value).map_err(|_| Error::from(ErrorKind::BadSerialization))?;
        output.write_str(&json).map_err(Error::from)
    });
    environment.add_filter("json", |value: Value| value);
    environment.add_filter("tojson", |value: Value| value);
    environment.add_filter("truncate", |value: &Value, max: usize| text::truncate(&string(value), max));
    environment.add_filter("identifier", |value: &Value, max: usize| text::identifier(&string(value), max));
    environment.add_filter("slack", |value: &Value| text::slack(&string(value)));
    environment.add_filter("literal", |value: &Value| text::literal(&string(value)));
    environment.add_filter("adf", |value: &Value| Value::from(Serde(&document(&string(value)))));
    environment
}

/// Returns a value as a text; a missing one is empty.
fn string(value: &Value) -> String {
    if value.is_undefined() || value.is_none() { String::new() } else { value.to_string() }
}
