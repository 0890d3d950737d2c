//! Sends alerts: when a problem begins, when it is over, and how a requested test went.

use futures_util::future::join_all;
use lambda_support::topic::{Topic, TopicError};
use shared::alerts::{
    message::AlertMessage, notification::Notification, phrasing::pluralize, state::AlertPlan, text::plain,
};
use time::OffsetDateTime;

use crate::report::{Report, SiteReport};

/// Sends the alerts of a plan, and notes which were sent. The next run sends the others, unless SNS refuses them for good.
///
/// # Errors
///
/// The first reason why SNS did not accept an alert; rather one that the next run sends again.
pub(crate) async fn send(topic: &impl Topic<AlertMessage>, plan: &mut AlertPlan) -> Result<(), TopicError> {
    let alerts = std::mem::take(&mut plan.alerts);
    // All are tried, even if some fail.
    let sent = join_all(alerts.iter().map(|alert| topic.publish(alert.notification.clone().into()))).await;
    let mut first: Option<TopicError> = None;
    for (alert, result) in alerts.iter().zip(sent) {
        let error = result.err();
        let is_for_good = error.as_ref().is_some_and(TopicError::is_for_good);
        if error.is_none() || is_for_good {
            plan.confirm(alert);
        }
        if first.as_ref().is_none_or(|first| first.is_for_good() && !is_for_good) {
            first = error.or(first);
        }
    }
    first.map_or(Ok(()), Err)
}

/// Sends an alert about how a test went.
///
/// # Errors
///
/// SNS failed.
pub(crate) async fn send_test(topic: &impl Topic<AlertMessage>, report: &Report) -> Result<(), TopicError> {
    let outcome = report.text.lines().last().unwrap_or_default();
    let notification =
        Notification::test(outcome.trim_end_matches('.'), &sites_in_short(report), OffsetDateTime::now_utc());
    topic.publish(notification.into()).await
}

/// Formats each site in a line: the first problem with its fix, or the number of tests.
fn sites_in_short(report: &Report) -> String {
    let line = |SiteReport { site, tests, errors, .. }: &SiteReport| match errors.first() {
        Some(problem) => {
            format!("{}: {}. {} {}", plain(site), problem.kind.headline(), plain(&problem.what), plain(&problem.remedy))
        }
        None => {
            format!("{}: {} tested", plain(site), pluralize(tests.len(), "webhook", "webhooks"))
        }
    };
    report.sites.iter().map(line).collect::<Vec<_>>().join("\n")
}
