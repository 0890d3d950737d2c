//! Resources whose refreshes fail.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::Duration;

use crate::{
    refreshes::{
        context::{RefreshTask, ResourceKey},
        failed_event::FailedEvent,
        job::{Refresh, RefreshOutcome, RefreshedKind},
        resolution::EndKind,
    },
    timestamp::Timestamp,
};

/// The most failing resources of a site that are stored. With 230 bytes each they fill a third of an item.
const MAX_FAILING: usize = 400;

/// The time after a failure without a task or a job of the resource: it is no longer refreshed.
const UNUSED_AFTER: Duration = Duration::days(7);

/// The most by which the time of an event is later than the end of its job. Tableau takes both from one clock, and creates
/// the event when the job has ended.
const EVENT_DELAY: Duration = Duration::minutes(1);

/// The failing resources of a site, by Tableau's identifier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FailingResources(BTreeMap<String, FailingResource>);

/// A resource whose last known refresh failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailingResource {
    /// Kind of resource.
    pub kind: RefreshedKind,
    /// Tableau's identifier of the last failed job.
    pub job: String,
    /// When the first of its failures ended.
    pub since: Timestamp,
    /// When the last of them ended.
    pub last: Timestamp,
    /// The number of failures, as far as Tableau's jobs showed them.
    pub failures: u32,
    /// Whether an alert said that Tableau suspended its refresh.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_suspended: bool,
}

/// The state of a failing resource, as far as its tasks show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It fails, or is still suspended.
    Failing,
    /// Its failures are over, or its refreshes.
    Ended(EndKind),
    /// The tasks do not show whether it was refreshed. Its jobs do.
    Unknown,
    /// It has no task. Its jobs show whether it was refreshed, and it may be deleted.
    WithoutTask,
}

impl FailingResource {
    /// Returns what the tasks of its site show of it. `tasks` are `None` if they could not be read.
    pub fn finding(&self, luid: &str, tasks: Option<&BTreeMap<ResourceKey, RefreshTask>>, now: Timestamp) -> Finding {
        let Some(tasks) = tasks else { return Finding::Unknown };
        let Some(task) = tasks.get(&(self.kind, luid.to_owned())) else {
            let is_unused = now.0 - self.last.0 > UNUSED_AFTER;
            return if is_unused { Finding::Ended(EndKind::Unused) } else { Finding::WithoutTask };
        };
        match (task.is_suspended, task.consecutive_failures) {
            // Its schedule is suspended, and somebody refreshed it all the same.
            (Some(true), Some(0)) => Finding::Ended(EndKind::Resolved),
            (Some(true), _) if self.is_suspended => Finding::Failing,
            (Some(true), _) => Finding::Ended(EndKind::Suspended),
            // Resuming a task sets its count to zero, too.
            _ if self.is_suspended => Finding::Unknown,
            (_, Some(0)) => Finding::Ended(EndKind::Resolved),
            (_, Some(_)) => Finding::Failing,
            (_, None) => Finding::Unknown,
        }
    }
}

impl FailingResources {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the resource, if it fails.
    pub fn get(&self, luid: &str) -> Option<&FailingResource> {
        self.0.get(luid)
    }

    /// Returns the resource of a failed refresh after this failure. A repetition changes nothing.
    pub fn after(&self, refresh: &Refresh) -> FailingResource {
        let ended_at = Timestamp(refresh.ended_at);
        let before = self.get(&refresh.resource.luid);
        if let Some(before) = before.filter(|before| before.last >= ended_at) {
            return before.clone();
        }
        FailingResource {
            kind: refresh.resource.kind,
            job: refresh.job_id.clone(),
            since: before.map_or(ended_at, |before| before.since),
            last: ended_at,
            failures: before.map_or(1, |before| before.failures.saturating_add(1)),
            is_suspended: false,
        }
    }

    /// Returns the resource of a successful refresh, if it failed before that.
    pub fn resolved_by(&self, refresh: &Refresh) -> Option<&FailingResource> {
        let is_resolved = |resource: &&FailingResource| {
            refresh.outcome == RefreshOutcome::Succeeded && resource.last.0 < refresh.ended_at
        };
        self.get(&refresh.resource.luid).filter(is_resolved)
    }

    /// Returns the resources with their identifiers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &FailingResource)> {
        self.0.iter().map(|(luid, resource)| (luid.as_str(), resource))
    }

    /// Notes the end of a resource's failures or refreshes. A suspended one stays until it is resumed and refreshed.
    pub fn note_ended(&mut self, luid: &str, kind: EndKind) {
        match (kind, self.0.get_mut(luid)) {
            (EndKind::Suspended, Some(resource)) => resource.is_suspended = true,
            (EndKind::Suspended, None) => {}
            (EndKind::Resolved | EndKind::Deleted | EndKind::Unused, _) => _ = self.0.remove(luid),
        }
    }

    /// Notes a failure that was explained, and whether its alert said that Tableau suspended the refresh.
    pub fn note_failed(&mut self, refresh: &Refresh, is_suspended: bool) {
        let mut resource = self.after(refresh);
        resource.is_suspended |= is_suspended;
        self.0.insert(refresh.resource.luid.clone(), resource);
        if self.0.len() > MAX_FAILING
            && let Some(oldest) = self.0.iter().min_by_key(|(_, it)| it.last).map(|(luid, _)| luid.clone())
        {
            self.0.remove(&oldest);
        }
    }

    /// Whether the failure of an event was explained.
    pub fn is_explained(&self, failed: &FailedEvent) -> bool {
        let is_later = |resource: &FailingResource| failed.at.is_none_or(|at| resource.last.0 + EVENT_DELAY >= at);
        self.get(&failed.resource_luid).is_some_and(is_later)
    }
}

#[cfg(test)]
mod tests {
    use time::{OffsetDateTime, macros::datetime};

    use super::*;
    use crate::refreshes::job::RefreshedResource;

    const AT: OffsetDateTime = datetime!(2026-05-21 08:00 UTC);

    fn failed(luid: &str, minute: i64) -> Refresh {
        Refresh {
            job_id: format!("{luid}-{minute}"),
            resource: RefreshedResource { kind: RefreshedKind::Workbook, luid: luid.to_owned(), name: None },
            started_at: None,
            ended_at: AT + Duration::minutes(minute),
            outcome: RefreshOutcome::Failed,
            notes: None,
        }
    }

    fn event(luid: &str, at: Option<OffsetDateTime>) -> FailedEvent {
        FailedEvent { site: "marketing".parse().expect("a site"), resource_luid: luid.to_owned(), at }
    }

    #[test]
    fn failures_are_counted_once_each_in_any_order() {
        let mut failing = FailingResources::default();
        for minute in [5, 5, 20, 5, 20] {
            failing.note_failed(&failed("a", minute), false);
        }
        let (since, last) = (Timestamp(AT + Duration::minutes(5)), Timestamp(AT + Duration::minutes(20)));
        let (kind, job) = (RefreshedKind::Workbook, "a-20".to_owned());
        let expected = FailingResource { kind, job, since, last, failures: 2, is_suspended: false };
        assert_eq!(failing.get("a"), Some(&expected));
        assert_eq!(failing.get("b"), None);
    }

    #[test]
    fn an_event_is_explained_by_a_failure_that_ended_before_it_or_later() {
        let mut failing = FailingResources::default();
        failing.note_failed(&failed("a", 5), false);
        let at = |minutes, seconds| Some(AT + Duration::minutes(minutes) + Duration::seconds(seconds));
        for (luid, at, expected) in [
            ("a", at(5, 0), true),
            ("a", at(5, 59), true),
            ("a", at(3, 0), true),
            ("a", at(6, 1), false),
            ("a", None, true),
            ("b", at(5, 0), false),
            ("b", None, false),
        ] {
            assert_eq!(failing.is_explained(&event(luid, at)), expected, "{luid} {at:?}");
        }
    }

    #[test]
    fn the_tasks_show_whether_a_resource_still_fails() {
        let mut failing = FailingResources::default();
        failing.note_failed(&failed("a", 0), false);
        let tasks = |count, is_suspended| {
            let task = RefreshTask { next_run_at: None, consecutive_failures: count, is_suspended };
            BTreeMap::from([((RefreshedKind::Workbook, "a".to_owned()), task)])
        };
        let mut finding = |tasks: Option<&BTreeMap<_, _>>, days, is_suspended| {
            let resource = failing.0.get_mut("a").expect("a resource");
            resource.is_suspended = is_suspended;
            resource.finding("a", tasks, Timestamp(AT + Duration::days(days)))
        };
        for (tasks, first, suspended) in [
            (tasks(Some(0), Some(false)), Finding::Ended(EndKind::Resolved), Finding::Unknown),
            (tasks(Some(1), Some(false)), Finding::Failing, Finding::Unknown),
            (tasks(None, None), Finding::Unknown, Finding::Unknown),
            (tasks(Some(5), Some(true)), Finding::Ended(EndKind::Suspended), Finding::Failing),
            (tasks(None, Some(true)), Finding::Ended(EndKind::Suspended), Finding::Failing),
            (tasks(Some(0), Some(true)), Finding::Ended(EndKind::Resolved), Finding::Ended(EndKind::Resolved)),
        ] {
            for days in [0, 8] {
                assert_eq!(finding(Some(&tasks), days, false), first, "{tasks:?}");
                assert_eq!(finding(Some(&tasks), days, true), suspended, "{tasks:?}");
            }
        }
        let none = BTreeMap::new();
        assert_eq!(finding(None, 8, false), Finding::Unknown);
        assert_eq!(finding(Some(&none), 7, false), Finding::WithoutTask);
        assert_eq!(finding(Some(&none), 8, false), Finding::Ended(EndKind::Unused));
        let other = tasks(Some(0), None).into_iter().map(|((_, luid), task)| ((RefreshedKind::Datasource, luid), task));
        assert_eq!(finding(Some(&other.collect()), 0, false), Finding::WithoutTask);
    }

    #[test]
    fn only_a_later_success_resolves_failures() {
        let mut failing = FailingResources::default();
        failing.note_failed(&failed("a", 5), true);
        let ended = |luid, minute, outcome| Refresh { outcome, ..failed(luid, minute) };
        let (succeeded, cancelled) = (RefreshOutcome::Succeeded, RefreshOutcome::Cancelled);
        for (refresh, expected) in [
            (ended("a", 6, succeeded), true),
            (ended("a", 5, succeeded), false),
            (ended("a", 6, cancelled), false),
            (ended("a", 6, RefreshOutcome::Failed), false),
            (ended("b", 6, succeeded), false),
        ] {
            assert_eq!(failing.resolved_by(&refresh).is_some(), expected, "{refresh:?}");
        }
        // A failure after it was resumed: a new suspension has an alert again.
        failing.note_failed(&failed("a", 6), false);
        assert_eq!(failing.get("a").map(|resource| resource.is_suspended), Some(false));
        failing.note_ended("a", EndKind::Suspended);
        failing.note_failed(&failed("a", 6), false);
        assert_eq!(failing.get("a").map(|resource| resource.is_suspended), Some(true));
        for kind in [EndKind::Resolved, EndKind::Deleted, EndKind::Unused] {
            let mut failing = failing.clone();
            failing.note_ended("a", kind);
            assert!(failing.is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn of_more_failing_resources_than_are_stored_the_oldest_are_forgotten() {
        let mut failing = FailingResources::default();
        for number in 0..=MAX_FAILING {
            failing.note_failed(&failed(&format!("luid-{number}"), number.try_into().expect("a number")), false);
        }
        assert_eq!(
            (failing.0.len(), failing.get("luid-0"), failing.get("luid-1").is_some()),
            (MAX_FAILING, None, true)
        );
    }
}
