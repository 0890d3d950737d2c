//! Runs of the sites of each token.

use futures_util::{StreamExt, stream};
use shared::{
    problems::{Problem, ProblemKind},
    sites::entry::{BadEntry, SiteEntry},
    state::Progress,
};
use tableau::SITES_AT_ONCE;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    remedies::unusable,
    report::{SiteReport, format_time},
    request::Action,
    site_run::{RunContext, SiteOutcome},
    state_table::StateTable,
    token_groups::{TokenGroups, Turns, in_order},
};

/// Runs the requested sites: tokens side by side, the sites of a token one after another.
pub(crate) async fn run_sites<T: StateTable>(
    run: &RunContext<'_, T>,
    sites: Option<Vec<String>>,
    entries: Vec<Result<SiteEntry, BadEntry>>,
) -> Vec<SiteOutcome> {
    let TokenGroups { by_token, unusable: reports } = TokenGroups::new(entries, run.config);
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
    let turns = Turns::new(run.deadline, tokens.iter().map(Vec::len).sum());
    let running = stream::iter(tokens).map(async |entries| run_token(run, entries, &turns).await);
    let outcomes = running.buffer_unordered(SITES_AT_ONCE).collect::<Vec<_>>().await;
    let mut outcomes: Vec<_> = outcomes.into_iter().flatten().chain(unusable_entries).collect();
    for name in sites.iter().flatten() {
        if outcomes.iter().all(|outcome| outcome.report.site != *name) {
            let what = format!("There is no site entry {}/{name}.", run.config.sites_path);
            let remedy = format!("To add one: {}", run.config.store_command(name));
            outcomes.push(unchanged(SiteReport::of_failure(name, unusable(what, remedy))));
        }
    }
    outcomes
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

/// Returns the outcome of a site whose token another run holds. For the schedule that run does the work; any other action has to
/// be requested again.
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
