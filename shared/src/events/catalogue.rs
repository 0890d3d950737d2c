//! Tableau's webhook events: names, resource types, actions and older element names.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Name, resource type and action of every event Tableau documents.
///
/// Source: "Trigger events" of Tableau's webhooks documentation and the REST API's XSD. Other names are published as well,
/// without `resource_type` and `action`.
const CATALOGUE: [(&str, &str, &str); 22] = [
    ("AdminDemoted", "user", "demoted"),
    ("AdminPromoted", "user", "promoted"),
    ("DatasourceCreated", "datasource", "created"),
    ("DatasourceDeleted", "datasource", "deleted"),
    ("DatasourceRefreshFailed", "datasource", "refresh-failed"),
    ("DatasourceRefreshStarted", "datasource", "refresh-started"),
    ("DatasourceRefreshSucceeded", "datasource", "refresh-succeeded"),
    ("DatasourceUpdated", "datasource", "updated"),
    ("LabelCreated", "label", "created"),
    ("LabelDeleted", "label", "deleted"),
    ("LabelUpdated", "label", "updated"),
    ("SiteCreated", "site", "created"),
    ("SiteDeleted", "site", "deleted"),
    ("SiteUpdated", "site", "updated"),
    ("UserDeleted", "user", "deleted"),
    ("ViewDeleted", "view", "deleted"),
    ("WorkbookCreated", "workbook", "created"),
    ("WorkbookDeleted", "workbook", "deleted"),
    ("WorkbookRefreshFailed", "workbook", "refresh-failed"),
    ("WorkbookRefreshStarted", "workbook", "refresh-started"),
    ("WorkbookRefreshSucceeded", "workbook", "refresh-succeeded"),
    ("WorkbookUpdated", "workbook", "updated"),
];

/// `webhook-source` elements that do not follow from the event's name, with their events.
///
/// Tableau's documentation and XSD disagree on `LabelDeleted`. This spelling is written, both are read.
const IRREGULAR_SOURCES: [(&str, &str); 3] = [
    ("webhook-event-user-promoted-admin", "AdminPromoted"),
    ("webhook-event-user-demoted-admin", "AdminDemoted"),
    ("webhook-source-event-label-LabelDeleted", "LabelDeleted"),
];

const REGULAR_SOURCE_PREFIX: &str = "webhook-source-event-";

/// Name of a Tableau webhook event, such as `DatasourceRefreshFailed`: one or more ASCII letters.
///
/// ```
/// use shared::events::catalogue::Event;
///
/// let event: Event = "WorkbookRefreshFailed".parse()?;
/// assert_eq!((event.resource_type(), event.action()), (Some("workbook"), Some("refresh-failed")));
///
/// // An event that the catalogue lacks is published as well.
/// let unknown: Event = "FlowRunFailed".parse()?;
/// assert_eq!((unknown.is_known(), unknown.resource_type()), (false, None));
/// # Ok::<_, shared::events::catalogue::InvalidEvent>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Event(String);

/// The text is not an event name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("an event name consists of letters only, such as WorkbookCreated")]
pub struct InvalidEvent;

impl Event {
    /// Returns every event Tableau documents, in alphabetical order.
    pub fn catalogue() -> impl Iterator<Item = Self> {
        CATALOGUE.iter().map(|(name, ..)| Self((*name).to_owned()))
    }

    /// Returns the default events of a site: the catalogue without the events about sites. Those concern server
    /// administrators, and Tableau has refused webhooks for them.
    pub fn default_selection() -> BTreeSet<Self> {
        Self::catalogue().filter(|event| event.resource_type() != Some("site")).collect()
    }

    /// Reads a list of events as in a variable: `all` in any case, or names separated by commas.
    ///
    /// # Errors
    ///
    /// An item that is empty or not an event name.
    pub fn parse_list(text: &str) -> Result<BTreeSet<Self>, InvalidEvent> {
        if text.trim().eq_ignore_ascii_case("all") {
            return Ok(Self::catalogue().collect());
        }
        text.split(',').map(|name| name.trim().parse()).collect()
    }

    /// Returns the name as Tableau writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the catalogue has the event.
    pub fn is_known(&self) -> bool {
        self.entry().is_some()
    }

    /// Returns the resource type: `datasource`, `workbook`, `view`, `site`, `user` or `label`.
    ///
    /// It follows from the name, not from the payload's `resource`, which is `EXTRACTS` for refreshes.
    pub fn resource_type(&self) -> Option<&'static str> {
        self.entry().map(|(_, resource_type, _)| resource_type)
    }

    /// Returns the action: `created`, `updated`, `deleted`, `refresh-started`, `refresh-succeeded`, `refresh-failed`,
    /// `promoted` or `demoted`.
    pub fn action(&self) -> Option<&'static str> {
        self.entry().map(|(_, _, action)| action)
    }

    /// Reads the older `webhook-source` element name, `None` if it is not one.
    pub fn from_source_element(element: &str) -> Option<Self> {
        if let Some((_, name)) = IRREGULAR_SOURCES.iter().find(|(irregular, _)| *irregular == element) {
            return Some(Self((*name).to_owned()));
        }
        let words = element.strip_prefix(REGULAR_SOURCE_PREFIX)?.split('-');
        let name: String = words.flat_map(capitalised).collect();
        name.parse().ok()
    }

    /// Returns the older `webhook-source` element name of the event.
    pub fn source_element(&self) -> String {
        if let Some((element, _)) = IRREGULAR_SOURCES.iter().find(|(_, name)| *name == self.0) {
            return (*element).to_owned();
        }
        let mut element = REGULAR_SOURCE_PREFIX.to_owned();
        for (position, letter) in self.0.char_indices() {
            if letter.is_ascii_uppercase() && position > 0 {
                element.push('-');
            }
            element.push(letter.to_ascii_lowercase());
        }
        element
    }

    fn entry(&self) -> Option<(&'static str, &'static str, &'static str)> {
        CATALOGUE.iter().copied().find(|(name, ..)| *name == self.0)
    }
}

fn capitalised(word: &str) -> impl Iterator<Item = char> {
    word.char_indices().map(|(position, letter)| if position == 0 { letter.to_ascii_uppercase() } else { letter })
}

impl FromStr for Event {
    type Err = InvalidEvent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(InvalidEvent);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Event {
    type Error = InvalidEvent;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_event_is_known() {
        assert_eq!(Event::catalogue().count(), CATALOGUE.len());
        assert!(Event::catalogue().all(|event| event.is_known()));
    }

    #[test]
    fn the_catalogue_is_sorted() {
        assert!(Event::catalogue().is_sorted());
    }

    #[test]
    fn every_event_is_read_from_its_source_element() {
        for event in Event::catalogue() {
            assert_eq!(Event::from_source_element(&event.source_element()), Some(event));
        }
    }

    #[test]
    fn the_documented_source_elements_are_read() {
        for (element, name) in [
            ("webhook-source-event-datasource-refresh-started", "DatasourceRefreshStarted"),
            ("webhook-source-event-workbook-created", "WorkbookCreated"),
            ("webhook-source-event-view-deleted", "ViewDeleted"),
            ("webhook-source-event-label-LabelDeleted", "LabelDeleted"),
            ("webhook-source-event-label-deleted", "LabelDeleted"),
            ("webhook-event-user-promoted-admin", "AdminPromoted"),
            ("webhook-event-user-demoted-admin", "AdminDemoted"),
            ("webhook-source-event-flow-run-failed", "FlowRunFailed"),
        ] {
            assert_eq!(Event::from_source_element(element), name.parse().ok(), "{element}");
        }
        assert_eq!(Event::from_source_element("webhook-destination"), None);
        assert_eq!(Event::from_source_element("webhook-source-event-"), None);
    }

    #[test]
    fn an_unknown_event_has_no_type_and_action() -> Result<(), InvalidEvent> {
        let event: Event = "FlowRunFailed".parse()?;
        assert_eq!((event.is_known(), event.resource_type(), event.action()), (false, None, None));
        Ok(())
    }

    #[test]
    fn a_list_may_have_spaces_but_no_invalid_names() -> Result<(), InvalidEvent> {
        let names: Vec<_> = Event::parse_list("WorkbookCreated, ViewDeleted")?.into_iter().collect();
        assert_eq!(names.iter().map(Event::as_str).collect::<Vec<_>>(), ["ViewDeleted", "WorkbookCreated"]);
        for all in ["all", " All ", "ALL"] {
            assert_eq!(Event::parse_list(all)?.len(), CATALOGUE.len(), "{all:?}");
        }
        for bad in ["", "WorkbookCreated,", "Workbook-Created", "Wörkbook", "a b"] {
            assert_eq!(Event::parse_list(bad), Err(InvalidEvent), "{bad:?}");
        }
        Ok(())
    }

    #[test]
    fn the_default_selection_leaves_out_the_events_about_sites() {
        let selection = Event::default_selection();
        assert_eq!(selection.len(), CATALOGUE.len() - 3);
        assert!(selection.iter().all(|event| !event.as_str().starts_with("Site")));
    }
}
