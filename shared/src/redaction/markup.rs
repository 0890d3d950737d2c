//! Secrets in XML elements: `<Password>…</Password>`, `<property name="password">…</property>`, and in cells after a name.

use crate::redaction::{
    findings::Findings,
    names::Class,
    value_forms::{is_absent, is_harmless, is_sentence},
};

/// The longest tag that is read.
const MAX_TAG_BYTES: usize = 1000;

/// The longest text of an element that is read.
const MAX_TEXT_BYTES: usize = 4000;

/// Elements of web pages and errors, with prose inside.
const PROSE: &[&str] = &[
    "a", "b", "body", "br", "center", "code", "div", "em", "font", "h1", "h2", "h3", "h4", "h5", "h6", "head", "hr",
    "html", "i", "label", "li", "p", "pre", "small", "span", "strong", "td", "th", "title", "tt", "u", "dt", "dd",
    "string",
];

/// Elements whose text may name the value in the next one.
const NAMES: &[&str] = &["name", "key", "td", "th", "dt", "label", "property", "param", "field"];

pub(super) fn find(text: &str, findings: &mut Findings) {
    let mut named = None;
    for (at, _) in text.match_indices('<') {
        let Some(element) = Element::at_start_of(&text[at..]) else { continue };
        let start = at + element.text_start;
        let inside = element.text.trim();
        if inside.is_empty() {
            continue;
        }
        let class = match (named.take(), element.attribute) {
            (Some(Class::Secret), _) => Class::Secret,
            (Some(class), _) if !NAMES.contains(&&*element.name) => class,
            (_, Some(attribute)) => Class::of(attribute),
            _ => Class::of(&element.name),
        };
        let is_prose = PROSE.contains(&&*element.name) || NAMES.contains(&&*element.name);
        let is_hidden = match class {
            // "AUTH <password> called" has a placeholder.
            Class::Secret => !is_absent(inside) && (element.is_closed || !inside.contains(' ')),
            Class::Unknown => element.is_closed && !is_prose && !is_harmless(inside) && !is_sentence(inside),
            _ => false,
        };
        if is_hidden && !(is_prose && Class::of(inside).is_known()) {
            findings.secrets.push(start..start + element.text.len());
        } else if class == Class::User {
            findings.users.push(start..start + element.text.len());
        }
        named = (NAMES.contains(&&*element.name) && inside.len() < 60)
            .then(|| Class::of(inside))
            .filter(|class| class.is_known());
    }
}

/// An element with a text.
struct Element<'t> {
    /// In lower case, without its namespace.
    name: String,
    /// The attribute `name` or `key`, which names the value.
    attribute: Option<&'t str>,
    text: &'t str,
    text_start: usize,
    is_closed: bool,
}

impl<'t> Element<'t> {
    fn at_start_of(text: &'t str) -> Option<Self> {
        let tag = &text[1..];
        let is_of_name = |character: char| character.is_alphanumeric() || ":._-".contains(character);
        let length =
            tag[..tag.floor_char_boundary(MAX_TAG_BYTES.min(tag.len()))].find(|character| !is_of_name(character))?;
        let (name, attributes) = tag.split_at(length);
        if name.is_empty() || !attributes.starts_with([' ', '>', '\n', '\t', '\r']) {
            return None;
        }
        let near = &attributes[..attributes.floor_char_boundary(MAX_TAG_BYTES.min(attributes.len()))];
        let end = near.find('>')?;
        if near[..end].ends_with('/') {
            return None;
        }
        let attribute = ["name=", "key="].iter().find_map(|sign| {
            let value = &near[..end][near[..end].find(&format!(" {sign}"))? + sign.len() + 1..];
            let quote = value.chars().next()?;
            value[1..].split(quote).next()
        });
        let text_start = 1 + length + end + 1;
        let inside = &text[text_start..];
        let inside = &inside[..inside.floor_char_boundary(MAX_TEXT_BYTES.min(inside.len()))];
        let data = "<![CDATA[";
        let length = if inside.starts_with(data) { inside.find("]]>") } else { inside.find('<') };
        let length = length.unwrap_or(inside.len());
        let is_closed = inside[length..]
            .strip_prefix("]]>")
            .unwrap_or(&inside[length..])
            .strip_prefix("</")
            .is_some_and(|close| close.starts_with(name));
        let skipped = if inside.starts_with(data) { data.len() } else { 0 };
        let local = name.rsplit(':').next().unwrap_or(name).to_lowercase();
        Some(Self {
            name: local,
            attribute,
            text: &inside[skipped..length],
            text_start: text_start + skipped,
            is_closed,
        })
    }
}
