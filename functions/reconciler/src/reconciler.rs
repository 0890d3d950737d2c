//! A run: every site signed in to, listed, compared, put right, listed again, signed out of.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    future::ready,
};

use futures_util::{StreamExt, stream};
use lambda_runtime::Diagnostic;
use secrecy::{ExposeSecret, SecretString};
use shared::{
    event::Event,
    keyring::Keyring,
    plan::{Change, Plan},
    site::SiteEntry,
    webhook::{DesiredWebhook, ObservedWebhook},
};
use url::Url;

use crate::{
    BoxError,
    config::Config,
    parameters::Parameters,
    report::{Enabled, Report, SiteReport},
    request::{Action, Request},
    tableau::{Session, Tableau, TableauError},
};

/// How many tokens are used at a time: enough to wait for many sites at once, few enough for a small function's memory.
const TOKENS_AT_ONCE: usize = 16;

/// The reconciler: what it is to achieve and what it talks to.
#[derive(Debug)]
pub struct Reconciler<P> {
    config: Config,
    parameters: P,
    tableau: Tableau,
}

/// A run that did not leave every site as declared.
pub enum Failure {
    /// The declaration could not be read, so that no site was looked at.
    Parameters(BoxError),
    /// Some sites failed. The others are as declared.
    Sites(Report),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parameters(error) => {
                let mut source: Option<&dyn std::error::Error> = Some(&**error);
                write!(formatter, "no site was looked at, since what is declared cannot be read from SSM")?;
                while let Some(error) = source {
                    write!(formatter, ": {error}")?;
                    source = error.source();
                }
                Ok(())
            }
            Self::Sites(report) => formatter.write_str(&report.text),
        }
    }
}

impl std::error::Error for Failure {}

// What the runtime logs.
impl fmt::Debug for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        let error_type = match failure {
            Failure::Parameters(_) => "ParametersUnreadable",
            Failure::Sites(_) => "SitesFailed",
        };
        Self { error_type: error_type.to_owned(), error_message: failure.to_string() }
    }
}

impl<P: Parameters> Reconciler<P> {
    /// A reconciler for what `config` and `parameters` declare.
    pub fn new(config: Config, parameters: P, tableau: Tableau) -> Self {
        Self { config, parameters, tableau }
    }

    /// Does what is asked for and reports it.
    ///
    /// # Errors
    ///
    /// What is declared cannot be read, or a site is not as declared at the end.
    pub async fn run(&self, request: Request) -> Result<Report, Failure> {
        match request.action {
            Action::Apply => self.apply(&request).await,
        }
    }

    async fn apply(&self, request: &Request) -> Result<Report, Failure> {
        let stored = self.parameters.site_entries().await.map_err(Failure::Parameters)?;
        let keyring = &self.parameters.keyring().await.map_err(Failure::Parameters)?;
        let Visits { by_token, unusable } = Visits::new(stored);
        let is_chosen = |site: &str| request.sites.as_ref().is_none_or(|sites| sites.iter().any(|name| name == site));
        let unusable = unusable.into_iter().filter(|report| is_chosen(&report.site));
        // Tokens are used side by side, and no site hinders another; the sites of one token come one after another.
        let visits = stream::iter(by_token.into_values()).map(async |entries| {
            let chosen = stream::iter(entries).filter(|entry| ready(is_chosen(entry.name.as_str())));
            chosen.then(async |entry| self.site(&entry, keyring).await).collect::<Vec<_>>().await
        });
        let visited = visits.buffer_unordered(TOKENS_AT_ONCE).collect::<Vec<_>>().await;
        let mut reports: Vec<_> = visited.into_iter().flatten().chain(unusable).collect();
        for name in request.sites.iter().flatten() {
            if reports.iter().all(|report| report.site != *name) {
                let error = format!("there is no site entry {}/{name}", self.config.sites_path);
                reports.push(SiteReport::of_failure(name, error));
            }
        }
        let report = Report::new(reports, &self.config.sites_path);
        if report.failed() { Err(Failure::Sites(report)) } else { Ok(report) }
    }

    /// Makes one site what its entry declares.
    #[tracing::instrument(skip_all, fields(site = %entry.name))]
    async fn site(&self, entry: &SiteEntry, keyring: &Keyring) -> SiteReport {
        let mut report = SiteReport::new(entry.name.as_str());
        let Config { name_prefix, receiver, events, .. } = &self.config;
        let events = entry.events.as_ref().unwrap_or(events);
        report.notes.extend(events.iter().filter(|event| !event.is_known()).map(unknown_event));
        let desired = DesiredWebhook::all(&entry.name, events, name_prefix, receiver, keyring);
        match self.tableau.sign_in(entry).await {
            Ok(mut session) => {
                if let Err(error) = self.converge(&mut session, desired, &mut report).await {
                    report.errors.push(described(error));
                }
                if let Err(error) = session.sign_out().await {
                    let error = described(error);
                    tracing::warn!(error, "the session could not be ended; it ends by itself or at the next sign-in");
                }
            }
            Err(error) => report.errors.push(described(error)),
        }
        tracing::info!(
            updated = report.updated.len(),
            enabled = report.enabled.len(),
            created = report.created.len(),
            deleted = report.deleted.len(),
            unchanged = report.unchanged.len(),
            foreign = report.foreign.len(),
            errors = report.errors.len(),
            "looked after the site"
        );
        report
    }

    async fn converge(
        &self,
        session: &mut Session<'_>,
        desired: Vec<DesiredWebhook>,
        report: &mut SiteReport,
    ) -> Result<(), TableauError> {
        let prefix = &self.config.name_prefix;
        let observed = session.list().await?;
        let Plan { changes, unchanged, foreign } = Plan::new(prefix, desired.clone(), observed);
        report.unchanged = unchanged;
        report.foreign = foreign;
        if changes.is_empty() {
            return Ok(());
        }
        for change in changes {
            match carry_out(session, change, report).await {
                // The other changes are as right as before.
                Err(error) if error.is_local() => report.errors.push(described(error)),
                result => result?,
            }
        }
        let Plan { changes, .. } = Plan::new(prefix, desired, session.list().await?);
        // A change that failed is reported already, by its cause.
        if !changes.is_empty() && !report.failed() {
            report.errors.push(format!(
                "after everything was done, {} of our webhooks are still not as declared: {}",
                changes.len(),
                changes.iter().map(name_of).collect::<Vec<_>>().join(", ")
            ));
        }
        Ok(())
    }
}

async fn carry_out(session: &mut Session<'_>, change: Change, report: &mut SiteReport) -> Result<(), TableauError> {
    match change {
        Change::Update { observed, desired } => {
            session.update(&observed.id, &desired).await?;
            report.updated.push(desired.name);
            if !observed.is_enabled {
                report.enabled.push(enabled(observed));
            }
        }
        Change::Enable { observed, desired } => {
            session.update(&observed.id, &desired).await?;
            report.enabled.push(enabled(observed));
        }
        Change::Create { desired } => {
            session.create(&desired).await?;
            report.created.push(desired.name);
        }
        Change::Delete { observed } => {
            session.delete(&observed.id).await?;
            report.deleted.push(observed.name);
        }
    }
    Ok(())
}

fn enabled(observed: ObservedWebhook) -> Enabled {
    Enabled { name: observed.name, reason: observed.status_change_reason }
}

fn name_of(change: &Change) -> &str {
    match change {
        Change::Create { desired } => &desired.name,
        Change::Update { observed, .. } | Change::Enable { observed, .. } | Change::Delete { observed } => {
            &observed.name
        }
    }
}

fn unknown_event(event: &Event) -> String {
    format!("{event} is not an event this release knows; it is registered all the same")
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

/// An error with its causes, on one line.
fn described(error: TableauError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}
