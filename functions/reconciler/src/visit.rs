//! A visit to one site: signed in to, listed, compared, put right, listed again, signed out of.

use std::{collections::BTreeSet, time::Duration};

use common::with_causes;
use shared::{
    event::Event,
    keyring::Keyring,
    known_secrets::KnownSecrets,
    plan::{Change, Plan},
    remembered::{SiteMemory, heard_events},
    site::SiteEntry,
    told::Told,
    trouble::TroubleKind,
    webhook::{DesiredWebhook, ObservedWebhook},
};
use tableau::{Session, Tableau, TableauError, Webhooks};
use tokio::time::Instant;

use crate::{
    config::Config,
    explained::{Advice, out_of_time},
    parameters::Parameters,
    refreshes::{Look, Refreshes},
    report::{Enabled, Outcome, SiteReport, Tested},
    request::Action,
};

/// How much time there must be left for a site to be looked at: signing in, listing and signing out, with Tableau as slow
/// as it has been seen.
const SITE_TIME: Duration = Duration::from_secs(60);

/// How much time there must be left for a change or a test: itself, listing again and signing out.
const CHANGE_TIME: Duration = Duration::from_secs(45);

/// What is the same for all sites of a run.
#[derive(Debug)]
pub(crate) struct Run<'a, P> {
    pub(crate) config: &'a Config,
    pub(crate) tableau: &'a Tableau,
    pub(crate) action: Action,
    pub(crate) keyring: Keyring,
    /// What people were told of before the run.
    pub(crate) told: &'a Told,
    /// What is known and done of refreshes, unless that is switched off or not asked for.
    pub(crate) refreshes: Option<Refreshes<'a, P>>,
    /// When all visits must have ended.
    pub(crate) deadline: Instant,
}

/// A visit, and what came of it so far.
struct Visit<'a, P> {
    run: &'a Run<'a, P>,
    advice: Advice<'a>,
    wanted: &'a BTreeSet<Event>,
    /// What is remembered of the site's refreshes, once that is known.
    memory: Option<SiteMemory>,
    report: SiteReport,
    /// When the visit must have ended.
    deadline: Instant,
}

impl<P: Parameters> Run<'_, P> {
    /// Does at one site what was asked for, until the `deadline` of its turn.
    #[tracing::instrument(skip_all, fields(site = %entry.name))]
    pub(crate) async fn visit(&self, entry: &SiteEntry, deadline: Instant) -> SiteReport {
        let Self { config, tableau, action, keyring, deadline: of_run, told: _, refreshes } = self;
        if Instant::now() + SITE_TIME >= *of_run {
            let then = action.or_again("The next run begins with it");
            let what = format!("Not looked at, since there was no time left. {then}.");
            return SiteReport::of_failure(entry.name.as_str(), out_of_time(what));
        }
        let Config { name_prefix, receiver, events, .. } = config;
        let events = entry.events.as_ref().unwrap_or(events);
        let mut visit = Visit {
            run: self,
            advice: Advice { config, action: *action, entry },
            wanted: events,
            memory: None,
            report: SiteReport::new(entry.name.as_str()),
            deadline,
        };
        visit.report.notes.extend(events.iter().filter(|event| !event.is_known()).map(unknown_event));
        let desired = match action {
            Action::Destroy => Vec::new(),
            _ => DesiredWebhook::all(&entry.name, events, name_prefix, receiver, keyring),
        };
        let secrets = KnownSecrets::of_addresses(&entry.name, events.iter().cloned(), keyring);
        match tableau.sign_in(entry, secrets, deadline).await {
            Ok(mut session) => {
                let result = match action {
                    Action::Plan => visit.plan(&mut session, desired).await,
                    Action::Apply | Action::Rotate | Action::Destroy => visit.converge(&mut session, desired).await,
                    Action::Test => visit.test_all(&mut session).await,
                };
                match (result, refreshes) {
                    (Ok(()), Some(refreshes)) => visit.read_jobs(&mut session, refreshes).await,
                    (Ok(()), None) => {}
                    (Err(error), _) => visit.report.errors.push(visit.advice.on_site(&error)),
                }
                if let Err(error) = session.sign_out().await {
                    let error = with_causes(&error);
                    tracing::warn!(error, "the session could not be ended; it ends by itself or at the next sign-in");
                }
            }
            Err(error) => visit.report.errors.push(visit.advice.on_site(&error)),
        }
        let Visit { report, .. } = visit;
        tracing::info!(
            updated = report.updated.len(),
            enabled = report.enabled.len(),
            created = report.created.len(),
            deleted = report.deleted.len() + report.surplus.len(),
            unchanged = report.unchanged.len(),
            foreign = report.foreign.len(),
            tests = report.tests.len(),
            errors = report.errors.len(),
            "looked after the site"
        );
        report
    }
}

impl<P: Parameters> Visit<'_, P> {
    fn has_time(&self, needed: Duration) -> bool {
        Instant::now() + needed < self.deadline
    }

    /// Lists the site's webhooks, of which each that may be ours can be read.
    async fn list(&self, session: &mut Session<'_>) -> Result<Webhooks, TableauError> {
        let Config { name_prefix, receiver, .. } = self.run.config;
        session.list(|odd| name_prefix.may_own(odd, receiver)).await
    }

    /// Compares, and reports what there is to change as if it were done.
    async fn plan(&mut self, session: &mut Session<'_>, desired: Vec<DesiredWebhook>) -> Result<(), TableauError> {
        let prefix = &self.run.config.name_prefix;
        let Webhooks { readable, odd } = self.list(session).await?;
        let Plan { changes, unchanged, foreign } = Plan::new(prefix, desired, readable);
        self.report.unchanged = unchanged;
        self.report.add_foreign(foreign, odd);
        changes.into_iter().for_each(|change| self.done(change));
        Ok(())
    }

    /// Compares, changes, compares again, and has Tableau test what is new.
    async fn converge(&mut self, session: &mut Session<'_>, desired: Vec<DesiredWebhook>) -> Result<(), TableauError> {
        let prefix = &self.run.config.name_prefix;
        let Webhooks { readable: mut observed, odd } = self.list(session).await?;
        self.look(session, &observed).await;
        let Plan { mut changes, unchanged, foreign } = Plan::new(prefix, desired.clone(), observed.clone());
        self.report.unchanged = unchanged;
        self.report.add_foreign(foreign, odd);
        let mut may_repeat = true;
        let mut not_right = BTreeSet::new();
        while !changes.is_empty() {
            let uncertain = self.carry_out_all(session, changes, &mut not_right).await?;
            // Before there is another one to keep.
            drop(observed);
            observed = self.list(session).await?.readable;
            let left = Plan::new(prefix, desired.clone(), observed.clone()).changes;
            // What became of a change without a good answer, the list tells. What is missing is made, once more: never
            // without looking, or there would be two. What is left to do for the same webhook may be another thing, too: a
            // copy that somebody else made is no reason to make a third.
            let what = |change: &Change| (kind_of(change), name_of(change).to_owned());
            let left_to_do: BTreeSet<_> = left.iter().map(what).collect();
            let is_left = |change: &Change| left_to_do.contains(&what(change));
            let (failed, done): (Vec<_>, Vec<_>) = uncertain.into_iter().partition(|(change, _)| is_left(change));
            for (change, _) in done {
                not_right.remove(name_of(&change));
                self.done(change);
            }
            if !failed.is_empty() && may_repeat {
                may_repeat = false;
                changes = failed.into_iter().map(|(change, _)| change).collect();
                continue;
            }
            let errors = failed.iter().filter_map(|(_, error)| error.as_ref());
            self.report.errors.extend(errors.map(|error| self.advice.on_site(error)));
            // A change that failed is reported already, by its cause.
            if !left.is_empty() && !self.report.failed() {
                self.report.errors.push(self.advice.on_what_is_left(left.iter().map(name_of)));
            }
            break;
        }
        self.look_again(session, &observed);
        // What Tableau disabled, and one of those with a new address: the others differ from it in nothing that a test
        // could show. So too where the last test failed, until one succeeds.
        let SiteReport { site, updated, created, unchanged, enabled, .. } = &self.report;
        let test_failed = self.run.told.knows(TroubleKind::TestFailed, site);
        let new = updated.iter().chain(created).chain(unchanged.iter().filter(|_| test_failed)).take(1);
        let to_test: BTreeSet<_> = enabled.iter().map(|Enabled { name, .. }| name).chain(new).cloned().collect();
        self.test(session, observed, &to_test).await;
        Ok(())
    }

    /// Takes note of which webhooks are silent, before anything is repaired.
    async fn look(&mut self, session: &Session<'_>, observed: &[ObservedWebhook]) {
        let Config { name_prefix, receiver, .. } = self.run.config;
        // What is deleted on purpose is not missed.
        let Some(refreshes) = self.run.refreshes.as_ref().filter(|_| self.run.action != Action::Destroy) else {
            return;
        };
        let site = &self.advice.entry.name;
        let heard = heard_events(site, observed, receiver, &self.run.keyring);
        let owned = observed.iter().filter_map(|webhook| name_prefix.event_of(&webhook.name)).collect();
        let look = Look { site, wanted: self.wanted, heard: &heard, owned: &owned, ahead: session.ahead() };
        self.memory = refreshes.look(look, &mut self.report).await;
    }

    /// Takes note of which webhooks are silent still.
    fn look_again(&mut self, session: &Session<'_>, observed: &[ObservedWebhook]) {
        let Config { receiver, .. } = self.run.config;
        let Some(refreshes) = self.run.refreshes.as_ref().filter(|_| self.run.action != Action::Destroy) else {
            return;
        };
        let site = &self.advice.entry.name;
        let heard = heard_events(site, observed, receiver, &self.run.keyring);
        self.memory = refreshes.look_again(self.wanted, &heard, session.ahead(), self.memory.take());
    }

    /// Reads what jobs tell of refreshes, after everything else.
    async fn read_jobs(&mut self, session: &mut Session<'_>, refreshes: &Refreshes<'_, P>) {
        let site = &self.advice.entry.name;
        if self.run.action == Action::Destroy {
            refreshes.forget(site);
            return;
        }
        let (Some(memory), true) = (self.memory.take(), self.has_time(CHANGE_TIME)) else { return };
        let deadline = self.deadline;
        let has_time = || Instant::now() + CHANGE_TIME < deadline;
        refreshes.read(session, site, self.wanted, memory, &mut self.report, has_time).await;
    }

    /// Carries changes out, as far as there is time. Returns those without a good answer, with what went wrong if they were
    /// tried at all.
    ///
    /// `not_right` holds the names of what could not be put right. Surplus copies of such a webhook stay, since one of
    /// them may be what works.
    async fn carry_out_all(
        &mut self,
        session: &mut Session<'_>,
        changes: Vec<Change>,
        not_right: &mut BTreeSet<String>,
    ) -> Result<Vec<(Change, Option<TableauError>)>, TableauError> {
        let mut uncertain = Vec::new();
        for change in changes {
            let name = name_of(&change).to_owned();
            if !self.has_time(CHANGE_TIME) {
                let then = self.run.action.or_again("The next run goes on");
                self.report.errors.push(out_of_time(format!("No time was left for {name}. {then}.")));
                continue;
            }
            if matches!(change, Change::Delete { is_surplus: true, .. }) && not_right.contains(&name) {
                uncertain.push((change, None));
                continue;
            }
            let is_delete = matches!(change, Change::Delete { .. });
            match carry_out(session, &change).await {
                Ok(()) => {
                    tracing::info!(webhook.name = name, change = kind_of(&change), "changed a webhook");
                    not_right.remove(&name);
                    self.done(change);
                    continue;
                }
                // The other changes are as right as before.
                Err(error) if error.is_local() => self.report.errors.push(self.advice.on_change(&change, &error)),
                Err(error) if error.is_uncertain() => uncertain.push((change, Some(error))),
                Err(error) => return Err(error),
            }
            // A copy that cannot be deleted is no reason to keep it.
            if !is_delete {
                not_right.insert(name);
            }
        }
        Ok(uncertain)
    }

    /// Has Tableau test every webhook of ours.
    async fn test_all(&mut self, session: &mut Session<'_>) -> Result<(), TableauError> {
        let is_ours = |webhook: &ObservedWebhook| self.run.config.name_prefix.event_of(&webhook.name).is_some();
        let observed: Vec<_> = self.list(session).await?.readable.into_iter().filter(is_ours).collect();
        let names = observed.iter().map(|webhook| webhook.name.clone()).collect();
        self.test(session, observed, &names).await;
        // Whoever asks for tests asks whether they succeed.
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
                Err(error) => Outcome::Error(with_causes(&error)),
            };
            self.report.tests.push(Tested { name: webhook.name, outcome });
        }
        self.report.warnings.extend(self.advice.on_tests(&self.report.tests));
    }

    /// Reports a change.
    fn done(&mut self, change: Change) {
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
        Change::Update { .. } => "move",
        Change::Enable { .. } => "enable",
        Change::Delete { .. } => "delete",
    }
}

fn unknown_event(event: &Event) -> String {
    format!("{event} is not an event this release knows; it is registered all the same")
}
