//! Printable ASCII for subjects of e-mails, which SNS accepts in nothing else.
//!
//! A crate with tables for all of Unicode adds 0.3 MB to the receiver's zip, and writes `Umsatze` for `Umsätze`.

use std::iter;

/// Replaces letters that have no spelling in ASCII.
const UNKNOWN: &str = "?";

/// Spellings of lower-case letters, and of signs. German, Danish, Norwegian and Icelandic have two letters for some.
const SPELLINGS: [(&str, &str); 41] = [
    ("a", "àáâãåāăą"),
    ("ae", "äæ"),
    ("th", "þ"),
    ("c", "çćĉċč"),
    ("d", "ďđð"),
    ("e", "èéêëēĕėęě"),
    ("g", "ĝğġģ"),
    ("h", "ĥħ"),
    ("i", "ìíîïĩīĭįı"),
    ("I", "İ"),
    ("ij", "ĳ"),
    ("j", "ĵ"),
    ("k", "ķĸ"),
    ("l", "ĺļľŀł"),
    ("n", "ñńņňŋ"),
    ("o", "òóôõōŏő"),
    ("oe", "öøœ"),
    ("r", "ŕŗř"),
    ("s", "śŝşšș"),
    ("ss", "ß"),
    ("t", "ţťŧț"),
    ("u", "ùúûũūŭůűų"),
    ("ue", "ü"),
    ("w", "ŵ"),
    ("y", "ýÿŷ"),
    ("z", "źżž"),
    ("-", "‐‑‒–—―−·•"),
    ("'", "‘’‚‛′´"),
    ("\"", "“”„‟″«»"),
    ("...", "…"),
    (" ", "\u{a0}\u{202f}"),
    ("EUR", "€"),
    ("GBP", "£"),
    ("JPY", "¥"),
    ("(c)", "©"),
    ("(r)", "®"),
    ("TM", "™"),
    ("x", "×"),
    ("+-", "±"),
    ("deg", "°"),
    ("->", "→"),
];

/// Returns the number of ASCII characters for a character. A run of unknown ones may get fewer.
pub(crate) fn ascii_length(character: char) -> usize {
    spelling(character).map_or(UNKNOWN.len(), |(spelling, _)| spelling.len())
}

/// Writes a text in printable ASCII: umlauts and accented letters by their usual spelling, and one question mark for a run of
/// letters that have none. Leaves out emoji and other signs.
pub(crate) fn to_ascii(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    let following = text.chars().skip(1).map(Some).chain(iter::once(None));
    let mut is_unknown = false;
    for (character, next) in text.chars().zip(following) {
        let Some((spelling, is_capital)) = spelling(character) else {
            if !is_unknown {
                ascii.push_str(UNKNOWN);
            }
            is_unknown = true;
            continue;
        };
        is_unknown &= spelling.is_empty();
        if spelling == " " && ascii.ends_with(' ') {
            continue;
        }
        match spelling.split_at_checked(1) {
            // `Öl` becomes `Oel`, and `ÖL` becomes `OEL`.
            Some((first, rest)) if is_capital => {
                let is_among_capitals = next.is_some_and(char::is_uppercase);
                ascii.push_str(&first.to_uppercase());
                ascii.push_str(&if is_among_capitals { rest.to_uppercase() } else { rest.to_owned() });
            }
            _ => ascii.push_str(&spelling),
        }
    }
    ascii
}

/// Returns the spelling of a character, and whether it begins with a capital.
fn spelling(character: char) -> Option<(String, bool)> {
    if (' '..='~').contains(&character) {
        return Some((character.to_string(), false));
    }
    let small = character.to_lowercase().next()?;
    let found = SPELLINGS.iter().find(|(_, characters)| characters.contains([character, small]));
    let Some((spelling, characters)) = found else {
        return (!character.is_alphanumeric()).then(|| (String::new(), false));
    };
    Some(((*spelling).to_owned(), !characters.contains(character)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_signs_get_their_usual_spelling() {
        for (text, expected) in [
            ("Umsätze Größe Öl ÜBERSICHT Straße STRAẞE Ä", "Umsaetze Groesse Oel UEBERSICHT Strasse STRASSE Ae"),
            ("Chiffre d’affaires réalisé – Été", "Chiffre d'affaires realise - Ete"),
            ("Łódź, Århus, Tromsø, Œuvre, İzmir, Reykjavík", "Lodz, Arhus, Tromsoe, Oeuvre, Izmir, Reykjavik"),
            ("„Nord“ 5 € … a\u{a0}b", "\"Nord\" 5 EUR ... a b"),
            ("Cafe\u{301}", "Cafe"),
            ("売上 📈\u{fe0f}📈 Продажи!", "? ?!"),
            ("plain: {}~", "plain: {}~"),
        ] {
            assert_eq!(to_ascii(text), expected);
        }
    }

    #[test]
    fn every_spelling_is_printable_ascii_of_the_announced_length() {
        for character in '\0'..='\u{3000}' {
            let ascii = to_ascii(&character.to_string());
            assert!(ascii.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{character:?}: {ascii}");
            assert_eq!(ascii.len(), ascii_length(character), "{character:?}");
        }
    }
}
