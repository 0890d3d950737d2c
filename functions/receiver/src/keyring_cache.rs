//! The signing keys as this environment last read them, and when to read them again.

use std::time::Duration;

use common::keyring::KeyringParameter;
use shared::{
    keyring::Keyring,
    registration::{Claim, Verified},
};
use tokio::{sync::Mutex, time::Instant};

use crate::BoxError;

/// How long a keyring is believed to be current when a signature does not verify: a stranger's guesses cost at most
/// one call a minute, and a new key is known within one.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

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

/// The signing keys, read when they are needed and not more often than that.
#[derive(Debug)]
pub struct KeyringCache<S> {
    source: S,
    // Held while reading, so that requests that arrive together cause one read.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    keyring: Option<Keyring>,
    read_at: Instant,
    last_read: LastRead,
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
        let state = State::default().refreshed(&source).await;
        Self { source, state: Mutex::new(state) }
    }

    /// Believes a claim that one of the keys signed. A claim that none of them did may be signed with a key of
    /// tomorrow, so it is checked against a newer keyring if there may be one.
    ///
    /// # Errors
    ///
    /// There is no telling, because the keyring cannot be read.
    pub async fn verify(&self, claim: &Claim) -> Result<Option<Verified>, KeyringUnavailable> {
        let mut state = self.state.lock().await;
        if let Some(verified) = state.verify(claim) {
            return Ok(Some(verified));
        }
        if state.may_be_outdated() {
            *state = std::mem::take(&mut *state).refreshed(&self.source).await;
            if let Some(verified) = state.verify(claim) {
                return Ok(Some(verified));
            }
        }
        if state.last_read == LastRead::Failed { Err(KeyringUnavailable) } else { Ok(None) }
    }
}

impl Default for State {
    fn default() -> Self {
        Self { keyring: None, read_at: Instant::now(), last_read: LastRead::Failed }
    }
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
        self.read_at.elapsed() >= interval
    }

    /// The state after another read. A keyring that was read once serves until a newer one is there.
    async fn refreshed(self, source: &impl KeyringSource) -> Self {
        let result = source.read().await;
        let read_at = Instant::now();
        match result {
            Ok(Some(keyring)) => Self { keyring: Some(keyring), read_at, last_read: LastRead::Found },
            Ok(None) => {
                tracing::warn!("there are no signing keys yet: the reconciler's first run makes them");
                Self { keyring: None, read_at, last_read: LastRead::Missing }
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from_boxed(error));
                tracing::error!(error, "the signing keys cannot be read");
                Self { read_at, last_read: LastRead::Failed, ..self }
            }
        }
    }
}
