//! The signing keys as this environment last read them, and when to read them again.

use std::{
    error::Error,
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use lambda_support::{
    error_chain,
    keyring::{KeyringParameter, REFRESH_INTERVAL},
};
use shared::registration::{
    claim::{Claim, Verified},
    keyring::Keyring,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use crate::{BoxError, config::START_TIMEOUT, delivery_log::DeliveryLog};

/// The pause after the first read that brought no keyring (SSM was unavailable, or the reconciler has not made one yet):
/// short, since every authentic delivery waits for it. It doubles with each such read up to [`REFRESH_INTERVAL`], so that
/// no flood makes an environment read at its rate: six reads in the first minute, then one a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A source of the keyring.
pub trait KeyringSource {
    /// Reads the keyring, `None` if there is none yet.
    fn read(&self) -> impl Future<Output = Result<Option<Keyring>, BoxError>> + Send;
}

impl KeyringSource for KeyringParameter {
    async fn read(&self) -> Result<Option<Keyring>, BoxError> {
        Ok(KeyringParameter::read(self).await?)
    }
}

/// The keyring could not be read, so that a claim could be neither verified nor rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyringUnavailable;

/// The deadline came before SSM's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out: SSM did not give the signing keys in time")]
struct NotInTime;

/// The signing keys, read when they are needed and not more often than that.
#[derive(Debug)]
pub struct KeyringCache<S> {
    source: S,
    state: RwLock<State>,
    /// Held while the keyring is read again, so that requests that arrive together cause one read. A request that the known
    /// keys verify does not wait for it.
    refreshing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    keyring: Option<Keyring>,
    last_read: LastRead,
    /// When a request may cause the next read. After the read at start the first request may cause one at once.
    next_read_at: Option<Instant>,
    /// The pause after the next read that brings no keyring.
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastRead {
    Found,
    Missing,
    Failed,
}

impl<S: KeyringSource> KeyringCache<S> {
    /// Reads the keyring for the first time. A missing keyring is no failure: a first deployment has none.
    pub async fn load(source: S) -> Self {
        let mut state = State { keyring: None, last_read: LastRead::Missing, next_read_at: None, pause: FIRST_PAUSE };
        match read(&source, Instant::now() + START_TIMEOUT).await {
            Ok(None) => tracing::warn!(
                "There are no signing keys yet. The reconciler's first run creates them: cargo infra reconcile apply"
            ),
            Err(error) => {
                tracing::error!(
                    error = &*error as &(dyn Error + 'static),
                    "The signing keys cannot be read. Deliveries are recorded unverified until they can."
                );
                state.last_read = LastRead::Failed;
            }
            found => state.update(found),
        }
        Self { source, state: RwLock::new(state), refreshing: Mutex::new(()) }
    }

    /// Verifies a claim. A claim that none of the keys signed may be signed with a newer key, so the keyring is read again
    /// when a read is due. The delivery log counts the reads.
    ///
    /// # Errors
    ///
    /// The keyring cannot be read, or not before the deadline.
    pub async fn verify(
        &self,
        claim: &Claim,
        deadline: Instant,
        delivery_log: &DeliveryLog,
    ) -> Result<Option<Verified>, KeyringUnavailable> {
        if let Some(verified) = self.state().verify(claim) {
            return Ok(Some(verified));
        }
        let _refreshing = timeout_at(deadline, self.refreshing.lock()).await.map_err(|_| KeyringUnavailable)?;
        if self.state().may_read() {
            self.refresh(deadline, delivery_log).await;
        }
        let state = self.state();
        match state.verify(claim) {
            None if state.last_read == LastRead::Failed => Err(KeyringUnavailable),
            verified => Ok(verified),
        }
    }

    /// Reads the keyring again.
    async fn refresh(&self, deadline: Instant, delivery_log: &DeliveryLog) {
        let started_at = Instant::now();
        let read = read(&self.source, deadline).await;
        let error = read.as_ref().err().map(|error| error_chain(&**error));
        // No code under the lock can panic.
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let before = state.last_read;
        state.update(read);
        state.schedule(started_at);
        delivery_log.keyring_read(error, state.last_read != before);
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
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

    fn may_read(&self) -> bool {
        self.next_read_at.is_none_or(|next| Instant::now() >= next)
    }

    /// Takes over the result of a read. An earlier keyring stays in use while it cannot be read again.
    fn update(&mut self, read: Result<Option<Keyring>, BoxError>) {
        self.last_read = match read {
            Ok(Some(keyring)) => {
                self.keyring = Some(keyring);
                LastRead::Found
            }
            Ok(None) => {
                self.keyring = None;
                LastRead::Missing
            }
            Err(_) => LastRead::Failed,
        };
    }

    /// Sets the time of the next read.
    fn schedule(&mut self, started_at: Instant) {
        if self.last_read == LastRead::Found {
            // From the start of the read: it may lack a key that was stored during it.
            self.next_read_at = Some(started_at + REFRESH_INTERVAL);
            self.pause = FIRST_PAUSE;
        } else {
            // From the end of the read: requests that waited for it do not repeat it.
            self.next_read_at = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(REFRESH_INTERVAL);
        }
    }
}
