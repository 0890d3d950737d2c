//! Values of SNS message attributes, which subscriptions filter by.

/// The most bytes of an attribute's value: Tableau's longest names have 255 characters, of three bytes at most. A longer
/// value is left out whole: its beginning could be the name of something else, and all of it would take from the message
/// what SNS allows it.
pub(crate) const ATTRIBUTE_BYTES: usize = 1024;

/// The value of a message attribute: the text without the characters of [`is_lost_in_attributes`]. `None` if nothing is
/// left or it is too long to be a name.
pub(crate) fn attribute_value(text: &str) -> Option<String> {
    let value: String = text.chars().filter(|character| !is_lost_in_attributes(*character)).collect();
    (!value.is_empty() && value.len() <= ATTRIBUTE_BYTES).then_some(value)
}

/// Whether a character in a message attribute would cost the message. SNS refuses a publish with one above U+FFFF, and
/// SQS takes none above U+FFFD. SNS accepts the others, and then every subscription with a filter policy on attributes
/// drops the message without a word, since the value is no inside of a JSON string (Amazon SNS developer guide, "Message
/// attributes").
fn is_lost_in_attributes(character: char) -> bool {
    character.is_control() || matches!(character, '"' | '\\' | '\u{FFFE}'..)
}
