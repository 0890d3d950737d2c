//! Templates that render JSON.
//!
//! Each `{{ … }}` of a template becomes one JSON value: a string with its quotation marks, a number, a list, an object. Nothing
//! in a template turns that off, so no text can change the structure of the JSON.

use std::{borrow::Cow, io};

use minijinja::{
    Environment, Error, ErrorKind, UndefinedBehavior, Value,
    value::{Serde, ValueKind},
};
use serde::Serialize;
use thiserror::Error;

use crate::render::{adf::document, text};

/// The work that a template may cause: instructions, and 64 bytes of text each. An endless loop ends within a second, below
/// 16 MB. A template that nests lists on purpose can still take longer: it stops the deliveries of its own target.
const FUEL: u64 = 200_000;

/// The most bytes that one insertion adds: more than any message has.
const MAX_INSERTED_BYTES: usize = 512 * 1024;

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
        let mut json = BoundedText::default();
        serde_json::to_writer(&mut json, value).map_err(|error| {
            Error::from(if error.is_io() { ErrorKind::OutOfFuel } else { ErrorKind::BadSerialization })
        })?;
        output.write_str(&String::from_utf8_lossy(&json.0)).map_err(Error::from)
    });
    environment.add_filter("json", |value: Value| value);
    environment.add_filter("tojson", |value: Value| value);
    environment
        .add_filter("truncate", |value: &Value, max: usize| Ok::<_, Error>(text::truncate(&string(value)?, max)));
    environment
        .add_filter("identifier", |value: &Value, max: usize| Ok::<_, Error>(text::identifier(&string(value)?, max)));
    environment.add_filter("slack", |value: &Value| Ok::<_, Error>(text::slack(&string(value)?)));
    environment.add_filter("literal", |value: &Value| Ok::<_, Error>(text::literal(&string(value)?)));
    environment.add_filter("adf", |value: &Value| Ok::<_, Error>(Value::from(Serde(&document(&string(value)?)))));
    environment
}

/// Returns a text, a number or a truth value as a text; a missing one is empty.
fn string(value: &Value) -> Result<Cow<'_, str>, Error> {
    match value.kind() {
        ValueKind::String => Ok(value.as_str().unwrap_or_default().into()),
        ValueKind::Undefined | ValueKind::None => Ok("".into()),
        ValueKind::Number | ValueKind::Bool => Ok(value.to_string().into()),
        // A list may have the same value many times, and be far longer as a text.
        _ => Err(Error::from(ErrorKind::NonPrimitive)),
    }
}

/// The text of one insertion, which is an error above a size.
#[derive(Default)]
struct BoundedText(Vec<u8>);

impl io::Write for BoundedText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_INSERTED_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
