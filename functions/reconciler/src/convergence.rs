//! Convergence of one site: compares its webhooks with the declared ones, changes them, lists them again, and has Tableau
//! test the new ones.

use std::collections::BTreeSet;

use lambda_support::error_chain;
use shared::{
    problems::ProblemKind,
    sites::{
        plan::{Change, Plan},
        webhook::{DesiredWebhook, ObservedWebhook},
    },
};
use tableau::{Session, TableauError, Webhooks};

use crate::{
    config::Config,
    remedies::out_of_time,
    report::{Enabled, Outcome, SiteReport, Tested},
    site_run::{CHANGE_TIME, SiteRun},
    state_table::StateTable,
};

/// Changes without a good answer, each with its error if it was tried.
type Uncertain = Vec<(Change, Option<TableauError>)>;

impl<T: StateTable> SiteRun<'_, T> {
    /// Lists the site's webhooks. One that cannot be read is an error if it may be ours.
    async fn list(&self, session: &mut Session<'_>) -> Result<Webhooks, TableauError> {
        let Config { name_prefix, receiver, .. } = self.run.config;
        session.list(|odd| name_prefix.may_own(odd, receiver)).await
    }

    /// Reports the needed changes as if they were carried out.
    pub(crate) async fn plan(
        &mut self,
        session: &mut Session<'_>,
        desired: Vec<DesiredWebhook>,
    ) -> Result<(), TableauError> {
        let Webhooks { readable, odd } = self.list(session).await?;
        let Plan { changes, unchanged, foreign } = Plan::new(&self.run.config.name_prefix, desired, readable);
        self.report.unchanged = unchanged;
        self.report.add_foreign(foreign, odd);
        changes.into_iter().for_each(|change| self.report_change(change));
        Ok(())
    }

    /// Brings the site's webhooks to the desired ones.
    pub(crate) async fn converge(
        &mut self,
        session: &mut Session<'_>,
        desired: Vec<DesiredWebhook>,
    ) -> Result<(), TableauError> {
        let Webhooks { readable: observed, odd } = self.list(session).await?;
        self.note_checked();
        let Plan { changes, unchanged, foreign } =
            Plan::new(&self.run.config.name_prefix, desired.clone(), observed.clone());
        self.report.unchanged = unchanged;
        self.report.add_foreign(foreign, odd);
        self.checkpoint_before_repair(session, &observed, &changes).await;
        let observed = if changes.is_empty() {
            observed
        } else {
            // Two lists of a large site at once would take twice the memory.
            drop(observed);
            self.repair(session, changes, &desired).await?
        };
        self.note_repaired(session, &observed);
        let to_test = self.names_to_test();
        self.test(session, observed, &to_test).await;
        Ok(())
    }

    /// Carries changes out and lists the webhooks again. Changes whose outcome is uncertain and that the new list does not
    /// show are tried once more, never without a new list: there would be two webhooks. Returns the last list.
    async fn repair(
        &mut self,
        session: &mut Session<'_>,
        mut changes: Vec<Change>,
        desired: &[DesiredWebhook],
    ) -> Result<Vec<ObservedWebhook>, TableauError> {
        let mut unrepaired = BTreeSet::new();
        let mut may_repeat = true;
        loop {
            let uncertain = self.carry_out_all(session, changes, &mut unrepaired).await?;
            let observed = self.list(session).await?.readable;
            let left = Plan::new(&self.run.config.name_prefix, desired.to_vec(), observed.clone()).changes;
            // A webhook may need another change than the uncertain one: a copy that somebody else made needs no third.
            let left_to_do: BTreeSet<_> = left.iter().map(|change| (kind_of(change), name_of(change))).collect();
            let is_left = |change: &Change| left_to_do.contains(&(kind_of(change), name_of(change)));
            let (failed, done): (Uncertain, Uncertain) = uncertain.into_iter().partition(|(change, _)| is_left(change));
            for (change, _) in done {
                unrepaired.remove(name_of(&change));
                self.report_change(change);
            }
            if failed.is_empty() || !may_repeat {
                let errors = failed.iter().filter_map(|(_, error)| error.as_ref());
                self.report.errors.extend(errors.map(|error| self.advice.on_site(error)));
                // The report has the cause of a change that failed.
                if !left.is_empty() && !self.report.failed() {
                    self.report.errors.push(self.advice.on_differences(left.iter().map(name_of)));
                }
                return Ok(observed);
            }
            may_repeat = false;
            changes = failed.into_iter().map(|(change, _)| change).collect();
        }
    }

    /// Carries changes out while there is time. Returns those whose outcome is uncertain.
    ///
    /// `unrepaired` holds the names of webhooks that could not be repaired. Their surplus copies stay, since one of them may
    /// be the one that works.
    async fn carry_out_all(
        &mut self,
        session: &mut Session<'_>,
        changes: Vec<Change>,
        unrepaired: &mut BTreeSet<String>,
    ) -> Result<Uncertain, TableauError> {
        let mut uncertain = Vec::new();
        for change in changes {
            let name = name_of(&change).to_owned();
            if !self.has_time(CHANGE_TIME) {
                let then = self.run.action.or_again("The next run goes on");
                self.report.errors.push(out_of_time(format!("No time was left for {name}. {then}.")));
                continue;
            }
            if matches!(change, Change::Delete { is_surplus: true, .. }) && unrepaired.contains(&name) {
                uncertain.push((change, None));
                continue;
            }
            let is_delete = matches!(change, Change::Delete { .. });
            match carry_out(session, &change).await {
                Ok(()) => {
                    tracing::info!(webhook = name, change = kind_of(&change), "changed a webhook");
                    unrepaired.remove(&name);
                    self.report_change(change);
                    continue;
                }
                // The error concerns this change only.
                Err(error) if error.is_local() => self.report.errors.push(self.advice.on_change(&change, &error)),
                Err(error) if error.is_uncertain() => uncertain.push((change, Some(error))),
                Err(error) => return Err(error),
            }
            // A copy that cannot be deleted is no reason to keep the others.
            if !is_delete {
                unrepaired.insert(name);
            }
        }
        Ok(uncertain)
    }

    /// Returns the webhooks to test: each that Tableau had disabled, and one of those with a new address. The others differ
    /// from it in nothing that a test could show. If the last test failed, one webhook is tested until a test succeeds.
    fn names_to_test(&self) -> BTreeSet<String> {
        let SiteReport { updated, created, unchanged, enabled, .. } = &self.report;
        let test_failed = self.has_known_problem(ProblemKind::TestFailed);
        let new = updated.iter().chain(created).chain(unchanged.iter().filter(|_| test_failed)).take(1);
        enabled.iter().map(|Enabled { name, .. }| name).chain(new).cloned().collect()
    }

    /// Has Tableau test every webhook of ours.
    pub(crate) async fn test_all(&mut self, session: &mut Session<'_>) -> Result<(), TableauError> {
        let is_ours = |webhook: &ObservedWebhook| self.run.config.name_prefix.event_of(&webhook.name).is_some();
        let observed: Vec<_> = self.list(session).await?.readable.into_iter().filter(is_ours).collect();
        let names = observed.iter().map(|webhook| webhook.name.clone()).collect();
        self.test(session, observed, &names).await;
        // The action is to test: a test that fails fails the run.
        let failed = std::mem::take(&mut self.report.warnings);
        self.report.errors.extend(failed);
        Ok(())
    }

    /// Has Tableau test webhooks, by name. A test that fails changes nothing and is a warning.
    async fn test(&mut self, session: &mut Session<'_>, mut observed: Vec<ObservedWebhook>, names: &BTreeSet<String>) {
        // Sorted, so that a report reads the same whatever order Tableau lists in.
        observed.sort_by(|a, b| a.name.cmp(&b.name));
        for webhook in observed.into_iter().filter(|webhook| names.contains(&webhook.name)) {
            if !self.has_time(CHANGE_TIME) {
                let what = format!("{} was not tested, since there was no time left.", webhook.name);
                self.report.notes.push(what.clone());
                self.report.warnings.push(out_of_time(what));
                continue;
            }
            let outcome = match session.test(&webhook.id).await {
                Ok(status) => Outcome::Status(status),
                Err(error) => Outcome::Error(error_chain(&error)),
            };
            self.report.tests.push(Tested { name: webhook.name, outcome });
        }
        self.report.warnings.extend(self.advice.on_tests(&self.report.tests));
    }

    /// Reports a change that was carried out.
    fn report_change(&mut self, change: Change) {
        let report = &mut self.report;
        let disabled = match change {
            Change::Update { observed, desired } => {
                report.updated.push(desired.name);
                Some(observed).filter(|observed| !observed.is_enabled)
            }
            Change::Enable { observed, .. } => Some(observed),
            Change::Create { desired } => {
                report.created.push(desired.name);
                None
            }
            Change::Delete { observed, is_surplus } => {
                if is_surplus { &mut report.surplus } else { &mut report.deleted }.push(observed.name);
                None
            }
        };
        if let Some(ObservedWebhook { name, status_change_reason, updated_at, .. }) = disabled {
            let enabled = Enabled { name, reason: status_change_reason, since: updated_at };
            report.warnings.push(self.advice.on_disabled(&enabled));
            report.enabled.push(enabled);
        }
    }
}

async fn carry_out(session: &mut Session<'_>, change: &Change) -> Result<(), TableauError> {
    match change {
        Change::Update { observed, desired } | Change::Enable { observed, desired } => {
            session.update(&observed.id, desired).await
        }
        Change::Create { desired } => session.create(desired).await,
        Change::Delete { observed, .. } => session.delete(&observed.id).await,
    }
}

fn name_of(change: &Change) -> &str {
    match change {
        Change::Create { desired } => &desired.name,
        Change::Update { observed, .. } | Change::Enable { observed, .. } | Change::Delete { observed, .. } => {
            &observed.name
        }
    }
}

fn kind_of(change: &Change) -> &'static str {
    match change {
        Change::Create { .. } => "create",
        Change::Update { .. } => "update",
        Change::Enable { .. } => "enable",
        Change::Delete { .. } => "delete",
    }
}
