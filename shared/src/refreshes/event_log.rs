//! The log record of an event that was published from a job.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    events::{
        cloud_event::{EventMessage, is_plain},
        delivery_log::{Outcome, short_name},
        id::EventId,
    },
    registration::site_name::SiteName,
};

/// The job that an event was published from.
#[derive(Clone, Copy, Debug)]
pub struct JobEnd<'a> {
    /// Tableau's identifier of the job, if a job shows the event.
    pub id: Option<&'a str>,
    /// When the job ended, or else when Tableau showed the event.
    pub at: OffsetDateTime,
}

/// An event that was published from a job. Its members have the names of those of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEventRecord {
    /// Name of the site entry.
    pub site: SiteName,
    /// The event's type.
    pub event: String,
    /// The event's identifier.
    pub event_id: EventId,
    /// Tableau's identifier of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    /// The resource's name: without control and direction characters, and cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// The result: published.
    pub outcome: Outcome,
    /// Whether Tableau did not deliver the event.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
    /// Tableau's identifier of the job, if a job shows the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// Seconds from the end of the job until now.
    pub delay_s: u64,
}

impl JobEventRecord {
    /// Records a message that SNS accepted.
    pub fn of(site: &SiteName, message: &EventMessage, job: JobEnd<'_>, now: OffsetDateTime) -> Self {
        let attribute = |name: &str| message.attributes.get(name).map(String::as_str);
        let plain = |id: Option<&str>| id.filter(|id| is_plain(id)).map(str::to_owned);
        Self {
            site: site.clone(),
            event: attribute("event_type").unwrap_or_default().to_owned(),
            event_id: message.id,
            resource_id: plain(attribute("resource_luid")),
            resource_name: attribute("resource_name").and_then(short_name),
            outcome: Outcome::Published,
            recovered: attribute("recovered").is_some(),
            job_id: plain(job.id),
            // The clocks of Tableau and of this machine may differ.
            delay_s: (now - job.at).whole_seconds().try_into().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::{Duration, macros::datetime};

    use super::*;
    use crate::refreshes::{context::OwnerDetails, explanation::tests::explanation};

    fn record(name: &str, job: &str, after: Duration) -> JobEventRecord {
        let mut explained = explanation(OwnerDetails::Email);
        explained.refresh.resource.name = Some(name.to_owned());
        let site = "marketing".parse().expect("a site");
        let message = explained.event(&site, "11ff7a7e").expect("an event");
        let at = datetime!(2026-05-21 08:03:00 UTC);
        JobEventRecord::of(&site, &message, JobEnd { id: Some(job), at }, at + after)
    }

    #[test]
    fn an_event_of_a_job_is_recorded_without_its_text_and_read_again() {
        let record = record("Superstore", "a1b2", Duration::seconds(61));
        let line = json!(record);
        let expected = json!({
            "site": "marketing",
            "event": "RefreshFailureExplained",
            "event_id": record.event_id.to_string(),
            "resource_id": "5998aaaf",
            "resource_name": "Superstore",
            "outcome": "published",
            "job_id": "a1b2",
            "delay_s": 61,
        });
        assert_eq!(line, expected);
        assert_eq!(serde_json::from_value::<JobEventRecord>(line).ok(), Some(record));
    }

    #[test]
    fn no_job_makes_a_line_long_or_odd() {
        let endless = "\u{202e}\u{2028}".repeat(10_000);
        let record = record(&endless, &endless, Duration::seconds(-5));
        assert_eq!((&record.resource_name, &record.job_id, record.delay_s), (&None, &None, 0));
        let line = json!(record).to_string();
        assert!(line.len() < 512 && line.is_ascii(), "{line}");
    }
}
