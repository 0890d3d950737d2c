//! Selection of events.

use clap::Args;
use shared::{alerts::text::plain, events::catalogue::Event, registration::site_name::SiteName};

use crate::{
    aws::shell_quoted,
    events::record::{Outcome, Record},
};

/// Options that select by site, event and resource. Those that are not given select all.
#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// A site, by your name for it. Repeat it for several.
    #[arg(long = "site", value_name = "NAME")]
    pub sites: Vec<SiteName>,
    /// An event, such as WorkbookRefreshFailed, in either case. Repeat it for several.
    #[arg(long = "event", value_name = "EVENT")]
    pub events: Vec<Event>,
    /// A part of the resource's name, in either case, or its identifier.
    #[arg(long, value_name = "TEXT")]
    pub resource: Option<String>,
}

/// Options that select events of the logs.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// The site, the event and the resource.
    #[command(flatten)]
    pub selection: Selection,
    /// Only events with this outcome.
    #[arg(long)]
    pub outcome: Option<Outcome>,
}

impl Selection {
    /// Whether it selects an event, or an alert, which has no event here. The names of events do not apply to alerts.
    pub fn selects(&self, site: &str, event: Option<&str>, resource_name: &str, resource_id: &str) -> bool {
        let Self { sites, events, resource } = self;
        let has_event = |name: &str| events.iter().any(|event| event.as_str().eq_ignore_ascii_case(name));
        let is_named =
            |wanted: &String| resource_id == wanted || resource_name.to_lowercase().contains(&wanted.to_lowercase());
        (sites.is_empty() || sites.iter().any(|wanted| wanted.as_str() == site))
            && (events.is_empty() || event.is_none_or(has_event))
            && resource.as_ref().is_none_or(is_named)
    }
}

impl Filter {
    /// Whether it selects an event.
    pub fn selects(&self, record: &Record) -> bool {
        let Self { selection, outcome } = self;
        let Record { site, event, resource_name, resource_id, .. } = record;
        let [name, id] = [resource_name, resource_id].map(|text| text.as_deref().unwrap_or_default());
        selection.selects(site, Some(event), name, id) && outcome.is_none_or(|outcome| outcome == record.outcome)
    }

    /// Returns what it selects, as options of the command, with a space before each.
    pub fn options(&self) -> String {
        let Self { selection: Selection { sites, events, resource }, outcome } = self;
        let sites = sites.iter().map(|site| ("site", site.to_string()));
        let events = events.iter().map(|event| ("event", event.to_string()));
        let outcome = outcome.iter().map(|outcome| ("outcome", outcome.name()));
        let resource = resource.iter().map(|resource| ("resource", shell_quoted(&plain(resource))));
        let options = sites.chain(events).chain(outcome).chain(resource);
        options.map(|(name, value)| format!(" --{name} {value}")).collect()
    }
}
