//! The stack behind the console: it is read, and acted on.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use shared::{
    events::{catalogue::Event, id::EventId},
    registration::site_name::SiteName,
    sites::commands::infra,
    state::SiteState,
};
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::{feed::Feed, schedule::next_run};
use crate::{
    commands::{
        replay,
        simulate::{self, Simulation, report::Line},
        status::{overview::Overview, readings::Readings},
    },
    connection::Connection,
    events::{filter::Filter, history::History, search::Search, story::Story},
    local_files::{RunningStack, SITE_ENTRY},
    reconciler,
    stack_name::StackName,
};

/// The lookback for events, in hours.
const HOURS: u64 = 24;

/// The stack behind the console.
#[derive(Debug)]
pub(in crate::commands) struct Backend {
    connection: Connection,
    name: StackName,
    /// The local stack that another process, or this one, keeps up.
    running: Option<RunningStack>,
    pub(super) feed: Feed,
    /// Held while something is changed. The AWS CLI writes an answer to a file, and runs would wait for each other.
    work: Mutex<()>,
    /// The last reading of the state, and when it began.
    state: Mutex<Option<(Instant, Value)>>,
}

/// Everything that is known of an event: from the logs, and from what arrived here.
#[derive(Serialize)]
struct Known {
    #[serde(flatten)]
    story: Option<Story>,
    live: Option<Box<RawValue>>,
    alerts: Vec<Box<RawValue>>,
}

/// An action of the reconciler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Action {
    Plan,
    Apply,
    Test,
    Rotate,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Test => "test",
            Self::Rotate => "rotate",
        }
    }
}

impl Backend {
    /// Connects the console to a stack.
    pub(in crate::commands) fn new(
        connection: Connection,
        name: StackName,
        running: Option<RunningStack>,
        feed: Feed,
    ) -> Self {
        Self { connection, name, running, feed, work: Mutex::default(), state: Mutex::default() }
    }

    /// Reads what `cargo infra status --json` prints, and what the pages need besides.
    pub(super) async fn state(&self) -> anyhow::Result<Value> {
        let asked = Instant::now();
        let mut last = self.state.lock().await;
        // Pages that ask together get one reading: it takes some thirty commands.
        if let Some((_, state)) = last.as_ref().filter(|(read, _)| *read >= asked) {
            return Ok(state.clone());
        }
        let read = Instant::now();
        let state = self.read_state().await?;
        Ok(last.insert((read, state)).1.clone())
    }

    async fn read_state(&self) -> anyhow::Result<Value> {
        let (aws, now) = (&self.connection.aws, OffsetDateTime::now_utc());
        let stack = self.connection.stack().await?;
        let (readings, stored) = Readings::read(aws, &stack, now).await?;
        let mut state = Overview::of(&readings, now).json(&readings);
        for site in state["sites"].as_array_mut().into_iter().flatten() {
            let stored = stored.states.get(site["name"].as_str().unwrap_or_default()).and_then(Option::as_ref);
            site["outages"] = stored.map_or_else(|| json!([]), outages);
        }
        state["next_run"] = next_run(stack.setting("Schedule"), readings.last_run.as_ref().map(|run| run.at));
        if let (Value::Object(state), Value::Object(start)) = (&mut state, self.start()) {
            state.extend(start);
        }
        Ok(state)
    }

    /// Describes the stack without a command, for a page that opens.
    pub(super) fn start(&self) -> Value {
        let is_local = self.connection.aws.endpoint().is_some();
        json!({ "name": self.connection.name, "is_local": is_local, "simulated": self.simulated() })
    }

    /// Describes what can be simulated, null for a stack on AWS.
    fn simulated(&self) -> Value {
        let events = || json!({ "events": Event::catalogue().collect::<Vec<_>>() });
        self.running.as_ref().map_or(Value::Null, |_| events())
    }

    /// Reads the events of the last hours from the logs of the functions.
    pub(super) async fn events(&self, limit: usize) -> anyhow::Result<Value> {
        let history = self.history().await?;
        Ok(json!(history.listing(&Filter::default(), limit, OffsetDateTime::now_utc())))
    }

    /// Returns everything that is known of an event.
    pub(super) async fn story(&self, id: EventId) -> anyhow::Result<Box<RawValue>> {
        let (live, alerts) = self.feed.about(&id.to_string());
        let story = self.history().await?.story(id, OffsetDateTime::now_utc())?;
        // The log has an event seconds after it arrived.
        ensure!(
            story.is_some() || live.is_some(),
            "the logs of the last {HOURS} h have no event {id}. Fix: {}",
            infra(&format!("events show {id} --since 7d"), self.connection.name.as_str())
        );
        Ok(to_raw_value(&Known { story, live, alerts })?)
    }

    async fn history(&self) -> anyhow::Result<History> {
        let (aws, stack) = (&self.connection.aws, self.connection.stack().await?);
        let search = Search::new(aws, &stack, Duration::from_secs(HOURS * 3600)).await?;
        History::read(aws, &stack, search).await
    }

    /// Runs the reconciler. Returns its report, or `None` while something else is changed.
    pub(super) async fn run(&self, action: Action, site: Option<SiteName>) -> anyhow::Result<Option<Value>> {
        let Ok(_work) = self.work.try_lock() else { return Ok(None) };
        if action == Action::Rotate && site.is_some() {
            bail!(
                "rotate applies to all sites, since they share the signing keys. Nothing was done. Fix: leave out the site"
            );
        }
        let stack = self.connection.stack().await?;
        let sites: Vec<_> = site.into_iter().collect();
        let answer = reconciler::invoke(&self.connection.aws, &stack, action.as_str(), &sites).await?;
        Ok(Some(answer.json(action.as_str())))
    }

    /// Publishes an event that was not published when it arrived.
    pub(super) async fn replay(&self, id: EventId) -> anyhow::Result<Value> {
        let _work = self.work.lock().await;
        let (aws, http, stack) = (&self.connection.aws, self.connection.http()?, self.connection.stack().await?);
        let line = replay::replay_one(aws, &http, &stack, HOURS, id).await?;
        Ok(json!({ "lines": [line] }))
    }

    /// Plays somebody at the simulated Tableau, or an outage.
    pub(super) async fn simulate(&self, action: simulate::Action) -> anyhow::Result<Value> {
        let Some(running) = &self.running else {
            bail!("only a local stack simulates Tableau. Nothing was done. Fix: start one with `cargo infra local`");
        };
        let _work = self.work.lock().await;
        let is_token = matches!(action, simulate::Action::NewToken);
        let simulation = Simulation { running, site: None, stack: &self.name };
        let mut lines = Vec::new();
        let mut collect = |line| lines.push(line);
        simulation.carry_out(action, &mut collect).await?;
        let lines = lines.into_iter().filter_map(|line| match line {
            Line::Done(text) => Some(("good", text)),
            Line::Plain(text) => Some(("plain", text)),
            Line::Notable(text) => Some(("bad", text)),
            // The page has buttons for it.
            Line::Next(..) => None,
        });
        let mut lines: Vec<_> = lines.map(|(tone, text)| json!({ "tone": tone, "text": text })).collect();
        if is_token {
            self.store_entry(running).await?;
            lines.push(json!({ "tone": "good", "text": "The site entry has it." }));
        }
        Ok(json!({ "lines": lines }))
    }

    /// Stores the entry of the simulated site, as `cargo infra add-site --overwrite` does.
    async fn store_entry(&self, running: &RunningStack) -> anyhow::Result<()> {
        let entry = running.read(SITE_ENTRY)?;
        let site: Value = serde_json::from_str(&entry).context("the site entry is no JSON")?;
        let site = site["site"].as_str().context("the site entry has no site")?;
        let stack = self.connection.stack().await?;
        stack.put_site(&self.connection.aws, site, &entry.into(), true).await
    }
}

/// Returns the outages of a site's webhooks whose refreshes are not recovered yet.
fn outages(state: &SiteState) -> Value {
    let outages = state.refreshes.iter().flat_map(|refreshes| refreshes.outages());
    outages.map(|outage| json!({ "event": outage.event, "from": outage.from, "until": outage.until })).collect()
}
