//! Secrets that show by their form what they are.
//!
//! The forms are those of gitleaks' rules (version 8.30, MIT licence) for what data is read from, and of Tableau's, Snowflake's
//! and Salesforce's documentation.

use super::Found;

/// A form of tokens: how they begin, which characters follow, and how many at least.
struct Form {
    start: &'static str,
    is_of_token: fn(char) -> bool,
    least: usize,
}

const fn form(start: &'static str, is_of_token: fn(char) -> bool, least: usize) -> Form {
    Form { start, is_of_token, least }
}

const FORMS: &[Form] = &[
    // JSON Web Tokens, which are two or three objects in base64.
    form("eyJ", is_base64url_dotted, 5),
    // AWS access keys and what goes with them.
    form("AKIA", is_upper_or_digit, 12),
    form("ASIA", is_upper_or_digit, 12),
    form("ABIA", is_upper_or_digit, 12),
    form("ACCA", is_upper_or_digit, 12),
    form("AROA", is_upper_or_digit, 12),
    form("AIDA", is_upper_or_digit, 12),
    form("A3T", is_upper_or_digit, 16),
    form("ABSK", is_base64, 40),
    form("bedrock-api-key-", is_base64, 8),
    form("FwoGZXIvYXdz", is_base64, 16),
    form("IQoJb3JpZ2lu", is_base64, 16),
    // Google: OAuth access and refresh tokens, API keys, client secrets.
    form("ya29.", is_base64url_dotted, 8),
    form("1//", is_base64url_dotted, 16),
    form("AIza", is_base64url, 20),
    form("GOCSPX-", is_base64url, 8),
    // Databricks.
    form("dapi", is_hex_or_dash, 16),
    form("dkea", is_hex_or_dash, 16),
    form("dose", is_hex_or_dash, 16),
    form("dsapi", is_hex_or_dash, 16),
    // Snowflake's session and OAuth tokens.
    form("ver:", is_not_separator, 8),
    form("ETMsDg", is_base64, 16),
    // Salesforce's sessions are an organization's id, an exclamation mark and more.
    form("00D", is_salesforce, 24),
    form("5Aep", is_base64url_dotted, 20),
    form("3MVG", is_base64url_dotted, 20),
    // SAP's logon tickets.
    form("AjEx", is_base64, 8),
    form("AjQx", is_base64, 8),
    // ClickHouse Cloud, PlanetScale, Confluent, Fivetran, dbt, Dremio, MotherDuck.
    form("4b1d", is_letter_or_digit, 32),
    form("pscale_", is_base64url_dotted, 16),
    form("dbtc_", is_base64url, 16),
    form("dbtu_", is_base64url, 16),
    // Code hosts, chats, mail, payment.
    form("ghp_", is_base64url, 20),
    form("gho_", is_base64url, 20),
    form("ghu_", is_base64url, 20),
    form("ghs_", is_base64url, 20),
    form("ghr_", is_base64url, 20),
    form("github_pat_", is_base64url, 20),
    form("glpat-", is_base64url_dotted, 16),
    form("gldt-", is_base64url_dotted, 16),
    form("xoxb-", is_base64url, 8),
    form("xoxp-", is_base64url, 8),
    form("xoxa-", is_base64url, 8),
    form("xoxe.", is_base64url, 8),
    form("xoxe-", is_base64url, 8),
    form("xoxr-", is_base64url, 8),
    form("xoxs-", is_base64url, 8),
    form("xapp-", is_base64url, 8),
    form("ATATT3", is_base64, 20),
    form("SG.", is_base64url_dotted, 32),
    form("sk_live_", is_base64url, 10),
    form("sk_test_", is_base64url, 10),
    form("rk_live_", is_base64url, 10),
    form("sk-", is_base64url, 20),
    form("shpat_", is_base64url, 20),
    form("shpss_", is_base64url, 20),
    form("pat-na1-", is_base64url, 20),
    form("pat-eu1-", is_base64url, 20),
    form("SK", is_hex_or_dash, 32),
    form("hvs.", is_base64url, 20),
    form("hvb.", is_base64url, 20),
    form("s.", is_letter_or_digit, 24),
    form("glsa_", is_base64url, 20),
    form("glc_", is_base64, 20),
    form("npm_", is_letter_or_digit, 20),
    form("pypi-", is_base64url, 20),
    form("hf_", is_letter_or_digit, 20),
    form("dop_v1_", is_letter_or_digit, 20),
    form("dp.pt.", is_letter_or_digit, 20),
    form("NRAK-", is_upper_or_digit, 20),
    form("PMAK-", is_base64url, 20),
    form("EAAA", is_base64url, 20),
];

fn is_upper_or_digit(character: char) -> bool {
    character.is_ascii_uppercase() || character.is_ascii_digit()
}

fn is_letter_or_digit(character: char) -> bool {
    character.is_ascii_alphanumeric()
}

fn is_hex_or_dash(character: char) -> bool {
    character.is_ascii_hexdigit() || character == '-'
}

fn is_base64(character: char) -> bool {
    is_base64url(character) || "+/=%".contains(character)
}

fn is_base64url(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_".contains(character)
}

fn is_base64url_dotted(character: char) -> bool {
    is_base64url(character) || character == '.'
}

fn is_salesforce(character: char) -> bool {
    is_base64url_dotted(character) || character == '!'
}

fn is_not_separator(character: char) -> bool {
    !character.is_whitespace() && !"\"';,&<>".contains(character)
}

/// The shortest run of characters that may be a secret of no known form.
const RANDOM_CHARACTERS: usize = 20;

pub(super) fn find(text: &str, found: &mut Found) {
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let starts_word = first.is_ascii_alphanumeric() && !text[..at].ends_with(is_letter_or_digit);
        let length = starts_word.then(|| known(&text[at..])).flatten();
        found.secrets.extend(length.map(|length| at..at + length));
        at += length.unwrap_or(first.len_utf8());
    }
    found.secrets.extend(with_sign(text, "Q~", 3, 20));
    found.secrets.extend(with_sign(text, "==:", 16, 16));
    for run in text.split(|character| !is_base64(character) || "%=".contains(character)) {
        // A path is no base64 as a whole, but a part of it may be.
        let pieces = run.split(['/', '-']);
        for piece in [run].into_iter().chain(pieces).filter(|piece| is_random(piece)) {
            let start = piece.as_ptr().addr() - text.as_ptr().addr();
            found.secrets.push(start..start + piece.len());
        }
    }
}

/// The length of a token of a known form at the start of a text.
fn known(text: &str) -> Option<usize> {
    let form = FORMS.iter().find(|form| {
        text.strip_prefix(form.start)
            .is_some_and(|rest| rest.chars().take_while(|it| (form.is_of_token)(*it)).count() >= form.least)
    })?;
    let rest = &text[form.start.len()..];
    let length = form.start.len() + rest.find(|character| !(form.is_of_token)(character)).unwrap_or(rest.len());
    let is_token = match form.start {
        "00D" => text[..length].contains('!'),
        "ver:" => text[..length].contains("-hint:"),
        _ => true,
    };
    // An access key of AWS may have its secret behind it.
    let behind =
        text[length..].strip_prefix([':', '/']).filter(|_| (form.is_of_token)('A') && !(form.is_of_token)('a'));
    let secret = behind.map_or(0, |behind| behind.find(|character| !is_base64(character)).unwrap_or(behind.len()));
    let length = if secret >= 8 { length + 1 + secret } else { length };
    is_token.then(|| text[..length].trim_end_matches('.').len())
}

/// Whether no person would have written these characters: capital and small letters and digits change too often for
/// words.
fn is_random(run: &str) -> bool {
    let kind = |byte: u8| match byte {
        b'a'..=b'z' => Some(0),
        b'A'..=b'Z' => Some(1),
        b'0'..=b'9' => Some(2),
        _ => None,
    };
    if run.len() < RANDOM_CHARACTERS {
        return false;
    }
    let kinds: Vec<_> = run.bytes().map(kind).collect();
    let changes = kinds.windows(2).filter(|pair| pair[0] != pair[1] && pair[0].is_some() && pair[1].is_some()).count();
    (0..3).all(|kind| kinds.contains(&Some(kind))) && changes * 5 >= run.len() * 2
}

/// Places with a sign that has enough characters of a token before and behind it: Microsoft Entra's secrets have `Q~` in
/// the middle, Tableau's `==:`.
fn with_sign<'t>(
    text: &'t str,
    sign: &'static str,
    before: usize,
    behind: usize,
) -> impl Iterator<Item = std::ops::Range<usize>> + 't {
    let is_of_token = |character: char| is_base64(character) || ".~".contains(character);
    text.match_indices(sign).filter_map(move |(at, _)| {
        let start = at - text[..at].chars().rev().take(200).take_while(|it| is_of_token(*it)).count();
        let from = at + sign.len();
        let end = from + text[from..].chars().take(200).take_while(|it| is_of_token(*it)).count();
        (at - start >= before && end - from >= behind).then_some(start..end)
    })
}
