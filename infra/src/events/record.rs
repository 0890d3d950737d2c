//! One event, and what became of it.

use clap::ValueEnum;
use serde::Serialize;
use shared::{
    events::{
        delivery_log::{self, AlertOutcome},
        id::EventId,
    },
    timestamp::Timestamp,
};

/// Result of an event. The later ones are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The signing keys could not be read. It may or may not be genuine.
    Unverified,
    /// SNS did not accept it.
    Undelivered,
    /// SNS accepts no message of this size.
    TooLarge,
    /// Tableau repeated a delivery that was published before.
    Duplicate,
    /// Tableau did not deliver it. The reconciler published it from a job.
    Recovered,
    /// SNS accepted it.
    Published,
}

/// The origin of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A delivery of Tableau.
    Webhook,
    /// A job of Tableau, read by the reconciler.
    Job,
}

/// One event, however many attempts it took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// When it arrived first, or was published from a job.
    pub at: Timestamp,
    /// Name of the site.
    pub site: String,
    /// The event that it is published as.
    pub event: String,
    /// Its identifier. That of an unverified delivery follows from what it claims to be.
    pub event_id: EventId,
    /// Tableau's identifier of the resource.
    pub resource_id: Option<String>,
    /// At most 80 characters of the resource's name.
    pub resource_name: Option<String>,
    /// The best result of all attempts.
    pub outcome: Outcome,
    /// The best result of the alert, if the event has one.
    pub alert: Option<AlertOutcome>,
    /// Why the event is not published, or the alert is not sent.
    pub error: Option<String>,
    /// Milliseconds until SNS accepted it.
    pub latency_ms: Option<u64>,
    /// Seconds from the end of its job until it was published.
    pub delay_s: Option<u64>,
    /// How often it was tried.
    pub attempts: u32,
    /// Its origin.
    pub source: Source,
    /// Tableau's identifier of the job.
    pub job: Option<String>,
}

impl From<delivery_log::Outcome> for Outcome {
    fn from(outcome: delivery_log::Outcome) -> Self {
        match outcome {
            delivery_log::Outcome::Published => Self::Published,
            delivery_log::Outcome::Duplicate => Self::Duplicate,
            delivery_log::Outcome::TooLarge => Self::TooLarge,
            delivery_log::Outcome::Undelivered => Self::Undelivered,
        }
    }
}

impl Outcome {
    /// Whether SNS has the event.
    pub fn is_published(self) -> bool {
        matches!(self, Self::Published | Self::Recovered | Self::Duplicate)
    }

    /// Whether `cargo infra replay` may publish the event.
    pub fn is_replayable(self) -> bool {
        matches!(self, Self::Undelivered | Self::Unverified)
    }

    /// Returns its name on the command line and in JSON.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Ranks results of an alert. The later ones are better.
fn rank(alert: AlertOutcome) -> u8 {
    match alert {
        AlertOutcome::Failed => 0,
        AlertOutcome::Duplicate => 1,
        AlertOutcome::Sent => 2,
    }
}

impl Record {
    /// Whether both are about the same resource of a site.
    pub fn has_resource_of(&self, other: &Self) -> bool {
        self.site == other.site && self.resource_id.is_some() && self.resource_id == other.resource_id
    }

    /// Adds a later attempt.
    pub(super) fn add(&mut self, later: Self) {
        self.outcome = self.outcome.max(later.outcome);
        self.alert = [self.alert, later.alert].into_iter().flatten().max_by_key(|alert| rank(*alert));
        self.attempts = self.attempts.saturating_add(later.attempts);
        self.latency_ms = self.latency_ms.or(later.latency_ms);
        let is_settled = self.outcome.is_published() && self.alert != Some(AlertOutcome::Failed);
        self.error = later.error.or(self.error.take()).filter(|_| !is_settled);
    }
}
