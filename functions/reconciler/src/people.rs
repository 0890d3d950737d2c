//! Telling people: once when a trouble comes, once when it is gone, and how a test that they asked for went.

use std::collections::BTreeSet;

use common::topic::{Topic, is_refused_for_good};
use futures_util::future::join_all;
use shared::{
    alert::AlertMessage,
    notice::Notice,
    told::{Findings, Told},
};
use time::OffsetDateTime;

use crate::{
    BoxError,
    parameters::Parameters,
    report::{Report, SiteReport},
};

/// What people were told of, as the parameter has it. One that cannot be read as what it should be is as good as lost:
/// whatever is in trouble is told of again.
///
/// # Errors
///
/// SSM does not give it.
pub(crate) async fn told(parameters: &impl Parameters) -> Result<Told, BoxError> {
    let Some(stored) = parameters.told().await? else { return Ok(Told::default()) };
    Ok(Told::parse(&stored).unwrap_or_else(|error| {
        let error = &error as &(dyn std::error::Error + 'static);
        tracing::warn!(error, "what people were told of cannot be read, so that they may be told again");
        Told::default()
    }))
}

/// Tells people what is new, and remembers it. What could not be told is told by the next run: it is remembered only
/// afterwards. An alert that SNS refuses for good is an error of this run alone.
///
/// # Errors
///
/// SNS or SSM failed.
pub(crate) async fn tell_troubles(
    parameters: &impl Parameters,
    alerts: &impl Topic<AlertMessage>,
    told: Told,
    declared: &BTreeSet<String>,
    report: &Report,
) -> Result<(), BoxError> {
    let is_declared = |site: &&SiteReport| declared.contains(&site.site);
    let found = Findings {
        declared: declared.iter().map(String::as_str).collect(),
        visited: report.sites.iter().filter(|site| site.was_visited).map(|site| site.site.as_str()).collect(),
        // A site that somebody asked for by name and that is declared nowhere is in nobody's care.
        troubles: report.sites.iter().filter(is_declared).flat_map(SiteReport::troubles).collect(),
    };
    let now = OffsetDateTime::now_utc();
    let (after, notices) = told.clone().after(&found, now);
    // All are tried, whatever becomes of the others.
    let published = join_all(notices.into_iter().map(|notice| alerts.publish(notice.into()))).await;
    let errors = published.into_iter().filter_map(Result::err);
    // Otherwise each run would repeat the other alerts.
    let (refused, failed): (Vec<_>, Vec<_>) = errors.partition(is_refused_for_good);
    let after = if failed.is_empty() { after } else { told.clone().after_telling_nobody(&found, now) };
    if after != told {
        parameters.store_told(&after.to_stored()).await?;
    }
    failed.into_iter().chain(refused).next().map_or(Ok(()), Err)
}

/// Tells people how a test went.
///
/// # Errors
///
/// SNS failed.
pub(crate) async fn tell_test(alerts: &impl Topic<AlertMessage>, report: &Report) -> Result<(), BoxError> {
    let outcome = report.text.lines().last().unwrap_or_default();
    let notice = Notice::test(outcome.trim_end_matches('.'), &report.text, OffsetDateTime::now_utc());
    alerts.publish(notice.into()).await
}
