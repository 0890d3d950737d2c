//! Webhooks as they should be and as Tableau reports them, and whose they are.

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

/// What the names of our webhooks start with: the stack's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePrefix(String);

/// The text cannot start webhook names.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a name prefix is a stack's name: letters, digits and hyphens, a letter first, at most 128 characters")]
pub struct InvalidNamePrefix;

impl NamePrefix {
    /// Name of our webhook for an event.
    pub fn name_for(&self, event: &Event) -> String {
        format!("{}-{event}", self.0)
    }

    /// The event a webhook of this name is for; `None` for a webhook that is not ours.
    ///
    /// The event part consists of letters only, so that no stack owns the webhooks of one whose name continues its
    /// own (`fan` and `fan-out`).
    pub fn event_of(&self, name: &str) -> Option<Event> {
        name.strip_prefix(&self.0)?.strip_prefix('-')?.parse().ok()
    }

    /// Whether a webhook that cannot be read may be ours: by its name, or for want of one by where it leads.
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

    // The rules of CloudFormation for stack names.
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
    /// The event it is for.
    pub event: Event,
    /// Where Tableau is to send the event.
    pub url: RegistrationUrl,
}

impl DesiredWebhook {
    /// The webhooks a site should have, one for each event.
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
    /// Its name. Tableau does not keep names apart: several webhooks can have the same.
    pub name: String,
    /// The event, if the answer told it in a way we can read.
    pub event: Option<Event>,
    /// Where Tableau sends the event, if the answer told it.
    pub url: Option<RegistrationUrl>,
    /// Whether Tableau sends at all. It stops after four failed attempts at one event.
    pub is_enabled: bool,
    /// Why Tableau switched it off, in Tableau's words.
    pub status_change_reason: Option<String>,
    /// When it was last changed, in Tableau's words, if the answer told it.
    pub updated_at: Option<String>,
}

/// A webhook that Tableau reports in a way that leaves out, or obscures, what there is to know of one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OddWebhook {
    /// Its name, as far as there is one.
    pub name: OddName,
    /// Tableau's identifier, if the answer told it.
    pub id: Option<String>,
    /// Where Tableau sends the event, if the answer told it.
    pub url: Option<RegistrationUrl>,
    /// What is odd about it, as the end of a sentence.
    pub what: &'static str,
}

/// The name of a webhook that cannot be read in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OddName {
    /// It has this one.
    Text(String),
    /// It has none.
    None,
    /// It may have any.
    Unreadable,
}

impl OddWebhook {
    /// What people may call it.
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
    fn a_webhook_is_ours_by_the_exact_shape_of_its_name() -> Result<(), InvalidNamePrefix> {
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
    fn a_webhook_that_cannot_be_read_may_be_ours_by_its_name_or_by_where_it_leads() {
        let prefix: NamePrefix = "fan".parse().expect("a prefix");
        let receiver = ReceiverUrl::parse("https://receiver.example/").expect("a receiver");
        let registration =
            Registration { site: "a".parse().expect("a site"), event: "ViewDeleted".parse().expect("an event") };
        let ours = registration.signed_url(&receiver, &Keyring::of([7; KEY_BYTES]));
        let elsewhere = RegistrationUrl::observed("https://elsewhere.example/".to_owned());
        let text = |name: &str| OddName::Text(name.to_owned());
        for (name, url, may_be_ours) in [
            (text("fan-ViewDeleted"), None, true),
            (text("fan-ViewDeleted"), Some(elsewhere.clone()), true),
            (text("theirs"), None, false),
            // Somebody may have given one of ours another name, which makes it foreign.
            (text("theirs"), Some(ours.clone()), false),
            (text("17"), None, false),
            (OddName::None, Some(ours), true),
            (OddName::None, Some(elsewhere.clone()), false),
            (OddName::None, None, false),
            (OddName::Unreadable, Some(elsewhere), true),
            (OddName::Unreadable, None, true),
        ] {
            let odd = OddWebhook { name, id: None, url, what: "is odd" };
            assert_eq!(prefix.may_own(&odd, &receiver), may_be_ours, "{odd:?}");
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
