//! A declaration without AWS: the reconciler's parameters as values, and a simulator to run it against.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lambda_support::{
    keyring::KeyringError,
    metrics::MetricLog,
    topic::{Topic, TopicError},
};
use reconciler::{
    config::{Config, DEFAULT_TIMEOUT},
    failure::Failure,
    failure_queue::{FailureQueue, QueueError, QueuedMessage},
    parameters::{Parameters, ParametersError},
    reconciler::Reconciler,
    report::{Report, SiteReport},
    request::{Action, Request},
    state_table::{Item, StateTable, TableUnavailable, WriteError},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use shared::{
    alerts::message::AlertMessage,
    events::cloud_event::EventMessage,
    refreshes::failed_event::FailedEvent,
    registration::keyring::Keyring,
    sites::entry::{BadEntry, SiteEntry},
};
use strict_sns::publish::{Delivery, Publish};
use tableau::Tableau;
use tableau_simulator::{model::Site, server::Running};
use tokio::time::Instant;

use crate::aging::age;

/// Path of the site entries.
pub const SITES_PATH: &str = "/tableau-fanout/sites";

/// Address of the receiver. No test calls it.
pub const RECEIVER_URL: &str = "https://receiver.example/";

/// Declared sites, signing keys, state and topics of a stack. Sites are on one simulated server, under the same names.
#[derive(Clone, Debug)]
pub struct Declared {
    /// The entries' values by site name.
    pub entries: BTreeMap<String, String>,
    /// The signing keys, as they are stored.
    keyring: Arc<Mutex<Option<SecretString>>>,
    /// The reconciler's state.
    pub table: Table,
    /// Whether SSM returns no site entry.
    pub entries_fail: bool,
    /// The number of keyrings that SSM still replaces; all if not set.
    pub keyrings_taken: Arc<Mutex<Option<usize>>>,
    /// The topics for alerts and events.
    pub topics: Topics,
    /// The queue of failed refreshes.
    pub failures: Failures,
    /// The lines with metrics that the runs wrote.
    log: Arc<Mutex<Vec<String>>>,
    /// The reconciler's `EVENTS`.
    pub events: &'static str,
    /// The reconciler's `ALERT_EVENTS`.
    pub alert_events: &'static str,
    /// The reconciler's `RECOVER_HOURS`; with "0" no jobs are read.
    pub recover_hours: &'static str,
    /// CA certificates of Tableau servers besides the public ones.
    pub tableau_ca: Option<String>,
}

/// The topics for alerts and events, with SNS's rules, and the messages that subscribers received.
#[derive(Clone, Debug, Default)]
pub struct Topics {
    alerts: Arc<Mutex<Vec<AlertMessage>>>,
    events: Arc<Mutex<Vec<EventMessage>>>,
    /// The number of events that SNS still accepts; all if not set.
    pub events_taken: Arc<Mutex<Option<usize>>>,
    /// A text that no message may have: SNS refuses alerts and events with it for good.
    pub refused: Arc<Mutex<Option<String>>>,
    /// Whether SNS accepts no alerts.
    pub alerts_fail: bool,
}

impl Topics {
    /// Returns which subscribers receive a message, unless SNS refuses it by its rules or for a test.
    fn check(&self, body: &str, publish: &Publish) -> Result<Delivery, TopicError> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.as_ref().is_some_and(|text| body.contains(text)) {
            let refusal = "InvalidParameterException: Invalid parameter: Message";
            return Err(TopicError::RefusedForGood(refusal.into()));
        }
        publish.accept().map_err(|refusal| TopicError::RefusedForGood(refusal.into()))
    }

    /// Takes the alerts since the last time.
    pub fn take_alerts(&self) -> Vec<AlertMessage> {
        std::mem::take(&mut self.alerts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the events that subscribers with a filter policy on attributes received.
    pub fn events(&self) -> Vec<EventMessage> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the subjects of the alerts since the last time, in order.
    pub fn take_subjects(&self) -> Vec<String> {
        let mut subjects: Vec<_> = self.take_alerts().into_iter().map(|alert| alert.subject).collect();
        subjects.sort();
        subjects
    }
}

impl Topic<AlertMessage> for Topics {
    async fn publish(&self, message: AlertMessage) -> Result<(), TopicError> {
        if self.alerts_fail {
            return Err(TopicError::Failed("SNS is not available".into()));
        }
        self.check(&message.body, &Publish::from(&message))?;
        self.alerts.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        // The answer takes its time, in which a run may be cut off.
        tokio::task::yield_now().await;
        Ok(())
    }
}

impl Topic<EventMessage> for Topics {
    async fn publish(&self, message: EventMessage) -> Result<(), TopicError> {
        let mut taken = self.events_taken.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *taken {
            Some(0) => return Err(TopicError::Failed("SNS is not available".into())),
            Some(left) => *left -= 1,
            None => {}
        }
        if self.check(&message.body, &Publish::from(&message))?.is_whole() {
            self.events.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        }
        Ok(())
    }
}

/// A table as DynamoDB has it: a write whose condition does not hold changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Table {
    items: Arc<Mutex<BTreeMap<String, Item>>>,
    /// The error of every call; all succeed if not set.
    pub error: Arc<Mutex<Option<String>>>,
    /// The beginning of the keys whose items cannot be changed; all can if not set.
    pub broken: Arc<Mutex<Option<&'static str>>>,
}

impl Table {
    /// The items by their keys.
    pub fn items(&self) -> MutexGuard<'_, BTreeMap<String, Item>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content of an item, `Value::Null` if there is none.
    pub fn content(&self, key: &str) -> Value {
        self.items().get(key).map(|item| item.content.clone()).unwrap_or_default()
    }

    /// Makes every item older by a time.
    pub fn age(&self, time: time::Duration) {
        self.items().values_mut().for_each(|item| age(&mut item.content, time));
    }

    fn check(&self) -> Result<(), TableUnavailable> {
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        error.map_or(Ok(()), |error| Err(TableUnavailable(error.into())))
    }

    /// Changes an item if it still has a version.
    fn change(&self, key: &str, version: Option<u64>, item: Option<Item>) -> Result<(), WriteError> {
        self.check().map_err(WriteError::Failed)?;
        let broken = *self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.is_some_and(|beginning| key.starts_with(beginning)) {
            return Err(WriteError::Failed(TableUnavailable("the item cannot be changed".into())));
        }
        let mut items = self.items();
        if items.get(key).and_then(|item| item.version) != version {
            return Err(WriteError::Conflict);
        }
        match item {
            Some(item) => items.insert(key.to_owned(), item),
            None => items.remove(key),
        };
        Ok(())
    }
}

/// A queue as SQS has it: a received message is hidden until it is deleted or put back.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    messages: Arc<Mutex<Messages>>,
    /// Whether SQS answers no call.
    pub fail: bool,
}

#[derive(Debug, Default)]
struct Messages {
    sent: usize,
    waiting: Vec<QueuedMessage>,
    hidden: Vec<QueuedMessage>,
}

impl Failures {
    /// Adds a message.
    pub fn send(&self, body: &str) {
        let mut messages = self.messages();
        messages.sent += 1;
        let receipt = messages.sent.to_string();
        messages.waiting.push(QueuedMessage { failed: FailedEvent::parse(body), receipt, tries: 0 });
    }

    /// Returns the number of messages that wait, and of those that are hidden.
    pub fn counts(&self) -> (usize, usize) {
        let messages = self.messages();
        (messages.waiting.len(), messages.hidden.len())
    }

    /// Lets the visibility timeout pass.
    pub fn show_hidden(&self) {
        let mut messages = self.messages();
        let hidden = std::mem::take(&mut messages.hidden);
        messages.waiting.extend(hidden);
    }

    fn messages(&self) -> MutexGuard<'_, Messages> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), QueueError> {
        if self.fail { Err(QueueError("SQS is not available".into())) } else { Ok(()) }
    }

    /// Takes messages out of the hidden ones.
    fn take(&self, messages: &[QueuedMessage]) -> Result<Vec<QueuedMessage>, QueueError> {
        self.check()?;
        let is_meant = |message: &mut QueuedMessage| messages.iter().any(|it| it.receipt == message.receipt);
        Ok(self.messages().hidden.extract_if(.., is_meant).collect())
    }
}

impl FailureQueue for Failures {
    async fn receive(&self) -> Result<Vec<QueuedMessage>, QueueError> {
        self.check()?;
        let mut messages = self.messages();
        let mut received = std::mem::take(&mut messages.waiting);
        received.iter_mut().for_each(|message| message.tries += 1);
        messages.hidden.extend(received.iter().cloned());
        Ok(received)
    }

    async fn delete(&self, messages: Vec<QueuedMessage>) -> Result<(), QueueError> {
        self.take(&messages).map(drop)
    }

    async fn put_back(&self, messages: Vec<QueuedMessage>) -> Result<(), QueueError> {
        let messages = self.take(&messages)?;
        self.messages().waiting.extend(messages);
        Ok(())
    }
}

impl StateTable for Table {
    async fn read(&self) -> Result<Vec<Item>, TableUnavailable> {
        self.check()?;
        Ok(self.items().values().cloned().collect())
    }

    async fn write(&self, key: &str, content: &Value, version: Option<u64>) -> Result<(), WriteError> {
        let next = Some(version.unwrap_or_default() + 1);
        let item = Item { key: key.to_owned(), version: next, content: content.clone() };
        self.change(key, version, Some(item))
    }

    async fn delete(&self, key: &str, version: Option<u64>) -> Result<(), WriteError> {
        if !self.items().contains_key(key) {
            return self.check().map_err(WriteError::Failed);
        }
        self.change(key, version, None)
    }
}

impl Default for Declared {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            keyring: Arc::default(),
            table: Table::default(),
            entries_fail: false,
            keyrings_taken: Arc::default(),
            recover_hours: "0",
            topics: Topics::default(),
            failures: Failures::default(),
            tableau_ca: None,
            log: Arc::default(),
            events: "ViewDeleted,WorkbookCreated,WorkbookRefreshFailed",
            alert_events: "",
        }
    }
}

impl Parameters for Declared {
    async fn site_entries(&self) -> Result<Vec<Result<SiteEntry, BadEntry>>, ParametersError> {
        if self.entries_fail {
            let (parameter, source) = (SITES_PATH.to_owned(), "SSM is not available".into());
            return Err(ParametersError::Unreadable { parameter, source });
        }
        let entries = self.entries.iter();
        Ok(entries.map(|(name, value)| SiteEntry::read(&format!("{SITES_PATH}/{name}"), value)).collect())
    }

    async fn keyring(&self) -> Result<Option<Keyring>, ParametersError> {
        Ok(self
            .stored_keyring()
            .as_ref()
            .map(|stored| Keyring::parse(stored.expose_secret()))
            .transpose()
            .map_err(|source| KeyringError::Invalid { parameter: "the signing keys".to_owned(), source })?)
    }

    async fn create_keyring(&self, keyring: &Keyring) -> Result<(), ParametersError> {
        self.stored_keyring().get_or_insert_with(|| keyring.to_stored());
        Ok(())
    }

    async fn replace_keyring(&self, keyring: &Keyring) -> Result<(), ParametersError> {
        match &mut *self.keyrings_taken.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(0) => {
                return Err(ParametersError::NotStored {
                    parameter: "the keys".to_owned(),
                    source: "SSM is not available".into(),
                });
            }
            Some(left) => *left -= 1,
            None => {}
        }
        *self.stored_keyring() = Some(keyring.to_stored());
        Ok(())
    }

    // No receiver caches other keys.
    async fn wait_until_new_key_is_known(&self) {}

    async fn tableau_ca(&self) -> Result<Option<String>, ParametersError> {
        Ok(self.tableau_ca.clone())
    }
}

impl Declared {
    /// Declares sites that exist on the simulator.
    pub fn sites(tableau: &Running, names: &[&str]) -> Self {
        let entries = names.iter().map(|name| {
            let secret = secret_of(name);
            tableau.simulator.world().add_site(name, "fanout", &secret);
            let server = format!("http://{}", tableau.address);
            let entry = json!({ "server": server, "site": name, "token_name": "fanout", "token_secret": secret });
            ((*name).to_owned(), entry.to_string())
        });
        Self { entries: entries.collect(), ..Self::default() }
    }

    /// The lines with metrics that the runs wrote.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The signing keys, as they are stored.
    pub fn stored_keyring(&self) -> MutexGuard<'_, Option<SecretString>> {
        self.keyring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a member of a site's entry.
    ///
    /// # Errors
    ///
    /// There is no such entry, or it is no JSON.
    pub fn set(&mut self, site: &str, member: &str, value: Value) -> anyhow::Result<()> {
        let entry = self.entries.entry(site.to_owned()).or_default();
        let mut changed: Value = serde_json::from_str(entry)?;
        changed[member] = value;
        *entry = changed.to_string();
        Ok(())
    }

    /// Runs the reconciler's `apply` for all sites.
    ///
    /// # Errors
    ///
    /// As [`Declared::run`].
    pub async fn apply(&self) -> anyhow::Result<Result<Report, Failure>> {
        self.run(Action::Apply, None).await
    }

    /// Runs the reconciler for some sites, or for all, with the time that the template gives it.
    ///
    /// # Errors
    ///
    /// The harness is wrong. A failed run is a result here.
    pub async fn run(&self, action: Action, sites: Option<Vec<String>>) -> anyhow::Result<Result<Report, Failure>> {
        self.run_for(DEFAULT_TIMEOUT, action, sites).await
    }

    /// Runs the reconciler with less time, or more.
    ///
    /// # Errors
    ///
    /// As [`Declared::run`].
    pub async fn run_for(
        &self,
        time: Duration,
        action: Action,
        sites: Option<Vec<String>>,
    ) -> anyhow::Result<Result<Report, Failure>> {
        let reconciler = self.reconciler(self.clone(), self.table.clone(), self.topics.clone())?;
        Ok(reconciler.run(Request { action, sites }, Instant::now() + time).await)
    }

    /// Returns a reconciler with the settings of this declaration, and with other parameters, state and topics.
    ///
    /// # Errors
    ///
    /// The harness is wrong.
    pub fn reconciler<P: Parameters, T: StateTable, A: Topic<AlertMessage> + Topic<EventMessage> + Clone>(
        &self,
        parameters: P,
        table: T,
        topics: A,
    ) -> anyhow::Result<Reconciler<P, T, A, Failures>> {
        let config = Config::from_lookup(|name| {
            let value = match name {
                "RECEIVER_URL" => RECEIVER_URL,
                "SITES_PATH" => SITES_PATH,
                "SIGNING_KEYS_PARAMETER" => "/tableau-fanout/signing-keys",
                "STATE_TABLE" => "tableau-fanout-state",
                "TABLEAU_CA_PARAMETER" => "/tableau-fanout/tableau-ca",
                "NAME_PREFIX" => "fan",
                "EVENTS" => self.events,
                "ALERT_EVENTS" => self.alert_events,
                "EVENTS_TOPIC_ARN" => "arn:aws:sns:us-east-1:000000000000:fan-events",
                "RECOVER_HOURS" => self.recover_hours,
                _ => return None,
            };
            Some(value.to_owned())
        })?;
        let written = self.log.clone();
        let log = MetricLog::new("tableau-fanout-reconciler".to_owned(), move |line| {
            written.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        });
        let (alerts, events, tableau) = (Some(topics.clone()), topics, Tableau::new()?);
        let failures = Some(self.failures.clone());
        Ok(Reconciler { config, parameters, table, alerts, events, failures, tableau, log })
    }

    /// Runs the reconciler for all sites and returns the first site's report, failed or not.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn apply_to_first(&self) -> anyhow::Result<SiteReport> {
        report_of(self.apply().await?)?.sites.into_iter().next().ok_or_else(|| anyhow::anyhow!("no site"))
    }
}

/// The report of a run, failed or not.
///
/// # Errors
///
/// The run processed no site.
pub fn report_of(result: Result<Report, Failure>) -> anyhow::Result<Report> {
    result.or_else(|failure| failure.report().cloned().ok_or_else(|| anyhow::anyhow!("{failure}")))
}

/// Returns the token secret of a site. Like Tableau's it holds no word: every occurrence of one would be redacted.
pub fn secret_of(site: &str) -> String {
    let characters: Vec<_> = site.chars().map(String::from).collect();
    format!("k9+/x==:{}", characters.join("7"))
}

/// Reads a site of the simulator, or changes it.
///
/// # Errors
///
/// There is no such site.
pub fn site<T>(tableau: &Running, name: &str, access: impl FnOnce(&mut Site) -> T) -> anyhow::Result<T> {
    let mut world = tableau.simulator.world();
    world.sites.get_mut(name).map(access).ok_or_else(|| anyhow::anyhow!("there is no site {name}"))
}
