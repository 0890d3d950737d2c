//! Refreshes in Tableau's jobs, and the events made from them: recovered ones, and explanations of failures.

use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use time::{OffsetDateTime, serde::rfc3339};

use crate::{
    events::{
        catalogue::Event,
        cloud_event::{Data, Envelope, EventMessage},
        id::EventId,
    },
    refreshes::{context::ResourceKey, notes::Notes},
    registration::{claim::Registration, site_name::SiteName},
    timestamp::Timestamp,
};

/// Separates the identifiers of events from jobs from those of deliveries. Those begin with a site's name, which has no space.
const ID_DOMAIN: &str = "refresh job";

/// An ended refresh in a list of jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedJob {
    /// Tableau's identifier.
    pub id: String,
    /// Its outcome.
    pub outcome: RefreshOutcome,
    /// When it began, if the list has it.
    #[serde(default, with = "rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "rfc3339")]
    pub ended_at: OffsetDateTime,
    /// Whether Tableau Bridge fetched the data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_via_bridge: bool,
}

/// An ended extract refresh in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// Tableau's identifier of the job.
    pub job_id: String,
    /// The refreshed resource.
    pub resource: RefreshedResource,
    /// When it began, if the job has it.
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    pub ended_at: OffsetDateTime,
    /// Its outcome.
    pub outcome: RefreshOutcome,
    /// Tableau's notes: the reason of a failure.
    pub notes: Option<Notes>,
}

/// A refreshed resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshedResource {
    /// Kind of resource.
    pub kind: RefreshedKind,
    /// Tableau's identifier.
    pub luid: String,
    /// Its name, if Tableau's answer has it.
    pub name: Option<String>,
}

/// Kinds of resources with extracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefreshedKind {
    /// A published data source.
    Datasource,
    /// A workbook.
    Workbook,
}

/// Outcome of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefreshOutcome {
    /// The extract was replaced.
    Succeeded,
    /// The extract is as old as before.
    Failed,
    /// A user stopped it. Tableau has no event for that.
    Cancelled,
}

impl RefreshedResource {
    /// Returns its key among the resources of its site.
    pub fn key(&self) -> ResourceKey {
        (self.kind, self.luid.clone())
    }
}

impl RefreshedKind {
    /// Returns the kind as in an event's `resource_type`, and in sentences.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Datasource => "datasource",
            Self::Workbook => "workbook",
        }
    }

    /// Returns the event of a failed refresh of this kind.
    pub fn failure(self) -> Option<Event> {
        format!("{}RefreshFailed", self.in_events()).parse().ok()
    }

    /// Returns the beginning of the names of its events.
    fn in_events(self) -> &'static str {
        match self {
            Self::Datasource => "Datasource",
            Self::Workbook => "Workbook",
        }
    }
}

impl Refresh {
    /// Returns Tableau's events for it with their times, in order.
    pub fn events(&self) -> impl Iterator<Item = (Event, OffsetDateTime)> {
        let ended = match self.outcome {
            RefreshOutcome::Succeeded => Some("Succeeded"),
            RefreshOutcome::Failed => Some("Failed"),
            RefreshOutcome::Cancelled => None,
        };
        let kind = self.resource.kind.in_events();
        let started = self.started_at.map(|at| ("Started", at));
        let ended = ended.map(|ended| (ended, self.ended_at));
        [started, ended].into_iter().flatten().filter_map(move |(stage, at)| {
            let event = format!("{kind}Refresh{stage}").parse().ok()?;
            Some((event, at))
        })
    }

    /// Returns its duration, unless the two times contradict each other.
    pub fn duration_seconds(&self) -> Option<i64> {
        let duration = self.ended_at - self.started_at?;
        (!duration.is_negative()).then(|| duration.whole_seconds())
    }

    /// Returns the identifier of an event of this refresh. It is equal whenever the job is read, and differs from those of
    /// deliveries.
    pub fn event_id(&self, site: &SiteName, event_type: &str) -> EventId {
        event_id(site, event_type, &self.job_id)
    }

    /// Returns an event that Tableau did not deliver, as the receiver would have published it, with two differences: it is
    /// marked as recovered, and its data comes from the job.
    ///
    /// `None` if the refresh has no such event, or SNS would not accept it.
    pub fn recovered_event(&self, registration: &Registration, site_luid: &str) -> Option<EventMessage> {
        let Registration { site, event } = registration;
        let (_, at) = self.events().find(|(own, _)| own == event)?;
        let RefreshedResource { kind, luid, name } = &self.resource;
        let name = name.as_deref();
        let created_at = Timestamp(at).format()?;
        let named = name.map(|name| format!("{name}: ")).unwrap_or_default();
        let text = format!(
            "Event {event} for resource {named}{luid} on site {site_luid} posted at {created_at}, \
             recovered from job {}",
            self.job_id
        );
        let data = to_raw_value(&RecoveredData {
            event_type: event,
            resource: "EXTRACTS",
            resource_luid: luid,
            created_at: &created_at,
            resource_name: name,
            site_luid,
            text: &text,
        });
        let envelope = Envelope {
            site,
            event_type: event.as_str(),
            resource_type: Some(kind.as_str()),
            action: event.action(),
            site_luid: Some(site_luid),
            resource_luid: Some(luid),
            resource_name: name,
            project: None,
            owner: None,
            time: Some(&created_at),
            is_recovered: true,
            data: Data::Json(&data.ok()?),
        };
        envelope.message(self.event_id(site, event.as_str())).ok()
    }
}

/// Returns the identifier of an event that follows from a job.
pub(crate) fn event_id(site: &SiteName, event_type: &str, job_id: &str) -> EventId {
    EventId::of([ID_DOMAIN, site.as_str(), event_type, job_id].map(str::as_bytes))
}

/// Data of a recovered event, like Tableau's payload.
#[derive(Serialize)]
struct RecoveredData<'a> {
    event_type: &'a Event,
    /// `EXTRACTS`, as in Tableau's payloads.
    resource: &'static str,
    resource_luid: &'a str,
    created_at: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_name: Option<&'a str>,
    site_luid: &'a str,
    text: &'a str,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use time::macros::datetime;

    use super::*;

    const SITE_LUID: &str = "11ff7a7e-4ac9-4d99-84df-73a4138ab502";

    fn failed() -> Refresh {
        Refresh {
            job_id: "a1b2".to_owned(),
            resource: RefreshedResource {
                kind: RefreshedKind::Workbook,
                luid: "5998aaaf".to_owned(),
                name: Some("Superstore".to_owned()),
            },
            started_at: Some(datetime!(2026-05-21 10:00:00.5 +02:00)),
            ended_at: datetime!(2026-05-21 08:03:00 UTC),
            outcome: RefreshOutcome::Failed,
            notes: Notes::redacted("Login failed for user."),
        }
    }

    fn registration(event: &str) -> Registration {
        Registration { site: "marketing".parse().expect("a site"), event: event.parse().expect("an event") }
    }

    fn recovered(refresh: &Refresh, event: &str) -> Option<EventMessage> {
        refresh.recovered_event(&registration(event), SITE_LUID)
    }

    fn shown(message: &EventMessage) -> String {
        let EventMessage { id, body, attributes, group } = message;
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["id"], id.to_string());
        format!("{attributes:#?}\n{group}\n{body:#}")
    }

    #[test]
    fn a_recovered_event_is_like_a_delivered_one_and_marked() {
        insta::assert_snapshot!(shown(&recovered(&failed(), "WorkbookRefreshFailed").expect("an event")));
    }

    #[test]
    fn a_refresh_has_the_events_of_its_kind_outcome_and_times() {
        let events = |refresh: &Refresh| refresh.events().map(|(event, _)| event.to_string()).collect::<Vec<_>>();
        let mut refresh = failed();
        assert_eq!(events(&refresh), ["WorkbookRefreshStarted", "WorkbookRefreshFailed"]);
        assert!(refresh.events().all(|(event, _)| event.is_known()));
        (refresh.outcome, refresh.started_at) = (RefreshOutcome::Succeeded, None);
        refresh.resource.kind = RefreshedKind::Datasource;
        assert_eq!(events(&refresh), ["DatasourceRefreshSucceeded"]);
        refresh.outcome = RefreshOutcome::Cancelled;
        assert_eq!(events(&refresh), Vec::<String>::new());
        for other in ["DatasourceRefreshStarted", "DatasourceRefreshFailed", "WorkbookRefreshFailed", "ViewDeleted"] {
            assert_eq!(recovered(&refresh, other), None, "{other}");
        }
    }

    #[test]
    fn members_that_the_job_lacks_are_left_out() {
        let mut refresh = failed();
        (refresh.started_at, refresh.resource.name, refresh.notes) = (None, None, None);
        let data = |message: Option<EventMessage>| {
            let body: Value = serde_json::from_str(&message.expect("an event").body).expect("JSON");
            let members = body["data"].as_object().expect("an object").keys();
            members.cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            data(recovered(&refresh, "WorkbookRefreshFailed")),
            "created_at event_type resource resource_luid site_luid text"
        );
        refresh.started_at = Some(refresh.ended_at + time::Duration::SECOND);
        assert_eq!(refresh.duration_seconds(), None);
    }

    #[test]
    fn an_event_of_a_job_keeps_its_own_id() {
        let refresh = failed();
        let site = registration("A").site;
        let id = |refresh: &Refresh, event: &str| refresh.event_id(&site, event);
        let mut read_again = refresh.clone();
        (read_again.notes, read_again.resource.name) = (None, None);
        assert_eq!(id(&refresh, "WorkbookRefreshFailed"), id(&read_again, "WorkbookRefreshFailed"));
        assert_ne!(id(&refresh, "WorkbookRefreshFailed"), id(&refresh, "WorkbookRefreshStarted"));
        assert_ne!(id(&refresh, "WorkbookRefreshFailed"), id(&refresh, "RefreshFailureExplained"));
        read_again.job_id.push('3');
        assert_ne!(id(&refresh, "WorkbookRefreshFailed"), id(&read_again, "WorkbookRefreshFailed"));
        assert!(ID_DOMAIN.parse::<SiteName>().is_err());
        // Computed with Python's hashlib over the length-prefixed parts.
        assert_eq!(id(&refresh, "WorkbookRefreshFailed").to_string(), "2d4ec57be9ee60310327ad00fd85adf8");
    }

    #[test]
    fn an_event_that_sns_would_not_accept_is_none() {
        let mut refresh = failed();
        refresh.resource.name = Some("n".repeat(300_000));
        assert_eq!(recovered(&refresh, "WorkbookRefreshFailed"), None);
    }
}
