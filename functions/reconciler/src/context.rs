//! Reads the context of refreshes: their resources, owners and tasks.

use std::collections::{BTreeMap, BTreeSet};

use lambda_support::error_chain;
use shared::{
    refreshes::{
        context::{FailureContext, Owner, OwnerDetails, RefreshTask, ResourceKey},
        failing::Finding,
        resolution::{EndKind, FailureEnd},
    },
    sites::address::refreshes_page,
    timestamp::Timestamp,
};
use tableau::{Session, TableauError};
use time::OffsetDateTime;
use url::Url;

use crate::{
    refreshes::{Listing, SiteRefreshes},
    request::Action,
    site_run::{CHANGE_TIME, SiteRun},
    state_table::StateTable,
};

/// The context of refreshes, as far as it was read. A part that cannot be read is left out.
#[derive(Debug)]
struct Contexts {
    /// The tasks of the wanted resources; `None` if the list could not be read.
    tasks: Option<BTreeMap<ResourceKey, RefreshTask>>,
    resources: BTreeMap<ResourceKey, FailureContext>,
    /// Resources that Tableau does not have any more.
    deleted: BTreeSet<ResourceKey>,
    owners: BTreeMap<String, Option<Owner>>,
    /// Whether no error concerned the site, after which no more is read.
    is_open: bool,
}

impl Contexts {
    /// Returns the context of a resource.
    fn of(&self, resource: &ResourceKey) -> FailureContext {
        self.resources.get(resource).cloned().unwrap_or_default()
    }

    /// Returns what was read. A part that could not be read is logged.
    fn left_out<R>(&mut self, result: Result<R, TableauError>) -> Option<R> {
        match result {
            Ok(read) => Some(read),
            Err(error) => {
                self.is_open &= !error.concerns_the_site();
                let error = error_chain(&error);
                tracing::info!(error, "a part of the context of a refresh could not be read, and is left out");
                None
            }
        }
    }
}

impl<T: StateTable> SiteRun<'_, T> {
    /// Reads the context of the failures that are to be explained, and finds the ends of earlier ones: the tasks of the site
    /// once, each resource and each owner once, and successful jobs only where the tasks do not show enough.
    pub(crate) async fn read_context(
        &mut self,
        session: &mut Session<'_>,
        listing: &mut Listing,
        refreshes: &mut SiteRefreshes,
    ) {
        let explained = refreshes.due.iter().filter(|due| due.explain).map(|due| due.refresh.resource.key());
        let explained: BTreeSet<_> = explained.collect();
        // A run that explains leaves the ends to the schedule.
        let failing = refreshes.state.failing().iter().filter(|_| self.run.action != Action::Explain);
        let failing = failing.map(|(luid, resource)| (resource.kind, luid.to_owned()));
        // One that has just failed again is left to the next run.
        let failing: BTreeSet<_> = failing.filter(|resource| !explained.contains(resource)).collect();
        let wanted: BTreeSet<_> = explained.union(&failing).cloned().collect();
        if wanted.is_empty() {
            return;
        }
        let mut contexts = Contexts {
            tasks: None,
            resources: BTreeMap::new(),
            deleted: BTreeSet::new(),
            owners: BTreeMap::new(),
            is_open: true,
        };
        contexts.tasks = contexts.left_out(session.extract_tasks(&wanted).await);
        let now = self.run.now + session.clock_skew().unwrap_or_default();
        let now = Timestamp(now.truncate_to_second());
        let (mut ends, without_task) = self.find_ends(now, &failing, contexts.tasks.as_ref(), refreshes);
        let Listing { successes, window, .. } = listing;
        successes.retain(|job| refreshes.may_be_due(job, *window));
        let candidates: Vec<_> = successes.iter().collect();
        let read = self.read_candidates(session, &candidates, &self.run.successes, refreshes, *window).await;
        // The others keep no job back: while a resource fails, each run reads on.
        successes.truncate(read);
        let of_due = refreshes.due.iter().map(|due| due.refresh.resource.key());
        let of_due: BTreeSet<_> = of_due.filter(|resource| wanted.contains(resource)).collect();
        let of_ends: Vec<_> = ends.keys().filter(|resource| !of_due.contains(*resource)).cloned().collect();
        for resource in of_due.into_iter().chain(of_ends) {
            self.read_resource(session, &resource, &mut contexts).await;
            self.read_owner(session, &resource, &mut contexts).await;
        }
        for resource in &without_task {
            if !contexts.resources.contains_key(resource) {
                self.read_resource(session, resource, &mut contexts).await;
            }
        }
        for due in &mut refreshes.due {
            due.context = contexts.of(&due.refresh.resource.key());
        }
        ends.extend(without_task.intersection(&contexts.deleted).map(|resource| (resource.clone(), EndKind::Deleted)));
        for ((kind, luid), end) in ends {
            let Some(failing) = refreshes.state.failing().get(&luid).cloned() else { continue };
            let context = contexts.of(&(kind, luid.clone()));
            let end = FailureEnd { kind: end, luid, name: None, failing, at: now, job_id: None, context };
            refreshes.ends.push(end);
        }
    }

    /// Returns the ends that the tasks show, and the resources without a task that may be deleted. Notes from when on
    /// successful jobs may show more.
    fn find_ends(
        &self,
        now: Timestamp,
        failing: &BTreeSet<ResourceKey>,
        tasks: Option<&BTreeMap<ResourceKey, RefreshTask>>,
        refreshes: &mut SiteRefreshes,
    ) -> (BTreeMap<ResourceKey, EndKind>, BTreeSet<ResourceKey>) {
        let (mut ends, mut without_task) = (BTreeMap::new(), BTreeSet::new());
        for (kind, luid) in failing {
            let Some(resource) = refreshes.state.failing().get(luid) else { continue };
            let (key, last) = ((*kind, luid.clone()), resource.last);
            let finding = resource.finding(luid, tasks, now);
            match finding {
                Finding::Ended(end) => _ = ends.insert(key, end),
                Finding::WithoutTask if self.is_check_due(last) => _ = without_task.insert(key),
                Finding::Failing | Finding::Unknown | Finding::WithoutTask => {}
            }
            if matches!(finding, Finding::Unknown | Finding::WithoutTask | Finding::Ended(EndKind::Unused)) {
                let after = refreshes.successes_after.map_or(last, |after| after.min(last));
                refreshes.successes_after = Some(after);
            }
        }
        (ends, without_task)
    }

    /// Whether a resource without a task is looked up, since it may be deleted: once an hour after its last failure.
    fn is_check_due(&self, last: Timestamp) -> bool {
        let checked = self.run.state.run.content.checked(&self.advice.entry.name);
        let hours = |at: OffsetDateTime| (at - last.0).whole_hours();
        checked.is_none_or(|checked| hours(checked) < hours(self.run.now))
    }

    /// Reads a resource, within the limits of the run.
    async fn read_resource(&mut self, session: &mut Session<'_>, key: &ResourceKey, contexts: &mut Contexts) {
        let task = contexts.tasks.as_ref().and_then(|tasks| tasks.get(key)).copied().unwrap_or_default();
        let mut context = FailureContext { task, history_url: self.history_url(), ..FailureContext::default() };
        if contexts.is_open && self.has_time(CHANGE_TIME) && self.run.resources.take() {
            let resource = session.resource(key.0, &key.1).await;
            if resource.as_ref().is_err_and(TableauError::is_not_found) {
                contexts.deleted.insert(key.clone());
            }
            context.resource = contexts.left_out(resource).unwrap_or_default();
        }
        contexts.resources.insert(key.clone(), context);
    }

    /// Reads the owner of a resource, unless it was read before.
    async fn read_owner(&mut self, session: &mut Session<'_>, key: &ResourceKey, contexts: &mut Contexts) {
        let details = self.run.config.owner_details;
        let Some(id) = contexts.of(key).resource.owner_id.filter(|_| details != OwnerDetails::None) else { return };
        if !contexts.owners.contains_key(&id) {
            if !contexts.is_open || !self.has_time(CHANGE_TIME) {
                return;
            }
            let user = session.user(&id).await;
            let owner = contexts.left_out(user).and_then(|user| details.owner(&id, &user));
            contexts.owners.insert(id.clone(), owner);
        }
        let owner = contexts.owners.get(&id).cloned().flatten();
        if let Some(context) = contexts.resources.get_mut(key) {
            context.owner = owner;
        }
    }

    /// Returns the page with the refresh tasks of the site.
    fn history_url(&self) -> Option<Url> {
        refreshes_page(&self.advice.entry.server, &self.advice.entry.content_url)
    }
}
