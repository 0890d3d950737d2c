//! Explanations of failed refreshes: the reason, whose resource it is, and where to look.

use serde::Serialize;
use serde_json::value::to_raw_value;

use crate::{
    events::{
        cloud_event::{Data, Envelope, EventMessage},
        id::EventId,
    },
    refreshes::{
        context::{FailureContext, Owner, Project},
        failing::{FailingResource, FailingResources},
        job::{Refresh, RefreshOutcome},
        notes::Notes,
    },
    registration::site_name::SiteName,
    timestamp::Timestamp,
};

/// Name of the event that explains a failure. Tableau does not know it, so no webhook can be registered for it.
pub const EXPLAINED: &str = "RefreshFailureExplained";

/// A failed refresh, with all that is known of it.
///
/// ```
/// use shared::refreshes::{
///     context::{FailureContext, Project, ResourceContext},
///     explanation::Explanation,
///     failing::FailingResources,
///     job::{Refresh, RefreshOutcome, RefreshedKind, RefreshedResource},
///     notes::Notes,
/// };
/// use time::macros::datetime;
///
/// let resource = RefreshedResource {
///     kind: RefreshedKind::Workbook,
///     luid: "5998aaaf".to_owned(),
///     name: Some("Regional Sales".to_owned()),
/// };
/// let refresh = Refresh {
///     job_id: "a1b2".to_owned(),
///     resource,
///     started_at: Some(datetime!(2026-05-21 08:00 UTC)),
///     ended_at: datetime!(2026-05-21 08:03 UTC),
///     outcome: RefreshOutcome::Failed,
///     notes: Notes::redacted("The database is not reachable."),
/// };
/// let project = Project { id: "77".to_owned(), name: "Finance".to_owned() };
/// let resource = ResourceContext { project: Some(project), ..ResourceContext::default() };
/// let context = FailureContext { resource, ..FailureContext::default() };
/// let explanation = Explanation::new(refresh, context, &FailingResources::default());
///
/// let message = explanation.event(&"marketing".parse()?, "11ff7a7e").ok_or("too large")?;
/// assert_eq!(message.attributes["event_type"], "RefreshFailureExplained");
/// assert_eq!(message.attributes["project"], "Finance");
/// let event: serde_json::Value = serde_json::from_str(&message.body)?;
/// assert_eq!(event["data"]["notes"], "The database is not reachable.");
/// assert_eq!(event["data"]["duration_seconds"], 180);
/// assert_eq!(event["data"]["failures_in_a_row"], 1);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The refresh.
    pub refresh: Refresh,
    /// The resource, its owner and its tasks, as far as Tableau shows them.
    pub context: FailureContext,
    /// The failures in a row of the resource, this one included, as far as jobs showed them.
    pub in_a_row: FailingResource,
}

impl Explanation {
    /// An explanation of a refresh of one of the resources that fail.
    pub fn new(refresh: Refresh, context: FailureContext, failing: &FailingResources) -> Self {
        let in_a_row = failing.after(&refresh);
        Self { refresh, context, in_a_row }
    }

    /// Returns the name of the resource.
    pub fn resource_name(&self) -> Option<&str> {
        self.refresh.resource.name.as_deref().or(self.context.resource.name.as_deref())
    }

    /// Returns the number of failures in a row. Tableau's own is right where both are known: it knows failures from before the
    /// site was added, and successes that were not seen.
    pub fn failures_in_a_row(&self) -> u32 {
        self.context.task.consecutive_failures.filter(|count| *count > 0).unwrap_or(self.in_a_row.failures)
    }

    /// Returns since when the resource fails, unless some of its failures are unknown.
    pub fn failing_since(&self) -> Option<Timestamp> {
        (self.failures_in_a_row() == self.in_a_row.failures).then_some(self.in_a_row.since)
    }

    /// Whether its alert says that Tableau suspended the refresh.
    pub fn says_suspended(&self) -> bool {
        self.context.task.is_suspended == Some(true)
    }

    /// Returns the identifier of the event.
    pub fn id(&self, site: &SiteName) -> EventId {
        self.refresh.event_id(site, EXPLAINED)
    }

    /// Returns the event. It has no action, so that filters on `refresh-failed` do not match it.
    ///
    /// `None` if the refresh did not fail, or SNS would not accept the message.
    pub fn event(&self, site: &SiteName, site_luid: &str) -> Option<EventMessage> {
        let Self { refresh, context, .. } = self;
        if refresh.outcome != RefreshOutcome::Failed {
            return None;
        }
        let (kind, luid) = (refresh.resource.kind.as_str(), refresh.resource.luid.as_str());
        let ended_at = Timestamp(refresh.ended_at).format()?;
        let time = |at| Timestamp(at).format();
        let data = to_raw_value(&ExplainedData {
            event_type: EXPLAINED,
            job_id: &refresh.job_id,
            resource_type: kind,
            resource_luid: luid,
            resource_name: self.resource_name(),
            resource_url: context.resource_url(),
            history_url: context.history_url.as_ref().map(url::Url::as_str),
            project: context.resource.project.as_ref(),
            owner: context.owner.as_ref(),
            tags: &context.resource.tags,
            site_luid,
            started_at: refresh.started_at.and_then(time),
            ended_at: &ended_at,
            duration_seconds: refresh.duration_seconds(),
            notes: refresh.notes.as_ref().map(Notes::as_str),
            failures_in_a_row: self.failures_in_a_row(),
            failing_since: self.failing_since().and_then(Timestamp::format),
            next_run_at: context.task.next_run_at.and_then(time),
            is_suspended: context.task.is_suspended,
        });
        let envelope = Envelope {
            site,
            event_type: EXPLAINED,
            resource_type: Some(kind),
            action: None,
            site_luid: Some(site_luid),
            resource_luid: Some(luid),
            resource_name: self.resource_name(),
            project: context.project_name(),
            owner: context.owner_name(),
            time: Some(&ended_at),
            is_recovered: false,
            data: Data::Json(&data.ok()?),
        };
        envelope.message(self.id(site)).ok()
    }
}

/// Data of an explanation.
#[derive(Serialize)]
struct ExplainedData<'a> {
    event_type: &'static str,
    job_id: &'a str,
    resource_type: &'static str,
    resource_luid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a Project>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a Owner>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tags: &'a [String],
    site_luid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    ended_at: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<&'a str>,
    failures_in_a_row: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_run_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_suspended: Option<bool>,
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::Value;
    use time::macros::datetime;

    use super::*;
    use crate::refreshes::{
        context::{OwnerDetails, RefreshTask, ResourceContext, UserContext},
        job::{RefreshedKind, RefreshedResource},
    };

    /// Returns an explanation with the context that Tableau shows at best.
    pub(crate) fn explanation(details: OwnerDetails) -> Explanation {
        let refresh = Refresh {
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
        };
        let user = UserContext {
            name: Some("grace@example.com".to_owned()),
            full_name: Some("Grace Hopper".to_owned()),
            email: None,
        };
        let url = |path: &str| format!("https://tableau.example/#/site/emea/{path}").parse().ok();
        let context = FailureContext {
            resource: ResourceContext {
                name: Some("Superstore".to_owned()),
                webpage_url: url("workbooks/17/views"),
                project: Some(Project { id: "77".to_owned(), name: "Finance".to_owned() }),
                owner_id: Some("9f".to_owned()),
                tags: vec!["daily".to_owned(), "gold".to_owned()],
            },
            owner: details.owner("9f", &user),
            task: RefreshTask::new(Some(datetime!(2026-05-22 08:00 UTC)), Some(4), None),
            history_url: url("tasks/extractRefreshes"),
        };
        let in_a_row = FailingResource {
            kind: refresh.resource.kind,
            job: refresh.job_id.clone(),
            is_suspended: false,
            since: Timestamp(datetime!(2026-05-20 08:03 UTC)),
            last: Timestamp(refresh.ended_at),
            failures: 4,
        };
        Explanation { refresh, context, in_a_row }
    }

    fn site() -> SiteName {
        "marketing".parse().expect("a site")
    }

    fn message(explanation: &Explanation) -> EventMessage {
        explanation.event(&site(), "11ff7a7e-4ac9-4d99-84df-73a4138ab502").expect("an event")
    }

    fn data(explanation: &Explanation) -> Value {
        let body: Value = serde_json::from_str(&message(explanation).body).expect("JSON");
        body["data"].clone()
    }

    #[test]
    fn an_explanation_has_the_job_and_its_context() {
        let EventMessage { id, body, attributes, group } = message(&explanation(OwnerDetails::Name));
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["id"], id.to_string());
        insta::assert_snapshot!(format!("{attributes:#?}\n{group}\n{body:#}"));
    }

    #[test]
    fn an_owner_is_shown_as_the_setting_allows_and_no_attribute_has_an_e_mail_address() {
        for (details, name, email) in [
            (OwnerDetails::None, Value::Null, Value::Null),
            (OwnerDetails::Name, "Grace Hopper".into(), Value::Null),
            (OwnerDetails::Email, "Grace Hopper".into(), "grace@example.com".into()),
        ] {
            let explanation = explanation(details);
            let owner = &data(&explanation)["owner"];
            assert_eq!((&owner["name"], &owner["email"]), (&name, &email), "{details:?}");
            let EventMessage { attributes, .. } = message(&explanation);
            assert_eq!(attributes.get("owner").cloned(), name.as_str().map(str::to_owned));
            assert!(attributes.len() <= 9 && attributes.values().all(|value| !value.contains('@')), "{attributes:?}");
            assert!(!format!("{explanation:?}").contains("grace@"));
        }
    }

    #[test]
    fn members_that_are_not_known_are_left_out() {
        let Explanation { mut refresh, .. } = explanation(OwnerDetails::Name);
        (refresh.started_at, refresh.resource.name, refresh.notes) = (None, None, None);
        let mut bare = Explanation::new(refresh, FailureContext::default(), &FailingResources::default());
        let members = data(&bare).as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
        let expected =
            "ended_at event_type failing_since failures_in_a_row job_id resource_luid resource_type site_luid";
        assert_eq!(members, expected);
        bare.context.resource.name = Some("From its page".to_owned());
        assert_eq!(data(&bare)["resource_name"], "From its page");
        bare.refresh.outcome = RefreshOutcome::Succeeded;
        assert_eq!(bare.event(&site(), "luid"), None);
    }

    #[test]
    fn the_count_is_tableaus_and_the_time_is_given_only_where_it_is_that_of_the_count() {
        let mut explanation = explanation(OwnerDetails::Name);
        for (tableau, ours, expected, is_known) in [
            (Some(4), 4, 4, true),
            (Some(5), 1, 5, false),
            (Some(1), 2, 1, false),
            (None, 2, 2, true),
            (Some(0), 1, 1, true),
        ] {
            explanation.context.task.consecutive_failures = tableau;
            explanation.in_a_row.failures = ours;
            assert_eq!(data(&explanation)["failures_in_a_row"], expected);
            assert_eq!(data(&explanation)["failing_since"].is_string(), is_known, "{tableau:?} {ours}");
        }
    }

    #[test]
    fn an_event_that_sns_would_not_accept_is_none() {
        let mut explanation = explanation(OwnerDetails::Name);
        explanation.refresh.resource.name = Some("n".repeat(300_000));
        assert_eq!(explanation.event(&site(), "luid"), None);
    }
}
