//! Decoding of escapes: JSON and other backslashes, percent-encoding, HTML and XML entities, one inside the other.
//!
//! Nobody says in which spelling a text is. So a text has several [`readings`]: as it stands, and decoded step by step, one
//! kind of escape at a time. A place that is found in a reading can be found again in the text itself.

use std::{borrow::Cow, ops::Range};

/// The most steps; each decodes one kind of escape once. Four times all kinds: deeper nesting is nobody's accident.
const MAX_STEPS: usize = 16;

/// HTML's names of the ASCII characters that separate, quote or escape. XML has the first five.
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

/// A text, or what it says once escapes are decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<'t> {
    text: Cow<'t, str>,
    /// For each byte of the text, and for its end, where in the original it comes from; `None` if that is the same place.
    origins: Option<Vec<usize>>,
}

impl Reading<'_> {
    /// The decoded text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The place in the original text that a place in this one was decoded from.
    pub fn origin(&self, place: Range<usize>) -> Range<usize> {
        let origin = |at: usize| self.origins.as_ref().map_or(at, |origins| origins[at]);
        origin(place.start)..origin(place.end)
    }
}

/// The text as it stands, then with more and more of its escapes decoded; the last has none, unless they are nested
/// beyond reason. Takes linear time.
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

/// The text with all its escapes decoded: the last of its [`readings`].
pub fn decoded(text: &str) -> Cow<'_, str> {
    readings(text).pop().map_or(Cow::Borrowed(text), |reading| reading.text)
}

#[derive(Clone, Copy)]
enum Kind {
    /// Characters by their number: `\u0026`. Apart from the others, since quotes may be escaped in a text whose other
    /// signs are.
    Number,
    Backslash,
    Entity,
    Percent,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Number, Self::Entity, Self::Backslash, Self::Percent];

    /// A reading's text with the escapes of this kind decoded once, and its origins; `None` if it has none of them.
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
            let behind = &text[at + first.len_utf8()..];
            if first == sign && behind.starts_with(sign) && matches!(self, Self::Number) {
                // What looks like a number behind it is escaped itself.
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
                    Self::Number => number_behind(behind),
                    Self::Backslash => backslash(behind),
                    Self::Entity => entity(behind),
                    Self::Percent => percent(behind),
                }
            };
            has_any |= escape.is_some();
            let (character, length) = escape.map_or((first, first.len_utf8()), |(it, behind)| (it, 1 + behind));
            decoded.push(character);
            origins.resize(decoded.len(), reading.origin(at..at).start);
            at += length;
        }
        origins.push(reading.origin(at..at).start);
        has_any.then_some((decoded, origins))
    }
}

/// The character that is escaped by its number, given what stands behind its backslash, and how many bytes of that belong
/// to it.
fn number_behind(behind: &str) -> Option<(char, usize)> {
    match behind.chars().next()? {
        'x' => Some((char::from_u32(number(behind.get(1..3)?, 16)?)?, 3)),
        'U' => Some((char::from_u32(number(behind.get(1..9)?, 16)?)?, 9)),
        'u' if behind[1..].starts_with('{') => {
            let end = behind.bytes().take(10).position(|byte| byte == b'}')?;
            Some((char::from_u32(number(&behind[2..end], 16)?)?, end + 1))
        }
        'u' => utf16(behind, 1, "\\u"),
        '0'..='3' => Some((char::from_u32(number(behind.get(..3)?, 8)?)?, 3)),
        _ => None,
    }
}

/// The character of another escape in JSON, Java, Python or properties, likewise.
fn backslash(behind: &str) -> Option<(char, usize)> {
    let first = behind.chars().next()?;
    let character = match first {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'b' => '\u{8}',
        'f' => '\u{c}',
        // Before the sign of another kind of escape it belongs to what that says.
        '&' | '%' => return None,
        _ if first.is_ascii_punctuation() => first,
        _ => return None,
    };
    Some((character, 1))
}

/// The character of an entity, given what stands behind its ampersand, and how many bytes of that belong to it.
fn entity(behind: &str) -> Option<(char, usize)> {
    if let Some(numeric) = behind.strip_prefix('#') {
        let (digits, radix) = numeric.strip_prefix(['x', 'X']).map_or((numeric, 10), |digits| (digits, 16));
        let end = digits.bytes().take(9).take_while(|byte| char::from(*byte).is_digit(radix)).count();
        let character = char::from_u32(number(&digits[..end], radix)?)?;
        let closing = usize::from(digits[end..].starts_with(';'));
        return Some((character, behind.len() - digits.len() + end + closing));
    }
    let (name, character) =
        ENTITIES.iter().find(|(name, _)| behind.strip_prefix(name).is_some_and(|behind| behind.starts_with(';')))?;
    Some((*character, name.len() + 1))
}

/// The percent-encoded character, given what stands behind its first percent sign, and how many bytes of that belong to
/// it.
fn percent(behind: &str) -> Option<(char, usize)> {
    if behind.starts_with(['u', 'U']) {
        return utf16(behind, 1, if behind.starts_with('u') { "%u" } else { "%U" });
    }
    let byte = |at: usize| u8::try_from(number(behind.get(at..at + 2)?, 16)?).ok();
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
        behind.get(3 * at - 1..).filter(|rest| rest.starts_with('%'))?;
        bytes.push(byte(3 * at)?);
    }
    let character = str::from_utf8(&bytes).ok()?.chars().next()?;
    Some((character, 3 * count - 1))
}

/// A character of four digits at `at`, or of two such groups with a sign between, and how many bytes that takes from the
/// start.
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

/// A number of digits only: no sign.
fn number(digits: &str, radix: u32) -> Option<u32> {
    let is_number = digits.chars().all(|character| character.is_digit(radix));
    is_number.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    #[test]
    fn every_spelling_of_a_text_is_decoded() {
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
    fn a_place_in_a_reading_is_found_in_the_text() {
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
    fn however_deep_escapes_are_nested_the_steps_are_bounded() {
        for text in
            ["\\".repeat(1 << 16), "%25".repeat(1 << 14), format!("%{}", "25".repeat(1 << 15)), "&amp;".repeat(1 << 14)]
        {
            let readings = readings(&text);
            assert!(readings.len() <= MAX_STEPS + 1);
            assert!(readings.windows(2).all(|pair| pair[1].text().len() < pair[0].text().len()));
        }
    }

    /// A character in one of its spellings.
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
        fn any_mixture_of_spellings_is_decoded(text in vec((any::<char>(), 0_usize..7), 0..40)) {
            // An escape that only arises from decoding is decoded as well.
            let text: Vec<_> = text.into_iter().filter(|(character, _)| !"\\%&".contains(*character)).collect();
            let plain: String = text.iter().map(|(character, _)| character).collect();
            let spelled: String = text.iter().map(|(character, spelling)| spelled(*character, *spelling)).collect();
            prop_assert_eq!(decoded(&spelled), plain);
        }

        #[test]
        fn any_text_has_readings_that_lie_within_it(text: String, pieces in vec(select(&["\\", "u", "00", "3d", "%", "&", "#", "x", ";", "amp", "é", "{", "}"][..]), 0..30)) {
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
