//! Values of settings: where they begin and end in a text.

use std::ops::Range;

use crate::redaction::{
    findings::REDACTED,
    names::{Class, MAX_NAME_BYTES},
};

/// The longest unquoted value with spaces.
const MAX_SPACED_VALUE_BYTES: usize = 100;

/// The longest quoted or bracketed value that is read if its name is not secret.
const MAX_NEARBY_BYTES: usize = 400;

/// Extent of an unquoted value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// To the next white space, or further if the value clearly goes on.
    Token,
    /// To the end of the line.
    Line,
    /// As in the header `Authorization`: a scheme, a token and parameters.
    Header,
}

/// A value in a text.
pub(super) struct Value {
    /// The value without quotes.
    pub(super) place: Range<usize>,
    /// The end of the value with its quotes.
    pub(super) end: usize,
    /// Whether it has an opening quote or bracket and no closing one.
    is_open: bool,
}

/// A quotation mark with the backslashes that escape it within another string.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Quote {
    backslashes: usize,
    sign: char,
}

impl Quote {
    /// Reads the quotation mark at the start of a text.
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

    /// Returns the length of the quoted text at the start of `inside`; `None` if it is not closed.
    fn length_inside(self, inside: &str) -> Option<usize> {
        let (mut backslashes, mut at) = (0, 0);
        while let Some(character) = inside[at..].chars().next() {
            let after = at + character.len_utf8();
            if character == '\\' {
                backslashes += 1;
            } else {
                if self.is_closed_by(character) {
                    let is_of_this_level =
                        backslashes == self.backslashes || self.backslashes == 0 && backslashes % 2 == 0;
                    let is_doubled = self.backslashes == 0 && inside[after..].starts_with(character);
                    if is_doubled && at > 0 {
                        at = after + character.len_utf8();
                        backslashes = 0;
                        continue;
                    }
                    if is_of_this_level && is_end(&inside[after..]) {
                        return Some(at - self.backslashes.min(backslashes));
                    }
                }
                backslashes = 0;
            }
            at = after;
        }
        None
    }
}

fn is_quote(character: char) -> bool {
    "\"'`“„”«»".contains(character)
}

/// Whether a value may end before this text.
fn is_end(text: &str) -> bool {
    text.chars().next().is_none_or(|next| next.is_whitespace() || ",;&)]}>:|<.\\".contains(next) || is_quote(next))
}

impl Value {
    /// Reads the value that begins at `start`. Inside of a bracket, `closer` ends it.
    pub(super) fn at(text: &str, start: usize, reach: Reach, closer: Option<char>) -> Self {
        let rest = &text[start..];
        if rest.starts_with(REDACTED) {
            return Self { place: start..start, end: start + REDACTED.len(), is_open: false };
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

    /// Reads a value whose name is not known to be secret: its end must be nearby.
    pub(super) fn nearby(text: &str, start: usize, closer: Option<char>) -> Self {
        let end = text.floor_char_boundary(start.saturating_add(MAX_NEARBY_BYTES));
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

/// Returns the length of a type or prefix before a quotation mark: `N'…'`, `<<"…">>`, `Some("…")`, `string(5) "…"`.
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

/// Returns the end of the brackets that a text begins with, if they are closed.
fn bracketed(text: &str) -> Option<usize> {
    let open = text.chars().next()?;
    let close = match open {
        '{' => '}',
        '[' => ']',
        '(' => ')',
        _ => return None,
    };
    let mut depth = 0_usize;
    let near = text.char_indices().take(MAX_NEARBY_BYTES);
    let balanced = near.clone().find_map(|(at, character)| {
        depth = if character == open { depth + 1 } else { depth - usize::from(character == close) };
        (depth == 0).then_some(at + 1)
    });
    if open != '{' {
        return balanced;
    }
    // Braces in connection strings do not nest. A closing one inside is doubled.
    let mut is_inside_double = false;
    let alone = near.clone().find_map(|(at, character)| {
        let is_double = character == close && !is_inside_double && text[at + 1..].starts_with(close);
        let is_end = character == close && !is_inside_double && !is_double;
        is_inside_double = is_double;
        is_end.then_some(at + 1)
    });
    balanced.max(alone)
}

/// Returns the end of a value without quotes.
fn unquoted(text: &str, start: usize, reach: Reach, closer: Option<char>) -> usize {
    let mut end = text.len();
    for (at, character) in text[start..].char_indices().map(|(at, character)| (start + at, character)) {
        let after = &text[at + character.len_utf8()..];
        let is_space = character.is_whitespace() && !['\n', '\r'].contains(&character);
        if is_space && reach == Reach::Token {
            end = with_spaces(text, at, closer).unwrap_or(at);
            break;
        }
        let goes_on = character == ',' && reach == Reach::Token && closer.is_some() && after.starts_with(' ');
        if goes_on && !is_known_pair(after) {
            end = with_spaces(text, at + 1, closer).unwrap_or(at);
            break;
        }
        let is_last = match character {
            '\n' | '\r' => true,
            _ if is_space => is_known_pair(after),
            ';' | ',' | '&' | '|' => {
                let is_pair = || name_at_start_of(after).is_some_and(|name| Class::of(name).is_known());
                is_known_pair(after)
                    || character == ';' && is_pair()
                    || reach == Reach::Token && after.chars().next().is_none_or(char::is_whitespace)
            }
            '"' | '\'' | '\\' if at > start => {
                Quote::at_start_of(&text[at..]).is_some_and(|quote| is_closing_end(&text[at + quote.length()..]))
            }
            '<' => after.starts_with('/'),
            _ if Some(character) == closer => is_closing_end(after),
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

/// Returns the end of an unquoted value with a space at `space`: a semicolon before another name, or inside of a bracket a
/// comma before another name, or the closing bracket.
fn with_spaces(text: &str, space: usize, closer: Option<char>) -> Option<usize> {
    let near = &text[space..text.floor_char_boundary((space + MAX_SPACED_VALUE_BYTES).min(text.len()))];
    for (at, character) in near.char_indices() {
        let after = &text[space + at + character.len_utf8()..];
        match character {
            '\n' | '=' | '"' => return None,
            ';' if name_at_start_of(after).is_some()
                || after.trim_start_matches([' ', '"', '\'']).starts_with(['\n', ')']) =>
            {
                return Some(space + at);
            }
            ',' if closer.is_some() && is_known_pair(after) => return Some(space + at),
            _ if Some(character) == closer => return Some(space + at),
            _ if closer.is_some() && character.is_whitespace() && is_known_pair(after) => {
                return (at > 0).then_some(space + at);
            }
            _ => {}
        }
    }
    None
}

/// Returns the end of an `Authorization` header's value.
fn header(text: &str, start: usize) -> usize {
    let word = |from: usize| {
        let rest = &text[from..];
        let quoted = rest.find("=\"").filter(|at| !rest[..*at].contains([' ', '\n', ',']) && *at < MAX_NAME_BYTES);
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
            next.bytes().take(MAX_NAME_BYTES).take_while(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
        let name = name.count();
        if name == 0 || !next[name..].starts_with('=') {
            return end;
        }
        end = word(text.len() - next.len());
    }
}

/// Whether a text begins with a known name of a setting and a separator.
pub(super) fn is_known_pair(text: &str) -> bool {
    name_at_start_of(text).is_some_and(|name| {
        Class::of_phrase(name).is_some_and(Class::is_known) || !name.contains(' ') && Class::of(name).is_known()
    })
}

/// Returns the name that a text begins with, if a separator follows.
fn name_at_start_of(text: &str) -> Option<&str> {
    let text = text.trim_start_matches([' ', '\t', '"', '\'', '\\', '{', '[', '(', '-', ':']);
    let end = text.floor_char_boundary(MAX_NAME_BYTES.min(text.len()));
    let is_of_name = |character: char| character.is_alphanumeric() || " ._-".contains(character);
    let length = text[..end].find(|character| !is_of_name(character))?;
    let name = text[..length].trim_end();
    let after = text[length..].trim_start_matches(['\\', '"', '\'', ']', ' ']);
    let is_separator = after.starts_with('=') && !after.starts_with("==")
        || after.starts_with([':', '：', '＝']) && !after.starts_with("://");
    // One or two letters may be part of a secret.
    (is_separator && (name.chars().filter(|it| it.is_alphanumeric()).count() > 2 || name.eq_ignore_ascii_case("db")))
        .then_some(name)
}
