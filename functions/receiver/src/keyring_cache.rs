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
/// nobody can make an environment read at his pace: six reads in the first minute, then one a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

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
#[error("timed out: SSM did not give the signing keys in time")]
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
    /// When a request may cause the next read. The read at start is nobody's doing, and the first request need not wait.
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
    /// Reads the keyring for the first time. Finding none is no failure: on a first deployment there is none.
    pub async fn load(source: S) -> Self {
        let mut state = State { keyring: None, last_read: LastRead::Missing, next_read_at: None, pause: FIRST_PAUSE };
        match read(&source, Instant::now() + START_TIMEOUT).await {
            Ok(None) => tracing::warn!("there are no signing keys yet: the reconciler's first run makes them"),
            Err(error) => {
                tracing::error!(error = &*error as &(dyn Error + 'static), "the signing keys cannot be read");
                state.last_read = LastRead::Failed;
            }
            found => state.update(found),
        }
        Self { source, state: RwLock::new(state), refreshing: Mutex::new(()) }
    }

    /// Verifies a claim. One that none of the keys signed may be signed with a newer key, so the keyring is read again if
    /// it is time to; the delivery log counts that.
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
        // Nothing that could panic half-way changes it.
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

    /// Takes over the result of a read. A keyring that was read before serves while it cannot be read again.
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
            // From its start: a key that was stored meanwhile may not be in it.
            self.next_read_at = Some(started_at + REFRESH_INTERVAL);
            self.pause = FIRST_PAUSE;
        } else {
            // From its end: requests that waited for it do not repeat it.
            self.next_read_at = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(REFRESH_INTERVAL);
        }
    }
}
