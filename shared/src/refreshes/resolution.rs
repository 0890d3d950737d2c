//! Ends of failures: a resource refreshed successfully, or is not refreshed any more.

use serde::Serialize;
use serde_json::value::to_raw_value;

use crate::{
    events::{
        cloud_event::{Data, Envelope, EventMessage},
        id::EventId,
    },
    refreshes::{
        context::{FailureContext, Owner, Project},
        failing::FailingResource,
        job::{Refresh, event_id},
    },
    registration::site_name::SiteName,
    timestamp::Timestamp,
};

/// Name of the event that a failing resource refreshed successfully. Tableau does not know it.
pub const RESOLVED: &str = "RefreshFailureResolved";

/// How failures ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndKind {
    /// The resource refreshed successfully.
    Resolved,
    /// Tableau suspended its refresh.
    Suspended,
    /// The resource was deleted.
    Deleted,
    /// It has no refresh task, and was not refreshed for a week.
    Unused,
}

/// The end of a resource's failures, or of its refreshes.
///
/// ```
/// use shared::{
///     refreshes::{
///         context::FailureContext,
///         failing::FailingResource,
///         job::RefreshedKind,
///         resolution::{EndKind, FailureEnd},
///     },
///     timestamp::Timestamp,
/// };
/// use time::macros::datetime;
///
/// let failing = FailingResource {
///     kind: RefreshedKind::Workbook,
///     job: "a1b2".to_owned(),
///     since: Timestamp(datetime!(2026-05-21 08:03 UTC)),
///     last: Timestamp(datetime!(2026-05-21 12:03 UTC)),
///     failures: 3,
///     is_suspended: false,
/// };
/// let end = FailureEnd {
///     kind: EndKind::Resolved,
///     luid: "5998aaaf".to_owned(),
///     name: Some("Regional Sales".to_owned()),
///     failing,
///     at: Timestamp(datetime!(2026-05-21 13:23 UTC)),
///     job_id: None,
///     context: FailureContext::default(),
/// };
///
/// let message = end.event(&"marketing".parse()?, "11ff7a7e").ok_or("no event")?;
/// assert_eq!(message.attributes["event_type"], "RefreshFailureResolved");
/// let event: serde_json::Value = serde_json::from_str(&message.body)?;
/// assert_eq!(event["data"]["failures"], 3);
/// assert_eq!(event["data"]["duration_seconds"], 19_200);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureEnd {
    /// How they ended.
    pub kind: EndKind,
    /// Tableau's identifier of the resource.
    pub luid: String,
    /// The resource's name in the job.
    pub name: Option<String>,
    /// The failures.
    pub failing: FailingResource,
    /// When a job showed the end, or else when its tasks did.
    pub at: Timestamp,
    /// Tableau's identifier of the successful job, if a job showed the end.
    pub job_id: Option<String>,
    /// The resource and its owner, as far as Tableau shows them.
    pub context: FailureContext,
}

impl FailureEnd {
    /// The end of failures by a successful refresh.
    pub fn by_refresh(refresh: &Refresh, failing: FailingResource, context: FailureContext) -> Self {
        Self {
            kind: EndKind::Resolved,
            luid: refresh.resource.luid.clone(),
            name: refresh.resource.name.clone(),
            failing,
            at: Timestamp(refresh.ended_at),
            job_id: Some(refresh.job_id.clone()),
            context,
        }
    }

    /// Returns the name of the resource.
    pub fn resource_name(&self) -> Option<&str> {
        self.name.as_deref().or(self.context.resource.name.as_deref())
    }

    /// Returns the seconds from the first failure to the end, unless the two times contradict each other.
    pub fn duration_seconds(&self) -> Option<i64> {
        let duration = self.at.0 - self.failing.since.0;
        (!duration.is_negative()).then(|| duration.whole_seconds())
    }

    /// Returns the identifier of the event. It follows from the last failure, so that it does not depend on what showed the end.
    pub fn id(&self, site: &SiteName) -> EventId {
        event_id(site, RESOLVED, &self.failing.job)
    }

    /// Returns the event. It has no action, so that filters on `refresh-failed` or `refresh-succeeded` do not match it.
    ///
    /// `None` if the resource did not refresh successfully, or SNS would not accept the message.
    pub fn event(&self, site: &SiteName, site_luid: &str) -> Option<EventMessage> {
        if self.kind != EndKind::Resolved {
            return None;
        }
        let Self { luid, failing, context, .. } = self;
        let resolved_at = self.at.format()?;
        let data = to_raw_value(&ResolvedData {
            event_type: RESOLVED,
            job_id: self.job_id.as_deref(),
            failed_job_id: &failing.job,
            resource_type: failing.kind.as_str(),
            resource_luid: luid,
            resource_name: self.resource_name(),
            resource_url: context.resource_url(),
            project: context.resource.project.as_ref(),
            owner: context.owner.as_ref(),
            site_luid,
            failing_since: failing.since.format()?,
            failures: failing.failures,
            resolved_at: &resolved_at,
            duration_seconds: self.duration_seconds(),
        });
        let envelope = Envelope {
            site,
            event_type: RESOLVED,
            resource_type: Some(failing.kind.as_str()),
            action: None,
            site_luid: Some(site_luid).filter(|luid| !luid.is_empty()),
            resource_luid: Some(luid),
            resource_name: self.resource_name(),
            project: context.project_name(),
            owner: context.owner_name(),
            time: Some(&resolved_at),
            is_recovered: false,
            data: Data::Json(&data.ok()?),
        };
        envelope.message(self.id(site)).ok()
    }
}

/// Data of the event.
#[derive(Serialize)]
struct ResolvedData<'a> {
    event_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<&'a str>,
    failed_job_id: &'a str,
    resource_type: &'static str,
    resource_luid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a Project>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a Owner>,
    site_luid: &'a str,
    failing_since: String,
    failures: u32,
    resolved_at: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_seconds: Option<i64>,
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::Value;
    use time::{Duration, macros::datetime};

    use super::*;
    use crate::refreshes::{context::OwnerDetails, explanation};

    /// Returns the end of failures of a resource with the context that Tableau shows at best.
    pub(crate) fn end(kind: EndKind) -> FailureEnd {
        let explained = explanation::tests::explanation(OwnerDetails::Name);
        FailureEnd {
            kind,
            luid: explained.refresh.resource.luid,
            name: None,
            at: Timestamp(explained.in_a_row.since.0 + Duration::minutes(320)),
            failing: FailingResource { failures: 3, ..explained.in_a_row },
            job_id: Some("c3d4".to_owned()),
            context: explained.context,
        }
    }

    fn message(end: &FailureEnd) -> EventMessage {
        end.event(&"marketing".parse().expect("a site"), "11ff7a7e-4ac9-4d99-84df-73a4138ab502").expect("an event")
    }

    #[test]
    fn a_resolution_has_the_failures_and_the_context() {
        let EventMessage { id, body, attributes, group } = message(&end(EndKind::Resolved));
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["id"], id.to_string());
        insta::assert_snapshot!(format!("{attributes:#?}\n{group}\n{body:#}"));
    }

    #[test]
    fn its_identifier_follows_from_the_last_failure_alone() {
        let by_job = end(EndKind::Resolved);
        let later = Timestamp(by_job.at.0 + Duration::minutes(15));
        let by_task = FailureEnd { at: later, job_id: None, name: Some("Sales".to_owned()), ..by_job.clone() };
        assert_eq!(message(&by_task).id, message(&by_job).id);
        let mut another = by_job.clone();
        another.failing.job = "another".to_owned();
        assert_ne!(message(&another).id, message(&by_job).id);
    }

    #[test]
    fn members_that_are_not_known_are_left_out_and_other_ends_have_no_event() {
        let mut bare = FailureEnd { job_id: None, context: FailureContext::default(), ..end(EndKind::Resolved) };
        // Clocks differ.
        bare.at = Timestamp(datetime!(2026-05-20 08:02:59 UTC));
        let body: Value = serde_json::from_str(&message(&bare).body).expect("JSON");
        let members = body["data"].as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
        let expected =
            "event_type failed_job_id failing_since failures resolved_at resource_luid resource_type site_luid";
        assert_eq!(members, expected);
        for kind in [EndKind::Suspended, EndKind::Deleted, EndKind::Unused] {
            assert_eq!(end(kind).event(&"marketing".parse().expect("a site"), "luid"), None);
        }
        bare.name = Some("n".repeat(300_000));
        assert_eq!(bare.event(&"marketing".parse().expect("a site"), "luid"), None);
    }
}
