//! State as a run reads it, and as it stores it at its end.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use lambda_support::error_chain;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::{
    alerts::state::AlertState,
    sites::{entry::SiteEntry, token_end::TokenEndState},
    state::{
        FAILING_PREFIX, FailingState, RUN_KEY, RunState, SITE_PREFIX, SiteState, TOKEN_END_PREFIX, TOKEN_PREFIX,
        TokenHold, failing_key, read_item, site_key, to_item, token_end_key, token_key,
    },
    timestamp::Timestamp,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    BoxError,
    state_table::{Item, StateTable, WriteError},
};

/// The number of items written at once.
const WRITES_AT_ONCE: usize = 16;

/// The time by which a token hold outlasts the run. Clocks differ, and Lambda takes a moment to end a run.
const HOLD_SLACK: time::Duration = time::Duration::minutes(1);

/// An item as it was read, with the version that a write replaces.
#[derive(Clone, Debug)]
pub(crate) struct Stored<T> {
    pub(crate) version: Option<u64>,
    /// The default if there is no item, or if it could not be read.
    pub(crate) content: T,
    /// Whether the content is what an earlier run stored.
    pub(crate) is_known: bool,
}

impl<T: Default> Default for Stored<T> {
    fn default() -> Self {
        Self { version: None, content: T::default(), is_known: false }
    }
}

impl<T> Stored<T> {
    /// Notes that the item was written.
    pub(crate) fn increment_version(&mut self) {
        self.version = Some(self.version.unwrap_or_default() + 1);
    }
}

impl<T: Default + DeserializeOwned + PartialEq> Stored<T> {
    /// Whether it is to be written over the item `before`.
    fn is_new_to(&self, before: &Self, differs: fn(&T, &T) -> bool) -> bool {
        let is_same = before.is_known && before.version == self.version;
        let is_empty = self.version.is_none() && self.content == T::default();
        !is_empty && (!is_same || differs(&self.content, &before.content))
    }

    fn read(version: Option<u64>, content: &Value) -> Self {
        let content = read_item(content);
        Self { version, is_known: content.is_ok(), content: content.unwrap_or_default() }
    }
}

/// The items of a site. Its state has the failing resources too, which are stored in an item of their own.
#[derive(Clone, Debug, Default)]
pub(crate) struct SiteItems {
    pub(crate) site: Stored<SiteState>,
    pub(crate) token_end: Stored<TokenEndState>,
    /// The item of the failing resources, as it is stored at this moment.
    failing: Stored<FailingState>,
}

/// The items that a run could not store.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unstored {
    /// The keys of items that another run stored meanwhile.
    pub(crate) lost: Vec<String>,
    /// Why an item could not be stored.
    pub(crate) error: Option<String>,
}

impl Unstored {
    /// Adds what could not be stored after this.
    pub(crate) fn and(mut self, later: Self) -> Self {
        self.lost.extend(later.lost);
        Self { lost: self.lost, error: self.error.or(later.error) }
    }

    fn note(&mut self, key: String, error: &WriteError) {
        match error {
            WriteError::Conflict => self.lost.push(key),
            WriteError::Failed(failed) => self.error = Some(error_chain(failed)),
        }
    }
}

impl SiteItems {
    /// Returns the item of the failing resources to store, `None` in place of one to delete, if it differs from the stored one.
    fn failing_to_store(&self) -> Option<Option<FailingState>> {
        let Stored { version, content: before, is_known } = &self.failing;
        let Some(refreshes) = &self.site.content.refreshes else { return version.map(|_| None) };
        let after = FailingState { resources: refreshes.failing().clone(), job_queries: *refreshes.job_queries() };
        let differs = after.resources != before.resources || after.job_queries.differ_from(&before.job_queries);
        (differs || (version.is_some() && !is_known)).then_some(Some(after))
    }

    /// Returns the problems of the site, as subscribers know them.
    pub(crate) fn alerts(&self) -> AlertState {
        self.site.content.alerts().and(self.token_end.content.alerts())
    }

    /// Replaces the problems of the site.
    pub(crate) fn set_alerts(&mut self, alerts: AlertState) {
        let Self { site, token_end, .. } = self;
        site.content = std::mem::take(&mut site.content).with_alerts(alerts.clone());
        token_end.content = std::mem::take(&mut token_end.content).with_alerts(alerts);
    }
}

/// All state.
#[derive(Debug)]
pub(crate) struct State<'a, T> {
    table: &'a T,
    /// The reason why the table cannot be used. Then nothing is known, and nothing is stored.
    pub(crate) error: Option<String>,
    sites: BTreeMap<String, Stored<SiteState>>,
    /// The ends of the sites' tokens.
    token_ends: BTreeMap<String, Stored<TokenEndState>>,
    /// The sites' failing resources.
    failing: BTreeMap<String, Stored<FailingState>>,
    /// The sites whose items could not be read.
    pub(crate) invalid: Vec<String>,
    pub(crate) run: Stored<RunState>,
    /// The version of each token's item, and its hold if it can be read.
    tokens: BTreeMap<String, (Option<u64>, Option<TokenHold>)>,
    /// The identifier of this run in its token holds.
    holder: String,
}

/// A token that this run may use, until it is released.
#[derive(Debug)]
pub(crate) struct HeldToken {
    /// The key and version of its item; `None` if the table cannot be used.
    item: Option<(String, u64)>,
}

impl<'a, T: StateTable> State<'a, T> {
    /// Reads the table.
    pub(crate) async fn read(table: &'a T) -> Self {
        let (items, error) = match table.read().await {
            Ok(items) => (items, None),
            Err(error) => (Vec::new(), Some(error_chain(&error))),
        };
        let mut state = Self {
            table,
            error,
            sites: BTreeMap::new(),
            token_ends: BTreeMap::new(),
            failing: BTreeMap::new(),
            invalid: Vec::new(),
            run: Stored::default(),
            tokens: BTreeMap::new(),
            holder: Uuid::new_v4().to_string(),
        };
        for Item { key, version, content } in items {
            if key == RUN_KEY {
                state.run = Stored::read(version, &content);
            } else if let Some(site) = key.strip_prefix(SITE_PREFIX) {
                let stored = Stored::read(version, &content);
                if !stored.is_known {
                    state.invalid.push(site.to_owned());
                }
                state.sites.insert(site.to_owned(), stored);
            } else if let Some(site) = key.strip_prefix(TOKEN_END_PREFIX) {
                let stored = Stored::read(version, &content);
                if !stored.is_known {
                    state.invalid.push(format!("the token of {site}"));
                }
                state.token_ends.insert(site.to_owned(), stored);
            } else if let Some(site) = key.strip_prefix(FAILING_PREFIX) {
                let stored = Stored::read(version, &content);
                if !stored.is_known {
                    state.invalid.push(format!("the failing resources of {site}"));
                }
                state.failing.insert(site.to_owned(), stored);
            } else if key.starts_with(TOKEN_PREFIX) {
                state.tokens.insert(key, (version, read_item(&content).ok()));
            }
        }
        for (site, failing) in &state.failing {
            let refreshes = state.sites.get_mut(site).and_then(|stored| stored.content.refreshes.as_mut());
            if let Some(refreshes) = refreshes {
                *refreshes.failing_mut() = failing.content.resources.clone();
                *refreshes.job_queries_mut() = failing.content.job_queries;
            }
        }
        state
    }

    /// Returns the names of the sites that have an item.
    pub(crate) fn sites(&self) -> impl Iterator<Item = &str> {
        let keys = self.sites.keys().chain(self.token_ends.keys()).chain(self.failing.keys());
        keys.map(String::as_str).collect::<BTreeSet<_>>().into_iter()
    }

    /// Returns the state of a site, and of the end of its token.
    pub(crate) fn items(&self, site: &str) -> SiteItems {
        let failing = self.failing.get(site).cloned().unwrap_or_default();
        SiteItems { site: self.site(site), token_end: self.token_end(site), failing }
    }

    /// Returns the known end of a site's token.
    pub(crate) fn token_end(&self, site: &str) -> Stored<TokenEndState> {
        self.token_ends.get(site).cloned().unwrap_or_default()
    }

    /// Returns the state of a site.
    pub(crate) fn site(&self, site: &str) -> Stored<SiteState> {
        self.sites.get(site).cloned().unwrap_or_default()
    }

    /// Holds the token of an entry until the run has stored its state, at the latest after `time_left`.
    ///
    /// # Errors
    ///
    /// Another run holds it, until a time if that is known.
    pub(crate) async fn hold_token(
        &self,
        entry: &SiteEntry,
        now: OffsetDateTime,
        time_left: std::time::Duration,
    ) -> Result<HeldToken, Option<OffsetDateTime>> {
        if self.error.is_some() {
            return Ok(HeldToken { item: None });
        }
        let key = token_key(entry);
        let (version, hold) = self.tokens.get(&key).cloned().unwrap_or_default();
        let held_until = hold.map(|hold| hold.until.0);
        if let Some(until) = held_until.filter(|until| *until > now) {
            return Err(Some(until));
        }
        let until = Timestamp((now + time_left + HOLD_SLACK).truncate_to_second());
        let hold = TokenHold { holder: self.holder.clone(), until };
        match self.table.write(&key, &to_item(&hold), version).await {
            Ok(()) => Ok(HeldToken { item: Some((key, version.unwrap_or_default() + 1)) }),
            Err(WriteError::Conflict) => Err(None),
            Err(WriteError::Failed(error)) => {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(error, "a token hold could not be stored; the token is used all the same");
                Ok(HeldToken { item: None })
            }
        }
    }

    /// Lets other runs hold tokens.
    pub(crate) async fn release_tokens(&self, tokens: Vec<HeldToken>) {
        let held = tokens.into_iter().filter_map(|token| token.item);
        let deletions = held.map(|(key, version)| (key, Some(version), None)).collect();
        for (_, deleted) in self.write_all(deletions).await {
            if let Err(error) = deleted {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(
                    error,
                    "a token hold could not be deleted; other runs leave its sites alone until it ends"
                );
            }
        }
    }

    /// Stores the state of a site before the run has ended.
    pub(crate) async fn checkpoint(&self, site: &str, state: &mut Stored<SiteState>) -> Result<(), BoxError> {
        if let Some(error) = &self.error {
            return Err(error.clone().into());
        }
        self.table.write(&site_key(site), &to_item(&state.content), state.version).await?;
        state.increment_version();
        Ok(())
    }

    /// Stores the states that differ at the end. Deletes the item of a site that is no longer declared, unless alerts of its
    /// problems are still to be ended. Returns the keys of items that another run stored meanwhile, and why an item could not
    /// be stored.
    pub(crate) async fn store(
        &self,
        declared: &BTreeSet<String>,
        sites: BTreeMap<String, SiteItems>,
        run: Stored<RunState>,
    ) -> Unstored {
        if self.error.is_some() {
            return Unstored { lost: Vec::new(), error: self.error.clone() };
        }
        let mut writes = Vec::new();
        for (name, items) in sites {
            let (site, token_end) = (site_key(&name), token_end_key(&name));
            let SiteItems { site: state, token_end: end, failing } = &items;
            if !declared.contains(&name) && items.alerts() == AlertState::default() {
                writes.extend(self.sites.contains_key(&name).then_some((site, state.version, None)));
                writes.extend(self.token_ends.contains_key(&name).then_some((token_end, end.version, None)));
                writes.extend(self.failing.contains_key(&name).then_some((failing_key(&name), failing.version, None)));
                continue;
            }
            if state.is_new_to(&self.site(&name), SiteState::differs_from) {
                writes.push((site, state.version, Some(to_item(&state.content))));
            }
            if end.is_new_to(&self.token_end(&name), PartialEq::ne) {
                writes.push((token_end, end.version, Some(to_item(&end.content))));
            }
        }
        // After the sites: until their state is stored, they do not count as checked.
        let run_differs = !self.run.is_known || run.version != self.run.version || run.content != self.run.content;
        let run = run_differs.then(|| (RUN_KEY.to_owned(), run.version, Some(to_item(&run.content))));
        let mut unstored = Unstored::default();
        for writes in [writes, run.into_iter().collect()] {
            for (key, written) in self.write_all(writes).await {
                written.unwrap_or_else(|error| unstored.note(key, &error));
            }
        }
        unstored.lost.sort();
        unstored
    }

    /// Stores the failing resources of declared sites where they differ. Returns what could not be stored, and of which sites.
    pub(crate) async fn store_failing(
        &self,
        declared: &BTreeSet<String>,
        sites: &mut BTreeMap<String, SiteItems>,
    ) -> (Unstored, BTreeSet<String>) {
        let (mut unstored, mut failed) = (Unstored::default(), BTreeSet::new());
        if self.error.is_some() {
            return (unstored, failed);
        }
        let differing = sites.iter().filter(|(name, _)| declared.contains(*name));
        let writes = differing.filter_map(|(name, items)| {
            let content = items.failing_to_store()?;
            Some((failing_key(name), items.failing.version, content.map(|content| to_item(&content))))
        });
        for (key, written) in self.write_all(writes.collect()).await {
            if let Err(error) = written {
                failed.extend(key.strip_prefix(FAILING_PREFIX).map(str::to_owned));
                unstored.note(key, &error);
            }
        }
        (unstored, failed)
    }

    /// Writes items, or deletes those without a content, some at a time.
    pub(crate) async fn write_all(
        &self,
        writes: Vec<(String, Option<u64>, Option<Value>)>,
    ) -> Vec<(String, Result<(), WriteError>)> {
        let written = stream::iter(writes).map(async |(key, version, content)| {
            let written = match content {
                Some(content) => self.table.write(&key, &content, version).await,
                None => self.table.delete(&key, version).await,
            };
            (key, written)
        });
        written.buffer_unordered(WRITES_AT_ONCE).collect().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::state_table::TableUnavailable;

    const NOW: OffsetDateTime = datetime!(2026-05-21 08:00:00 UTC);

    /// A table in memory, which counts its writes.
    #[derive(Debug, Default)]
    struct Table(Mutex<(BTreeMap<String, Item>, usize)>);

    impl Table {
        fn change(&self, key: &str, version: Option<u64>, content: Option<Value>) -> Result<(), WriteError> {
            let (items, writes) = &mut *self.0.lock().expect("no panic");
            if items.get(key).and_then(|item| item.version) != version {
                return Err(WriteError::Conflict);
            }
            *writes += 1;
            items.remove(key);
            let version = Some(version.unwrap_or_default() + 1);
            items.extend(content.map(|content| (key.to_owned(), Item { key: key.to_owned(), version, content })));
            Ok(())
        }

        fn writes(&self) -> usize {
            self.0.lock().expect("no panic").1
        }
    }

    impl StateTable for Table {
        async fn read(&self) -> Result<Vec<Item>, TableUnavailable> {
            Ok(self.0.lock().expect("no panic").0.values().cloned().collect())
        }

        async fn write(&self, key: &str, content: &Value, version: Option<u64>) -> Result<(), WriteError> {
            self.change(key, version, Some(content.clone()))
        }

        async fn delete(&self, key: &str, version: Option<u64>) -> Result<(), WriteError> {
            self.change(key, version, None)
        }
    }

    fn with_problem(mut items: SiteItems, problem: &str, since: OffsetDateTime) -> SiteItems {
        let known = [(problem.parse().expect("a problem"), Timestamp(since))].into();
        items.set_alerts(AlertState { known, ..AlertState::default() });
        items
    }

    #[tokio::test]
    async fn a_run_writes_only_what_differs_and_yields_to_a_faster_one() {
        let table = Table::default();
        let first = State::read(&table).await;
        let changed = with_problem(first.items("a"), "token-refused", NOW);
        let ending = with_problem(first.items("b"), "token-ending", NOW);
        let sites = [("a", changed), ("b", ending), ("c", first.items("c"))];
        let sites = sites.map(|(site, items)| (site.to_owned(), items)).into();
        let declared = BTreeSet::from(["a", "b", "c"].map(str::to_owned));
        assert_eq!(first.store(&declared, sites, first.run.clone()).await, Unstored::default());
        let keys: Vec<_> = table.0.lock().expect("no panic").0.keys().cloned().collect();
        assert_eq!((table.writes(), keys), (3, ["run", "site#a", "token-end#b"].map(str::to_owned).into()));

        let (second, third) = (State::read(&table).await, State::read(&table).await);
        let unchanged = BTreeMap::from(["a", "b"].map(|site| (site.to_owned(), second.items(site))));
        assert_eq!(second.store(&declared, unchanged, second.run.clone()).await, Unstored::default());
        assert_eq!(table.writes(), 3);
        let later = NOW + time::Duration::HOUR;
        let changed = [("a", "token-refused"), ("b", "token-ending")];
        let changed: BTreeMap<_, _> =
            changed.map(|(site, problem)| (site.to_owned(), with_problem(second.items(site), problem, later))).into();
        assert_eq!(second.store(&declared, changed.clone(), second.run.clone()).await, Unstored::default());
        let lost = ["site#a", "token-end#b"].map(str::to_owned).to_vec();
        assert_eq!(third.store(&declared, changed, third.run.clone()).await, Unstored { lost, error: None });
        // The items of a site that is no longer declared stay until the alerts of its problems are ended.
        for left in [2, 0] {
            let last = State::read(&table).await;
            let ended = ["a", "b"].map(|site| {
                let mut items = last.items(site);
                if left == 0 {
                    items.set_alerts(AlertState::default());
                }
                (site.to_owned(), items)
            });
            assert_eq!(last.store(&BTreeSet::new(), ended.into(), last.run.clone()).await, Unstored::default());
            assert_eq!(State::read(&table).await.sites().count(), left);
        }
    }

    #[tokio::test]
    async fn a_token_is_held_by_one_run_at_a_time() {
        let table = Table::default();
        let entry = json!({ "server": "https://tableau.example", "site": "a", "token_name": "n", "token_secret": "s" });
        let entry = SiteEntry::parse("/sites/a", &entry.to_string()).expect("an entry");
        let (minute, until) = (std::time::Duration::from_secs(60), NOW + time::Duration::minutes(2));
        let (one, other) = (State::read(&table).await, State::read(&table).await);
        let held = one.hold_token(&entry, NOW, minute).await.expect("the token is free");
        assert_eq!(other.hold_token(&entry, NOW, minute).await.err(), Some(None), "it was read before");
        let later = State::read(&table).await;
        assert_eq!(later.hold_token(&entry, NOW, minute).await.err(), Some(Some(until)));
        assert!(later.hold_token(&entry, until, minute).await.is_ok(), "the first run must have ended");
        // The first run does not release the hold of the other.
        one.release_tokens(vec![held]).await;
        assert_eq!(State::read(&table).await.tokens.len(), 1);
    }
}
