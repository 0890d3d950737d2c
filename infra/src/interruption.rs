//! Ctrl-C, and other requests to end a command.

use tokio::signal::unix::{SignalKind, signal};

/// Runs `work`. Returns `None` if SIGINT or SIGTERM arrives before it ends; the work then goes no further.
///
/// # Errors
///
/// The signals cannot be received.
pub async fn unless_interrupted<T>(work: impl Future<Output = T>) -> anyhow::Result<Option<T>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        // Ctrl-C ends the AWS CLI too. The error that follows is not the reason.
        biased;
        _ = interrupt.recv() => Ok(None),
        _ = terminate.recv() => Ok(None),
        result = work => Ok(Some(result)),
    }
}
