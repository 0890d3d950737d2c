//! Values of the SNS message attributes that subscriptions filter by.

/// The most bytes of an attribute's value: Tableau's longest names have 255 characters of at most three bytes. A longer value
/// is left out: its beginning could be another name, and the whole of it would take up the message's size.
pub(crate) const MAX_ATTRIBUTE_BYTES: usize = 1024;

/// Returns the value of a message attribute: the text without [unsafe](is_unsafe) characters; `None` if it is empty or too
/// long.
pub(crate) fn attribute_value(text: &str) -> Option<String> {
    let value: String = text.chars().filter(|character| !is_unsafe(*character)).collect();
    (!value.is_empty() && value.len() <= MAX_ATTRIBUTE_BYTES).then_some(value)
}

/// Whether a character in a message attribute loses the message. SNS refuses a publish with one above U+FFFF, and SQS
/// accepts none above U+FFFD. SNS accepts the others, but then no subscription with a filter policy on attributes gets the
/// message: the value does not fit into a JSON string (Amazon SNS developer guide, "Message attributes").
fn is_unsafe(character: char) -> bool {
    character.is_control() || matches!(character, '"' | '\\' | '\u{FFFE}'..)
}
