//! A run: every site signed in to, listed, compared, put right, listed again, signed out of.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    error::Error,
    fmt,
    future::ready,
    time::Duration,
};

use common::{
    causes,
    metrics::{Metric, MetricLog, Unit},
    with_causes,
};
use futures_util::{StreamExt, stream};
use lambda_runtime::Diagnostic;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use shared::{
    event::Event,
    keyring::{KEY_BYTES, Keyring},
    plan::{Change, Plan},
    site::SiteEntry,
    webhook::{DesiredWebhook, ObservedWebhook},
};
use tokio::time::Instant;
use url::Url;

use crate::{
    BoxError,
    config::Config,
    parameters::Parameters,
    report::{Enabled, Report, SiteReport, Tested},
    request::{Action, Request},
    tableau::{Session, Tableau, TableauError},
};

/// How many tokens are used at a time: enough to wait for many sites at once, few enough for a small function's memory.
const TOKENS_AT_ONCE: usize = 16;

/// How much time there must be left for a site to be looked at: signing in, listing and signing out, with Tableau as slow
/// as it has been seen.
const SITE_TIME: Duration = Duration::from_secs(60);

/// How much time there must be left for a change or a test: itself, listing again and signing out.
const CHANGE_TIME: Duration = Duration::from_secs(45);

/// The reconciler: what it is to achieve and what it talks to.
#[derive(Debug)]
pub struct Reconciler<P> {
    config: Config,
    parameters: P,
    tableau: Tableau,
    log: MetricLog,
}

/// A run that did not leave every site as declared.
pub enum Failure {
    /// What was asked for makes no sense. Nothing was done.
    Request(&'static str),
    /// The declaration could not be read, so that no site was looked at; or the signing keys not be stored.
    Parameters(BoxError),
    /// Some sites failed. The others are as declared.
    Sites(Report),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(what) => formatter.write_str(what),
            Self::Parameters(error) => {
                let error = with_causes(&**error);
                write!(formatter, "what is declared cannot be read from SSM, or not be stored there: {error}")
            }
            Self::Sites(report) => formatter.write_str(&report.text),
        }
    }
}

impl Error for Failure {}

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
        };
        Self { error_type: error_type.to_owned(), error_message: failure.to_string() }
    }
}

impl<P: Parameters> Reconciler<P> {
    /// A reconciler for what `config` and `parameters` declare.
    pub fn new(config: Config, parameters: P, tableau: Tableau, log: MetricLog) -> Self {
        Self { config, parameters, tableau, log }
    }

    /// Does what is asked for and reports it. Ends before the `deadline`, with what could not be done in time named.
    ///
    /// # Errors
    ///
    /// What is declared cannot be read, or a site is not as declared at the end.
    pub async fn run(&self, request: Request, deadline: Instant) -> Result<Report, Failure> {
        let (start, action) = (Instant::now(), request.action);
        let result = self.carry_out(request, deadline).await;
        match action {
            // What changes nothing is no sign of how the sites are looked after.
            Action::Plan | Action::Test => {}
            Action::Apply | Action::Rotate | Action::Destroy => self.tell(action, &result, start.elapsed()),
        }
        result
    }

    /// Writes one line about a run, with its metrics.
    fn tell(&self, action: Action, result: &Result<Report, Failure>, duration: Duration) {
        let sites: &[SiteReport] = match result {
            Ok(report) | Err(Failure::Sites(report)) => &report.sites,
            Err(Failure::Request(_) | Failure::Parameters(_)) => &[],
        };
        let count = |name, count: &dyn Fn(&SiteReport) -> usize| {
            Metric::count(name, sites.iter().map(count).sum::<usize>().try_into().unwrap_or(u32::MAX))
        };
        let metrics = [
            count("WebhooksCreated", &|site| site.created.len()),
            count("WebhooksMoved", &|site| site.updated.len()),
            count("WebhooksDisabled", &|site| site.enabled.len()),
            count("WebhooksDeleted", &|site| site.deleted.len() + site.surplus.len()),
            count("Sites", &|_| 1),
            count("SitesFailed", &|site| site.failed().into()),
            Metric::count("Succeeded", result.is_ok().into()),
            Metric { name: "Duration", value: duration.as_secs_f64() * 1000.0, unit: Unit::Milliseconds },
        ];
        let message = if result.is_ok() { "every site is as declared" } else { "not every site is as declared" };
        self.log.line(&message, &json!({ "action": action }), &metrics);
    }

    async fn carry_out(&self, request: Request, deadline: Instant) -> Result<Report, Failure> {
        let Request { action, sites } = request;
        if action == Action::Rotate && sites.is_some() {
            return Err(Failure::Request("rotate is for all sites, since all share the signing keys: name none"));
        }
        let stored = self.parameters.site_entries().await.map_err(Failure::Parameters)?;
        if stored.is_empty() && sites.is_none() {
            return Ok(Report::new(action, Vec::new(), &self.config.sites_path));
        }
        let keyring = self.keyring_for(action).await.map_err(Failure::Parameters)?;
        let run = Run { action, keyring, deadline };
        let report = Report::new(action, self.visit(&run, sites, stored).await, &self.config.sites_path);
        if report.failed() {
            return Err(Failure::Sites(report));
        }
        if action == Action::Rotate {
            // Every site is at the newest key. The one before it stays for what is under way; older ones go.
            self.parameters.replace_keyring(&run.keyring.without_retired()).await.map_err(Failure::Parameters)?;
        }
        Ok(report)
    }

    /// The signing keys to work with: those that are stored, made or renewed as the action has it.
    async fn keyring_for(&self, action: Action) -> Result<Keyring, BoxError> {
        let stored = self.parameters.keyring().await?;
        match (stored, action) {
            (Some(keyring), Action::Rotate) => {
                let keyring = keyring.with_newest(random_key()?);
                self.parameters.replace_keyring(&keyring).await?;
                Ok(keyring)
            }
            (Some(keyring), _) => Ok(keyring),
            // What nobody signed needs no keys; any shows what there is to do.
            (None, Action::Plan | Action::Test | Action::Destroy) => Ok(Keyring::of(random_key()?)),
            (None, Action::Apply | Action::Rotate) => {
                self.parameters.create_keyring(&Keyring::of(random_key()?)).await?;
                let stored = self.parameters.keyring().await?;
                stored.ok_or_else(|| "the signing keys were stored and could not be read again".into())
            }
        }
    }

    /// Visits the sites that are asked for.
    async fn visit(
        &self,
        run: &Run,
        sites: Option<Vec<String>>,
        stored: Vec<(String, SecretString)>,
    ) -> Vec<SiteReport> {
        let Visits { by_token, unusable } = Visits::new(stored);
        let is_chosen = |site: &str| sites.as_ref().is_none_or(|sites| sites.iter().any(|name| name == site));
        let unusable = unusable.into_iter().filter(|report| is_chosen(&report.site));
        // Tokens are used side by side, and no site hinders another; the sites of one token come one after another.
        // Begun somewhere else each time, so that a run without time for all of them leaves out others than the last.
        let mut by_token: Vec<_> = by_token.into_values().collect();
        let begin = getrandom::u32().unwrap_or_default() as usize % by_token.len().max(1);
        by_token.rotate_left(begin);
        let visits = stream::iter(by_token).map(async |entries| {
            let chosen = stream::iter(entries).filter(|entry| ready(is_chosen(entry.name.as_str())));
            chosen.then(async |entry| self.site(run, &entry).await).collect::<Vec<_>>().await
        });
        let visited = visits.buffer_unordered(TOKENS_AT_ONCE).collect::<Vec<_>>().await;
        let mut reports: Vec<_> = visited.into_iter().flatten().chain(unusable).collect();
        for name in sites.iter().flatten() {
            if reports.iter().all(|report| report.site != *name) {
                let error = format!("there is no site entry {}/{name}", self.config.sites_path);
                reports.push(SiteReport::of_failure(name, error));
            }
        }
        reports
    }

    /// Does at one site what was asked for.
    #[tracing::instrument(skip_all, fields(site = %entry.name))]
    async fn site(&self, run: &Run, entry: &SiteEntry) -> SiteReport {
        let Run { action, keyring, deadline } = run;
        if !run.has_time(SITE_TIME) {
            let error = "not looked at, since there was no time left: the next run begins with other sites";
            return SiteReport::of_failure(entry.name.as_str(), error.to_owned());
        }
        let mut report = SiteReport::new(entry.name.as_str());
        let Config { name_prefix, receiver, events, .. } = &self.config;
        let events = entry.events.as_ref().unwrap_or(events);
        report.notes.extend(events.iter().filter(|event| !event.is_known()).map(unknown_event));
        let desired = match action {
            Action::Destroy => Vec::new(),
            _ => DesiredWebhook::all(&entry.name, events, name_prefix, receiver, keyring),
        };
        match self.tableau.sign_in(entry, *deadline).await {
            Ok(mut session) => {
                let result = match action {
                    Action::Plan => self.plan(&mut session, desired, &mut report).await,
                    Action::Apply | Action::Rotate | Action::Destroy => {
                        self.converge(run, &mut session, desired, &mut report).await
                    }
                    Action::Test => self.test_all(run, &mut session, &mut report).await,
                };
                if let Err(error) = result {
                    report.errors.push(explained(error, entry));
                }
                if let Err(error) = session.sign_out().await {
                    let error = described(error);
                    tracing::warn!(error, "the session could not be ended; it ends by itself or at the next sign-in");
                }
            }
            Err(error) => report.errors.push(explained(error, entry)),
        }
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

    /// Compares, and reports what there is to change as if it were done.
    async fn plan(
        &self,
        session: &mut Session<'_>,
        desired: Vec<DesiredWebhook>,
        report: &mut SiteReport,
    ) -> Result<(), TableauError> {
        let Plan { changes, unchanged, foreign } = Plan::new(&self.config.name_prefix, desired, session.list().await?);
        (report.unchanged, report.foreign) = (unchanged, foreign);
        changes.into_iter().for_each(|change| report_change(change, report));
        Ok(())
    }

    /// Compares, changes, compares again, and has Tableau test what is new.
    async fn converge(
        &self,
        run: &Run,
        session: &mut Session<'_>,
        desired: Vec<DesiredWebhook>,
        report: &mut SiteReport,
    ) -> Result<(), TableauError> {
        let prefix = &self.config.name_prefix;
        let mut observed = session.list().await?;
        let Plan { mut changes, unchanged, foreign } = Plan::new(prefix, desired.clone(), observed);
        (report.unchanged, report.foreign) = (unchanged, foreign);
        if changes.is_empty() {
            return Ok(());
        }
        let mut may_repeat = true;
        // Names of what could not be put right. The copies of such a webhook stay, since one of them may be what works.
        let mut not_right = BTreeSet::new();
        loop {
            let mut uncertain = Vec::new();
            for change in changes {
                if !run.has_time(CHANGE_TIME) {
                    report.errors.push(format!("no time was left for {}: the next run goes on", name_of(&change)));
                    continue;
                }
                let name = name_of(&change).to_owned();
                if let Change::Delete { is_surplus: true, .. } = change
                    && not_right.contains(&name)
                {
                    uncertain.push((change, format!("a surplus copy of {name} stays until {name} is as declared")));
                    continue;
                }
                let result = carry_out(session, &change).await;
                if !matches!(change, Change::Delete { .. }) {
                    let _ = if result.is_ok() { not_right.remove(&name) } else { not_right.insert(name) };
                }
                match result {
                    Ok(()) => {
                        tracing::info!(webhook.name = name_of(&change), change = kind_of(&change), "changed a webhook");
                        report_change(change, report);
                    }
                    // The other changes are as right as before.
                    Err(error) if error.is_local() => report.errors.push(refused(&change, error)),
                    Err(error) if error.is_uncertain() => uncertain.push((change, described(error))),
                    Err(error) => return Err(error),
                }
            }
            observed = session.list().await?;
            let left = Plan::new(prefix, desired.clone(), observed.clone()).changes;
            // What became of a change without a good answer, the list tells. What is missing is made, once more: never
            // without looking, or there would be two.
            // What is left to do for the same webhook may be another thing: a copy that somebody else made is no reason to
            // make a third.
            let what = |change: &Change| (kind_of(change), name_of(change).to_owned());
            let left_to_do: BTreeSet<_> = left.iter().map(what).collect();
            let is_left = |change: &Change| left_to_do.contains(&what(change));
            let (failed, done): (Vec<_>, Vec<_>) = uncertain.into_iter().partition(|(change, _)| is_left(change));
            done.into_iter().for_each(|(change, _)| report_change(change, report));
            if !failed.is_empty() && may_repeat {
                may_repeat = false;
                changes = failed.into_iter().map(|(change, _)| change).collect();
                continue;
            }
            report.errors.extend(failed.into_iter().map(|(_, error)| error));
            // A change that failed is reported already, by its cause.
            if !left.is_empty() && !report.failed() {
                report.errors.push(format!(
                    "after everything was done, {} of our webhooks are still not as declared: {}",
                    left.len(),
                    left.iter().map(name_of).collect::<Vec<_>>().join(", ")
                ));
            }
            break;
        }
        // What Tableau disabled, and one of those with a new address: the others differ from it in nothing that a test
        // could show.
        let new = report.updated.iter().chain(&report.created).take(1);
        let to_test: BTreeSet<_> = report.enabled.iter().map(|enabled| &enabled.name).chain(new).cloned().collect();
        self.test(run, session, observed, &to_test, report).await;
        Ok(())
    }

    /// Has Tableau test every webhook of ours.
    async fn test_all(
        &self,
        run: &Run,
        session: &mut Session<'_>,
        report: &mut SiteReport,
    ) -> Result<(), TableauError> {
        let is_ours = |webhook: &ObservedWebhook| self.config.name_prefix.event_of(&webhook.name).is_some();
        let observed: Vec<_> = session.list().await?.into_iter().filter(is_ours).collect();
        let names = observed.iter().map(|webhook| webhook.name.clone()).collect();
        let all = observed.len();
        self.test(run, session, observed, &names, report).await;
        let failed = all - report.tests.iter().filter(|test| test.succeeded()).count();
        if failed > 0 {
            report.errors.push(format!("{failed} of {all} tests were not taken by the receiver"));
        }
        Ok(())
    }

    /// Has Tableau test webhooks, by name. A test that cannot be made changes nothing and is a note.
    async fn test(
        &self,
        run: &Run,
        session: &mut Session<'_>,
        mut observed: Vec<ObservedWebhook>,
        names: &BTreeSet<String>,
        report: &mut SiteReport,
    ) {
        // Sorted, so that a report reads the same whatever order Tableau lists in.
        observed.sort_by(|a, b| a.name.cmp(&b.name));
        for webhook in observed.into_iter().filter(|webhook| names.contains(&webhook.name)) {
            if !run.has_time(CHANGE_TIME) {
                report.notes.push(format!("{} was not tested, since there was no time left", webhook.name));
                continue;
            }
            match session.test(&webhook.id).await {
                Ok(status) => report.tests.push(Tested { name: webhook.name, status }),
                Err(error) => report.notes.push(format!("{} could not be tested: {}", webhook.name, described(error))),
            }
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

fn report_change(change: Change, report: &mut SiteReport) {
    match change {
        Change::Update { observed, desired } => {
            report.updated.push(desired.name);
            if !observed.is_enabled {
                report.enabled.push(enabled(observed));
            }
        }
        Change::Enable { observed, .. } => report.enabled.push(enabled(observed)),
        Change::Create { desired } => report.created.push(desired.name),
        Change::Delete { observed, is_surplus: false } => report.deleted.push(observed.name),
        Change::Delete { observed, is_surplus: true } => report.surplus.push(observed.name),
    }
}

fn enabled(observed: ObservedWebhook) -> Enabled {
    let ObservedWebhook { name, status_change_reason, updated_at, .. } = observed;
    Enabled { name, reason: status_change_reason, since: updated_at }
}

fn random_key() -> Result<[u8; KEY_BYTES], BoxError> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)?;
    Ok(key)
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

/// What is the same for all sites of a run.
struct Run {
    action: Action,
    keyring: Keyring,
    deadline: Instant,
}

impl Run {
    fn has_time(&self, needed: Duration) -> bool {
        Instant::now() + needed < self.deadline
    }
}

/// Which sites are to be visited, and in whose company.
struct Visits {
    /// The usable entries, by server and token: a token has one session, so its sites cannot be visited at once.
    by_token: BTreeMap<(Url, String), Vec<SiteEntry>>,
    /// Reports on the entries that cannot be used.
    unusable: Vec<SiteReport>,
}

impl Visits {
    fn new(mut stored: Vec<(String, SecretString)>) -> Self {
        // Sorted, so that of two entries for one Tableau site it is always the same that counts.
        stored.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut visits = Self { by_token: BTreeMap::new(), unusable: Vec::new() };
        let mut declared_by = BTreeMap::new();
        for (parameter, value) in stored {
            let entry = match SiteEntry::parse(&parameter, value.expose_secret()) {
                Ok(entry) => entry,
                Err(error) => {
                    let name = parameter.rsplit('/').next().unwrap_or_default();
                    visits.unusable.push(SiteReport::of_failure(name, error.to_string()));
                    continue;
                }
            };
            match declared_by.entry((entry.server.clone(), entry.content_url.clone())) {
                Entry::Vacant(vacant) => {
                    vacant.insert(entry.name.clone());
                    visits.by_token.entry((entry.server.clone(), entry.token_name.clone())).or_default().push(entry);
                }
                Entry::Occupied(first) => {
                    let error = format!(
                        "the entry {parameter} declares the same Tableau site as {}: delete one of the two entries",
                        first.get()
                    );
                    visits.unusable.push(SiteReport::of_failure(entry.name.as_str(), error));
                }
            }
        }
        visits
    }
}

/// An error that concerns a whole site, with what to do about it.
fn explained(error: TableauError, entry: &SiteEntry) -> String {
    let SiteEntry { name, token_name, content_url, server, .. } = entry;
    let advice = match (&error, error.code()) {
        (_, Some("401001")) => format!(
            "Tableau refused the token {token_name:?}. It is wrong, revoked, expired (after 15 days without use, or at its \
             set lifetime), or for another site than {content_url:?}: Tableau does not tell which. Make a new one and \
             store the entry {name} again."
        ),
        (_, Some("401002")) => format!(
            "The session was ended twice: somebody else uses the token {token_name:?}. Make one for this purpose only, \
             and store the entry {name} again."
        ),
        (_, Some("403004")) => format!(
            "The owner of the token {token_name:?} is no administrator of the site. Make the token as one, and store the \
             entry {name} again."
        ),
        (_, Some("404000")) => {
            format!("There is no site {content_url:?} on {server}. Correct `site` in the entry {name}.")
        }
        (_, Some("429000")) => {
            "Tableau asks for patience, for longer than this run may last. The next run tries again.".to_owned()
        }
        (TableauError::NoAnswer { source, .. }, _) if is_about_trust(source) => {
            format!("The certificate of {server} is not trusted: it needs one that a public authority signed.")
        }
        (TableauError::NoAnswer { .. }, _) => format!(
            "{server} cannot be reached from here. Is `server` in the entry {name} right, is the server up, and does its \
             network let AWS in?"
        ),
        (TableauError::TooOld { .. }, _) => "Upgrade the server to 2020.3 or newer.".to_owned(),
        (TableauError::Refused { .. } | TableauError::Unreadable { .. }, _) => return described(error),
    };
    format!("{advice} ({})", described(error))
}

fn is_about_trust(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| cause.to_string().contains("certificate"))
}

/// An error that concerns one webhook.
fn refused(change: &Change, error: TableauError) -> String {
    match change {
        Change::Create { desired } | Change::Update { desired, .. } | Change::Enable { desired, .. } => format!(
            "Tableau refused {}. If this server does not know the event {}, leave it out of the site's `events`. ({})",
            desired.name,
            desired.event,
            described(error)
        ),
        Change::Delete { observed, .. } => {
            format!("Tableau refused to delete {}. ({})", observed.name, described(error))
        }
    }
}

/// An error with its causes, on one line.
fn described(error: TableauError) -> String {
    with_causes(&error)
}
