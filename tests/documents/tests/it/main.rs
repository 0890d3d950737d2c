//! Checks of the documents against the code and against each other, and of their words.

mod words;

mod structure;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::Context;
use documents::{Document, Walk, elsewhere::ELSEWHERE, workspace};
use serde_json::Value;
use shared::{
    events::{catalogue::Event, delivery::Delivery},
    problems::ProblemKind,
    registration::{
        claim::{Claim, Registration},
        keyring::{KEY_BYTES, Keyring},
        signed_url::ReceiverUrl,
    },
    sites::entry::SiteEntry,
};

/// Where tests are, and code with tests in it.
const CODE: [&str; 4] = ["functions", "infra", "shared", "tests"];

/// All Rust code in a folder, without white space, since lines are broken anywhere.
fn code(folder: &Path, found: &mut String) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            code(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&squeezed(&fs::read_to_string(path)?));
        }
    }
    Ok(())
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

#[test]
fn every_command_is_tried_as_it_is_printed_or_there_is_a_reason() -> anyhow::Result<()> {
    let mut tests = String::new();
    CODE.iter().try_for_each(|folder| code(&workspace().join(folder), &mut tests))?;
    let walk = Walk::read()?;
    let (mut untried, mut used) = (Vec::new(), BTreeSet::new());
    for document in Document::all()? {
        for section in &document.sections {
            for block in section.blocks.iter().filter(|block| block.is_commands()) {
                let elsewhere = ELSEWHERE.iter().position(|elsewhere| elsewhere.is_about(&document, section, block));
                used.extend(elsewhere);
                let taken = squeezed(&format!("commands({:?}, {:?})", document.path, section.heading));
                if elsewhere.is_none() && !walk.takes(&document, section, block) && !tests.contains(&taken) {
                    untried.push(format!("{}, {:?}:\n{}", document.path, section.heading, block.text));
                }
            }
        }
    }
    assert!(
        untried.is_empty(),
        "No test tries these commands. Take them from the document in a test, which runs all that\n\
         documents::commands(\"<document>\", \"<heading>\") returns, as infra/tests/it/reading.rs does; or, if they cannot be\n\
         run here, list them with the reason in tests/documents/src/elsewhere.rs.\n\n{}",
        untried.join("\n")
    );
    let unused: Vec<_> = ELSEWHERE.iter().enumerate().filter(|(index, _)| !used.contains(index)).collect();
    assert!(unused.is_empty(), "no document has these blocks: remove them from elsewhere.rs: {unused:#?}");
    Ok(())
}

#[test]
fn every_link_within_the_documents_leads_somewhere() -> anyhow::Result<()> {
    let documents = Document::all()?;
    let anchors: BTreeMap<_, _> =
        documents.iter().map(|document| (document.path.as_str(), document.anchors())).collect();
    let mut wrong = Vec::new();
    for document in &documents {
        for link in document.links().into_iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = document.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            // As the document's own path is written.
            let mut target: Vec<_> = folder.split('/').filter(|part| !part.is_empty() && !path.is_empty()).collect();
            for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
                if part == ".." {
                    target.pop();
                } else {
                    target.push(part);
                }
            }
            let target = if path.is_empty() { document.path.clone() } else { target.join("/") };
            let leads_there = workspace().join(&target).exists();
            let has_anchor = anchor.is_empty()
                || anchors.get(target.as_str()).is_some_and(|anchors| anchors.iter().any(|known| known == anchor));
            if !leads_there || !has_anchor {
                wrong.push(format!("{}: {link}", document.path));
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere: {wrong:#?}");
    Ok(())
}

#[test]
fn every_file_of_the_project_that_is_named_is_there() -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for document in Document::all()? {
        for code in document.code_spans() {
            let is_ours = CODE.iter().chain(&["docs"]).any(|folder| code.starts_with(&format!("{folder}/")));
            if is_ours && !code.contains([' ', '*', '…']) && !workspace().join(&code).exists() {
                missing.push(format!("{}: {code}", document.path));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    Ok(())
}

#[test]
fn the_table_of_events_is_the_catalogue() -> anyhow::Result<()> {
    let document = Document::read("docs/events.md")?;
    let rows: Vec<_> = document.section("All events")?.rows().iter().map(|row| row.join(" | ")).collect();
    let default = Event::default_selection();
    let expected: Vec<_> = Event::catalogue()
        .map(|event| {
            let wanted = if default.contains(&event) { "yes" } else { "no" };
            let [resource_type, action] = [event.resource_type(), event.action()].map(Option::unwrap_or_default);
            format!("`{event}` | `{resource_type}` | `{action}` | {wanted}")
        })
        .collect();
    assert_eq!(rows, expected, "the table of docs/events.md is to be\n| {} |\n", expected.join(" |\n| "));
    Ok(())
}

#[test]
fn what_a_fifo_topic_takes_is_said_in_one_place() -> anyhow::Result<()> {
    let mut texts =
        vec![("infra/template.yaml".to_owned(), fs::read_to_string(workspace().join("infra/template.yaml"))?)];
    for document in Document::all()? {
        let sections = document.sections.iter().map(|section| section.text.as_str());
        texts.push((document.path.clone(), sections.collect::<Vec<_>>().join("\n")));
    }
    let mut said = Vec::new();
    for (path, text) in texts {
        // A row of a table, a paragraph, or a parameter of the template.
        for part in text.split("\n\n").flat_map(|part| part.split("\n| ")).flat_map(|part| part.split("    Type: ")) {
            let words = part.split_whitespace().collect::<Vec<_>>().join(" ");
            if words.contains("FIFO topic") && words.contains("a second") {
                said.push(path.clone());
            }
        }
    }
    assert_eq!(said, ["docs/capacity-and-cost.md"]);
    Ok(())
}

#[test]
fn the_values_to_filter_by_are_those_of_the_catalogue() -> anyhow::Result<()> {
    let document = Document::read("README.md")?;
    let rows = document.section("Event format")?.rows();
    for (attribute, value) in
        [("`resource_type`", Event::resource_type as fn(&Event) -> Option<&'static str>), ("`action`", Event::action)]
    {
        let row = rows.iter().find(|row| row[0] == attribute).with_context(|| format!("no row {attribute}"))?;
        let documented: BTreeSet<_> = row[1].split('`').skip(1).step_by(2).collect();
        assert_eq!(documented, Event::catalogue().filter_map(|event| value(&event)).collect(), "{attribute}");
    }
    Ok(())
}

#[test]
fn the_event_that_is_shown_is_what_is_published() -> anyhow::Result<()> {
    let readme = Document::read("README.md")?;
    let block = readme.section("Event format")?.blocks.first().context("no event")?;
    let mut shown: Value = serde_json::from_str(&block.text)?;

    let (keyring, root) = (Keyring::of([7; KEY_BYTES]), "https://receiver.example");
    let registration = Registration { site: "local".parse()?, event: "WorkbookCreated".parse()? };
    let url = registration.signed_url(&ReceiverUrl::parse(root).context("no address")?, &keyring);
    let claim = url.expose().strip_prefix(root).and_then(Claim::parse).context("no claim")?;
    let verified = claim.verify(&keyring).context("another signature")?;
    let body = fs::read(workspace().join("tests/payloads/workbook-created-2019.json"))?;
    let delivery = Delivery::read(&verified, &body);
    let mut published: Value = serde_json::from_str(&delivery.message(delivery.id("request"))?.body)?;

    let [shown_data, data] = [&mut shown, &mut published].map(|event| event["data"].take());
    assert_eq!(shown, published);
    for (member, value) in shown_data.as_object().context("no data")?.iter().filter(|(member, _)| *member != "…") {
        assert_eq!(data[member], *value, "{member}");
    }
    Ok(())
}

#[test]
fn the_site_entry_that_is_shown_is_one() -> anyhow::Result<()> {
    let readme = Document::read("README.md")?;
    let mut blocks = readme.section("Add a site")?.blocks.iter().filter(|block| block.language == "json");
    let entry = SiteEntry::parse("/tableau-fanout/sites/marketing", &blocks.next().context("no entry")?.text);
    assert!(entry.is_ok(), "{entry:?}");
    Ok(())
}

/// Every kind of problem. The derived code, which cannot forget one, names them when it is given another.
fn kinds_of_problem() -> anyhow::Result<Vec<ProblemKind>> {
    let refused = serde_json::from_str::<ProblemKind>(r#""none of them""#).err().context("it is a kind")?.to_string();
    let (_, names) = refused.split_once("expected one of ").context("no names")?;
    let names = names.split('`').skip(1).step_by(2);
    names.map(|name| Ok(serde_json::from_str(&format!("{name:?}"))?)).collect()
}

#[test]
fn every_problem_that_causes_an_alert_is_documented_and_no_other() -> anyhow::Result<()> {
    let document = Document::read("docs/operations.md")?;
    let rows = document.section("Alerts about sites")?.rows();
    let explained: Vec<_> = rows.iter().map(|row| row[0].as_str()).collect();
    let headlines: Vec<_> = kinds_of_problem()?.into_iter().map(ProblemKind::headline).collect();
    assert_eq!(explained, headlines, "the first column, in the order in which a site run finds them");
    Ok(())
}
