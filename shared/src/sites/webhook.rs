//! Webhooks: desired and observed ones, and which of them the stack owns.

use std::{collections::BTreeSet, fmt, str::FromStr};

use thiserror::Error;

use crate::{
    events::catalogue::Event,
    registration::{
        claim::Registration,
        keyring::Keyring,
        signed_url::{ReceiverUrl, RegistrationUrl},
        site_name::SiteName,
    },
};

/// Prefix of the names of owned webhooks: the stack's name.
///
/// ```
/// use shared::sites::webhook::NamePrefix;
///
/// let prefix: NamePrefix = "tableau-fanout".parse()?;
/// assert_eq!(prefix.event_of("tableau-fanout-ViewDeleted"), Some("ViewDeleted".parse()?));
/// // These are foreign: a webhook of the stack `tableau-fanout-test`, and one with a name of its own.
/// assert_eq!(prefix.event_of("tableau-fanout-test-ViewDeleted"), None);
/// assert_eq!(prefix.event_of("Slack"), None);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePrefix(String);

/// The text is not a name prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a name prefix is a stack's name: letters, digits and hyphens, a letter first, at most 128 characters")]
pub struct InvalidNamePrefix;

impl NamePrefix {
    /// Returns the prefix: the stack's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the webhook for an event.
    pub fn name_for(&self, event: &Event) -> String {
        format!("{}-{event}", self.0)
    }

    /// Returns the event of an owned webhook of this name; `None` for a foreign webhook.
    ///
    /// The event part consists of letters only, so that the stack `fan` does not own webhooks of the stack `fan-out`.
    pub fn event_of(&self, name: &str) -> Option<Event> {
        name.strip_prefix(&self.0)?.strip_prefix('-')?.parse().ok()
    }

    /// Whether the stack may own a webhook that cannot be read: by its name, or without one by its address.
    pub fn may_own(&self, odd: &OddWebhook, receiver: &ReceiverUrl) -> bool {
        match &odd.name {
            OddName::Text(name) => self.event_of(name).is_some(),
            OddName::None => odd.url.as_ref().is_some_and(|url| receiver.path_of(url).is_some()),
            OddName::Unreadable => true,
        }
    }
}

impl FromStr for NamePrefix {
    type Err = InvalidNamePrefix;

    // CloudFormation's rules for stack names.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let valid = text.len() <= 128
            && text.starts_with(|first: char| first.is_ascii_alphabetic())
            && text.bytes().all(allowed);
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidNamePrefix) }
    }
}

impl fmt::Display for NamePrefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A webhook that a site should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredWebhook {
    /// Its name.
    pub name: String,
    /// Its event.
    pub event: Event,
    /// Its destination.
    pub url: RegistrationUrl,
}

impl DesiredWebhook {
    /// Returns the webhooks that a site should have, one for each event.
    pub fn all(
        site: &SiteName,
        events: &BTreeSet<Event>,
        prefix: &NamePrefix,
        receiver: &ReceiverUrl,
        keyring: &Keyring,
    ) -> Vec<Self> {
        let desired = events.iter().map(|event| {
            let registration = Registration { site: site.clone(), event: event.clone() };
            Self { name: prefix.name_for(event), event: event.clone(), url: registration.signed_url(receiver, keyring) }
        });
        desired.collect()
    }
}

/// A webhook as Tableau reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedWebhook {
    /// Tableau's identifier.
    pub id: String,
    /// Its name. Names on Tableau are not unique.
    pub name: String,
    /// Its event, if the answer has a readable one.
    pub event: Option<Event>,
    /// Its destination, if the answer has one.
    pub url: Option<RegistrationUrl>,
    /// Whether it is enabled. Tableau disables it after four failed attempts to deliver one event.
    pub is_enabled: bool,
    /// Tableau's reason for disabling it.
    pub status_change_reason: Option<String>,
    /// Time of its last change as Tableau wrote it, if the answer has one.
    pub updated_at: Option<String>,
}

/// A webhook in Tableau's answer that cannot be read in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OddWebhook {
    /// Its name, if it has one.
    pub name: OddName,
    /// Tableau's identifier, if the answer has one.
    pub id: Option<String>,
    /// Its destination, if the answer has one.
    pub url: Option<RegistrationUrl>,
    /// The oddity, as the end of a sentence.
    pub what: &'static str,
}

/// The name of a webhook that cannot be read in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OddName {
    /// This name.
    Text(String),
    /// No name.
    None,
    /// A name that cannot be read.
    Unreadable,
}

impl OddWebhook {
    /// Returns a title for reports.
    pub fn title(&self) -> String {
        let id = self.id.as_ref().map_or_else(String::new, |id| format!(" ({id})"));
        match &self.name {
            OddName::Text(name) => name.clone(),
            OddName::None => format!("a webhook without a name{id}"),
            OddName::Unreadable => format!("a webhook whose name cannot be read{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registration::keyring::KEY_BYTES;

    #[test]
    fn a_webhook_is_owned_by_the_exact_shape_of_its_name() -> Result<(), InvalidNamePrefix> {
        let prefix: NamePrefix = "fan".parse()?;
        let ours: Option<Event> = "WorkbookCreated".parse().ok();
        assert_eq!(prefix.event_of("fan-WorkbookCreated"), ours);
        for foreign in [
            "",
            "fan",
            "fan-",
            "fanWorkbookCreated",
            "Fan-WorkbookCreated",
            "fan-out-WorkbookCreated",
            "fan-WorkbookCreated ",
            "fan-WorkbookCreated2",
            "fan-Workbook_Created",
            "my fan-WorkbookCreated",
        ] {
            assert_eq!(prefix.event_of(foreign), None, "{foreign:?}");
        }
        Ok(())
    }

    #[test]
    fn an_unreadable_webhook_may_be_owned_by_its_name_or_its_address() {
        let prefix: NamePrefix = "fan".parse().expect("a prefix");
        let receiver = ReceiverUrl::parse("https://receiver.example/").expect("a receiver");
        let registration =
            Registration { site: "a".parse().expect("a site"), event: "ViewDeleted".parse().expect("an event") };
        let ours = registration.signed_url(&receiver, &Keyring::of([7; KEY_BYTES]));
        let foreign = RegistrationUrl::observed("https://foreign.example/".to_owned());
        let text = |name: &str| OddName::Text(name.to_owned());
        for (name, url, may_be_owned) in [
            (text("fan-ViewDeleted"), None, true),
            (text("fan-ViewDeleted"), Some(foreign.clone()), true),
            (text("foreign"), None, false),
            // A renamed webhook is foreign.
            (text("foreign"), Some(ours.clone()), false),
            (text("17"), None, false),
            (OddName::None, Some(ours), true),
            (OddName::None, Some(foreign.clone()), false),
            (OddName::None, None, false),
            (OddName::Unreadable, Some(foreign), true),
            (OddName::Unreadable, None, true),
        ] {
            let odd = OddWebhook { name, id: None, url, what: "is odd" };
            assert_eq!(prefix.may_own(&odd, &receiver), may_be_owned, "{odd:?}");
        }
    }

    #[test]
    fn a_prefix_is_a_stack_name() {
        for good in ["tableau-fanout", "A", &"a".repeat(128)] {
            assert!(good.parse::<NamePrefix>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "1a", "a b", "a_b", &"a".repeat(129)] {
            assert!(bad.parse::<NamePrefix>().is_err(), "{bad}");
        }
    }
}
