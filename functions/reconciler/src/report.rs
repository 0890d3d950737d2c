//! The report of a run: its changes, or those of a plan, for programs and readers.

use std::collections::BTreeSet;

use serde::Serialize;
use shared::{
    events::catalogue::Event,
    problems::Problem,
    refreshes::{
        job::{Refresh, RefreshedResource},
        resolution::{EndKind, FailureEnd},
    },
    sites::token_end::TokenEnd,
};
use time::{OffsetDateTime, serde::rfc3339};

use crate::request::Action;

/// The most foreign webhooks of a site that a report names. It is kept in memory until the run ends.
const MAX_FOREIGN: usize = 100;

/// The report of a run. Sites are in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The action.
    pub action: Action,
    /// The report of each site.
    pub sites: Vec<SiteReport>,
    /// The reason why older signing keys could not be retired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_error: Option<String>,
    /// The reason why alerts could not be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerts_error: Option<String>,
    /// The reason why missed events or explanations could not be published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refreshes_error: Option<String>,
    /// The reason why the state could not be read or stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_error: Option<String>,
    /// The report as text.
    pub text: String,
}

/// The report of one site: its changes, or with [`Action::Plan`] the needed ones. Lists of texts hold webhook names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SiteReport {
    /// Our name for the site.
    pub site: String,
    /// Webhooks that got the declared URL and event.
    pub updated: Vec<String>,
    /// Webhooks that Tableau had disabled and that were enabled again.
    pub enabled: Vec<Enabled>,
    /// Webhooks that were created.
    pub created: Vec<String>,
    /// Webhooks that were deleted, since they are no longer declared.
    pub deleted: Vec<String>,
    /// Surplus copies of our webhooks that were deleted.
    pub surplus: Vec<String>,
    /// Owned webhooks that were as declared.
    pub unchanged: Vec<String>,
    /// Foreign webhooks, which were not changed.
    pub foreign: Vec<String>,
    /// Webhooks that Tableau tested, or was to test.
    pub tests: Vec<Tested>,
    /// Missed refresh events that were published.
    pub recovered: Vec<Recovered>,
    /// Failed refreshes whose reasons were published.
    pub explained: Vec<Explained>,
    /// Resources that refreshed successfully after failures.
    pub resolved: Vec<Resolved>,
    /// Refreshes that may be missing on the events topic for good.
    pub not_recovered: Vec<NotRecovered>,
    /// The number of refreshes left to the next run.
    #[serde(skip_serializing_if = "is_zero")]
    pub refreshes_left: usize,
    /// When its token ends, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ends: Option<TokenEnd>,
    /// Remarks.
    pub notes: Vec<String>,
    /// Problems that do not keep the webhooks from being as declared.
    pub warnings: Vec<Problem>,
    /// Problems because of which the webhooks are not as declared.
    pub errors: Vec<Problem>,
}

/// A webhook that was enabled again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Enabled {
    /// Its name.
    pub name: String,
    /// Tableau's reason for disabling it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The time of its last change, which for a disabled webhook is the disabling, as Tableau writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// An event that Tableau did not deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recovered {
    /// The event.
    pub event: Event,
    /// Tableau's identifier of the job.
    pub job: String,
    /// The refreshed resource.
    pub resource: String,
    /// The time of the event.
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
}

/// A failed refresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Tableau's identifier of the job.
    pub job: String,
    /// The resource.
    pub resource: String,
    /// The time of the failure.
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
}

/// A resource that refreshed successfully after failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// Tableau's identifier of the job, if a job showed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The resource.
    pub resource: String,
    /// The number of its failures.
    pub failures: u32,
    /// When the first of them ended.
    #[serde(with = "rfc3339")]
    pub since: OffsetDateTime,
}

/// Refreshes that may be missing on the events topic: one, by its job, or all of a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotRecovered {
    /// Tableau's identifier of the job, if it is one job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The events, if they are known.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub events: BTreeSet<Event>,
    /// The beginning of the time, if it is known.
    #[serde(with = "rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub from: Option<OffsetDateTime>,
    /// The end of the time.
    #[serde(with = "rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub until: Option<OffsetDateTime>,
    /// The reason.
    pub reason: String,
}

impl Recovered {
    /// The event of a refresh.
    pub(crate) fn of(refresh: &Refresh, event: &Event, at: OffsetDateTime) -> Self {
        Self { event: event.clone(), job: refresh.job_id.clone(), resource: display_name(&refresh.resource), at }
    }
}

impl Explained {
    /// A refresh that failed.
    pub(crate) fn of(refresh: &Refresh) -> Self {
        Self { job: refresh.job_id.clone(), resource: display_name(&refresh.resource), at: refresh.ended_at }
    }
}

impl Resolved {
    /// The end of failures.
    pub(crate) fn of(end: &FailureEnd) -> Self {
        Self {
            job: end.job_id.clone(),
            resource: resource_of(end),
            failures: end.failing.failures,
            since: end.failing.since.0,
        }
    }
}

impl NotRecovered {
    /// Whether it was found after the repair.
    pub(crate) fn is_new(&self) -> bool {
        self.job.is_some() || self.events.is_empty()
    }

    /// One job.
    pub(crate) fn job(id: &str, reason: impl Into<String>) -> Self {
        Self { job: Some(id.to_owned()), events: BTreeSet::new(), from: None, until: None, reason: reason.into() }
    }
}

fn display_name(RefreshedResource { kind, luid, name }: &RefreshedResource) -> String {
    format!("{} {:?}", kind.as_str(), name.as_ref().unwrap_or(luid))
}

/// Returns kind and name of the resource whose failures ended.
pub(crate) fn resource_of(end: &FailureEnd) -> String {
    format!("{} {:?}", end.failing.kind.as_str(), end.resource_name().unwrap_or(&end.luid))
}

/// Returns the remark that a resource is not refreshed any more.
pub(crate) fn note_of(end: &FailureEnd) -> String {
    let reason = match end.kind {
        EndKind::Resolved => "works again",
        EndKind::Suspended => "is not refreshed any more: Tableau has suspended its refresh",
        EndKind::Deleted => "is not refreshed any more: it was deleted",
        EndKind::Unused => "is not refreshed any more: it has no refresh task, and was not refreshed for 7 days",
    };
    format!("The {} {reason}.", resource_of(end))
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A webhook that Tableau was asked to test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tested {
    /// Its name.
    pub name: String,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The outcome of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The HTTP status of the destination's answer, `None` without an answer.
    Status(Option<u16>),
    /// The reason why Tableau did not test it.
    Error(String),
}

impl Tested {
    /// Whether the destination accepted the test.
    pub fn succeeded(&self) -> bool {
        matches!(self.outcome, Outcome::Status(Some(200..300)))
    }
}

impl Report {
    /// Adds a remark about the whole run.
    pub fn note(&mut self, note: &str) {
        self.text.push('\n');
        self.text.push_str(note);
    }

    /// Whether any site is not as declared.
    pub fn failed(&self) -> bool {
        self.sites.iter().any(SiteReport::failed)
    }
}

impl SiteReport {
    /// An empty report on a site.
    pub fn new(site: impl Into<String>) -> Self {
        Self { site: site.into(), ..Self::default() }
    }

    /// A report on a site that could not be checked.
    pub fn of_failure(site: impl Into<String>, error: Problem) -> Self {
        Self { errors: vec![error], ..Self::new(site) }
    }

    /// Adds foreign webhooks, and webhooks that cannot be read.
    pub(crate) fn add_foreign(&mut self, foreign: Vec<String>, odd: Vec<String>) {
        self.foreign = foreign;
        self.foreign.extend(odd);
        self.foreign.sort();
        let more = self.foreign.len().saturating_sub(MAX_FOREIGN);
        if more > 0 {
            self.foreign.truncate(MAX_FOREIGN);
            self.notes.push(format!("{more} more of its webhooks are not ours, and were not changed."));
        }
    }

    /// Whether the site is not as declared.
    pub fn failed(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Returns all problems, with the site's name.
    pub fn problems(&self) -> impl Iterator<Item = (&str, &Problem)> {
        self.errors.iter().chain(&self.warnings).map(|problem| (self.site.as_str(), problem))
    }

    /// Returns the number of changed webhooks, or of those to change.
    pub fn changes(&self) -> usize {
        let Self { updated, enabled, created, deleted, surplus, .. } = self;
        // A webhook that was updated and enabled is one webhook.
        let only_enabled = enabled.iter().filter(|enabled| !updated.contains(&enabled.name)).count();
        updated.len() + only_enabled + created.len() + deleted.len() + surplus.len()
    }
}
