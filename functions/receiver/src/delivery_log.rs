//! The receiver's log: a line for each delivery, and one a minute for all that was turned away.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lambda_support::metrics::{Metric, MetricLog, Unit};
use serde_json::json;
use shared::{
    events::{
        delivery::{TEST, UNRECOGNIZED},
        delivery_log::{DeliveryRecord, Outcome},
        unverified::{RecordBudget, UnverifiedRecord},
    },
    registration::claim::Claim,
};
use tokio::time::Instant;

/// How often there is a line about requests that were turned away: strangers can send as many as they like, and each
/// line is paid for.
const INTERVAL: Duration = Duration::from_secs(60);

/// The receiver's log.
#[derive(Debug)]
pub struct DeliveryLog {
    log: MetricLog,
    turned_away: Mutex<TurnedAway>,
    budget: Mutex<RecordBudget>,
    /// The moment that the budget counts from.
    created_at: Instant,
}

/// Requests that were turned away, and reads of the keyring that they caused, since the last line about them.
#[derive(Debug, Default)]
struct TurnedAway {
    rejected: u32,
    unverified: u32,
    /// Deliveries among the unverified that were not recorded.
    unrecorded: u32,
    keyring_reads: u32,
    keyring_failures: u32,
    /// The last of the failures.
    keyring_error: Option<String>,
    /// The keyring was found, went missing or became unreadable: not to be kept for a minute.
    is_urgent: bool,
    logged_at: Option<Instant>,
}

impl TurnedAway {
    fn is_due(&self) -> bool {
        let is_empty = (self.rejected, self.unverified, self.keyring_reads) == (0, 0, 0);
        !is_empty && (self.is_urgent || self.logged_at.is_none_or(|logged_at| logged_at.elapsed() >= INTERVAL))
    }
}

impl DeliveryLog {
    /// A delivery log that is written to `log`.
    pub fn new(log: MetricLog) -> Self {
        Self { log, turned_away: Mutex::default(), budget: Mutex::default(), created_at: Instant::now() }
    }

    /// Logs a delivery. `latency` is how long its publishes took, if there were any.
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

    /// Counts a read of the signing keys because of a signature that none of them made. Its outcome is logged with the
    /// request that caused it if it is another than before.
    pub(crate) fn keyring_read(&self, error: Option<String>, is_change: bool) {
        let mut turned_away = self.turned_away();
        count(&mut turned_away.keyring_reads);
        turned_away.is_urgent |= is_change;
        if error.is_some() {
            count(&mut turned_away.keyring_failures);
            turned_away.keyring_error = error;
        }
    }

    /// Counts a request that was answered as if there were nothing here, or that was no POST.
    pub(crate) fn rejected(&self) {
        count(&mut self.turned_away().rejected);
        self.log_turned_away();
    }

    /// Counts a request that could be neither verified nor rejected, because the signing keys cannot be read. If it is a
    /// delivery, its body is recorded, within the budget, so that it can be verified later.
    pub(crate) fn unverified(&self, claim: &Claim, delivered: Option<&[u8]>) {
        let is_recorded = delivered.is_none_or(|body| self.record_unverified(claim, body));
        let mut turned_away = self.turned_away();
        count(&mut turned_away.unverified);
        if !is_recorded {
            count(&mut turned_away.unrecorded);
        }
        drop(turned_away);
        self.log_turned_away();
    }

    /// Records a delivery, and returns whether there was room for it.
    fn record_unverified(&self, claim: &Claim, body: &[u8]) -> bool {
        let Some(record) = UnverifiedRecord::of(claim, body) else { return false };
        // Nothing that could panic runs under the lock.
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let is_enough = budget.take(&record, self.created_at.elapsed());
        drop(budget);
        if is_enough {
            self.log.line(&record, &record, &[]);
        }
        is_enough
    }

    /// Logs what was turned away, if there was anything and it is time to. Only a request makes us look: between requests
    /// Lambda stops the clock.
    pub(crate) fn log_turned_away(&self) {
        let mut turned_away = self.turned_away();
        if !turned_away.is_due() {
            return;
        }
        let logged_at = Some(Instant::now());
        let last = std::mem::replace(&mut *turned_away, TurnedAway { logged_at, ..TurnedAway::default() });
        drop(turned_away);
        let TurnedAway { rejected, unverified, unrecorded, keyring_reads, keyring_failures, keyring_error, .. } = last;
        let metrics = [
            ("Rejected", rejected),
            ("Unverified", unverified),
            ("Unrecorded", unrecorded),
            ("KeyringRefreshes", keyring_reads),
            ("KeyringFailures", keyring_failures),
        ];
        let message = format!(
            "since the last such line: {rejected} requests without a valid address and signature, or no POST; \
             {unverified} while the signing keys could not be read, of which {unrecorded} deliveries were not recorded; \
             the signing keys were read {keyring_reads} times, {keyring_failures} of them in vain"
        );
        let fields = keyring_error.map_or_else(|| json!({}), |error| json!({ "keyring_error": error }));
        self.log.line(&message, &fields, &metrics.map(|(name, value)| Metric::count(name, value)));
    }

    fn turned_away(&self) -> MutexGuard<'_, TurnedAway> {
        // Nothing that could panic runs under the lock.
        self.turned_away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(number: &mut u32) {
    *number = number.saturating_add(1);
}
