use anyhow::Context;
use clap::Parser;
use serde_json::json;
use shared::{
    events::{
        delivery::Delivery,
        delivery_log::{self, AlertOutcome, DeliveryRecord, Publication},
        unverified::UnverifiedRecord,
    },
    registration::{
        claim::{Claim, Registration},
        keyring::{KEY_BYTES, Keyring},
        signed_url::ReceiverUrl,
    },
};
use time::{Duration, macros::datetime};

use super::*;
use crate::events::{record::Source, rendering::assumed};

const NOW: OffsetDateTime = datetime!(2026-05-21 08:00 UTC);

fn registration(event: &str) -> anyhow::Result<Registration> {
    Ok(Registration { site: "marketing".parse()?, event: event.parse()? })
}

/// Formats a line of the AWS CLI, with the seconds since an hour before now.
fn line(second: i64, mut record: Value, more: Value) -> Value {
    let at = NOW - Duration::HOUR + Duration::seconds(second);
    if let (Some(members), Value::Object(more)) = (record.as_object_mut(), more) {
        members.extend(more);
    }
    json!([at.unix_timestamp() * 1000, record.to_string()])
}

/// Returns the record of a delivery.
fn delivered(event: &str, body: &str, outcome: delivery_log::Outcome) -> anyhow::Result<DeliveryRecord> {
    let verified = assumed(&registration(event)?)?;
    let delivery = Delivery::read(&verified, body.as_bytes());
    let is_published = outcome == delivery_log::Outcome::Published;
    let alert = (event == "WorkbookRefreshFailed").then_some(AlertOutcome::Failed).filter(|_| !is_published);
    let error = (!is_published).then(|| "SNS is not available".to_owned());
    let publication = Publication { outcome, alert, error: error.clone(), alert_error: None };
    Ok(DeliveryRecord::of(&delivery, delivery.id("request"), publication))
}

fn unverified(event: &str, body: &str) -> anyhow::Result<Value> {
    let root = "https://receiver.example";
    let receiver = ReceiverUrl::parse(root).context("a URL")?;
    let url = registration(event)?.signed_url(&receiver, &Keyring::of([8; KEY_BYTES]));
    let claim = url.expose().strip_prefix(root).and_then(Claim::parse).context("a claim")?;
    Ok(json!(UnverifiedRecord::of(&claim, body.as_bytes()).context("too large")?))
}

/// Returns the line of an event about the resource `99`.
fn of_resource(second: i64, event: &str, id: u128, more: Value) -> Value {
    let record = json!({ "site": "marketing", "event": event, "event_id": format!("{id:032x}"), "resource_id": "99",
        "outcome": "published" });
    line(second, record, more)
}

/// Returns the line of an event from a job, about the resource `99`.
fn of_job(second: i64, event: &str, id: u128, recovered: bool) -> Value {
    of_resource(second, event, id, json!({ "recovered": recovered, "job_id": "a1b2", "delay_s": 61 }))
}

/// Returns the identifiers of the failure, the explanation and the resolution that belong to an event.
fn related(history: &History, id: u128) -> anyhow::Result<[Option<u128>; 3]> {
    let story = history.story(format!("{id:032x}").parse()?, NOW)?.context("no story")?;
    let id = |record: Option<Record>| u128::from_str_radix(&record?.event_id.to_string(), 16).ok();
    Ok([story.failure, story.explanation, story.resolution].map(id))
}

fn history(receiver: &[Value], reconciler: &[Value], forwarder: &[Value]) -> History {
    let lines = Lines { receiver: json!(receiver), reconciler: json!(reconciler), forwarder: json!(forwarder) };
    History::of("test", NOW - Duration::DAY, &lines, DeliveryAlerts::default())
}

fn outcomes(history: &History) -> Vec<(&str, Outcome, u32)> {
    history.records.iter().map(|record| (&*record.event, record.outcome, record.attempts)).collect()
}

#[test]
fn all_attempts_of_an_event_are_one_record_with_the_best_outcome() -> anyhow::Result<()> {
    use delivery_log::Outcome::{Duplicate, Published, Undelivered};
    let body = r#"{"resource_luid":"99","resource_name":"Sales"}"#;
    let attempt = |second, outcome, latency| {
        anyhow::Ok(line(second, json!(delivered("ViewDeleted", body, outcome)?), json!({ "PublishLatency": latency })))
    };
    let lines = [
        attempt(30, Duplicate, Value::Null)?,
        attempt(0, Undelivered, json!(900))?,
        attempt(10, Undelivered, json!(901))?,
        attempt(20, Published, json!(18))?,
    ];
    let of_all = history(&lines, &[], &[]);
    let record = &of_all.records[0];
    assert_eq!(outcomes(&of_all), [("ViewDeleted", Outcome::Published, 4)]);
    assert_eq!((record.latency_ms, &record.error, record.source), (Some(18), &None, Source::Webhook));
    assert_eq!(record.at.0, NOW - Duration::HOUR);
    assert!(of_all.undelivered.contains_key(&record.event_id) && of_all.replay(record, NOW).is_none());
    assert!(of_all.story(record.event_id, NOW)?.context("no story")?.undelivered.is_none());

    let failed = history(&lines[1..3], &[], &[]);
    let record = &failed.records[0];
    assert_eq!((record.outcome, record.latency_ms), (Outcome::Undelivered, None));
    assert_eq!(record.error.as_deref(), Some("SNS is not available"));
    assert_eq!(outcomes(&history(&lines[..1], &[], &[])), [("ViewDeleted", Outcome::Duplicate, 1)]);
    Ok(())
}

#[test]
fn an_unverified_delivery_is_joined_to_the_attempt_that_was_verified() -> anyhow::Result<()> {
    let (seen, stranger) = (r#"{"resource_name":"Sales"}"#, r#"{"resource_name":"<b>"}"#);
    let published = json!(delivered("ViewDeleted", seen, delivery_log::Outcome::Published)?);
    let lines = [
        line(0, unverified("ViewDeleted", seen)?, Value::Null),
        line(5, published, Value::Null),
        line(6, unverified("ViewDeleted", stranger)?, Value::Null),
        line(9, unverified("ViewDeleted", stranger)?, Value::Null),
    ];
    let history = history(&lines, &[], &[]);
    let expected = [("ViewDeleted", Outcome::Unverified, 2), ("ViewDeleted", Outcome::Published, 2)];
    assert_eq!(outcomes(&history), expected);
    let story = history.story(history.records[0].event_id, NOW)?.context("no story")?;
    assert!(story.undelivered.is_none() && story.replay.is_some() && story.notes == [UNVERIFIED], "{story:?}");
    Ok(())
}

#[test]
fn lines_that_are_no_records_are_skipped_and_old_ones_are_read() {
    let id = "9c63a4d1032bb0ef67f67e5c34b46f43";
    // As the first releases wrote it.
    let old = json!({ "site": "marketing", "event": "ViewDeleted", "event_id": id, "outcome": "published" });
    let odd = [
        json!([1, "START RequestId: 1"]),
        json!([2, "{}"]),
        json!([3, r#"{"outcome":"unverified"}"#]),
        json!([4, r#"{"outcome":"unverified","site":"../x","event":"a b"}"#]),
        json!([5, r#"{"outcome":"published","event_id":"none"}"#]),
        json!(["x", 7]),
        json!(null),
    ];
    let lines = [&odd[..], &[line(0, old, Value::Null)]].concat();
    let history = history(&lines, &odd, &odd);
    assert_eq!(outcomes(&history), [("ViewDeleted", Outcome::Published, 1)]);
}

/// The options of a list.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    filter: Filter,
}

#[test]
fn events_are_selected_by_site_event_outcome_and_resource() -> anyhow::Result<()> {
    let body = r#"{"resource_luid":"5998aaaf","resource_name":"Umsätze Nord"}"#;
    let lines = [line(0, json!(delivered("ViewDeleted", body, delivery_log::Outcome::Published)?), Value::Null)];
    let history = history(&lines, &[of_job(5, "WorkbookRefreshFailed", 1, true)], &[]);
    for (options, expected) in [
        ("", 2),
        (" --site marketing", 2),
        (" --site market", 0),
        (" --site market --site marketing", 2),
        (" --event viewdeleted", 1),
        (" --event ViewDeleted --event WorkbookRefreshFailed", 2),
        (" --event View", 0),
        (" --outcome recovered", 1),
        (" --outcome published", 1),
        (" --resource UMSÄTZE", 1),
        (" --resource 99", 1),
        (" --resource 9", 0),
        (" --resource 5998", 0),
        (" --site marketing --event ViewDeleted --outcome published --resource nord", 1),
        (" --site marketing --event ViewDeleted --outcome recovered", 0),
    ] {
        let filter = Options::try_parse_from(format!("events{options}").split(' '))?.filter;
        let total = history.listing(&filter, 50, NOW).total;
        assert_eq!((total, &*filter.options().replace('\'', "")), (expected, options));
    }
    for invalid in ["--site=../x", "--event=a b", "--outcome=lost"] {
        assert!(Options::try_parse_from(["events", invalid]).is_err(), "{invalid}");
    }
    let listing = history.listing(&Filter::default(), 1, NOW);
    assert_eq!((listing.total, listing.events.len(), &*listing.events[0].event), (2, 1, "WorkbookRefreshFailed"));
    Ok(())
}

#[test]
fn the_plot_has_the_events_of_the_last_24_hours_in_half_hours() -> anyhow::Result<()> {
    let lines: anyhow::Result<Vec<_>> = [(0, 10), (10, 30), (20, 20)]
        .into_iter()
        .map(|(second, latency)| {
            let body = format!("{{\"n\":{second}}}");
            let record = json!(delivered("WorkbookRefreshFailed", &body, delivery_log::Outcome::Published)?);
            Ok(line(second, record, json!({ "PublishLatency": latency })))
        })
        .collect();
    let of_jobs = [of_job(3599, "RefreshFailureExplained", 1, false), of_job(-24 * 3600, "ViewDeleted", 2, false)];
    let history = history(&lines?, &of_jobs, &[]);
    let plot = history.listing(&Filter::default(), 0, NOW).plot;
    assert_eq!((plot.len(), plot[0].at.0, plot[47].at.0), (48, NOW - Duration::DAY, NOW - Duration::minutes(30)));
    let found: Vec<_> = plot.iter().map(|bin| (bin.events, bin.failures, bin.latency_ms)).collect();
    // An event at the border belongs to the half hour that it begins.
    assert_eq!(found[46..], [(3, 3, Some(20)), (1, 0, None)]);
    assert!(found[..46].iter().all(|bin| *bin == (0, 0, None)), "{found:?}");
    Ok(())
}

#[test]
fn a_failure_its_explanation_and_its_end_belong_together() -> anyhow::Result<()> {
    const FAILED: &str = "WorkbookRefreshFailed";
    const EXPLAINED: &str = "RefreshFailureExplained";
    const RESOLVED: &str = "RefreshFailureResolved";
    let mut other = of_job(5, EXPLAINED, 90, false);
    other[1] = json!(other[1].as_str().unwrap_or_default().replace("marketing", "finance"));
    let lines = [
        of_job(0, FAILED, 1, true),
        other,
        of_job(60, EXPLAINED, 2, false),
        of_job(100, FAILED, 3, true),
        of_job(160, EXPLAINED, 4, false),
        of_job(300, RESOLVED, 5, false),
        of_job(400, FAILED, 6, true),
        of_job(500, RESOLVED, 7, false),
        of_job(600, "ViewDeleted", 8, false),
    ];
    let history = history(&[], &lines, &[]);
    for (id, failure, explanation, resolution) in [
        (1, None, Some(2), Some(5)),
        (2, Some(1), None, Some(5)),
        (3, None, Some(4), Some(5)),
        (4, Some(3), None, Some(5)),
        (5, Some(3), Some(4), None),
        (6, None, None, Some(7)),
        (7, Some(6), None, None),
        (8, None, None, None),
    ] {
        assert_eq!(related(&history, id)?, [failure, explanation, resolution], "{id}");
    }
    assert_eq!(history.story(format!("{:032x}", 5).parse()?, NOW)?.context("no story")?.notes, [NO_TEXT]);
    assert!(history.story(format!("{:032x}", 77).parse()?, NOW)?.is_none());
    Ok(())
}

/// Returns the lines of two failures that Tableau delivered, 1 and 2.
fn two_failures() -> [Value; 2] {
    [(0, 1), (300, 2)].map(|(second, id)| of_resource(second, "WorkbookRefreshFailed", id, Value::Null))
}

/// Returns the line of an explanation, with the seconds since the end of its job.
fn explained(second: i64, id: u128, delay_s: u64) -> Value {
    of_resource(second, "RefreshFailureExplained", id, json!({ "delay_s": delay_s }))
}

#[test]
fn each_explanation_belongs_to_the_failure_at_the_end_of_its_job() -> anyhow::Result<()> {
    // The explanations 11 and 12, and their failures.
    for (name, jobs, failures) in [
        ("both after both", [explained(600, 11, 602), explained(601, 12, 302)], [1, 2]),
        ("the second first", [explained(600, 11, 301), explained(601, 12, 602)], [2, 1]),
        ("by turns", [explained(60, 11, 62), explained(360, 12, 62)], [1, 2]),
        ("without a delay", [explained(60, 11, 0), explained(360, 12, 0)], [1, 2]),
    ] {
        let resolved = of_resource(1000, "RefreshFailureResolved", 9, json!({ "delay_s": 0 }));
        let mut history = history(&two_failures(), &[&jobs[..], &[resolved]].concat(), &[]);
        for record in &mut history.records {
            record.delay_s = record.delay_s.filter(|delay_s| *delay_s > 0);
        }
        for (explanation, failure) in [11, 12].into_iter().zip(failures) {
            assert_eq!(related(&history, explanation)?, [Some(failure), None, Some(9)], "{name}");
            assert_eq!(related(&history, failure)?, [None, Some(explanation), Some(9)], "{name}");
        }
        let of_last = if failures[1] == 2 { 12 } else { 11 };
        assert_eq!(related(&history, 9)?, [Some(2), Some(of_last), None], "{name}");
    }
    Ok(())
}

#[test]
fn a_failure_has_at_most_one_explanation_and_none_from_before_it() -> anyhow::Result<()> {
    let before = history(&two_failures(), &[explained(-60, 10, 1)], &[]);
    assert_eq!((related(&before, 10)?, related(&before, 1)?), ([None; 3], [None; 3]));
    // The failure of the explanation 12 is not in the logs.
    let jobs = [explained(600, 11, 602), explained(601, 12, 901), explained(602, 13, 302)];
    let history = history(&two_failures(), &jobs, &[]);
    for (id, expected) in [
        (11, [Some(1), None, None]),
        (12, [None; 3]),
        (13, [Some(2), None, None]),
        (1, [None, Some(11), None]),
        (2, [None, Some(13), None]),
    ] {
        assert_eq!(related(&history, id)?, expected, "{id}");
    }
    Ok(())
}

#[test]
fn the_story_of_an_undelivered_event_has_its_text_its_alert_and_the_command() -> anyhow::Result<()> {
    let body = r#"{"resource_luid":"99","resource_name":"Sales \u202e<b>","created_at":"2026-05-21T07:00:00Z"}"#;
    let record = delivered("WorkbookRefreshFailed", body, delivery_log::Outcome::Undelivered)?;
    let id = record.event_id;
    let history = history(&[line(0, json!(record), Value::Null)], &[], &[]);
    let story = history.story(id, NOW + Duration::hours(47))?.context("no story")?;
    let Rendering { envelope, attributes, alert } = story.undelivered.context("no text")?;
    let envelope: Value = serde_json::from_str(envelope.get())?;
    assert_eq!((&envelope["id"], &envelope["source"]), (&json!(id.to_string()), &json!("/tableau/marketing")));
    assert_eq!(attributes["event_type"], "WorkbookRefreshFailed");
    let alert = alert.context("no alert")?;
    assert_eq!(alert.subject, "Tableau marketing: workbook refresh failed: Sales <b>");
    assert!(
        alert.email.contains("Sales") && alert.sms.contains("Sales") && alert.card["title"].is_string(),
        "{alert:?}"
    );
    assert_eq!(story.replay, Some(format!("cargo infra replay 49 --id {id} --stack test")));
    Ok(())
}

#[test]
fn a_story_has_the_newest_attempt_of_each_message_for_a_target() -> anyhow::Result<()> {
    let id = format!("{:032x}", 1);
    let forwarded = |second, target: &str, message: &str, outcome: &str, more: Value| {
        let record =
            json!({ "target": target, "message_id": message, "event_id": id, "outcome": outcome, "attempts": 1 });
        line(second, record, more)
    };
    let lines = [
        forwarded(9, "chat", "m1", "forwarded", json!({ "attempts": 2, "status": 200, "age_s": 4 })),
        forwarded(1, "chat", "m1", "again", json!({ "error": "it answered 503", "status": 503 })),
        forwarded(2, "chat", "m2", "forwarded", json!({})),
        forwarded(3, "ops", "m3", "dead letter", json!({ "error": "it answered 400" })),
        line(4, json!({ "target": "ops", "event_id": "another", "outcome": "forwarded" }), Value::Null),
    ];
    let history = history(&[], &[of_job(0, "ViewDeleted", 1, false)], &lines);
    let story = history.story(id.parse()?, NOW)?.context("no story")?;
    let found: Vec<_> = story
        .targets
        .iter()
        .map(|it| (&*it.target, &*it.outcome, it.attempts, it.status, it.error.as_deref()))
        .collect();
    let expected = [
        ("chat", "forwarded", Some(2), Some(200), None),
        ("chat", "forwarded", Some(1), None, None),
        ("ops", "dead letter", Some(1), None, Some("it answered 400")),
    ];
    assert_eq!(found, expected);
    Ok(())
}
