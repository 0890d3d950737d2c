//! Arrivals as lines of a terminal.

use time::macros::format_description;

use super::{Arrival, Event, Message, TargetMessage, Tone};
use crate::terminal::{BOLD, DIM, styled};

/// Width of the column with the kind: the longest is `target`.
const KIND_WIDTH: usize = 6;

/// Width of the column with the name of the event: the longest is `DatasourceRefreshSucceeded`.
const EVENT_WIDTH: usize = 26;

/// Width of the column with the name of the resource. Most names are shorter.
const RESOURCE_WIDTH: usize = 24;

/// Formats arrivals, a line each.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    /// Whether each line begins with its kind, since there are several.
    with_kinds: bool,
    /// Whether an event has its identifier.
    with_ids: bool,
    /// Width of the column with the site: the longest name so far.
    site_width: usize,
}

impl Lines {
    /// Lines of these columns.
    pub fn new(with_kinds: bool, with_ids: bool) -> Self {
        Self { with_kinds, with_ids, site_width: 0 }
    }

    /// Formats an arrival.
    pub fn format(&mut self, Arrival { at, message }: &Arrival) -> String {
        let line = match message {
            Message::Event(event) => self.event(event),
            Message::Alert(alert) => alert.subject.clone(),
            Message::Target(TargetMessage { target, text }) => format!("{target}  {text}"),
            Message::Other(text) => text.clone(),
        };
        let style = match message {
            Message::Alert(alert) => alert.tone().style(),
            Message::Event(_) | Message::Target(_) | Message::Other(_) => BOLD,
        };
        let kind = format!("{:KIND_WIDTH$}", message.kind());
        let kind = if self.with_kinds { format!("{}  ", styled(style, kind)) } else { String::new() };
        let time = at.format(format_description!("[hour]:[minute]:[second]")).unwrap_or_default();
        format!("{}  {kind}{line}", styled(DIM, time))
    }

    /// Formats an event: site, event, resource, identifier, and what the reconciler found out about it.
    fn event(&mut self, event: &Event) -> String {
        let (site, name) = (event.site(), event.name());
        self.site_width = self.site_width.max(site.chars().count());
        let name = styled(event.tone().style(), format!("{name:EVENT_WIDTH$}"));
        let (width, resource, mut findings) = (self.site_width, event.resource_name(), event.findings());
        // Something to look at, unless it works again.
        if let Some(page) = event.page().filter(|_| event.tone() == Tone::Bad) {
            findings.push_str(&format!(" {page}"));
        }
        let line = if self.with_ids {
            format!("{site:width$}  {name}  {resource:RESOURCE_WIDTH$}  {}{findings}", event.id())
        } else {
            format!("{site:width$}  {name}  {resource}{findings}")
        };
        line.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use console::strip_ansi_codes;
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;
    use crate::temporary_queues::Topic;

    fn event(name: &str, data: Value) -> Arrival {
        let envelope =
            json!({ "id": "9c63", "source": "/tableau/local", "type": format!("com.tableau.{name}"), "data": data });
        let message = json!({ "Body": envelope.to_string(), "Attributes": { "SentTimestamp": "1779350400499" } });
        Arrival::parse(Topic::Events, &message)
    }

    #[test]
    fn an_arrival_is_a_line_without_what_a_name_could_do_to_a_terminal() {
        let failed = event("WorkbookRefreshFailed", json!({ "resource_name": "Sales\u{1b}[2J\n\u{202e}x" }));
        assert_eq!(failed.at, datetime!(2026-05-21 08:00:00.499 UTC));
        let line = Lines::new(false, true).format(&failed);
        assert_eq!(
            strip_ansi_codes(&line),
            "08:00:00  local  WorkbookRefreshFailed       Sales [2J x               9c63"
        );
        let alert = json!({ "Subject": "it failed", "Message": "none" }).to_string();
        let other = Arrival::parse(Topic::Alerts, &json!({ "Body": alert }));
        assert!(matches!(other.message, Message::Other(_)), "{other:?}");
    }

    #[test]
    fn the_reason_of_a_failure_follows_the_columns() {
        let data = json!({
            "resource_name": "Sales", "project": { "name": "Finance" }, "notes": "Login failed.",
            "resource_url": "https://tableau.example/#/workbooks/1",
        });
        let line = Lines::new(true, false).format(&event("RefreshFailureExplained", data));
        assert!(strip_ansi_codes(&line).ends_with(
            "  event   local  RefreshFailureExplained     Sales (project Finance): Login failed. \
             https://tableau.example/#/workbooks/1"
        ));
    }
}
