//! Messages that are never delivered, as they go to the dead-letter queue of their target.

use std::fmt;

/// The most characters of an error. The longest have a list of problems.
const MAX_ERROR_CHARACTERS: usize = 1000;

/// An error without any text that SQS accepts.
const NO_REASON: &str = "no reason";

/// A message for a dead-letter queue.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    body: String,
    error: String,
    status: Option<u16>,
    attempts: u32,
}

/// Shows no body.
impl fmt::Debug for DeadLetter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body: _, error, status, attempts } = self;
        let mut letter = formatter.debug_struct("DeadLetter");
        letter.field("error", error).field("status", status).field("attempts", attempts).finish_non_exhaustive()
    }
}

/// An attribute of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageAttribute {
    /// Its name.
    pub name: &'static str,
    /// Its type: `String` or `Number`.
    pub data_type: &'static str,
    /// Its value.
    pub value: String,
}

impl DeadLetter {
    /// Adds the reason, the last HTTP status, and the number of attempts to the body of a message.
    pub fn new(body: String, error: &str, status: Option<u16>, attempts: u32) -> Self {
        Self { body, error: cleaned(error), status, attempts }
    }

    /// Returns the body, which is that of the message.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// Returns the attributes: `error`, `attempts`, and `status` if the target answered.
    pub fn attributes(&self) -> Vec<MessageAttribute> {
        let attribute = |name, data_type, value| MessageAttribute { name, data_type, value };
        let status = self.status.map(|status| attribute("status", "Number", status.to_string()));
        [attribute("error", "String", self.error.clone()), attribute("attempts", "Number", self.attempts.to_string())]
            .into_iter()
            .chain(status)
            .collect()
    }
}

/// Returns the characters that SQS accepts, with one space for each sequence of others. SQS refuses an empty value.
fn cleaned(text: &str) -> String {
    let is_accepted = |character: char| !character.is_control() && character <= '\u{FFFD}';
    let words = text.split(|character: char| character.is_whitespace() || !is_accepted(character));
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let line: String = line.chars().take(MAX_ERROR_CHARACTERS).collect();
    if line.is_empty() { NO_REASON.to_owned() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attributes_are_the_error_the_attempts_and_the_status_if_there_is_one() {
        let letter = |status| DeadLetter::new("{}".to_owned(), "the target answered 410", status, 12);
        let shown = |status| {
            let attributes = letter(status).attributes().into_iter();
            attributes.map(|it| format!("{} ({}): {}", it.name, it.data_type, it.value)).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(Some(410)),
            ["error (String): the target answered 410", "attempts (Number): 12", "status (Number): 410"]
        );
        assert_eq!(shown(None).len(), 2);
    }

    #[test]
    fn an_error_has_only_characters_that_sqs_accepts_and_is_never_empty() {
        for (error, expected) in [
            ("line\r\nline\t\u{0}\u{1b}[1m", "line line [1m"),
            ("a \u{1F600} b\u{FFFE}c\u{FFFF}d \u{E000}\u{FFFD}", "a b c d \u{E000}\u{FFFD}"),
            ("\u{0}\n", NO_REASON),
            ("", NO_REASON),
        ] {
            assert_eq!(cleaned(error), expected, "{error:?}");
        }
        assert_eq!(cleaned(&"é".repeat(5000)).chars().count(), MAX_ERROR_CHARACTERS);
    }

    #[test]
    fn the_debug_output_has_no_body() {
        let letter = DeadLetter::new("{\"private\":true}".to_owned(), "no answer", None, 1);
        assert_eq!(format!("{letter:?}"), "DeadLetter { error: \"no answer\", status: None, attempts: 1, .. }");
    }
}
