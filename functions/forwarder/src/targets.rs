//! The entries of targets in SSM, read when they are needed and kept for a minute.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_sdk_ssm::{Client, operation::get_parameter::GetParameterError};
use lambda_support::error_chain;
use secrecy::{ExposeSecret, SecretString};
use shared::{
    settings::SettingsError,
    targets::{entry::TargetEntry, name::TargetName},
};
use thiserror::Error;
use tokio::time::Instant;

use crate::BoxError;

/// The time for which an entry is kept. A changed entry is used within a minute, and SSM is called once a minute.
const KEEP: Duration = Duration::from_secs(60);

/// SSM did not return a parameter.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct ParameterError(pub BoxError);

/// Storage for the entries of targets.
pub trait Targets {
    /// Returns the text of an entry; `None` if there is none.
    fn read(&self, target: &TargetName) -> impl Future<Output = Result<Option<SecretString>, ParameterError>> + Send;
}

/// SSM Parameter Store.
#[derive(Clone, Debug)]
pub struct SsmTargets {
    ssm: Client,
    path: String,
}

impl SsmTargets {
    /// Uses the parameters under a path.
    pub fn new(ssm: Client, path: String) -> Self {
        Self { ssm, path }
    }
}

impl Targets for SsmTargets {
    async fn read(&self, target: &TargetName) -> Result<Option<SecretString>, ParameterError> {
        match self.ssm.get_parameter().name(format!("{}/{target}", self.path)).with_decryption(true).send().await {
            Ok(output) => Ok(output.parameter.and_then(|parameter| parameter.value).map(SecretString::from)),
            Err(error) if error.as_service_error().is_some_and(GetParameterError::is_parameter_not_found) => Ok(None),
            Err(error) => Err(ParameterError(error.into())),
        }
    }
}

/// An entry cannot be used now. Somebody may correct it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum EntryError {
    #[error("the target has no SSM parameter")]
    Missing,
    #[error(transparent)]
    Unusable(SettingsError),
    #[error("SSM did not return the target's parameter: {0}")]
    Unreadable(String),
}

/// Entries of targets, each at most a minute old.
#[derive(Debug)]
pub struct Entries<T> {
    targets: T,
    kept: Mutex<BTreeMap<TargetName, Kept>>,
}

#[derive(Clone, Debug)]
struct Kept {
    read_at: Instant,
    entry: Result<Arc<TargetEntry>, EntryError>,
}

impl<T: Targets> Entries<T> {
    /// Reads entries from a storage.
    pub fn new(targets: T) -> Self {
        Self { targets, kept: Mutex::default() }
    }

    /// Returns the entry of a target.
    pub(crate) async fn get(&self, target: &TargetName) -> Result<Arc<TargetEntry>, EntryError> {
        let kept = self.kept().get(target).filter(|kept| kept.read_at.elapsed() < KEEP).cloned();
        if let Some(Kept { entry, .. }) = kept {
            return entry;
        }
        let entry = match self.targets.read(target).await {
            Ok(Some(text)) => {
                TargetEntry::parse(target, text.expose_secret()).map(Arc::new).map_err(EntryError::Unusable)
            }
            Ok(None) => Err(EntryError::Missing),
            Err(error) => Err(EntryError::Unreadable(error_chain(&error))),
        };
        self.kept().insert(target.clone(), Kept { read_at: Instant::now(), entry: entry.clone() });
        entry
    }

    /// Drops the entry of a target, so that the next message reads it again.
    pub(crate) fn forget(&self, target: &TargetName) {
        self.kept().remove(target);
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<TargetName, Kept>> {
        // No code that can panic changes it half-way.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
