//! Lives through a history: does what it says to a simulated Tableau and the declaration, and after each run looks for harm.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    mem,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use anyhow::{Context, ensure};
use common::topic::Topic;
use end_to_end::declared::{Declared, RECEIVER_URL};
use proptest::strategy::Strategy;
use reconciler::{
    BoxError,
    config::USUAL_TIME,
    parameters::Parameters,
    reconciler::{Failure, Reconciler},
    report::Report,
    request::{Action, Request},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use shared::{
    alert::AlertMessage,
    event::Event,
    keyring::Keyring,
    message::EventMessage,
    registration::{Claim, ReceiverUrl, Registration, SiteName, Verified},
};
use tableau_simulator::{
    model::{Oddities, Site, Webhook},
    server::Running,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::yield_now,
    time::Instant,
};

use super::{
    super::driver::{Executor, Tally},
    history::{Crash, Drift, Entry, Fault, History, MOST_SITES, Original, Run, Step, any_history, letter},
};

/// The calls that a site takes that is as declared.
const CALLS_OF_NO_CHANGE: [&str; 3] = ["POST auth/signin", "GET sites/{site}/webhooks", "POST auth/signout"];

/// What stands for the minute that receivers need to know a new key: longer than another run takes from reading keys to
/// storing others.
const POLLS_OF_A_MINUTE: usize = 50;

/// A run of all sites that nothing disturbs.
const QUIET_RUN: Run = Run { action: Action::Apply, site: None, is_short: false, crash: None };

/// A little more than the reconciler wants to have left for a site: some are looked at, the others are left to the next
/// run. Which, is not for a history to say.
const SHORT_TIME: Duration = Duration::from_millis(60_040);

/// The declaration of the history that is being lived, which changes between runs. A crash can fall before and after
/// each use of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    declared: Arc<Mutex<Declared>>,
    uses: Arc<Mutex<Vec<&'static str>>>,
}

impl Kept {
    pub(crate) fn declared(&self) -> MutexGuard<'_, Declared> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn uses(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn used<T>(&self, name: &'static str, making_use: impl Future<Output = T>) -> T {
        yield_now().await;
        let result = making_use.await;
        self.uses().push(name);
        yield_now().await;
        result
    }
}

impl Parameters for Kept {
    async fn site_entries(&self) -> Result<Vec<(String, SecretString)>, BoxError> {
        let declared = self.declared().clone();
        self.used("read entries", declared.site_entries()).await
    }

    async fn keyring(&self) -> Result<Option<Keyring>, BoxError> {
        let declared = self.declared().clone();
        self.used("read keys", declared.keyring()).await
    }

    async fn create_keyring(&self, keyring: &Keyring) -> Result<(), BoxError> {
        let declared = self.declared().clone();
        self.used("make keys", declared.create_keyring(keyring)).await
    }

    async fn replace_keyring(&self, keyring: &Keyring) -> Result<(), BoxError> {
        let declared = self.declared().clone();
        self.used("replace keys", declared.replace_keyring(keyring)).await
    }

    async fn new_key_known(&self) {
        let wait = async {
            for _ in 0..POLLS_OF_A_MINUTE {
                yield_now().await;
            }
        };
        self.used("wait for receivers", wait).await
    }

    async fn tableau_ca(&self) -> Result<Option<String>, BoxError> {
        let declared = self.declared().clone();
        self.used("read authorities", declared.tableau_ca()).await
    }

    async fn told(&self) -> Result<Option<String>, BoxError> {
        let declared = self.declared().clone();
        self.used("read what was told", declared.told()).await
    }

    async fn store_told(&self, told: &str) -> Result<(), BoxError> {
        let declared = self.declared().clone();
        self.used("store what was told", declared.store_told(told)).await
    }

    async fn refreshes(&self) -> Result<Option<String>, BoxError> {
        let declared = self.declared().clone();
        self.used("read refreshes", declared.refreshes()).await
    }

    async fn store_refreshes(&self, refreshes: &str) -> Result<(), BoxError> {
        let declared = self.declared().clone();
        self.used("store refreshes", declared.store_refreshes(refreshes)).await
    }

    async fn refreshes_lease(&self) -> Result<Option<(String, i64)>, BoxError> {
        let declared = self.declared().clone();
        self.used("read lease", declared.refreshes_lease()).await
    }

    async fn store_refreshes_lease(&self, lease: &str) -> Result<i64, BoxError> {
        let declared = self.declared().clone();
        self.used("store lease", declared.store_refreshes_lease(lease)).await
    }
}

impl Topic<EventMessage> for Kept {
    async fn publish(&self, message: EventMessage) -> Result<(), BoxError> {
        let people = self.declared().people.clone();
        self.used("publish", people.publish(message)).await
    }
}

impl Topic<AlertMessage> for Kept {
    async fn publish(&self, message: AlertMessage) -> Result<(), BoxError> {
        let people = self.declared().people.clone();
        self.used("tell people", people.publish(message)).await
    }
}

/// A reconciler, as an environment of the function keeps it: one history after another is lived with it.
pub(super) struct Environment {
    tableau: Arc<Running>,
    kept: Kept,
    reconciler: Reconciler<Kept, Kept>,
}

impl Executor for Environment {
    type History = History;

    const TEST: &'static str = "histories::webhooks";
    const DEFAULT_HISTORIES: u64 = 300;
    const AT_ONCE: usize = 48;

    fn new(tableau: Arc<Running>) -> anyhow::Result<Self> {
        let kept = Kept::default();
        let reconciler = Declared::default().reconciler(kept.clone(), kept.clone())?;
        Ok(Self { tableau, kept, reconciler })
    }

    fn any_history() -> impl Strategy<Value = History> {
        any_history()
    }

    async fn execute(&self, number: usize, history: &History) -> anyhow::Result<Tally> {
        *self.kept.declared() = Declared::default();
        let sites: Vec<_> = (0..history.sites).map(|site| format!("h{number}-{}", letter(site))).collect();
        let mut living = Living {
            environment: self,
            entries: vec![Entry::Usual; sites.len()],
            tokens: if history.shares_token { vec![format!("h{number}"); sites.len()] } else { sites.clone() },
            sites,
            webhooks_made: 0,
            tally: Tally::default(),
        };
        living.begin();
        for (step, number) in history.steps.iter().zip(1..) {
            living.step(step).await.with_context(|| format!("in step {number}"))?;
            living.tally.add("steps", 1);
        }
        living.end().await.context("after the last step")?;
        Ok(mem::take(&mut living.tally))
    }
}

/// A history on its way.
struct Living<'a> {
    environment: &'a Environment,
    /// The sites' names.
    sites: Vec<String>,
    /// The name of each site's token.
    tokens: Vec<String>,
    /// Each site's entry.
    entries: Vec<Entry>,
    webhooks_made: usize,
    tally: Tally,
}

// So that the simulator, which looks through its sites at each call, does not become slower.
impl Drop for Living<'_> {
    fn drop(&mut self) {
        let mut world = self.environment.tableau.simulator.world();
        for site in &self.sites {
            world.sites.remove(site);
        }
    }
}

/// What runs may change, and what they did to come to it.
struct Seen {
    sites: Vec<SeenSite>,
    keyring: Option<Keyring>,
}

struct SeenSite {
    webhooks: Vec<Webhook>,
    calls: Vec<String>,
    has_session: bool,
    token_is_right: bool,
}

impl Living<'_> {
    fn begin(&mut self) {
        for site in 0..self.sites.len() {
            let (name, token, secret) = (&self.sites[site], &self.tokens[site], self.secret(site));
            self.environment.tableau.simulator.world().add_site(name, token, &secret);
            self.declare(site, Entry::Usual);
        }
    }

    fn secret(&self, site: usize) -> String {
        format!("secret-of-{}", self.tokens[site])
    }

    /// Looks at a site, or changes it.
    fn site<T>(&self, site: usize, look: impl FnOnce(&mut Site) -> T) -> anyhow::Result<T> {
        end_to_end::declared::site(&self.environment.tableau, &self.sites[site], look)
    }

    async fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        let count = self.sites.len();
        match step {
            Step::Declare(site, entry) => self.declare(site % count, entry.clone()),
            Step::Drift(site, drift) => self.drift(site % count, drift)?,
            Step::Fault(site, fault) => self.fault(site % count, fault)?,
            Step::Run(run, other) => {
                self.runs(run, other.as_ref()).await?;
            }
        }
        Ok(())
    }

    fn declare(&mut self, site: usize, entry: Entry) {
        let mut declared = json!({
            "server": format!("http://{}", self.environment.tableau.address),
            "site": self.sites[site],
            "token_name": self.tokens[site],
            "token_secret": self.secret(site),
        });
        let name = self.sites[site].clone();
        let entries = &mut self.environment.kept.declared().entries;
        match &entry {
            Entry::Missing => entries.remove(&name),
            Entry::Unreadable(text) => entries.insert(name, (*text).to_owned()),
            Entry::Usual => entries.insert(name, declared.to_string()),
            Entry::Wanting(events) => {
                declared["events"] = json!(events);
                entries.insert(name, declared.to_string())
            }
        };
        self.entries[site] = entry;
    }

    fn drift(&mut self, site: usize, drift: &Drift) -> anyhow::Result<()> {
        let event = |name: &str| name.parse::<Event>();
        self.webhooks_made += 1;
        // Before or after those that Tableau makes, in the order in which copies are told apart.
        let first = if self.webhooks_made.is_multiple_of(2) { "0" } else { "z" };
        let id = format!("{first}-made-by-hand-{}", self.webhooks_made);
        let change = |which: usize, change: &dyn Fn(&mut Webhook)| {
            self.site(site, |site| {
                let count = site.webhooks.len();
                site.webhooks.get_mut(which % count.max(1)).map(change);
            })
        };
        match *drift {
            Drift::Disable(which, reason) => change(which, &|webhook| {
                webhook.is_enabled = false;
                webhook.status_change_reason = reason.map(str::to_owned);
            }),
            Drift::Move(which) => change(which, &|webhook| webhook.url = "https://elsewhere.example/".to_owned()),
            Drift::ChangeEvent(which, other) => {
                let other = event(other)?;
                change(which, &|webhook| webhook.event = other.clone())
            }
            Drift::Rename(which, name) => change(which, &|webhook| webhook.name = name.to_owned()),
            Drift::Delete(which) => self.site(site, |site| {
                if !site.webhooks.is_empty() {
                    site.webhooks.remove(which % site.webhooks.len());
                }
            }),
            Drift::Copy(which, original) => self.site(site, |site| {
                let count = site.webhooks.len();
                let copy = site.webhooks.get_mut(which % count.max(1)).map(|webhook| {
                    let copy = Webhook { id, ..webhook.clone() };
                    match original {
                        Original::Kept => {}
                        Original::Disabled => webhook.is_enabled = false,
                        Original::Moved => webhook.url = "https://elsewhere.example/".to_owned(),
                    }
                    copy
                });
                site.webhooks.extend(copy);
            }),
            Drift::Add(name, for_event) => {
                let webhook = Webhook {
                    url: format!("https://elsewhere.example/{id}"),
                    id,
                    name: name.to_owned(),
                    event: event(for_event)?,
                    is_enabled: true,
                    status_change_reason: None,
                };
                self.site(site, |site| site.webhooks.push(webhook))
            }
            Drift::Turn => self.site(site, |site| site.webhooks.reverse()),
        }
    }

    fn fault(&self, site: usize, fault: &Fault) -> anyhow::Result<()> {
        let right = self.secret(site);
        let other_name = format!("http://localhost:{}", self.environment.tableau.address.port());
        self.site(site, |site| match fault {
            Fault::Odd(oddities) => {
                site.oddities = (**oddities).clone();
                site.oddities.sign_in_moved_to = oddities.sign_in_moved_to.as_ref().map(|_| other_name);
            }
            Fault::TokenReplaced => site.tokens[0].secret = format!("not-{right}"),
            Fault::OwnerDemoted => site.tokens[0].is_administrator = false,
            Fault::PeopleUnreachable => self.environment.kept.declared().people.are_unreachable = true,
            Fault::Over => {
                self.environment.kept.declared().people.are_unreachable = false;
                site.oddities = Oddities::default();
                site.tokens[0].secret = right;
                site.tokens[0].is_administrator = true;
            }
        })
    }

    /// Runs the reconciler once or twice at once, and looks for harm. The reports are of those runs that came to an end.
    async fn runs(&mut self, run: &Run, other: Option<&Run>) -> anyhow::Result<(Seen, Seen, Vec<Report>)> {
        for site in 0..self.sites.len() {
            self.site(site, |site| site.calls.clear())?;
        }
        self.environment.kept.uses().clear();
        let before = self.look()?;
        let (outcome, other_outcome) = tokio::join!(self.run(run), async {
            match other {
                Some(other) => Some(self.run(other).await),
                None => None,
            }
        });
        let runs = [Some(run), other].into_iter().flatten();
        let outcomes: Vec<_> = runs.zip([Some(outcome), other_outcome].into_iter().flatten()).collect();
        if outcomes.iter().any(|(_, outcome)| outcome.is_err()) {
            self.settle().await?;
        }
        let after = self.look()?;
        let calls = after.sites.iter().map(|site| site.calls.len()).sum::<usize>();
        self.tally.add("calls to Tableau", calls);
        self.tally.add("runs", outcomes.len());
        self.tally
            .add("runs that failed", outcomes.iter().filter(|(_, outcome)| matches!(outcome, Ok(Err(_)))).count());
        if let [(_, Err(crash))] = &outcomes[..] {
            self.tally.add("calls carried out after the crash of their run", calls - crash.calls);
        }
        for crash in outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().err()) {
            self.tally.add("crashes", 1);
            self.tally.add(format!("crashes after {:2} calls", crash.calls), 1);
            self.tally.add(format!("crashes after {}", crash.last), 1);
        }
        self.check(&before, &after, &outcomes)?;
        let reports = outcomes.into_iter().filter_map(|(_, outcome)| match outcome {
            Ok(Ok(report) | Err(Failure::Sites(report) | Failure::Alerts(report))) => Some(report),
            _ => None,
        });
        Ok((before, after, reports.collect()))
    }

    /// Runs the reconciler until its end or the crash.
    async fn run(&self, run: &Run) -> Result<Result<Report, Failure>, Crashed> {
        let sites = run.site.map(|site| vec![self.sites[site % self.sites.len()].clone()]);
        let request = Request { action: run.action, sites };
        let time = if run.is_short { SHORT_TIME } else { USUAL_TIME };
        let mut running = pin!(self.environment.reconciler.run(request, Instant::now() + time));
        let Some(Crash { done, polls }) = run.crash else { return Ok(running.await) };
        let (mut seen, mut polls_left) = (Crashed::default(), polls);
        poll_fn(|context| {
            self.note(&mut seen);
            let is_due = seen.calls + seen.uses >= done;
            if is_due && polls_left == 0 {
                return Poll::Ready(Err(seen.clone()));
            }
            if let Poll::Ready(result) = running.as_mut().poll(context) {
                return Poll::Ready(Ok(result));
            }
            if is_due {
                polls_left -= 1;
            }
            // Not at the next poll, which comes with the answer to what this one may have sent.
            if is_due && polls_left == 0 {
                self.note(&mut seen);
                return Poll::Ready(Err(seen.clone()));
            }
            Poll::Pending
        })
        .await
    }

    /// Notes what was done since the last time.
    fn note(&self, seen: &mut Crashed) {
        let uses = self.environment.kept.uses();
        if uses.len() > seen.uses {
            seen.uses = uses.len();
            seen.last = uses.last().copied().unwrap_or_default().to_owned();
        }
        let world = self.environment.tableau.simulator.world();
        let sites = self.sites.iter().filter_map(|site| world.sites.get(site));
        seen.calls = 0;
        for (site, calls_of_site) in sites.zip(seen.calls_of_sites.iter_mut()) {
            seen.calls += site.calls.len();
            if site.calls.len() > *calls_of_site {
                *calls_of_site = site.calls.len();
                seen.last = site.calls.last().map(|call| kind(call)).unwrap_or_default();
            }
        }
    }

    /// Waits until what a run that is no more had sent was carried out: a call that is made now, on a connection of its
    /// own, is answered later than that.
    async fn settle(&self) -> anyhow::Result<()> {
        settle(&self.environment.tableau).await
    }

    fn look(&self) -> anyhow::Result<Seen> {
        let look = |site: usize| {
            let right = self.secret(site);
            self.site(site, |site| SeenSite {
                webhooks: site.webhooks.clone(),
                calls: site.calls.clone(),
                has_session: site.has_session(),
                token_is_right: site.tokens[0].secret == right,
            })
        };
        let sites = (0..self.sites.len()).map(look).collect::<Result<_, _>>()?;
        let declared = self.environment.kept.declared();
        let stored = declared.stored_keyring();
        let keyring = stored.as_ref().map(|stored| Keyring::parse(stored.expose_secret())).transpose()?;
        Ok(Seen { sites, keyring })
    }

    /// The events wanted on a site, `None` if nobody says.
    fn wanted(&self, site: usize) -> anyhow::Result<Option<BTreeSet<Event>>> {
        let names = match &self.entries[site] {
            Entry::Missing | Entry::Unreadable(_) => return Ok(None),
            Entry::Usual => self.environment.kept.declared().events.split(',').collect(),
            Entry::Wanting(events) => events.clone(),
        };
        Ok(Some(names.into_iter().map(str::parse).collect::<Result<_, _>>()?))
    }

    /// Whether a run has any business at a site.
    fn is_visited(&self, run: &Run, site: usize) -> bool {
        let is_chosen = run.site.is_none_or(|chosen| chosen % self.sites.len() == site);
        is_chosen && matches!(self.entries[site], Entry::Usual | Entry::Wanting(_))
    }

    /// What no run may do, whatever happens to it.
    fn check(&self, before: &Seen, after: &Seen, outcomes: &[(&Run, Outcome)]) -> anyhow::Result<()> {
        let only_looks = |run: &Run| matches!(run.action, Action::Plan | Action::Test);
        // What only the template prevents, which lets no two runs be at once: a rotation and another run, which know
        // different newest keys, may each delete the copy of a webhook that the other keeps.
        let is_rotated_beside = outcomes.len() > 1 && outcomes.iter().any(|(run, _)| run.action == Action::Rotate);
        let has_crashed = outcomes.iter().any(|(_, outcome)| outcome.is_err());
        for (site, (before_run, after_run)) in before.sites.iter().zip(&after.sites).enumerate() {
            let name = letter(site);
            let changed = || told(&before_run.webhooks, &after_run.webhooks);
            let foreign = |seen: &SeenSite| -> Vec<_> {
                seen.webhooks.iter().filter(|webhook| !is_ours(webhook)).cloned().collect()
            };
            ensure!(foreign(before_run) == foreign(after_run), "a foreign webhook of {name} changed: {}", changed());
            let visits: Vec<_> = outcomes.iter().filter(|(run, _)| self.is_visited(run, site)).collect();
            ensure!(!visits.is_empty() || after_run.calls.is_empty(), "{name} was called: {:?}", after_run.calls);
            ensure!(
                visits.iter().any(|(run, _)| !only_looks(run)) || before_run.webhooks == after_run.webhooks,
                "webhooks of {name} changed: {}",
                changed()
            );
            // What a crash left open is ended by the next sign-in, if there is one and the token is not refused.
            ensure!(
                after_run.calls.is_empty() || has_crashed || !after_run.has_session || !after_run.token_is_right,
                "a session of {name} is open: {:?}",
                after_run.calls
            );
            let disbelieved = after_run.disbelieved(after.keyring.as_ref());
            ensure!(
                matches!(self.entries[site], Entry::Missing)
                    || disbelieved.is_empty()
                    || !before_run.disbelieved(before.keyring.as_ref()).is_empty(),
                "the receiver does not believe {disbelieved:?} of {name}: {}",
                changed()
            );
            for webhook in before_run.webhooks.iter().chain(&after_run.webhooks).filter(|webhook| is_ours(webhook)) {
                let copies = |seen: &SeenSite| seen.webhooks.iter().filter(|copy| copy.name == webhook.name).count();
                // Each of two runs at once may have missed what the other made.
                let may_be_made = visits.len().max(1) - 1;
                ensure!(
                    copies(after_run) <= copies(before_run).max(1) + may_be_made,
                    "a copy was made at {name}: {}",
                    changed()
                );
            }
            let is_destroyed = visits.iter().any(|(run, _)| run.action == Action::Destroy);
            for event in self.wanted(site)?.into_iter().flatten() {
                ensure!(
                    is_destroyed
                        || is_rotated_beside
                        || !before_run.hears(&event, before.keyring.as_ref())
                        || after_run.hears(&event, after.keyring.as_ref()),
                    "the receiver no longer hears of {event} at {name}: {}",
                    changed()
                );
            }
            if let [(run, Ok(Ok(report) | Err(Failure::Sites(report) | Failure::Alerts(report))))] = outcomes
                && report.sites.iter().any(|report| report.site == self.sites[site] && report.errors.is_empty())
            {
                self.check_success(site, run.action, after)?;
            }
        }
        ensure!(
            outcomes.iter().any(|(run, _)| !only_looks(run)) || stored(before) == stored(after),
            "the keys changed"
        );
        Ok(())
    }

    /// What an action that reports success at a site must have done there.
    fn check_success(&self, site: usize, action: Action, seen: &Seen) -> anyhow::Result<()> {
        let webhooks = &seen.sites[site].webhooks;
        let mut ours: Vec<_> = webhooks.iter().filter(|webhook| is_ours(webhook)).map(short).collect();
        ours.sort();
        let mut wanted = match action {
            Action::Plan | Action::Test => return Ok(()),
            Action::Destroy => Vec::new(),
            Action::Apply | Action::Rotate => {
                let keyring = seen.keyring.as_ref().context("there are no keys")?;
                let receiver = ReceiverUrl::parse(RECEIVER_URL).context("no receiver")?;
                let name: SiteName = self.sites[site].parse()?;
                let events = self.wanted(site)?.with_context(|| format!("{} is not declared", letter(site)))?;
                let wanted = events.into_iter().map(|event| {
                    let registration = Registration { site: name.clone(), event };
                    let url = registration.signed_url(&receiver, keyring);
                    let event = registration.event.as_str();
                    (format!("fan-{event}"), event.to_owned(), url.expose().to_owned(), true)
                });
                wanted.collect()
            }
        };
        wanted.sort();
        ensure!(
            ours == wanted,
            "{} is not as {action:?} should leave it: {ours:?} instead of {wanted:?}",
            letter(site)
        );
        Ok(())
    }

    /// Ends all faults, and lets the reconciler run until nothing is left to do.
    async fn end(&mut self) -> anyhow::Result<()> {
        for site in 0..self.sites.len() {
            self.fault(site, &Fault::Over)?;
        }
        if !self.quiet_run().await.context("in the first quiet run")? {
            self.tally.add("histories that needed a second quiet run", 1);
            ensure!(self.quiet_run().await.context("in the second quiet run")?, "two quiet runs were not enough");
        }
        let (before, after, _) = self.runs(&QUIET_RUN, None).await.context("in the last run")?;
        ensure!(stored(&before) == stored(&after), "the last run changed the keys");
        for (site, (before, after)) in before.sites.iter().zip(&after.sites).enumerate() {
            let name = letter(site);
            ensure!(before.webhooks == after.webhooks, "the last run changed {name}");
            if self.is_visited(&QUIET_RUN, site) {
                ensure!(after.calls == CALLS_OF_NO_CHANGE, "the last run called {name}: {:?}", after.calls);
                // People know that whatever they were told of is over.
                let told = self.environment.kept.declared().stored_told().clone().unwrap_or_default();
                ensure!(
                    !told.contains(&format!("\"{}", self.sites[site])),
                    "{name} is still told to be in trouble: {told}"
                );
            }
        }
        Ok(())
    }

    /// Runs the reconciler for all sites. Returns whether all that can be as declared are.
    async fn quiet_run(&mut self) -> anyhow::Result<bool> {
        let (_, after, reports) = self.runs(&QUIET_RUN, None).await?;
        let report = reports.first().context("the run did not report")?;
        let failed: BTreeSet<_> = report.sites.iter().filter(|site| site.failed()).map(|site| &site.site).collect();
        for site in 0..self.sites.len() {
            if !self.is_visited(&QUIET_RUN, site) {
                let is_unreadable = matches!(self.entries[site], Entry::Unreadable(_));
                ensure!(failed.contains(&self.sites[site]) == is_unreadable, "{}: {}", letter(site), report.text);
            } else if failed.contains(&self.sites[site]) {
                return Ok(false);
            } else {
                self.check_success(site, Action::Apply, &after)?;
            }
        }
        Ok(true)
    }
}

/// Waits until what a run that is no more had sent to Tableau was carried out.
pub(crate) async fn settle(tableau: &Running) -> anyhow::Result<()> {
    let mut connection = TcpStream::connect(tableau.address).await?;
    let call = b"GET /api/2.4/serverinfo HTTP/1.1\r\nhost: tableau\r\nconnection: close\r\n\r\n";
    connection.write_all(call).await?;
    connection.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

type Outcome = Result<Result<Report, Failure>, Crashed>;

/// How far a run came that was cut off, together with what ran beside it.
#[derive(Clone, Debug, Default)]
struct Crashed {
    uses: usize,
    calls: usize,
    calls_of_sites: [usize; MOST_SITES],
    last: String,
}

impl SeenSite {
    /// Whether the receiver would be told of an event by a webhook that is named for it.
    fn hears(&self, event: &Event, keyring: Option<&Keyring>) -> bool {
        let mut named = self.webhooks.iter().filter(|webhook| webhook.name == format!("fan-{event}"));
        named.any(|webhook| {
            let verified = verified(webhook, keyring);
            webhook.is_enabled
                && webhook.event == *event
                && verified.is_some_and(|verified| verified.registration().event == *event)
        })
    }

    /// Those of our webhooks that send to the receiver what it would not believe.
    fn disbelieved(&self, keyring: Option<&Keyring>) -> Vec<&str> {
        let ours = self.webhooks.iter().filter(|webhook| is_ours(webhook) && webhook.url.starts_with(RECEIVER_URL));
        ours.filter(|webhook| verified(webhook, keyring).is_none()).map(|webhook| webhook.name.as_str()).collect()
    }
}

/// What a webhook may speak for at the receiver.
pub(crate) fn verified(webhook: &Webhook, keyring: Option<&Keyring>) -> Option<Verified> {
    let path = webhook.url.strip_prefix(RECEIVER_URL.trim_end_matches('/'))?;
    Claim::parse(path)?.verify(keyring?)
}

/// Whether a webhook is ours, by what was promised of names rather than by the reconciler's own rule.
fn is_ours(webhook: &Webhook) -> bool {
    let event = webhook.name.strip_prefix("fan-").unwrap_or_default();
    !event.is_empty() && event.bytes().all(|byte| byte.is_ascii_alphabetic())
}

fn stored(seen: &Seen) -> Option<String> {
    seen.keyring.as_ref().map(|keyring| keyring.to_stored().expose_secret().to_owned())
}

/// What matters of a webhook.
fn short(webhook: &Webhook) -> (String, String, String, bool) {
    let Webhook { name, event, url, is_enabled, .. } = webhook;
    (name.clone(), event.as_str().to_owned(), url.clone(), *is_enabled)
}

/// What is different, in either direction.
fn told(before: &[Webhook], after: &[Webhook]) -> String {
    let but = |these: &[Webhook], those: &[Webhook]| -> Vec<_> {
        these.iter().filter(|webhook| !those.contains(webhook)).map(short).collect()
    };
    format!("{:?} became {:?}", but(before, after), but(after, before))
}

/// A call without what differs from webhook to webhook.
fn kind(call: &str) -> String {
    match call.split_once("webhooks/") {
        Some((call, rest)) => {
            let rest = rest.split_once('/').map_or_else(String::new, |(_, rest)| format!("/{rest}"));
            format!("{call}webhooks/{{id}}{rest}")
        }
        None => call.to_owned(),
    }
}
