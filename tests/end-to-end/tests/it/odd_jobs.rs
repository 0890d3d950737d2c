//! One odd job among others keeps none of the others from being published, and is named once.

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

/// Name of what the odd job refreshes.
const ODD: &str = "Sales \"odd\" 📈";

/// Identifier of the same, which messages hold as it is.
const ODD_LUID: &str = "luid-of-odd";

/// The runs after an oddity began, a quarter of an hour apart.
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

    /// Lets a refresh end at the first site or the second, a second after the one before it.
    fn ended(&self, at: usize, job: Job) -> anyhow::Result<()> {
        site(self.tableau, &self.names[at], |site| {
            for job in &mut site.jobs {
                job.started_at -= Duration::SECOND;
                job.ended_at -= Duration::SECOND;
            }
            site.jobs.push(job);
        })
    }

    fn odd(&self, oddities: &Oddities) -> anyhow::Result<()> {
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

/// Returns what is published of failed refreshes.
fn both(ids: &[&str]) -> Vec<String> {
    let both = |id: &&str| ["RefreshFailureExplained", "WorkbookRefreshFailed"].map(|it| format!("{it} luid-of-{id}"));
    let mut both: Vec<_> = ids.iter().flat_map(both).collect();
    both.sort();
    both
}

/// Returns everything that lines of a log give up.
fn given_up(lines: &[String]) -> anyhow::Result<Vec<Value>> {
    let mut given_up = Vec::new();
    for line in lines {
        let line: Value = serde_json::from_str(line)?;
        given_up.extend(line["not_recovered"].as_array().cloned().unwrap_or_default());
    }
    Ok(given_up)
}

#[tokio::test]
async fn one_odd_job_is_named_once_and_everything_else_is_published_in_the_same_run() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let only = || JobOddities { only: Some(ODD.to_owned()), ..JobOddities::default() };
    let row = |row| JobOddities { row: Some(row), ..only() };
    let detail = |detail| JobOddities { detail: Some(detail), ..only() };
    let unlisted = "its row has no identifier";
    let cases = [
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
    ];
    let cases = cases.into_iter().enumerate().map(async |(number, (jobs, reason))| {
        let sites = Sites::start(&tableau, number).await?;
        for id in ["j1", "odd", "j2"] {
            sites.ended(0, failed(id))?;
        }
        sites.ended(1, failed("j3"))?;
        sites.odd(&Oddities { jobs, ..Oddities::default() })?;
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
        let logged = given_up(&sites.declared.log())?;
        anyhow::ensure!(logged.len() == 1 && logged[0]["reason"] == named[0].reason, "{reason}: {logged:?}");
        let subjects = sites.declared.topics.take_subjects();
        let alerts = subjects.iter().filter(|subject| subject.ends_with("refreshes may be missing")).count();
        anyhow::ensure!(alerts == 1, "{reason}: {subjects:?}");
        // Nobody asks for it any more.
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
async fn an_odd_row_is_named_though_sns_stops_the_run_half_way() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let sites = Sites::start(&tableau, 0).await?;
    for id in ["odd", "j1", "j2"] {
        sites.ended(0, failed(id))?;
    }
    let jobs = JobOddities { only: Some(ODD.to_owned()), row: Some(OddRow::WithoutId), ..JobOddities::default() };
    sites.odd(&Oddities { jobs, ..Oddities::default() })?;
    sites.pass(10)?;
    sites.declared.topics.take_alerts();
    let takes = |events| {
        if let Ok(mut taken) = sites.declared.topics.events_taken.lock() {
            *taken = events;
        }
    };
    let mut named = Vec::new();
    // Both events of one job are taken, and none of the next.
    for events in [Some(2), None, None] {
        takes(events);
        // A run that could not publish fails, with its reports in the log.
        drop(sites.declared.apply().await?);
        sites.pass(15)?;
    }
    for line in given_up(&sites.declared.log())? {
        named.push(line["reason"].clone());
    }
    assert_eq!(named, ["its row has no identifier"]);
    assert_eq!(sites.published(), both(&["j1", "j2"]));
    Ok(())
}

#[tokio::test]
async fn an_event_that_sns_never_takes_is_named_once_and_everything_else_is_published_in_the_same_run()
-> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let all = "SNS refuses its WorkbookRefreshFailed: the message is refused for good: InvalidParameterException: \
               Invalid parameter: Message; SNS refuses its RefreshFailureExplained: the message is refused for good: \
               InvalidParameterException: Invalid parameter: Message";
    let one = "SNS refuses its RefreshFailureExplained: the message is refused for good: InvalidParameterException: \
               Invalid parameter: Message";
    // The reason stands in the explanation alone.
    for (number, (refused, reason)) in [(ODD_LUID, all), ("a reason that SNS never takes", one)].into_iter().enumerate()
    {
        let sites = Sites::start(&tableau, number).await?;
        let notes = Some("a reason that SNS never takes".to_owned());
        for job in [failed("j1"), Job { notes, ..failed("odd") }, failed("j2")] {
            sites.ended(0, job)?;
        }
        sites.ended(1, failed("j3"))?;
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
        assert_eq!(given_up(&sites.declared.log())?.len(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn jobs_that_are_counted_and_never_listed_hinder_nothing_and_the_report_says_so() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let cases = [None, Some(2), Some(3)].into_iter().flat_map(|size| [(size, false), (size, true)]);
    let cases = cases.enumerate().map(async |(number, (page_size, pages_go_on))| {
        let sites = Sites::start(&tableau, number).await?;
        for id in ["j1", "j2", "j3"] {
            sites.ended(0, failed(id))?;
        }
        sites.pass(10)?;
        // The webhooks come on one page.
        let jobs = JobOddities { not_listed: 2, pages_go_on, ..JobOddities::default() };
        sites.odd(&Oddities { page_size, jobs, ..Oddities::default() })?;
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
async fn a_fault_of_all_jobs_that_passes_within_an_hour_loses_nothing() -> anyhow::Result<()> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let ids: Vec<_> = (0..12).map(|number| format!("j{number:02}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let details = [OddDetail::ServerError, OddDetail::Page, OddDetail::NotFoundPage, OddDetail::Broken];
    let cases = details.into_iter().enumerate().map(async |(number, detail)| {
        let sites = Sites::start(&tableau, number).await?;
        ids.iter().try_for_each(|id| sites.ended(0, failed(id)))?;
        sites.ended(1, failed("other"))?;
        sites.pass(10)?;
        let jobs = JobOddities { detail: Some(detail), ..JobOddities::default() };
        sites.odd(&Oddities { jobs, ..Oddities::default() })?;
        for _ in 0..3 {
            sites.apply().await?;
            assert_eq!(sites.published(), both(&["other"]), "{detail:?}");
            sites.pass(15)?;
        }
        sites.odd(&Oddities::default())?;
        sites.apply().await?;
        assert_eq!(sites.published(), both(&[&ids[..], &["other"]].concat()), "{detail:?}");
        assert_eq!(given_up(&sites.declared.log())?, [Value::Null; 0], "{detail:?}");
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
        let id = |what: &str| format!("{what}-{is_incremental}");
        sites.ended(0, Job { is_incremental, is_via_bridge: true, ..failed(&id("failed")) })?;
        let outcome = RefreshOutcome::Succeeded;
        let kind = RefreshKind::Datasource;
        sites.ended(0, Job { is_incremental, is_via_bridge: true, outcome, kind, ..failed(&id("succeeded")) })?;
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
async fn the_reason_of_a_failure_is_found_in_every_place_and_without_secrets() -> anyhow::Result<()> {
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
        sites.ended(0, Job { notes: Some(reason), ..failed("j1") })?;
        sites.pass(10)?;
        let jobs = JobOddities { notes, ..JobOddities::default() };
        sites.odd(&Oddities { jobs, ..Oddities::default() })?;
        sites.apply().await?;
        let events = sites.declared.topics.events();
        let explained = events.iter().find(|event| event.body.contains("RefreshFailureExplained"));
        let body: Value = serde_json::from_str(&explained.context("nothing is explained")?.body)?;
        let told = body["data"]["notes"].as_str().unwrap_or_default();
        assert!(told.contains("Login failed for server=db.example"), "{notes:?}: {body}");
        let alerts = sites.declared.topics.take_alerts();
        assert!(alerts.iter().any(|alert| alert.body.contains("Login failed for server=db.example")), "{notes:?}");
        let everything = format!("{events:?} {alerts:?} {:?}", sites.declared.log());
        assert!(!everything.contains("hunter2"), "{notes:?}: {everything}");
        anyhow::Ok(())
    });
    try_join_all(cases).await?;
    Ok(())
}
