//! Events about failed refreshes, as subscribers of the events topic receive them.

use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    events::{
        catalogue::Event,
        cloud_event::{SOURCE_PREFIX, TYPE_PREFIX},
    },
    refreshes::{health::is_failure, state::MAX_ID_BYTES},
    registration::site_name::SiteName,
};

/// A failed refresh of which the events topic had an event.
///
/// ```
/// use shared::refreshes::failed_event::FailedEvent;
///
/// let body = r#"{
///     "type": "com.tableau.WorkbookRefreshFailed",
///     "source": "/tableau/marketing",
///     "subject": "5998aaaf",
///     "time": "2026-05-21T08:03:00Z"
/// }"#;
/// let failed = FailedEvent::parse(body).ok_or("no event of a failed refresh")?;
/// assert_eq!((failed.site.as_str(), failed.resource_luid.as_str()), ("marketing", "5998aaaf"));
/// # Ok::<_, &str>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedEvent {
    /// Name of the site.
    pub site: SiteName,
    /// Tableau's identifier of the resource.
    pub resource_luid: String,
    /// When it failed, by Tableau's clock, if the event has a valid time.
    pub at: Option<OffsetDateTime>,
}

impl FailedEvent {
    /// Reads a message; `None` if it is no CloudEvent about a failed refresh of a resource.
    pub fn parse(message: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Members<'a> {
            #[serde(borrow)]
            source: std::borrow::Cow<'a, str>,
            #[serde(borrow)]
            r#type: std::borrow::Cow<'a, str>,
            subject: String,
            time: Option<String>,
        }
        let Members { source, r#type, subject, time } = serde_json::from_str(message).ok()?;
        let site = source.strip_prefix(SOURCE_PREFIX)?.parse().ok()?;
        let event: Event = r#type.strip_prefix(TYPE_PREFIX)?.parse().ok()?;
        let at = time.and_then(|time| OffsetDateTime::parse(&time, &Rfc3339).ok());
        let is_identifier = (1..=MAX_ID_BYTES).contains(&subject.len());
        (is_failure(&event) && is_identifier).then_some(Self { site, resource_luid: subject, at })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{events::delivery::Delivery, registration::claim::Registration};

    #[test]
    fn a_message_of_the_receiver_is_read() {
        let registration = Registration {
            site: "marketing".parse().expect("a site"),
            event: "DatasourceRefreshFailed".parse().expect("an event"),
        };
        let verified = registration.verified_in_tests();
        let body = json!({ "resource_luid": "a-1", "created_at": "2026-05-21T08:03:00.5Z" }).to_string();
        let delivery = Delivery::read(&verified, body.as_bytes());
        let message = delivery.message(delivery.id("request")).expect("a message");
        let failed = FailedEvent::parse(&message.body).expect("a failed refresh");
        assert_eq!((failed.site.as_str(), failed.resource_luid.as_str()), ("marketing", "a-1"));
        assert_eq!(failed.at, Some(time::macros::datetime!(2026-05-21 08:03:00.5 UTC)));
    }

    #[test]
    fn other_messages_are_none() {
        let event = |changes: &[(&str, serde_json::Value)]| {
            let mut event = json!({
                "source": "/tableau/marketing", "type": "com.tableau.WorkbookRefreshFailed", "subject": "1",
            });
            changes.iter().for_each(|(name, value)| event[*name] = value.clone());
            event.to_string()
        };
        assert_eq!(FailedEvent::parse(&event(&[])).map(|failed| failed.at), Some(None));
        assert_eq!(FailedEvent::parse(&event(&[("time", json!("yesterday"))])).map(|failed| failed.at), Some(None));
        for other in [
            event(&[("type", json!("com.tableau.WorkbookRefreshSucceeded"))]),
            event(&[("type", json!("WorkbookRefreshFailed"))]),
            event(&[("source", json!("/tableau/Not A Site"))]),
            event(&[("subject", json!(null))]),
            event(&[("subject", json!(""))]),
            event(&[("subject", json!("1".repeat(MAX_ID_BYTES + 1)))]),
            "[]".to_owned(),
            "{}".to_owned(),
            String::new(),
        ] {
            assert_eq!(FailedEvent::parse(&other), None, "{other}");
        }
    }
}
