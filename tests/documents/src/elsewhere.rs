//! The commands of the documents that no test takes from there, and why.
//!
//! A new block of commands is tried by a test that takes it with [`commands`](crate::commands), or it is listed here.

use crate::{Block, Document, Section};

/// A block of commands that no test takes from its document.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere {
    /// The document.
    pub document: &'static str,
    /// The heading above it.
    pub heading: &'static str,
    /// How the block begins.
    pub begins: &'static str,
    /// Where it is tried instead, or why it is not.
    pub instead: Instead,
}

/// What there is in place of a test that takes a block from its document.
#[derive(Clone, Copy, Debug)]
pub enum Instead {
    /// A script that holds every line of it.
    Script(&'static str),
    /// Nothing that goes by its words, for a reason.
    Because(&'static str),
}

impl Elsewhere {
    const fn new(document: &'static str, heading: &'static str, begins: &'static str, instead: Instead) -> Self {
        Self { document, heading, begins, instead }
    }

    /// Whether it is about this block.
    pub fn is_about(&self, document: &Document, section: &Section, block: &Block) -> bool {
        (self.document, self.heading) == (&*document.path, &*section.heading) && block.text.starts_with(self.begins)
    }
}

/// All of them.
pub const ELSEWHERE: [Elsewhere; 8] = [
    Elsewhere::new("README.md", "See it work", "cargo infra local --once\n", Instead::Script(".ci/run")),
    Elsewhere::new(
        "README.md",
        "See it work",
        "cargo test --workspace\n",
        Instead::Because("it runs the tests that look here"),
    ),
    Elsewhere::new(
        "README.md",
        "Work on it",
        "export PATH",
        Instead::Because("it stays until it is interrupted; tests/end-to-end/tests/it/inner_loop.rs has it"),
    ),
    Elsewhere::new(
        "README.md",
        "Work on it",
        "cargo lambda invoke",
        Instead::Because("tests/end-to-end/tests/it/inner_loop.rs has it, on a port of its own"),
    ),
    Elsewhere::new(
        "docs/subscribing.md",
        "Slack and Microsoft Teams",
        "aws cloudformation deploy",
        Instead::Because("no local AWS has Amazon Q; the linter knows the template"),
    ),
    Elsewhere::new("docs/testing.md", "Histories", "HISTORIES=", Instead::Because("it takes minutes, or a failure")),
    Elsewhere::new(
        "docs/testing.md",
        "When SNS fails",
        "cargo test",
        Instead::Because("it runs one of the tests by its name"),
    ),
    Elsewhere::new(
        "docs/testing.md",
        "Fuzzing",
        "cargo +nightly fuzz",
        Instead::Because("it takes a nightly toolchain, a C++ compiler and ten minutes"),
    ),
];
