//! The reconciler and the simulated sites that a history is executed with.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use anyhow::Context;
use end_to_end::declared::{Declared, Failures, RECEIVER_URL, secret_of, site};
use futures_util::future::join;
use reconciler::{config::DEFAULT_TIMEOUT, failure::Failure, reconciler::Reconciler, report::Report, request::Request};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::{
    events::catalogue::Event,
    registration::{
        claim::{Claim, Verified},
        keyring::Keyring,
    },
};
use tableau_simulator::{
    model::{Site, Webhook},
    server::Running,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{
    crash::{Done, Point},
    driver::Tally,
    history::{DEFAULT_EVENTS, Run},
    recorder::Recorder,
};
use crate::refreshes::{failed_event, pass};

/// A reconciler, as an environment of the function keeps it, and its sites on a Tableau that other histories use as well.
pub(super) struct Environment {
    tableau: Arc<Running>,
    pub(super) recorder: Recorder,
    reconciler: Reconciler<Recorder, Recorder, Recorder, Failures>,
    pub(super) names: Vec<String>,
    /// The name of the sites' token, if they share one. Otherwise each has the site's name.
    token: Option<String>,
}

/// Less than the reconciler needs to begin with any site.
const SHORT_TIME: Duration = Duration::from_secs(100);

/// The result of a run, or what was done until it was cut off.
pub(super) type Outcome = Result<Result<Report, Failure>, Done>;

/// Returns the report of a run, if there is one.
pub(super) fn report(outcome: &Outcome) -> Option<&Report> {
    match outcome {
        Ok(result) => result.as_ref().map_or_else(Failure::report, Some),
        Err(_) => None,
    }
}

impl Environment {
    /// Adds sites to Tableau. The `number` of the history keeps their names apart from those of others.
    pub(super) fn new(tableau: Arc<Running>, number: usize, count: usize, shares_token: bool) -> anyhow::Result<Self> {
        let recorder = Recorder::default();
        let mut declared = Declared::default();
        (declared.events, declared.recover_hours) = (DEFAULT_EVENTS, "24");
        let reconciler = declared.reconciler(recorder.clone(), recorder.clone(), recorder.clone())?;
        *recorder.declared() = declared;
        let names: Vec<_> = (0..count).map(|at| format!("h{number}-{}", letter(at))).collect();
        let token = shares_token.then(|| format!("h{number}"));
        let environment = Self { tableau, recorder, reconciler, names, token };
        let mut world = environment.tableau.simulator.world();
        for (at, name) in environment.names.iter().enumerate() {
            world.add_site(name, environment.token(at), &secret_of(environment.token(at)));
        }
        drop(world);
        Ok(environment)
    }

    pub(super) fn count(&self) -> usize {
        self.names.len()
    }

    /// Returns the name of a site's token.
    pub(super) fn token(&self, at: usize) -> &str {
        self.token.as_ref().unwrap_or(&self.names[at])
    }

    /// Returns a site's entry, without events.
    pub(super) fn entry(&self, at: usize) -> Value {
        json!({
            "server": format!("http://{}", self.tableau.address),
            "site": self.names[at],
            "token_name": self.token(at),
            "token_secret": secret_of(self.token(at)),
        })
    }

    /// Reads a site of Tableau, or changes it.
    pub(super) fn site<T>(&self, at: usize, access: impl FnOnce(&mut Site) -> T) -> anyhow::Result<T> {
        site(&self.tableau, &self.names[at], access)
    }

    pub(super) fn keyring(&self) -> anyhow::Result<Option<Keyring>> {
        let declared = self.recorder.declared();
        let stored = declared.stored_keyring();
        let keyring = stored.as_ref().map(|stored| Keyring::parse(stored.expose_secret())).transpose();
        keyring.context("the stored keys")
    }

    /// Puts a delivered failure into the queue, as the events topic does.
    pub(super) fn send_failure(&self, at: usize, event: &Event, luid: &str) {
        self.recorder.declared().failures.send(&failed_event(&self.names[at], event.as_str(), luid));
    }

    /// Makes everything stored, and every job, older. Messages that a run left behind can be received again.
    pub(super) fn pass(&self, time: time::Duration) -> anyhow::Result<()> {
        self.recorder.declared().failures.show_hidden();
        let names: Vec<_> = self.names.iter().map(String::as_str).collect();
        let declared = self.recorder.declared().clone();
        pass(&self.tableau, &declared, &names, time)
    }

    /// Runs the reconciler once, or another time from a point of the first run on.
    pub(super) async fn run(
        &self,
        one: &Run,
        other: Option<&(Point, Run)>,
        tally: &mut Tally,
    ) -> anyhow::Result<Vec<Outcome>> {
        self.recorder.uses().clear();
        (0..self.count()).try_for_each(|at| self.site(at, |site| site.calls.clear()))?;
        let has_ended = AtomicBool::new(false);
        let one = async {
            let outcome = self.invoke(one).await;
            has_ended.store(true, Ordering::Relaxed);
            outcome
        };
        let other = async {
            let (start, run) = other?;
            let mut done = Done::default();
            let is_reached = |done: &mut Done| {
                self.read(done);
                has_ended.load(Ordering::Relaxed) || done.count(start.of) >= start.done
            };
            poll_fn(|_| if is_reached(&mut done) { Poll::Ready(()) } else { Poll::Pending }).await;
            Some(self.invoke(run).await)
        };
        // This `join` polls the other after each poll of the one, by which the other may begin.
        let (one, other) = join(one, other).await;
        let outcomes: Vec<_> = [Some(one), other].into_iter().flatten().collect();
        if outcomes.iter().any(Result::is_err) {
            settle(&self.tableau).await?;
        }
        let mut done = Done::default();
        self.read(&mut done);
        tally.add("calls to Tableau", done.calls());
        tally.add("runs", outcomes.len());
        tally.add("runs that failed", outcomes.iter().filter(|outcome| matches!(outcome, Ok(Err(_)))).count());
        for crashed in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            tally.add("crashes", 1);
            tally.add(format!("crashes after {}", crashed.last()), 1);
        }
        Ok(outcomes)
    }

    /// Runs the reconciler until it ends or is cut off.
    async fn invoke(&self, run: &Run) -> Outcome {
        let Run { action, site, is_short, crash } = *run;
        let sites = site.map(|site| vec![self.names[site % self.count()].clone()]);
        let request = Request { action, sites };
        let time = if is_short { SHORT_TIME } else { DEFAULT_TIMEOUT };
        let run = self.reconciler.run(request, Instant::now() + time);
        match crash {
            Some(crash) => crash.cut_off(run, |done| self.read(done)).await,
            None => Ok(run.await),
        }
    }

    /// Updates what was done since the runs began.
    fn read(&self, done: &mut Done) {
        done.read(0, &self.recorder.uses());
        let world = self.tableau.simulator.world();
        for (source, name) in (1..).zip(&self.names) {
            if let Some(site) = world.sites.get(name) {
                done.read(source, &site.calls);
            }
        }
    }
}

// The simulator looks through all of its sites at each call, so those that are left would make it slower.
impl Drop for Environment {
    fn drop(&mut self) {
        let mut world = self.tableau.simulator.world();
        for name in &self.names {
            world.sites.remove(name);
        }
    }
}

/// Waits until Tableau has carried out the requests of a run that was cut off: a later call, on a connection of its own, is
/// answered after them.
async fn settle(tableau: &Running) -> anyhow::Result<()> {
    let mut connection = TcpStream::connect(tableau.address).await?;
    let call = b"GET /api/2.4/serverinfo HTTP/1.1\r\nhost: tableau\r\nconnection: close\r\n\r\n";
    connection.write_all(call).await?;
    connection.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Returns what the receiver verifies of a webhook's URL.
pub(super) fn verified(webhook: &Webhook, keyring: Option<&Keyring>) -> Option<Verified> {
    let path = webhook.url.strip_prefix(RECEIVER_URL.trim_end_matches('/'))?;
    Claim::parse(path)?.verify(keyring?)
}

/// Whether the receiver publishes an event that Tableau sends through a webhook.
pub(super) fn delivers(webhook: &Webhook, event: &Event, keyring: Option<&Keyring>) -> bool {
    webhook.is_enabled
        && webhook.event == *event
        && verified(webhook, keyring).is_some_and(|verified| verified.registration().event == *event)
}

/// Returns the letter that stands for a site.
pub(super) fn letter(at: usize) -> char {
    ['a', 'b', 'c'].into_iter().cycle().nth(at).unwrap_or('a')
}
