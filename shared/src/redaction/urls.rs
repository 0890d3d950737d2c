//! Users with passwords before a host: `scheme://user:password@host`, `user/password@database`, `user:password@host`.

use crate::redaction::{findings::Findings, values::is_known_pair};

/// The longest run without white space that is read before and after an `@`.
const MAX_RUN_BYTES: usize = 2000;

/// The longest user and password that are read if the password has spaces.
const MAX_SPACED_BYTES: usize = 100;

/// The most places in a run that are tried as the start of a user.
const MAX_STARTS: usize = 12;

pub(super) fn find(text: &str, findings: &mut Findings) {
    quoted(text, findings);
    let (mut position, mut last, mut tries) = (0, 0, 0);
    for (at, _) in text.match_indices('@') {
        if at < position {
            continue;
        }
        // A search of the whole run for each of many signs would take quadratic time.
        tries = if text[last..at].contains(char::is_whitespace) { 0 } else { tries + 1 };
        last = at;
        if tries > MAX_STARTS {
            continue;
        }
        let (start, end) = (run_start(text, position, at), run_end(text, at));
        if let Some(place) = credentials(text, start, end).or_else(|| with_spaces(text, position, at, end)) {
            position = place.1;
            findings.secrets.push(place.0..place.1);
        }
        position = position.max(at + 1);
    }
}

/// Finds Oracle's `user/"password"@database`.
fn quoted(text: &str, findings: &mut Findings) {
    for (at, opening) in text.match_indices("/\"") {
        let is_of_user = |character: char| character.is_alphanumeric() || "_$#.-[]\"".contains(character);
        let user = text[..at]
            .chars()
            .rev()
            .take(MAX_SPACED_BYTES)
            .take_while(|it| is_of_user(*it))
            .map(char::len_utf8)
            .sum::<usize>();
        let start = at + opening.len();
        let near = &text[start..text.floor_char_boundary((start + MAX_SPACED_BYTES).min(text.len()))];
        if let Some(end) = near.find("\"@").filter(|_| user > 0) {
            findings.secrets.push(at - user..start + end + 1);
        }
    }
}

/// Returns the start of the run without white space around the `@` at `at`, not before `position`.
fn run_start(text: &str, position: usize, at: usize) -> usize {
    let start = text.ceil_char_boundary(position.max(at.saturating_sub(MAX_RUN_BYTES)));
    start + text[start..at].trim_end_matches(|character: char| !character.is_whitespace()).len()
}

/// Returns the end of that run: white space, or a closing quotation mark.
fn run_end(text: &str, at: usize) -> usize {
    let most = text.floor_char_boundary((at + MAX_RUN_BYTES).min(text.len()));
    let run = &text[at..most];
    let closes = |(place, character): (usize, char)| {
        let after = &run[place + character.len_utf8()..];
        character.is_whitespace()
            || "<>".contains(character)
            || "\"'".contains(character)
                && after.chars().next().is_none_or(|next| next.is_whitespace() || ",}])>;:".contains(next))
            || character == '\\' && after.starts_with(['"', '\'', '\\'])
    };
    at + run.char_indices().find(|it| closes(*it)).map_or(run.len(), |(place, _)| place)
}

/// Returns the place of a user and a password in a run with an `@`.
fn credentials(text: &str, start: usize, end: usize) -> Option<(usize, usize)> {
    let run = &text[start..end];
    let first = run.find('@')?;
    let schemes: Vec<_> = run[..first].match_indices("://").take(MAX_STARTS).map(|(at, _)| at).collect();
    if !schemes.is_empty() {
        return schemes.into_iter().find_map(|at| {
            let from = at + 3;
            in_url(&run[..at], &run[from..]).map(|length| (start + from, start + from + length))
        });
    }
    let starts = run[..first].match_indices(['(', '=', ',', '[', '{', '>', ';', '"', '\'', ':']);
    let from = [0].into_iter().chain(starts.map(|(at, _)| at + 1)).take(MAX_STARTS);
    from.filter_map(|from| without_scheme(&run[from..]).map(|length| (start + from, start + from + length))).next()
}

/// Returns the place of a user and a password with spaces: in a URL, or in quotes.
fn with_spaces(text: &str, position: usize, at: usize, end: usize) -> Option<(usize, usize)> {
    let start = text.ceil_char_boundary(position.max(at.saturating_sub(MAX_SPACED_BYTES)));
    let line = start + text[start..at].rfind('\n').map_or(0, |end| end + 1);
    if let Some(from) = text[line..at].rfind("://").map(|at| line + at + 3) {
        let (user, password) = text[from..at].split_once(':')?;
        let is_port = password.starts_with(|first: char| first.is_ascii_digit()) || password.starts_with(' ');
        let is_user = user.chars().all(|character| character.is_alphanumeric() || "._%+-".contains(character));
        let last = at + text[at..end].rfind('@').unwrap_or(0);
        return (is_user && !is_port && password.contains(' ')).then_some((from, last));
    }
    let from = line + text[line..at].rfind(['"', '\''])? + 1;
    let run = &text[from..end];
    let slash = run.find('/')?;
    let is_user = |character: char| character.is_alphanumeric() || "_$#.-[]".contains(character);
    (slash > 0 && run[..slash].chars().all(is_user) && !run[slash..].starts_with("//")).then_some((from, at))
}

/// Returns the length of a user and a password at the start of a run, before `@` and a host.
fn without_scheme(run: &str) -> Option<usize> {
    let is_of_user = |character: char| character.is_alphanumeric() || "_$#.-[]\\".contains(character);
    let quote = match run.strip_prefix('"') {
        Some(quoted) => quoted.find('"')? + 2,
        None => 0,
    };
    let user = quote + run[quote..].find(|character| !is_of_user(character))?;
    let password = &run[user + run[user..].chars().next()?.len_utf8()..];
    let is_oracle = run[user..].starts_with('/') && !password.starts_with(['/', '@']);
    let is_plain = run[user..].starts_with(':') && !password.starts_with(['/', ':', '@']) && quote == 0;
    // Oracle's drivers have such words before the user.
    let is_prefix = is_plain && (["jdbc", "oracle", "thin", "oci", "oci8", "mailto"].contains(&&run[..user]));
    let last = run.rfind('@')?;
    let has_host = run[last + 1..].starts_with(|host: char| host.is_alphanumeric() || "/(\"'[".contains(host));
    (user > 0 && (is_oracle || is_plain && !is_prefix) && last > user + 1).then_some(last).filter(|_| has_host)
}

/// Returns the length of a user and a password after a URL's scheme.
fn in_url(scheme: &str, rest: &str) -> Option<usize> {
    // Settings may follow the host; `settings` finds their secrets.
    let settings = rest.match_indices([';', ',']).take(MAX_STARTS).find(|(at, _)| is_known_pair(&rest[at + 1..]));
    let rest = &rest[..settings.map_or(rest.len(), |(at, _)| at)];
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let has_user = rest[..authority].contains('@');
    if !has_user {
        let port = rest[..authority].split_once(':').map(|(_, port)| port)?;
        let is_web = ["http", "https", "ftp", "s3", "wss", "ws"].iter().any(|web| scheme.ends_with(web));
        if is_web && port.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
    }
    // A password may have signs that should be escaped, but the query of a URL follows its host.
    let query = rest[authority..]
        .find('?')
        .map(|at| authority + at)
        .filter(|at| rest[..*at].contains('@') && rest[*at..].contains('=') && has_user);
    rest[..query.unwrap_or(rest.len())].rfind('@')
}
