//! State that the reconciler keeps between runs: items for each site, one for the runs, one for each token in use.
//!
//! Items are stored as they are here, so that an administrator can read them in the console. They hold no secret and no
//! name of a user. A lost item costs no registration: the next run reports what it cannot know, and goes on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::OffsetDateTime;

use crate::{
    alerts::state::AlertState,
    problems::{ProblemKind, Problems},
    refreshes::{failing::FailingResources, job_queries::JobQueries, state::RefreshState},
    registration::site_name::SiteName,
    sites::entry::SiteEntry,
    timestamp::Timestamp,
};

/// The only format of the items so far. An item of another format is not read.
const FORMAT: u32 = 1;

/// The key of the item for the runs.
pub const RUN_KEY: &str = "run";

/// The beginning of the keys of sites' items.
pub const SITE_PREFIX: &str = "site#";

/// The beginning of the keys of the items about the ends of sites' tokens.
pub const TOKEN_END_PREFIX: &str = "token-end#";

/// The beginning of the keys of tokens' items.
pub const TOKEN_PREFIX: &str = "token#";

/// The beginning of the keys of the items with sites' failing resources.
pub const FAILING_PREFIX: &str = "failing#";

/// State of one site.
///
/// ```
/// use serde_json::json;
/// use shared::{
///     state::{SiteState, read_item, to_item},
///     timestamp::Timestamp,
/// };
/// use time::macros::datetime;
///
/// let mut state = SiteState::default();
/// state.problems.insert("token-refused".parse()?, Timestamp(datetime!(2026-05-21 08:00 UTC)));
/// let item = to_item(&state);
/// assert_eq!(item, json!({ "format": 1, "problems": { "token-refused": "2026-05-21T08:00:00Z" } }));
/// assert_eq!(read_item::<SiteState>(&item)?, state);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteState {
    /// Problems of the site that subscribers were alerted of, and since when.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub problems: Problems,
    /// Problems of which subscribers may have been alerted, and since when.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alerting: Problems,
    /// Checkpoint of recovering and explaining refreshes; `None` if that is switched off, or has not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refreshes: Option<RefreshState>,
}

/// The failing resources of one site, and its job queries. An item of its own, since an earlier release would take the site's
/// item with it for unreadable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailingState {
    /// The resources.
    pub resources: FailingResources,
    /// The job queries of the day.
    #[serde(default)]
    pub job_queries: JobQueries,
}

/// State of the runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// When the webhooks of all sites were last checked, except those in `others`, by our own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checked: Option<Timestamp>,
    /// When the webhooks of other sites were last checked; never, if there is no time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    others: BTreeMap<SiteName, Option<Timestamp>>,
    /// Sites for which recent runs had no time, and since when. The next run begins with them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    late: BTreeMap<SiteName, Timestamp>,
    /// Problems of the runs themselves that subscribers were alerted of, and since when.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    problems: Problems,
    /// Problems of the runs themselves of which subscribers may have been alerted, and since when.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    alerting: Problems,
}

/// How far a run came with a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It listed the webhooks.
    Checked,
    /// It tried to.
    Attempted,
    /// It had no time.
    OutOfTime,
    /// It was asked for other sites only, or another run uses the token.
    Left,
}

/// The right of one run to use a token until a time. A token has one session, so that a second one ends the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenHold {
    /// The run.
    pub holder: String,
    /// The time by which the run has ended in any case.
    pub until: Timestamp,
}

/// The item is not one that this release stores.
#[derive(Debug, Error)]
#[error("it is of another format, or was changed by hand")]
pub struct InvalidItem;

/// An item with its format.
#[derive(Serialize, Deserialize)]
struct Formatted<T> {
    format: u32,
    #[serde(flatten)]
    content: T,
}

/// Returns the key of a site's item.
pub fn site_key(site: &str) -> String {
    format!("{SITE_PREFIX}{site}")
}

/// Returns the key of the item about the end of a site's token.
pub fn token_end_key(site: &str) -> String {
    format!("{TOKEN_END_PREFIX}{site}")
}

/// Returns the key of the item with a site's failing resources.
pub fn failing_key(site: &str) -> String {
    format!("{FAILING_PREFIX}{site}")
}

/// Returns the key of a token's item.
pub fn token_key(entry: &SiteEntry) -> String {
    format!("{TOKEN_PREFIX}{}", token_digest(entry))
}

/// Returns a digest that stands for the server and the token's name, which may be long.
pub fn token_digest(entry: &SiteEntry) -> String {
    let digest = Sha256::digest(format!("{}\n{}", entry.server, entry.token_name));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Reads an item's members, without its key and version.
///
/// # Errors
///
/// It is not of the format that [`to_item`] writes.
pub fn read_item<T: DeserializeOwned>(item: &Value) -> Result<T, InvalidItem> {
    let mut members = item.as_object().cloned().ok_or(InvalidItem)?;
    let format = members.remove("format").and_then(|format| format.as_u64());
    if format != Some(FORMAT.into()) {
        return Err(InvalidItem);
    }
    serde_json::from_value(Value::Object(members)).map_err(|_| InvalidItem)
}

/// Returns an item's members, without its key and version.
#[expect(clippy::expect_used, reason = "times and texts under fixed names can always be written as JSON")]
pub fn to_item<T: Serialize>(content: &T) -> Value {
    serde_json::to_value(Formatted { format: FORMAT, content }).expect("an item is JSON")
}

impl SiteState {
    /// Returns the problems of the site, as subscribers know them.
    pub fn alerts(&self) -> AlertState {
        AlertState { known: self.problems.clone(), alerting: self.alerting.clone() }
    }

    /// Replaces the problems of the site, except that its token ends: that is in an item of its own.
    #[must_use]
    pub fn with_alerts(self, alerts: AlertState) -> Self {
        let AlertState { known, alerting } = alerts.only(|kind| kind != ProblemKind::TokenEnding);
        Self { problems: known, alerting, ..self }
    }

    /// Whether storing it in place of `before` is worth a write: anything but the plain passing of time.
    pub fn differs_from(&self, before: &Self) -> bool {
        let Self { problems, alerting, refreshes } = self;
        let refreshes_differ = match (refreshes, &before.refreshes) {
            (Some(after), Some(before)) => after.differs_from(before),
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        };
        refreshes_differ || (problems, alerting) != (&before.problems, &before.alerting)
    }
}

impl RunState {
    /// Returns the problems of the runs, as subscribers know them.
    pub fn alerts(&self) -> AlertState {
        AlertState { known: self.problems.clone(), alerting: self.alerting.clone() }
    }

    /// Replaces the problems of the runs.
    #[must_use]
    pub fn with_alerts(self, AlertState { known, alerting }: AlertState) -> Self {
        Self { problems: known, alerting, ..self }
    }

    /// Returns when a site's webhooks were last checked, if they ever were and that is known.
    pub fn checked(&self, site: &SiteName) -> Option<OffsetDateTime> {
        let checked = self.others.get(site).copied().unwrap_or(self.checked);
        checked.map(|Timestamp(at)| at)
    }

    /// Returns since when the runs have had no time for a site.
    pub fn late(&self, site: &SiteName) -> Option<OffsetDateTime> {
        self.late.get(site).map(|Timestamp(at)| *at)
    }

    /// Notes how far a run at `now` came with each declared site.
    pub fn note_progress(&mut self, sites: &BTreeMap<SiteName, Progress>, now: OffsetDateTime) {
        let now = Timestamp(now.truncate_to_second());
        let times: BTreeMap<_, _> = sites
            .iter()
            .map(|(site, progress)| {
                let is_checked = *progress == Progress::Checked;
                (site.clone(), if is_checked { Some(now) } else { self.checked(site).map(Timestamp) })
            })
            .collect();
        // Mostly that is all of them.
        let mut counts = BTreeMap::new();
        times.values().flatten().for_each(|at| *counts.entry(*at).or_insert(0_usize) += 1);
        self.checked = counts.into_iter().max_by_key(|(at, count)| (*count, *at)).map(|(at, _)| at);
        self.others = times.into_iter().filter(|(_, at)| *at != self.checked).collect();
        self.late = (sites.iter())
            .filter_map(|(site, progress)| {
                let late = self.late.get(site).copied();
                let late = match progress {
                    Progress::Checked | Progress::Attempted => None,
                    Progress::OutOfTime => late.or(Some(now)),
                    Progress::Left => late,
                };
                Some((site.clone(), late?))
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn an_item_of_another_format_or_with_unknown_members_is_not_read() {
        let item = to_item(&SiteState::default());
        assert_eq!(item, json!({ "format": 1 }));
        assert_eq!(read_item::<SiteState>(&item).ok(), Some(SiteState::default()));
        for other in [
            json!({}),
            json!(null),
            json!({ "format": 2 }),
            json!({ "format": "1" }),
            json!({ "format": 1, "problems": [] }),
            json!({ "format": 1, "problems": { "token-refused": "yesterday" } }),
            json!({ "format": 1, "problems": { "no-such-problem": "2026-05-21T08:00:00Z" } }),
            json!({ "format": 1, "refreshes": {} }),
            json!({ "format": 1, "more": 1 }),
        ] {
            assert!(read_item::<SiteState>(&other).is_err(), "{other}");
        }
    }

    #[test]
    fn one_time_stands_for_all_sites_that_were_checked_together() {
        use Progress::{Attempted, Checked, Left, OutOfTime};

        let [first, second, third] = [
            datetime!(2026-05-21 08:00:00 UTC),
            datetime!(2026-05-21 08:15:00 UTC),
            datetime!(2026-05-21 08:30:00 UTC),
        ];
        let [a, b, c] = ["a", "b", "c"].map(|name| name.parse::<SiteName>().expect("a name"));
        let progress = |of_each: [Progress; 3]| [&a, &b, &c].map(Clone::clone).into_iter().zip(of_each).collect();
        let mut state = RunState::default();
        state.note_progress(&progress([Checked, Checked, Attempted]), first);
        assert_eq!(to_item(&state), json!({ "format": 1, "checked": "2026-05-21T08:00:00Z", "others": { "c": null } }));
        state.note_progress(&progress([Checked, OutOfTime, Left]), second);
        assert_eq!([&a, &b, &c].map(|site| state.checked(site)), [Some(second), Some(first), None]);
        state.note_progress(&progress([Left, OutOfTime, Attempted]), third);
        assert_eq!([&a, &b, &c].map(|site| state.late(site)), [None, Some(second), None]);
        state.note_progress(&progress([Checked, Checked, Checked]), third);
        assert_eq!(to_item(&state), json!({ "format": 1, "checked": "2026-05-21T08:30:00Z" }));
    }
}
