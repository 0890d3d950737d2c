//! Outcomes of messages in one invocation.

use std::time::Duration;

use delivery::render::RenderError;
use lambda_support::error_chain;
use shared::targets::answer::{Attempt, Judgement, TargetAnswer};
use time::OffsetDateTime;

use crate::batch::Record;

/// The end of a message in this invocation.
#[derive(Debug)]
pub(crate) enum Outcome {
    Forwarded,
    NotSelected,
    /// It is sent again, after this wait.
    Again {
        wait: Duration,
        error: String,
    },
    /// There was no time to send it. It returns after this wait.
    Postponed(Duration),
    Dead {
        error: String,
    },
}

/// The reason for a message that is not sent.
pub(crate) enum Unsent {
    NotSelected,
    /// Somebody may remove the reason.
    ForNow(String),
    ForGood(String),
}

/// An outcome, the event or alert, and the target's HTTP status, as far as there are any.
pub(crate) struct Handled {
    pub(crate) outcome: Outcome,
    pub(crate) event_id: Option<String>,
    pub(crate) status: Option<u16>,
}

impl From<RenderError> for Unsent {
    fn from(error: RenderError) -> Self {
        let text = error_chain(&error);
        // Another entry does not make it smaller.
        if matches!(error, RenderError::TooLarge { .. }) { Self::ForGood(text) } else { Self::ForNow(text) }
    }
}

impl Unsent {
    /// Returns the outcome of a message that was not sent. One that may be sent later is sent again as if the target had not
    /// answered.
    pub(crate) fn outcome(&self, record: &Record) -> Outcome {
        let error = match self {
            Self::NotSelected => return Outcome::NotSelected,
            Self::ForGood(error) => return Outcome::Dead { error: error.clone() },
            Self::ForNow(error) => error.clone(),
        };
        match attempt(record).judge(&TargetAnswer::NoAnswer("the message was not sent"), false) {
            Judgement::Again { wait, .. } => Outcome::Again { wait, error },
            Judgement::Delivered | Judgement::Never { .. } => Outcome::Dead { error },
        }
    }
}

impl Outcome {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::NotSelected => "not selected",
            Self::Again { .. } => "again",
            Self::Postponed(_) => "postponed",
            Self::Dead { .. } => "dead letter",
        }
    }

    pub(crate) fn wait(&self) -> Option<Duration> {
        match self {
            Self::Again { wait, .. } | Self::Postponed(wait) => Some(*wait),
            Self::Forwarded | Self::NotSelected | Self::Dead { .. } => None,
        }
    }

    pub(crate) fn error(&self) -> Option<&str> {
        match self {
            Self::Again { error, .. } | Self::Dead { error } => Some(error),
            Self::Forwarded | Self::NotSelected | Self::Postponed(_) => None,
        }
    }
}

impl Handled {
    /// A message whose text is not known.
    pub(crate) fn unread(outcome: Outcome) -> Self {
        Self { outcome, event_id: None, status: None }
    }
}

/// Returns the attempt to send a message that ends now.
pub(crate) fn attempt(record: &Record) -> Attempt {
    // Without randomness all waits are equal, which is still a wait.
    let jitter = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
    Attempt { tries: record.tries(), sent_at: record.sent_at(), now: OffsetDateTime::now_utc(), jitter }
}
