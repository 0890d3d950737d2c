//! Commands of the documents that no test runs as they are printed, each with the reason.
//!
//! A new block of commands is run by a test that takes it with [`commands`](crate::commands), or by the walk through the
//! documents, or it is listed here.

use crate::{Block, Document, Section};

/// A block of commands that no test takes from its document.
#[derive(Clone, Copy, Debug)]
pub struct Exemption {
    /// The document.
    pub document: &'static str,
    /// The heading above it.
    pub heading: &'static str,
    /// The first characters of the block.
    pub begins: &'static str,
    /// The test that runs an equivalent, or the reason why none does.
    pub reason: &'static str,
}

impl Exemption {
    const fn new(document: &'static str, heading: &'static str, begins: &'static str, reason: &'static str) -> Self {
        Self { document, heading, begins, reason }
    }

    /// Whether it exempts this block.
    pub fn is_about(&self, document: &Document, section: &Section, block: &Block) -> bool {
        (self.document, self.heading) == (&*document.path, &*section.heading) && block.text.starts_with(self.begins)
    }
}

/// All exemptions.
pub const EXEMPTIONS: [Exemption; 13] = [
    Exemption::new("README.md", "See it work", "cargo test --workspace", "it runs the test that reads this list"),
    Exemption::new(
        "docs/tutorial.md",
        "Start",
        "cargo infra local",
        "it runs until it is interrupted; infra/tests/deployed/local_command.rs runs it",
    ),
    Exemption::new(
        "docs/testing.md",
        "Run the functions from source",
        "cargo lambda watch",
        "it runs until it is interrupted; tests/end-to-end/tests/deployed/inner_loop.rs runs it",
    ),
    Exemption::new(
        "docs/testing.md",
        "Run the functions from source",
        "cargo lambda invoke",
        "tests/end-to-end/tests/deployed/inner_loop.rs runs it on another port",
    ),
    Exemption::new(
        "docs/recipes.md",
        "Slack",
        "aws cloudformation deploy",
        "no local AWS has Amazon Q; the linter checks the templates",
    ),
    Exemption::new(
        "docs/recipes.md",
        "Microsoft Teams",
        "aws cloudformation deploy",
        "no local AWS has Amazon Q; the linter checks the templates",
    ),
    Exemption::new(
        "docs/performance.md",
        "Performance",
        "cargo bench",
        "it takes minutes; tests/benchmark/tests/it/main.rs runs a round of it",
    ),
    Exemption::new("docs/testing.md", "Testing", "cargo quick", "it runs the test that reads this list"),
    Exemption::new("docs/testing.md", "Walk through the documents", "tests/walkthrough/walk.py", ".ci/run runs it"),
    Exemption::new("docs/testing.md", "Histories", "HISTORIES=", "it takes minutes, or needs a failure"),
    Exemption::new("docs/testing.md", "When SNS or SSM fails", "cargo test", "it runs one test by its name"),
    Exemption::new("docs/testing.md", "When a target fails", "cargo test", "it runs one test by its name"),
    Exemption::new(
        "docs/testing.md",
        "Fuzzing",
        "cargo +nightly fuzz",
        "it needs a nightly toolchain, a C++ compiler and ten minutes",
    ),
];
