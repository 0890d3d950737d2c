//! Tests of the messages in the queue of a target.

use serde_json::json;

use super::*;
use crate::alerts::data::{AlertKind, AlertResource, Severity};

fn event() -> Value {
    json!({
        "specversion": "1.0",
        "id": "e5382930c3df8e121f80ac403357ca8b",
        "source": "/tableau/marketing",
        "type": "com.tableau.WorkbookCreated",
        "data": {"resource_name": "Regional Sales"},
    })
}

fn alert() -> Value {
    json!({
        "kind": "refresh-explained",
        "severity": "error",
        "title": "workbook refresh failed: Regional Sales",
        "text": "It failed.",
        "next_steps": [],
        "links": [],
        "sites": ["marketing", "sales"],
        "resource": {"kind": "workbook", "id": "5998aaaf", "project": "Finance"},
        "thread": "marketing/5998aaaf",
        "resolved": false,
        "event_id": "7f",
    })
}

/// A notification of CloudWatch (CloudWatch user guide, "Using Amazon CloudWatch alarms", the members that it has).
fn alarm() -> Value {
    json!({
        "AlarmName": "tableau-fanout-target-bi-team-dead-letters",
        "AlarmDescription": "The target did not accept messages. Fix: run `cargo infra redrive bi-team`.",
        "AWSAccountId": "123456789012",
        "AlarmConfigurationUpdatedTimestamp": "2026-05-20T08:00:00.000+0000",
        "NewStateValue": "ALARM",
        "NewStateReason": "Threshold Crossed: 1 datapoint [3.0 (21/05/26 08:00:00)] was greater than the threshold (0.0).",
        "StateChangeTime": "2026-05-21T08:01:02.345+0000",
        "Region": "EU (Frankfurt)",
        "AlarmArn": "arn:aws:cloudwatch:eu-central-1:123456789012:alarm:tableau-fanout-target-bi-team-dead-letters",
        "OldStateValue": "OK",
        "OKActions": [],
        "Trigger": {
            "MetricName": "ApproximateNumberOfMessagesVisible",
            "Namespace": "AWS/SQS",
            "Statistic": "MAXIMUM",
            "Unit": null,
            "Dimensions": [{"value": "tableau-fanout-target-bi-team-dead", "name": "QueueName"}],
            "Period": 60,
            "Threshold": 0.0,
        },
    })
}

/// Returns a message with some members replaced, or removed where they are null.
fn with(mut message: Value, members: Value) -> Value {
    let Value::Object(members) = members else { panic!("an object") };
    let object = message.as_object_mut().expect("an object");
    object.extend(members);
    object.retain(|_, value| !value.is_null());
    message
}

fn parse(message: &Value) -> TargetMessage {
    TargetMessage::parse(&message.to_string()).unwrap_or_else(|error| panic!("{message}: {error}"))
}

fn read_alarm(members: Value) -> AlertData {
    match parse(&with(alarm(), members)) {
        TargetMessage::Alert(alert) => alert,
        TargetMessage::Event(event) => panic!("{}", event.text()),
    }
}

#[test]
fn events_and_alerts_are_read_with_and_without_the_envelope_of_sns() {
    assert_eq!(parse(&event()), TargetMessage::Event(event().into()));
    assert_eq!(parse(&event()).id(), "e5382930c3df8e121f80ac403357ca8b");
    assert_eq!(parse(&alert()).id(), "7f");
    for message in [event(), alert(), alarm()] {
        let envelope = json!({
            "Type": "Notification",
            "MessageId": "0b4e",
            "TopicArn": "arn:aws:sns:eu-central-1:123456789012:topic",
            "Message": message.to_string(),
            "Timestamp": "2026-05-21T08:00:00.000Z",
        });
        assert_eq!(parse(&envelope), parse(&message));
        // One envelope is opened, not one in another.
        let twice = with(envelope.clone(), json!({"Message": envelope.to_string()})).to_string();
        assert_eq!(TargetMessage::parse(&twice), Err(NoMessage::Unknown));
    }
}

#[test]
fn an_event_keeps_the_text_that_was_received() {
    let text = r#" {"type":"T","source":"S", "specversion":"1.0","id":"7","n":1.50,"t":"\u00e9/"}"#;
    let envelope = json!({"Type": "Notification", "TopicArn": "arn:aws:sns:r:1:topic", "Message": text});
    for body in [text.to_owned(), envelope.to_string()] {
        let TargetMessage::Event(event) = TargetMessage::parse(&body).expect("an event") else { panic!("an event") };
        assert_eq!((event.text(), &event.json()["t"]), (text, &json!("é/")));
    }
}

#[test]
fn an_alert_of_a_later_release_may_have_further_members() {
    assert_eq!(parse(&with(alert(), json!({"sound": "bell"}))), parse(&alert()));
}

#[test]
fn another_message_is_refused_with_a_reason_that_repeats_nothing() {
    let long = "s3cret".repeat(50);
    for (message, error) in [
        (json!("s3cret"), NoMessage::NoObject),
        (json!(["s3cret"]), NoMessage::NoObject),
        (json!({}), NoMessage::Unknown),
        (json!({"s3cret": "s3cret"}), NoMessage::Unknown),
        (json!({"kind": "s3cret"}), NoMessage::Unknown),
        (json!({"Type": "Notification", "TopicArn": "arn", "Message": "s3cret"}), NoMessage::NoObject),
        (json!({"Type": "Notification", "Message": event().to_string()}), NoMessage::Unknown),
        (with(event(), json!({"specversion": "s3cret"})), NoMessage::InvalidEvent),
        (with(event(), json!({"id": null})), NoMessage::InvalidEvent),
        (with(event(), json!({"id": ""})), NoMessage::InvalidEvent),
        (with(event(), json!({"id": 7})), NoMessage::InvalidEvent),
        (with(event(), json!({"id": "s3cret\r\nx: y"})), NoMessage::InvalidEvent),
        (with(event(), json!({"id": long})), NoMessage::InvalidEvent),
        (with(event(), json!({"source": null})), NoMessage::InvalidEvent),
        (with(event(), json!({"type": ["s3cret"]})), NoMessage::InvalidEvent),
        (with(alert(), json!({"kind": "s3cret"})), NoMessage::InvalidAlert),
        (with(alert(), json!({"severity": "s3cret"})), NoMessage::InvalidAlert),
        (with(alert(), json!({"text": null})), NoMessage::InvalidAlert),
        (with(alert(), json!({"sites": "s3cret"})), NoMessage::InvalidAlert),
        (with(alert(), json!({"event_id": "s3cret s3cret"})), NoMessage::InvalidAlert),
        (with(alarm(), json!({"NewStateValue": "s3cret"})), NoMessage::InvalidAlarm),
        (with(alarm(), json!({"AlarmName": ["s3cret"]})), NoMessage::InvalidAlarm),
        (with(alarm(), json!({"AlarmName": ""})), NoMessage::InvalidAlarm),
    ] {
        assert_eq!(TargetMessage::parse(&message.to_string()), Err(error), "{message}");
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }
    for text in ["", "s3cret", "{\"id\":\"s3cret\"", "{} {}"] {
        assert_eq!(TargetMessage::parse(text), Err(NoMessage::NoObject), "{text}");
    }
}

#[test]
fn an_alarm_begins_an_alert_that_ok_resolves() {
    let began = read_alarm(json!({}));
    insta::assert_snapshot!(format!("{}\n{}", began.title, began.text), @r#"
    alarm: tableau-fanout-target-bi-team-dead-letters
    The CloudWatch alarm tableau-fanout-target-bi-team-dead-letters began on 2026-05-21 at 08:01 UTC.
    The target did not accept messages. Fix: run 'cargo infra redrive bi-team'.
    Details: Threshold Crossed: 1 datapoint ［3.0 (21/05/26 08:00:00)］ was greater than the threshold (0.0).
    "#);
    assert_eq!((began.kind, began.severity, began.resolved), (AlertKind::Alarm, Severity::Error, false));
    let ended = read_alarm(json!({"NewStateValue": "OK", "StateChangeTime": "2026-05-21T09:01:02.345+0000"}));
    insta::assert_snapshot!(format!("{}\n{}", ended.title, ended.text), @r#"
    solved: alarm: tableau-fanout-target-bi-team-dead-letters
    The CloudWatch alarm tableau-fanout-target-bi-team-dead-letters ended on 2026-05-21 at 09:01 UTC.
    Details: Threshold Crossed: 1 datapoint ［3.0 (21/05/26 08:00:00)］ was greater than the threshold (0.0).
    "#);
    assert_eq!((ended.kind, ended.severity, ended.resolved), (AlertKind::Alarm, Severity::Info, true));
    assert_eq!((&*began.thread, &began.thread), ("tableau-fanout-target-bi-team-dead-letters", &ended.thread));
    let queue = AlertResource {
        kind: "queue".to_owned(),
        id: "tableau-fanout-target-bi-team-dead".to_owned(),
        name: None,
        project: None,
    };
    assert_eq!(began.resource, Some(queue));
    assert!(began.sites.is_empty() && began.site.is_none());
}

#[test]
fn an_alarm_needs_no_more_than_a_name_and_a_state() {
    let least = read_alarm(json!({
        "AlarmDescription": null,
        "NewStateValue": "INSUFFICIENT_DATA",
        "NewStateReason": null,
        "StateChangeTime": null,
        "Trigger": null,
    }));
    assert_eq!(least.title, "alarm without data: tableau-fanout-target-bi-team-dead-letters");
    assert_eq!(least.text, "The CloudWatch alarm tableau-fanout-target-bi-team-dead-letters ran out of data.");
    assert_eq!((least.severity, least.resource), (Severity::Warning, None));
    // An explicit null, the trigger of an expression, and a time of another form.
    let mut other = alarm();
    other["AlarmDescription"] = Value::Null;
    other["Trigger"] = json!({"Period": 60, "Metrics": []});
    other["StateChangeTime"] = "soon".into();
    let TargetMessage::Alert(other) = parse(&other) else { panic!("no alert") };
    assert!(
        other.text.starts_with("The CloudWatch alarm tableau-fanout-target-bi-team-dead-letters began.\nDetails: ")
    );
}

#[test]
fn an_alarm_has_the_same_id_exactly_if_it_is_the_same_change() {
    let id = |members| read_alarm(members).event_id;
    let first = id(json!({}));
    assert_eq!(first, id(json!({"NewStateReason": "Another text."})));
    for other in [
        json!({"AlarmName": "another"}),
        json!({"NewStateValue": "OK"}),
        json!({"StateChangeTime": "2026-05-22T08:01:02.345+0000"}),
    ] {
        assert_ne!(first, id(other));
    }
}

#[test]
fn texts_of_an_alarm_are_no_markup_and_have_one_line() {
    let hostile = "<!channel> @here\n*bold* [x](https://evil.example) `c` \u{202e}end";
    let alert = read_alarm(json!({"AlarmName": hostile, "AlarmDescription": hostile, "NewStateReason": hostile}));
    assert_eq!(alert.text.lines().count(), 3, "{}", alert.text);
    for text in [alert.title, alert.text, alert.thread] {
        assert!(!text.contains(['<', '>', '@', '*', '[', ']', '`', '\u{202e}']), "{text}");
    }
}

#[test]
fn a_selection_selects_by_kind_severity_site_and_project() {
    let explained = with(event(), json!({"data": {"project": {"id": "77", "name": "Finance"}}}));
    let (created, explained, alert) = (parse(&event()), parse(&explained), parse(&alert()));
    let text = with(event(), json!({"data": "no JSON"}));
    let (text, alarm) = (parse(&text), parse(&alarm()));
    // For each selection: the event without a project, that with one, that with a text, the alert, and the alarm.
    for (selection, expected) in [
        (json!({}), [true, true, true, true, true]),
        (json!({"kinds": ["refresh-explained", "test"]}), [true, true, true, true, false]),
        (json!({"kinds": ["alarm"]}), [true, true, true, false, true]),
        (json!({"severities": ["warning", "info"]}), [true, true, true, false, false]),
        (json!({"severities": ["error"]}), [true, true, true, true, true]),
        (json!({"sites": ["marketing"]}), [true, true, true, true, false]),
        (json!({"sites": ["sales", "hr"]}), [false, false, false, true, false]),
        (json!({"sites": ["hr"]}), [false; 5]),
        (json!({"projects": ["Finance", "Sales"]}), [false, true, false, true, false]),
        (json!({"projects": ["finance"]}), [false; 5]),
        (json!({"sites": ["sales"], "projects": ["Finance"]}), [false, false, false, true, false]),
        (json!({"kinds": ["problem"], "sites": ["marketing"]}), [true, true, true, false, false]),
    ] {
        let entry = json!({"preset": "slack", "address": "https://target.example/", "selection": selection});
        let name = "bi-team".parse().expect("a name");
        let entry = crate::targets::entry::TargetEntry::parse(&name, &entry.to_string()).expect("usable");
        let selected = [&created, &explained, &text, &alert, &alarm].map(|it| it.is_selected(&entry.selection));
        assert_eq!(selected, expected, "{selection}");
    }
}

#[test]
fn an_event_of_another_source_is_of_no_site() {
    let sites = Selection { sites: ["marketing".parse().expect("a site")].into(), ..Selection::default() };
    for source in ["marketing", "/tableau/marketing/x", "/other/marketing", "/tableau/Marketing"] {
        assert!(!parse(&with(event(), json!({"source": source}))).is_selected(&sites), "{source}");
    }
}

#[test]
fn an_alarm_on_a_metric_of_the_forwarder_is_about_the_target_whose_queue_it_names() {
    let trigger = json!({
        "MetricName": "OldestUndelivered",
        "Namespace": "TableauFanout",
        "Statistic": "MAXIMUM",
        "Unit": null,
        "Dimensions": [{"value": "s-target-bi-team", "name": "QueueName"}],
        "Period": 300,
        "EvaluationPeriods": 14,
        "DatapointsToAlarm": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": 3600.0,
        "TreatMissingData": "ignore",
        "EvaluateLowSampleCountPercentile": "",
    });
    let alarm = parse(&with(alarm(), json!({"AlarmName": "s-target-bi-team-undelivered", "Trigger": trigger})));
    assert!(alarm.is_about(&"bi-team".parse().expect("a name"), "s"));
    assert!(!alarm.is_about(&"pager".parse().expect("a name"), "s"));
}

#[test]
fn an_alarm_is_about_the_target_whose_queue_it_names() {
    let queue = |queue: &str| json!({"Trigger": {"Dimensions": [{"name": "QueueName", "value": queue}]}});
    let target: TargetName = "bi-team".parse().expect("a name");
    for (alarm, expected) in [
        (with(alarm(), queue("s-target-bi-team")), true),
        (with(alarm(), queue("s-target-bi-team-dead")), true),
        (with(alarm(), queue("s-target-bi-team-2")), false),
        (with(alarm(), queue("s-target-team")), false),
        (with(alarm(), queue("x-target-bi-team")), false),
        (
            with(alarm(), json!({"Trigger": {"Dimensions": [{"name": "FunctionName", "value": "s-target-bi-team"}]}})),
            false,
        ),
        (with(alarm(), json!({"Trigger": null})), false),
        (with(alert(), json!({"resource": {"kind": "workbook", "id": "s-target-bi-team"}})), false),
        (with(alert(), json!({"resource": {"kind": "target", "id": "bi-team"}})), true),
        (with(alert(), json!({"resource": {"kind": "target", "id": "bi"}})), false),
        (with(alert(), json!({"resource": {"kind": "workbook", "id": "bi-team"}})), false),
        (event(), false),
    ] {
        assert_eq!(parse(&alarm).is_about(&target, "s"), expected, "{alarm}");
    }
}
