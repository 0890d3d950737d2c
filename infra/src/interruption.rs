//! Ctrl-C, and other requests to end a command.

use std::cell::RefCell;

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

/// The effect of an interruption on the work of a command, and the fix. It changes as the work goes on.
#[derive(Debug)]
pub struct Effect(RefCell<String>);

impl Effect {
    /// The effect of an interruption at the start.
    pub fn new(text: impl Into<String>) -> Self {
        Self(RefCell::new(text.into()))
    }

    /// The effect of an interruption from now on.
    pub fn set(&self, text: impl Into<String>) {
        self.0.replace(text.into());
    }
}

/// Runs `work`. If SIGINT or SIGTERM arrives before it ends, fails with the present effect.
///
/// # Errors
///
/// As the work. It was interrupted, or the signals cannot be received.
pub async fn explained<T>(effect: &Effect, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match unless_interrupted(work).await? {
        Some(result) => result,
        None => bail!("interrupted. {}", effect.0.borrow()),
    }
}

/// Runs `work`. Returns `None` if SIGINT or SIGTERM arrives before it ends; the work then goes no further.
///
/// # Errors
///
/// The signals cannot be received.
pub async fn unless_interrupted<T>(work: impl Future<Output = T>) -> anyhow::Result<Option<T>> {
    tokio::select! {
        // Ctrl-C ends the AWS CLI too. The error that follows is not the reason.
        biased;
        interrupted = interrupted() => interrupted.map(|()| None),
        result = work => Ok(Some(result)),
    }
}

/// Waits for SIGINT or SIGTERM.
///
/// # Errors
///
/// The signals cannot be received.
pub async fn interrupted() -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
