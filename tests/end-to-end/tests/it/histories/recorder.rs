//! Records each use of the parameters and topics, and lets a run be cut off before and after it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use end_to_end::declared::{Declared, Table};
use lambda_support::topic::{Topic, TopicError};
use reconciler::{
    parameters::{Parameters, ParametersError},
    state_table::{Item, StateTable, TableUnavailable, WriteError},
};
use serde_json::Value;
use shared::{
    alerts::message::AlertMessage,
    events::cloud_event::EventMessage,
    registration::keyring::Keyring,
    sites::entry::{BadEntry, SiteEntry},
};
use tokio::task::yield_now;

/// Replaces the minute that receivers need to learn a new key. Longer than another run takes from reading keys to storing
/// others.
const POLLS_OF_A_MINUTE: usize = 50;

/// The declaration of a history, which changes between runs, and the names of its uses.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorder {
    declared: Arc<Mutex<Declared>>,
    uses: Arc<Mutex<Vec<&'static str>>>,
    table_faults: Arc<Mutex<TableFaults>>,
}

/// Faults of the state table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TableFaults {
    /// After how many more calls none succeeds.
    pub(super) fails_after: Option<usize>,
    /// How many more writes find another version than was read.
    pub(super) conflicts: usize,
}

impl Recorder {
    pub(super) fn declared(&self) -> MutexGuard<'_, Declared> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn uses(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn table_faults(&self) -> MutexGuard<'_, TableFaults> {
        self.table_faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the declaration as it is now, which a use keeps to its end.
    fn current(&self) -> Declared {
        self.declared().clone()
    }

    /// Returns the table, with its faults in effect for one call.
    fn table(&self, written: Option<&str>) -> Result<Table, TableUnavailable> {
        let (table, mut faults) = (self.current().table, self.table_faults());
        match &mut faults.fails_after {
            Some(0) => return Err(TableUnavailable("DynamoDB is not available".into())),
            Some(left) => *left -= 1,
            None => {}
        }
        if faults.conflicts > 0
            && let Some(item) = table.items().get_mut(written.unwrap_or_default())
        {
            faults.conflicts -= 1;
            item.version = item.version.map(|version| version + 1);
        }
        Ok(table)
    }

    async fn record<T>(&self, name: &'static str, using: impl Future<Output = T>) -> T {
        yield_now().await;
        let result = using.await;
        self.uses().push(name);
        yield_now().await;
        result
    }
}

impl Parameters for Recorder {
    async fn site_entries(&self) -> Result<Vec<Result<SiteEntry, BadEntry>>, ParametersError> {
        self.record("read entries", self.current().site_entries()).await
    }

    async fn keyring(&self) -> Result<Option<Keyring>, ParametersError> {
        self.record("read keys", self.current().keyring()).await
    }

    async fn create_keyring(&self, keyring: &Keyring) -> Result<(), ParametersError> {
        self.record("create keys", self.current().create_keyring(keyring)).await
    }

    async fn replace_keyring(&self, keyring: &Keyring) -> Result<(), ParametersError> {
        self.record("replace keys", self.current().replace_keyring(keyring)).await
    }

    async fn wait_until_new_key_is_known(&self) {
        let wait = async {
            for _ in 0..POLLS_OF_A_MINUTE {
                yield_now().await;
            }
        };
        self.record("wait for receivers", wait).await
    }

    async fn tableau_ca(&self) -> Result<Option<String>, ParametersError> {
        self.record("read CA certificates", self.current().tableau_ca()).await
    }
}

impl StateTable for Recorder {
    async fn read(&self) -> Result<Vec<Item>, TableUnavailable> {
        self.record("read state", async { self.table(None)?.read().await }).await
    }

    async fn write(&self, key: &str, content: &Value, version: Option<u64>) -> Result<(), WriteError> {
        let name = match key.split('#').next() {
            Some("site") => "store site",
            Some("token") => "hold token",
            _ => "store run",
        };
        let write = async { self.table(Some(key)).map_err(WriteError::Failed)?.write(key, content, version).await };
        self.record(name, write).await
    }

    async fn delete(&self, key: &str, version: Option<u64>) -> Result<(), WriteError> {
        let name = if key.starts_with("token#") { "release token" } else { "delete site" };
        let delete = async { self.table(Some(key)).map_err(WriteError::Failed)?.delete(key, version).await };
        self.record(name, delete).await
    }
}

impl Topic<EventMessage> for Recorder {
    async fn publish(&self, message: EventMessage) -> Result<(), TopicError> {
        self.record("publish event", self.current().topics.publish(message)).await
    }
}

impl Topic<AlertMessage> for Recorder {
    async fn publish(&self, message: AlertMessage) -> Result<(), TopicError> {
        self.record("publish alert", self.current().topics.publish(message)).await
    }
}
