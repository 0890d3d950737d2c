//! Names and values, in whatever way drivers, tools and languages write them: connection strings, queries of URLs, JSON,
//! maps and pairs of several languages, environments, lines of settings.

use super::{
    Found,
    names::{Class, NAME_BYTES, Name, tells},
    values::{Reach, Value, is_absent, is_error_code, is_harmless, is_known_pair, is_odd, is_sentence},
};

/// How far behind a name of another value that value may stand.
const NAMED_BYTES: usize = 200;

/// The shortest code that is no error's.
const CODE_BYTES: usize = 16;

/// How sure it is that name and value are a setting and no prose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Clearly a setting.
    Setting,
    /// At the start of a line, with a colon.
    Label,
    /// In a sentence, or a condition of a query: only secrets are hidden.
    Prose,
}

pub(super) fn find(text: &str, found: &mut Found) {
    Scan { text, found, brackets: Vec::new(), naming: None, hidden_until: 0 }.run();
}

struct Scan<'t, 'f> {
    text: &'t str,
    found: &'f mut Found,
    /// The brackets that are open, and where they stand.
    brackets: Vec<(char, usize)>,
    /// The class of the value that was named last by another value, and where.
    naming: Option<(Class, usize)>,
    /// Where the values end that were hidden for their names being unknown.
    hidden_until: usize,
}

impl<'t> Scan<'t, '_> {
    fn run(&mut self) {
        let mut at = 0;
        while let Some(character) = self.text[at..].chars().next() {
            let behind = at + character.len_utf8();
            at = match character {
                '{' | '[' | '(' => {
                    self.brackets.push((character, at));
                    self.pair_in_brackets(behind).unwrap_or(behind)
                }
                '}' | ']' | ')' => {
                    self.close(character);
                    behind
                }
                '=' | ':' | '＝' | '：' => self.pair(at, character).unwrap_or(behind),
                // Scala's maps.
                '-' if self.text[at..].starts_with("->") => self.pair(at, '-').unwrap_or(behind),
                '.' if self.text[at..].starts_with("....") => self.dotted_pair(at),
                ' ' | '\t' => self.spaced_pair(at).unwrap_or(behind),
                '\'' | '"' => self.listed_pair(at).unwrap_or(behind),
                _ => behind,
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

    /// A name and a value around the separator at `at`. Returns where to go on.
    fn pair(&mut self, at: usize, separator: char) -> Option<usize> {
        let text = self.text;
        let (start, mut behind) = match separator {
            // `=>`, `->` and `:=` are one separator.
            '-' => (at, at + 2),
            '=' if text[at + 1..].starts_with('>') => (at, at + 2),
            ':' if text[at + 1..].starts_with('=') => (at, at + 2),
            _ => (at, at + separator.len_utf8()),
        };
        let is_arrow = behind == at + 2;
        if separator == ':' && text[behind..].starts_with([':', '/']) && !text[behind..].starts_with("/ ") {
            return None;
        }
        let name = Name::before(self.text, start)?;
        if separator == '=' && !is_arrow && text[behind..].starts_with('=') {
            // A comparison, unless something is given that begins with the sign.
            if !(name.is_tight && name.class == Class::Secret) {
                return Some(behind + 1);
            }
        }
        // PHP puts the value on the next line.
        let is_space = |character: char| " \t".contains(character) || is_arrow && "\r\n".contains(character);
        let spaces = text[behind..].len() - text[behind..].trim_start_matches(is_space).len();
        let is_tight = name.is_tight && spaces == 0;
        behind += spaces;
        let place = self.place(&name, separator, is_arrow, is_tight, behind);
        self.value(&name, place, behind, separator == ':' || separator == '：')
    }

    /// Where a pair stands.
    fn place(&self, name: &Name<'t>, separator: char, is_arrow: bool, is_tight: bool, behind: usize) -> Place {
        let before = self.text[..name.start].trim_end_matches([' ', '\t']);
        let begins_line = before.is_empty() || before.ends_with(['\n', '\r']);
        let is_first = before.ends_with(['{', '[', '(', ',', ';', '|', '&', '?']);
        let is_bulleted = before.ends_with(['-', '*', '•']) && {
            let line = before.trim_end_matches(['-', '*', '•', ' ', '\t']);
            line.is_empty() || line.ends_with('\n')
        };
        if is_arrow || separator == '＝' {
            return Place::Setting;
        }
        if separator == '=' {
            let word = before.rsplit(|character: char| !character.is_alphanumeric()).next().unwrap_or_default();
            let is_condition = before.len() < name.start
                && ["where", "and", "on", "or", "having", "when", "not", "if"].contains(&&*word.to_lowercase());
            let is_setting = if is_tight { !is_condition } else { begins_line || is_first || is_bulleted };
            return if is_setting { Place::Setting } else { Place::Prose };
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
            return Place::Setting;
        }
        if name.is_quoted && self.text[behind..].starts_with(['"', '\'', '\\']) {
            return Place::Setting;
        }
        if (begins_line || is_bulleted) && !is_tight || begins_line && separator == '：' {
            return Place::Label;
        }
        Place::Prose
    }

    /// Hides a value or not. Returns where to go on.
    fn value(&mut self, name: &Name<'t>, place: Place, start: usize, is_colon: bool) -> Option<usize> {
        let text = self.text;
        let mut class = name.class;
        if let Some((named, at)) = self.naming
            && start - at <= NAMED_BYTES
            && is_value(name.text)
        {
            class = named;
        }
        // In what is sent to sign in, a code is as good as a password.
        if ["code", "state", "response"].contains(&&*name.text.to_lowercase()) {
            let value = Value::nearby(text, start, self.closer());
            let shown = value.text(text);
            let is_query = text[..name.start].ends_with(['?', '&']);
            if shown.len() >= CODE_BYTES && is_odd(shown) || is_query && !is_harmless(shown) {
                class = Class::Secret;
            }
        }
        let rest = &text[start..];
        if rest.is_empty() || rest.starts_with(['\n', '\r']) {
            return (class == Class::Secret && is_colon).then(|| self.next_line(start)).flatten();
        }
        match class {
            Class::Secret => self.secret(name, place, start, is_colon),
            Class::User | Class::Harmless => {
                if class == Class::User && place != Place::Prose {
                    let value = Value::nearby(text, start, self.closer());
                    // Oracle's users may have their password behind them.
                    let is_secret = value.text(text).contains('/') && !value.text(text).contains("://");
                    let places = if is_secret { &mut self.found.secrets } else { &mut self.found.users };
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
                    self.found.secrets.push(value.place);
                    return None;
                }
                self.naming = (named.len() <= NAME_BYTES).then(|| (Class::of(named), start));
                None
            }
            Class::Unknown => self.unknown(place, start),
        }
    }

    fn secret(&mut self, name: &Name<'t>, place: Place, start: usize, is_colon: bool) -> Option<usize> {
        let text = self.text;
        let rest = &text[start..];
        // An object has names of its own.
        let object = rest.strip_prefix('{').filter(|_| is_colon).map(str::trim_start);
        if object.is_some_and(|object| object.starts_with(['"', '\'', '\\']) || is_known_pair(object)) {
            return None;
        }
        let lower = name.text.to_lowercase();
        if is_colon && place != Place::Setting && reads_on(&text[..name.words_start], name.text, rest) {
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
        } else if lower.ends_with("cookie") || place == Place::Label {
            Reach::Line
        } else {
            Reach::Token
        };
        let value = Value::at(text, start, reach, self.closer());
        let shown = value.text(text);
        // MySQL says whether there was a password.
        let tells_whether = is_colon && ["YES", "NO"].contains(&shown.trim_end_matches(')'));
        if is_absent(shown) || tells_whether || place == Place::Prose && is_colon && is_error_code(shown) {
            return Some(value.end.max(start));
        }
        self.found.secrets.push(value.place.clone());
        Some(value.end)
    }

    fn unknown(&mut self, place: Place, start: usize) -> Option<usize> {
        let text = self.text;
        if place == Place::Prose || start < self.hidden_until || is_known_pair(&text[start..]) {
            return None;
        }
        let value = Value::nearby(text, start, self.closer());
        let shown = value.text(text);
        let first = text[start..].chars().next()?;
        // In a text that was decoded, quotes within quotes are not escaped.
        let is_object = shown.starts_with(['{', '[']) && shown[1..].trim_start().starts_with(['"', '\'', '\\', '{']);
        let is_shown = is_object
            || is_harmless(shown)
            || is_sentence(shown)
            || has_pairs(shown)
            || "{[".contains(first) && place == Place::Label;
        if is_shown || place == Place::Label && !is_labelled_value(text, start, &value) {
            return None;
        }
        self.hidden_until = value.place.end;
        self.found.secrets.push(value.place);
        // If it ends elsewhere than it seems to, there may be a secret inside.
        None
    }

    /// A secret that stands on the line behind its name.
    fn next_line(&mut self, start: usize) -> Option<usize> {
        let rest = &self.text[start..];
        let begin = start + rest.len() - rest.trim_start().len();
        if begin >= self.text.len() || is_known_pair(&self.text[begin..]) {
            return None;
        }
        let value = Value::at(self.text, begin, Reach::Line, None);
        self.found.secrets.push(value.place.clone());
        Some(value.end)
    }

    /// Two values in brackets, the first of which is a name: `['password', 'x']`, `{password, "x"}`, `(:password, x)`.
    fn pair_in_brackets(&mut self, behind: usize) -> Option<usize> {
        let text = self.text;
        let end = text.floor_char_boundary((behind + NAME_BYTES).min(text.len()));
        let comma = behind + text[behind..end].find(',')?;
        let name = text[behind..comma].trim_matches([' ', ':', '<', '>', '"', '\'', '\\', '`']);
        if name.is_empty() || !name.chars().all(is_of_name) {
            return None;
        }
        let start = comma + 1 + text[comma + 1..].len() - text[comma + 1..].trim_start_matches(' ').len();
        let class = Class::of(name);
        let value = Value::nearby(text, start, self.closer());
        let is_two = text[value.end..].trim_start_matches(['>', ' ']).starts_with([']', ')', '}']);
        let before = &text[..behind - 1];
        let is_listed = before.ends_with(['[', '(', '{']) || before.trim_end().ends_with(',');
        let shown = value.text(text);
        let is_hidden = match class {
            Class::Secret => is_two && !is_absent(shown),
            Class::Unknown => is_two && is_listed && !is_harmless(shown) && !is_sentence(shown) && !has_pairs(shown),
            _ => false,
        };
        if class == Class::User && is_two && is_listed {
            self.found.users.push(value.place.clone());
        }
        if !is_hidden {
            return None;
        }
        self.found.secrets.push(value.place.clone());
        Some(value.end)
    }

    /// A quoted secret name that is followed by a comma or a space and a quoted value: flat lists, Clojure's maps.
    fn listed_pair(&mut self, at: usize) -> Option<usize> {
        let text = self.text;
        let end = text.floor_char_boundary((at + NAME_BYTES).min(text.len()));
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
        self.found.secrets.push(value.place.clone());
        Some(value.end)
    }

    /// Clojure's `:password "x"`, and names with their values in columns.
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
        self.found.secrets.push(value.place.clone());
        Some(value.end)
    }

    /// A name and a value with dots between them, as in columns. Returns where to go on.
    fn dotted_pair(&mut self, at: usize) -> usize {
        let rest = self.text[at..].trim_start_matches('.');
        let start = self.text.len() - rest.len();
        let name = Name::before(self.text, at);
        name.and_then(|name| self.value(&name, Place::Setting, start, false)).unwrap_or(start)
    }
}

/// Whether a character is one of those that names of one word are made of.
fn is_of_name(character: char) -> bool {
    character.is_alphanumeric() || "_-.".contains(character)
}

/// Whether it is the name of what another name is given to.
fn is_value(name: &str) -> bool {
    ["value", "val", "wert", "valeur", "valor", "defaultvalue", "string", "content"].contains(&&*name.to_lowercase())
}

/// Whether a text has settings of its own, which are searched on their own.
fn has_pairs(text: &str) -> bool {
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

/// Whether what follows a colon is an explanation: "Invalid username or password: logon denied".
fn reads_on(before: &str, name: &str, behind: &str) -> bool {
    let word = before.trim_end().rsplit(|character: char| !character.is_alphanumeric()).next().unwrap_or_default();
    let name = name.to_lowercase();
    let is_told = name.split(|character: char| !character.is_alphanumeric()).any(tells) || tells(&word.to_lowercase());
    let mut words = behind.split(' ');
    let is_word = |word: Option<&str>| {
        word.is_some_and(|word| {
            !word.is_empty()
                && word.trim_end_matches(['.', ',', ';', ':']).chars().all(|it| it.is_alphabetic() || it == '\'')
        })
    };
    let first = words.next();
    let is_code = first.is_some_and(|word| is_error_code(word.trim_end_matches([':', ',', '.'])));
    is_told && (is_code || is_word(first) && is_word(words.next()))
}

/// Whether a line has nothing but a label and one value that is no word.
fn is_labelled_value(text: &str, start: usize, value: &Value) -> bool {
    let line = text[start..].split(['\n', '\r']).next().unwrap_or_default().trim_end();
    let is_alone = value.end >= start + line.len()
        || text[value.end..start + line.len()].trim_matches([',', ';', '"', '\'', ' ']).is_empty();
    let shown = value.text(text);
    let is_word = shown.chars().all(|character| character.is_alphabetic() || ".-_/ '".contains(character));
    let is_address = shown.contains("://") || shown.contains(['/', '\\']) || shown.split(['.', ':']).count() > 2;
    is_alone && !is_word && !is_address && !shown.contains(' ')
}
