//! The README's picture of alerts, `docs/alert.svg`, drawn from the messages that the functions publish.

use std::{env, fs};

use anyhow::{Context, ensure};
use documents::workspace;
use serde_json::Value;
use shared::{
    alerts::{message::AlertMessage, refresh_alert::explained_alerts, selection::DeliveryAlerts},
    events::delivery::Delivery,
    refreshes::{
        context::{FailureContext, Owner, Project, RefreshTask, ResourceContext},
        explanation::Explanation,
        failing::FailingResources,
        job::{Refresh, RefreshOutcome, RefreshedKind, RefreshedResource},
        notes::Notes,
    },
};
use time::{Duration, macros::datetime};

use crate::verified;

/// The picture.
const PICTURE: &str = "docs/alert.svg";

/// Variable with which the test writes the picture.
const UPDATE: &str = "UPDATE_PICTURE";

/// Identifier of the workbook. It puts both cards into one thread.
const WORKBOOK: &str = "5998aaaf-9d94-4bb3-9d95-4b0a4c1d3f7a";

/// The most characters of a line. Fonts differ in width, so this leaves room.
const MAX_LINE_CHARACTERS: usize = 88;

/// Pixels from one line of text to the next, and of the card around it.
pub(crate) const LINE_HEIGHT: usize = 20;

pub(crate) const WIDTH: usize = 720;

pub(crate) const PADDING: usize = 16;

/// Returns the pictured failure with its reason, which `docs/events.md` shows as an event.
pub(crate) fn explanation() -> anyhow::Result<Explanation> {
    let ended_at = datetime!(2026-05-21 08:04:07 UTC);
    let refresh = Refresh {
        job_id: "1f9b0e5e-7f0c-4e0e-8a53-7d6b4c3a2f10".to_owned(),
        resource: RefreshedResource {
            kind: RefreshedKind::Workbook,
            luid: WORKBOOK.to_owned(),
            name: Some("Regional Sales".to_owned()),
        },
        started_at: Some(ended_at - Duration::seconds(247)),
        ended_at,
        outcome: RefreshOutcome::Failed,
        notes: Notes::redacted("[Microsoft][ODBC Driver 17 for SQL Server] Login failed for user 'etl'."),
    };
    let url = |path: &str| format!("https://10ax.online.tableau.com/#/site/marketing/{path}").parse();
    let context = FailureContext {
        resource: ResourceContext {
            webpage_url: Some(url("workbooks/1734/views")?),
            project: Some(Project { id: "77".to_owned(), name: "Finance".to_owned() }),
            tags: vec!["daily".to_owned()],
            ..ResourceContext::default()
        },
        owner: Some(Owner { id: "9f".to_owned(), name: Some("Grace Hopper".to_owned()), email: None }),
        task: RefreshTask::new(Some(ended_at + Duration::DAY), Some(4), None),
        history_url: Some(url("tasks/extractRefreshes")?),
    };
    let mut explanation = Explanation::new(refresh, context, &FailingResources::default());
    explanation.in_a_row.failures = 4;
    explanation.in_a_row.since.0 -= Duration::days(3);
    Ok(explanation)
}

/// Returns the card of the failure, and that of its reason.
fn cards() -> anyhow::Result<[Value; 2]> {
    let verified = verified("marketing", "WorkbookRefreshFailed")?;
    let body = format!(
        r#"{{"event_type":"WorkbookRefreshFailed","resource_name":"Regional Sales","resource_luid":"{WORKBOOK}",
             "created_at":"2026-05-21T08:04:07Z"}}"#
    );
    let delivery = Delivery::read(&verified, body.as_bytes());
    let alerts = DeliveryAlerts { reason_follows: true, ..DeliveryAlerts::default() };
    let failed = AlertMessage::of_delivery(&delivery, delivery.id(""), &alerts).context("no alert")?;
    let explanation = explanation()?;
    let explained = explained_alerts(&[(&delivery.registration().site, &explanation)]).pop().context("no reason")?;
    let cards = [failed, explained].map(|AlertMessage { body, .. }| {
        let texts: Value = serde_json::from_str(&body)?;
        anyhow::Ok(serde_json::from_str(texts["https"].as_str().context("no card")?)?)
    });
    let [failed, explained] = cards;
    Ok([failed?, explained?])
}

/// Breaks a text into lines. A code span keeps its marks, on each line that it reaches.
pub(crate) fn lines(text: &str) -> Vec<String> {
    let (mut lines, mut line, mut is_code) = (Vec::new(), String::new(), false);
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + word.chars().count() >= MAX_LINE_CHARACTERS {
            if is_code {
                line.push('`');
            }
            lines.push(std::mem::replace(&mut line, if is_code { "`".to_owned() } else { String::new() }));
        } else if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        is_code ^= word.matches('`').count() % 2 == 1;
    }
    lines.push(line);
    lines
}

/// Formats a line of Markdown as text of an SVG.
pub(crate) fn line(markdown: &str, x: usize, y: usize, class: &str) -> String {
    let escaped = markdown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let spans = escaped.split('`').enumerate().filter(|(_, span)| !span.is_empty());
    let spans: String = spans
        .map(
            |(index, span)| {
                if index % 2 == 1 { format!("<tspan class=\"code\">{span}</tspan>") } else { span.to_owned() }
            },
        )
        .collect();
    format!("  <text class=\"{class}\" x=\"{x}\" y=\"{y}\" xml:space=\"preserve\">{spans}</text>\n")
}

/// Draws a card at a height, and returns the height below it.
fn draw_card(card: &Value, top: usize, picture: &mut String) -> anyhow::Result<usize> {
    let content = &card["content"];
    let text = |member: &str| content[member].as_str().with_context(|| format!("no {member}: {card}"));
    let list = |member: &str| content[member].as_array().into_iter().flatten().filter_map(Value::as_str);
    let keywords: Vec<_> = list("keywords").collect();
    let mut texts = vec![("title", text("title")?.to_owned())];
    texts.extend(text("description")?.lines().flat_map(lines).map(|line| ("text", line)));
    texts.push(("heading", "Next steps".to_owned()));
    let indented = |(number, line)| if number == 0 { line } else { format!("   {line}") };
    let steps = list("nextSteps").flat_map(|step| lines(&format!("• {step}")).into_iter().enumerate().map(indented));
    texts.extend(steps.map(|line| ("text", line)));
    texts.push(("keywords", keywords.join(" · ")));

    let (mut y, mut drawn) = (top + PADDING / 2, String::new());
    for (class, text) in &texts {
        y += LINE_HEIGHT + if ["heading", "keywords"].contains(class) { PADDING / 2 } else { 0 };
        drawn.push_str(&line(text, 2 * PADDING, y, class));
    }
    let bottom = y + PADDING;
    let (height, width) = (bottom - top, WIDTH - 2);
    let (bar_top, bar_height) = (top + PADDING, height - 2 * PADDING);
    picture.push_str(&format!(
        "  <rect class=\"card\" x=\"1\" y=\"{top}\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>\n  \
         <rect class=\"bar\" x=\"{PADDING}\" y=\"{bar_top}\" width=\"4\" height=\"{bar_height}\" rx=\"2\"/>\n{drawn}"
    ));
    Ok(bottom)
}

fn draw(cards: &[Value]) -> anyhow::Result<String> {
    let (mut drawn, mut top) = (String::new(), 1);
    for card in cards {
        top = draw_card(card, top, &mut drawn)? + PADDING / 2;
    }
    let height = top - PADDING / 2 + 1;
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\">\n  \
         <title>Alerts about a failed refresh, as cards</title>\n  \
         <style>\n    \
         .card {{ fill: #ffffff; stroke: #d0d7de; }}\n    \
         .bar {{ fill: #cf222e; }}\n    \
         text {{ font-family: -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; font-size: 14px; fill: #1f2328; }}\n    \
         .title {{ font-size: 15px; font-weight: 700; }}\n    \
         .heading {{ font-weight: 700; }}\n    \
         .keywords {{ font-size: 12px; fill: #656d76; }}\n    \
         .code {{ font-family: ui-monospace, Consolas, 'Liberation Mono', monospace; font-size: 12px; fill: #9a1c4b; }}\n  \
         </style>\n{drawn}</svg>\n"
    ))
}

/// Checks that a picture is as drawn, or writes it if the variable is set.
pub(crate) fn check(picture: &str, drawn: &str) -> anyhow::Result<()> {
    let path = workspace().join(picture);
    if env::var_os(UPDATE).is_some() {
        return Ok(fs::write(path, drawn)?);
    }
    let shown = fs::read_to_string(path).with_context(|| format!("cannot read {picture}"))?;
    ensure!(
        shown == drawn,
        "{picture} shows something else. Fix: run `{UPDATE}=1 cargo test --workspace --test it picture`, and look at it"
    );
    Ok(())
}

#[test]
fn the_pictured_alerts_are_the_published_ones() -> anyhow::Result<()> {
    let cards = cards()?;
    ensure!(cards[0]["metadata"]["threadId"] == cards[1]["metadata"]["threadId"], "two threads: {cards:?}");
    check(PICTURE, &draw(&cards)?)
}
