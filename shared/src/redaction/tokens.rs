//! Secrets of a known form, such as access keys and tokens.
//!
//! The forms come from gitleaks' rules (version 8.30, MIT licence) for data sources, and from the documentation of Tableau,
//! Snowflake and Salesforce.

use std::ops::Range;

use crate::redaction::findings::Findings;

/// A form of tokens: their start, the characters that follow, and the least number of them.
struct Form {
    start: &'static str,
    is_of_token: fn(char) -> bool,
    min_length: usize,
}

const fn form(start: &'static str, is_of_token: fn(char) -> bool, min_length: usize) -> Form {
    Form { start, is_of_token, min_length }
}

const FORMS: &[Form] = &[
    // JSON Web Tokens, which are two or three objects in base64.
    form("eyJ", is_base64url_dotted, 5),
    // AWS access keys, and keys and sessions related to them.
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
    // Salesforce's sessions: an organization's id, an exclamation mark and a token.
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

/// The shortest run of random characters that counts as a secret.
const MIN_RANDOM_CHARACTERS: usize = 20;

pub(super) fn find(text: &str, findings: &mut Findings) {
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let starts_word = first.is_ascii_alphanumeric() && !text[..at].ends_with(is_letter_or_digit);
        let length = starts_word.then(|| known(&text[at..])).flatten();
        findings.secrets.extend(length.map(|length| at..at + length));
        at += length.unwrap_or(first.len_utf8());
    }
    findings.secrets.extend(with_sign(text, "Q~", 3, 20));
    findings.secrets.extend(with_sign(text, "==:", 16, 16));
    for run in text.split(|character| !is_base64(character) || "%=".contains(character)) {
        // A path may have a part in base64.
        let pieces = run.split(['/', '-']);
        for piece in [run].into_iter().chain(pieces).filter(|piece| is_random(piece)) {
            let start = piece.as_ptr().addr() - text.as_ptr().addr();
            findings.secrets.push(start..start + piece.len());
        }
    }
}

/// Returns the length of a token of a known form at the start of a text.
fn known(text: &str) -> Option<usize> {
    let form = FORMS.iter().find(|form| {
        text.strip_prefix(form.start)
            .is_some_and(|rest| rest.chars().take_while(|it| (form.is_of_token)(*it)).count() >= form.min_length)
    })?;
    let rest = &text[form.start.len()..];
    let length = form.start.len() + rest.find(|character| !(form.is_of_token)(character)).unwrap_or(rest.len());
    let is_token = match form.start {
        "00D" => text[..length].contains('!'),
        "ver:" => text[..length].contains("-hint:"),
        _ => true,
    };
    // The secret may follow an AWS access key.
    let after = text[length..].strip_prefix([':', '/']).filter(|_| (form.is_of_token)('A') && !(form.is_of_token)('a'));
    let secret = after.map_or(0, |after| after.find(|character| !is_base64(character)).unwrap_or(after.len()));
    let length = if secret >= 8 { length + 1 + secret } else { length };
    is_token.then(|| text[..length].trim_end_matches('.').len())
}

/// Whether characters look random: capital letters, small letters and digits alternate too often for words.
fn is_random(run: &str) -> bool {
    let kind = |byte: u8| match byte {
        b'a'..=b'z' => Some(0),
        b'A'..=b'Z' => Some(1),
        b'0'..=b'9' => Some(2),
        _ => None,
    };
    if run.len() < MIN_RANDOM_CHARACTERS {
        return false;
    }
    let kinds: Vec<_> = run.bytes().map(kind).collect();
    let changes = kinds.windows(2).filter(|pair| pair[0] != pair[1] && pair[0].is_some() && pair[1].is_some()).count();
    (0..3).all(|kind| kinds.contains(&Some(kind))) && changes * 5 >= run.len() * 2
}

/// Returns tokens with a sign in the middle: `Q~` in Microsoft Entra's secrets, `==:` in Tableau's.
fn with_sign<'t>(
    text: &'t str,
    sign: &'static str,
    before: usize,
    after: usize,
) -> impl Iterator<Item = Range<usize>> + 't {
    let is_of_token = |character: char| is_base64(character) || ".~".contains(character);
    text.match_indices(sign).filter_map(move |(at, _)| {
        let start = at - text[..at].chars().rev().take(200).take_while(|it| is_of_token(*it)).count();
        let from = at + sign.len();
        let end = from + text[from..].chars().take(200).take_while(|it| is_of_token(*it)).count();
        (at - start >= before && end - from >= after).then_some(start..end)
    })
}
