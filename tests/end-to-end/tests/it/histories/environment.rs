//! The reconciler and the simulated sites that a history is executed with.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use end_to_end::declared::{Declared, RECEIVER_URL, secret_of, site};
use reconciler::{failure::Failure, reconciler::Reconciler, report::Report, request::Request};
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
    model::{Oddities, Site, Webhook},
    server::Running,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{
    crash::{Crash, Done},
    driver::Tally,
    recorder::Recorder,
};

/// A reconciler, as an environment of the function keeps it, and a Tableau that others use as well.
pub(super) struct Environment {
    pub(super) tableau: Arc<Running>,
    pub(super) recorder: Recorder,
    reconciler: Reconciler<Recorder, Recorder, Recorder>,
}

impl Environment {
    pub(super) fn new(tableau: Arc<Running>, declared: Declared) -> anyhow::Result<Self> {
        let recorder = Recorder::default();
        let reconciler = declared.reconciler(recorder.clone(), recorder.clone(), recorder.clone())?;
        *recorder.declared() = declared;
        Ok(Self { tableau, recorder, reconciler })
    }
}

/// The sites of a history, while it is executed.
pub(super) struct Sites<'a> {
    pub(super) environment: &'a Environment,
    pub(super) names: Vec<String>,
    /// The name of the sites' token, if they share one. Otherwise each has the site's name.
    token: Option<String>,
}

/// An invocation of the reconciler.
pub(super) struct Invocation {
    pub(super) request: Request,
    /// The time until its deadline.
    pub(super) time: Duration,
    pub(super) crash: Option<Crash>,
}

/// The result of a run, or what was done until it was cut off.
pub(super) type Outcome = Result<Result<Report, Failure>, Done>;

/// Returns the report of a run, if there is one.
pub(super) fn report(outcome: &Outcome) -> Option<&Report> {
    match outcome {
        Ok(result) => result.as_ref().map_or_else(Failure::report, Some),
        Err(_) => None,
    }
}

impl<'a> Sites<'a> {
    /// Adds sites to Tableau. The `number` of the history keeps their names apart from those of others.
    pub(super) fn add(environment: &'a Environment, number: usize, count: usize, share_token: bool) -> Self {
        let names = (0..count).map(|at| format!("h{number}-{}", letter(at))).collect();
        let sites = Self { environment, names, token: share_token.then(|| format!("h{number}")) };
        let mut world = environment.tableau.simulator.world();
        for name in &sites.names {
            world.add_site(name, sites.token.as_ref().unwrap_or(name), &secret_of(name));
        }
        drop(world);
        sites
    }

    pub(super) fn count(&self) -> usize {
        self.names.len()
    }

    /// Returns a site's entry, without events.
    pub(super) fn entry(&self, at: usize) -> Value {
        let name = &self.names[at];
        json!({
            "server": format!("http://{}", self.environment.tableau.address),
            "site": name,
            "token_name": self.token.as_ref().unwrap_or(name),
            "token_secret": secret_of(name),
        })
    }

    /// Reads a site of Tableau, or changes it.
    pub(super) fn site<T>(&self, at: usize, access: impl FnOnce(&mut Site) -> T) -> anyhow::Result<T> {
        site(&self.environment.tableau, &self.names[at], access)
    }

    pub(super) fn keyring(&self) -> anyhow::Result<Option<Keyring>> {
        let declared = self.environment.recorder.declared();
        let stored = declared.stored_keyring();
        let keyring = stored.as_ref().map(|stored| Keyring::parse(stored.expose_secret())).transpose();
        keyring.context("the stored keys")
    }

    /// Runs the reconciler once, or twice at the same time.
    pub(super) async fn run(
        &self,
        one: Invocation,
        other: Option<Invocation>,
        tally: &mut Tally,
    ) -> anyhow::Result<Vec<Outcome>> {
        self.environment.recorder.uses().clear();
        (0..self.count()).try_for_each(|at| self.site(at, |site| site.calls.clear()))?;
        let (one, other) = tokio::join!(self.invoke(one), async {
            match other {
                Some(other) => Some(self.invoke(other).await),
                None => None,
            }
        });
        let outcomes: Vec<_> = [Some(one), other].into_iter().flatten().collect();
        if outcomes.iter().any(Result::is_err) {
            settle(&self.environment.tableau).await?;
        }
        let mut done = Done::default();
        self.read(&mut done);
        tally.add("calls to Tableau", done.calls());
        tally.add("runs", outcomes.len());
        tally.add("runs that failed", outcomes.iter().filter(|outcome| matches!(outcome, Ok(Err(_)))).count());
        if let [Err(crashed)] = &outcomes[..] {
            tally.add("calls carried out after the crash of their run", done.calls() - crashed.calls());
        }
        for crashed in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            tally.add("crashes", 1);
            tally.add(format!("crashes after {:2} calls", crashed.calls()), 1);
            tally.add(format!("crashes after {}", crashed.last()), 1);
        }
        Ok(outcomes)
    }

    /// Runs the reconciler until it ends or is cut off.
    async fn invoke(&self, Invocation { request, time, crash }: Invocation) -> Outcome {
        let run = self.environment.reconciler.run(request, Instant::now() + time);
        match crash {
            Some(crash) => crash.cut_off(run, |done| self.read(done)).await,
            None => Ok(run.await),
        }
    }

    /// Updates what was done since the runs began.
    fn read(&self, done: &mut Done) {
        done.read(0, &self.environment.recorder.uses());
        let world = self.environment.tableau.simulator.world();
        for (source, name) in (1..).zip(&self.names) {
            if let Some(site) = world.sites.get(name) {
                done.read(source, &site.calls);
            }
        }
    }
}

// The simulator looks through all of its sites at each call, so those that are left would make it slower.
impl Drop for Sites<'_> {
    fn drop(&mut self) {
        let mut world = self.environment.tableau.simulator.world();
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

/// Lists the oddities that Tableau has.
pub(super) fn describe(oddities: &Oddities) -> String {
    let (described, default) = (json!(oddities), json!(Oddities::default()));
    let members = described.as_object().into_iter().flatten();
    let odd = members.filter(|(member, value)| default[member.as_str()] != **value);
    let odd: Vec<_> = odd.map(|(member, value): (&String, &Value)| format!("{member} {value}")).collect();
    if odd.is_empty() { "nothing odd".to_owned() } else { odd.join(", ") }
}
