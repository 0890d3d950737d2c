//! The overview of a stack: what is wrong, and a line about each part. Computed from what was read, without AWS.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shared::{problems::ProblemKind, sites::commands::stack_option, timestamp::Timestamp};
use time::OffsetDateTime;

use super::{
    readings::{LastRun, Readings, SiteReading, StackReading},
    version,
};
use crate::{
    findings::Finding,
    stack::Condition,
    terminal::{BAD, GOOD, WARNING, styled},
};

/// The most sites that a line names.
const MAX_NAMED: usize = 6;

/// Width of the first column.
const LABEL_WIDTH: usize = 11;

/// The overview.
#[derive(Debug)]
pub(super) struct Overview {
    /// Problems first, then what only deserves a look.
    pub(super) findings: Vec<Finding>,
    rows: Vec<Row>,
}

/// A line about a part of the stack.
#[derive(Debug)]
struct Row {
    mark: Mark,
    label: &'static str,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Good,
    Notable,
    Wrong,
}

impl Mark {
    /// The mark of a part with findings.
    fn of(findings: &[Finding]) -> Self {
        match findings.iter().map(|finding| finding.is_wrong).max() {
            None => Self::Good,
            Some(false) => Self::Notable,
            Some(true) => Self::Wrong,
        }
    }
}

impl Overview {
    /// Computes the overview at a time.
    pub(super) fn of(readings: &Readings, now: OffsetDateTime) -> Self {
        let parts = [
            stack(readings),
            sites(readings, now),
            alarms(readings),
            last_event(readings, now),
            last_run(readings, now),
            subscribers(readings),
        ];
        let (mut findings, mut rows) = (Vec::new(), Vec::new());
        for (found, row) in parts {
            rows.push(row);
            findings.extend(found);
        }
        findings.sort_by_key(|finding| !finding.is_wrong);
        Self { findings, rows }
    }

    /// Returns the number of problems.
    pub(super) fn problems(&self) -> usize {
        self.findings.iter().filter(|finding| finding.is_wrong).count()
    }

    /// Formats it for a terminal.
    pub(super) fn lines(&self) -> Vec<String> {
        let findings = self.findings.iter().flat_map(Finding::lines);
        findings.chain(self.rows.iter().map(Row::line)).collect()
    }

    /// Formats it, with what was read, for a program.
    pub(super) fn json(&self, readings: &Readings) -> Value {
        let Readings { stack, alarms, sites, last_event, last_run, subscribers } = readings;
        let (problems, warnings): (Vec<_>, Vec<_>) = self.findings.iter().partition(|finding| finding.is_wrong);
        json!({
            "ok": problems.is_empty(),
            "problems": problems,
            "warnings": warnings,
            "stack": stack,
            "sites": sites,
            "alarms": alarms,
            "last_event": last_event,
            "last_run": last_run,
            "subscribers": subscribers,
        })
    }
}

/// The JSON of a stack that does not work, or that cannot be read.
pub(super) fn unreadable(error: &str) -> Value {
    let (what, fix) = error.split_once(" Fix: ").unwrap_or((error, ""));
    json!({
        "ok": false,
        "problems": [Finding::wrong(what, fix)],
        "warnings": [],
        "stack": null,
        "sites": null,
        "alarms": null,
        "last_event": null,
        "last_run": null,
        "subscribers": null,
    })
}

impl Row {
    fn line(&self) -> String {
        let Self { mark, label, text } = self;
        let mark = match mark {
            Mark::Good => styled(GOOD, '✓'),
            Mark::Notable => styled(WARNING, '!'),
            Mark::Wrong => styled(BAD, '✗'),
        };
        format!("{mark} {label:LABEL_WIDTH$}  {text}")
    }
}

/// Findings about a part, and the line about it.
type Part = (Vec<Finding>, Row);

/// Returns a part whose mark is that of its findings.
fn part(label: &'static str, findings: Vec<Finding>, text: String) -> Part {
    let row = Row { mark: Mark::of(&findings), label, text };
    (findings, row)
}

fn stack(Readings { stack, .. }: &Readings) -> Part {
    let StackReading { name, state, version, account, region, condition, .. } = stack;
    let mut findings: Vec<_> = version::finding(version.as_deref(), &stack_option(name)).into_iter().collect();
    findings.extend(match (condition, &**state) {
        (Condition::RollbackFailed, _) => Some(Finding::wrong(
            format!(
                "neither an update of the stack {name} nor its rollback succeeded. It works, and cannot be updated."
            ),
            format!("aws cloudformation continue-update-rollback --stack-name {name}"),
        )),
        (_, "UPDATE_FAILED") => Some(Finding::wrong(
            format!("the last update of the stack {name} failed, and some of its resources may be out of date."),
            format!("cargo infra deploy{}", stack_option(name)),
        )),
        (Condition::Updating, _) => {
            Some(Finding::notable(format!("the stack {name} is being updated. It works meanwhile."), ""))
        }
        (_, "UPDATE_ROLLBACK_COMPLETE") => Some(Finding::notable(
            format!("the last update of the stack {name} failed and was rolled back. It works as before."),
            format!("cargo infra deploy{} shows the reason", stack_option(name)),
        )),
        _ => None,
    });
    let version = version.as_deref().unwrap_or("before 0.1.0");
    part("stack", findings, format!("{name}, version {version}, {state}, account {account}, region {region}"))
}

fn sites(Readings { sites, stack, .. }: &Readings, now: OffsetDateTime) -> Part {
    let option = stack_option(&stack.name);
    if sites.is_empty() {
        let finding = Finding::notable(
            "no site is declared, so no event arrives.",
            format!("cargo infra add-site marketing{option}"),
        );
        return part("sites", vec![finding], "none".to_owned());
    }
    let mut findings = site_findings(sites, &option);
    findings.extend(token_findings(sites, &option, now));
    let failed = sites.iter().filter(|site| !site.problems.is_empty()).count();
    let failed = if failed == 0 { String::new() } else { format!(", {failed} with problems") };
    let names = named(sites.iter().map(|site| &*site.name));
    let next = sites.iter().filter_map(|site| site.token_ends).min();
    let next = next.map(|end| format!("; next end of a token: {}", end.in_days(now))).unwrap_or_default();
    part("sites", findings, format!("{}{failed}: {names}{next}", sites.len()))
}

/// Returns what deserves a look: each token that ends soon, unless Tableau refuses it already.
fn token_findings(sites: &[SiteReading], option: &str, now: OffsetDateTime) -> Vec<Finding> {
    let is_refused = |site: &SiteReading| site.problems.keys().any(|key| key.kind == ProblemKind::TokenRefused);
    let ending = sites.iter().filter(|site| !is_refused(site)).filter_map(|site| {
        let end = site.token_ends.filter(|end| end.stage_began(now).is_some())?;
        let what =
            format!("{}: the token ends on {}. {}", site.name, end.in_days(now), ProblemKind::TokenEnding.effect());
        Some(Finding::notable(what, site_fix(ProblemKind::TokenEnding, &site.name, option)))
    });
    ending.collect()
}

/// Lists names, and the number of those that have no room.
fn named<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(MAX_NAMED);
    let named = names.take(MAX_NAMED).collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

/// Returns a finding for each kind of problem, since a server that is down has the same problem at all its sites.
fn site_findings(sites: &[SiteReading], option: &str) -> Vec<Finding> {
    let mut kinds = BTreeMap::<ProblemKind, BTreeMap<&str, Timestamp>>::new();
    for site in sites {
        for (key, since) in &site.problems {
            let earliest = kinds.entry(key.kind).or_default().entry(&site.name).or_insert(*since);
            *earliest = (*earliest).min(*since);
        }
    }
    let finding = |(kind, sites): (ProblemKind, BTreeMap<&str, Timestamp>)| {
        let since = sites.values().min().map(Timestamp::to_string).unwrap_or_default();
        let names = named(sites.keys().copied());
        let site = if sites.len() == 1 { &names } else { "NAME" };
        let what = format!("{names}: {} since {since}. {}", kind.headline(), kind.effect());
        Finding::wrong(what, site_fix(kind, site, option))
    };
    kinds.into_iter().map(finding).collect()
}

/// Returns the fix for a problem of a site.
fn site_fix(kind: ProblemKind, site: &str, option: &str) -> String {
    match kind {
        ProblemKind::TokenRefused
        | ProblemKind::TokenEnding
        | ProblemKind::TokenShared
        | ProblemKind::NotAdministrator
        | ProblemKind::SiteNotFound
        | ProblemKind::EntryUnusable => format!("cargo infra add-site {site} --overwrite{option}"),
        _ => format!("cargo infra reconcile apply --site {site}{option} tries again, and shows the reason and the fix"),
    }
}

fn alarms(Readings { alarms, .. }: &Readings) -> Part {
    let raised = alarms.iter().filter(|alarm| alarm.is_raised());
    let finding = |alarm: &super::readings::Alarm| {
        let (what, fix) = alarm.description.split_once(" Fix: ").unwrap_or((&alarm.description, &alarm.reason));
        Finding::wrong(format!("alarm {}: {what}", alarm.name), fix)
    };
    let findings: Vec<_> = raised.map(finding).collect();
    let quiet = alarms.len() - findings.len();
    let raised = if findings.is_empty() { String::new() } else { format!("{} raised, ", findings.len()) };
    part("alarms", findings, format!("{raised}{quiet} quiet"))
}

fn last_event(Readings { last_event, stack, sites, .. }: &Readings, now: OffsetDateTime) -> Part {
    let option = stack_option(&stack.name);
    let (mark, text) = match last_event {
        Some(event) => (Mark::Good, format!("{} of {}, {}", event.event, event.site, format_age(now - event.at))),
        None if sites.is_empty() => (Mark::Notable, "none yet".to_owned()),
        None => {
            let next = format!("none in the last 24 h; to have Tableau send some: cargo infra test{option}");
            (Mark::Notable, next)
        }
    };
    (Vec::new(), Row { mark, label: "last event", text })
}

fn last_run(readings: &Readings, now: OffsetDateTime) -> Part {
    let Readings { last_run, stack, sites, .. } = readings;
    let option = stack_option(&stack.name);
    let mut findings = Vec::new();
    let last = last_run.as_ref().map(|run| run.at).or(stack.created_at);
    if last.is_some_and(|at| now - at > stack.max_time_without_run) {
        findings.push(Finding::wrong(
            "the reconciler has not run for too long. Webhooks that Tableau disables stay disabled.",
            format!(
                "cargo infra reconcile apply{option}, then check that the schedule is enabled: aws scheduler list-schedules \
                 --name-prefix {}",
                stack.name
            ),
        ));
    }
    let Some(LastRun { at, action, succeeded, message, .. }) = last_run else {
        let (mark, text) = (Mark::of(&findings).max(Mark::Notable), "none in the last 24 h; the schedule starts one");
        return (findings, Row { mark, label: "last run", text: text.to_owned() });
    };
    // A site's problem has its own finding.
    if !succeeded && sites.iter().all(|site| site.problems.is_empty()) {
        findings.push(Finding::wrong(
            format!("the last run failed: {message}."),
            format!("cargo infra reconcile apply{option} tries again, and shows the reason and the fix"),
        ));
    }
    let mark = if *succeeded { Mark::of(&findings) } else { Mark::Wrong };
    (findings, Row { mark, label: "last run", text: format!("{action}, {}: {message}", format_age(now - *at)) })
}

fn subscribers(Readings { subscribers, .. }: &Readings) -> Part {
    part("subscribers", subscribers.finding().into_iter().collect(), subscribers.short())
}

/// Formats how long ago something was.
fn format_age(age: time::Duration) -> String {
    let seconds = age.whole_seconds();
    match seconds {
        ..5 => "just now".to_owned(),
        5..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        _ => format!("{} h ago", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anstream::adapter::strip_str;
    use shared::{problems::ProblemKey, sites::token_end::TokenEnd};
    use time::{Duration as Time, macros::datetime};

    use super::*;
    use crate::{
        commands::status::readings::{Alarm, LastEvent},
        subscriptions::{Filter, Subscribers, Subscription},
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
            },
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
}
