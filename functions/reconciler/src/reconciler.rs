//! A run: reads the declared sites, runs them side by side, and reports.

use std::{collections::BTreeSet, time::Duration};

use lambda_support::{
    error_chain,
    metrics::{Metric, MetricLog},
    topic::Topic,
};
use serde_json::json;
use shared::{alerts::message::AlertMessage, events::cloud_event::EventMessage, registration::keyring::Keyring};
use tableau::Tableau;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::Level;

use crate::{
    alerting,
    config::Config,
    ending::Ending,
    failed_refreshes::{FailedRefreshes, SiteEnds},
    failure::Failure,
    failure_queue::FailureQueue,
    parameters::{Parameters, ParametersError},
    refreshes::Budget,
    report::{Report, SiteReport},
    request::{Action, Request},
    signing_keys::{keyring_for, retire_keys},
    site_run::RunContext,
    state::State,
    state_table::StateTable,
    token_groups::site_of,
    token_runs::{SitesRun, run_sites},
};

/// The time kept for the end of a run: alerts and the state, each with its retries; and, where refreshes are recovered, their
/// events.
const AFTER_THE_SITES: Duration = Duration::from_secs(30);
const AFTER_THE_SITES_WITH_REFRESHES: Duration = Duration::from_secs(75);

/// The longest run that explains failures. One begins each minute, and those of the schedule must not wait behind them.
const EXPLAIN_TIME: Duration = Duration::from_secs(180);

/// The reconciler, with the declared sites and its connections.
#[derive(Debug)]
pub struct Reconciler<P, T, A, Q> {
    /// The settings.
    pub config: Config,
    /// The site entries, signing keys and certificates.
    pub parameters: P,
    /// The stored state.
    pub table: T,
    /// The alerts topic. Without it no alert is sent.
    pub alerts: Option<A>,
    /// The events topic.
    pub events: A,
    /// The queue of failed refreshes. Without it they are explained on the schedule only.
    pub failures: Option<Q>,
    /// The client of Tableau.
    pub tableau: Tableau,
    /// The log of runs, with their metrics.
    pub log: MetricLog,
}

impl<P: Parameters, T: StateTable, A: Topic<AlertMessage> + Topic<EventMessage>, Q: FailureQueue>
    Reconciler<P, T, A, Q>
{
    /// Carries a request out and reports it. Ends before the `deadline`, and names the work that is left.
    ///
    /// # Errors
    ///
    /// A parameter cannot be read, a site is not as declared at the end, or alerts, events or state cannot be handed over.
    pub async fn run(&self, request: Request, deadline: Instant) -> Result<Report, Failure> {
        let (start, action) = (Instant::now(), request.action);
        let deadline = if action == Action::Explain { deadline.min(start + EXPLAIN_TIME) } else { deadline };
        // On the heap: the nested futures of a run are too deep for the compiler.
        let result = match Box::pin(self.carry_out(request, deadline)).await {
            // Lambda would count it as a failed run of those that keep the webhooks. The next of them finds it, too.
            Err(failure @ Failure::Parameters(_)) if action == Action::Explain => {
                tracing::warn!("failed refreshes stay in their queue: {failure}");
                Ok(Report { text: failure.to_string(), ..Report::new(action, Vec::new(), &self.config.sites_path) })
            }
            result => result,
        };
        match action {
            // These change nothing: their outcome is no sign of how the sites are kept.
            Action::Plan | Action::Test => {}
            Action::Explain => self.count_explained(&result),
            Action::Apply | Action::Rotate | Action::Destroy => self.count(action, &result, start.elapsed()),
        }
        result
    }

    /// Writes one line about a run, with its metrics.
    fn count(&self, action: Action, result: &Result<Report, Failure>, duration: Duration) {
        let report = result.as_ref().map_or_else(Failure::report, Some);
        let sites = report.map_or(&[][..], |report| &report.sites);
        let mut metrics = vec![
            total("WebhooksCreated", sites, |site| site.created.len()),
            total("WebhooksUpdated", sites, |site| site.updated.len()),
            total("WebhooksDisabled", sites, |site| site.enabled.len()),
            total("WebhooksDeleted", sites, |site| site.deleted.len() + site.surplus.len()),
            total("TestsFailed", sites, |site| site.tests.iter().filter(|test| !test.succeeded()).count()),
            total("RecoveryPending", sites, |site| site.refreshes_left),
            total("Sites", sites, |_| 1),
            total("SitesFailed", sites, |site| site.failed().into()),
            Metric::count("Succeeded", result.is_ok().into()),
            Metric::milliseconds("Duration", duration),
        ];
        metrics.extend(refresh_metrics(report));
        let now = OffsetDateTime::now_utc();
        let days_left = sites.iter().filter_map(|site| Some(site.token_ends?.days_left(now))).min();
        metrics.extend(days_left.map(|days| Metric::count("TokenDaysLeft", days)));
        let end = if action == Action::Destroy { "without any webhook of ours" } else { "as declared" };
        let message = match result.as_ref().err() {
            None => format!("every site is {end}"),
            Some(Failure::Request(_) | Failure::Parameters(_)) => "no site was looked at".to_owned(),
            Some(Failure::Sites(_)) => format!("not every site is {end}"),
            Some(Failure::Keys(_)) => format!("every site is {end}, but older signing keys could not be retired"),
            Some(Failure::Alerts(_)) => format!("every site is {end}, but alerts could not be sent"),
            Some(Failure::Refreshes(_)) => {
                format!("every site is {end}, but missed refreshes could not all be published")
            }
            Some(Failure::State(_)) => format!("every site is {end}, but the state could not be read or stored"),
        };
        // Lambda's runtime logs the error itself.
        let (level, outcome) = if result.is_ok() { (Level::INFO, "succeeded") } else { (Level::WARN, "failed") };
        self.log.line(level, Some(&message), &json!({ "action": action, "outcome": outcome }), &metrics);
    }

    /// Writes one line about a run that explained failures. It has no metric by which an alarm judges the runs that keep the
    /// webhooks as declared.
    fn count_explained(&self, result: &Result<Report, Failure>) {
        let report = result.as_ref().map_or_else(Failure::report, Some);
        let Some(sites) = report.map(|report| &report.sites).filter(|sites| !sites.is_empty()) else { return };
        let failed = sites.iter().filter(|site| site.failed()).count();
        let mut fields = json!({ "action": Action::Explain, "sites": sites.len(), "failed": failed });
        let is_failed = report.is_some_and(|report| Failure::kind_of(report).is_some());
        fields["outcome"] = if is_failed { "failed" } else { "succeeded" }.into();
        // Nobody reads the report of a run on the schedule.
        let error = report.and_then(|report| report.refreshes_error.as_ref().or(report.state_error.as_ref()));
        let alert_error = report.and_then(|report| report.alerts_error.as_ref());
        for (member, error) in [("error", error), ("alert_error", alert_error)] {
            if let Some(error) = error {
                fields[member] = error.as_str().into();
            }
        }
        self.log.line(if is_failed { Level::WARN } else { Level::INFO }, None, &fields, &refresh_metrics(report));
    }

    async fn carry_out(&self, request: Request, deadline: Instant) -> Result<Report, Failure> {
        let (now, Request { action, sites }) = (OffsetDateTime::now_utc(), request);
        if action == Action::Rotate && sites.is_some() {
            return Err(Failure::Request("rotate is for all sites, since all share the signing keys: name none"));
        }
        if action == Action::Explain && sites.is_some() {
            return Err(Failure::Request("explain is for the sites with failures in the queue: name none"));
        }
        let drains = self.config.lookback.is_some()
            && match action {
                Action::Apply => sites.is_none(),
                Action::Explain => true,
                Action::Plan | Action::Test | Action::Rotate | Action::Destroy => false,
            };
        let queue = self.failures.as_ref().filter(|_| drains);
        let failed = FailedRefreshes::receive(queue).await;
        if action == Action::Explain && failed.is_empty() {
            let mut report = Report::new(action, Vec::new(), &self.config.sites_path);
            failed.error.iter().for_each(|error| report.note(&format!("The queue could not be read: {error}.")));
            return Ok(report);
        }
        let entries = self.parameters.site_entries().await.map_err(Failure::Parameters)?;
        let (ca_note, state, keyring) = tokio::join!(
            self.load_ca_certificates(),
            State::read(&self.table),
            keyring_for(&self.parameters, action, entries.is_empty())
        );
        let (ca_note, keyring) = (ca_note.map_err(Failure::Parameters)?, keyring.map_err(Failure::Parameters)?);
        let is_change = !matches!(action, Action::Plan | Action::Test);
        let lookback = self.config.lookback.filter(|_| is_change);
        let after_the_sites = if lookback.is_some() { AFTER_THE_SITES_WITH_REFRESHES } else { AFTER_THE_SITES };
        let run = RunContext {
            config: &self.config,
            tableau: &self.tableau,
            log: &self.log,
            action,
            keyring: &keyring,
            state: &state,
            lookback,
            jobs: Budget::jobs(),
            successes: Budget::successes(),
            resources: Budget::resources(),
            now,
            deadline: deadline.checked_sub(after_the_sites).unwrap_or(deadline),
            ends_by: deadline,
        };
        let declared: BTreeSet<_> = entries.iter().map(|entry| site_of(entry).to_owned()).collect();
        let sites = match action {
            Action::Explain => Some(failed.sites().intersection(&declared).cloned().collect()),
            _ => sites,
        };
        let SitesRun { mut outcomes, tokens } = run_sites(&run, sites, entries).await;
        outcomes.sort_by(|a, b| a.report.site.cmp(&b.report.site));
        let mut ending = Ending::new(&run, &self.events, self.alerts.as_ref(), &declared);
        ending.carry_out(&mut outcomes, deadline).await;
        state.release_tokens(tokens).await;
        let Ending { mut notes, refreshes_error, alerts_error, state_error, failing: stored, .. } = ending;
        let left = outcomes.iter().filter(|outcome| outcome.is_left).map(|outcome| outcome.report.site.clone());
        failed.settle(queue, &SiteEnds { stored, left: left.collect() }).await;
        let reports = outcomes.into_iter().map(|outcome| outcome.report).collect();
        let mut report = self.report(action, reports);
        notes.extend(ca_note);
        notes.iter().for_each(|note| report.note(note));
        report.refreshes_error = refreshes_error;
        report.alerts_error = alerts_error;
        report.state_error = state_error;
        self.finish_action(action, &keyring, &mut report).await;
        match Failure::kind_of(&report) {
            // Its errors are no sign of how the sites are kept. The schedule finds and reports them.
            _ if action == Action::Explain => Ok(report),
            Some(failure) => Err(failure(report)),
            None => Ok(report),
        }
    }

    /// Retires old keys after a rotation, and sends the alert of a test.
    async fn finish_action(&self, action: Action, keyring: &Keyring, report: &mut Report) {
        if action == Action::Rotate
            && !report.failed()
            && let Err(error) = retire_keys(&self.parameters, keyring).await
        {
            let error = error_chain(&error);
            report.note(&format!(
                "Older signing keys could not be retired: {error}. They are accepted until a rotation retires them: run it \
                 again."
            ));
            report.keys_error = Some(error);
        }
        if action == Action::Test
            && let Some(alerts) = &self.alerts
            && let Err(error) = alerting::send_test(alerts, report).await
        {
            let error = error_chain(&error);
            report.note(&format!("The alert about the test could not be sent: {error}."));
            report.alerts_error = Some(error);
        }
    }

    /// Returns a report on sites, with a note about each unknown event in the settings.
    fn report(&self, action: Action, sites: Vec<SiteReport>) -> Report {
        let mut report = Report::new(action, sites, &self.config.sites_path);
        for event in self.config.alert_events.unknown() {
            report.note(&format!(
                "ALERT_EVENTS names {event}, which is not an event this release knows: no alert is sent for an event whose \
                 name is misspelt. Correct the stack's parameter AlertEvents."
            ));
        }
        report
    }

    /// Adds the stack's CA certificates to the trust store. An error in them is returned as a note, since it concerns only the
    /// sites that need them.
    async fn load_ca_certificates(&self) -> Result<Option<String>, ParametersError> {
        let certificates = self.parameters.tableau_ca().await?;
        let Err(error) = self.tableau.trust_ca_certificates(certificates.as_deref()) else { return Ok(None) };
        let parameter = self.config.tableau_ca_parameter.as_deref().unwrap_or_default();
        let what = format!("The certificates in {parameter} are not used: {}.", error_chain(&error));
        tracing::warn!("{what}");
        Ok(Some(what))
    }
}

/// Returns the metrics of refreshes, which every run has that may change something.
fn refresh_metrics(report: Option<&Report>) -> [Metric; 5] {
    let sites = report.map_or(&[][..], |report| &report.sites);
    [
        total("Explained", sites, |site| site.explained.len()),
        total("Recovered", sites, |site| site.recovered.len()),
        total("Resolved", sites, |site| site.resolved.len()),
        total("NotRecovered", sites, |site| site.not_recovered.len()),
        Metric::count("AlertsFailed", report.is_some_and(|report| report.alerts_error.is_some()).into()),
    ]
}

/// Adds a number up over the sites.
fn total(name: &'static str, sites: &[SiteReport], count: impl Fn(&SiteReport) -> usize) -> Metric {
    Metric::count(name, sites.iter().map(count).sum::<usize>().try_into().unwrap_or(u32::MAX))
}
