//! Token groups: the sites of a run by their tokens, their order, and the time of each.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use shared::{
    registration::site_name::SiteName,
    sites::entry::{BadEntry, SiteEntry},
    state::RunState,
};
use tableau::SITES_AT_ONCE;
use tokio::time::Instant;
use url::Url;

use crate::{config::Config, remedies::unusable, report::SiteReport};

/// The sites of a run.
pub(crate) struct TokenGroups {
    /// The usable entries by server and token. A token has one session, so that its sites run one after another.
    pub(crate) by_token: BTreeMap<(Url, String), Vec<SiteEntry>>,
    /// Reports on the entries that cannot be used.
    pub(crate) unusable: Vec<SiteReport>,
}

impl TokenGroups {
    pub(crate) fn new(mut entries: Vec<Result<SiteEntry, BadEntry>>, config: &Config) -> Self {
        // Sorted, so that of two entries for one Tableau site always the same one is used.
        entries.sort_by(|a, b| site_of(a).cmp(site_of(b)));
        let mut visits = Self { by_token: BTreeMap::new(), unusable: Vec::new() };
        let mut declared_by = BTreeMap::new();
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(BadEntry { site, error }) => {
                    let commands = config.site_commands();
                    let remedy = if site.parse::<SiteName>().is_ok() {
                        format!("Store it again: {}", commands.replace_entry(&site))
                    } else {
                        format!(
                            "Add the site under another name, and delete this entry: {}",
                            commands.delete_entry(&site)
                        )
                    };
                    let problem = unusable(error.to_string(), remedy);
                    visits.unusable.push(SiteReport::of_failure(site, problem));
                    continue;
                }
            };
            match declared_by.entry((entry.server.clone(), entry.content_url.clone())) {
                Entry::Vacant(vacant) => {
                    vacant.insert(entry.name.clone());
                    visits.by_token.entry((entry.server.clone(), entry.token_name.clone())).or_default().push(entry);
                }
                Entry::Occupied(first) => {
                    let what = format!(
                        "The entry {}/{} declares the same Tableau site as the entry {}.",
                        config.sites_path,
                        entry.name,
                        first.get()
                    );
                    let remove = config.site_commands().remove_site(entry.name.as_str());
                    let problem = unusable(what, format!("Remove one of the two: {remove}"));
                    visits.unusable.push(SiteReport::of_failure(entry.name.as_str(), problem));
                }
            }
        }
        visits
    }
}

/// Returns the name of the site that an entry declares.
pub(crate) fn site_of(entry: &Result<SiteEntry, BadEntry>) -> &str {
    match entry {
        Ok(entry) => entry.name.as_str(),
        Err(bad) => &bad.site,
    }
}

/// Orders the sites of each token, and the tokens: first those that runs have not reached for the longest time. The others
/// come in random order, so that a run without enough time does not always leave out the same sites.
pub(crate) fn in_order(mut tokens: Vec<Vec<SiteEntry>>, state: &RunState) -> Vec<Vec<SiteEntry>> {
    let place = |entry: &SiteEntry| {
        let since = state.late(&entry.name);
        (since.is_none(), since, getrandom::u32().unwrap_or_default())
    };
    for sites in &mut tokens {
        sites.sort_by_cached_key(place);
    }
    tokens.sort_by_cached_key(|sites| sites.first().map(place));
    tokens
}

/// The time of a run, shared by its sites. A site with a slow server takes no more than its turn from the sites that wait.
#[derive(Debug)]
pub(crate) struct Turns {
    /// The time by which all turns must have ended.
    deadline: Instant,
    /// The number of sites that wait for their turn.
    waiting: AtomicUsize,
}

impl Turns {
    /// Shares the time until the deadline among a number of sites.
    pub(crate) fn new(deadline: Instant, sites: usize) -> Self {
        Self { deadline, waiting: AtomicUsize::new(sites) }
    }

    /// Begins the turn of a site, and returns its deadline. `of_its_token` sites of the token wait, with this one.
    pub(crate) fn begin(&self, of_its_token: usize) -> Instant {
        let waiting = self.waiting.fetch_sub(1, Ordering::Relaxed);
        let now = Instant::now();
        (now + turn(self.deadline.saturating_duration_since(now), waiting, of_its_token)).min(self.deadline)
    }
}

/// Returns the length of a turn while a number of sites wait: all of the time if they can run side by side.
fn turn(left: Duration, waiting: usize, of_its_token: usize) -> Duration {
    let one_after_another = waiting.div_ceil(SITES_AT_ONCE).max(of_its_token).max(1);
    let turn = left / one_after_another.try_into().unwrap_or(u32::MAX);
    turn.max(MIN_TURN)
}

/// The shortest turn, so that a site with a slow server makes progress: the time to check it, and a minute for changes.
const MIN_TURN: Duration = Duration::from_secs(105);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use shared::state::Progress;
    use time::macros::datetime;

    use super::*;

    fn entries(names: &[&str]) -> Vec<SiteEntry> {
        let entries = names.iter().map(|name| {
            let entry =
                json!({ "server": "https://tableau.example", "site": name, "token_name": "n", "token_secret": "s" });
            SiteEntry::parse(&format!("/sites/{name}"), &entry.to_string()).expect("an entry")
        });
        entries.collect()
    }

    #[test]
    fn a_site_that_the_last_run_had_no_time_for_comes_first() {
        let progress = ["a", "b", "c", "d", "e"].into_iter().map(|name| {
            let progress = if ["c", "e"].contains(&name) { Progress::OutOfTime } else { Progress::Checked };
            (name.parse().expect("a name"), progress)
        });
        let mut state = RunState::default();
        state.note_progress(&progress.collect(), datetime!(2026-05-21 08:00:00 UTC));
        let mut orders = BTreeSet::new();
        for _ in 0..100 {
            let tokens = [&["a"][..], &["b", "c"], &["d"], &["e"]].map(entries);
            let order = in_order(tokens.into(), &state);
            let names: Vec<_> = order.iter().flatten().map(|entry| entry.name.to_string()).collect();
            let place = |name: &str| names.iter().position(|it| it == name);
            assert!(place("c") < place("b"), "{names:?}");
            let late = [place("c"), place("e")].into_iter().max().flatten();
            assert!(late < place("a") && late < place("d") && late <= Some(2), "{names:?}");
            orders.insert(names);
        }
        assert!(orders.len() > 1, "the others come in any order");
    }

    #[test]
    fn a_turn_is_all_the_time_unless_others_wait() {
        let seconds = Duration::from_secs;
        for (left, waiting, of_its_token, expected) in [
            (225, 1, 1, 225),
            (225, SITES_AT_ONCE, 1, 225),
            (225, SITES_AT_ONCE + 1, 1, 112),
            (900, SITES_AT_ONCE * 4, 1, 225),
            (900, 3, 3, 300),
            (900, 4 * SITES_AT_ONCE, 6, 150),
            (225, 1000, 1, 105),
            (225, 20, 20, 105),
            (0, 1, 1, 105),
            (225, 0, 0, 225),
        ] {
            let turn = turn(seconds(left), waiting, of_its_token);
            assert_eq!(turn.as_secs(), expected, "{left} {waiting} {of_its_token}");
        }
    }
}
