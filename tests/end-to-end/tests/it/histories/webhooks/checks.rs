//! Checks that runs do no harm, and that a successful one leaves a site as declared.

use anyhow::{Context, ensure};
use end_to_end::declared::{RECEIVER_URL, secret_of};
use reconciler::request::Action;
use secrecy::ExposeSecret;
use shared::{
    events::catalogue::Event,
    registration::{claim::Registration, keyring::Keyring, signed_url::ReceiverUrl, site_name::SiteName},
};
use tableau_simulator::model::Webhook;

use super::{
    super::environment::{Outcome, delivers, letter, report, verified},
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
    has_session: bool,
    is_token_right: bool,
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

impl Execution<'_> {
    pub(super) fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let site = |at: usize| {
            let right = secret_of(&self.sites.names[at]);
            self.sites.site(at, |site| SiteSnapshot {
                webhooks: site.webhooks.clone(),
                calls: site.calls.clone(),
                has_session: site.has_session(),
                is_token_right: site.tokens[0].secret == right,
            })
        };
        let sites = (0..self.sites.count()).map(site).collect::<Result<_, _>>()?;
        Ok(Snapshot { sites, keyring: self.sites.keyring()? })
    }

    /// Checks for harm that no run may do, whatever happens to it.
    pub(super) fn check(
        &self,
        before: &Snapshot,
        after: &Snapshot,
        outcomes: &[(&Run, &Outcome)],
    ) -> anyhow::Result<()> {
        let only_reads = |run: &Run| matches!(run.action, Action::Plan | Action::Test);
        let has_crashed = outcomes.iter().any(|(_, outcome)| outcome.is_err());
        for (site, (before_run, after_run)) in before.sites.iter().zip(&after.sites).enumerate() {
            let name = letter(site);
            let changed = || changes(&before_run.webhooks, &after_run.webhooks);
            let foreign = |site: &SiteSnapshot| -> Vec<_> {
                site.webhooks.iter().filter(|webhook| !is_ours(webhook)).cloned().collect()
            };
            ensure!(foreign(before_run) == foreign(after_run), "a foreign webhook of {name} changed: {}", changed());
            let runs: Vec<_> = outcomes.iter().filter(|(run, _)| self.is_processed(run, site)).collect();
            ensure!(!runs.is_empty() || after_run.calls.is_empty(), "{name} was called: {:?}", after_run.calls);
            ensure!(
                runs.iter().any(|(run, _)| !only_reads(run)) || before_run.webhooks == after_run.webhooks,
                "webhooks of {name} changed: {}",
                changed()
            );
            // The next sign-in ends a session that a crash left open, unless there is none or the token is rejected.
            ensure!(
                after_run.calls.is_empty() || has_crashed || !after_run.has_session || !after_run.is_token_right,
                "a session of {name} is open: {:?}",
                after_run.calls
            );
            let rejected = after_run.rejected(after.keyring.as_ref());
            ensure!(
                matches!(self.entries[site], Entry::Missing)
                    || rejected.is_empty()
                    || !before_run.rejected(before.keyring.as_ref()).is_empty(),
                "the receiver rejects {rejected:?} of {name}: {}",
                changed()
            );
            for webhook in before_run.webhooks.iter().chain(&after_run.webhooks).filter(|webhook| is_ours(webhook)) {
                let copies =
                    |site: &SiteSnapshot| site.webhooks.iter().filter(|copy| copy.name == webhook.name).count();
                ensure!(copies(after_run) <= copies(before_run).max(1), "a copy was created at {name}: {}", changed());
            }
            let is_destroyed = runs.iter().any(|(run, _)| run.action == Action::Destroy);
            for event in self.wanted(site)?.into_iter().flatten() {
                ensure!(
                    is_destroyed
                        || !before_run.delivers(&event, before.keyring.as_ref())
                        || after_run.delivers(&event, after.keyring.as_ref()),
                    "{event} of {name} is no longer delivered: {}",
                    changed()
                );
            }
            if let [(run, outcome)] = outcomes
                && let Some(report) = report(outcome)
                && let Some(report) = report.sites.iter().find(|report| report.site == self.sites.names[site])
                && report.errors.is_empty()
                && !report.notes.iter().any(|note| note.starts_with("Another run uses the token"))
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

    /// Checks that a site is as an action leaves it that succeeds there.
    pub(super) fn check_success(&self, site: usize, action: Action, snapshot: &Snapshot) -> anyhow::Result<()> {
        let webhooks = &snapshot.sites[site].webhooks;
        let mut ours: Vec<_> = webhooks.iter().filter(|webhook| is_ours(webhook)).map(short).collect();
        ours.sort();
        let mut wanted = match action {
            Action::Plan | Action::Test => return Ok(()),
            Action::Destroy => Vec::new(),
            Action::Apply | Action::Rotate => {
                let keyring = snapshot.keyring.as_ref().context("there are no keys")?;
                let receiver = ReceiverUrl::parse(RECEIVER_URL).context("no receiver")?;
                let name: SiteName = self.sites.names[site].parse()?;
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
