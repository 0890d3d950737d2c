//! The commands of the documents that are not run as they are printed, and why.
//!
//! A new block of commands is tried by a test that takes it with [`commands`](crate::commands), or by the walk through the
//! README, or it is listed here.

use crate::{Block, Document, Section};

/// A block of commands that nobody takes from its document.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere {
    /// The document.
    pub document: &'static str,
    /// The heading above it.
    pub heading: &'static str,
    /// How the block begins.
    pub begins: &'static str,
    /// Where the same is tried, or why it is not.
    pub because: &'static str,
}

impl Elsewhere {
    const fn new(document: &'static str, heading: &'static str, begins: &'static str, because: &'static str) -> Self {
        Self { document, heading, begins, because }
    }

    /// Whether it is about this block.
    pub fn is_about(&self, document: &Document, section: &Section, block: &Block) -> bool {
        (self.document, self.heading) == (&*document.path, &*section.heading) && block.text.starts_with(self.begins)
    }
}

/// All of them.
pub const ELSEWHERE: [Elsewhere; 10] = [
    Elsewhere::new("README.md", "See it work", "cargo test --workspace", "it runs the tests that look here"),
    Elsewhere::new(
        "README.md",
        "Work on it",
        "export PATH",
        "it stays until it is interrupted; tests/end-to-end/tests/deployed/inner_loop.rs has it",
    ),
    Elsewhere::new(
        "README.md",
        "Work on it",
        "cargo lambda invoke",
        "tests/end-to-end/tests/deployed/inner_loop.rs has it, on a port of its own",
    ),
    Elsewhere::new(
        "docs/subscribing.md",
        "Slack and Microsoft Teams",
        "aws cloudformation deploy",
        "no local AWS has Amazon Q; the linter knows the templates",
    ),
    Elsewhere::new(
        "docs/performance.md",
        "Performance",
        "cargo bench",
        "it takes minutes; tests/benchmark/tests/it/main.rs has a round of it",
    ),
    Elsewhere::new("docs/testing.md", "Testing", "cargo quick", "it runs the tests that look here"),
    Elsewhere::new("docs/testing.md", "Walk through the README", "tests/walkthrough/walk.py", ".ci/run starts it"),
    Elsewhere::new("docs/testing.md", "Histories", "HISTORIES=", "it takes minutes, or a failure"),
    Elsewhere::new("docs/testing.md", "When SNS or SSM fails", "cargo test", "it runs one of the tests by its name"),
    Elsewhere::new(
        "docs/testing.md",
        "Fuzzing",
        "cargo +nightly fuzz",
        "it takes a nightly toolchain, a C++ compiler and ten minutes",
    ),
];
