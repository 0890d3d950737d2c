//! Selection of the events that are alerts as well.

use std::collections::BTreeSet;

use crate::events::catalogue::{Event, InvalidEvent};

/// The default selection: failed refreshes.
const DEFAULT: [&str; 2] = ["DatasourceRefreshFailed", "WorkbookRefreshFailed"];

/// Events that are alerts as well.
///
/// ```
/// use shared::{alerts::selection::AlertEvents, events::catalogue::Event};
///
/// let selected = AlertEvents::default();
/// assert!(selected.contains(&"WorkbookRefreshFailed".parse()?));
/// assert!(!selected.contains(&"WorkbookCreated".parse()?));
///
/// let selected = AlertEvents::parse("WorkbookRefreshFailed,ViewDeletd")?;
/// assert_eq!(selected.unknown().map(Event::as_str).collect::<Vec<_>>(), ["ViewDeletd"]);
/// # Ok::<_, shared::events::catalogue::InvalidEvent>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlertEvents {
    /// Every event, also an unknown one.
    All,
    /// These.
    These(BTreeSet<Event>),
}

impl AlertEvents {
    /// Reads a variable: `all` or `none` in any case, or names separated by commas.
    ///
    /// # Errors
    ///
    /// An item that is empty or not an event name.
    pub fn parse(text: &str) -> Result<Self, InvalidEvent> {
        match text.trim() {
            all if all.eq_ignore_ascii_case("all") => Ok(Self::All),
            none if none.eq_ignore_ascii_case("none") => Ok(Self::These(BTreeSet::new())),
            names => Event::parse_list(names).map(Self::These),
        }
    }

    /// Whether the event is selected.
    pub fn contains(&self, event: &Event) -> bool {
        match self {
            Self::All => true,
            Self::These(events) => events.contains(event),
        }
    }

    /// Returns the selected events that this release does not know, which may be misspelt.
    pub fn unknown(&self) -> impl Iterator<Item = &Event> {
        let events = match self {
            Self::All => None,
            Self::These(events) => Some(events),
        };
        events.into_iter().flatten().filter(|event| !event.is_known())
    }
}

impl Default for AlertEvents {
    fn default() -> Self {
        Self::These(DEFAULT.iter().filter_map(|name| name.parse().ok()).collect())
    }
}

/// The alerts about deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryAlerts {
    /// The events that have an alert.
    pub events: AlertEvents,
    /// Whether the reconciler sends another alert with the reason of a failed refresh.
    pub reason_follows: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_refreshes_are_selected_by_default() {
        let event = |name: &str| name.parse::<Event>().expect("an event");
        let default = AlertEvents::default();
        assert!(default.contains(&event("DatasourceRefreshFailed")) && !default.contains(&event("WorkbookCreated")));
        for all in ["all", " All", "ALL"] {
            assert_eq!(AlertEvents::parse(all), Ok(AlertEvents::All), "{all:?}");
        }
        assert!(AlertEvents::All.contains(&event("FlowRunFailed")));
        for none in ["none", "None ", "NONE"] {
            assert_eq!(AlertEvents::parse(none), Ok(AlertEvents::These(BTreeSet::new())), "{none:?}");
        }
        assert!(AlertEvents::parse("ViewDeleted").is_ok_and(|events| events.contains(&event("ViewDeleted"))));
        assert!(AlertEvents::parse("View-Deleted").is_err());
    }
}
