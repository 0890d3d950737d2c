//! Options and arguments of commands: `-p x`, `--password x`, `-u user:password`, also as a list of arguments.

use super::{
    Found,
    names::Class,
    values::{Reach, Value, is_absent, is_harmless, is_odd},
};

/// Programs whose short options have secrets, with the options that do: behind a space or at once.
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

/// Programs whose first argument is a user and a password.
const LOGONS: &[&str] = &["sqlplus", "exp", "imp", "expdp", "impdp", "sqlldr", "rman", "sqlplus.exe", "conn"];

/// Programs that take a password without an option's name, as `net use` does.
const POSITIONAL: &[&str] = &["isql", "hdbuserstore"];

/// Short options that have a password in most programs.
const USUAL: &[&str] = &["-p", "-P", "-w", "-pw"];

/// Short options that have a user.
const USERS: &[&str] = &["-u", "-U", "-n", "-l", "--user", "--username", "--login"];

pub(super) fn find(text: &str, found: &mut Found) {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        in_line(text, start, start + line.len(), found);
        start += line.len();
    }
}

fn in_line(text: &str, start: usize, end: usize, found: &mut Found) {
    let (mut secrets, mut has_user, mut options, mut at): (&[&str], bool, usize, usize) = (&[], false, 0, start);
    let (mut is_logon, mut is_positional) = (false, false);
    while at < end {
        let gap = text[at..end].find(|character| !is_between(character)).unwrap_or(end - at);
        at += gap;
        let length = text[at..end].find(is_between).unwrap_or(end - at);
        let word = &text[at..at + length];
        let behind = at + length;
        let name = word.rsplit(['/', '\\']).next().unwrap_or(word).trim_end_matches(".exe").trim_end_matches(':');
        let is_option = secrets.contains(&word)
            || word.len() > 1
                && word.starts_with('-')
                && word[1..].starts_with(|it: char| it.is_ascii_alphabetic() || it == '-');
        if let Some((_, options)) = PROGRAMS.iter().find(|(program, _)| *program == name) {
            secrets = options;
        }
        if is_positional && is_odd(word) && !word.starts_with(['\\', '/']) {
            found.secrets.push(at..behind);
        }
        is_positional = is_positional && !word.ends_with('.')
            || POSITIONAL.contains(&name)
            || name == "use" && text[..at].trim_end().ends_with("net");
        if is_logon && !is_option {
            if let Some(slash) = word.find('/').filter(|slash| *slash > 0) {
                found.secrets.push(at + slash + 1..behind);
            }
            is_logon = false;
        }
        is_logon |= LOGONS.contains(&name) || word == "CONNECT" && !text[..at].ends_with(is_letter);
        at = behind.max(at + 1);
        if !is_option {
            continue;
        }
        options += 1;
        if let Some(place) = secret_of(text, word, behind, end, secrets, has_user, options) {
            at = at.max(place.end);
            found.secrets.push(place);
        }
        has_user |= USERS.iter().any(|user| word == *user || word.starts_with("--user="));
    }
}

/// The secret of an option.
fn secret_of(
    text: &str,
    word: &str,
    behind: usize,
    end: usize,
    secrets: &[&str],
    has_user: bool,
    options: usize,
) -> Option<std::ops::Range<usize>> {
    let next = argument(text, behind, end);
    let value = |next: usize| {
        let value = Value::nearby(&text[..end], next, None);
        let shown = value.text(text);
        (!is_absent(shown) && !shown.is_empty()).then_some(value)
    };
    // `-password` is no `-p` with a password.
    let is_longer = word.len() > 3 && word[1..].chars().all(is_letter) && Class::of(&word[1..]) != Class::Unknown;
    let option = secrets.iter().find(|option| word.starts_with(**option) && !word.starts_with("--") && !is_longer);
    if let Some(option) = option {
        if word.len() > option.len() {
            let start = behind - word.len() + option.len();
            return Some(start..Value::at(&text[..end], start, Reach::Token, None).place.end);
        }
        let value = value(next?)?;
        return (!text[value.place.clone()].starts_with('-')).then_some(value.place);
    }
    if word.len() <= 2 || USUAL.contains(&word) {
        let value = value(next?)?;
        let shown = value.text(text);
        let is_hidden = has_user && USUAL.contains(&word) && !is_harmless(shown) && !shown.starts_with('-');
        return is_hidden.then_some(value.place);
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
                && options > 1
                && !is_harmless(shown)
                && !shown.starts_with('-')
                && !shown.contains("://")
        }
        _ => ["user", "proxy-user"].contains(&name) && shown.contains(':') && !shown.contains('\\'),
    };
    is_secret.then_some(value.place)
}

/// Where the next argument begins: behind spaces, or in a list behind a quotation mark, a comma and a space.
fn argument(text: &str, behind: usize, end: usize) -> Option<usize> {
    let rest = &text[behind..end];
    let spaced = rest.trim_start_matches(['"', '\'', ',', '\\']).trim_start_matches([' ', '\t']);
    let next = end - spaced.len();
    (next > behind && !spaced.trim().is_empty() && rest[..next - behind].contains([' ', ','])).then_some(next)
}

fn is_letter(character: char) -> bool {
    character.is_ascii_alphabetic()
}

/// Whether it stands between the words of a command.
fn is_between(character: char) -> bool {
    character.is_whitespace() || "\"',[](){}".contains(character)
}
