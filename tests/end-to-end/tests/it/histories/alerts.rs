//! Alerts as a subscriber reads them: each says that a problem of some sites began, or that it is solved.

use std::collections::BTreeMap;

use anyhow::ensure;
use reconciler::report::Report;
use serde_json::Value;
use shared::{
    alerts::message::AlertMessage,
    problems::{Problem, ProblemKey, ProblemKind},
};

/// Problems that the run which finds them also ends, so that no alert says they are solved.
const MOMENTARY: [ProblemKind; 3] = [ProblemKind::WebhookDisabled, ProblemKind::RefreshesLost, ProblemKind::AlertsLost];

/// The place of problems that belong to the runs, in the alert that they are solved.
const ALL_SITES: &str = "all sites";

/// The last alert about each problem, by site and headline.
#[derive(Debug, Default)]
pub(super) struct LastAlerts(BTreeMap<(String, String), Last>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Begun,
    Solved,
    /// Runs need not know of it: the entry or state of the site was deleted since, or could not be stored.
    Void,
}

impl LastAlerts {
    /// Reads an alert, if it is about a problem. Where DynamoDB failed, the run could not store that it alerted of one.
    pub(super) fn read(&mut self, AlertMessage { subject, body }: &AlertMessage, is_stored: bool) {
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let card: Value = serde_json::from_str(body["https"].as_str().unwrap_or_default()).unwrap_or_default();
        let kind = card["metadata"]["eventType"].as_str().and_then(|kind| kind.parse::<ProblemKey>().ok());
        let parts = subject.strip_prefix("Tableau ").and_then(|subject| subject.split_once(": "));
        let Some((sites, headline)) = parts.filter(|_| kind.is_some()) else { return };
        let (headline, last) = match headline.strip_prefix("solved: ") {
            Some(headline) => (headline, Last::Solved),
            None => (headline, if is_stored { Last::Begun } else { Last::Void }),
        };
        for site in sites.split(", ") {
            self.0.insert(key(site, headline), last);
        }
    }

    /// Voids alerts about a site's problems, or about those of runs if there is no site.
    pub(super) fn void(&mut self, site: Option<&str>) {
        let of_site = self.0.iter_mut().filter(|((at, _), _)| at == site.unwrap_or(ALL_SITES));
        of_site.for_each(|(_, last)| *last = Last::Void);
    }

    /// Checks that each problem of a report was alerted.
    pub(super) fn check_begun(&self, report: &Report) -> anyhow::Result<()> {
        for (site, problem) in lasting_problems(report) {
            let last = self.0.get(&key(site, problem.kind.headline()));
            let is_alerted = last.is_some_and(|last| *last != Last::Solved);
            ensure!(is_alerted, "no alert says that {site} has this problem: {problem}");
        }
        Ok(())
    }

    /// Checks that each problem that is not in a report was alerted as solved.
    pub(super) fn check_solved(&self, report: &Report) -> anyhow::Result<()> {
        let lasting: Vec<_> =
            lasting_problems(report).map(|(site, problem)| key(site, problem.kind.headline())).collect();
        for (problem, last) in &self.0 {
            let is_momentary = MOMENTARY.iter().any(|kind| kind.headline() == problem.1);
            // At the end only entries are wrong, and that masks every other problem of the site.
            let is_masked = lasting.iter().any(|(site, _)| *site == problem.0);
            ensure!(
                *last != Last::Begun || is_momentary || is_masked,
                "no alert says that a problem is solved: {problem:?}"
            );
        }
        Ok(())
    }
}

fn key(site: &str, headline: &str) -> (String, String) {
    let is_run_wide = headline == ProblemKind::OutOfTime.headline();
    (if is_run_wide { ALL_SITES } else { site }.to_owned(), headline.to_owned())
}

fn lasting_problems(report: &Report) -> impl Iterator<Item = (&str, &Problem)> {
    let all = report.sites.iter().flat_map(|site| site.problems());
    all.filter(|(_, problem)| problem.kind != ProblemKind::TokenInUse && !MOMENTARY.contains(&problem.kind))
}
