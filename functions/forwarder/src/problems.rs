//! Alerts about targets that refuse messages, and about their end.

use lambda_support::{error_chain, topic::Topic};
use shared::{
    alerts::{message::AlertMessage, notification::Notification},
    targets::{
        entry::TargetEntry,
        hold::{Hold, problem_key},
        name::TargetName,
    },
};
use time::OffsetDateTime;

use crate::{
    forwarder::{Batch, Forwarder, Standing},
    holds::{HoldError, Holds},
};

impl<T, S, Q, H, A> Forwarder<T, S, Q, H, A>
where
    H: Holds,
    A: Topic<AlertMessage>,
{
    /// Sends the alert that follows from the answers of a target, if there is one.
    pub(crate) async fn alert(&self, batch: &Batch) {
        match (&batch.standing, &batch.target) {
            (Some(Standing::Refuses(entry, status)), _) => {
                self.working.remove(&entry.name);
                self.alert_refused(entry, *status).await;
            }
            (Some(Standing::Works { was_tried }), Some(target)) => {
                // The first message of an environment may be the first one after the correction.
                if *was_tried || !self.working.contains(target) {
                    self.alert_solved(target).await;
                }
            }
            (Some(Standing::Works { .. }), None) | (None, _) => {}
        }
    }

    /// Sends an alert that a target refuses messages: one until it is solved, or a day passed.
    async fn alert_refused(&self, entry: &TargetEntry, status: u16) {
        let (key, hold) = (problem_key(&entry.name), Hold::of_problem(OffsetDateTime::now_utc()));
        let hold = match self.holds.take(&key, hold).await {
            Ok(hold) => hold,
            Err(HoldError::Taken(_)) => return,
            Err(HoldError::Failed(error)) => return self.warn(&entry.name, &error_chain(&error)),
        };
        let alert = Notification::target_refuses(&entry.name, entry.preset, status, hold.since);
        let Err(error) = self.alerts.publish(alert.into()).await else { return };
        self.warn(&entry.name, &error_chain(&error));
        // The next attempt sends it again.
        if !error.is_for_good()
            && let Err(error) = self.holds.release(&key).await
        {
            self.warn(&entry.name, &error_chain(&error));
        }
    }

    /// Sends an alert that a target takes messages again, if there was one that it refuses them.
    async fn alert_solved(&self, target: &TargetName) {
        let key = problem_key(target);
        let hold = match self.holds.release(&key).await {
            Ok(Some(hold)) => hold,
            Ok(None) => return self.working.insert(target),
            Err(error) => return self.warn(target, &error_chain(&error)),
        };
        let alert = Notification::target_works(target, hold.since, OffsetDateTime::now_utc());
        let Err(error) = self.alerts.publish(alert.into()).await else { return self.working.insert(target) };
        self.warn(target, &error_chain(&error));
        // The next message sends it again.
        if !error.is_for_good()
            && let Err(error) = self.holds.take(&key, hold).await
        {
            self.warn(target, &error_chain(&error));
        }
    }

    fn warn(&self, target: &TargetName, error: &str) {
        tracing::warn!(target = target.as_str(), error, "an alert about a target could not be sent");
    }
}
