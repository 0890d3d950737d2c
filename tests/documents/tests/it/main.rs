//! Checks of the documents against the code and against each other, and of their words.

mod picture;
mod target_picture;
mod words;

mod structure;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::Context;
use delivery::render::render;
use documents::{Document, Walk, exemptions::EXEMPTIONS, workspace};
use picture::explanation;
use serde_json::{Value, json};
use shared::{
    alerts::refresh_alert::explained_alerts,
    events::{catalogue::Event, cloud_event::EventMessage, delivery::Delivery},
    problems::ProblemKind,
    refreshes::{
        explanation::Explanation,
        job::{Refresh, RefreshOutcome},
        resolution::FailureEnd,
    },
    registration::{
        claim::{Claim, Registration, Verified},
        keyring::{KEY_BYTES, Keyring},
        signed_url::ReceiverUrl,
    },
    sites::entry::SiteEntry,
    targets::{
        entry::{Preset, TargetEntry},
        message::TargetMessage,
    },
};
use time::{Duration, OffsetDateTime};

/// Folders with tests.
const CODE: [&str; 4] = ["functions", "infra", "shared", "tests"];

/// Collects the Rust code of a folder without white space, since a line may break anywhere.
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
fn a_test_runs_every_command_as_printed_unless_it_is_exempt() -> anyhow::Result<()> {
    let mut tests = String::new();
    CODE.iter().try_for_each(|folder| code(&workspace().join(folder), &mut tests))?;
    let walk = Walk::read()?;
    let (mut untested, mut used) = (Vec::new(), BTreeSet::new());
    for document in Document::all()? {
        for section in &document.sections {
            for block in section.blocks.iter().filter(|block| block.is_commands()) {
                let exemption = EXEMPTIONS.iter().position(|exemption| exemption.is_about(&document, section, block));
                used.extend(exemption);
                let taken = squeezed(&format!("commands({:?}, {:?})", document.path, section.heading));
                if exemption.is_none() && !walk.takes(&document, section, block) && !tests.contains(&taken) {
                    untested.push(format!("{}, {:?}:\n{}", document.path, section.heading, block.text));
                }
            }
        }
    }
    assert!(
        untested.is_empty(),
        "No test runs these commands. Take them from the document in a test, which runs all that\n\
         documents::commands(\"<document>\", \"<heading>\") returns, as infra/tests/it/reading.rs does; or, if they cannot be\n\
         run here, list them with the reason in tests/documents/src/exemptions.rs.\n\n{}",
        untested.join("\n")
    );
    let unused: Vec<_> = EXEMPTIONS.iter().enumerate().filter(|(index, _)| !used.contains(index)).collect();
    assert!(unused.is_empty(), "no document has these blocks: remove them from exemptions.rs: {unused:#?}");
    Ok(())
}

#[test]
fn every_link_within_the_documents_has_a_target() -> anyhow::Result<()> {
    let documents = Document::all()?;
    let anchors: BTreeMap<_, _> =
        documents.iter().map(|document| (document.path.as_str(), document.anchors())).collect();
    let mut wrong = Vec::new();
    for document in &documents {
        for link in document.links().into_iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = document.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            // Relative to the workspace, as the documents' paths are.
            let mut target: Vec<_> = folder.split('/').filter(|part| !part.is_empty() && !path.is_empty()).collect();
            for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
                if part == ".." {
                    target.pop();
                } else {
                    target.push(part);
                }
            }
            let target = if path.is_empty() { document.path.clone() } else { target.join("/") };
            let is_there = workspace().join(&target).exists();
            let has_anchor = anchor.is_empty()
                || anchors.get(target.as_str()).is_some_and(|anchors| anchors.iter().any(|known| known == anchor));
            if !is_there || !has_anchor {
                wrong.push(format!("{}: {link}", document.path));
            }
        }
    }
    assert!(wrong.is_empty(), "links without a target: {wrong:#?}");
    Ok(())
}

#[test]
fn every_file_that_a_document_names_exists() -> anyhow::Result<()> {
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
fn the_table_of_events_matches_the_catalogue() -> anyhow::Result<()> {
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
fn one_document_states_the_limits_of_a_fifo_topic() -> anyhow::Result<()> {
    let mut texts =
        vec![("infra/template.yaml".to_owned(), fs::read_to_string(workspace().join("infra/template.yaml"))?)];
    for document in Document::all()? {
        let sections = document.sections.iter().map(|section| section.text.as_str());
        texts.push((document.path.clone(), sections.collect::<Vec<_>>().join("\n")));
    }
    let mut places = Vec::new();
    for (path, text) in texts {
        // A row of a table, a paragraph, or a parameter of the template.
        for part in text.split("\n\n").flat_map(|part| part.split("\n| ")).flat_map(|part| part.split("    Type: ")) {
            let words = part.split_whitespace().collect::<Vec<_>>().join(" ");
            if words.contains("FIFO topic") && words.contains("a second") {
                places.push(path.clone());
            }
        }
    }
    assert_eq!(places, ["docs/capacity-and-cost.md"]);
    Ok(())
}

#[test]
fn the_documented_filter_values_match_the_catalogue() -> anyhow::Result<()> {
    let document = Document::read("docs/events.md")?;
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

/// Signs the URL of a registration, and verifies it as the receiver does.
fn verified(site: &str, event: &str) -> anyhow::Result<Verified> {
    let (keyring, root) = (Keyring::of([7; KEY_BYTES]), "https://receiver.example");
    let registration = Registration { site: site.parse()?, event: event.parse()? };
    let url = registration.signed_url(&ReceiverUrl::parse(root).context("no address")?, &keyring);
    let claim = url.expose().strip_prefix(root).and_then(Claim::parse).context("no claim")?;
    claim.verify(&keyring).context("another signature")
}

#[test]
fn the_documented_event_is_the_published_one() -> anyhow::Result<()> {
    let events = Document::read("docs/events.md")?;
    let block = events.section("Event format")?.blocks.first().context("no event")?;
    let mut shown: Value = serde_json::from_str(&block.text)?;

    let verified = verified("local", "WorkbookCreated")?;
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

/// The site of the documented events.
const SITE_LUID: &str = "11ff7a7e-4ac9-4d99-84df-73a4138ab502";

/// Compares the event in a section of `docs/events.md`, and its table of members, with a published one.
fn check_event(heading: &str, published: Option<EventMessage>) -> anyhow::Result<()> {
    let events = Document::read("docs/events.md")?;
    let section = events.section(heading)?;
    let shown: Value = serde_json::from_str(&section.blocks.first().context("no event")?.text)?;
    let published: Value = serde_json::from_str(&published.context("nothing is published")?.body)?;
    assert_eq!(shown, published, "the event of docs/events.md is to be\n{published:#}\n");
    let rows = section.rows();
    let documented: BTreeSet<_> = rows.iter().flat_map(|row| row[0].split('`').skip(1).step_by(2)).collect();
    let members = published["data"].as_object().context("no data")?.keys().map(String::as_str).collect();
    assert_eq!(documented, members, "the table of docs/events.md has a row for each member of data");
    Ok(())
}

#[test]
fn the_documented_reason_of_a_failure_is_the_published_one() -> anyhow::Result<()> {
    check_event("Reasons of failures", explanation()?.event(&"marketing".parse()?, SITE_LUID))
}

#[test]
fn the_documented_end_of_failures_is_the_published_one() -> anyhow::Result<()> {
    let Explanation { refresh, context, in_a_row } = explanation()?;
    let success = Refresh {
        job_id: "6c1d4f0a-2b7e-4a83-9d15-0e8f7b3c2a64".to_owned(),
        ended_at: refresh.ended_at + Duration::minutes(320),
        outcome: RefreshOutcome::Succeeded,
        ..refresh
    };
    let end = FailureEnd::by_refresh(&success, in_a_row, context);
    check_event("Resolved failures", end.event(&"marketing".parse()?, SITE_LUID))
}

#[test]
fn the_documented_alert_for_programs_is_the_published_one() -> anyhow::Result<()> {
    let alerts = Document::read("docs/alerts.md")?;
    let section = alerts.section("Alerts for programs")?;
    let shown: Value = serde_json::from_str(&section.blocks.first().context("no alert")?.text)?;
    let (site, explanation) = ("marketing".parse()?, explanation()?);
    let texts: Value = serde_json::from_str(&explained_alerts(&[(&site, &explanation)])[0].body)?;
    let published: Value = serde_json::from_str(texts["sqs"].as_str().context("no text")?)?;
    assert_eq!(shown, published, "the alert of docs/alerts.md is to be\n{published:#}\n");
    let rows = section.rows();
    let documented: BTreeSet<_> = rows.iter().flat_map(|row| row[0].split('`').skip(1).step_by(2)).collect();
    assert_eq!(documented, published.as_object().context("no alert")?.keys().map(String::as_str).collect());
    Ok(())
}

#[test]
fn the_documented_site_entry_is_valid() -> anyhow::Result<()> {
    let sites = Document::read("docs/sites.md")?;
    let mut blocks = sites.section("Add a site by hand")?.blocks.iter().filter(|block| block.language == "json");
    let entry = SiteEntry::parse("/tableau-fanout/sites/marketing", &blocks.next().context("no entry")?.text);
    assert!(entry.is_ok(), "{entry:?}");
    Ok(())
}

#[test]
fn the_documented_target_entries_are_valid() -> anyhow::Result<()> {
    let templates = workspace().join("infra/examples");
    for (document, heading, template) in [
        ("docs/target-operations.md", "By hand", None),
        ("docs/custom-targets.md", "Google Apps Script", Some("apps-script-target.json.j2")),
    ] {
        let document = Document::read(document)?;
        let mut blocks = document.section(heading)?.blocks.iter().filter(|block| block.language == "json");
        let mut entry: Value = serde_json::from_str(&blocks.next().context("no entry")?.text)?;
        if let Some(template) = template {
            entry["preset"] = "custom".into();
            entry["template"] = fs::read_to_string(templates.join(template))?.into();
        }
        TargetEntry::parse(&"by-hand".parse()?, &entry.to_string())?;
    }
    Ok(())
}

#[test]
fn each_preset_has_its_place_in_the_documents() -> anyhow::Result<()> {
    let code_spans = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let presets: BTreeSet<_> = Preset::ALL.map(|preset| preset.as_str().to_owned()).into();
    let overview = Document::read("docs/targets.md")?.section("Targets outside AWS")?.rows();
    let described: BTreeSet<_> = overview.iter().flat_map(|row| code_spans(&row[0])).collect();
    let entry = Document::read("docs/target-operations.md")?.section("The entry")?.rows();
    let listed = entry.iter().find(|row| row[0] == "`preset`").context("no preset")?;
    let privacy = Document::read("docs/privacy.md")?.section("What leaves AWS")?.rows();
    let leaving: BTreeSet<_> = privacy.iter().flat_map(|row| code_spans(&row[0])).collect();
    assert_eq!((&described, &leaving), (&presets, &presets));
    assert_eq!(BTreeSet::from_iter(code_spans(&listed[1])), presets);
    let rates = &entry.iter().find(|row| row[0] == "`per_second`").context("no rate")?[2];
    for preset in [Preset::Slack, Preset::PagerDuty, Preset::Zapier] {
        let rate = format!("`{preset}` {}", preset.default_per_second());
        assert!(rates.contains(&rate), "{rate}: {rates}");
    }
    Ok(())
}

#[test]
fn the_documented_template_and_the_examples_render_an_event_and_an_alert() -> anyhow::Result<()> {
    let page = Document::read("docs/custom-targets.md")?;
    let block = page.section("Write a template")?.blocks.first().context("no template")?;
    let mut templates = vec![block.text.clone()];
    for example in fs::read_dir(workspace().join("infra/examples"))? {
        let path = example?.path();
        if path.extension().is_some_and(|extension| extension == "j2") {
            templates.push(fs::read_to_string(path)?);
        }
    }
    let (site, explanation) = ("marketing".parse()?, explanation()?);
    let event = explanation.event(&site, SITE_LUID).context("no event")?.body;
    let alert: Value = serde_json::from_str(&explained_alerts(&[(&site, &explanation)])[0].body)?;
    let alert = alert["sqs"].as_str().context("no text")?.to_owned();
    for template in templates {
        let entry = json!({ "preset": "custom", "address": "https://target.example/", "template": template });
        let entry = TargetEntry::parse(&"page".parse()?, &entry.to_string())?;
        for message in [&event, &alert] {
            let message = TargetMessage::parse(message)?;
            let rendered = render(&entry, &message, message.id(), OffsetDateTime::UNIX_EPOCH)?;
            assert!(String::from_utf8_lossy(&rendered.body).contains("Regional Sales"));
        }
    }
    Ok(())
}

/// Returns every kind of problem. The derived reader names them all when it refuses another.
fn kinds_of_problem() -> anyhow::Result<Vec<ProblemKind>> {
    let refused = serde_json::from_str::<ProblemKind>(r#""unknown""#).err().context("it is a kind")?.to_string();
    let (_, names) = refused.split_once("expected one of ").context("no names")?;
    let names = names.split('`').skip(1).step_by(2);
    names.map(|name| Ok(serde_json::from_str(&format!("{name:?}"))?)).collect()
}

#[test]
fn exactly_the_problems_that_cause_an_alert_are_documented() -> anyhow::Result<()> {
    let document = Document::read("docs/alerts.md")?;
    let rows = document.section("Alerts about sites")?.rows();
    let explained: Vec<_> = rows.iter().map(|row| row[0].as_str()).collect();
    let headlines: Vec<_> = kinds_of_problem()?.into_iter().map(ProblemKind::headline).collect();
    assert_eq!(explained, headlines, "the first column, in the order in which a site run finds them");
    Ok(())
}

#[test]
fn the_newest_version_in_the_changelog_is_the_version_of_the_workspace() -> anyhow::Result<()> {
    let changelog = Document::read("docs/changelog.md")?;
    let mut headings = changelog.sections.iter().map(|section| section.heading.as_str());
    let newest = headings.find(|heading| heading.starts_with(|first: char| first.is_ascii_digit()));
    assert_eq!(newest, Some(env!("CARGO_PKG_VERSION")));
    Ok(())
}
