//! The overview of a stack: what is wrong, and a line about each part. Computed from what was read, without AWS.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shared::{problems::ProblemKind, sites::commands::stack_option, timestamp::Timestamp};
use time::OffsetDateTime;

use super::{
    readings::{LastRun, Readings, SiteReading, StackReading},
    row::{Mark, Part, Row, named, part},
    targets, version,
};
use crate::{findings::Finding, stack::Condition};

/// The overview.
#[derive(Debug)]
pub(in crate::commands) struct Overview {
    /// Problems first, then what only deserves a look.
    pub(in crate::commands) findings: Vec<Finding>,
    rows: Vec<Row>,
}

impl Overview {
    /// Computes the overview at a time.
    pub(in crate::commands) fn of(readings: &Readings, now: OffsetDateTime) -> Self {
        let parts = [
            stack(readings),
            sites(readings, now),
            alarms(readings),
            last_event(readings, now),
            last_run(readings, now),
            subscribers(readings),
            targets::part_of(readings),
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
    pub(in crate::commands) fn problems(&self) -> usize {
        self.findings.iter().filter(|finding| finding.is_wrong).count()
    }

    /// Formats it for a terminal.
    pub(in crate::commands) fn lines(&self) -> Vec<String> {
        let findings = self.findings.iter().flat_map(Finding::lines);
        findings.chain(self.rows.iter().map(Row::line)).collect()
    }

    /// Formats it, with what was read, for a program.
    pub(in crate::commands) fn json(&self, readings: &Readings) -> Value {
        let Readings { stack, alarms, sites, last_event, last_run, subscribers, targets } = readings;
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
            "targets": targets,
        })
    }
}

/// The JSON of a stack that does not work, or that cannot be read.
pub(in crate::commands) fn unreadable(error: &str) -> Value {
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
        "targets": null,
    })
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

fn alarms(readings: &Readings) -> Part {
    let Readings { alarms, .. } = readings;
    // The dead letters of a target have a finding of their own, with the last error.
    let raised = alarms.iter().filter(|alarm| alarm.is_raised());
    let quiet = alarms.len() - raised.clone().count();
    let raised = raised.filter(|alarm| !targets::reports(readings, &alarm.name));
    let finding = |alarm: &super::readings::Alarm| {
        let (what, fix) = alarm.description.split_once(" Fix: ").unwrap_or((&alarm.description, &alarm.reason));
        Finding::wrong(format!("alarm {}: {what}", alarm.name), fix)
    };
    let findings: Vec<_> = raised.map(finding).collect();
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
    part("subscribers", subscribers.findings(), subscribers.short())
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
mod tests;
