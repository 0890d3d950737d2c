//! Secrets in options and arguments of commands: `-p x`, `--password x`, `-u user:password`, also in lists of arguments.

use std::ops::Range;

use crate::redaction::{
    findings::Findings,
    names::Class,
    value_forms::{is_absent, is_harmless, is_odd},
    values::{Reach, Value},
};

/// Programs with short options that take a secret, after a space or directly.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("mysql", &["-p"]),
    ("mysqldump", &["-p"]),
    ("mysqladmin", &["-p"]),
    ("mysqlimport", &["-p"]),
    ("mariadb", &["-p"]),
    ("mariadb-dump", &["-p"]),
    ("sqlcmd", &["-P"]),
    ("bcp", &["-P"]),
    ("osql", &["-P"]),
    ("isql", &["-P"]),
    ("tsql", &["-P"]),
    ("dtexec", &["/De", "/Decrypt"]),
    ("hdbsql", &["-p"]),
    ("hdbuserstore", &["-p"]),
    ("beeline", &["-p"]),
    ("vsql", &["-w"]),
    ("nzsql", &["-pw", "-W"]),
    ("exaplus", &["-p", "-P"]),
    ("mongo", &["-p"]),
    ("mongosh", &["-p"]),
    ("mongodump", &["-p"]),
    ("redis-cli", &["-a"]),
    ("ldapsearch", &["-w"]),
    ("sshpass", &["-p"]),
    ("snowsql", &["-p"]),
    ("tabcmd", &["-p"]),
    ("tsm", &["-p"]),
    ("curl", &["-u", "-U", "-b"]),
    ("plink", &["-pw"]),
    ("smbclient", &["-U"]),
    ("impala-shell", &[]),
    ("sqlplus", &[]),
];

/// Programs whose first argument is `user/password`.
const LOGONS: &[&str] = &["sqlplus", "exp", "imp", "expdp", "impdp", "sqlldr", "rman", "sqlplus.exe", "conn"];

/// Programs that take a password as a plain argument, as `net use` does.
const POSITIONAL: &[&str] = &["isql", "hdbuserstore"];

/// Short options that take a password in most programs.
const PASSWORD_OPTIONS: &[&str] = &["-p", "-P", "-w", "-pw"];

/// Options that take a user.
const USER_OPTIONS: &[&str] = &["-u", "-U", "-n", "-l", "--user", "--username", "--login"];

pub(super) fn find(text: &str, findings: &mut Findings) {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        Command { text: &text[..end], secret_options: &[], options_count: 0, has_user: false }.find(start, findings);
        start = end;
    }
}

/// A line, read as a command word by word.
struct Command<'t> {
    /// The text up to the end of the line.
    text: &'t str,
    /// Options of the program that take a secret.
    secret_options: &'static [&'static str],
    options_count: usize,
    has_user: bool,
}

impl Command<'_> {
    /// Finds secrets from `at` to the end of the line.
    fn find(mut self, mut at: usize, findings: &mut Findings) {
        let text = self.text;
        let (mut is_logon, mut is_positional) = (false, false);
        while at < text.len() {
            at += text[at..].find(|character| !is_between(character)).unwrap_or(text.len() - at);
            let after = at + text[at..].find(is_between).unwrap_or(text.len() - at);
            let word = &text[at..after];
            let name = word.rsplit(['/', '\\']).next().unwrap_or(word).trim_end_matches(".exe").trim_end_matches(':');
            let is_option = self.secret_options.contains(&word)
                || word.len() > 1
                    && word.starts_with('-')
                    && word[1..].starts_with(|it: char| it.is_ascii_alphabetic() || it == '-');
            if let Some((_, options)) = PROGRAMS.iter().find(|(program, _)| *program == name) {
                self.secret_options = options;
            }
            if is_positional && is_odd(word) && !word.starts_with(['\\', '/']) {
                findings.secrets.push(at..after);
            }
            is_positional = is_positional && !word.ends_with('.')
                || POSITIONAL.contains(&name)
                || name == "use" && text[..at].trim_end().ends_with("net");
            if is_logon && !is_option {
                if let Some(slash) = word.find('/').filter(|slash| *slash > 0) {
                    findings.secrets.push(at + slash + 1..after);
                }
                is_logon = false;
            }
            is_logon |= LOGONS.contains(&name) || word == "CONNECT" && !text[..at].ends_with(is_letter);
            at = after.max(at + 1);
            if !is_option {
                continue;
            }
            self.options_count += 1;
            if let Some(place) = self.secret_of(word, after) {
                at = at.max(place.end);
                findings.secrets.push(place);
            }
            self.has_user |= USER_OPTIONS.iter().any(|user| word == *user || word.starts_with("--user="));
        }
    }

    /// Returns the secret of the option `word`, which ends at `after`.
    fn secret_of(&self, word: &str, after: usize) -> Option<Range<usize>> {
        let text = self.text;
        let next = argument(text, after);
        let value = |next: usize| {
            let value = Value::nearby(text, next, None);
            let shown = value.text(text);
            (!is_absent(shown) && !shown.is_empty()).then_some(value)
        };
        // `-password` is not `-p` with a password.
        let is_longer = word.len() > 3 && word[1..].chars().all(is_letter) && Class::of(&word[1..]) != Class::Unknown;
        let is_of_program = |option: &&&str| word.starts_with(**option) && !word.starts_with("--") && !is_longer;
        if let Some(option) = self.secret_options.iter().find(is_of_program) {
            if word.len() > option.len() {
                let start = after - word.len() + option.len();
                return Some(start..Value::at(text, start, Reach::Token, None).place.end);
            }
            let value = value(next?)?;
            return (!text[value.place.clone()].starts_with('-')).then_some(value.place);
        }
        if word.len() <= 2 || PASSWORD_OPTIONS.contains(&word) {
            let value = value(next?)?;
            let shown = value.text(text);
            let is_secret =
                self.has_user && PASSWORD_OPTIONS.contains(&word) && !is_harmless(shown) && !shown.starts_with('-');
            return is_secret.then_some(value.place);
        }
        let name = word.trim_start_matches('-');
        if name.contains(['=', ':']) {
            return None;
        }
        let value = value(next?)?;
        let shown = value.text(text);
        let is_secret = match Class::of(name) {
            Class::Secret => !shown.starts_with("--"),
            Class::Unknown => {
                word.starts_with("--")
                    && self.options_count > 1
                    && !is_harmless(shown)
                    && !shown.starts_with('-')
                    && !shown.contains("://")
            }
            _ => ["user", "proxy-user"].contains(&name) && shown.contains(':') && !shown.contains('\\'),
        };
        is_secret.then_some(value.place)
    }
}

/// Returns the start of the next argument: after spaces, or in a list after a quotation mark, a comma and a space.
fn argument(text: &str, after: usize) -> Option<usize> {
    let rest = &text[after..];
    let spaced = rest.trim_start_matches(['"', '\'', ',', '\\']).trim_start_matches([' ', '\t']);
    let next = text.len() - spaced.len();
    (next > after && !spaced.trim().is_empty() && rest[..next - after].contains([' ', ','])).then_some(next)
}

fn is_letter(character: char) -> bool {
    character.is_ascii_alphabetic()
}

/// Whether a character separates the words of a command.
fn is_between(character: char) -> bool {
    character.is_whitespace() || "\"',[](){}".contains(character)
}
