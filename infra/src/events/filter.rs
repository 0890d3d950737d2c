//! Selection of events.

use shared::alerts::text::plain;

use crate::{
    aws::shell_quoted,
    events::record::{Outcome, Record},
};

/// The events that a reader wants to see.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Name of the site.
    pub site: Option<String>,
    /// Name of the event.
    pub event: Option<String>,
    /// The result.
    pub outcome: Option<Outcome>,
    /// A part of the resource's name, or its identifier.
    pub resource: Option<String>,
}

impl Filter {
    /// Whether it selects an event.
    pub fn selects(&self, record: &Record) -> bool {
        let Self { site, event, outcome, resource } = self;
        let is = |wanted: &Option<String>, text: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.to_lowercase() == text.to_lowercase())
        };
        is(site, &record.site)
            && is(event, &record.event)
            && outcome.is_none_or(|outcome| outcome == record.outcome)
            && resource.as_ref().is_none_or(|resource| is_about(record, resource))
    }

    /// Returns what it selects, as options of the command, with a space before each.
    pub fn options(&self) -> String {
        let Self { site, event, outcome, resource } = self;
        let outcome = outcome.map(Outcome::name);
        let options = [("site", site), ("event", event), ("outcome", &outcome), ("resource", resource)];
        let options = options.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        options.map(|(name, value)| format!(" --{name} {}", shell_quoted(&plain(value)))).collect()
    }
}

fn is_about(record: &Record, resource: &str) -> bool {
    let name = record.resource_name.as_deref().unwrap_or_default().to_lowercase();
    name.contains(&resource.to_lowercase()) || record.resource_id.as_deref() == Some(resource)
}
