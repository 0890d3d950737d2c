//! The project's documents as tests read them: sections with their code blocks and tables, links, commands.
//!
//! A test that runs commands takes them from the document with [`commands`], so that the printed commands are tested.
//! `tests/it/main.rs` finds the commands that no test takes.

pub mod exemptions;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::exemptions::EXEMPTIONS;

/// A document.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its path in the workspace, such as `docs/operations.md`.
    pub path: String,
    /// Its sections in order. The first has no heading and holds the text before the first heading.
    pub sections: Vec<Section>,
}

/// The text from one heading to the next, of any level.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// The heading as written.
    pub heading: String,
    /// The text without its code blocks.
    pub text: String,
    /// The code blocks in order.
    pub blocks: Vec<Block>,
}

/// A code block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its language; empty if none is named.
    pub language: String,
    /// Its lines, each with a line break at its end.
    pub text: String,
    /// The paragraph before it, on one line.
    pub introduction: String,
}

impl Block {
    /// Whether it holds commands.
    pub fn is_commands(&self) -> bool {
        self.language == "sh"
    }
}

impl Section {
    /// Returns the rows of its tables as the texts of their cells, without heads and rules.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let mut rows: Vec<Vec<String>> = Vec::new();
        for line in self.text.lines() {
            let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
                // The rule below a table's head.
                if line.starts_with("|-") {
                    rows.pop();
                }
                continue;
            };
            rows.push(cells.split(" | ").map(|cell| cell.trim().to_owned()).collect());
        }
        rows
    }
}

impl Document {
    /// Reads a document of the workspace.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read(path: &str) -> anyhow::Result<Self> {
        let text = fs::read_to_string(workspace().join(path)).with_context(|| format!("cannot read {path}"))?;
        Ok(Self::parse(path, &text))
    }

    /// Reads every document: the README, and the Markdown files of `docs` and `.github`.
    ///
    /// # Errors
    ///
    /// One cannot be read.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        let mut paths = vec!["README.md".to_owned()];
        for folder in ["docs", ".github"] {
            for file in fs::read_dir(workspace().join(folder))? {
                let name = file?.file_name().into_string().ok().context("a name that is not UTF-8")?;
                if name.ends_with(".md") {
                    paths.push(format!("{folder}/{name}"));
                }
            }
        }
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn parse(path: &str, text: &str) -> Self {
        let mut sections = vec![Section::default()];
        let mut block: Option<Block> = None;
        for line in text.lines() {
            let Some(section) = sections.last_mut() else { continue };
            match (&mut block, line.strip_prefix("```")) {
                (None, Some(language)) => {
                    let introduction = section.text.trim().rsplit("\n\n").next().unwrap_or_default();
                    block = Some(Block {
                        language: language.to_owned(),
                        text: String::new(),
                        introduction: introduction.replace('\n', " "),
                    });
                }
                (Some(_), Some(_)) => section.blocks.extend(block.take()),
                (Some(block), None) => block.text.extend([line, "\n"]),
                (None, None) => match heading(line) {
                    Some(heading) => sections.push(Section { heading: heading.to_owned(), ..Section::default() }),
                    None => section.text.extend([line, "\n"]),
                },
            }
        }
        Self { path: path.to_owned(), sections }
    }

    /// Returns the section under a heading.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn section(&self, heading: &str) -> anyhow::Result<&Section> {
        let section = self.sections.iter().find(|section| section.heading == heading);
        section.with_context(|| format!("{} has no heading {heading:?}", self.path))
    }

    /// Returns the anchors of its headings, as GitHub names them.
    pub fn anchors(&self) -> Vec<String> {
        self.sections.iter().map(|section| anchor(&section.heading)).collect()
    }

    /// Returns the targets of its links as written.
    pub fn links(&self) -> Vec<&str> {
        let texts = self.sections.iter().flat_map(|section| section.text.split("](").skip(1));
        texts.filter_map(|rest| rest.split_once(')').map(|(target, _)| target)).collect()
    }

    /// Returns the code spans of its sentences and tables, each on one line.
    pub fn code_spans(&self) -> Vec<String> {
        let texts = self.sections.iter().flat_map(|section| section.text.split('`').skip(1).step_by(2));
        texts.map(|code| code.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }
}

/// Returns the commands of a section, for a test that runs them all. Leaves out the [`exemptions`] and those of the [`Walk`].
///
/// # Errors
///
/// There is no such document, or no such heading.
pub fn commands(document: &str, heading: &str) -> anyhow::Result<Vec<Block>> {
    let (document, walk) = (Document::read(document)?, Walk::read()?);
    let section = document.section(heading)?;
    let is_left_out = |block: &Block| {
        let is_exempt = EXEMPTIONS.iter().any(|exemption| exemption.is_about(&document, section, block));
        is_exempt || walk.takes(&document, section, block)
    };
    let commands = section.blocks.iter().filter(|block| block.is_commands() && !is_left_out(block));
    Ok(commands.cloned().collect())
}

/// The script that walks through the documents. It takes commands by document, heading and first characters.
#[derive(Clone, Debug)]
pub struct Walk {
    script: String,
}

impl Walk {
    /// Reads the script.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read() -> anyhow::Result<Self> {
        const SCRIPT: &str = "tests/walkthrough/walk.py";
        let script = fs::read_to_string(workspace().join(SCRIPT)).with_context(|| format!("cannot read {SCRIPT}"))?;
        Ok(Self { script })
    }

    /// Whether it runs a block of commands.
    pub fn takes(&self, document: &Document, section: &Section, block: &Block) -> bool {
        let call = format!("command({:?}, {:?}, \"", document.path, section.heading);
        let begins =
            self.script.split(&call).skip(1).filter_map(|rest| rest.split_once("\")").map(|(begins, _)| begins));
        begins.into_iter().any(|begins| block.text.starts_with(&begins.replace("\\n", "\n")))
    }
}

/// Returns the folder of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn heading(line: &str) -> Option<&str> {
    let words = line.trim_start_matches('#');
    (words.len() < line.len()).then(|| words.strip_prefix(' ')).flatten()
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|character| character.is_alphanumeric() || [' ', '-', '_'].contains(character));
    kept.map(|character| if character == ' ' { '-' } else { character.to_ascii_lowercase() }).collect()
}
