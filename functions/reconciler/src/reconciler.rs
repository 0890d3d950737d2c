//! A run: what is declared is read, the sites are visited side by side, and people are told what is new.

use std::{collections::BTreeSet, error::Error, fmt, time::Duration};

use common::{
    metrics::{Metric, MetricLog, Unit},
    topic::{Topic, is_refused_for_good},
    with_causes,
};
use futures_util::{StreamExt, stream};
use lambda_runtime::Diagnostic;
use secrecy::SecretString;
use serde_json::json;
use shared::{
    alert::AlertMessage,
    keyring::{KEY_BYTES, Keyring},
    message::EventMessage,
    told::Told,
};
use tableau::{SITES_AT_ONCE, Tableau};
use tokio::time::Instant;

use crate::{
    BoxError,
    config::Config,
    explained::{lost, unusable},
    parameters::Parameters,
    people,
    refreshes::{self, Refreshes},
    report::{Report, SiteReport},
    request::{Action, Request},
    visit::Run,
    visits::{Turns, Visits, in_order},
};

/// How much time is kept for what comes after the visits: three calls to AWS, each with its retries, and where refreshes
/// are told of two more and what can be published besides.
const AFTER_THE_VISITS: Duration = Duration::from_secs(30);
const AFTER_THE_VISITS_WITH_REFRESHES: Duration = Duration::from_secs(75);

/// The reconciler: what it is to achieve and what it talks to.
#[derive(Debug)]
pub struct Reconciler<P, A> {
    config: Config,
    parameters: P,
    /// Where people are told, if anywhere.
    alerts: Option<A>,
    /// Where events are published, if any are.
    events: Option<A>,
    tableau: Tableau,
    log: MetricLog,
}

/// A run that did not leave every site as declared, or did not tell people so.
pub enum Failure {
    /// What was asked for makes no sense. Nothing was done.
    Request(&'static str),
    /// The declaration could not be read, so that no site was looked at; or the signing keys not be stored.
    Parameters(BoxError),
    /// Some sites failed. The others are as declared.
    Sites(Report),
    /// Every site is as declared, but older signing keys could not be retired.
    Keys(Report),
    /// Every site is as declared, but people could not be told what they should know.
    Alerts(Report),
    /// Every site is as declared, but refreshes that Tableau did not tell of could not be told of either.
    Refreshes(Report),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(what) => formatter.write_str(what),
            Self::Parameters(error) => {
                let error = with_causes(&**error);
                write!(formatter, "what is declared cannot be read from SSM, or not be stored there: {error}")
            }
            Self::Sites(report) | Self::Keys(report) | Self::Alerts(report) | Self::Refreshes(report) => {
                formatter.write_str(&report.text)
            }
        }
    }
}

impl Error for Failure {}

impl Failure {
    /// What was done all the same, if any site was looked at.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Request(_) | Self::Parameters(_) => None,
            Self::Sites(report) | Self::Keys(report) | Self::Alerts(report) | Self::Refreshes(report) => Some(report),
        }
    }
}

// What the runtime logs.
impl fmt::Debug for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        let error_type = match failure {
            Failure::Request(_) => "InvalidRequest",
            Failure::Parameters(_) => "ParametersUnreadable",
            Failure::Sites(_) => "SitesFailed",
            Failure::Keys(_) => "KeysFailed",
            Failure::Alerts(_) => "AlertsFailed",
            Failure::Refreshes(_) => "RefreshesFailed",
        };
        Self { error_type: error_type.to_owned(), error_message: failure.to_string() }
    }
}

impl<P: Parameters, A: Topic<AlertMessage> + Topic<EventMessage>> Reconciler<P, A> {
    /// A reconciler for what `config` and `parameters` declare. Without `alerts` people are told nothing, and without
    /// `events` nothing is told of refreshes.
    pub fn new(
        config: Config,
        parameters: P,
        alerts: Option<A>,
        events: Option<A>,
        tableau: Tableau,
        log: MetricLog,
    ) -> Self {
        Self { config, parameters, alerts, events, tableau, log }
    }

    /// Does what is asked for and reports it. Ends before the `deadline`, with what could not be done in time named.
    ///
    /// # Errors
    ///
    /// What is declared cannot be read, a site is not as declared at the end, or people cannot be told.
    pub async fn run(&self, request: Request, deadline: Instant) -> Result<Report, Failure> {
        let (start, action) = (Instant::now(), request.action);
        // On the heap: all that a run waits for, one inside the other, is more than the compiler looks through.
        let result = Box::pin(self.carry_out(request, deadline)).await;
        match action {
            // What changes nothing is no sign of how the sites are looked after.
            Action::Plan | Action::Test => {}
            Action::Apply | Action::Rotate | Action::Destroy => self.count(action, &result, start.elapsed()),
        }
        result
    }

    /// Writes one line about a run, with its metrics.
    fn count(&self, action: Action, result: &Result<Report, Failure>, duration: Duration) {
        let report = result.as_ref().map_or_else(Failure::report, Some);
        let sites = report.map_or(&[][..], |report| &report.sites);
        let count = |name, count: &dyn Fn(&SiteReport) -> usize| {
            Metric::count(name, sites.iter().map(count).sum::<usize>().try_into().unwrap_or(u32::MAX))
        };
        let metrics = [
            count("WebhooksCreated", &|site| site.created.len()),
            count("WebhooksMoved", &|site| site.updated.len()),
            count("WebhooksDisabled", &|site| site.enabled.len()),
            count("WebhooksDeleted", &|site| site.deleted.len() + site.surplus.len()),
            count("TestsFailed", &|site| site.tests.iter().filter(|test| !test.succeeded()).count()),
            count("Recovered", &|site| site.recovered.len()),
            count("Explained", &|site| site.explained.len()),
            count("NotRecovered", &|site| site.not_recovered.len()),
            count("RecoveryCapped", &|site| site.refreshes_left),
            count("Sites", &|_| 1),
            count("SitesFailed", &|site| site.failed().into()),
            Metric::count("AlertsFailed", report.is_some_and(|report| report.alerts_error.is_some()).into()),
            Metric::count("Succeeded", result.is_ok().into()),
            Metric { name: "Duration", value: duration.as_secs_f64() * 1000.0, unit: Unit::Milliseconds },
        ];
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
        };
        self.log.line(&message, &json!({ "action": action }), &metrics);
    }

    async fn carry_out(&self, request: Request, deadline: Instant) -> Result<Report, Failure> {
        let Request { action, sites } = request;
        if action == Action::Rotate && sites.is_some() {
            return Err(Failure::Request("rotate is for all sites, since all share the signing keys: name none"));
        }
        let stored = self.parameters.site_entries().await.map_err(Failure::Parameters)?;
        if stored.is_empty() && sites.is_none() {
            return Ok(self.report(action, Vec::new()));
        }
        let told = async {
            match action {
                Action::Apply | Action::Rotate => people::told(&self.parameters).await,
                // These tell people of no trouble.
                Action::Plan | Action::Test | Action::Destroy => Ok(Told::default()),
            }
        };
        let (distrust, told, keyring) = tokio::join!(self.trust(), told, self.keyring_for(action));
        let (distrust, keyring) = (distrust.map_err(Failure::Parameters)?, keyring.map_err(Failure::Parameters)?);
        let unknown = Told::default();
        let is_change = !matches!(action, Action::Plan | Action::Test);
        let (mut refreshes, mut begun) = (None, Ok(None));
        if let Some(recovery) = self.config.recovery.as_ref().filter(|_| is_change && self.events.is_some()) {
            let time_left = deadline.saturating_duration_since(Instant::now());
            let (taken, result) = Refreshes::begin(&self.parameters, &self.log, recovery, time_left).await;
            (refreshes, begun) = (Some(taken), result);
        }
        let after_the_visits = match refreshes {
            Some(_) => AFTER_THE_VISITS_WITH_REFRESHES,
            None => AFTER_THE_VISITS,
        };
        let mut run = Run {
            config: &self.config,
            tableau: &self.tableau,
            action,
            keyring,
            told: told.as_ref().unwrap_or(&unknown),
            refreshes,
            deadline: deadline.checked_sub(after_the_visits).unwrap_or(deadline),
        };
        let declared: BTreeSet<_> = stored.iter().map(|(parameter, _)| name_of(parameter).to_owned()).collect();
        let mut visited = self.visit(&run, sites, stored).await;
        let refreshes = run.refreshes.take();
        let has_lease = refreshes.as_ref().is_none_or(Refreshes::has_lease);
        let told_of = self.tell_of_refreshes(refreshes, &declared, &mut visited, deadline).await;
        let mut report = self.report(action, visited);
        let note = begun.as_ref().ok().cloned().flatten();
        let not_begun = begun.err().map(|error| format!("what is remembered cannot be used: {}", with_causes(&*error)));
        let not_all_told = told_of.error.or(not_begun);
        if action == Action::Destroy {
            // Of refreshes it tells nothing. It deletes what is remembered of them, and its sites are none the worse for
            // what is left.
            let is_used = (!has_lease).then(|| "another run uses it, or was cut off a moment ago".to_owned());
            if let Some(why) = not_all_told.or(is_used) {
                report.note(&format!("What is remembered of refreshes was not deleted: {why}."));
            }
        } else {
            told_of.notes.iter().chain(&note).for_each(|note| report.note(note));
            if let Some(error) = not_all_told {
                report.note(&format!("Refreshes could not all be told of: {error}. The next run goes on."));
                report.refreshes_error = Some(error);
            }
        }
        if let Some(distrust) = distrust {
            report.note(&distrust);
        }
        if action == Action::Rotate && !report.failed() {
            // What was done is to be reported, and alerts are to be sent, all the same.
            if let Err(error) = self.retire_keys(run.keyring).await {
                let error = with_causes(&*error);
                report.note(&format!(
                    "Older signing keys could not be retired: {error}. They are accepted until a rotation retires them: \
                     run it again."
                ));
                report.keys_error = Some(error);
            }
        }
        if let Err(error) = self.tell(action, told, &declared, &report).await {
            let next = if is_refused_for_good(&error) { "They are told no more." } else { "The next run tells them." };
            let error = with_causes(&*error);
            report.note(&format!("People could not be told: {error}. {next}"));
            report.alerts_error = Some(error);
        }
        if let Some(error) = told_of.alerts_error {
            report.note(&format!("People could not be told of refreshes: {error}. They are told no more."));
            report.alerts_error.get_or_insert(error);
        }
        match (report.failed(), &report.keys_error, &report.alerts_error, &report.refreshes_error) {
            (true, ..) => Err(Failure::Sites(report)),
            (false, Some(_), ..) => Err(Failure::Keys(report)),
            (false, None, Some(_), _) => Err(Failure::Alerts(report)),
            (false, None, None, Some(_)) => Err(Failure::Refreshes(report)),
            (false, None, None, None) => Ok(report),
        }
    }

    /// Returns a report on sites, with what is odd about the settings that all of them share.
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

    /// Tells of refreshes, as far as the visits found any to tell of.
    async fn tell_of_refreshes(
        &self,
        refreshes: Option<Refreshes<'_, P>>,
        declared: &BTreeSet<String>,
        visited: &mut [SiteReport],
        deadline: Instant,
    ) -> refreshes::Told {
        let (Some(refreshes), Some(events)) = (refreshes, &self.events) else { return refreshes::Told::default() };
        let declared = declared.iter().filter_map(|site| site.parse().ok()).collect();
        let alerts = self.alerts.as_ref().map(|alerts| (alerts, &self.config.alert_events));
        let told = refreshes.tell(events, alerts, &declared, visited, deadline).await;
        for report in visited {
            let advice = lost(&report.not_recovered, self.config.name_prefix.to_string().as_str());
            report.warnings.extend(advice);
        }
        told
    }

    /// Trusts the servers that the stack is to trust. What is wrong with the certificates is returned: it hinders only
    /// the sites that need them.
    async fn trust(&self) -> Result<Option<String>, BoxError> {
        let certificates = self.parameters.tableau_ca().await?;
        let Err(error) = self.tableau.trust(certificates.as_deref()) else { return Ok(None) };
        let parameter = self.config.tableau_ca_parameter.as_deref().unwrap_or_default();
        let what = format!("The certificates in {parameter} are not used: {}.", with_causes(&error));
        tracing::warn!("{what}");
        Ok(Some(what))
    }

    /// Tells people what they should know after a run.
    async fn tell(
        &self,
        action: Action,
        told: Result<Told, BoxError>,
        declared: &BTreeSet<String>,
        report: &Report,
    ) -> Result<(), BoxError> {
        let Some(alerts) = &self.alerts else { return Ok(()) };
        match action {
            // Who asks for these reads the report.
            Action::Plan | Action::Destroy => Ok(()),
            Action::Apply | Action::Rotate => {
                people::tell_troubles(&self.parameters, alerts, told?, declared, report).await
            }
            Action::Test => people::tell_test(alerts, report).await,
        }
    }

    /// The signing keys to work with: those that are stored, made or renewed as the action has it.
    async fn keyring_for(&self, action: Action) -> Result<Keyring, BoxError> {
        let stored = self.parameters.keyring().await?;
        match (stored, action) {
            (Some(keyring), Action::Rotate) => {
                self.parameters.replace_keyring(&keyring.with_newest(random_key()?)).await?;
                self.parameters.new_key_known().await;
                // Another rotation may have stored its own key over ours meanwhile. Both go by what is stored now.
                self.stored_keyring().await
            }
            (Some(keyring), _) => Ok(keyring),
            // What nobody signed needs no keys; any shows what there is to do.
            (None, Action::Plan | Action::Test | Action::Destroy) => Ok(Keyring::of(random_key()?)),
            (None, Action::Apply | Action::Rotate) => {
                self.parameters.create_keyring(&Keyring::of(random_key()?)).await?;
                self.stored_keyring().await
            }
        }
    }

    /// The signing keys that were stored a moment ago, by this run or by another that was faster.
    async fn stored_keyring(&self) -> Result<Keyring, BoxError> {
        let stored = self.parameters.keyring().await?;
        stored.ok_or_else(|| "the signing keys were stored and could not be read again".into())
    }

    /// Retires old keys after every site was moved to the newest. The one before it stays for what is under way.
    async fn retire_keys(&self, keyring: Keyring) -> Result<(), BoxError> {
        // Another rotation may have begun since, whose key is not to be lost.
        if self.stored_keyring().await? == keyring {
            self.parameters.replace_keyring(&keyring.without_retired()).await?;
        }
        Ok(())
    }

    /// Visits the sites that are asked for.
    async fn visit(
        &self,
        run: &Run<'_, P>,
        sites: Option<Vec<String>>,
        stored: Vec<(String, SecretString)>,
    ) -> Vec<SiteReport> {
        let Visits { by_token, unusable: reports } = Visits::new(stored);
        let is_chosen = |site: &str| sites.as_ref().is_none_or(|sites| sites.iter().any(|name| name == site));
        let unusable_entries = reports.into_iter().filter(|report| is_chosen(&report.site));
        let chosen = by_token.into_values().map(|entries| {
            let chosen = entries.into_iter().filter(|entry| is_chosen(entry.name.as_str()));
            chosen.collect::<Vec<_>>()
        });
        let tokens = in_order(chosen.filter(|entries| !entries.is_empty()).collect(), run.told);
        // Tokens are used side by side, and no site hinders another; the sites of one token come one after another.
        let turns = Turns::new(run.deadline, tokens.iter().map(Vec::len).sum());
        let visits = stream::iter(tokens).map(async |entries| {
            let mut reports = Vec::new();
            for (entry, left) in entries.iter().zip((1..=entries.len()).rev()) {
                reports.push(run.visit(entry, turns.begin(left)).await);
            }
            reports
        });
        let visited = visits.buffer_unordered(SITES_AT_ONCE).collect::<Vec<_>>().await;
        let mut reports: Vec<_> = visited.into_iter().flatten().chain(unusable_entries).collect();
        for name in sites.iter().flatten() {
            if reports.iter().all(|report| report.site != *name) {
                let what = format!("There is no site entry {}/{name}.", self.config.sites_path);
                let remedy = format!("To add one: {}", self.config.store_command(name));
                reports.push(SiteReport::of_failure(name, unusable(what, remedy)));
            }
        }
        reports
    }
}

fn random_key() -> Result<[u8; KEY_BYTES], BoxError> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)?;
    Ok(key)
}

/// Our name for the site that a parameter declares.
pub(crate) fn name_of(parameter: &str) -> &str {
    parameter.rsplit('/').next().unwrap_or_default()
}
