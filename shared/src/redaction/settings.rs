//! Secrets in settings: connection strings, queries of URLs, JSON, maps and pairs of several languages, environments, lines
//! of names and values.

use crate::redaction::{
    context::{has_pairs, is_explanation, is_labelled_value, is_of_name, is_value_name},
    findings::Findings,
    names::{Class, MAX_NAME_BYTES, Name},
    value_forms::{is_absent, is_error_code, is_harmless, is_odd, is_sentence},
    values::{Reach, Value, is_known_pair},
};

/// The longest distance between a pair that names a setting and the pair with its value.
const MAX_NAMED_BYTES: usize = 200;

/// The shortest authorization code. Error codes are shorter.
const MIN_CODE_BYTES: usize = 16;

/// Context of a name and a value: settings or prose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    /// Clearly a setting.
    Setting,
    /// At the start of a line, with a colon.
    Label,
    /// In a sentence or a condition of a query: only secrets are hidden.
    Prose,
}

pub(super) fn find(text: &str, findings: &mut Findings) {
    Scan { text, findings, brackets: Vec::new(), naming: None, hidden_until: 0 }.run();
}

struct Scan<'t, 'f> {
    text: &'t str,
    findings: &'f mut Findings,
    /// The open brackets with their positions.
    brackets: Vec<(char, usize)>,
    /// The class of the setting that the last naming pair names, and its position.
    naming: Option<(Class, usize)>,
    /// The end of the last value that was hidden because its name is unknown.
    hidden_until: usize,
}

impl<'t> Scan<'t, '_> {
    fn run(&mut self) {
        let mut at = 0;
        while let Some(character) = self.text[at..].chars().next() {
            let after = at + character.len_utf8();
            at = match character {
                '{' | '[' | '(' => {
                    self.brackets.push((character, at));
                    self.pair_in_brackets(after).unwrap_or(after)
                }
                '}' | ']' | ')' => {
                    self.close(character);
                    after
                }
                '=' | ':' | '＝' | '：' => self.pair(at, character).unwrap_or(after),
                // Scala's maps.
                '-' if self.text[at..].starts_with("->") => self.pair(at, '-').unwrap_or(after),
                '.' if self.text[at..].starts_with("....") => self.dotted_pair(at),
                ' ' | '\t' => self.spaced_pair(at).unwrap_or(after),
                '\'' | '"' => self.listed_pair(at).unwrap_or(after),
                _ => after,
            };
        }
    }

    fn close(&mut self, character: char) {
        let open = match character {
            '}' => '{',
            ']' => '[',
            _ => '(',
        };
        if self.brackets.last().is_some_and(|(last, _)| *last == open) {
            self.brackets.pop();
        }
    }

    fn closer(&self) -> Option<char> {
        self.brackets.last().map(|(open, _)| match open {
            '{' => '}',
            '[' => ']',
            _ => ')',
        })
    }

    /// Reads a name and a value around the separator at `at`. Returns where to go on.
    fn pair(&mut self, at: usize, separator: char) -> Option<usize> {
        let text = self.text;
        let (start, mut after) = match separator {
            // `=>`, `->` and `:=` are one separator.
            '-' => (at, at + 2),
            '=' if text[at + 1..].starts_with('>') => (at, at + 2),
            ':' if text[at + 1..].starts_with('=') => (at, at + 2),
            _ => (at, at + separator.len_utf8()),
        };
        let is_arrow = after == at + 2;
        if separator == ':' && text[after..].starts_with([':', '/']) && !text[after..].starts_with("/ ") {
            return None;
        }
        let name = Name::before(self.text, start)?;
        if separator == '=' && !is_arrow && text[after..].starts_with('=') {
            // A comparison, unless it is a secret that begins with the sign.
            if !(name.is_tight && name.class == Class::Secret) {
                return Some(after + 1);
            }
        }
        // PHP puts the value on the next line.
        let is_space = |character: char| " \t".contains(character) || is_arrow && "\r\n".contains(character);
        let spaces = text[after..].len() - text[after..].trim_start_matches(is_space).len();
        let is_tight = name.is_tight && spaces == 0;
        after += spaces;
        let context = self.context(&name, separator, is_arrow, is_tight, after);
        self.value(&name, context, after, separator == ':' || separator == '：')
    }

    /// Returns where a pair stands.
    fn context(&self, name: &Name<'t>, separator: char, is_arrow: bool, is_tight: bool, after: usize) -> Context {
        let before = self.text[..name.start].trim_end_matches([' ', '\t']);
        let begins_line = before.is_empty() || before.ends_with(['\n', '\r']);
        let is_first = before.ends_with(['{', '[', '(', ',', ';', '|', '&', '?']);
        let is_bulleted = before.ends_with(['-', '*', '•']) && {
            let line = before.trim_end_matches(['-', '*', '•', ' ', '\t']);
            line.is_empty() || line.ends_with('\n')
        };
        if is_arrow || separator == '＝' {
            return Context::Setting;
        }
        if separator == '=' {
            let word = before.rsplit(|character: char| !character.is_alphanumeric()).next().unwrap_or_default();
            let is_condition = before.len() < name.start
                && ["where", "and", "on", "or", "having", "when", "not", "if"].contains(&&*word.to_lowercase());
            let is_setting = if is_tight { !is_condition } else { begins_line || is_first || is_bulleted };
            return if is_setting { Context::Setting } else { Context::Prose };
        }
        let bracket = self.brackets.last().copied();
        let is_in_call = bracket.is_some_and(|(open, at)| {
            open != '(' || self.text[..at].ends_with(|character: char| character.is_alphanumeric() || character == '_')
        });
        let is_map = bracket.is_some_and(|(open, at)| {
            open == '{' && self.text[at + 1..].starts_with(char::is_alphanumeric)
                || open == '[' && self.text[..at].ends_with("map")
        });
        let is_spaced = !is_tight || name.is_quoted;
        let is_in_braces = is_in_call && (is_first || name.is_quoted) && is_spaced
            || is_map && (is_first || before.len() < name.start) && is_tight;
        if is_in_braces && name.start > 0 {
            return Context::Setting;
        }
        if name.is_quoted && self.text[after..].starts_with(['"', '\'', '\\']) {
            return Context::Setting;
        }
        if (begins_line || is_bulleted) && !is_tight || begins_line && separator == '：' {
            return Context::Label;
        }
        Context::Prose
    }

    /// Hides a value if it has to. Returns where to go on.
    fn value(&mut self, name: &Name<'t>, context: Context, start: usize, is_colon: bool) -> Option<usize> {
        let text = self.text;
        let mut class = name.class;
        if let Some((named, at)) = self.naming
            && start - at <= MAX_NAMED_BYTES
            && is_value_name(name.text)
        {
            class = named;
        }
        // In a sign-in request, a code is a secret.
        if ["code", "state", "response"].contains(&&*name.text.to_lowercase()) {
            let value = Value::nearby(text, start, self.closer());
            let shown = value.text(text);
            let is_query = text[..name.start].ends_with(['?', '&']);
            if shown.len() >= MIN_CODE_BYTES && is_odd(shown) || is_query && !is_harmless(shown) {
                class = Class::Secret;
            }
        }
        let rest = &text[start..];
        if rest.is_empty() || rest.starts_with(['\n', '\r']) {
            return (class == Class::Secret && is_colon).then(|| self.next_line(start)).flatten();
        }
        match class {
            Class::Secret => self.secret(name, context, start, is_colon),
            Class::User | Class::Harmless => {
                if class == Class::User && context != Context::Prose {
                    let value = Value::nearby(text, start, self.closer());
                    // A password may follow an Oracle user.
                    let is_secret = value.text(text).contains('/') && !value.text(text).contains("://");
                    let places = if is_secret { &mut self.findings.secrets } else { &mut self.findings.users };
                    if !is_harmless(value.text(text)) {
                        places.push(value.place.clone());
                    }
                }
                None
            }
            Class::Naming => {
                let value = Value::nearby(text, start, self.closer());
                let named = value.text(text);
                let is_api_key =
                    name.text.eq_ignore_ascii_case("key") && is_odd(named) && !named.contains(['/', '.', ' ']);
                if is_api_key && !Class::of(named).is_known() {
                    self.findings.secrets.push(value.place);
                    return None;
                }
                self.naming = (named.len() <= MAX_NAME_BYTES).then(|| (Class::of(named), start));
                None
            }
            Class::Unknown => self.unknown(context, start),
        }
    }

    fn secret(&mut self, name: &Name<'t>, context: Context, start: usize, is_colon: bool) -> Option<usize> {
        let text = self.text;
        let rest = &text[start..];
        // An object has its own names.
        let object = rest.strip_prefix('{').filter(|_| is_colon).map(str::trim_start);
        if object.is_some_and(|object| object.starts_with(['"', '\'', '\\']) || is_known_pair(object)) {
            return None;
        }
        let lower = name.text.to_lowercase();
        if is_colon && context != Context::Setting && is_explanation(&text[..name.words_start], name.text, rest) {
            return None;
        }
        let is_block = ["|", ">", "|-", ">-", "|+"]
            .iter()
            .any(|block| rest.strip_prefix(block).is_some_and(|rest| rest.starts_with('\n')));
        if is_block {
            return self.next_line(start + rest.find('\n').unwrap_or(0));
        }
        let reach = if lower.ends_with("authorization") {
            Reach::Header
        } else if lower.ends_with("cookie") || context == Context::Label {
            Reach::Line
        } else {
            Reach::Token
        };
        let value = Value::at(text, start, reach, self.closer());
        let shown = value.text(text);
        // MySQL reports only whether there was a password.
        let is_yes_or_no = is_colon && ["YES", "NO"].contains(&shown.trim_end_matches(')'));
        if is_absent(shown) || is_yes_or_no || context == Context::Prose && is_colon && is_error_code(shown) {
            return Some(value.end.max(start));
        }
        self.findings.secrets.push(value.place.clone());
        Some(value.end)
    }

    fn unknown(&mut self, context: Context, start: usize) -> Option<usize> {
        let text = self.text;
        if context == Context::Prose || start < self.hidden_until || is_known_pair(&text[start..]) {
            return None;
        }
        let value = Value::nearby(text, start, self.closer());
        let shown = value.text(text);
        let first = text[start..].chars().next()?;
        // In a decoded text, quotes within quotes are not escaped.
        let is_object = shown.starts_with(['{', '[']) && shown[1..].trim_start().starts_with(['"', '\'', '\\', '{']);
        let is_shown = is_object
            || is_harmless(shown)
            || is_sentence(shown)
            || has_pairs(shown)
            || "{[".contains(first) && context == Context::Label;
        if is_shown || context == Context::Label && !is_labelled_value(text, start, &value) {
            return None;
        }
        self.hidden_until = value.place.end;
        self.findings.secrets.push(value.place);
        // The search goes on inside: the value may end earlier than it seems to.
        None
    }

    /// Hides a secret on the line after its name.
    fn next_line(&mut self, start: usize) -> Option<usize> {
        let rest = &self.text[start..];
        let begin = start + rest.len() - rest.trim_start().len();
        if begin >= self.text.len() || is_known_pair(&self.text[begin..]) {
            return None;
        }
        let value = Value::at(self.text, begin, Reach::Line, None);
        self.findings.secrets.push(value.place.clone());
        Some(value.end)
    }

    /// Hides a value in brackets with its name: `['password', 'x']`, `{password, "x"}`, `(:password, x)`.
    fn pair_in_brackets(&mut self, after: usize) -> Option<usize> {
        let text = self.text;
        let end = text.floor_char_boundary((after + MAX_NAME_BYTES).min(text.len()));
        let comma = after + text[after..end].find(',')?;
        let name = text[after..comma].trim_matches([' ', ':', '<', '>', '"', '\'', '\\', '`']);
        if name.is_empty() || !name.chars().all(is_of_name) {
            return None;
        }
        let start = comma + 1 + text[comma + 1..].len() - text[comma + 1..].trim_start_matches(' ').len();
        let class = Class::of(name);
        let value = Value::nearby(text, start, self.closer());
        let is_two = text[value.end..].trim_start_matches(['>', ' ']).starts_with([']', ')', '}']);
        let before = &text[..after - 1];
        let is_listed = before.ends_with(['[', '(', '{']) || before.trim_end().ends_with(',');
        let shown = value.text(text);
        let is_hidden = match class {
            Class::Secret => is_two && !is_absent(shown),
            Class::Unknown => is_two && is_listed && !is_harmless(shown) && !is_sentence(shown) && !has_pairs(shown),
            _ => false,
        };
        if class == Class::User && is_two && is_listed {
            self.findings.users.push(value.place.clone());
        }
        if !is_hidden {
            return None;
        }
        self.findings.secrets.push(value.place.clone());
        Some(value.end)
    }

    /// Hides a quoted value after the quoted name of a secret and a comma or a space: flat lists, Clojure's maps.
    fn listed_pair(&mut self, at: usize) -> Option<usize> {
        let text = self.text;
        let end = text.floor_char_boundary((at + MAX_NAME_BYTES).min(text.len()));
        let quote = text[at..].chars().next()?;
        let close = at + 1 + text[at + 1..end].find(quote)?;
        let start = close + 1;
        let rest = text[start..].strip_prefix(',')?.trim_start_matches(' ');
        let name = &text[at + 1..close];
        let is_value = text[..at].trim_end().ends_with([':', '=', '>']);
        if Class::of(name) != Class::Secret || !rest.starts_with(quote) || is_value || !name.chars().all(is_of_name) {
            return None;
        }
        let value = Value::nearby(text, text.len() - rest.len(), self.closer());
        if Class::of(value.text(text)).is_known() || is_absent(value.text(text)) {
            return None;
        }
        self.findings.secrets.push(value.place.clone());
        Some(value.end)
    }

    /// Hides the value in Clojure's `:password "x"`, and in columns.
    fn spaced_pair(&mut self, at: usize) -> Option<usize> {
        let text = self.text;
        let is_wide = text[at..].starts_with("  ") || text[at..].starts_with('\t');
        let is_quoted = text[at..].starts_with(" \"");
        if text[..at].ends_with([' ', '\t']) || !is_wide && !is_quoted {
            return None;
        }
        let name = Name::before(self.text, at).filter(|name| name.class != Class::Harmless && !name.is_quoted)?;
        let rest = text[at..].trim_start_matches([' ', '\t']);
        let start = text.len() - rest.len();
        let is_keyword =
            text[..name.start].ends_with(':') && !text[..name.start].ends_with("::") && rest.starts_with('"');
        let line = text[..name.start].rsplit('\n').next().unwrap_or_default();
        let is_column = (start - at >= 2 || text[at..].starts_with('\t')) && line.trim().is_empty();
        let is_hidden = match name.class {
            Class::Secret => is_keyword || is_column,
            Class::Unknown => is_keyword,
            _ => false,
        };
        if !is_hidden || rest.starts_with(['=', ':', '\n']) || rest.is_empty() {
            return None;
        }
        let value = Value::nearby(text, start, self.closer());
        if is_absent(value.text(text)) || name.class == Class::Unknown && is_harmless(value.text(text)) {
            return None;
        }
        self.findings.secrets.push(value.place.clone());
        Some(value.end)
    }

    /// Hides a value with dots between its name and itself, as in columns. Returns where to go on.
    fn dotted_pair(&mut self, at: usize) -> usize {
        let rest = self.text[at..].trim_start_matches('.');
        let start = self.text.len() - rest.len();
        let name = Name::before(self.text, at);
        name.and_then(|name| self.value(&name, Context::Setting, start, false)).unwrap_or(start)
    }
}
