//! The failed refreshes in the queue, from their receipt until they are explained.

use std::collections::{BTreeMap, BTreeSet};

use lambda_support::error_chain;
use shared::refreshes::failing::FailingResources;

use crate::failure_queue::{FailureQueue, QueuedMessage};

/// How often a failure is tried. Tableau may list its job late; after that the schedule explains it.
const MAX_TRIES: u32 = 3;

/// The messages that a run received from the queue of failed refreshes.
#[derive(Debug, Default)]
pub(crate) struct FailedRefreshes {
    messages: Vec<QueuedMessage>,
    /// The reason why the queue could not be read.
    pub(crate) error: Option<String>,
}

/// How a run ended for the sites with failures in the queue.
#[derive(Debug, Default)]
pub(crate) struct SiteEnds {
    /// The failing resources of each declared site, as they were stored; `None` for a site whose state was not stored.
    pub(crate) stored: BTreeMap<String, Option<FailingResources>>,
    /// The sites that were left to another run.
    pub(crate) left: BTreeSet<String>,
}

impl FailedRefreshes {
    /// Receives what is in the queue. Without an answer of SQS there is nothing: the schedule explains failures too.
    pub(crate) async fn receive(queue: Option<&impl FailureQueue>) -> Self {
        let Some(queue) = queue else { return Self::default() };
        match queue.receive().await {
            Ok(messages) => Self::of(messages),
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(error, "the queue of failed refreshes could not be read; the schedule explains them");
                Self { error: Some(error), ..Self::default() }
            }
        }
    }

    fn of(messages: Vec<QueuedMessage>) -> Self {
        let others = messages.iter().filter(|message| message.failed.is_none()).count();
        if others > 0 {
            tracing::warn!(
                count = others,
                "messages in the queue of failed refreshes are no events about them, and are deleted"
            );
        }
        Self { messages, error: None }
    }

    /// Returns the names of the sites.
    pub(crate) fn sites(&self) -> BTreeSet<String> {
        self.messages.iter().filter_map(|message| Some(message.failed.as_ref()?.site.to_string())).collect()
    }

    /// Whether the queue was empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Deletes the messages that are done with, and returns the others to the queue.
    pub(crate) async fn settle(self, queue: Option<&impl FailureQueue>, ends: &SiteEnds) {
        let Some(queue) = queue else { return };
        let (done, open) = self.messages.into_iter().partition(|message| is_done(message, ends));
        // Messages that are neither deleted nor returned come back by themselves.
        for result in [queue.delete(done).await, queue.put_back(open).await] {
            if let Err(error) = result {
                let error = error_chain(&error);
                tracing::warn!(error, "messages of the queue of failed refreshes could not be deleted or returned");
            }
        }
    }
}

/// Whether a message is done with: its failure is explained, nobody can explain it, or it is left to the schedule.
fn is_done(QueuedMessage { failed, tries, .. }: &QueuedMessage, SiteEnds { stored, left }: &SiteEnds) -> bool {
    let Some(failed) = failed else { return true };
    // The failures of a site that is no longer declared are not explained.
    let Some(stored) = stored.get(failed.site.as_str()) else { return true };
    let is_explained = stored.as_ref().is_some_and(|failing| failing.is_explained(failed));
    // Where another run had the token, this was no try.
    is_explained || (*tries >= MAX_TRIES && !left.contains(failed.site.as_str()))
}
