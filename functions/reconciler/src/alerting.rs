//! Sends alerts: when a problem begins, when it is over, and how a test went that somebody asked for.

use futures_util::future::join_all;
use lambda_support::{
    BoxError,
    topic::{Topic, is_refused_for_good},
};
use shared::alerts::{message::AlertMessage, notification::Notification, state::Outcome};
use time::OffsetDateTime;

use crate::report::Report;

/// Sends the alerts of an outcome, and takes back what people could not be alerted of: the next run does. An alert that SNS
/// refuses for good is an error of this run alone.
///
/// # Errors
///
/// The first reason why an alert was not accepted.
pub(crate) async fn send(topic: &impl Topic<AlertMessage>, outcome: &mut Outcome) -> Result<(), BoxError> {
    let alerts = std::mem::take(&mut outcome.alerts);
    // All are tried, whatever becomes of the others.
    let sent = join_all(alerts.iter().map(|alert| topic.publish(alert.notification.clone().into()))).await;
    let mut first = None;
    for (alert, result) in alerts.iter().zip(sent) {
        let Err(error) = result else { continue };
        let is_for_good = is_refused_for_good(&error);
        if !is_for_good {
            outcome.undo(alert);
        }
        // One that the next run repeats says more of what is wrong.
        if first.as_ref().is_none_or(|first| is_refused_for_good(first) && !is_for_good) {
            first = Some(error);
        }
    }
    first.map_or(Ok(()), Err)
}

/// Sends an alert about how a test went.
///
/// # Errors
///
/// SNS failed.
pub(crate) async fn send_test(topic: &impl Topic<AlertMessage>, report: &Report) -> Result<(), BoxError> {
    let outcome = report.text.lines().last().unwrap_or_default();
    let notification = Notification::test(outcome.trim_end_matches('.'), &report.text, OffsetDateTime::now_utc());
    topic.publish(notification.into()).await
}
