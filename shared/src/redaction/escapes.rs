//! Decoding of escapes: JSON and other backslashes, percent-encoding, HTML and XML entities, one inside the other.
//!
//! A text does not say how it is escaped. So it has several [`readings`]: the text itself, and the text decoded step by step,
//! one kind of escape at a time. Each place in a reading has an origin in the text itself.

use std::{borrow::Cow, ops::Range};

/// The most steps; each decodes one kind of escape once. Four times all kinds: deeper nesting is no accident.
const MAX_STEPS: usize = 16;

/// HTML entities of ASCII characters that separate, quote or escape. XML has the first five.
const ENTITIES: [(&str, char); 30] = [
    ("amp", '&'),
    ("quot", '"'),
    ("apos", '\''),
    ("lt", '<'),
    ("gt", '>'),
    ("nbsp", ' '),
    ("Tab", '\t'),
    ("NewLine", '\n'),
    ("excl", '!'),
    ("num", '#'),
    ("dollar", '$'),
    ("percnt", '%'),
    ("lpar", '('),
    ("rpar", ')'),
    ("ast", '*'),
    ("plus", '+'),
    ("comma", ','),
    ("hyphen", '-'),
    ("period", '.'),
    ("sol", '/'),
    ("colon", ':'),
    ("semi", ';'),
    ("equals", '='),
    ("quest", '?'),
    ("commat", '@'),
    ("bsol", '\\'),
    ("lowbar", '_'),
    ("vert", '|'),
    ("lcub", '{'),
    ("rcub", '}'),
];

/// A text with some of its escapes decoded, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<'t> {
    text: Cow<'t, str>,
    /// The position in the original of each byte and of the end; `None` if it is the same.
    origins: Option<Vec<usize>>,
}

impl Reading<'_> {
    /// Returns the decoded text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the place in the original text that a place in this reading was decoded from.
    pub fn origin(&self, place: Range<usize>) -> Range<usize> {
        let origin = |at: usize| self.origins.as_ref().map_or(at, |origins| origins[at]);
        origin(place.start)..origin(place.end)
    }
}

/// Returns the text, then the text with more and more of its escapes decoded. The last has none left, unless they are nested
/// very deeply. Takes linear time.
pub fn readings(text: &str) -> Vec<Reading<'_>> {
    let mut readings = vec![Reading { text: Cow::Borrowed(text), origins: None }];
    let mut unchanged = 0;
    for kind in Kind::ALL.into_iter().cycle().take(MAX_STEPS) {
        let decoded = readings.last().and_then(|reading| kind.decoded(reading));
        unchanged = if decoded.is_some() { 0 } else { unchanged + 1 };
        if unchanged == Kind::ALL.len() {
            break;
        }
        readings.extend(decoded.map(|(text, origins)| Reading { text: Cow::Owned(text), origins: Some(origins) }));
    }
    readings
}

/// Returns the text with all its escapes decoded: the last of its [`readings`].
pub fn decoded(text: &str) -> Cow<'_, str> {
    readings(text).pop().map_or(Cow::Borrowed(text), |reading| reading.text)
}

#[derive(Clone, Copy)]
enum Kind {
    /// Characters by number: `\u0026`. Separate from other backslashes: a text may escape only its quotes, or only other
    /// signs.
    Number,
    Backslash,
    Entity,
    Percent,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Number, Self::Entity, Self::Backslash, Self::Percent];

    /// Returns a reading's text with escapes of this kind decoded once, and its origins; `None` if it has none of them.
    fn decoded(self, reading: &Reading<'_>) -> Option<(String, Vec<usize>)> {
        let text = reading.text();
        let sign = match self {
            Self::Number | Self::Backslash => '\\',
            Self::Entity => '&',
            Self::Percent => '%',
        };
        let (mut decoded, mut origins) = (String::with_capacity(text.len()), Vec::with_capacity(text.len() + 1));
        let (mut at, mut has_any) = (0, false);
        while let Some(first) = text[at..].chars().next() {
            let after = &text[at + first.len_utf8()..];
            if first == sign && after.starts_with(sign) && matches!(self, Self::Number) {
                // The backslash itself is escaped, so no number follows.
                for _ in 0..2 {
                    decoded.push(first);
                    origins.push(reading.origin(at..at).start);
                    at += 1;
                }
                continue;
            }
            let escape = if first != sign {
                None
            } else {
                match self {
                    Self::Number => numbered(after),
                    Self::Backslash => backslash(after),
                    Self::Entity => entity(after),
                    Self::Percent => percent(after),
                }
            };
            has_any |= escape.is_some();
            let (character, length) = escape.map_or((first, first.len_utf8()), |(it, after)| (it, 1 + after));
            decoded.push(character);
            origins.resize(decoded.len(), reading.origin(at..at).start);
            at += length;
        }
        origins.push(reading.origin(at..at).start);
        has_any.then_some((decoded, origins))
    }
}

/// Decodes the number after a backslash. Returns the character and the length of its number.
fn numbered(after: &str) -> Option<(char, usize)> {
    match after.chars().next()? {
        'x' => Some((char::from_u32(number(after.get(1..3)?, 16)?)?, 3)),
        'U' => Some((char::from_u32(number(after.get(1..9)?, 16)?)?, 9)),
        'u' if after[1..].starts_with('{') => {
            let end = after.bytes().take(10).position(|byte| byte == b'}')?;
            Some((char::from_u32(number(&after[2..end], 16)?)?, end + 1))
        }
        'u' => utf16(after, 1, "\\u"),
        '0'..='3' => Some((char::from_u32(number(after.get(..3)?, 8)?)?, 3)),
        _ => None,
    }
}

/// Decodes another escape of JSON, Java, Python or properties after a backslash.
fn backslash(after: &str) -> Option<(char, usize)> {
    let first = after.chars().next()?;
    let character = match first {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'b' => '\u{8}',
        'f' => '\u{c}',
        // The sign of another kind of escape stays escaped until its own step.
        '&' | '%' => return None,
        _ if first.is_ascii_punctuation() => first,
        _ => return None,
    };
    Some((character, 1))
}

/// Decodes an entity after its ampersand. Returns the character and the length of the entity.
fn entity(after: &str) -> Option<(char, usize)> {
    if let Some(numeric) = after.strip_prefix('#') {
        let (digits, radix) = numeric.strip_prefix(['x', 'X']).map_or((numeric, 10), |digits| (digits, 16));
        let end = digits.bytes().take(9).take_while(|byte| char::from(*byte).is_digit(radix)).count();
        let character = char::from_u32(number(&digits[..end], radix)?)?;
        let closing = usize::from(digits[end..].starts_with(';'));
        return Some((character, after.len() - digits.len() + end + closing));
    }
    let (name, character) =
        ENTITIES.iter().find(|(name, _)| after.strip_prefix(name).is_some_and(|after| after.starts_with(';')))?;
    Some((*character, name.len() + 1))
}

/// Decodes a character after its first percent sign. Returns the character and the length of its escapes.
fn percent(after: &str) -> Option<(char, usize)> {
    if after.starts_with(['u', 'U']) {
        return utf16(after, 1, if after.starts_with('u') { "%u" } else { "%U" });
    }
    let byte = |at: usize| u8::try_from(number(after.get(at..at + 2)?, 16)?).ok();
    let first = byte(0)?;
    let count = match first {
        0..0x80 => return Some((char::from(first), 2)),
        0xC0..0xE0 => 2,
        0xE0..0xF0 => 3,
        0xF0..0xF8 => 4,
        _ => return None,
    };
    let mut bytes = vec![first];
    for at in 1..count {
        after.get(3 * at - 1..).filter(|rest| rest.starts_with('%'))?;
        bytes.push(byte(3 * at)?);
    }
    let character = str::from_utf8(&bytes).ok()?.chars().next()?;
    Some((character, 3 * count - 1))
}

/// Decodes a character of four digits at `at`, or of two such groups with a sign between. Returns the character and its end.
fn utf16(text: &str, at: usize, sign: &str) -> Option<(char, usize)> {
    let unit = |at: usize| u16::try_from(number(text.get(at..at + 4)?, 16)?).ok();
    let first = unit(at)?;
    if let Some(character) = char::from_u32(first.into()) {
        return Some((character, at + 4));
    }
    text.get(at + 4..).filter(|rest| rest.starts_with(sign))?;
    let second = unit(at + 4 + sign.len())?;
    let character = char::decode_utf16([first, second]).next()?.ok()?;
    Some((character, at + 8 + sign.len()))
}

/// Reads a number of digits without a sign.
fn number(digits: &str, radix: u32) -> Option<u32> {
    let is_number = digits.chars().all(|character| character.is_digit(radix));
    is_number.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    #[test]
    fn every_kind_of_escape_is_decoded() {
        for (spelled, text) in [
            (r"a\u0026sig\u003Db\/c", "a&sig=b/c"),
            (r#"{\"a\":\"b\\n\"}"#, "{\"a\":\"b\n\"}"),
            (r"\x3d \075 \u{3d} \U0000003d \= \'", "= = = = = '"),
            (r"\ud83d\ude00 \ud83d \udead1 \u12", r"😀 \ud83d \udead1 \u12"),
            ("a%3Db%26%c3%bc%E2%82%AC%u003d", "a=b&ü€="),
            ("100% of %zz %C3 %C3%41 %", "100% of %zz %C3 %C3A %"),
            (
                "&quot;a&#61;b&#x3D;c&#59d&amp;&commat;&unknown; & &#; &#x110000;",
                "\"a=b=c;d&@&unknown; & &#; &#x110000;",
            ),
            ("%25253D &amp;amp;quot; \\\\\\\"", "= \" \""),
            (r"%5Cu0026quot%3B", "\""),
            ("plain text: 5 > 3", "plain text: 5 > 3"),
            ("", ""),
        ] {
            assert_eq!(decoded(spelled), text, "{spelled}");
        }
        assert!(matches!(decoded("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_place_in_a_reading_has_an_origin_in_the_text() {
        let text = r"ü \u0026quot;a%25%33%44 b";
        for reading in readings(text) {
            let at = reading.text().find('a').expect("an a");
            assert_eq!(&text[reading.origin(at..at + 1)], "a");
            let end = reading.text().len();
            assert_eq!(reading.origin(0..end), 0..text.len());
        }
        let last = readings(text).pop().expect("a reading");
        assert_eq!(last.text(), "ü \"a= b");
        assert_eq!(&text[last.origin(3..4)], r"\u0026quot;");
        assert_eq!(&text[last.origin(5..6)], "%25%33%44");
    }

    #[test]
    fn deeply_nested_escapes_take_a_bounded_number_of_steps() {
        for text in
            ["\\".repeat(1 << 16), "%25".repeat(1 << 14), format!("%{}", "25".repeat(1 << 15)), "&amp;".repeat(1 << 14)]
        {
            let readings = readings(&text);
            assert!(readings.len() <= MAX_STEPS + 1);
            assert!(readings.windows(2).all(|pair| pair[1].text().len() < pair[0].text().len()));
        }
    }

    /// Escapes a character in one of several ways.
    fn spelled(character: char, spelling: usize) -> String {
        let percent = |bytes: &[u8]| bytes.iter().map(|byte| format!("%{byte:02X}")).collect::<String>();
        match spelling {
            0 => character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
            1 => percent(character.encode_utf8(&mut [0; 4]).as_bytes()),
            2 => format!("&#{};", u32::from(character)),
            3 => format!("&#x{:X};", u32::from(character)),
            4 => percent(percent(character.encode_utf8(&mut [0; 4]).as_bytes()).as_bytes()),
            5 => format!("%5Cu{{{:x}}}", u32::from(character)),
            _ => character.to_string(),
        }
    }

    proptest! {
        #[test]
        fn any_mixture_of_escapes_is_decoded(text in vec((any::<char>(), 0_usize..7), 0..40)) {
            // Signs of escapes would make new escapes, which are decoded as well.
            let text: Vec<_> = text.into_iter().filter(|(character, _)| !"\\%&".contains(*character)).collect();
            let plain: String = text.iter().map(|(character, _)| character).collect();
            let spelled: String = text.iter().map(|(character, spelling)| spelled(*character, *spelling)).collect();
            prop_assert_eq!(decoded(&spelled), plain);
        }

        #[test]
        fn readings_of_any_text_have_origins_within_it(text: String, pieces in vec(select(&["\\", "u", "00", "3d", "%", "&", "#", "x", ";", "amp", "é", "{", "}"][..]), 0..30)) {
            for text in [text, pieces.concat()] {
                for reading in readings(&text) {
                    let starts = reading.text().char_indices().map(|(at, _)| reading.origin(at..at).start);
                    prop_assert!(starts.clone().all(|start| text.is_char_boundary(start)));
                    prop_assert!(starts.is_sorted());
                    let end = reading.text().len();
                    prop_assert_eq!(reading.origin(0..end), 0..text.len());
                }
            }
        }
    }
}
