//! Who and password before a host: `scheme://user:password@host`, `user/password@database`, `user:password@host`.

use super::{Found, values::is_known_pair};

/// The longest of such runs that is looked at.
const RUN_BYTES: usize = 2000;

/// The most that is looked at where a password has spaces.
const SPACED_BYTES: usize = 100;

/// At how many places in a run a user may begin.
const STARTS: usize = 12;

pub(super) fn find(text: &str, found: &mut Found) {
    quoted(text, found);
    let (mut position, mut last, mut tries) = (0, 0, 0);
    for (at, _) in text.match_indices('@') {
        if at < position {
            continue;
        }
        // Who searched a run for each of many signs would take quadratic time.
        tries = if text[last..at].contains(char::is_whitespace) { 0 } else { tries + 1 };
        last = at;
        if tries > STARTS {
            continue;
        }
        let (start, end) = (run_start(text, position, at), run_end(text, at));
        if let Some(place) = credentials(text, start, end).or_else(|| with_spaces(text, position, at, end)) {
            position = place.1;
            found.secrets.push(place.0..place.1);
        }
        position = position.max(at + 1);
    }
}

/// Oracle's `user/"password"@database`.
fn quoted(text: &str, found: &mut Found) {
    for (at, opening) in text.match_indices("/\"") {
        let is_of_user = |character: char| character.is_alphanumeric() || "_$#.-[]\"".contains(character);
        let user = text[..at]
            .chars()
            .rev()
            .take(SPACED_BYTES)
            .take_while(|it| is_of_user(*it))
            .map(char::len_utf8)
            .sum::<usize>();
        let start = at + opening.len();
        let near = &text[start..text.floor_char_boundary((start + SPACED_BYTES).min(text.len()))];
        if let Some(end) = near.find("\"@").filter(|_| user > 0) {
            found.secrets.push(at - user..start + end + 1);
        }
    }
}

/// Where the run of characters without white space begins that has an `@` at `at`. Quotes of Oracle's passwords may have
/// spaces inside, which are not looked for.
fn run_start(text: &str, least: usize, at: usize) -> usize {
    let least = text.ceil_char_boundary(least.max(at.saturating_sub(RUN_BYTES)));
    text[least..at]
        .rfind(char::is_whitespace)
        .map_or(least, |space| least + space + text[least + space..].chars().next().map_or(0, char::len_utf8))
}

/// Where that run ends: at white space, or at a quotation mark with something behind it that shows that it closes.
fn run_end(text: &str, at: usize) -> usize {
    let most = text.floor_char_boundary((at + RUN_BYTES).min(text.len()));
    let run = &text[at..most];
    let closes = |(place, character): (usize, char)| {
        let behind = &run[place + character.len_utf8()..];
        character.is_whitespace()
            || "<>".contains(character)
            || "\"'".contains(character)
                && behind.chars().next().is_none_or(|next| next.is_whitespace() || ",}])>;:".contains(next))
            || character == '\\' && behind.starts_with(['"', '\'', '\\'])
    };
    at + run.char_indices().find(|it| closes(*it)).map_or(run.len(), |(place, _)| place)
}

/// Where in a run with an `@` there are a user and a password.
fn credentials(text: &str, start: usize, end: usize) -> Option<(usize, usize)> {
    let run = &text[start..end];
    let first = run.find('@')?;
    let schemes: Vec<_> = run[..first].match_indices("://").take(STARTS).map(|(at, _)| at).collect();
    if !schemes.is_empty() {
        return schemes.into_iter().find_map(|at| {
            let from = at + 3;
            in_url(&run[..at], &run[from..]).map(|length| (start + from, start + from + length))
        });
    }
    let starts = run[..first].match_indices(['(', '=', ',', '[', '{', '>', ';', '"', '\'', ':']);
    let from = [0].into_iter().chain(starts.map(|(at, _)| at + 1)).take(STARTS);
    from.filter_map(|from| without_scheme(&run[from..]).map(|length| (start + from, start + from + length))).next()
}

/// The same where a password has spaces: in a URL, or in quotes.
fn with_spaces(text: &str, least: usize, at: usize, end: usize) -> Option<(usize, usize)> {
    let least = text.ceil_char_boundary(least.max(at.saturating_sub(SPACED_BYTES)));
    let line = least + text[least..at].rfind('\n').map_or(0, |end| end + 1);
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

/// How many bytes at the start of a run are a user and a password, before `@` and a host.
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
    // The drivers of Oracle's say so before the user.
    let is_prefix = is_plain && (["jdbc", "oracle", "thin", "oci", "oci8", "mailto"].contains(&&run[..user]));
    let last = run.rfind('@')?;
    let has_host = run[last + 1..].starts_with(|host: char| host.is_alphanumeric() || "/(\"'[".contains(host));
    (user > 0 && (is_oracle || is_plain && !is_prefix) && last > user + 1).then_some(last).filter(|_| has_host)
}

/// How many bytes of a URL, behind its scheme, are a user and a password.
fn in_url(scheme: &str, rest: &str) -> Option<usize> {
    // Behind a host there may be settings, which are searched elsewhere.
    let settings = rest.match_indices([';', ',']).take(STARTS).find(|(at, _)| is_known_pair(&rest[at + 1..]));
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
    // A password may have signs that should have been escaped, but the query of a URL comes behind its host.
    let query = rest[authority..]
        .find('?')
        .map(|at| authority + at)
        .filter(|at| rest[..*at].contains('@') && rest[*at..].contains('=') && has_user);
    rest[..query.unwrap_or(rest.len())].rfind('@')
}
