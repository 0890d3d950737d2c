//! Checks the words of documents and code: each thing has one name, which a stranger knows or finds in the glossary.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Context;
use documents::{Document, workspace};
use regex_lite::Regex;

/// Folders whose Rust comments, Rust strings and YAML files are checked besides the documents.
const SOURCES: &[&str] = &["functions", "infra", "shared", "tests"];

/// Words that are not used, as regular expressions, and their replacements. Each is wrong whatever the context.
const WORDS: [(&str, &str); 16] = [
    ("told|untold|telling", "published, notified, reported, logged or formatted"),
    ("tells? (?:of|people|anybody|everybody|nobody|somebody)", "publish, notify, report, log or show"),
    ("people (?:are|were|hear|know)", "alerts are sent, or alert subscribers"),
    ("troubles?", "problem"),
    ("look(?:s|ed|ing)? after", "manage"),
    ("mend(?:s|ed|ing)?", "fix or repair"),
    ("believ(?:e|es|ed|ing)", "accept or verify"),
    ("(?:is|are|was|were|stays?|falls?|fell|goes|went) silent", "is down, stops answering or sends no alert"),
    ("giv(?:e|es|en|ing) up|gave up", "drop, stop or time out"),
    ("hears? of|heard of", "receive, or miss"),
    ("visit(?:s|ed|ing)?", "site run, or reach a site"),
    ("wanders", "is run-wide"),
    ("authorities", "CA certificates"),
    ("journal", "delivery log"),
    ("leash|obituary|office", "a noun for what the thing does"),
    ("novel", "new"),
];

/// First words of sentences whose subject is a clause. A question may begin with them.
const CLAUSES: [&str; 3] = ["What ", "Whoever ", "Whatever "];

/// Places where a word is right: the file, the word as it is written there, and the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

const MAX_EXCEPTIONS: usize = 20;

const _: () = assert!(EXCEPTIONS.len() <= MAX_EXCEPTIONS);

/// This file, which has to write the words.
const THIS_FILE: &str = "tests/documents/tests/it/words.rs";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Markdown,
    Rust,
    Yaml,
}

/// A word, or a sentence's beginning, that is not used.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    line: usize,
    word: String,
    replacement: &'static str,
}

#[test]
fn documents_and_code_have_no_private_words() -> anyhow::Result<()> {
    let mut files: Vec<_> = Document::all()?.into_iter().map(|document| document.path).collect();
    SOURCES.iter().try_for_each(|folder| sources(folder, &mut files))?;
    let (mut errors, mut used) = (Vec::new(), BTreeSet::new());
    for file in files.iter().filter(|file| *file != THIS_FILE) {
        let language = Language::of(file).context("a file of another language")?;
        for Finding { line, word, replacement } in findings(language, &fs::read_to_string(workspace().join(file))?)? {
            match EXCEPTIONS.iter().position(|(place, excepted, _)| place == file && *excepted == word) {
                Some(index) => drop(used.insert(index)),
                None => errors.push(format!("{file}:{line}: {word:?}: write {replacement}")),
            }
        }
    }
    assert!(errors.is_empty(), "{} of these words (see .github/CONTRIBUTING.md):\n{}", errors.len(), errors.join("\n"));
    let unused: Vec<_> = EXCEPTIONS.iter().enumerate().filter(|(index, _)| !used.contains(index)).collect();
    assert!(unused.is_empty(), "remove the exceptions that nothing needs: {unused:#?}");
    Ok(())
}

/// Finds the Rust code and the templates in a folder.
fn sources(folder: &str, found: &mut Vec<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(workspace().join(folder))? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a name that is not UTF-8")?;
        let path = format!("{folder}/{name}");
        if entry.file_type()?.is_dir() {
            if name != "target" {
                sources(&path, found)?;
            }
        } else if Language::of(&path).is_some() {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

impl Language {
    fn of(path: &str) -> Option<Self> {
        match Path::new(path).extension()?.to_str()? {
            "md" => Some(Self::Markdown),
            "rs" => Some(Self::Rust),
            "yaml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

fn findings(language: Language, text: &str) -> anyhow::Result<Vec<Finding>> {
    let prose = if language == Language::Rust { prose_of_rust(text)? } else { text.to_owned() };
    let mut findings = Vec::new();
    for (word, replacement) in WORDS {
        // A line may be broken between two words.
        let word = Regex::new(&format!(r"(?i)\b(?:{})\b", word.replace(' ', r"\s+")))?;
        findings.extend(word.find_iter(&prose).map(|found| Finding {
            line: line_at(&prose, found.start()),
            word: found.as_str().split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase(),
            replacement,
        }));
    }
    for (line, paragraph) in paragraphs(language, text) {
        let mut start = 0;
        for sentence in paragraph.split_inclusive(['.', '!', '?']) {
            let begins = sentence.trim_start();
            let clause = CLAUSES.iter().find(|clause| begins.starts_with(**clause) && !begins.ends_with('?'));
            findings.extend(clause.map(|clause| Finding {
                line: line + line_at(&paragraph, start + sentence.len() - begins.len()) - 1,
                word: clause.trim_end().to_owned(),
                replacement: "the thing or a verb at the beginning of the sentence",
            }));
            start += sentence.len();
        }
    }
    findings.sort_by_key(|finding| finding.line);
    Ok(findings)
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text[..offset].matches('\n').count()
}

/// Blanks everything but comments and string literals. Lines stay where they are.
fn prose_of_rust(code: &str) -> anyhow::Result<String> {
    // A character literal may be a quotation mark. The last two alternatives are plain and raw string literals.
    let parts = Regex::new(
        r##"(?x) (?<comment> //[/!]?[^\n]* | /\*(?s:.*?)\*/ )
               | '(?: \\[^']*. | [^\\'] )'
               | (?<text> r\#+"(?s:.*?)"\#+ | r"[^"]*" | "(?: \\(?s:.) | [^\\"] )*" )"##,
    )?;
    let insertions = Regex::new(r"\\.|\{\w*(?::[^{}]*)?\}")?;
    let (mut prose, mut end) = (String::new(), 0);
    for part in parts.captures_iter(code) {
        let Some(whole) = part.get(0) else { continue };
        prose.push_str(&blank(&code[end..whole.start()]));
        if part.name("comment").is_some() {
            prose.push_str(whole.as_str().trim_start_matches(['/', '!', '*']));
        } else if part.name("text").is_some() {
            prose.push_str(&insertions.replace_all(whole.as_str(), " "));
        } else {
            prose.push_str(&blank(whole.as_str()));
        }
        end = whole.end();
    }
    prose.push_str(&blank(&code[end..]));
    Ok(prose)
}

fn blank(code: &str) -> String {
    code.chars().map(|character| if character.is_whitespace() { character } else { '\x1f' }).collect()
}

/// The paragraphs of a document or of doc comments, each with its first line, without code blocks, tables and headings.
fn paragraphs(language: Language, text: &str) -> Vec<(usize, String)> {
    let (mut paragraphs, mut is_code, mut is_open) = (Vec::<(usize, String)>::new(), false, false);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = match language {
            Language::Markdown => line,
            Language::Rust => line.strip_prefix("///").or(line.strip_prefix("//!")).unwrap_or_default().trim(),
            Language::Yaml => "",
        };
        is_code ^= line.starts_with("```");
        let item = line.strip_prefix("- ");
        match paragraphs.last_mut() {
            _ if is_code || line.is_empty() || line.starts_with(['|', '#']) || line.starts_with("```") => {
                is_open = false
            }
            Some((_, paragraph)) if is_open && item.is_none() => paragraph.extend(["\n", line]),
            _ => {
                paragraphs.push((index + 1, item.unwrap_or(line).to_owned()));
                is_open = true;
            }
        }
    }
    paragraphs
}

#[test]
fn a_private_word_is_found_in_prose_and_not_in_code() -> anyhow::Result<()> {
    let code = r##"/// Sends what subscribers are told
/// of: whoever looks
/// after them.
///
/// What it sends. What for? Whatever.
fn told(mark: char) -> String { // trouble-free
    let telling = if mark == '"' { "mended" } else { r#"a "novel""# };
    format!("{told}\ntold {telling:?}") /* silent: it
    is silent */
}
"##;
    let found: Vec<_> = findings(Language::Rust, code)?.into_iter().map(|found| (found.line, found.word)).collect();
    let expected = [
        (1, "told"),
        (2, "looks after"),
        (5, "What"),
        (6, "trouble"),
        (7, "mended"),
        (7, "novel"),
        (8, "told"),
        (9, "is silent"),
    ];
    assert_eq!(found, expected.map(|(line, word)| (line, word.to_owned())));

    let document = "# What\n\nIt works. What\nfor? What it does\nis this.\n\n- Whoever asks.\n\n\
        | What |\n\n```\nWhat it prints.\n```\n";
    let found: Vec<_> =
        findings(Language::Markdown, document)?.into_iter().map(|found| (found.line, found.word)).collect();
    assert_eq!(found, [(4, "What".to_owned()), (7, "Whoever".to_owned())]);
    Ok(())
}
