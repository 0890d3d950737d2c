//! Forms of values: which reveal nothing secret, and which are no words.

use crate::redaction::findings::REDACTED;

/// Whether the form of a value shows that it is no secret: a number, a truth value, an error code, a date.
pub(super) fn is_harmless(value: &str) -> bool {
    let value = value.trim();
    const WORDS: &[&str] = &[
        "true",
        "false",
        "yes",
        "no",
        "y",
        "n",
        "on",
        "off",
        "null",
        "none",
        "nil",
        "undefined",
        "default",
        "auto",
        "enabled",
        "disabled",
        "required",
        "require",
        "optional",
        "prefer",
        "preferred",
        "allow",
        "disable",
        "verify-full",
        "verify-ca",
        "neutral",
        "utf8",
        "utf-8",
        "(null)",
        "<null>",
        "n/a",
    ];
    value.is_empty()
        || WORDS.contains(&&*value.to_ascii_lowercase())
        || is_masked(value)
        || is_number(value)
        || is_error_code(value)
        || is_time(value)
        || is_host_and_port(value)
}

/// Whether a secret's value is missing, or was hidden before.
pub(super) fn is_absent(value: &str) -> bool {
    let value = value.trim();
    value.is_empty()
        || ["null", "none", "nil", "undefined", "(null)", "<null>", "true", "false"]
            .contains(&&*value.to_ascii_lowercase())
        || is_masked(value)
        || value.starts_with(REDACTED)
}

fn is_masked(value: &str) -> bool {
    value.chars().all(|character| "*•●xX.".contains(character)) && value.len() > 2
        || ["<hidden>", "<redacted>", "[hidden]", "<masked>", "***redacted***"].contains(&&*value.to_ascii_lowercase())
}

/// Whether a value is a number, with or without a unit.
fn is_number(value: &str) -> bool {
    let digits = value.trim_start_matches(['-', '+']);
    let unit = digits.trim_start_matches(|character: char| character.is_ascii_digit() || ".,:".contains(character));
    let digits = digits.len() - unit.len();
    (1..=15).contains(&digits)
        && value.contains(|character: char| character.is_ascii_digit())
        && unit.trim_start().len() <= 3
        && unit.trim_start().chars().all(|character| character.is_ascii_alphabetic() || character == '%')
}

/// Whether a value is an error code: `ORA-01017`, `AADSTS700082`, `0x80131904`, `HY000`.
pub(super) fn is_error_code(value: &str) -> bool {
    if let Some(digits) = value.strip_prefix("0x") {
        return (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let letters = value.bytes().take_while(u8::is_ascii_uppercase).count();
    let digits = value[letters..].trim_start_matches(['-', '_']);
    let separators = value.len() - letters - digits.len();
    let is_sqlstate = value.len() == 5
        && value.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        && value.bytes().any(|byte| byte.is_ascii_digit());
    is_sqlstate
        || (2..=10).contains(&letters)
            && separators <= 1
            && (2..=8).contains(&digits.len())
            && digits.trim_end_matches(['E', 'I', 'W', 'N']).bytes().all(|byte| byte.is_ascii_digit())
}

fn is_host_and_port(value: &str) -> bool {
    value.rsplit_once(':').is_some_and(|(host, port)| {
        (2..=5).contains(&port.len())
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && !host.is_empty()
            && host.chars().all(|character| character.is_ascii_alphanumeric() || ".-".contains(character))
    })
}

/// Whether a value is a date, a time or both.
fn is_time(value: &str) -> bool {
    let bytes = value.as_bytes();
    let is_date = bytes.len() >= 10 && bytes[4] == b'-' && bytes[7] == b'-';
    let rest = if is_date { value.get(10..) } else { Some(value) };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || b":.-+TZ ".contains(&byte));
    (is_date && is_digits(&value[..value.floor_char_boundary(10)]) || value.len() <= 12 && value.contains(':'))
        && value.len() <= 35
        && rest.is_some_and(is_digits)
}

/// Whether a value reads as a sentence.
pub(super) fn is_sentence(value: &str) -> bool {
    let words = value.split_whitespace().count();
    let letters = value.chars().filter(|character| character.is_alphabetic() || character.is_whitespace()).count();
    words >= 4 && letters * 10 >= value.chars().count() * 8
}

/// Whether a token is no word: it mixes letters with digits or signs, and its form is not that of a harmless value.
pub(super) fn is_odd(token: &str) -> bool {
    let token = token.trim_end_matches(['.', ',', ';', ':', ')', ']', '}', '"', '\'', '!', '?']);
    let has = |of: fn(&char) -> bool| token.chars().any(|character| of(&character));
    let is_special = |character: &char| !character.is_alphanumeric() && !"-_./\\'\"()[]:".contains(*character);
    token.len() >= 6
        && has(|character| character.is_alphabetic())
        && (has(|character| character.is_ascii_digit()) || token.chars().any(|character| is_special(&character)))
        && !is_harmless(token)
}
