//! A run: what is declared is read, the sites are visited side by side, and people are told what is new.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use lambda_runtime::Diagnostic;
use lambda_support::{
    error_chain,
    metrics::{Metric, MetricLog, Unit},
    topic::{Topic, is_refused_for_good},
};
use serde_json::json;
use shared::{
    alerts::{
        message::AlertMessage,
        state::{Findings, Outcome},
    },
    events::cloud_event::EventMessage,
    problems::{Problem, ProblemKind},
    registration::keyring::{KEY_BYTES, Keyring},
    sites::entry::{BadEntry, SiteEntry},
    state::{Progress, SiteState},
};
use tableau::{SITES_AT_ONCE, Tableau};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    BoxError, alerting,
    config::Config,
    parameters::Parameters,
    recovery::{JobBudget, Published, SiteRefreshes, log_given_up},
    remedies::{alerts_lost, lost, unusable},
    report::{Report, SiteReport, format_time},
    request::{Action, Request},
    site_run::{RunContext, SiteOutcome},
    state::{State, Stored},
    state_table::StateTable,
    token_groups::{TokenGroups, Turns, in_order, site_of},
};

/// How much time is kept for what comes after the sites: alerts and the state, each with its retries, and where refreshes
/// are recovered what can be published besides.
const AFTER_THE_SITES: Duration = Duration::from_secs(30);
const AFTER_THE_SITES_WITH_REFRESHES: Duration = Duration::from_secs(75);

/// The reconciler: what it is to achieve and what it talks to.
#[derive(Debug)]
pub struct Reconciler<P, T, A> {
    config: Config,
    parameters: P,
    table: T,
    /// The topic for people, if there is one.
    alerts: Option<A>,
    /// The topic for machines.
    events: A,
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
    /// Every site is as declared, but missed events or explanations could not be published.
    Refreshes(Report),
    /// Every site is as declared, but the run could not read its state or not store it.
    State(Report),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(what) => formatter.write_str(what),
            Self::Parameters(error) => {
                let error = error_chain(&**error);
                write!(formatter, "what is declared cannot be read from SSM, or not be stored there: {error}")
            }
            Self::Sites(report)
            | Self::Keys(report)
            | Self::Alerts(report)
            | Self::Refreshes(report)
            | Self::State(report) => formatter.write_str(&report.text),
        }
    }
}

impl Error for Failure {}

impl Failure {
    /// What was done all the same, if any site was looked at.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Request(_) | Self::Parameters(_) => None,
            Self::Sites(report)
            | Self::Keys(report)
            | Self::Alerts(report)
            | Self::Refreshes(report)
            | Self::State(report) => Some(report),
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
            Failure::State(_) => "StateUnavailable",
        };
        Self { error_type: error_type.to_owned(), error_message: failure.to_string() }
    }
}

impl<P: Parameters, T: StateTable, A: Topic<AlertMessage> + Topic<EventMessage>> Reconciler<P, T, A> {
    /// A reconciler for what `config` and `parameters` declare. Without `alerts` nobody is alerted.
    pub fn new(
        config: Config,
        parameters: P,
        table: T,
        alerts: Option<A>,
        events: A,
        tableau: Tableau,
        log: MetricLog,
    ) -> Self {
        Self { config, parameters, table, alerts, events, tableau, log }
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
            count("WebhooksUpdated", &|site| site.updated.len()),
            count("WebhooksDisabled", &|site| site.enabled.len()),
            count("WebhooksDeleted", &|site| site.deleted.len() + site.surplus.len()),
            count("TestsFailed", &|site| site.tests.iter().filter(|test| !test.succeeded()).count()),
            count("Recovered", &|site| site.recovered.len()),
            count("Explained", &|site| site.explained.len()),
            count("NotRecovered", &|site| site.not_recovered.len()),
            count("RecoveryPending", &|site| site.refreshes_left),
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
            Some(Failure::State(_)) => format!("every site is {end}, but the state could not be read or stored"),
        };
        self.log.line(&message, &json!({ "action": action }), &metrics);
    }

    async fn carry_out(&self, request: Request, deadline: Instant) -> Result<Report, Failure> {
        let (now, Request { action, sites }) = (OffsetDateTime::now_utc(), request);
        if action == Action::Rotate && sites.is_some() {
            return Err(Failure::Request("rotate is for all sites, since all share the signing keys: name none"));
        }
        let entries = self.parameters.site_entries().await.map_err(Failure::Parameters)?;
        let (distrust, state, keyring) =
            tokio::join!(self.trust(), State::read(&self.table), self.keyring_for(action, entries.is_empty()));
        let (distrust, keyring) = (distrust.map_err(Failure::Parameters)?, keyring.map_err(Failure::Parameters)?);
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
            jobs: JobBudget::default(),
            now,
            deadline: deadline.checked_sub(after_the_sites).unwrap_or(deadline),
        };
        let declared: BTreeSet<_> = entries.iter().map(|entry| site_of(entry).to_owned()).collect();
        let mut outcomes = self.run_sites(&run, sites, entries).await;
        outcomes.sort_by(|a, b| a.report.site.cmp(&b.report.site));
        let mut ended = self.end(&run, &declared, &mut outcomes, deadline).await;
        let reports = outcomes.into_iter().map(|outcome| outcome.report).collect();
        let mut report = self.report(action, reports);
        ended.notes.extend(distrust);
        ended.notes.iter().for_each(|note| report.note(note));
        report.refreshes_error = ended.refreshes_error;
        report.alerts_error = ended.alerts_error;
        report.state_error = ended.state_error;
        if action == Action::Rotate && !report.failed() {
            // What was done is to be reported, and alerts are to be sent, all the same.
            if let Err(error) = self.retire_keys(&keyring).await {
                let error = error_chain(&*error);
                report.note(&format!(
                    "Older signing keys could not be retired: {error}. They are accepted until a rotation retires them: \
                     run it again."
                ));
                report.keys_error = Some(error);
            }
        }
        if action == Action::Test
            && let Some(alerts) = &self.alerts
            && let Err(error) = alerting::send_test(alerts, &report).await
        {
            let error = error_chain(&*error);
            report.note(&format!("The alert about the test could not be sent: {error}."));
            report.alerts_error = Some(error);
        }
        match (report.failed(), &report.keys_error, &report.alerts_error, &report.refreshes_error, &report.state_error)
        {
            (true, ..) => Err(Failure::Sites(report)),
            (false, Some(_), ..) => Err(Failure::Keys(report)),
            (false, None, Some(_), ..) => Err(Failure::Alerts(report)),
            (false, None, None, Some(_), _) => Err(Failure::Refreshes(report)),
            (false, None, None, None, Some(_)) => Err(Failure::State(report)),
            (false, None, None, None, None) => Ok(report),
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

    /// Publishes what is due, sends alerts, and then stores the state: what was not accepted is left to the next run.
    async fn end(
        &self,
        run: &RunContext<'_, T>,
        declared: &BTreeSet<String>,
        outcomes: &mut [SiteOutcome],
        deadline: Instant,
    ) -> Ended {
        let mut ended = Ended::default();
        if matches!(run.action, Action::Plan | Action::Test) {
            return ended;
        }
        // Of a site whose webhooks were deleted nobody asks what was known.
        if run.action != Action::Destroy {
            ended.state_error = self.note_state(run, &mut ended.notes);
        }
        let mut published = Published::default();
        for SiteOutcome { report, refreshes, .. } in outcomes.iter_mut() {
            if let Some(refreshes) = refreshes {
                refreshes.publish(&self.events, report, &mut published, deadline).await;
            }
        }
        ended.refreshes_error = published.error.clone();
        if let Some(error) = &published.error {
            ended.notes.push(format!("Not all that is due of refreshes was published: {error}. The next run goes on."));
        }
        let mut states = BTreeMap::new();
        for SiteOutcome { report, refreshes, stored, .. } in outcomes.iter_mut() {
            let refreshes = refreshes.take().map(|refreshes| SiteRefreshes::into_state(refreshes, report));
            // What was found before the repair is in the log already.
            log_given_up(&self.log, &report.site, report.not_recovered.iter().filter(|it| it.is_new()));
            report.warnings.extend(lost(&report.not_recovered, &self.config.name_prefix.to_string()));
            let content = SiteState { refreshes, ..stored.content.clone() };
            states.insert(report.site.clone(), Stored { content, ..stored.clone() });
        }
        self.alert_of_refreshes(&published, outcomes, &mut ended).await;
        let problems = self.alert_of_problems(run, declared, outcomes, &mut ended).await;
        let after = declared.iter().map(|site| {
            let mut stored = states.remove(site).unwrap_or_else(|| run.state.site(site));
            stored.content.problems = problems.sites.get(site).cloned().unwrap_or_default();
            (site.clone(), stored)
        });
        let mut run_state = run.state.run.content.clone();
        run_state.problems = problems.run;
        let progress = declared.iter().filter_map(|site| {
            let outcome = outcomes.iter().find(|outcome| outcome.report.site == *site);
            Some((site.parse().ok()?, outcome.map_or(Progress::Left, |outcome| outcome.progress)))
        });
        run_state.note_progress(&progress.collect(), run.now);
        let (lost, error) = run.state.store(after.collect(), run_state).await;
        if !lost.is_empty() {
            ended.notes.push(format!("Another run stored {} meanwhile: its state stays.", lost.join(", ")));
        }
        if let Some(error) = error {
            if run.action == Action::Destroy {
                ended.notes.push(format!("The state was not deleted: {error}."));
            } else if run.state.error.is_none() {
                ended.notes.push(format!(
                    "The state could not be stored: {error}. The next run may repeat what this one did."
                ));
                ended.state_error = Some(error);
            }
        }
        ended
    }

    /// Says what is not known of earlier runs. Returns it if that is a failure of this one.
    fn note_state(&self, run: &RunContext<'_, T>, notes: &mut Vec<String>) -> Option<String> {
        let state = run.state;
        if let Some(error) = &state.error {
            notes.push(format!(
                "The state cannot be read: {error}. Webhooks are kept all the same; no problem is alerted, and no refresh \
                 recovered or explained."
            ));
            return Some(error.clone());
        }
        let is_first = state.run.version.is_none();
        if is_first && run.lookback.is_some() {
            notes.push(
                "There is no state yet, since this is the first run or it was lost: this run recovers no refresh, and \
                 failures from now on are explained."
                    .to_owned(),
            );
        }
        let mut invalid = state.invalid.clone();
        invalid.extend((!is_first && !state.run.is_known).then(|| "the runs".to_owned()));
        if invalid.is_empty() {
            return None;
        }
        let error = format!("the state of {} is of another format, or was changed by hand", invalid.join(", "));
        notes.push(format!(
            "It is not known what earlier runs found there and how far they recovered refreshes: {error}. It is replaced."
        ));
        Some(error)
    }

    /// Sends alerts about what was published of refreshes.
    async fn alert_of_refreshes(&self, published: &Published, outcomes: &mut [SiteOutcome], ended: &mut Ended) {
        let Some(alerts) = &self.alerts else { return };
        let errors = published.alert(alerts, &self.config.alert_events).await;
        let Some(error) = errors.first().map(|error| error_chain(&**error)) else { return };
        ended.notes.push(format!("Alerts about refreshes could not be sent: {error}."));
        ended.alerts_error = Some(error.clone());
        let sites: BTreeSet<_> = published.sites().into_iter().map(ToString::to_string).collect();
        for SiteOutcome { report, .. } in outcomes.iter_mut().filter(|outcome| sites.contains(&outcome.report.site)) {
            report.warnings.push(alerts_lost(&error));
        }
    }

    /// Sends alerts about problems that began or are over. Returns the problems to store.
    async fn alert_of_problems(
        &self,
        run: &RunContext<'_, T>,
        declared: &BTreeSet<String>,
        outcomes: &[SiteOutcome],
        ended: &mut Ended,
    ) -> Outcome {
        let before: BTreeMap<_, _> =
            declared.iter().map(|site| (site.as_str(), run.state.site(site).content.problems)).collect();
        if run.state.error.is_some() || run.action == Action::Destroy {
            let sites = before.into_iter().map(|(site, problems)| (site.to_owned(), problems)).collect();
            return Outcome { sites, run: run.state.run.content.problems.clone(), alerts: Vec::new() };
        }
        let is_checked = |outcome: &&SiteOutcome| matches!(outcome.progress, Progress::Checked | Progress::Attempted);
        // A site that somebody asked for by name and that is declared nowhere is in nobody's care.
        let is_declared = |(site, _): &(&str, &Problem)| declared.contains(*site);
        let is_found = |(_, problem): &(&str, &Problem)| problem.kind != ProblemKind::TokenInUse;
        let found = Findings {
            before: before.iter().map(|(site, problems)| (*site, problems)).collect(),
            run_before: run.state.run.content.problems.clone(),
            checked: outcomes.iter().filter(is_checked).map(|outcome| outcome.report.site.as_str()).collect(),
            found: (outcomes.iter().flat_map(|outcome| outcome.report.problems()))
                .filter(is_declared)
                .filter(is_found)
                .collect(),
        };
        let mut outcome = Outcome::of(&found, OffsetDateTime::now_utc());
        if let Some(alerts) = &self.alerts
            && let Err(error) = alerting::send(alerts, &mut outcome).await
        {
            let next =
                if is_refused_for_good(&error) { "They are not sent again." } else { "The next run sends them." };
            let error = error_chain(&*error);
            ended.notes.push(format!("Alerts could not be sent: {error}. {next}"));
            ended.alerts_error = Some(error);
        }
        outcome
    }

    /// Trusts the servers that the stack is to trust. What is wrong with the certificates is returned: it hinders only
    /// the sites that need them.
    async fn trust(&self) -> Result<Option<String>, BoxError> {
        let certificates = self.parameters.tableau_ca().await?;
        let Err(error) = self.tableau.trust_ca_certificates(certificates.as_deref()) else { return Ok(None) };
        let parameter = self.config.tableau_ca_parameter.as_deref().unwrap_or_default();
        let what = format!("The certificates in {parameter} are not used: {}.", error_chain(&error));
        tracing::warn!("{what}");
        Ok(Some(what))
    }

    /// The signing keys to work with: those that are stored, made or renewed as the action has it. Without any site there is
    /// nothing to sign.
    async fn keyring_for(&self, action: Action, is_unused: bool) -> Result<Keyring, BoxError> {
        if is_unused {
            return Ok(Keyring::of(random_key()?));
        }
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
    async fn retire_keys(&self, keyring: &Keyring) -> Result<(), BoxError> {
        // Another rotation may have begun since, whose key is not to be lost.
        let stored = self.stored_keyring().await?;
        if stored == *keyring {
            self.parameters.replace_keyring(&stored.without_retired()).await?;
        }
        Ok(())
    }

    /// Runs the sites that are asked for.
    async fn run_sites(
        &self,
        run: &RunContext<'_, T>,
        sites: Option<Vec<String>>,
        entries: Vec<Result<SiteEntry, BadEntry>>,
    ) -> Vec<SiteOutcome> {
        let TokenGroups { by_token, unusable: reports } = TokenGroups::new(entries, &self.config);
        let is_chosen = |site: &str| sites.as_ref().is_none_or(|sites| sites.iter().any(|name| name == site));
        let unchanged = |report: SiteReport| {
            let stored = run.state.site(&report.site);
            SiteOutcome::unchanged(report, Progress::Attempted, stored)
        };
        let unusable_entries = reports.into_iter().filter(|report| is_chosen(&report.site)).map(unchanged);
        let chosen = by_token.into_values().map(|entries| {
            let chosen = entries.into_iter().filter(|entry| is_chosen(entry.name.as_str()));
            chosen.collect::<Vec<_>>()
        });
        let tokens = in_order(chosen.filter(|entries| !entries.is_empty()).collect(), &run.state.run.content);
        // Tokens are used side by side, and no site hinders another; the sites of one token come one after another.
        let turns = Turns::new(run.deadline, tokens.iter().map(Vec::len).sum());
        let running = stream::iter(tokens).map(async |entries| run_token(run, entries, &turns).await);
        let outcomes = running.buffer_unordered(SITES_AT_ONCE).collect::<Vec<_>>().await;
        let mut outcomes: Vec<_> = outcomes.into_iter().flatten().chain(unusable_entries).collect();
        for name in sites.iter().flatten() {
            if outcomes.iter().all(|outcome| outcome.report.site != *name) {
                let what = format!("There is no site entry {}/{name}.", self.config.sites_path);
                let remedy = format!("To add one: {}", self.config.store_command(name));
                outcomes.push(unchanged(SiteReport::of_failure(name, unusable(what, remedy))));
            }
        }
        outcomes
    }
}

/// What came of the end of a run.
#[derive(Debug, Default)]
struct Ended {
    notes: Vec<String>,
    /// Why events could not be published.
    refreshes_error: Option<String>,
    /// Why people could not be alerted.
    alerts_error: Option<String>,
    /// Why the state could not be read or stored.
    state_error: Option<String>,
}

/// Runs the sites of one token, one after another, since a token has one session.
async fn run_token<T: StateTable>(run: &RunContext<'_, T>, entries: Vec<SiteEntry>, turns: &Turns) -> Vec<SiteOutcome> {
    let Some(first) = entries.first() else { return Vec::new() };
    let time_left = run.deadline.saturating_duration_since(Instant::now());
    let held = run.state.hold_token(first, OffsetDateTime::now_utc(), time_left).await;
    let mut outcomes = Vec::new();
    for (entry, left) in entries.iter().zip((1..=entries.len()).rev()) {
        let deadline = turns.begin(left);
        outcomes.push(match &held {
            Ok(_) => run.site(entry, deadline).await,
            Err(until) => left_to_another_run(run, entry, *until),
        });
    }
    if let Ok(token) = held {
        run.state.release_token(token).await;
    }
    outcomes
}

/// The outcome of a site whose token another run uses. That run does what the schedule asks for; what a person asks for has
/// to be asked for again.
fn left_to_another_run<T: StateTable>(
    run: &RunContext<'_, T>,
    entry: &SiteEntry,
    until: Option<OffsetDateTime>,
) -> SiteOutcome {
    let until = until.map(|until| format!(", until {} at the latest", format_time(until))).unwrap_or_default();
    let what = format!("Another run uses the token {:?}{until}: the site is left to it.", entry.token_name);
    let site = entry.name.as_str();
    let report = if run.action == Action::Apply {
        SiteReport { notes: vec![what], ..SiteReport::new(site) }
    } else {
        let remedy = "Ask for this again when the other run has ended.".to_owned();
        let problem = Problem { kind: ProblemKind::TokenInUse, event: None, what, remedy, detail: None };
        SiteReport::of_failure(site, problem)
    };
    SiteOutcome::unchanged(report, Progress::Left, run.state.site(site))
}

fn random_key() -> Result<[u8; KEY_BYTES], BoxError> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)?;
    Ok(key)
}
