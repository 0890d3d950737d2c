//! Colours and marks of the output. A pipe, a file and `NO_COLOR` get the same text without colours.

use std::{
    array,
    fmt::Display,
    io::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use anstyle::{AnsiColor, Style};
use console::{Term, measure_text_width, strip_ansi_codes};
use serde::Serialize;
use shared::alerts::text::changes_direction;

/// Headings.
pub const BOLD: Style = Style::new().bold();

/// Text that most readers may skip.
pub const DIM: Style = Style::new().dimmed();

/// Something is as it should be.
pub const GOOD: Style = AnsiColor::Green.on_default();

/// Something is wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();

/// Something deserves a look.
pub const WARNING: Style = AnsiColor::Yellow.on_default();

/// Whether standard output is kept for a program that reads it.
static IS_FOR_PROGRAMS: AtomicBool = AtomicBool::new(false);

/// Formats a text with a style.
pub fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Formats a line about something that is as it should be.
pub fn good(text: impl Display) -> String {
    format!("{} {text}", styled(GOOD, '✓'))
}

/// Formats a line about something that is wrong.
pub fn bad(text: impl Display) -> String {
    format!("{} {}", styled(BAD, '✗'), styled(BAD, text))
}

/// Formats a line about something that deserves a look.
pub fn warning(text: impl Display) -> String {
    format!("{} {text}", styled(WARNING, '!'))
}

/// Keeps standard output for JSON: every other line goes to standard error from now on.
pub fn reserve_stdout() {
    IS_FOR_PROGRAMS.store(true, Ordering::Relaxed);
}

/// Formats a value as JSON on several lines that changes nothing in a terminal.
///
/// # Errors
///
/// It cannot be JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<String> {
    let text = format!("{:#}", serde_json::to_value(value)?);
    let lines: Vec<_> = text.split('\n').map(harmless).collect();
    Ok(lines.join("\n"))
}

/// Formats a value as JSON on one line that changes nothing in a terminal. Its members keep their order.
///
/// # Errors
///
/// It cannot be JSON.
pub fn json_line(value: &impl Serialize) -> anyhow::Result<String> {
    // Line feeds are outside of the texts of JSON alone.
    Ok(harmless(&serde_json::to_string(value)?.replace(['\n', '\r', '\t'], " ")))
}

/// Escapes control characters and those that change the direction of text, as JSON allows.
fn harmless(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_control() || changes_direction(character) {
            safe.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Prints a line for a reader.
pub fn print(line: impl Display) {
    if IS_FOR_PROGRAMS.load(Ordering::Relaxed) {
        print_error(line);
    } else {
        anstream::println!("{}", fitted(&line.to_string(), &Term::stdout()));
    }
}

/// Writes a line for a reader of a stream, who may end it.
///
/// # Errors
///
/// As the output.
pub fn write_line(line: &str) -> io::Result<()> {
    writeln!(anstream::stdout(), "{}", fitted(line, &Term::stdout()))
}

/// Prints a line to standard error.
pub fn print_error(line: impl Display) {
    anstream::eprintln!("{}", fitted(&line.to_string(), &Term::stderr()));
}

/// Prints the next command and its effect.
pub fn next(command: &str, effect: &str) {
    print(format!("Next: `{command}` {effect}."));
}

/// Formats rows in aligned columns.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Begins of lines that stay whole, so that they can be copied: commands, and JSON.
const WHOLE: [&str; 7] = ["aws ", "cargo ", "curl ", "source ", "$ ", "{", "\""];

/// Wraps the lines of a text if they go to a terminal that is narrower.
fn fitted(text: &str, terminal: &Term) -> String {
    let Some((_, width)) = terminal.size_checked().filter(|_| terminal.is_term()) else { return text.to_owned() };
    text.split('\n').map(|line| wrapped(line, width.into())).collect::<Vec<_>>().join("\n")
}

/// Wraps a line between words. Keeps a command whole.
fn wrapped(line: &str, width: usize) -> String {
    let plain = strip_ansi_codes(line);
    let text = plain.trim_start();
    let is_whole = WHOLE.iter().any(|begin| text.trim_start_matches("Fix: ").starts_with(begin));
    if is_whole || measure_text_width(line) <= width {
        return line.to_owned();
    }
    let indentation = plain.len() - text.len() + hanging(text, width);
    let (mut wrapped, mut column) = (String::new(), 0);
    for (index, word) in words(line).iter().enumerate() {
        let length = measure_text_width(word);
        // A word that no line has room for stays where it is.
        let fits = length > 0 && indentation + length <= width;
        if fits && column > indentation && column + 1 + length > width {
            wrapped.truncate(wrapped.trim_end().len());
            wrapped.push_str(&format!("\n{:indentation$}{word}", ""));
            column = indentation + length;
        } else {
            let space = if index > 0 { " " } else { "" };
            wrapped.extend([space, word]);
            column += space.len() + length;
        }
    }
    wrapped
}

/// Indentation of the rest of a text: that of its second column, if it has columns, or that of the text behind its mark.
fn hanging(text: &str, width: usize) -> usize {
    let has_mark = !text.starts_with(char::is_alphanumeric) && text.chars().nth(1) == Some(' ');
    let column = text.find("  ").map(|end| {
        let gap = text[end..].len() - text[end..].trim_start().len();
        measure_text_width(&text[..end]) + gap
    });
    column.filter(|column| *column <= width / 2).unwrap_or(if has_mark { 2 } else { 0 })
}

/// Splits a line at its spaces, but not at those of a command: between backticks, or behind a colon.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for part in line.split(' ') {
        let is_in_command = match words.as_slice() {
            [.., last] if last.matches('`').count() % 2 == 1 => true,
            [.., before, last] => {
                let is_command = ["aws", "cargo"].contains(&last.split(' ').next().unwrap_or_default());
                before.ends_with(':') && is_command && !last.ends_with([')', '.', ',']) && !part.starts_with('(')
            }
            _ => false,
        };
        match words.last_mut() {
            Some(command) if is_in_command => command.extend([" ", part]),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, value::RawValue};

    use super::*;

    #[test]
    fn no_name_in_json_changes_the_terminal() -> anyhow::Result<()> {
        let names = ["a\u{1b}[31m\u{9b}\n\u{7f}", "\u{202e}b", "Umsätze 📈"];
        let text = json(&names)?;
        assert!(!text.contains(['\u{1b}', '\u{9b}', '\u{7f}', '\u{202e}']) && text.contains("Umsätze 📈"), "{text}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text)?, names);
        Ok(())
    }

    #[test]
    fn json_as_it_was_published_is_one_line_with_its_members_in_their_order() -> anyhow::Result<()> {
        let published = "{\r\n\t\"b\": \"x\u{9b}\u{202e}\",\n\t\"a\": 1\r\n}";
        let line = json_line(&RawValue::from_string(published.to_owned())?)?;
        assert_eq!(line, r#"{   "b": "x\u009b\u202e",  "a": 1  }"#);
        assert_eq!(serde_json::from_str::<Value>(&line)?, serde_json::from_str::<Value>(published)?);
        Ok(())
    }

    #[test]
    fn a_long_line_continues_at_its_indentation_and_commands_stay_whole() {
        let red = bad("the event did not arrive");
        for (line, expected) in [
            ("the event did not arrive", "the event did\nnot arrive"),
            ("    the event did not arrive", "    the event\n    did not\n    arrive"),
            ("  - the event did not arrive", "  - the event\n    did not\n    arrive"),
            ("name  site  token  stored", "name  site\n      token\n      stored"),
            ("✓ a   healthy stack here", "✓ a   healthy\n      stack\n      here"),
            ("at https://10ax.online.tableau.com a b", "at https://10ax.online.tableau.com\na b"),
            ("  cargo infra test --verbose", "  cargo infra test --verbose"),
            ("  Fix: cargo infra test --verbose", "  Fix: cargo infra test --verbose"),
            ("and run: cargo test (or: aws s3 ls) now", "and run:\ncargo test (or:\naws s3 ls) now"),
            ("so run `infra test` again", "so run\n`infra test`\nagain"),
        ] {
            assert_eq!(wrapped(line, 15), expected);
        }
        let lines = wrapped(&red, 15);
        assert_eq!(strip_ansi_codes(&lines), "✗ the event did\n  not arrive");
    }
}
