//! Progress of the recovery of missed refreshes.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use shared::{refreshes::state::RefreshState, state::SiteState, timestamp::Timestamp};
use time::OffsetDateTime;

use crate::{aws::Aws, log, stack::Stack, state_table::StoredSites};

/// Parameter of the template with the lookback of the recovery.
const SETTING: &str = "RecoverHours";

/// The most lines about refreshes that were not recovered.
const MAX_LINES: usize = 5;

/// Formats the stored state, with the setting and the log of the last `lookback`. None of them has a secret.
///
/// # Errors
///
/// A command fails.
pub(super) async fn lines(
    aws: &Aws,
    stack: &Stack,
    stored: &StoredSites,
    sites: &[String],
    lookback: Duration,
) -> anyhow::Result<Vec<String>> {
    let hours = stack.setting(SETTING);
    if hours == Some("0") {
        return Ok(vec![format!(
            "off ({SETTING} is 0): missed refreshes are not recovered, and failures are not explained"
        )]);
    }
    let mut lines = Vec::new();
    lines.extend(hours.map(|hours| format!("on: looks back {hours} h ({SETTING})")));
    lines.extend(state_lines(stored, sites));
    let since = OffsetDateTime::now_utc() - lookback;
    let dropped = log::lines(aws, stack.output("ReconcilerName")?, since, "{ $.not_recovered[0].reason = * }").await?;
    lines.extend(not_recovered_lines(&dropped, lookback));
    Ok(lines)
}

/// Formats the progress of each site and its outages.
fn state_lines(stored: &StoredSites, sites: &[String]) -> Vec<String> {
    let (mut watermarks, mut new, mut lines) = (BTreeMap::<_, Vec<&str>>::new(), Vec::new(), Vec::new());
    for name in sites {
        let state = match stored.states.get(name) {
            Some(Some(SiteState { refreshes: Some(state), .. })) => state,
            Some(None) => {
                lines.push(format!(
                    "{name}: its state cannot be read; the next run starts again and reports which refreshes may be missing"
                ));
                continue;
            }
            Some(Some(_)) | None => {
                new.push(name.as_str());
                continue;
            }
        };
        watermarks.entry(state.watermark()).or_default().push(name);
        lines.extend(outage_lines(name, state));
        if let count @ 1.. = state.unreadable_count() {
            lines.push(format!("{name}: jobs that could not be read and are retried: {count}"));
        }
    }
    let mut all: Vec<_> = watermarks
        .into_iter()
        .map(|(at, sites)| format!("jobs until {} are published: {}", Timestamp(at), sites.join(", ")))
        .collect();
    if !new.is_empty() {
        all.push(format!("not read yet: {}", new.join(", ")));
    }
    all.extend(lines);
    all
}

/// Formats the outages of a site whose refreshes are not recovered yet.
fn outage_lines(name: &str, state: &RefreshState) -> Vec<String> {
    let mut events = BTreeMap::<_, Vec<&str>>::new();
    for outage in state.outages() {
        events.entry((outage.from, outage.until)).or_default().push(outage.event.as_str());
    }
    let line = |((from, until), events): ((Timestamp, Option<Timestamp>), Vec<&str>)| {
        let until = until.map_or("now".to_owned(), |until| until.to_string());
        format!("{name}: {} missed from {from} until {until}, not recovered yet", events.join(", "))
    };
    events.into_iter().map(line).collect()
}

/// Formats the refreshes that were dropped, by site, newest first.
fn not_recovered_lines(lines: &Value, lookback: Duration) -> Vec<String> {
    let within = format!("in the last {} h", lookback.as_secs() / 3600);
    let mut dropped: Vec<_> = log::in_json(lines).filter(|(_, line)| line["not_recovered"].is_array()).collect();
    if dropped.is_empty() {
        return vec![format!("not recovered {within}: none")];
    }
    dropped.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let more = dropped.len().saturating_sub(MAX_LINES);
    let named = dropped.iter().take(MAX_LINES).map(|(at, line)| {
        let items = line["not_recovered"].as_array().map_or(&[][..], Vec::as_slice);
        let first = &items[0];
        let which = first["job"].as_str().map_or("refreshes".to_owned(), |job| format!("job {job}"));
        let reason = first["reason"].as_str().unwrap_or_default();
        let others = if items.len() > 1 { format!(", and {} more", items.len() - 1) } else { String::new() };
        let site = line["site"].as_str().unwrap_or_default();
        format!("not recovered, {} {site}: {which}: {reason}{others}", Timestamp(*at))
    });
    let mut named: Vec<_> = named.collect();
    if more > 0 {
        named.push(format!("not recovered {within}: {more} more lines in the log"));
    }
    named
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use shared::{events::catalogue::Event, refreshes::window::Clock};
    use time::{Duration as Time, macros::datetime};

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-05-21 08:00:00 UTC);

    #[test]
    fn the_state_of_each_site_is_formatted_in_few_lines() -> anyhow::Result<()> {
        let wanted: BTreeSet<Event> = ["WorkbookRefreshFailed".parse()?, "WorkbookRefreshSucceeded".parse()?].into();
        let clock = Clock { now: NOW, skew: None };
        let healthy = RefreshState::new(clock, &wanted);
        let mut missed = healthy.clone();
        let later = Clock { now: NOW + Time::minutes(15), skew: None };
        missed.note_outages(Some(NOW), later, &wanted, &BTreeSet::new(), &wanted);
        missed.note_unreadable("j1", NOW);
        let of =
            |refreshes: &RefreshState| Some(SiteState { refreshes: Some(refreshes.clone()), ..SiteState::default() });
        let stored = [("finance", of(&healthy)), ("marketing", of(&missed)), ("odd", None), ("sales", of(&healthy))];
        let states = stored.map(|(name, state)| (name.to_owned(), state)).into();
        let stored = StoredSites { states, ..StoredSites::default() };
        let sites = ["finance", "marketing", "new", "odd", "sales"].map(str::to_owned);
        let expected = [
            "jobs until 2026-05-21T07:55:00Z are published: finance, marketing, sales",
            "not read yet: new",
            "marketing: WorkbookRefreshFailed, WorkbookRefreshSucceeded missed from 2026-05-21T07:55:00Z until now, not \
             recovered yet",
            "marketing: jobs that could not be read and are retried: 1",
            "odd: its state cannot be read; the next run starts again and reports which refreshes may be missing",
        ];
        assert_eq!(state_lines(&stored, &sites), expected);
        Ok(())
    }

    #[test]
    fn a_refresh_that_was_not_recovered_is_named_with_its_reason() {
        let line = |site: &str, reasons: &[&str]| {
            let items: Vec<_> = reasons.iter().map(|reason| json!({ "job": "j1", "reason": reason })).collect();
            json!({ "message": "dropped", "site": site, "not_recovered": items }).to_string()
        };
        let mut lines = vec![
            json!([1000, line("finance", &["it is odd", "it is odder"])]),
            json!([2000, "START"]),
            json!([3000, json!({ "site": "sales", "not_recovered": [{ "reason": "too long ago" }] }).to_string()]),
        ];
        let day = Duration::from_secs(24 * 3600);
        let expected = [
            "not recovered, 1970-01-01T00:00:03Z sales: refreshes: too long ago",
            "not recovered, 1970-01-01T00:00:01Z finance: job j1: it is odd, and 1 more",
        ];
        assert_eq!(not_recovered_lines(&json!(lines), day), expected);
        lines.extend((0..5).map(|at| json!([at, line("marketing", &["it is odd"])])));
        let output = not_recovered_lines(&json!(lines), day);
        assert_eq!((output.len(), &*output[5]), (6, "not recovered in the last 24 h: 2 more lines in the log"));
        assert_eq!(not_recovered_lines(&json!([]), day), ["not recovered in the last 24 h: none"]);
    }
}
