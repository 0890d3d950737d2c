//! What the receiver tells of itself: a line for each delivery, and one a minute for all that was turned away.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::metrics::{Metric, MetricLog, Unit};
use serde_json::json;
use shared::{
    message::{TEST, UNRECOGNIZED},
    record::{DeliveryRecord, Outcome},
};
use tokio::time::Instant;

/// How often the log tells of requests that were turned away: strangers can send as many as they like, and each line
/// is paid for.
const INTERVAL: Duration = Duration::from_secs(60);

/// The receiver's log.
#[derive(Debug)]
pub struct Journal {
    log: MetricLog,
    turned_away: Mutex<TurnedAway>,
}

/// Requests that were turned away and not yet told of.
#[derive(Debug, Default)]
struct TurnedAway {
    rejected: u32,
    unverified: u32,
    told_at: Option<Instant>,
}

impl Journal {
    /// A journal that is written to `log`.
    pub fn new(log: MetricLog) -> Self {
        Self { log, turned_away: Mutex::default() }
    }

    /// Tells of a delivery. `latency` is how long its publishes took, if there were any.
    pub(crate) fn delivery(&self, record: &DeliveryRecord, latency: Option<Duration>) {
        let one = |name| Metric::count(name, 1);
        let outcome = one(match record.outcome {
            Outcome::Published => "Published",
            Outcome::Duplicate => "Duplicates",
            Outcome::TooLarge => "TooLarge",
            Outcome::Undelivered => "Undelivered",
        });
        let kind = match record.event.r#type.as_str() {
            TEST => Some(one("Tests")),
            UNRECOGNIZED => Some(one("Unrecognized")),
            _ => None,
        };
        let contradiction = record.event.payload_type.is_some().then(|| one("Contradictions"));
        let failures = (record.outcome == Outcome::Undelivered)
            .then(|| Metric::count("PublishFailures", record.errors.len().try_into().unwrap_or(u32::MAX)));
        let latency = latency.map(|latency| Metric {
            name: "PublishLatency",
            value: latency.as_secs_f64() * 1000.0,
            unit: Unit::Milliseconds,
        });
        let metrics: Vec<_> = [Some(outcome), kind, contradiction, failures, latency].into_iter().flatten().collect();
        self.log.line(record, record, &metrics);
    }

    /// Tells that the signing keys were read again, and whether that brought any. Why it did not is told where it
    /// was tried.
    pub(crate) fn keyring_refreshed(&self, failed: bool) {
        let metrics = [Metric::count("KeyringRefreshes", 1), Metric::count("KeyringFailures", failed.into())];
        self.log.line(&"the signing keys were read again", &json!({}), &metrics);
    }

    /// Counts a request that was answered as if there were nothing here, or that was no POST.
    pub(crate) fn rejected(&self) {
        let mut turned_away = self.turned_away();
        turned_away.rejected = turned_away.rejected.saturating_add(1);
        drop(turned_away);
        self.tell_if_due();
    }

    /// Counts a request that could be neither believed nor refused, because the signing keys cannot be read.
    pub(crate) fn unverified(&self) {
        let mut turned_away = self.turned_away();
        turned_away.unverified = turned_away.unverified.saturating_add(1);
        drop(turned_away);
        self.tell_if_due();
    }

    /// Tells of what was turned away, if there was anything and it is time to. Only a request makes us look: between
    /// requests Lambda stops the clock.
    pub(crate) fn tell_if_due(&self) {
        let mut turned_away = self.turned_away();
        let TurnedAway { rejected, unverified, told_at } = *turned_away;
        if (rejected, unverified) == (0, 0) || told_at.is_some_and(|told_at| told_at.elapsed() < INTERVAL) {
            return;
        }
        *turned_away = TurnedAway { told_at: Some(Instant::now()), ..TurnedAway::default() };
        drop(turned_away);
        let metrics = [Metric::count("Rejected", rejected), Metric::count("Unverified", unverified)];
        let message = format!(
            "turned away since the last such line: {rejected} without a valid address and signature, or no POST; \
             {unverified} while the signing keys could not be read"
        );
        self.log.line(&message, &json!({}), &metrics);
    }

    fn turned_away(&self) -> MutexGuard<'_, TurnedAway> {
        // Nothing that could panic runs under the lock.
        self.turned_away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
