//! Checks that runs do no harm, and that a successful one leaves a site as declared.

use anyhow::{Context, ensure};
use end_to_end::declared::RECEIVER_URL;
use reconciler::{report::SiteReport, request::Action};
use secrecy::ExposeSecret;
use shared::{
    events::catalogue::Event,
    registration::{claim::Registration, keyring::Keyring, signed_url::ReceiverUrl, site_name::SiteName},
};
use tableau_simulator::model::Webhook;

use super::{
    environment::{Outcome, delivers, letter, report, verified},
    execution::Execution,
    history::{Entry, Run},
};

/// The state that runs may change, and the calls they made.
pub(super) struct Snapshot {
    pub(super) sites: Vec<SiteSnapshot>,
    keyring: Option<Keyring>,
}

pub(super) struct SiteSnapshot {
    pub(super) webhooks: Vec<Webhook>,
    pub(super) calls: Vec<String>,
    /// How many sessions were ever opened.
    sessions: usize,
    /// Whether sessions end by themselves, or by another user of the token.
    has_odd_sessions: bool,
}

impl SiteSnapshot {
    /// Whether a webhook that is named for an event delivers it.
    fn delivers(&self, event: &Event, keyring: Option<&Keyring>) -> bool {
        let mut named = self.webhooks.iter().filter(|webhook| webhook.name == format!("fan-{event}"));
        named.any(|webhook| delivers(webhook, event, keyring))
    }

    /// Returns those of our webhooks whose requests the receiver rejects.
    fn rejected(&self, keyring: Option<&Keyring>) -> Vec<&str> {
        let ours = self.webhooks.iter().filter(|webhook| is_ours(webhook) && webhook.url.starts_with(RECEIVER_URL));
        ours.filter(|webhook| verified(webhook, keyring).is_none()).map(|webhook| webhook.name.as_str()).collect()
    }
}

impl Execution {
    pub(super) fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let site = |at: usize| {
            self.environment.site(at, |site| SiteSnapshot {
                webhooks: site.webhooks.clone(),
                calls: site.calls.clone(),
                sessions: site.sessions.len(),
                has_odd_sessions: site.oddities.sessions_gone_after.is_some() || site.oddities.token_is_shared,
            })
        };
        let sites = (0..self.environment.count()).map(site).collect::<Result<_, _>>()?;
        Ok(Snapshot { sites, keyring: self.environment.keyring()? })
    }

    /// Checks for harm that no run may do, whatever happens to it.
    pub(super) fn check_harm(
        &self,
        before: &Snapshot,
        after: &Snapshot,
        outcomes: &[(&Run, &Outcome)],
    ) -> anyhow::Result<()> {
        let only_reads = |run: &Run| matches!(run.action, Action::Plan | Action::Test);
        let crashes = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count();
        for (site, (before_run, after_run)) in before.sites.iter().zip(&after.sites).enumerate() {
            let name = letter(site);
            let runs: Vec<_> = outcomes.iter().filter(|(run, _)| self.is_processed(run, site)).collect();
            ensure!(!runs.is_empty() || after_run.calls.is_empty(), "{name} was called: {:?}", after_run.calls);
            ensure!(
                runs.iter().any(|(run, _)| !only_reads(run)) || before_run.webhooks == after_run.webhooks,
                "webhooks of {name} changed: {}",
                changes(&before_run.webhooks, &after_run.webhooks)
            );
            // A run signs out of each session that it opened, unless the session has ended otherwise. Without the table two
            // runs may use one token at the same time.
            let opened = after_run.sessions - before_run.sessions;
            let closed = after_run.calls.iter().filter(|call| *call == "POST auth/signout").count();
            ensure!(
                opened <= closed + crashes || before_run.has_odd_sessions || !self.is_table_quiet,
                "of {opened} sessions of {name} {closed} were signed out of: {:?}",
                after_run.calls
            );
            let runs: Vec<_> = runs.into_iter().map(|(run, _)| *run).collect();
            self.check_webhooks(site, (before, after), &runs)
                .with_context(|| changes(&before_run.webhooks, &after_run.webhooks))?;
            if let [(run, outcome)] = outcomes
                && let Some(report) = report(outcome)
                && let Some(report) = report.sites.iter().find(|report| report.site == self.environment.names[site])
                && report.errors.is_empty()
                && !is_left(report)
            {
                self.check_success(site, run.action, after)?;
            }
        }
        ensure!(
            outcomes.iter().any(|(run, _)| !only_reads(run)) || stored(before) == stored(after),
            "the keys changed"
        );
        Ok(())
    }

    /// Checks a site's webhooks for harm.
    fn check_webhooks(
        &self,
        site: usize,
        (before, after): (&Snapshot, &Snapshot),
        runs: &[&Run],
    ) -> anyhow::Result<()> {
        let name = letter(site);
        let is_destroyed = runs.iter().any(|run| run.action == Action::Destroy);
        // Without the table, of two runs each may create what is missing. A later one deletes the surplus.
        let most = if self.is_table_quiet { 1 } else { runs.len() };
        let (before_run, after_run) = (&before.sites[site], &after.sites[site]);
        let foreign = |site: &SiteSnapshot| -> Vec<_> {
            site.webhooks.iter().filter(|webhook| !is_ours(webhook)).cloned().collect()
        };
        ensure!(foreign(before_run) == foreign(after_run), "a foreign webhook of {name} changed");
        let rejected = after_run.rejected(after.keyring.as_ref());
        ensure!(
            matches!(self.entries[site], Entry::Missing)
                || rejected.is_empty()
                || !before_run.rejected(before.keyring.as_ref()).is_empty(),
            "the receiver rejects {rejected:?} of {name}"
        );
        for webhook in before_run.webhooks.iter().chain(&after_run.webhooks).filter(|webhook| is_ours(webhook)) {
            let copies = |site: &SiteSnapshot| site.webhooks.iter().filter(|copy| copy.name == webhook.name).count();
            ensure!(copies(after_run) <= copies(before_run).max(most), "a copy was created at {name}");
        }
        for event in self.wanted(site)?.into_iter().flatten().filter(|_| !is_destroyed) {
            ensure!(
                !before_run.delivers(&event, before.keyring.as_ref())
                    || after_run.delivers(&event, after.keyring.as_ref()),
                "{event} of {name} is no longer delivered"
            );
        }
        Ok(())
    }

    /// Checks that a site is as an action leaves it that succeeds there.
    pub(super) fn check_success(&self, site: usize, action: Action, snapshot: &Snapshot) -> anyhow::Result<()> {
        let webhooks = &snapshot.sites[site].webhooks;
        let mut ours: Vec<_> = webhooks.iter().filter(|webhook| is_ours(webhook)).map(short).collect();
        ours.sort();
        let mut wanted = match action {
            Action::Plan | Action::Test | Action::Explain => return Ok(()),
            Action::Destroy => Vec::new(),
            Action::Apply | Action::Rotate => {
                let keyring = snapshot.keyring.as_ref().context("there are no keys")?;
                let receiver = ReceiverUrl::parse(RECEIVER_URL).context("no receiver")?;
                let name: SiteName = self.environment.names[site].parse()?;
                let events = self.wanted(site)?.with_context(|| format!("{} is not declared", letter(site)))?;
                let wanted = events.into_iter().map(|event| {
                    let registration = Registration { site: name.clone(), event };
                    let url = registration.signed_url(&receiver, keyring);
                    let event = registration.event.as_str();
                    (format!("fan-{event}"), event.to_owned(), url.expose().to_owned(), true)
                });
                wanted.collect()
            }
        };
        wanted.sort();
        ensure!(
            ours == wanted,
            "{} is not as {action:?} should leave it: {ours:?} instead of {wanted:?}",
            letter(site)
        );
        Ok(())
    }
}

/// Whether a run left a site to another run, which uses the site's token.
pub(super) fn is_left(report: &SiteReport) -> bool {
    report.notes.iter().any(|note| note.starts_with("Another run uses the token"))
}

/// Whether a webhook is ours, by what is documented of names rather than by the reconciler's own rule.
fn is_ours(webhook: &Webhook) -> bool {
    let event = webhook.name.strip_prefix("fan-").unwrap_or_default();
    !event.is_empty() && event.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// Returns the keys as they are stored.
pub(super) fn stored(snapshot: &Snapshot) -> Option<String> {
    snapshot.keyring.as_ref().map(|keyring| keyring.to_stored().expose_secret().to_owned())
}

/// Returns the parts of a webhook that the reconciler sets.
fn short(webhook: &Webhook) -> (String, String, String, bool) {
    let Webhook { name, event, url, is_enabled, .. } = webhook;
    (name.clone(), event.as_str().to_owned(), url.clone(), *is_enabled)
}

/// Describes the webhooks that are different.
fn changes(before: &[Webhook], after: &[Webhook]) -> String {
    let but = |these: &[Webhook], those: &[Webhook]| -> Vec<_> {
        these.iter().filter(|webhook| !those.contains(webhook)).map(short).collect()
    };
    format!("{:?} became {:?}", but(before, after), but(after, before))
}
