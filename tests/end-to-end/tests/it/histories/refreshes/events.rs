//! The events that refreshes have, and those that the log gives up.

use std::collections::BTreeSet;

use serde_json::Value;
use tableau_simulator::model::RefreshOutcome;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::history::WANTED;

/// A refresh on Tableau.
#[derive(Clone, Debug)]
pub(super) struct Refresh {
    pub(super) site: usize,
    pub(super) id: String,
    pub(super) kind: &'static str,
    pub(super) started_at: OffsetDateTime,
    pub(super) ended: Option<(OffsetDateTime, RefreshOutcome)>,
    /// The events that Tableau delivered.
    pub(super) delivered: BTreeSet<String>,
}

impl Refresh {
    /// Returns its events that are wanted, with their times.
    pub(super) fn events(&self) -> Vec<(String, OffsetDateTime)> {
        let kind = if self.kind == "workbook" { "Workbook" } else { "Datasource" };
        let ended = self.ended.and_then(|(at, outcome)| match outcome {
            RefreshOutcome::Succeeded => Some(("Succeeded", at)),
            RefreshOutcome::Failed => Some(("Failed", at)),
            RefreshOutcome::Cancelled => None,
        });
        let all = [Some(("Started", self.started_at)), ended].into_iter().flatten();
        let named = all.map(|(stage, at)| (format!("{kind}Refresh{stage}"), at));
        named.filter(|(name, _)| WANTED.contains(&name.as_str())).collect()
    }
}

/// Events that the log says are not recovered.
#[derive(Clone, Debug)]
pub(super) struct NotRecovered {
    site: String,
    pub(super) job: Option<String>,
    events: Vec<String>,
    pub(super) from: Option<OffsetDateTime>,
    pub(super) until: Option<OffsetDateTime>,
}

impl NotRecovered {
    /// Reads them from a line of the log.
    pub(super) fn parse(line: &str) -> Vec<Self> {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        let site = line["site"].as_str().unwrap_or_default();
        let all = line["not_recovered"].as_array().into_iter().flatten().map(|one| {
            let time = |name: &str| OffsetDateTime::parse(one[name].as_str()?, &Rfc3339).ok();
            let events = one["events"].as_array().into_iter().flatten().filter_map(Value::as_str);
            Self {
                site: site.to_owned(),
                job: one["job"].as_str().map(str::to_owned),
                events: events.map(str::to_owned).collect(),
                from: time("from"),
                until: time("until"),
            }
        });
        all.collect()
    }

    /// Whether an event of a refresh is among them.
    pub(super) fn covers(&self, site: &str, refresh: &Refresh, event: &str, at: OffsetDateTime) -> bool {
        let is_it = match &self.job {
            Some(id) => *id == refresh.id,
            None => {
                self.from.is_none_or(|from| from <= at)
                    && self.until.is_none_or(|until| at <= until)
                    && (self.events.is_empty() || self.events.iter().any(|it| it == event))
            }
        };
        self.site == site && is_it
    }
}
