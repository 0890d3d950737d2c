//! Unreadable jobs among others. The others are published, and each unreadable job is reported once.

use anyhow::Context;
use axum::http::StatusCode;
use end_to_end::{
    declared::{Declared, site},
    destination::Destination,
};
use futures_util::future::{join_all, try_join_all};
use reconciler::report::SiteReport;
use serde_json::Value;
use shared::events::cloud_event::EventMessage;
use tableau_simulator::{
    model::{Job, JobOddities, NotesShape, OddDetail, OddRow, Oddities, RefreshKind, RefreshOutcome},
    server::{Running, Simulator},
};
use time::Duration;

use crate::refreshes::{failed, pass};

/// Name of the odd job's resource.
const ODD: &str = "Sales \"odd\" 📈";

/// Identifier of the odd job's resource, which messages have unescaped.
const ODD_LUID: &str = "luid-of-odd";

/// Number of runs with an oddity, a quarter of an hour apart.
const ROUNDS: usize = 7;

/// Two sites whose webhooks are disabled, and a reconciler.
struct Sites<'a> {
    tableau: &'a Running,
    declared: Declared,
    names: [String; 2],
}

impl<'a> Sites<'a> {
    async fn start(tableau: &'a Running, number: usize) -> anyhow::Result<Self> {
        let names = ["a", "b"].map(|letter| format!("odd-{number}-{letter}"));
        let mut declared = Declared::sites(tableau, &names.each_ref().map(String::as_str));
        declared.recover_hours = "24";
        declared.events = "WorkbookRefreshFailed,DatasourceRefreshSucceeded";
        let sites = Self { tableau, declared, names };
        sites.declared.apply().await??;
        sites.pass(15)?;
        for name in &sites.names {
            site(tableau, name, |site| site.webhooks.iter_mut().for_each(|webhook| webhook.disable(None)))?;
        }
        Ok(sites)
    }

    fn pass(&self, minutes: i64) -> anyhow::Result<()> {
        let names = self.names.each_ref().map(String::as_str);
        pass(self.tableau, &self.declared, &names, Duration::minutes(minutes))
    }

    /// Adds a job to the first site or the second, a second after the previous job.
    fn add_job(&self, at: usize, job: Job) -> anyhow::Result<()> {
        site(self.tableau, &self.names[at], |site| {
            for job in &mut site.jobs {
                job.started_at -= Duration::SECOND;
                job.ended_at -= Duration::SECOND;
            }
            site.jobs.push(job);
        })
    }

    fn set_oddities(&self, oddities: &Oddities) -> anyhow::Result<()> {
        site(self.tableau, &self.names[0], |site| site.oddities = oddities.clone())
    }

    async fn apply(&self) -> anyhow::Result<Vec<SiteReport>> {
        Ok(self.declared.apply().await??.sites)
    }

    /// Returns the published events, as type and resource, sorted.
    fn published(&self) -> Vec<String> {
        let attribute = |event: &EventMessage, name: &str| event.attributes.get(name).cloned().unwrap_or_default();
        let mut published: Vec<_> = (self.declared.topics.events().iter())
            .map(|event| format!("{} {}", attribute(event, "event_type"), attribute(event, "resource_luid")))
            .collect();
        published.sort();
        published
    }
}

/// Returns the published events of failed refreshes.
fn both(ids: &[&str]) -> Vec<String> {
    let both = |id: &&str| ["RefreshFailureExplained", "WorkbookRefreshFailed"].map(|it| format!("{it} luid-of-{id}"));
    let mut both: Vec<_> = ids.iter().flat_map(both).collect();
    both.sort();
    both
}

/// Returns the refreshes that log lines report as not recovered.
fn not_recovered(lines: &[String]) -> anyhow::Result<Vec<Value>> {
    let mut not_recovered = Vec::new();
    for line in lines {
        let line: Value = serde_json::from_str(line)?;
        not_recovered.extend(line["not_recovered"].as_array().cloned().unwrap_or_default());
    }
    Ok(not_recovered)
}

/// Returns the oddities of one job, each with the reason in the report.
fn unreadable_jobs() -> [(JobOddities, &'static str); 16] {
    let only = || JobOddities { only: Some(ODD.to_owned()), ..JobOddities::default() };
    let row = |row| JobOddities { row: Some(row), ..only() };
    let detail = |detail| JobOddities { detail: Some(detail), ..only() };
    let unlisted = "its row has no identifier";
    [
        (row(OddRow::WithoutId), unlisted),
        (row(OddRow::Null), unlisted),
        (row(OddRow::Number), unlisted),
        (row(OddRow::Text), unlisted),
        (detail(OddDetail::NotQueryable), "Tableau does not show it (400031)"),
        (detail(OddDetail::Forbidden), "Tableau does not show it (403004)"),
        (detail(OddDetail::NotFound), "Tableau does not show it (404031)"),
        (detail(OddDetail::Null), "Tableau's answer holds no job"),
        (detail(OddDetail::ServerError), "500 Internal Server Error (500000)"),
        (detail(OddDetail::Page), "it is not JSON"),
        (detail(OddDetail::NotFoundPage), "404 Not Found"),
        (detail(OddDetail::Broken), "got no answer"),
        (JobOddities { without_resource: true, ..only() }, "it does not say what it refreshed"),
        (JobOddities { without_end: true, ..only() }, "it does not say when it ended"),
        (
            JobOddities { finish_code: Some("4".to_owned()), ..only() },
            "it has a finish code that this release does not know",
        ),
        (JobOddities { finish_code: Some("0".to_owned()), ..only() }, "its finish code contradicts its status"),
    ]
}

#[tokio::test]
async fn an_odd_job_is_reported_once_and_other_jobs_are_published_in_the_same_run() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let cases = unreadable_jobs().into_iter().enumerate().map(async |(number, (jobs, reason))| {
        let sites = Sites::start(&tableau, number).await?;
        for id in ["j1", "odd", "j2"] {
            sites.add_job(0, failed(id))?;
        }
        sites.add_job(1, failed("j3"))?;
        sites.set_oddities(&Oddities { jobs, ..Oddities::default() })?;
        sites.pass(10)?;
        sites.declared.topics.take_alerts();
        let mut named = Vec::new();
        for round in 0..ROUNDS {
            let reports = sites.apply().await.with_context(|| format!("{reason}, round {round}"))?;
            anyhow::ensure!(sites.published() == both(&["j1", "j2", "j3"]), "{reason}: {:?}", sites.published());
            named.extend(reports.into_iter().flat_map(|report| report.not_recovered));
            sites.pass(15)?;
        }
        anyhow::ensure!(named.len() == 1 && named[0].to_string().contains(reason), "{reason}: {named:?}");
        let logged = not_recovered(&sites.declared.log())?;
        anyhow::ensure!(logged.len() == 1 && logged[0]["reason"] == named[0].reason, "{reason}: {logged:?}");
        let subjects = sites.declared.topics.take_subjects();
        let alerts = subjects.iter().filter(|subject| subject.ends_with("refreshes may be missing")).count();
        anyhow::ensure!(alerts == 1, "{reason}: {subjects:?}");
        // Later runs do not ask for it.
        site(&tableau, &sites.names[0], |site| site.calls.clear())?;
        sites.apply().await?;
        let calls = site(&tableau, &sites.names[0], |site| site.calls.clone())?;
        anyhow::ensure!(calls.iter().filter(|call| call.contains("/jobs")).count() == 1, "{reason}: {calls:?}");
        anyhow::Ok(())
    });
    let failures: Vec<_> = join_all(cases).await.into_iter().filter_map(Result::err).collect();
    anyhow::ensure!(failures.is_empty(), "{failures:#?}");
    Ok(())
}

#[tokio::test]
async fn an_odd_row_is_reported_although_sns_stops_the_run() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let sites = Sites::start(&tableau, 0).await?;
    for id in ["odd", "j1", "j2"] {
        sites.add_job(0, failed(id))?;
    }
    let jobs = JobOddities { only: Some(ODD.to_owned()), row: Some(OddRow::WithoutId), ..JobOddities::default() };
    sites.set_oddities(&Oddities { jobs, ..Oddities::default() })?;
    sites.pass(10)?;
    sites.declared.topics.take_alerts();
    let accept = |events| {
        if let Ok(mut accepted) = sites.declared.topics.events_taken.lock() {
            *accepted = events;
        }
    };
    let mut named = Vec::new();
    // SNS accepts both events of one job, and none of the next.
    for events in [Some(2), None, None] {
        accept(events);
        // A run that could not publish fails, with its reports in the log.
        drop(sites.declared.apply().await?);
        sites.pass(15)?;
    }
    for line in not_recovered(&sites.declared.log())? {
        named.push(line["reason"].clone());
    }
    assert_eq!(named, ["its row has no identifier"]);
    assert_eq!(sites.published(), both(&["j1", "j2"]));
    Ok(())
}

#[tokio::test]
async fn an_event_that_sns_refuses_is_reported_once_and_others_are_published() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let all = "SNS refuses its WorkbookRefreshFailed: the message is refused for good: InvalidParameterException: \
               Invalid parameter: Message; SNS refuses its RefreshFailureExplained: the message is refused for good: \
               InvalidParameterException: Invalid parameter: Message";
    let one = "SNS refuses its RefreshFailureExplained: the message is refused for good: InvalidParameterException: \
               Invalid parameter: Message";
    // Only the explanation has the reason.
    for (number, (refused, reason)) in [(ODD_LUID, all), ("a reason that SNS refuses", one)].into_iter().enumerate() {
        let sites = Sites::start(&tableau, number).await?;
        let notes = Some("a reason that SNS refuses".to_owned());
        for job in [failed("j1"), Job { notes, ..failed("odd") }, failed("j2")] {
            sites.add_job(0, job)?;
        }
        sites.add_job(1, failed("j3"))?;
        sites.pass(10)?;
        if let Ok(mut text) = sites.declared.topics.refused.lock() {
            *text = Some(refused.to_owned());
        }
        let mut expected = both(&["j1", "j2", "j3"]);
        if reason == one {
            expected.push("WorkbookRefreshFailed luid-of-odd".to_owned());
            expected.sort();
        }
        let mut named = Vec::new();
        for _ in 0..ROUNDS {
            let reports = sites.apply().await?;
            assert_eq!(sites.published(), expected);
            named.extend(reports.into_iter().flat_map(|report| report.not_recovered));
            sites.pass(15)?;
        }
        assert_eq!(named.iter().map(|named| &*named.reason).collect::<Vec<_>>(), [reason]);
        assert_eq!(not_recovered(&sites.declared.log())?.len(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn jobs_that_are_counted_and_not_listed_are_reported() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let cases = [None, Some(2), Some(3)].into_iter().flat_map(|size| [(size, false), (size, true)]);
    let cases = cases.enumerate().map(async |(number, (page_size, pages_go_on))| {
        let sites = Sites::start(&tableau, number).await?;
        for id in ["j1", "j2", "j3"] {
            sites.add_job(0, failed(id))?;
        }
        sites.pass(10)?;
        // All webhooks fit on one page.
        let jobs = JobOddities { not_listed: 2, pages_go_on, ..JobOddities::default() };
        sites.set_oddities(&Oddities { page_size, jobs, ..Oddities::default() })?;
        let reports = sites.apply().await?;
        assert_eq!(sites.published(), both(&["j1", "j2", "j3"]), "{page_size:?}");
        assert_eq!(reports[0].not_recovered, []);
        let note = "Tableau counts 5 of its refreshes in this time and lists 3.";
        assert!(reports[0].notes.contains(&note.to_owned()), "{:?}", reports[0].notes);
        sites.pass(15)?;
        sites.apply().await?;
        assert_eq!(sites.published(), both(&["j1", "j2", "j3"]), "{page_size:?}");
        anyhow::Ok(())
    });
    try_join_all(cases).await?;
    Ok(())
}

#[tokio::test]
async fn a_fault_of_all_jobs_within_an_hour_loses_no_event() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let ids: Vec<_> = (0..12).map(|number| format!("j{number:02}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let details = [OddDetail::ServerError, OddDetail::Page, OddDetail::NotFoundPage, OddDetail::Broken];
    let cases = details.into_iter().enumerate().map(async |(number, detail)| {
        let sites = Sites::start(&tableau, number).await?;
        ids.iter().try_for_each(|id| sites.add_job(0, failed(id)))?;
        sites.add_job(1, failed("other"))?;
        sites.pass(10)?;
        let jobs = JobOddities { detail: Some(detail), ..JobOddities::default() };
        sites.set_oddities(&Oddities { jobs, ..Oddities::default() })?;
        for _ in 0..3 {
            sites.apply().await?;
            assert_eq!(sites.published(), both(&["other"]), "{detail:?}");
            sites.pass(15)?;
        }
        sites.set_oddities(&Oddities::default())?;
        sites.apply().await?;
        assert_eq!(sites.published(), both(&[&ids[..], &["other"]].concat()), "{detail:?}");
        assert_eq!(not_recovered(&sites.declared.log())?, [Value::Null; 0], "{detail:?}");
        anyhow::Ok(())
    });
    try_join_all(cases).await?;
    Ok(())
}

#[tokio::test]
async fn refreshes_via_bridge_are_recovered_and_explained_like_others() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let sites = Sites::start(&tableau, 0).await?;
    for is_incremental in [false, true] {
        let id = |outcome: &str| format!("{outcome}-{is_incremental}");
        sites.add_job(0, Job { is_incremental, is_via_bridge: true, ..failed(&id("failed")) })?;
        let outcome = RefreshOutcome::Succeeded;
        let kind = RefreshKind::Datasource;
        sites.add_job(0, Job { is_incremental, is_via_bridge: true, outcome, kind, ..failed(&id("succeeded")) })?;
    }
    sites.pass(10)?;
    let reports = sites.apply().await?;
    assert_eq!(reports[0].not_recovered, []);
    let mut expected = both(&["failed-false", "failed-true"]);
    expected.extend(["false", "true"].map(|it| format!("DatasourceRefreshSucceeded luid-of-succeeded-{it}")));
    expected.sort();
    assert_eq!(sites.published(), expected);
    Ok(())
}

#[tokio::test]
async fn the_reason_of_a_failure_is_read_in_every_shape_without_secrets() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let shapes = [
        NotesShape::Text,
        NotesShape::List,
        NotesShape::Beside,
        NotesShape::StatusNotes,
        NotesShape::LoneStatusNote,
        NotesShape::StatusValue,
    ];
    let cases = shapes.into_iter().enumerate().map(async |(number, notes)| {
        let sites = Sites::start(&tableau, number).await?;
        let reason = "Login failed for server=db.example;Pwd=hunter2;".to_owned();
        sites.add_job(0, Job { notes: Some(reason), ..failed("j1") })?;
        sites.pass(10)?;
        let jobs = JobOddities { notes, ..JobOddities::default() };
        sites.set_oddities(&Oddities { jobs, ..Oddities::default() })?;
        sites.apply().await?;
        let events = sites.declared.topics.events();
        let explained = events.iter().find(|event| event.body.contains("RefreshFailureExplained"));
        let body: Value = serde_json::from_str(&explained.context("no explanation")?.body)?;
        let reason = body["data"]["notes"].as_str().unwrap_or_default();
        assert!(reason.contains("Login failed for server=db.example"), "{notes:?}: {body}");
        let alerts = sites.declared.topics.take_alerts();
        assert!(alerts.iter().any(|alert| alert.body.contains("Login failed for server=db.example")), "{notes:?}");
        let outputs = format!("{events:?} {alerts:?} {:?}", sites.declared.log());
        assert!(!outputs.contains("hunter2"), "{notes:?}: {outputs}");
        anyhow::Ok(())
    });
    try_join_all(cases).await?;
    Ok(())
}
