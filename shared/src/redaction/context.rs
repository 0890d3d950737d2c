//! Distinguishes settings from prose by the text around them.

use crate::redaction::{
    names::{Class, is_error_word},
    value_forms::is_error_code,
    values::Value,
};

/// Whether a name stands for the value of a setting that another pair names.
pub(super) fn is_value_name(name: &str) -> bool {
    ["value", "val", "wert", "valeur", "valor", "defaultvalue", "string", "content"].contains(&&*name.to_lowercase())
}

/// Whether a text has settings inside, which are searched on their own.
pub(super) fn has_pairs(text: &str) -> bool {
    text.match_indices(['=', ':']).take(20).any(|(at, _)| {
        let before = text[..at].trim_end_matches(['"', '\'', '\\', ' ']);
        let start = before
            .rfind(|character| !is_of_name(character))
            .map_or(0, |at| at + before[at..].chars().next().map_or(0, char::len_utf8));
        let is_url = text[at..].starts_with("://");
        let is_first = before[..start].trim_end_matches(['"', '\'', '\\', '-']).chars().next_back();
        let is_first = is_first.is_none_or(|before| before.is_whitespace() || ";,&?{[(|:=<".contains(before));
        is_url
            || is_first && at + 1 < text.len() && !before[start..].is_empty() && Class::of(&before[start..]).is_known()
    })
}

/// Whether an explanation follows a colon: "Invalid username or password: logon denied".
pub(super) fn is_explanation(before: &str, name: &str, after: &str) -> bool {
    let word = before.trim_end().rsplit(|character: char| !character.is_alphanumeric()).next().unwrap_or_default();
    let name = name.to_lowercase();
    let is_error = name.split(|character: char| !character.is_alphanumeric()).any(is_error_word)
        || is_error_word(&word.to_lowercase());
    let mut words = after.split(' ');
    let is_word = |word: Option<&str>| {
        word.is_some_and(|word| {
            !word.is_empty()
                && word.trim_end_matches(['.', ',', ';', ':']).chars().all(|it| it.is_alphabetic() || it == '\'')
        })
    };
    let first = words.next();
    let is_code = first.is_some_and(|word| is_error_code(word.trim_end_matches([':', ',', '.'])));
    is_error && (is_code || is_word(first) && is_word(words.next()))
}

/// Whether a line has nothing but a label and one value that is no word.
pub(super) fn is_labelled_value(text: &str, start: usize, value: &Value) -> bool {
    let line = text[start..].split(['\n', '\r']).next().unwrap_or_default().trim_end();
    let is_alone = value.end >= start + line.len()
        || text[value.end..start + line.len()].trim_matches([',', ';', '"', '\'', ' ']).is_empty();
    let shown = value.text(text);
    let is_word = shown.chars().all(|character| character.is_alphabetic() || ".-_/ '".contains(character));
    let is_address = shown.contains("://") || shown.contains(['/', '\\']) || shown.split(['.', ':']).count() > 2;
    is_alone && !is_word && !is_address && !shown.contains(' ')
}

/// Whether a character may be in a name of one word.
pub(super) fn is_of_name(character: char) -> bool {
    character.is_alphanumeric() || "_-.".contains(character)
}
