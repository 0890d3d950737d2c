//! Texts for targets: truncated, without markup, or as identifiers.

use sha2::{Digest, Sha256};
use shared::alerts::text::{plain, without_markup};

/// The end of a truncated text.
const ELLIPSIS: char = '…';

/// Hexadecimal digits of the hash in a shortened identifier.
const HASH_DIGITS: usize = 32;

/// Truncates a text. Counts UTF-16 units: a service may count these or characters, which are never more.
pub(crate) fn truncate(text: &str, max: usize) -> String {
    let units = |text: &str| text.chars().map(char::len_utf16).sum::<usize>();
    if units(text) <= max {
        return text.to_owned();
    }
    let mut left = max.saturating_sub(ELLIPSIS.len_utf16());
    let kept = text.chars().take_while(|character| {
        let fits = left.checked_sub(character.len_utf16());
        left = fits.unwrap_or(0);
        fits.is_some()
    });
    kept.chain((max > 0).then_some(ELLIPSIS)).collect()
}

/// Removes control and direction characters, and white space at the end of each line. Keeps line breaks and indentation.
pub(crate) fn plain_lines(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let indentation = line.len() - line.trim_start_matches(' ').len();
        format!("{}{}", &line[..indentation], plain(line)).trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

/// Returns a foreign text on one line, in which no program finds markup, a mention or a link with a label. `None` if nothing
/// of it is visible.
pub(crate) fn inert(text: &str, max: usize) -> Option<String> {
    let text = truncate(&plain(text), max);
    (!text.is_empty()).then(|| without_markup(&text))
}

/// Escapes a text for Slack's `mrkdwn`. Formatting and `@` become similar characters, for which Slack has no escape.
pub(crate) fn slack(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (character, lookalike) in text.chars().zip(without_markup(text).chars()) {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            // At the beginning of a line `&gt;` is a quotation.
            _ => escaped.push(lookalike),
        }
    }
    escaped
}

/// Prepares a text for an element without markup. Slack's mentions need angle brackets, and the dates that cards format need
/// double braces, so the text has neither.
pub(crate) fn literal(text: &str) -> String {
    text.replace('<', "‹").replace('>', "›").replace("{{", "｛｛")
}

/// Returns an identifier as it is, or shortened: its beginning and a hash of the whole, so that equal ones stay equal.
pub(crate) fn identifier(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let hash: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let hash = &hash[..HASH_DIGITS];
    let kept: String = text.chars().take(max.saturating_sub(HASH_DIGITS + 1)).collect();
    format!("{kept}-{hash}").chars().take(max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_truncated_to_utf_16_units() {
        assert_eq!(truncate("Sales", 5), "Sales");
        assert_eq!(truncate("Sales!", 5), "Sale…");
        assert_eq!(truncate("📈📈📈", 5), "📈📈…");
        assert_eq!(truncate("📈📈", 2), "…");
        assert_eq!(truncate("a", 0), "");
    }

    #[test]
    fn lines_keep_breaks_and_indentation_and_nothing_that_is_invisible() {
        assert_eq!(plain_lines("a\tb \r\n  c\u{202e}d\n\n\u{1b}[2Je\n"), "a b\n  cd\n\n[2Je");
    }

    #[test]
    fn a_foreign_text_has_no_markup() {
        assert_eq!(
            inert("*R&D* <!here>\n[daily_sales](x) `_`", 80).as_deref(),
            Some("∗R＆D∗ ‹!here› ［daily_sales］(x) '＿'")
        );
        assert_eq!(inert("a_bc", 3).as_deref(), Some("a＿…"));
        assert_eq!(inert("\u{202e}\t\u{7}", 80), None);
    }

    #[test]
    fn slack_finds_only_text_in_an_escaped_text() {
        assert_eq!(slack("R&D <!here> *a* @b\n> c"), "R&amp;D &lt;!here› ∗a∗ ＠b\n› c");
        assert_eq!(literal("R&D <!here> {{{DATE(x)}}}"), "R&D ‹!here› ｛｛{DATE(x)}}}");
    }

    #[test]
    fn a_shortened_identifier_is_stable_and_depends_on_the_whole() {
        let long = |end: &str| format!("marketing/{}{end}", "9".repeat(300));
        assert_eq!(identifier("marketing/99", 255), "marketing/99");
        assert_eq!(identifier(&long("a"), 255).len(), 255);
        assert_eq!(identifier(&long("a"), 255), identifier(&long("a"), 255));
        assert_ne!(identifier(&long("a"), 255), identifier(&long("b"), 255));
        assert!(identifier(&long("a"), 255).starts_with("marketing/999"));
        assert_eq!(identifier(&long("a"), 10).chars().count(), 10);
    }
}
