//! Where a value begins and ends, and which values say nothing secret by their form.

use std::ops::Range;

use super::{
    HIDDEN,
    names::{Class, NAME_BYTES},
};

/// How far ahead the end of an unquoted value with spaces is looked for.
const VALUE_WITH_SPACES_BYTES: usize = 100;

/// The furthest that the end of a quoted or bracketed value is looked for if it need not be hidden.
const SHOWN_BYTES: usize = 400;

/// How far an unquoted value reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// To the next white space, or further where it clearly goes on.
    Token,
    /// To the end of the line.
    Line,
    /// As in the header `Authorization`: a scheme, a token, and parameters.
    Header,
}

/// A value in a text.
pub(super) struct Value {
    /// Without quotes.
    pub(super) place: Range<usize>,
    /// Where the text goes on.
    pub(super) end: usize,
    /// Whether it has an opening quote or bracket and no closing one.
    is_open: bool,
}

/// A quotation mark, which has backslashes before it if it stands within another string.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Quote {
    backslashes: usize,
    sign: char,
}

impl Quote {
    /// The quotation mark at the start of a text.
    pub(super) fn at_start_of(text: &str) -> Option<Self> {
        let backslashes = text.len() - text.trim_start_matches('\\').len();
        let sign = text[backslashes..].chars().next().filter(|sign| is_quote(*sign))?;
        Some(Self { backslashes, sign })
    }

    pub(super) fn length(self) -> usize {
        self.backslashes + self.sign.len_utf8()
    }

    fn is_closed_by(self, character: char) -> bool {
        match self.sign {
            '„' | '“' => "“”".contains(character),
            '«' => character == '»',
            sign => character == sign,
        }
    }

    /// How many bytes stand before the mark that closes this one; `inside` begins behind it.
    fn length_inside(self, inside: &str) -> Option<usize> {
        let (mut backslashes, mut at) = (0, 0);
        while let Some(character) = inside[at..].chars().next() {
            let behind = at + character.len_utf8();
            if character == '\\' {
                backslashes += 1;
            } else {
                if self.is_closed_by(character) {
                    let is_of_this_level =
                        backslashes == self.backslashes || self.backslashes == 0 && backslashes % 2 == 0;
                    let is_doubled = self.backslashes == 0 && inside[behind..].starts_with(character);
                    if is_doubled && at > 0 {
                        at = behind + character.len_utf8();
                        backslashes = 0;
                        continue;
                    }
                    if is_of_this_level && is_end(&inside[behind..]) {
                        return Some(at - self.backslashes.min(backslashes));
                    }
                }
                backslashes = 0;
            }
            at = behind;
        }
        None
    }
}

fn is_quote(character: char) -> bool {
    "\"'`“„”«»".contains(character)
}

/// Whether a value may have ended before this text.
fn is_end(text: &str) -> bool {
    text.chars().next().is_none_or(|next| next.is_whitespace() || ",;&)]}>:|<.\\".contains(next) || is_quote(next))
}

impl Value {
    /// The value that begins at `start`, behind its name. Inside of a bracket, `closer` ends it.
    pub(super) fn at(text: &str, start: usize, reach: Reach, closer: Option<char>) -> Self {
        let rest = &text[start..];
        if rest.starts_with(HIDDEN) {
            return Self { place: start..start, end: start + HIDDEN.len(), is_open: false };
        }
        let inside = start + wrapper(rest);
        if let Some(quote) = Quote::at_start_of(&text[inside..]) {
            let inside = inside + quote.length();
            if let Some(length) = quote.length_inside(&text[inside..]) {
                let end = inside + length;
                return Self { place: inside..end, end: end + quote.length(), is_open: false };
            }
            return Self { place: inside..text.len(), end: text.len(), is_open: true };
        }
        if let Some(end) = bracketed(rest).map(|end| start + end) {
            let goes_on = !is_end(&text[end..]);
            let end = if goes_on { unquoted(text, end, Reach::Token, closer) } else { end };
            let (from, to) = if goes_on { (start, end) } else { (start + 1, end - 1) };
            return Self { place: from..to, end, is_open: false };
        }
        let end = if reach == Reach::Header { header(text, start) } else { unquoted(text, start, reach, closer) };
        Self { place: start..end, end, is_open: false }
    }

    /// The same, for a value that is only hidden if its end is found nearby.
    pub(super) fn nearby(text: &str, start: usize, closer: Option<char>) -> Self {
        let end = text.floor_char_boundary(start.saturating_add(SHOWN_BYTES));
        let near = &text[..end];
        let value = Self::at(near, start, Reach::Token, closer);
        if value.is_open {
            let end = unquoted(near, start, Reach::Token, closer);
            return Self { place: start..end, end, is_open: false };
        }
        value
    }

    pub(super) fn text<'t>(&self, text: &'t str) -> &'t str {
        &text[self.place.clone()]
    }
}

/// How many bytes stand before the quotation mark of a value with a type or prefix: `N'…'`, `<<"…">>`, `Some("…")`,
/// `string(5) "…"`.
fn wrapper(text: &str) -> usize {
    let is_wrapped = |at: usize| text[at..].starts_with(['"', '\'']);
    if text.starts_with("<<\"") {
        return 2;
    }
    let word = text.bytes().take(24).take_while(|byte| byte.is_ascii_alphanumeric() || b"_.@".contains(byte)).count();
    if word <= 2 && is_wrapped(word) {
        return word;
    }
    if word > 0 && text[word..].starts_with('(') {
        let digits = text[word + 1..].bytes().take(8).take_while(u8::is_ascii_digit).count();
        if is_wrapped(word + 1) {
            return word + 1;
        }
        if text[word + 1 + digits..].starts_with(") ") && is_wrapped(word + digits + 3) {
            return word + digits + 3;
        }
    }
    0
}

/// The end of a text in brackets, if it begins with one that is closed.
fn bracketed(text: &str) -> Option<usize> {
    let open = text.chars().next()?;
    let close = match open {
        '{' => '}',
        '[' => ']',
        '(' => ')',
        _ => return None,
    };
    let mut depth = 0_usize;
    let near = text.char_indices().take(SHOWN_BYTES);
    let balanced = near.clone().find_map(|(at, character)| {
        depth = if character == open { depth + 1 } else { depth - usize::from(character == close) };
        (depth == 0).then_some(at + 1)
    });
    if open != '{' {
        return balanced;
    }
    // Braces in connection strings do not nest, and a closing one inside is doubled.
    let mut is_inside_double = false;
    let alone = near.clone().find_map(|(at, character)| {
        let is_double = character == close && !is_inside_double && text[at + 1..].starts_with(close);
        let is_end = character == close && !is_inside_double && !is_double;
        is_inside_double = is_double;
        is_end.then_some(at + 1)
    });
    balanced.max(alone)
}

/// The end of a value without quotes.
fn unquoted(text: &str, start: usize, reach: Reach, closer: Option<char>) -> usize {
    let mut end = text.len();
    for (at, character) in text[start..].char_indices().map(|(at, character)| (start + at, character)) {
        let behind = &text[at + character.len_utf8()..];
        let is_space = character.is_whitespace() && !['\n', '\r'].contains(&character);
        if is_space && reach == Reach::Token {
            end = with_spaces(text, at, closer).unwrap_or(at);
            break;
        }
        let goes_on = character == ',' && reach == Reach::Token && closer.is_some() && behind.starts_with(' ');
        if goes_on && !is_known_pair(behind) {
            end = with_spaces(text, at + 1, closer).unwrap_or(at);
            break;
        }
        let is_last = match character {
            '\n' | '\r' => true,
            _ if is_space => is_known_pair(behind),
            ';' | ',' | '&' | '|' => {
                let is_pair = || name_at_start_of(behind).is_some_and(|name| Class::of(name).is_known());
                is_known_pair(behind)
                    || character == ';' && is_pair()
                    || reach == Reach::Token && behind.chars().next().is_none_or(char::is_whitespace)
            }
            '"' | '\'' | '\\' if at > start => {
                Quote::at_start_of(&text[at..]).is_some_and(|quote| is_closing_end(&text[at + quote.length()..]))
            }
            '<' => behind.starts_with('/'),
            _ if Some(character) == closer => is_closing_end(behind),
            _ => false,
        };
        if is_last {
            end = at;
            break;
        }
    }
    let value = text[start..end].trim_end();
    let trimmed = value.trim_end_matches([')', ']', '}', '>', ',', '.', ';', '"', '\'', ':']);
    start + if trimmed.is_empty() { value.len() } else { trimmed.len() }
}

/// Whether a closing bracket or quotation mark before this text closes something.
fn is_closing_end(text: &str) -> bool {
    text.chars().next().is_none_or(|next| next.is_whitespace() || ",;)]}>:.\"'\\<".contains(next))
}

/// The end of an unquoted value that has a space at `space`: it goes on where a semicolon, or inside of a bracket a comma,
/// comes before another name, or where the bracket is closed.
fn with_spaces(text: &str, space: usize, closer: Option<char>) -> Option<usize> {
    let near = &text[space..text.floor_char_boundary((space + VALUE_WITH_SPACES_BYTES).min(text.len()))];
    for (at, character) in near.char_indices() {
        let behind = &text[space + at + character.len_utf8()..];
        match character {
            '\n' | '=' | '"' => return None,
            ';' if name_at_start_of(behind).is_some()
                || behind.trim_start_matches([' ', '"', '\'']).starts_with(['\n', ')']) =>
            {
                return Some(space + at);
            }
            ',' if closer.is_some() && is_known_pair(behind) => return Some(space + at),
            _ if Some(character) == closer => return Some(space + at),
            _ if closer.is_some() && character.is_whitespace() && is_known_pair(behind) => {
                return (at > 0).then_some(space + at);
            }
            _ => {}
        }
    }
    None
}

/// The end of the value of an `Authorization` header.
fn header(text: &str, start: usize) -> usize {
    let word = |from: usize| {
        let rest = &text[from..];
        let quoted = rest.find("=\"").filter(|at| !rest[..*at].contains([' ', '\n', ',']) && *at < NAME_BYTES);
        let skipped = quoted.and_then(|at| rest[at + 2..].find('"').map(|end| at + 3 + end)).unwrap_or(0);
        let ends = |character: char| character.is_whitespace() || "\"',;<>".contains(character);
        from + skipped + rest[skipped..].find(ends).unwrap_or(rest.len() - skipped)
    };
    let mut end = word(start);
    let is_scheme = text[start..end].chars().all(|character| character.is_alphanumeric() || character == '-');
    if is_scheme && text[end..].starts_with(' ') {
        end = word(end + 1);
    }
    loop {
        let Some(next) = text[end..].strip_prefix(',').map(str::trim_start) else { return end };
        let name =
            next.bytes().take(NAME_BYTES).take_while(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
        let name = name.count();
        if name == 0 || !next[name..].starts_with('=') {
            return end;
        }
        end = word(text.len() - next.len());
    }
}

/// Whether a text begins with the name of a setting that is known, and what separates it from its value.
pub(super) fn is_known_pair(text: &str) -> bool {
    name_at_start_of(text).is_some_and(|name| {
        Class::of_phrase(name).is_some_and(Class::is_known) || !name.contains(' ') && Class::of(name).is_known()
    })
}

/// The name that a text begins with, if a separator follows.
fn name_at_start_of(text: &str) -> Option<&str> {
    let text = text.trim_start_matches([' ', '\t', '"', '\'', '\\', '{', '[', '(', '-', ':']);
    let end = text.floor_char_boundary(NAME_BYTES.min(text.len()));
    let is_of_name = |character: char| character.is_alphanumeric() || " ._-".contains(character);
    let length = text[..end].find(|character| !is_of_name(character))?;
    let name = text[..length].trim_end();
    let behind = text[length..].trim_start_matches(['\\', '"', '\'', ']', ' ']);
    let is_separator = behind.starts_with('=') && !behind.starts_with("==")
        || behind.starts_with([':', '：', '＝']) && !behind.starts_with("://");
    // A letter or two may stand in any secret.
    (is_separator && (name.chars().filter(|it| it.is_alphanumeric()).count() > 2 || name.eq_ignore_ascii_case("db")))
        .then_some(name)
}

/// Whether a value says nothing secret by its form, whatever its name: a number, a truth value, an error's code, a date.
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

/// Whether a value says nothing even where a secret belongs: there is none, or it was hidden before.
pub(super) fn is_absent(value: &str) -> bool {
    let value = value.trim();
    value.is_empty()
        || ["null", "none", "nil", "undefined", "(null)", "<null>", "true", "false"]
            .contains(&&*value.to_ascii_lowercase())
        || is_masked(value)
        || value.starts_with(HIDDEN)
}

fn is_masked(value: &str) -> bool {
    value.chars().all(|character| "*•●xX.".contains(character)) && value.len() > 2
        || ["<hidden>", "<redacted>", "[hidden]", "<masked>", "***redacted***"].contains(&&*value.to_ascii_lowercase())
}

/// Whether it is a number, also with a unit.
fn is_number(value: &str) -> bool {
    let digits = value.trim_start_matches(['-', '+']);
    let unit = digits.trim_start_matches(|character: char| character.is_ascii_digit() || ".,:".contains(character));
    let digits = digits.len() - unit.len();
    (1..=15).contains(&digits)
        && value.contains(|character: char| character.is_ascii_digit())
        && unit.trim_start().len() <= 3
        && unit.trim_start().chars().all(|character| character.is_ascii_alphabetic() || character == '%')
}

/// Whether it is an error's code: `ORA-01017`, `AADSTS700082`, `0x80131904`, `HY000`.
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

/// Whether it is a date, a time or both.
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

/// Whether a token is no word: it has letters and digits, and is none of the things that stand in a sentence.
pub(super) fn is_odd(token: &str) -> bool {
    let token = token.trim_end_matches(['.', ',', ';', ':', ')', ']', '}', '"', '\'', '!', '?']);
    let has = |of: fn(&char) -> bool| token.chars().any(|character| of(&character));
    let is_special = |character: &char| !character.is_alphanumeric() && !"-_./\\'\"()[]:".contains(*character);
    token.len() >= 6
        && has(|character| character.is_alphabetic())
        && (has(|character| character.is_ascii_digit()) || token.chars().any(|character| is_special(&character)))
        && !is_harmless(token)
}
