//! Problems that keep a site's webhooks from being as declared, or from working.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{
    Deserialize, Serialize,
    de::{IntoDeserializer, value::Error},
};

use crate::{events::catalogue::Event, timestamp::Timestamp};

/// A problem at one site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The kind.
    pub kind: ProblemKind,
    /// The event of the webhook, if it concerns one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// The description, in sentences.
    pub what: String,
    /// The fix, in sentences; empty if there is nothing to do.
    pub remedy: String,
    /// The raw request and answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Open problems, and since when.
pub type Problems = BTreeMap<ProblemKey, Timestamp>;

impl Problem {
    /// Returns the problem's kind and event.
    pub fn key(&self) -> ProblemKey {
        ProblemKey { kind: self.kind, event: self.event.clone() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind: _, event: _, what, remedy, detail } = self;
        formatter.write_str(what)?;
        if !remedy.is_empty() {
            write!(formatter, " {remedy}")?;
        }
        detail.as_ref().map_or(Ok(()), |detail| write!(formatter, " ({detail})"))
    }
}

/// Kinds of problems, in the order in which the run of a site meets them. A problem that ends the run masks later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The site's entry cannot be used.
    EntryUnusable,
    /// The server cannot be reached.
    ServerUnreachable,
    /// The server's certificate is not signed by a CA in the trust store.
    CertificateNotTrusted,
    /// The server's REST API is older than the webhooks that are needed.
    ServerTooOld,
    /// Tableau failed, or its answer cannot be read.
    ServerFailed,
    /// Tableau asks to wait for longer than a run may last.
    TooManyRequests,
    /// The server redirects sign-ins to a place where no token is sent.
    SignInRedirected,
    /// Tableau refused the personal access token.
    TokenRefused,
    /// Another program uses the token, which has one session only.
    TokenShared,
    /// The server has no such site.
    SiteNotFound,
    /// The token's owner is not an administrator of the site.
    NotAdministrator,
    /// Another run uses the token.
    TokenInUse,
    /// The run ended before it had finished the site.
    OutOfTime,
    /// The personal access token ends in some days.
    TokenEnding,
    /// Tableau refused one of our webhooks.
    WebhookRefused,
    /// Every change succeeded, and the webhooks are not as declared all the same.
    NotAsDeclared,
    /// Tableau had disabled a webhook.
    WebhookDisabled,
    /// A webhook's test did not reach the receiver, or was not accepted.
    TestFailed,
    /// Missed refresh events could not be recovered, or failures could not be explained.
    RefreshesLost,
    /// Alerts about refreshes could not be sent.
    AlertsLost,
}

impl ProblemKind {
    /// The last kind that ends the run of a site.
    const LAST_TO_END_A_SITE_RUN: Self = Self::OutOfTime;

    /// Returns a few words for it.
    pub fn headline(self) -> &'static str {
        match self {
            Self::EntryUnusable => "site entry cannot be used",
            Self::ServerUnreachable => "server not reachable",
            Self::CertificateNotTrusted => "certificate not trusted",
            Self::ServerTooOld => "server too old",
            Self::ServerFailed => "Tableau failed",
            Self::TooManyRequests => "too many requests",
            Self::SignInRedirected => "sign-in redirected",
            Self::TokenRefused => "token refused",
            Self::TokenShared => "token used by another program",
            Self::SiteNotFound => "no such site",
            Self::NotAdministrator => "token owner is not an administrator",
            Self::TokenInUse => "token used by another run",
            Self::OutOfTime => "no time left",
            Self::TokenEnding => "token ends soon",
            Self::WebhookRefused => "webhook refused",
            Self::NotAsDeclared => "webhooks not as declared",
            Self::WebhookDisabled => "webhook was disabled",
            Self::TestFailed => "webhook test failed",
            Self::RefreshesLost => "refreshes may be missing",
            Self::AlertsLost => "alerts about refreshes were not sent",
        }
    }

    /// Returns the effect on events, in sentences.
    pub fn effect(self) -> &'static str {
        match self {
            Self::TokenEnding => {
                "After that webhooks that work keep working, but they are not repaired, and failures are not explained."
            }
            Self::WebhookRefused => "The event does not arrive, or not as declared.",
            Self::NotAsDeclared | Self::OutOfTime => "The next run continues.",
            Self::WebhookDisabled => {
                "It is enabled again. Missed refresh events are recovered from Tableau's jobs; other missed events are lost."
            }
            Self::RefreshesLost => "Their events will not be published.",
            Self::AlertsLost => "The events topic has the events.",
            Self::TestFailed => {
                "Events may not arrive. After four failed attempts at one event, Tableau disables the webhook."
            }
            _ => "Webhooks that work keep working, but until this is fixed they are not repaired.",
        }
    }

    /// Whether a problem of this kind masks one of the `other` kind: the run of the site ended before it could be found.
    pub(crate) fn masks(self, other: Self) -> bool {
        self <= Self::LAST_TO_END_A_SITE_RUN && self < other
    }

    /// Whether a problem of this kind is the last stage of one of the `other` kind, which it ends without a message.
    pub(crate) fn concludes(self, other: Self) -> bool {
        (self, other) == (Self::TokenRefused, Self::TokenEnding)
    }

    /// Whether the run that finds it also ends it: a disabled webhook is enabled again; what is lost stays lost.
    pub fn is_momentary(self) -> bool {
        matches!(self, Self::WebhookDisabled | Self::RefreshesLost | Self::AlertsLost)
    }

    /// Whether it is a problem of the runs, not of the sites: each run finds it at other sites.
    pub(crate) fn is_run_wide(self) -> bool {
        self == Self::OutOfTime
    }
}

impl fmt::Display for ProblemKind {
    /// Formats it as in reports.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

/// A problem of a site: its kind and, if it concerns one webhook, the event. Written `token-refused` or
/// `webhook-refused/ViewDeleted`.
///
/// ```
/// use shared::problems::{ProblemKey, ProblemKind};
///
/// let key: ProblemKey = "webhook-refused/ViewDeleted".parse()?;
/// assert_eq!((key.kind, key.event), (ProblemKind::WebhookRefused, Some("ViewDeleted".parse()?)));
/// assert_eq!(key.kind.headline(), "webhook refused");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ProblemKey {
    /// The kind.
    pub kind: ProblemKind,
    /// The event of the webhook.
    pub event: Option<Event>,
}

/// Where a problem is: a site, or one event of it. Written `marketing` or `marketing/ViewDeleted`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Our name for the site.
    pub site: String,
    /// The event.
    pub event: Option<Event>,
}

impl fmt::Display for ProblemKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, event } = self;
        kind.fmt(formatter)?;
        event.as_ref().map_or(Ok(()), |event| write!(formatter, "/{event}"))
    }
}

impl From<ProblemKey> for String {
    fn from(key: ProblemKey) -> Self {
        key.to_string()
    }
}

impl FromStr for ProblemKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, event) = text.split_once('/').map_or((text, None), |(kind, event)| (kind, Some(event)));
        let event = event.map(str::parse).transpose().map_err(|_| "the event is none")?;
        let kind = ProblemKind::deserialize(kind.into_deserializer()).map_err(|error: Error| error.to_string())?;
        Ok(Self { kind, event })
    }
}

impl TryFrom<String> for ProblemKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.site)?;
        self.event.as_ref().map_or(Ok(()), |event| write!(formatter, "/{event}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_key_is_read_as_it_is_written() {
        for text in ["token-refused", "webhook-refused/ViewDeleted"] {
            assert_eq!(text.parse::<ProblemKey>().map(String::from), Ok(text.to_owned()));
        }
        for text in ["", "/", "new", "token-refused/", "token-refused/a b", "a/ViewDeleted"] {
            assert!(text.parse::<ProblemKey>().is_err(), "{text}");
        }
    }
}
