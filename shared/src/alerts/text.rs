//! Safe texts for alerts: literals of the program and foreign texts, rendered for each place.
//!
//! Names, notes and error messages come from Tableau, where every user who may name a workbook writes them. `Text` keeps them
//! apart from literals. Only its renderings reach a subject, an e-mail, a text message or a card, so a foreign text cannot
//! become a mention, a link or other markup, or change the direction of the text around it.

use url::Url;

use crate::alerts::transliteration::{ascii_length, to_ascii};

/// The most characters of a name in a sentence. A user typed it, and it may be very long.
pub(crate) const MAX_NAME_CHARACTERS: usize = 80;

/// The most bytes of an e-mail as JSON. SNS accepts 256 KiB for all texts, and this one is in the message twice, as is the alert
/// as JSON, which can have 50 KiB.
const MAX_MAIL_BYTES: usize = 64 * 1024;

/// A text in parts. A literal is trusted; every `String` counts as foreign.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// A literal, with its line breaks.
    Own(&'static str),
    /// A foreign text in a sentence.
    Foreign(String),
    /// A name: in quotation marks, or on a card in a code span.
    Name(String),
    /// A text to copy: on a card in a code span.
    Verbatim(String),
    /// An address, which mail and chat applications make clickable.
    Link(String),
}

/// Place for which a text is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Plain text with line breaks.
    Mail,
    /// The same, which may be parsed as markup.
    Plain,
    /// Plain text on one line.
    Line,
    /// One line of a card, which may be parsed as markup.
    Title,
    /// Markdown of a card.
    Markdown,
}

/// Concatenates literals, `String`s and other texts.
macro_rules! text {
    ($($part:expr),* $(,)?) => { $crate::alerts::text::Text::default()$(.and($part))* };
}

pub(crate) use text;

impl From<&'static str> for Text {
    fn from(own: &'static str) -> Self {
        Self(vec![Part::Own(own)])
    }
}

impl From<String> for Text {
    fn from(foreign: String) -> Self {
        Self(vec![Part::Foreign(foreign)])
    }
}

impl Text {
    /// Returns a name, which is set off from the words around it.
    pub(crate) fn name(name: String) -> Self {
        Self(vec![Part::Name(name)])
    }

    /// Returns a text to copy, such as an error or a reason.
    pub(crate) fn verbatim(text: String) -> Self {
        Self(vec![Part::Verbatim(text)])
    }

    /// Returns the address of a page; `None` if a character of it could be markup or end the link.
    pub(crate) fn link(url: &Url) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/#?=%.-_".contains(&byte);
        let is_safe = url.as_str().bytes().all(is_plain) && without_markup(url.as_str()) == url.as_str();
        is_safe.then(|| Self(vec![Part::Link(url.to_string())]))
    }

    /// Appends a text.
    pub(crate) fn and(mut self, more: impl Into<Self>) -> Self {
        self.0.extend(more.into().0);
        self
    }

    /// Joins texts with a separator.
    pub(crate) fn joined(texts: impl IntoIterator<Item = Self>, separator: &'static str) -> Self {
        let joined = texts.into_iter().reduce(|all, text| all.and(separator).and(text));
        joined.unwrap_or_default()
    }

    /// Whether nothing of it is visible.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|part| Place::Line.shown(part).1.trim().is_empty())
    }

    /// Renders an e-mail.
    pub(crate) fn mail(&self) -> String {
        self.rendered(Place::Mail, MAX_MAIL_BYTES, "…", json_bytes)
    }

    /// Renders lines that no program can take for markup.
    pub(crate) fn lines(&self, characters: usize) -> String {
        self.rendered(Place::Plain, characters, "…", |_| 1)
    }

    /// Renders a text message.
    pub(crate) fn line(&self, characters: usize) -> String {
        self.rendered(Place::Line, characters, "…", |_| 1)
    }

    /// Renders an e-mail's subject in printable ASCII.
    pub(crate) fn subject(&self, characters: usize) -> String {
        to_ascii(&self.rendered(Place::Line, characters, "...", ascii_length)).trim().to_owned()
    }

    /// Renders a card's title or another single line of it.
    pub(crate) fn title(&self, characters: usize) -> String {
        self.rendered(Place::Title, characters, "…", |_| 1)
    }

    /// Renders a card's markdown.
    pub(crate) fn markdown(&self, characters: usize) -> String {
        self.rendered(Place::Markdown, characters, "…", |_| 1)
    }

    /// Renders the text for a place, truncated to a size. A truncated part keeps its closing mark.
    fn rendered(&self, place: Place, max: usize, ellipsis: &str, size: impl Fn(char) -> usize) -> String {
        let sized = |text: &str| text.chars().map(&size).sum::<usize>();
        let parts: Vec<_> = self.0.iter().map(|part| place.shown(part)).collect();
        let whole: String = parts.iter().flat_map(|(mark, text)| [*mark, text, *mark]).collect();
        if sized(&whole) <= max {
            return whole.trim().to_owned();
        }
        let (mut cut, mut left) = (String::new(), max - sized(ellipsis));
        for (mark, text) in parts {
            let marks = 2 * sized(mark);
            let Some(room) = left.checked_sub(marks) else { break };
            let fits = text.char_indices().scan(0, |used, (at, character)| {
                *used += size(character);
                (*used <= room).then_some(at + character.len_utf8())
            });
            let end = fits.last().unwrap_or(0);
            let is_whole = end == text.len();
            // An underscore at the end of a truncated word could be markup.
            let kept = if is_whole { &text[..] } else { text[..end].trim_end_matches('_') };
            if kept.is_empty() && !is_whole {
                break;
            }
            left -= marks + sized(kept);
            cut.extend([mark, kept, mark]);
            if !is_whole {
                break;
            }
        }
        format!("{}{ellipsis}", cut.trim())
    }
}

impl Place {
    /// Returns the mark around a part, and the part as it is shown here.
    fn shown(self, part: &Part) -> (&'static str, String) {
        let set_off = |mark, text: String| (if text.is_empty() { "" } else { mark }, text);
        match (part, self) {
            (Part::Own(own), Self::Mail | Self::Plain | Self::Markdown) => ("", (*own).to_owned()),
            (Part::Own(own), Self::Line | Self::Title) => ("", own.replace('\n', " ")),
            (Part::Link(url), _) => ("", url.clone()),
            (Part::Name(text) | Part::Verbatim(text), Self::Markdown) => set_off("`", in_code(&plain(text))),
            (Part::Name(text), Self::Mail | Self::Line) => set_off("\"", plain(text)),
            (Part::Name(text), Self::Plain | Self::Title) => set_off("\"", without_markup(&plain(text))),
            (Part::Foreign(text) | Part::Verbatim(text), Self::Mail | Self::Line) => ("", on_one_line(text)),
            (Part::Foreign(text), Self::Markdown) => ("", without_markup(&on_one_line(text))),
            (Part::Foreign(text) | Part::Verbatim(text), Self::Plain | Self::Title) => {
                ("", without_markup(&on_one_line(text)))
            }
        }
    }
}

/// Renders an identifier or a keyword of a card.
pub(crate) fn word(text: &str) -> String {
    Text::from(plain(text)).title(MAX_NAME_CHARACTERS)
}

/// Returns a text on one line: white space and control characters become single spaces, and characters that change the text's
/// direction are left out.
pub fn plain(text: &str) -> String {
    on_one_line(text).trim().to_owned()
}

/// Returns the same with a space at its ends, if there is any.
fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars().filter(|character| !changes_direction(*character)) {
        if !character.is_control() && !character.is_whitespace() {
            line.push(character);
        } else if !line.ends_with(' ') {
            line.push(' ');
        }
    }
    line
}

/// Whether a character changes the direction of the text around it.
pub fn changes_direction(character: char) -> bool {
    matches!(character, '\u{200E}' | '\u{200F}' | '\u{061C}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Replaces each character that any dialect of markup uses by a similar one.
pub fn without_markup(text: &str) -> String {
    let characters: Vec<_> = text.chars().collect();
    let is_in_word = |at: usize| characters.get(at).is_some_and(|character| character.is_alphanumeric());
    let shown = characters.iter().enumerate().map(|(at, character)| match character {
        // The one in `daily_sales` is no markup in any dialect.
        '_' if at.checked_sub(1).is_some_and(is_in_word) && is_in_word(at + 1) => '_',
        '_' => '＿',
        '*' => '∗',
        '~' => '∼',
        '[' => '［',
        ']' => '］',
        '\\' => '＼',
        '@' => '＠',
        character => in_code_character(*character),
    });
    shown.collect()
}

/// Replaces characters that could end a code span. Slack finds mentions and links inside of code spans, too.
fn in_code(text: &str) -> String {
    text.chars().map(in_code_character).collect()
}

fn in_code_character(character: char) -> char {
    match character {
        '`' => '\'',
        '<' => '‹',
        '>' => '›',
        '&' => '＆',
        character => character,
    }
}

/// Returns the bytes of a character in a JSON string.
fn json_bytes(character: char) -> usize {
    if matches!(character, '"' | '\\' | '\n') { 2 } else { character.len_utf8() }
}

/// Truncates a text that is too long.
pub(crate) fn truncate(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    let kept: String = text.chars().take(characters - 1).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Text {
        text![
            "Own *words*\n",
            "<!here> a_b _c_".to_owned(),
            " ",
            Text::name("x `<y>` \u{202e}_z_".to_owned()),
            ": ",
            Text::verbatim("R&D\n[1]".to_owned())
        ]
    }

    #[test]
    fn each_place_has_its_own_form_of_a_text() {
        let text = all();
        assert_eq!(text.mail(), "Own *words*\n<!here> a_b _c_ \"x `<y>` _z_\": R&D [1]");
        assert_eq!(text.line(100), "Own *words* <!here> a_b _c_ \"x `<y>` _z_\": R&D [1]");
        assert_eq!(text.title(100), "Own *words* ‹!here› a_b ＿c＿ \"x '‹y›' ＿z＿\": R＆D ［1］");
        assert_eq!(text.lines(100), "Own *words*\n‹!here› a_b ＿c＿ \"x '‹y›' ＿z＿\": R＆D ［1］");
        assert_eq!(text.markdown(100), "Own *words*\n‹!here› a_b ＿c＿ `x '‹y›' _z_`: `R＆D [1]`");
        assert_eq!(text!["Umsätze\t📈".to_owned()].subject(100), "Umsaetze");
        assert_eq!(text!["Größen".to_owned()].subject(7), "Groe...");
    }

    #[test]
    fn a_truncated_text_keeps_closing_marks() {
        let name = text!["A ", Text::name("long name".to_owned()), "."];
        assert_eq!(name.markdown(14), "A `long name`.");
        assert_eq!(name.markdown(13), "A `long nam`…");
        assert_eq!(name.markdown(12), "A `long na`…");
        assert_eq!(name.markdown(6), "A `l`…");
        assert_eq!(name.markdown(5), "A…");
        assert_eq!(name.subject(8), "A \"l\"...");
        assert_eq!(text!["a_b".to_owned()].title(2), "a…");
        assert_eq!(text!["a_bc".to_owned()].title(3), "a…");
    }

    #[test]
    fn no_mail_is_larger_than_its_share_of_a_message() {
        for character in ["x", "\"", "\\", "ü", "📈"] {
            let mail = Text::from(character.repeat(200_000)).mail();
            let bytes = serde_json::to_string(&mail).expect("JSON").len() - 2;
            assert!((MAX_MAIL_BYTES - 8..=MAX_MAIL_BYTES).contains(&bytes), "{character}: {bytes} bytes");
        }
    }
}
