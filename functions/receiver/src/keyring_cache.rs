//! The signing keys as this environment last read them, and when to read them again.

use std::{
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use common::keyring::{KeyringParameter, REFRESH_INTERVAL};
use shared::{
    keyring::Keyring,
    registration::{Claim, Verified},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use crate::{BoxError, config::START_TIMEOUT, journal::Journal};

/// How soon to look again when the last read brought no keyring (SSM was unavailable, or the reconciler has not made
/// one yet): soon, since every authentic delivery waits for it.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Where the keyring is read from.
pub trait KeyringSource {
    /// Reads the keyring, `None` if there is none yet.
    fn read(&self) -> impl Future<Output = Result<Option<Keyring>, BoxError>> + Send;
}

impl KeyringSource for KeyringParameter {
    async fn read(&self) -> Result<Option<Keyring>, BoxError> {
        Ok(KeyringParameter::read(self).await?)
    }
}

/// The keyring could not be read, so that a claim could be neither believed nor refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyringUnavailable;

/// There was no more time to wait for the keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out: SSM did not answer in time")]
struct NotInTime;

/// The signing keys, read when they are needed and not more often than that.
#[derive(Debug)]
pub struct KeyringCache<S> {
    source: S,
    state: RwLock<State>,
    /// Held while the keyring is read again, so that requests that arrive together cause one read. Who is believed
    /// without one does not wait for it.
    refreshing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    keyring: Option<Keyring>,
    last_read: LastRead,
    /// When a request last made us read. The read at start is nobody's doing and does not count.
    refreshed_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastRead {
    Found,
    Missing,
    Failed,
}

impl<S: KeyringSource> KeyringCache<S> {
    /// Reads the keyring for the first time. Finding none is no failure: on a first deployment there is none.
    pub async fn load(source: S) -> Self {
        let mut state = State { keyring: None, last_read: LastRead::Missing, refreshed_at: None };
        state.update(read(&source, Instant::now() + START_TIMEOUT).await);
        Self { source, state: RwLock::new(state), refreshing: Mutex::new(()) }
    }

    /// Believes a claim that one of the keys signed. A claim that none of them did may be signed with a key of
    /// tomorrow, so it is checked against a newer keyring if there may be one; the journal is told of that.
    ///
    /// # Errors
    ///
    /// There is no telling, because the keyring cannot be read, or not before the deadline.
    pub async fn verify(
        &self,
        claim: &Claim,
        deadline: Instant,
        journal: &Journal,
    ) -> Result<Option<Verified>, KeyringUnavailable> {
        if let Some(verified) = self.state().verify(claim) {
            return Ok(Some(verified));
        }
        let _refreshing = timeout_at(deadline, self.refreshing.lock()).await.map_err(|_| KeyringUnavailable)?;
        if self.state().may_be_outdated() {
            let started_at = Instant::now();
            let keyring = read(&self.source, deadline).await;
            journal.keyring_refreshed(keyring.is_err());
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.refreshed_at = Some(started_at);
            state.update(keyring);
        }
        let state = self.state();
        match state.verify(claim) {
            None if state.last_read == LastRead::Failed => Err(KeyringUnavailable),
            verified => Ok(verified),
        }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        // Nothing that could panic half-way changes it.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(source: &impl KeyringSource, deadline: Instant) -> Result<Option<Keyring>, BoxError> {
    timeout_at(deadline, source.read()).await.map_err(|_| NotInTime)?
}

impl State {
    fn verify(&self, claim: &Claim) -> Option<Verified> {
        claim.verify(self.keyring.as_ref()?)
    }

    fn may_be_outdated(&self) -> bool {
        let interval = match self.last_read {
            LastRead::Found => REFRESH_INTERVAL,
            LastRead::Missing | LastRead::Failed => RETRY_INTERVAL,
        };
        self.refreshed_at.is_none_or(|refreshed_at| refreshed_at.elapsed() >= interval)
    }

    /// Takes over what was read. A keyring that was read before serves while it cannot be read again.
    fn update(&mut self, read: Result<Option<Keyring>, BoxError>) {
        self.last_read = match read {
            Ok(Some(keyring)) => {
                self.keyring = Some(keyring);
                LastRead::Found
            }
            Ok(None) => {
                tracing::warn!("there are no signing keys yet: the reconciler's first run makes them");
                self.keyring = None;
                LastRead::Missing
            }
            Err(error) => {
                let error = &*error as &(dyn std::error::Error + 'static);
                tracing::error!(error, "the signing keys cannot be read");
                LastRead::Failed
            }
        };
    }
}
