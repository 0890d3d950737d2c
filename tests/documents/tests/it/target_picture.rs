//! The picture of messages for targets, `docs/targets.svg`, drawn from the message that the presets render.

use anyhow::{Context, ensure};
use delivery::render::render;
use serde_json::{Value, json};
use shared::{
    alerts::refresh_alert::explained_alerts,
    targets::{entry::TargetEntry, message::TargetMessage},
};
use time::OffsetDateTime;

use crate::picture::{LINE_HEIGHT, PADDING, WIDTH, check, explanation, line, lines};

/// The picture.
const PICTURE: &str = "docs/targets.svg";

/// Width of a character of a button, and of a fact. Fonts differ, so this leaves room.
const BUTTON_CHARACTER: usize = 9;

const FACT_CHARACTER: usize = 7;

/// Returns the message of a preset about the reason of a failure.
fn message(preset: &str) -> anyhow::Result<Value> {
    let (site, explanation) = ("marketing".parse()?, explanation()?);
    let texts: Value = serde_json::from_str(&explained_alerts(&[(&site, &explanation)])[0].body)?;
    let message = TargetMessage::parse(texts["sqs"].as_str().context("no text")?)?;
    let entry = json!({ "preset": preset, "address": "https://target.example/" }).to_string();
    let entry = TargetEntry::parse(&"picture".parse()?, &entry)?;
    Ok(serde_json::from_slice(&render(&entry, &message, message.id(), OffsetDateTime::UNIX_EPOCH)?.body)?)
}

/// A picture that grows downwards.
#[derive(Default)]
struct Drawing {
    drawn: String,
    bottom: usize,
}

impl Drawing {
    fn text(&mut self, text: &str, class: &str) {
        for text in text.lines().flat_map(lines) {
            self.bottom += LINE_HEIGHT;
            self.drawn.push_str(&line(&text, 2 * PADDING, self.bottom, class));
        }
    }

    fn gap(&mut self) {
        self.bottom += PADDING / 2;
    }

    /// Draws a frame around everything below a height.
    fn frame(&mut self, top: usize) {
        self.bottom += PADDING;
        let (height, width) = (self.bottom - top, WIDTH - 2);
        let frame =
            format!("  <rect class=\"card\" x=\"1\" y=\"{top}\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>\n");
        self.drawn.push_str(&frame);
    }

    /// Draws the blocks of a message of Slack.
    fn slack(&mut self, message: &Value) -> anyhow::Result<()> {
        let top = self.bottom + 1;
        let text =
            |block: &Value| block["text"].as_str().map(str::to_owned).with_context(|| format!("no text: {block}"));
        for block in message["blocks"].as_array().context("no blocks")? {
            self.gap();
            match block["type"].as_str() {
                Some("header") => self.text(&text(&block["text"])?, "title"),
                Some("section") if block["text"]["type"] == "mrkdwn" => {
                    let link = text(&block["text"])?;
                    let label = link.trim_end_matches('>').split('|').nth(1).context("no label")?;
                    self.text(label, "link");
                }
                Some("section") => self.text(&text(&block["text"])?, "text"),
                Some("context") => {
                    let elements = block["elements"].as_array().context("no elements")?;
                    self.bottom += LINE_HEIGHT;
                    let mut x = 2 * PADDING;
                    for fact in elements.iter().map(text) {
                        let fact = fact?;
                        self.drawn.push_str(&line(&fact, x, self.bottom, "facts"));
                        x += FACT_CHARACTER * fact.chars().count() + PADDING;
                    }
                }
                _ => anyhow::bail!("an unknown block: {block}"),
            }
        }
        self.frame(top);
        Ok(())
    }

    /// Draws a card of Teams.
    fn teams(&mut self, message: &Value) -> anyhow::Result<()> {
        let card = &message["attachments"][0]["content"];
        let top = self.bottom + PADDING / 2;
        self.bottom = top;
        let runs = |block: &Value| {
            let runs = block["inlines"].as_array().into_iter().flatten();
            runs.filter_map(|run| run["text"].as_str()).collect::<String>()
        };
        for block in card["body"].as_array().context("no body")? {
            if let Some(items) = block["items"].as_array() {
                ensure!(block["style"] == "attention", "another style: {block}");
                let (width, height) = (WIDTH - 2, LINE_HEIGHT + PADDING);
                self.drawn.push_str(&format!(
                    "  <rect class=\"attention\" x=\"1\" y=\"{top}\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>\n"
                ));
                self.bottom += PADDING / 4;
                self.text(&items.iter().map(runs).collect::<String>(), "heading");
                self.bottom = top + height;
                continue;
            }
            let is_fact = block["inlines"][0]["isSubtle"] == true;
            if !is_fact || block["spacing"] == "Medium" {
                self.gap();
            }
            self.text(&runs(block), if is_fact { "facts" } else { "text" });
        }
        self.buttons(card["actions"].as_array().context("no actions")?)?;
        self.frame(top);
        Ok(())
    }

    fn buttons(&mut self, actions: &[Value]) -> anyhow::Result<()> {
        let (top, mut x) = (self.bottom + PADDING, 2 * PADDING);
        self.bottom = top + 2 * LINE_HEIGHT - PADDING / 2;
        for action in actions {
            let title = action["title"].as_str().context("no title")?;
            let (width, height) = (BUTTON_CHARACTER * title.chars().count() + PADDING, self.bottom - top);
            self.drawn.push_str(&format!(
                "  <rect class=\"button\" x=\"{x}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" rx=\"4\"/>\n"
            ));
            self.drawn.push_str(&line(title, x + PADDING / 2 + 2, top + LINE_HEIGHT + 1, "text"));
            x += width + PADDING / 2;
        }
        Ok(())
    }

    fn finish(self) -> String {
        let Self { drawn, bottom } = self;
        let height = bottom + 1;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             role=\"img\">\n  \
             <title>A reason of a failed refresh, as a message of Slack and as a card of Teams</title>\n  \
             <style>\n    \
             svg {{ background: #ffffff; }}\n    \
             .card {{ fill: none; stroke: #d0d7de; }}\n    \
             .attention {{ fill: #fdf3f4; }}\n    \
             .button {{ fill: #ffffff; stroke: #d0d7de; }}\n    \
             text {{ font-family: -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; font-size: 14px; fill: #1f2328; }}\n    \
             .title {{ font-size: 16px; font-weight: 700; }}\n    \
             .heading {{ font-weight: 700; }}\n    \
             .link {{ fill: #1264a3; text-decoration: underline; }}\n    \
             .facts {{ font-size: 12px; fill: #656d76; }}\n  \
             </style>\n{drawn}</svg>\n"
        )
    }
}

#[test]
fn the_pictured_messages_for_targets_are_those_of_the_presets() -> anyhow::Result<()> {
    let mut drawing = Drawing::default();
    drawing.slack(&message("slack")?)?;
    drawing.teams(&message("teams")?)?;
    check(PICTURE, &drawing.finish())
}
