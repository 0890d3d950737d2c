//! Selection of the messages that a target gets.

use std::collections::BTreeSet;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    alerts::data::{AlertData, AlertKind, Severity},
    registration::site_name::SiteName,
    settings::SettingsReader,
    targets::members,
};

/// The messages that a target gets. An empty set selects everything. A message must be in all four.
///
/// [`TargetMessage::is_selected`](crate::targets::message::TargetMessage::is_selected) has an example.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Kinds of alerts. Events have none: the filter policy of a subscription to the events topic selects them.
    pub kinds: BTreeSet<AlertKind>,
    /// Severities of alerts. Events have none.
    pub severities: BTreeSet<Severity>,
    /// Sites: that of an event, one of those of an alert.
    pub sites: BTreeSet<SiteName>,
    /// Names of projects. A message about no resource, or about one whose project is not known, is in no project.
    pub projects: BTreeSet<String>,
}

/// The member of an entry.
const MEMBER: &str = "selection";

const MEMBERS: [&str; 4] = ["kinds", "severities", "sites", "projects"];

/// The names of [`AlertKind`] and [`Severity`] in JSON.
const KINDS: &str = "refresh-failed, refresh-explained, refresh-resolved, refresh-stopped, refresh-recovered, event, \
    problem, problem-solved, test, alarm";
const SEVERITIES: &str = "info, warning, error";

impl Selection {
    /// Reads the member `selection` of an entry; everything is selected without one.
    pub(crate) fn read<L: Fn(&str) -> Option<String>>(
        entry: &Map<String, Value>,
        reader: &mut SettingsReader<L>,
    ) -> Option<Self> {
        let Some(selection) = entry.get(MEMBER) else { return Some(Self::default()) };
        let Some(members) = selection.as_object() else {
            reader.add(MEMBER, "is not valid: expected an object, or no such member");
            return None;
        };
        members::check(MEMBER, members, &MEMBERS, reader);
        let kinds = set(members, "kinds", KINDS, reader);
        let severities = set(members, "severities", SEVERITIES, reader);
        let sites = set(members, "sites", "names of sites, such as marketing", reader);
        let projects = set(members, "projects", "names of projects", reader);
        Some(Self { kinds: kinds?, severities: severities?, sites: sites?, projects: projects? })
    }

    /// Whether the selection has an event of a site.
    pub(crate) fn has_event(&self, site: &str, project: Option<&str>) -> bool {
        self.has_site([site]) && self.has_project(project)
    }

    /// Whether the selection has an alert.
    pub(crate) fn has_alert(&self, alert: &AlertData) -> bool {
        let Self { kinds, severities, .. } = self;
        let project = alert.resource.as_ref().and_then(|resource| resource.project.as_deref());
        (kinds.is_empty() || kinds.contains(&alert.kind))
            && (severities.is_empty() || severities.contains(&alert.severity))
            && self.has_site(alert.sites.iter().map(String::as_str))
            && self.has_project(project)
    }

    fn has_site<'a>(&self, sites: impl IntoIterator<Item = &'a str>) -> bool {
        let is_selected = |site: &str| self.sites.iter().any(|selected| selected.as_str() == site);
        self.sites.is_empty() || sites.into_iter().any(is_selected)
    }

    fn has_project(&self, project: Option<&str>) -> bool {
        self.projects.is_empty() || project.is_some_and(|project| self.projects.contains(project))
    }
}

/// Reads a list of the selection; the empty set if there is none.
fn set<T: DeserializeOwned + Ord, L: Fn(&str) -> Option<String>>(
    members: &Map<String, Value>,
    member: &str,
    expected: &str,
    reader: &mut SettingsReader<L>,
) -> Option<BTreeSet<T>> {
    let Some(list) = members.get(member) else { return Some(BTreeSet::new()) };
    let set = BTreeSet::deserialize(list).ok();
    if set.is_none() {
        reader.add(&format!("{MEMBER}.{member}"), format_args!("is not valid: expected a list of {expected}"));
    }
    set
}
