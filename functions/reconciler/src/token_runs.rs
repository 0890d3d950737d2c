//! Runs of the sites of each token.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use lambda_support::error_chain;
use shared::{
    problems::{Problem, ProblemKind},
    redaction::known_secrets::KnownSecrets,
    sites::{
        entry::{BadEntry, SiteEntry},
        webhook::DesiredWebhook,
    },
    state::Progress,
    timestamp::Timestamp,
};
use tableau::SITES_AT_ONCE;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    remedies::{out_of_time, unusable},
    report::SiteReport,
    request::Action,
    site_run::{RunContext, SiteOutcome, SiteRun},
    state::HeldToken,
    state_table::StateTable,
    token_groups::{TokenGroups, Turns, in_order},
};

/// The number of tokens that are held at once.
const HOLDS_AT_ONCE: usize = 16;

/// A held token, or until when another run holds it, if that is known.
type Held = Result<HeldToken, Option<OffsetDateTime>>;

/// The time that must be left to begin with a site: signing in, listing and signing out, with Tableau as slow as it was seen.
const SITE_TIME: Duration = Duration::from_secs(60);

/// The outcomes of sites, and the tokens that the run holds until it has stored their state.
pub(crate) struct SitesRun {
    pub(crate) outcomes: Vec<SiteOutcome>,
    pub(crate) tokens: Vec<HeldToken>,
}

/// Runs the requested sites: tokens side by side, the sites of a token one after another.
pub(crate) async fn run_sites<T: StateTable>(
    run: &RunContext<'_, T>,
    sites: Option<Vec<String>>,
    entries: Vec<Result<SiteEntry, BadEntry>>,
) -> SitesRun {
    let TokenGroups { by_token, unusable: reports } = TokenGroups::new(entries, run.config);
    let is_chosen = |site: &str| sites.as_ref().is_none_or(|sites| sites.iter().any(|name| name == site));
    let unchanged = |report: SiteReport| {
        let items = run.state.items(&report.site);
        SiteOutcome::unchanged(report, run.attempted(), items)
    };
    let unusable_entries = reports.into_iter().filter(|report| is_chosen(&report.site)).map(unchanged);
    let chosen = by_token.into_values().map(|entries| {
        let chosen = entries.into_iter().filter(|entry| is_chosen(entry.name.as_str()));
        chosen.collect::<Vec<_>>()
    });
    let tokens = in_order(chosen.filter(|entries| !entries.is_empty()).collect(), &run.state.run.content);
    // All of them at once, right after the state was read: no other run changes it from then on.
    let holding = stream::iter(tokens).map(async |entries| (hold_token(run, &entries).await, entries));
    let tokens = holding.buffered(HOLDS_AT_ONCE).collect::<Vec<_>>().await;
    let turns = Turns::new(run.deadline, tokens.iter().map(|(_, entries)| entries.len()).sum());
    let running = stream::iter(tokens).map(async |(held, entries)| {
        let outcomes = run_token(run, &held, &entries, &turns).await;
        (held, outcomes)
    });
    let (held, outcomes): (Vec<_>, Vec<_>) = running.buffer_unordered(SITES_AT_ONCE).unzip().await;
    let tokens = held.into_iter().filter_map(Result::ok).collect();
    let mut outcomes: Vec<_> = outcomes.into_iter().flatten().chain(unusable_entries).collect();
    for name in sites.iter().flatten() {
        if outcomes.iter().all(|outcome| outcome.report.site != *name) {
            let what = format!("There is no site entry {}/{name}.", run.config.sites_path);
            let remedy = format!("To add it: {}", run.config.site_commands().add_site(name));
            outcomes.push(unchanged(SiteReport::of_failure(name, unusable(what, remedy))));
        }
    }
    SitesRun { outcomes, tokens }
}

/// Holds the token of some sites until the end of the run.
async fn hold_token<T: StateTable>(run: &RunContext<'_, T>, entries: &[SiteEntry]) -> Held {
    let Some(first) = entries.first() else { return Err(None) };
    let time_left = run.ends_by.saturating_duration_since(Instant::now());
    run.state.hold_token(first, OffsetDateTime::now_utc(), time_left).await
}

/// Runs the sites of one token, one after another, since a token has one session.
async fn run_token<T: StateTable>(
    run: &RunContext<'_, T>,
    held: &Held,
    entries: &[SiteEntry],
    turns: &Turns,
) -> Vec<SiteOutcome> {
    let mut outcomes = Vec::new();
    for (entry, left) in entries.iter().zip((1..=entries.len()).rev()) {
        let deadline = turns.begin(left);
        outcomes.push(match held {
            Ok(_) => run_site(run, entry, deadline).await,
            Err(until) => left_to_another_run(run, entry, *until),
        });
    }
    outcomes
}

/// Carries the action out at one site, until the `deadline` of its turn: signs in, lists and changes the webhooks, reads the
/// jobs, and signs out.
#[tracing::instrument(skip_all, fields(site = %entry.name))]
async fn run_site<T: StateTable>(run: &RunContext<'_, T>, entry: &SiteEntry, deadline: Instant) -> SiteOutcome {
    let RunContext { config, tableau, action, keyring, .. } = run;
    if Instant::now() + SITE_TIME >= run.deadline {
        let then = action.or_again("The next run begins with it");
        let what = format!("Not checked, since there was no time left. {then}.");
        let report = SiteReport::of_failure(entry.name.as_str(), out_of_time(what));
        let progress = if run.action == Action::Explain { Progress::Left } else { Progress::OutOfTime };
        return SiteOutcome::unchanged(report, progress, run.state.items(entry.name.as_str()));
    }
    let mut site = SiteRun::new(run, entry, deadline);
    let desired = match action {
        Action::Destroy | Action::Explain => Vec::new(),
        _ => DesiredWebhook::all(&entry.name, site.wanted, &config.name_prefix, &config.receiver, keyring),
    };
    if run.action == Action::Explain && !site.may_explain() {
        return site.into_outcome(None);
    }
    let secrets = KnownSecrets::of_addresses(&entry.name, site.wanted.iter().cloned(), keyring);
    let mut session = match tableau.sign_in(entry, secrets, deadline).await {
        Ok(session) => session,
        Err(error) => {
            site.report.errors.push(site.advice.on_site(&error));
            return site.into_outcome(None);
        }
    };
    site.is_signed_in = true;
    let result = match action {
        Action::Plan => site.plan(&mut session, desired).await,
        Action::Apply | Action::Rotate | Action::Destroy => site.converge(&mut session, desired).await,
        Action::Test => site.test_all(&mut session).await,
        Action::Explain => Ok(()),
    };
    let refreshes = match result {
        Ok(()) => {
            let refreshes = match site.refreshes_to_read() {
                Some((state, lookback)) => Some(site.read_jobs(&mut session, state, lookback).await),
                None => None,
            };
            site.read_token_end(&mut session).await;
            refreshes
        }
        Err(error) => {
            site.report.errors.push(site.advice.on_site(&error));
            None
        }
    };
    if let Err(error) = session.sign_out().await {
        let error = error_chain(&error);
        tracing::warn!(error, "the session could not be ended; it ends by itself or at the next sign-in");
    }
    site.into_outcome(refreshes)
}

/// Returns the outcome of a site whose token another run holds. For the schedule that run does the work; any other action has to
/// be requested again.
fn left_to_another_run<T: StateTable>(
    run: &RunContext<'_, T>,
    entry: &SiteEntry,
    until: Option<OffsetDateTime>,
) -> SiteOutcome {
    let until = until.map(|until| format!(", until {} at the latest", Timestamp(until))).unwrap_or_default();
    let what = format!("Another run uses the token {:?}{until}: the site is left to it.", entry.token_name);
    let site = entry.name.as_str();
    let report = if matches!(run.action, Action::Apply | Action::Explain) {
        SiteReport { notes: vec![what], ..SiteReport::new(site) }
    } else {
        let remedy = "Ask for this again when the other run has ended.".to_owned();
        let problem = Problem { kind: ProblemKind::TokenInUse, event: None, what, remedy, detail: None };
        SiteReport::of_failure(site, problem)
    };
    SiteOutcome { is_left: true, ..SiteOutcome::unchanged(report, Progress::Left, run.state.items(site)) }
}
