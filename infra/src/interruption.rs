//! Ctrl-C, and other requests to end a command.

use tokio::signal::unix::{SignalKind, signal};

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
