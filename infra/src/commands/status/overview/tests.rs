//! Tests of the overview.

use std::time::Duration;

use anstream::adapter::strip_str;
use shared::{problems::ProblemKey, sites::token_end::TokenEnd};
use time::{Duration as Time, macros::datetime};

use super::*;
use crate::{
    commands::status::readings::{Alarm, LastEvent},
    subscriptions::{Filter, Subscribers, Subscription},
    targets::{LastError, TargetReading},
};

const NOW: OffsetDateTime = datetime!(2026-05-21 08:00:00 UTC);

fn healthy() -> Readings {
    let alarm = |name: &str| Alarm {
        name: format!("tableau-fanout-{name}"),
        state: "OK".to_owned(),
        reason: String::new(),
        description: "It broke. Fix: run `cargo infra replay 24`.".to_owned(),
    };
    let queue = |endpoint: &str, filter: Filter| Subscription {
        protocol: "sqs".to_owned(),
        endpoint: endpoint.to_owned(),
        filter,
        confirmed: true,
    };
    Readings {
        stack: StackReading {
            name: "tableau-fanout".to_owned(),
            state: "CREATE_COMPLETE".to_owned(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            account: "111122223333".to_owned(),
            region: "eu-west-1".to_owned(),
            condition: Condition::Ready,
            max_time_without_run: Duration::from_secs(3 * 3600),
            created_at: Some(NOW - Time::days(30)),
        },
        alarms: ["dead-letters", "events-not-accepted"].map(alarm).into(),
        sites: ["finance", "marketing"]
            .map(|name| SiteReading { name: name.to_owned(), problems: [].into(), token_ends: None })
            .into(),
        last_event: Some(LastEvent {
            at: NOW - Time::minutes(3),
            site: "marketing".to_owned(),
            event: "WorkbookCreated".to_owned(),
        }),
        last_run: Some(LastRun {
            at: NOW - Time::minutes(14),
            action: "apply".to_owned(),
            succeeded: true,
            message: "every site is as declared".to_owned(),
            line: Value::Null,
        }),
        subscribers: Subscribers {
            events: vec![queue("failures", Filter::Attributes(json!({ "action": ["refresh-failed"] })))],
            alerts: vec![queue("alerts", Filter::None)],
            alerts_topic: "arn:alerts".to_owned(),
            missing_topics: Vec::new(),
        },
        targets: ["failures", "pager"].map(target).into(),
    }
}

fn target(name: &str) -> TargetReading {
    TargetReading {
        name: name.to_owned(),
        preset: Some("slack"),
        gets: Some("failures".to_owned()),
        waiting: 0,
        dead_letters: 0,
        last_error: None,
        stored: None,
        problem: None,
        fix: String::new(),
    }
}

/// Changes a healthy stack, and returns what is wrong or deserves a look then, as it is shown in a pipe.
fn found(change: impl FnOnce(&mut Readings)) -> (usize, Vec<String>) {
    let mut readings = healthy();
    change(&mut readings);
    let overview = Overview::of(&readings, NOW);
    let lines = overview.findings.iter().flat_map(Finding::lines);
    (overview.problems(), lines.map(|line| strip_str(&line).to_string()).collect())
}

#[test]
fn a_healthy_stack_is_a_line_for_each_part() {
    let overview = Overview::of(&healthy(), NOW);
    let lines: Vec<_> = overview.lines().iter().map(|line| strip_str(line).to_string()).collect();
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        &format!(
            "✓ stack        tableau-fanout, version {version}, CREATE_COMPLETE, account 111122223333, region eu-west-1"
        ),
        "✓ sites        2: finance, marketing",
        "✓ alarms       2 quiet",
        "✓ last event   WorkbookCreated of marketing, 3 min ago",
        "✓ last run     apply, 14 min ago: every site is as declared",
        "✓ subscribers  events: sqs failures (action=refresh-failed); alerts: sqs alerts",
        "✓ targets      2: failures, pager; nothing waiting",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn each_problem_is_named_with_its_fix() {
    let refused = ProblemKey { kind: ProblemKind::TokenRefused, event: None };
    let (problems, lines) = found(|readings| {
        readings.stack.name = "fan".to_owned();
        readings.sites[0].problems.insert(refused, Timestamp(NOW - Time::hours(1)));
    });
    let expected = [
        "✗ finance: token refused since 2026-05-21T07:00:00Z. Webhooks that work keep working, but until this is fixed they \
         are not repaired.",
        "  Fix: cargo infra add-site finance --overwrite --stack fan",
    ];
    assert_eq!((problems, lines), (1, expected.map(str::to_owned).into()));

    let refused = ProblemKey { kind: ProblemKind::TokenRefused, event: None };
    let (problems, lines) = found(|readings| {
        readings.sites.iter_mut().zip(1..).for_each(|(site, hours)| {
            site.problems.insert(refused.clone(), Timestamp(NOW - Time::hours(hours)));
        });
    });
    assert!(lines[0].starts_with("✗ finance, marketing: token refused since 2026-05-21T06:00:00Z."), "{lines:?}");
    assert_eq!((problems, &*lines[1]), (1, "  Fix: cargo infra add-site NAME --overwrite"));

    let in_days = |days| TokenEnd::at(NOW + Time::days(days));
    let (problems, lines) = found(|readings| {
        readings.sites[0].token_ends = Some(in_days(40));
        readings.sites[1].token_ends = Some(in_days(20));
    });
    let expected = [
        "! marketing: the token ends on 2026-06-10 (in 20 days). After that webhooks that work keep working, but they are \
         not repaired, and failures are not explained.",
        "  Fix: cargo infra add-site marketing --overwrite",
    ];
    assert_eq!((problems, lines), (0, expected.map(str::to_owned).into()));

    let (problems, lines) = found(|readings| readings.alarms[1].state = "ALARM".to_owned());
    let expected = ["✗ alarm tableau-fanout-events-not-accepted: It broke.", "  Fix: run `cargo infra replay 24`."];
    assert_eq!((problems, lines), (1, expected.map(str::to_owned).into()));

    let fail = |run: &mut LastRun| (run.succeeded, run.message) = (false, "it broke".to_owned());
    let (problems, lines) = found(|readings| readings.last_run.iter_mut().for_each(fail));
    assert_eq!((problems, &*lines[0]), (1, "✗ the last run failed: it broke."));
    let (problems, lines) = found(|readings| readings.last_run = None);
    assert!(problems == 1 && lines[0].starts_with("✗ the reconciler has not run for too long."), "{lines:?}");
    let (problems, _) = found(|readings| {
        (readings.last_run, readings.stack.created_at) = (None, Some(NOW - Time::minutes(5)));
    });
    assert_eq!(problems, 0);

    let last_error = Some(LastError { at: NOW, error: "the target answered 404".to_owned() });
    let (problems, lines) = found(|readings| {
        readings.targets[0] = TargetReading { waiting: 3, last_error: last_error.clone(), ..target("failures") };
        readings.targets[1] =
            TargetReading { waiting: 1, dead_letters: 2, last_error: last_error.clone(), ..target("pager") };
    });
    let expected = [
        "✗ target pager: 2 messages not delivered, and not tried again. The last error: the target answered 404.",
        "  Fix: correct the target, such as with cargo infra add-target pager --overwrite; then cargo infra redrive pager",
        "! target failures: 3 messages to be sent again, for a day at most. The last error: the target answered 404.",
        "  Fix: correct the target, such as with cargo infra add-target failures --overwrite",
    ];
    assert_eq!((problems, lines), (1, expected.map(str::to_owned).into()));
    // The finding about the target has the same as its alarm, which is not quiet all the same.
    let mut readings = healthy();
    readings.targets[1].dead_letters = 1;
    (readings.alarms[0].name, readings.alarms[0].state) =
        ("tableau-fanout-target-pager-dead-letters".to_owned(), "ALARM".to_owned());
    let overview = Overview::of(&readings, NOW);
    let lines: Vec<_> = overview.lines().iter().map(|line| strip_str(line).to_string()).collect();
    assert!(overview.problems() == 1 && lines.contains(&"✓ alarms       1 quiet".to_owned()), "{lines:?}");

    let missing = "its stack is missing, so it gets no messages";
    let (problems, lines) = found(|readings| readings.targets[0].problem = Some(missing.to_owned()));
    assert_eq!((problems, &*lines[0]), (1, &*format!("✗ target failures: {missing}.")));

    let (problems, lines) = found(|readings| readings.subscribers.alerts.clear());
    assert!(problems == 1 && lines[0].starts_with("✗ nobody is subscribed to alerts."), "{lines:?}");
    let (problems, lines) = found(|readings| readings.stack.condition = Condition::RollbackFailed);
    assert!(problems == 1 && lines[1].contains("continue-update-rollback"), "{lines:?}");
}

#[test]
fn problems_come_before_warnings_and_both_are_members_of_the_json() {
    let mut readings = healthy();
    let mut site = readings.sites.remove(0);
    site.token_ends = Some(TokenEnd::at(NOW + Time::days(300)));
    let overview = Overview::of(&Readings { sites: vec![site], ..healthy() }, NOW);
    let line = overview.lines().iter().map(|line| strip_str(line).to_string()).find(|line| line.contains("sites"));
    assert_eq!(line.as_deref(), Some("✓ sites        1: finance; next end of a token: 2027-03-17 (in 300 days)"));
    readings.sites.clear();
    readings.last_event = None;
    readings.subscribers.alerts[0].confirmed = false;
    let overview = Overview::of(&readings, NOW);
    let lines = overview.lines();
    assert!(lines[0].contains("no subscriber of alerts has confirmed") && lines[2].contains("no site is declared"));
    let json = overview.json(&readings);
    assert_eq!(json["ok"], false);
    assert_eq!(json["warnings"][0]["fix"], "cargo infra add-site marketing");
    assert_eq!(json["problems"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["last_event"], Value::Null);
    assert_eq!(json["last_run"]["at"], "2026-05-21T07:46:00Z");
    let queue = json!({ "protocol": "sqs", "endpoint": "failures", "filter": { "action": ["refresh-failed"] },
        "confirmed": true });
    assert_eq!(json["subscribers"]["events"], json!([queue]));
}
