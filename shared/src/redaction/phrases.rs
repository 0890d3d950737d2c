//! Secrets after certain words: `IDENTIFIED BY x`, `PASSWORD 'x'`, `Bearer x`, private keys.

use std::ops::Range;

use crate::redaction::{
    findings::Findings,
    names::Class,
    value_forms::{is_absent, is_harmless, is_odd},
    values::{Reach, Value},
};

pub(super) fn find(text: &str, findings: &mut Findings) {
    let mut at = 0;
    while let Some(offset) = text[at..].find(is_of_word) {
        let start = at + offset;
        let end = start + text[start..].find(|character| !is_of_word(character)).unwrap_or(text.len() - start);
        let place = secret_after(text, start, end);
        at = place.as_ref().map_or(end, |place| end.max(place.end));
        findings.secrets.extend(place);
    }
    private_keys(text, findings);
    descriptors(text, findings);
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Returns the secret after the word from `start` to `end`.
fn secret_after(text: &str, start: usize, end: usize) -> Option<Range<usize>> {
    let (before, word) = (&text[..start], &text[start..end]);
    if word.len() > 40 {
        return None;
    }
    let lower = word.to_lowercase();
    let is_gap = |character: char| " \t".contains(character) || lower == "by" && "\r\n".contains(character);
    let gap = text[end..].len() - text[end..].trim_start_matches(is_gap).len();
    let next = end + gap;
    let rest = &text[next..];
    if gap == 0 {
        // PASSWORD('x')
        let is_call =
            ["('", "(\"", "(N'"].iter().any(|call| rest.starts_with(call)) && Class::of(word) == Class::Secret;
        return is_call.then(|| Value::nearby(text, next + 1, Some(')')).place);
    }
    if rest.is_empty() {
        return None;
    }
    match &*lower {
        "by" if ends_with(before, "identified") || is_in_identified(before) => {
            let next = next + keyword(rest, "values");
            Some(Value::at(text, next, Reach::Token, None).place)
        }
        "as" if is_in_identified(before) && rest.starts_with(['\'', '"']) => {
            Some(Value::at(text, next, Reach::Token, None).place)
        }
        "bearer" | "basic" | "negotiate" | "ntlm" | "digest" | "sharedkey" | "sharedaccesssignature" => {
            token_length(rest).map(|length| next..next + length)
        }
        "using" if follows_user(before) => {
            let value = Value::at(text, next, Reach::Token, None);
            (!is_absent(value.text(text))).then_some(value.place)
        }
        // Go reports a password in place of a port.
        "port" if rest.starts_with("\":") => {
            let value = Value::nearby(text, next, None);
            let is_port = value.text(text)[1..].bytes().all(|byte| byte.is_ascii_digit());
            (!is_port && value.place.len() > 1).then(|| value.place.start + 1..value.place.end)
        }
        "string" if ends_with(before, "connect") => {
            let next = next + keyword(rest, "was") + keyword(rest, "is");
            let token = text[next..].split(char::is_whitespace).next().unwrap_or_default();
            let slash =
                token.find('/').filter(|slash| *slash > 0 && !token.contains("//") && !token.contains(['=', '@']))?;
            Some(next + slash + 1..next + token.len())
        }
        "password" if is_in_statement(before) && !rest.starts_with(['\'', '"', '=']) => {
            password_in_statement(text, next)
        }
        "logon" => {
            let line = rest.split(['\n', '\r', ' ', ';', '"']).next().unwrap_or_default();
            let comma = line.find(',').filter(|comma| line[..*comma].contains('/'))?;
            Some(next + comma + 1..next + line.len())
        }
        _ => value_after(text, start, word, next),
    }
}

/// Returns the password at `next` in a statement about a user.
fn password_in_statement(text: &str, next: usize) -> Option<Range<usize>> {
    const NO_PASSWORDS: &[&str] =
        &["expire", "for", "policy", "expired", "is", "null", "must", "and", "or", "has", "was"];
    let value = Value::at(text, next, Reach::Token, None);
    let word = value.text(text).to_lowercase();
    (!NO_PASSWORDS.contains(&&*word) && !is_harmless(&word)).then_some(value.place)
}

/// Returns the length of a token after the scheme of an `Authorization` header.
fn token_length(text: &str) -> Option<usize> {
    let is_of_token = |character: char| character.is_ascii_alphanumeric() || "+/=._~-:%!|&".contains(character);
    let length = text.find(|character| !is_of_token(character)).unwrap_or(text.len());
    let token = text[..length].trim_end_matches(['.', ':']);
    let is_word = token.len() < 20
        && (token.bytes().all(|byte| byte.is_ascii_lowercase() || b".-".contains(&byte))
            || token.bytes().skip(1).all(|byte| byte.is_ascii_lowercase()));
    let is_parameter = token.ends_with('=') && text[token.len()..].starts_with(['"', '\'']);
    (token.len() >= 8 && !is_word && !is_parameter).then_some(token.len())
}

/// Returns the value after a secret's name, with nothing but a space or "is" between them.
fn value_after(text: &str, start: usize, word: &str, next: usize) -> Option<Range<usize>> {
    if Class::of(word) != Class::Secret {
        return None;
    }
    let lower = word.to_lowercase();
    let is_of_password =
        ["passw", "pwd", "passphrase", "passcode", "kennwort", "passwort", "contrase", "senha", "secret"]
            .iter()
            .any(|part| lower.contains(part))
            || word.contains('_');
    let next = ["is ", "was ", "ist ", "lautet "]
        .iter()
        .find_map(|link| text[next..].starts_with(link).then_some(next + link.len()))
        .unwrap_or(next);
    let rest = &text[next..];
    if rest.starts_with(['\'', '"', '`']) || rest.starts_with("N'") {
        let value = Value::nearby(text, next, None);
        let shown = value.text(text);
        return (is_of_password && !is_absent(shown) && !shown.contains('\n')).then_some(value.place);
    }
    let token = rest
        .split(|character: char| character.is_whitespace() || "\"'<>,;".contains(character))
        .next()
        .unwrap_or_default();
    let is_key = !is_of_password && !lower.contains("token");
    let is_named_key = is_key && {
        let before = text[..start].trim_end().rsplit(' ').next().unwrap_or_default().to_lowercase();
        ["api", "access", "secret", "private", "account", "shared", "session"].contains(&&*before)
    };
    let min_length = if is_of_password { 6 } else { 8 };
    let is_thing = token.contains("://")
        || token.starts_with(['/', '(', '[', '{', '<'])
        || token.contains(['=', '(']) && token.len() < 12;
    let is_hidden =
        (!is_key || is_named_key) && token.len() >= min_length && is_odd(token) && !is_thing && !is_harmless(token);
    is_hidden.then(|| next..next + token.trim_end_matches(['.', ')', ']', '}', ':']).len())
}

/// Returns the length of a keyword at the start of a text, with the spaces after it.
fn keyword(text: &str, keyword: &str) -> usize {
    let starts = text.get(..keyword.len()).is_some_and(|start| start.eq_ignore_ascii_case(keyword));
    if !starts {
        return 0;
    }
    let rest = &text[keyword.len()..];
    keyword.len() + rest.len() - rest.trim_start_matches([' ', '\t']).len()
}

/// Whether a text ends with a word in any case, and spaces.
fn ends_with(text: &str, word: &str) -> bool {
    let text = text.trim_end();
    let end = text.len().checked_sub(word.len()).and_then(|at| text.get(at..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(word))
}

/// Whether a text ends with `IDENTIFIED WITH plugin`.
fn is_in_identified(before: &str) -> bool {
    let mut words = before.trim_end().rsplit(' ').filter(|word| !word.is_empty());
    words.next();
    words.next().is_some_and(|word| word.eq_ignore_ascii_case("with"))
        && words.next().is_some_and(|word| word.eq_ignore_ascii_case("identified"))
}

/// Whether a text ends with a statement about a user: `ALTER USER x`, `CREATE ROLE x WITH ENCRYPTED`.
fn is_in_statement(before: &str) -> bool {
    let line = &before[before.ceil_char_boundary(before.len().saturating_sub(100))..];
    let mut words = line.split_whitespace().rev().take(6);
    words.any(|word| ["USER", "ROLE", "LOGIN"].iter().any(|of| word.eq_ignore_ascii_case(of)))
        && words.any(|word| ["ALTER", "CREATE"].iter().any(|of| word.eq_ignore_ascii_case(of)))
}

/// Whether a text ends with `USER x`, as in DB2's `CONNECT TO db USER x USING y`.
fn follows_user(before: &str) -> bool {
    let mut words = before.trim_end().rsplit(' ').filter(|word| !word.is_empty());
    words.next();
    words.next().is_some_and(|word| word.eq_ignore_ascii_case("user"))
}

/// Finds private keys, also with escaped line ends or without an end.
fn private_keys(text: &str, findings: &mut Findings) {
    let mut from = 0;
    while let Some(at) = text[from..].find("-----BEGIN ").map(|at| from + at) {
        let label = &text[at + 11..];
        let Some(end) = label.find("-----").filter(|end| *end < 60 && label[..*end].contains("PRIVATE KEY")) else {
            from = at + 11;
            continue;
        };
        let start = at + 11 + end + 5;
        let end = text[start..].find("-----END").map_or(text.len(), |end| start + end);
        findings.secrets.push(start..end);
        from = end;
    }
}

/// Finds passwords in `host:port:database:user:password`, as PostgreSQL's password file and CUBRID write connections.
fn descriptors(text: &str, findings: &mut Findings) {
    for run in text.split(|character: char| character.is_whitespace() || "\"'<>(),;".contains(character)) {
        let mut parts = run.split(':').peekable();
        while let Some(host) = parts.next() {
            let port = parts.peek().copied().unwrap_or_default();
            let is_port = (4..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
            if !is_port || host.is_empty() {
                continue;
            }
            if let Some(password) = parts.clone().nth(3).filter(|password| !password.is_empty() && !is_absent(password))
            {
                let start = password.as_ptr().addr() - text.as_ptr().addr();
                let end = run.as_ptr().addr() - text.as_ptr().addr() + run.trim_end_matches(':').len();
                findings.secrets.push(start..end.max(start));
            }
        }
    }
}
