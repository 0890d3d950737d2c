//! Colours and marks of the output. A pipe, a file and `NO_COLOR` get the same text without colours.

use std::{
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering},
};

use anstyle::{AnsiColor, Style};

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

/// Prints a line for a reader.
pub fn print(line: impl Display) {
    if IS_FOR_PROGRAMS.load(Ordering::Relaxed) {
        anstream::eprintln!("{line}");
    } else {
        anstream::println!("{line}");
    }
}

/// Prints the next command and its effect.
pub fn next(command: &str, effect: &str) {
    print(format!("Next: `{command}` {effect}."));
}
