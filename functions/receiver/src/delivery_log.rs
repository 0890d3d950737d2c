//! The receiver's log: a line for each delivery, and one a minute for all requests that were turned away.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lambda_support::metrics::{Metric, MetricLog};
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
use tracing::Level;

/// How often requests that were turned away are logged: anyone can send any number of them, and each line is paid for.
const INTERVAL: Duration = Duration::from_secs(60);

/// The sentence of a line about them. Its metrics have the numbers.
const TURNED_AWAY: &str =
    "Requests turned away, and reads of the signing keys because of them, since the last such line";

/// The receiver's log.
#[derive(Debug)]
pub struct DeliveryLog {
    log: MetricLog,
    turned_away: Mutex<TurnedAway>,
    budget: Mutex<RecordBudget>,
    /// Start of the time that the budget is given.
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
    /// The keyring was found, went missing or became unreadable, which is logged at once.
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
    /// Creates a delivery log that is written to `log`.
    pub fn new(log: MetricLog) -> Self {
        Self { log, turned_away: Mutex::default(), budget: Mutex::default(), created_at: Instant::now() }
    }

    /// Logs a delivery. `latency` is the duration of its publishes, if there were any.
    pub(crate) fn delivery(&self, record: &DeliveryRecord, latency: Option<Duration>) {
        let one = |name| Metric::count(name, 1);
        let (level, outcome) = match record.outcome {
            Outcome::Published => (Level::INFO, "Published"),
            Outcome::Duplicate => (Level::INFO, "Duplicates"),
            Outcome::TooLarge => (Level::ERROR, "TooLarge"),
            Outcome::Undelivered => (Level::ERROR, "Undelivered"),
        };
        let kind = match record.event.as_str() {
            TEST => Some(one("Tests")),
            UNRECOGNIZED => Some(one("Unrecognized")),
            _ => None,
        };
        let contradiction = record.payload_event.is_some().then(|| one("Contradictions"));
        let failures = u32::from(record.error.is_some()) + u32::from(record.alert_error.is_some());
        let failures = (record.outcome == Outcome::Undelivered).then(|| Metric::count("PublishFailures", failures));
        let latency = latency.map(|latency| Metric::milliseconds("PublishLatency", latency));
        let metrics = [Some(one(outcome)), kind, contradiction, failures, latency];
        let metrics: Vec<_> = metrics.into_iter().flatten().collect();
        self.log.line(level, record.message(), record, &metrics);
    }

    /// Counts a read of the signing keys because of a signature that none of them made. A changed result is logged with
    /// the request that caused the read.
    pub(crate) fn keyring_read(&self, error: Option<String>, is_change: bool) {
        let mut turned_away = self.turned_away();
        count(&mut turned_away.keyring_reads);
        turned_away.is_urgent |= is_change;
        if error.is_some() {
            count(&mut turned_away.keyring_failures);
            turned_away.keyring_error = error;
        }
    }

    /// Counts a request that was answered 404 or 405.
    pub(crate) fn rejected(&self) {
        count(&mut self.turned_away().rejected);
        self.log_turned_away();
    }

    /// Counts a request that could be neither verified nor rejected, because the signing keys cannot be read. The body of
    /// a delivery is recorded within the budget, so that it can be verified later.
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
        // No code under the lock can panic.
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let is_enough = budget.take(&record, self.created_at.elapsed());
        drop(budget);
        if is_enough {
            self.log.line(Level::ERROR, Some(UnverifiedRecord::MESSAGE), &record, &[]);
        }
        is_enough
    }

    /// Logs the requests that were turned away, when a line is due. Each request checks that: Lambda stops the
    /// environment between requests.
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
        let level = if keyring_failures > 0 { Level::WARN } else { Level::INFO };
        let fields = keyring_error.map_or_else(|| json!({}), |error| json!({ "error": error }));
        let metrics = metrics.map(|(name, value)| Metric::count(name, value));
        self.log.line(level, Some(TURNED_AWAY), &fields, &metrics);
    }

    fn turned_away(&self) -> MutexGuard<'_, TurnedAway> {
        // No code under the lock can panic.
        self.turned_away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(number: &mut u32) {
    *number = number.saturating_add(1);
}
