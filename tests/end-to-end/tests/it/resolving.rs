//! Ends of failures: resources that refresh again, and resources that are not refreshed any more.

use std::collections::BTreeSet;

use anyhow::Context;
use axum::http::{Method, StatusCode};
use end_to_end::{
    declared::{Declared, site},
    destination::Destination,
};
use reconciler::{failure::Failure, report::SiteReport, request::Action};
use serde_json::{Value, json};
use shared::{alerts::message::AlertMessage, refreshes::event_log::JobEventRecord, timestamp::Timestamp};
use tableau_simulator::{
    content::ContentOddities,
    model::{Job, OddDetail, RefreshOutcome},
    server::{Running, Simulator},
};
use time::{Duration, OffsetDateTime};

use crate::{
    refreshes::{failed, pass},
    tableau::control,
};

const SITE: &str = "marketing";

/// A site with one workbook, `Sales`, and a reconciler that has run once.
struct Resolving {
    tableau: Running,
    declared: Declared,
    _destination: Destination,
}

impl Resolving {
    async fn start() -> anyhow::Result<Self> {
        let destination = Destination::answering(StatusCode::OK).await?;
        let tableau = Simulator::start(Some(destination.address.clone())).await?;
        let mut declared = Declared::sites(&tableau, &[SITE]);
        (declared.recover_hours, declared.events) = ("24", "WorkbookRefreshFailed");
        declared.apply().await??;
        let resolving = Self { tableau, declared, _destination: destination };
        resolving.pass(15)?;
        Ok(resolving)
    }

    fn pass(&self, minutes: i64) -> anyhow::Result<()> {
        pass(&self.tableau, &self.declared, &[SITE], Duration::minutes(minutes))
    }

    /// Ends a refresh of a workbook now.
    fn refresh(&self, id: &str, name: &str, outcome: RefreshOutcome) -> anyhow::Result<()> {
        let job = Job { luid: format!("luid-of-{name}"), name: name.to_owned(), outcome, ..failed(id) };
        site(&self.tableau, SITE, |site| site.jobs.push(job))
    }

    fn fail(&self, id: &str) -> anyhow::Result<()> {
        self.refresh(id, "Sales", RefreshOutcome::Failed)
    }

    fn succeed(&self, id: &str) -> anyhow::Result<()> {
        self.refresh(id, "Sales", RefreshOutcome::Succeeded)
    }

    fn set_oddities(&self, content: ContentOddities) -> anyhow::Result<()> {
        site(&self.tableau, SITE, |site| site.oddities.content = content)
    }

    /// Lets 15 minutes pass, and runs the reconciler.
    async fn apply(&self) -> anyhow::Result<SiteReport> {
        self.pass(15)?;
        site(&self.tableau, SITE, |site| site.calls.clear())?;
        self.declared.apply_to_first().await
    }

    /// Returns the calls of the last run between its list of webhooks and its end.
    fn calls(&self) -> anyhow::Result<Vec<String>> {
        let calls = site(&self.tableau, SITE, |site| site.calls.clone())?;
        let tokens = |call: &String| !call.ends_with("/personal-access-tokens");
        let calls = calls.iter().filter(|call| tokens(call)).map(|call| call.trim_start_matches("GET sites/{site}/"));
        let calls = calls.map(|call| if call.starts_with("users/") { "users/{user}" } else { call });
        let calls: Vec<_> = calls.map(str::to_owned).collect();
        Ok(calls.get(2..calls.len() - 1).context("no calls")?.to_vec())
    }

    /// Returns the resolutions on the events topic.
    fn resolved(&self) -> anyhow::Result<Vec<Value>> {
        let events = self.declared.topics.events();
        let resolved = events.iter().filter(|event| event.attributes["event_type"] == "RefreshFailureResolved");
        resolved.map(|event| Ok(serde_json::from_str(&event.body)?)).collect()
    }

    fn subjects(&self) -> Vec<String> {
        self.declared.topics.take_subjects()
    }

    /// Returns the log records of published events.
    fn records(&self) -> Vec<JobEventRecord> {
        self.declared.log().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Whether the state has a failing resource.
    fn has_failing(&self) -> bool {
        let resources = &self.declared.table.content("failing#marketing")["resources"];
        resources.as_object().is_some_and(|resources| !resources.is_empty())
    }

    async fn control(&self, path: &str) -> anyhow::Result<()> {
        let body = json!({ "site": SITE, "kind": "workbook", "name": "Sales" });
        let (status, answer) = control(&self.tableau, Method::DELETE, path, &body).await?;
        anyhow::ensure!(status == StatusCode::NO_CONTENT, "{answer}");
        Ok(())
    }
}

fn thread_of(AlertMessage { body, .. }: &AlertMessage) -> anyhow::Result<Value> {
    let texts: Value = serde_json::from_str(body)?;
    let card: Value = serde_json::from_str(texts["https"].as_str().context("no card")?)?;
    Ok(card["metadata"]["threadId"].clone())
}

/// An answer to the list of tasks, instead of it.
fn tasks(detail: OddDetail) -> ContentOddities {
    ContentOddities { tasks: Some(detail), ..ContentOddities::default() }
}

#[tokio::test]
async fn a_resource_that_refreshes_again_is_resolved_once_with_one_more_call_while_it_fails() -> anyhow::Result<()> {
    let resolving = Resolving::start().await?;
    resolving.apply().await?;
    assert_eq!(resolving.calls()?, ["jobs"]);
    resolving.fail("f1")?;
    resolving.apply().await?;
    resolving.pass(60)?;
    resolving.fail("f2")?;
    resolving.apply().await?;
    let explained = resolving.declared.topics.take_alerts();
    resolving.apply().await?;
    assert_eq!(resolving.calls()?, ["jobs", "tasks/extractRefreshes"]);

    resolving.succeed("s1")?;
    // A run that only explains leaves it to the schedule.
    resolving.declared.run(Action::Explain, None).await??;
    assert_eq!(resolving.resolved()?.len(), 0);
    let report = resolving.apply().await?;
    let calls = ["jobs", "tasks/extractRefreshes", "workbooks/luid-of-Sales", "users/{user}"];
    assert_eq!(resolving.calls()?, calls);
    let resolved = &report.resolved[0];
    assert_eq!((report.resolved.len(), resolved.failures, resolved.job.as_deref()), (1, 2, None));
    assert_eq!(resolved.resource, "workbook \"Sales\"");
    let events = resolving.resolved()?;
    let data = &events[0]["data"];
    assert_eq!((&data["failures"], &data["failed_job_id"], &data["job_id"]), (&json!(2), &json!("f2"), &Value::Null));
    assert_eq!((&data["project"]["name"], &data["owner"]["name"]), (&json!("Default"), &json!("Ada Lovelace")));
    let alerts = resolving.declared.topics.take_alerts();
    assert_eq!(alerts.len(), 1);
    assert_eq!(alerts[0].subject, "Tableau marketing: workbook refresh works again: Sales");
    assert_eq!(thread_of(&alerts[0])?, thread_of(&explained[0])?);

    assert_eq!(resolving.apply().await?.resolved, []);
    assert_eq!(resolving.calls()?, ["jobs"]);
    assert_eq!((resolving.resolved()?.len(), resolving.has_failing()), (1, false));
    Ok(())
}

#[tokio::test]
async fn successful_jobs_show_what_the_tasks_do_not() -> anyhow::Result<()> {
    let without_count =
        ContentOddities { missing: vec!["consecutiveFailedCount".to_owned()], ..ContentOddities::default() };
    for oddities in [tasks(OddDetail::ServerError), tasks(OddDetail::Forbidden), tasks(OddDetail::Null), without_count]
    {
        let resolving = Resolving::start().await?;
        resolving.succeed("before")?;
        resolving.pass(5)?;
        resolving.fail("f1")?;
        resolving.apply().await?;
        resolving.set_oddities(oddities)?;
        resolving.refresh("other", "Other", RefreshOutcome::Succeeded)?;
        assert_eq!(resolving.apply().await?.resolved, []);
        let jobs = |calls: Vec<String>| calls.into_iter().filter(|call| call.starts_with("jobs/")).collect::<Vec<_>>();
        // Only what ended after the failure is read, and once.
        assert_eq!(jobs(resolving.calls()?), ["jobs/other"]);
        resolving.succeed("s1")?;
        resolving.pass(10)?;
        let report = resolving.apply().await?;
        assert_eq!(jobs(resolving.calls()?), ["jobs/s1"]);
        assert_eq!(report.resolved[0].job.as_deref(), Some("s1"));
        assert!(report.resolved[0].to_string().contains("works again after 1 failure since"), "{report:?}");
        let events = resolving.resolved()?;
        assert_eq!((events.len(), &events[0]["data"]["job_id"]), (1, &json!("s1")));
        assert!(
            events[0]["data"]["duration_seconds"].as_i64().is_some_and(|it| (1800..1900).contains(&it)),
            "{events:?}"
        );
        assert_eq!((resolving.apply().await?.resolved, resolving.has_failing()), (vec![], false));
    }
    Ok(())
}

#[tokio::test]
async fn a_resolution_that_sns_does_not_accept_is_published_by_the_next_run() -> anyhow::Result<()> {
    for oddities in [ContentOddities::default(), tasks(OddDetail::ServerError)] {
        let resolving = Resolving::start().await?;
        resolving.fail("f1")?;
        resolving.apply().await?;
        resolving.set_oddities(oddities)?;
        resolving.succeed("s1")?;
        resolving.subjects();
        let set_taken = |taken| {
            if let Ok(mut events) = resolving.declared.topics.events_taken.lock() {
                *events = taken;
            }
        };
        set_taken(Some(0));
        resolving.pass(15)?;
        let Err(Failure::Refreshes(report)) = resolving.declared.apply().await? else { anyhow::bail!("it succeeded") };
        assert_eq!((report.sites[0].resolved.len(), report.sites[0].refreshes_left), (0, 1));
        assert!(resolving.has_failing() && resolving.subjects().iter().all(|it| !it.contains("works again")));
        set_taken(None);
        assert_eq!(resolving.apply().await?.resolved.len(), 1);
        assert_eq!((resolving.resolved()?.len(), resolving.has_failing()), (1, false));
    }
    Ok(())
}

#[tokio::test]
async fn a_repeated_resolution_has_the_same_identifier_whatever_shows_it() -> anyhow::Result<()> {
    let resolving = Resolving::start().await?;
    resolving.fail("f1")?;
    resolving.apply().await?;
    resolving.succeed("s1")?;
    // As if the run was cut off before it stored the state.
    let stored = resolving.declared.table.items().clone();
    resolving.declared.apply_to_first().await?;
    *resolving.declared.table.items() = stored;
    resolving.set_oddities(tasks(OddDetail::ServerError))?;
    resolving.apply().await?;
    let ids: Vec<_> = resolving.resolved()?.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!((ids.len(), ids.into_iter().collect::<BTreeSet<_>>().len()), (2, 1));
    Ok(())
}

#[tokio::test]
async fn a_suspended_refresh_has_one_alert_and_works_again_when_it_was_resumed_and_refreshed() -> anyhow::Result<()> {
    for shows_tasks in [true, false] {
        let resolving = Resolving::start().await?;
        for number in 0..5 {
            resolving.fail(&format!("f{number}"))?;
            if !shows_tasks {
                resolving.set_oddities(tasks(OddDetail::ServerError))?;
            }
            resolving.apply().await?;
        }
        resolving.set_oddities(ContentOddities::default())?;
        let suspended = |alerts: &[AlertMessage]| {
            alerts.iter().filter(|alert| alert.body.contains("Tableau has suspended")).count()
        };
        // The alert with the reason of the fifth failure says it, if the tasks could be read.
        assert_eq!(suspended(&resolving.declared.topics.take_alerts()), usize::from(shows_tasks));
        for run in 0..3 {
            let notes = resolving.apply().await?.notes;
            let alerts = resolving.declared.topics.take_alerts();
            let is_first = usize::from(!shows_tasks && run == 0);
            assert_eq!((notes.len(), alerts.len(), suspended(&alerts)), (is_first, is_first, is_first), "{notes:?}");
        }
        assert_eq!(resolving.calls()?, ["jobs", "tasks/extractRefreshes"]);
        resolving.control("suspensions").await?;
        assert_eq!(resolving.apply().await?.resolved, []);
        resolving.succeed("s1")?;
        let report = resolving.apply().await?;
        assert_eq!((report.resolved[0].failures, report.resolved[0].job.as_deref()), (5, Some("s1")));
        assert_eq!(resolving.subjects(), ["Tableau marketing: workbook refresh works again: Sales"]);
        assert!(!resolving.has_failing());
    }
    Ok(())
}

#[tokio::test]
async fn a_deleted_resource_has_one_alert() -> anyhow::Result<()> {
    let resolving = Resolving::start().await?;
    resolving.fail("f1")?;
    resolving.apply().await?;
    resolving.subjects();
    resolving.control("content").await?;
    let mut looks = 0;
    while resolving.has_failing() {
        assert_eq!(resolving.subjects(), [""; 0]);
        resolving.apply().await?;
        looks += resolving.calls()?.iter().filter(|call| call.starts_with("workbooks/")).count();
    }
    // It is looked up once an hour.
    assert_eq!(looks, 1);
    assert_eq!(
        resolving.subjects(),
        ["Tableau marketing: workbook is not refreshed any more: with the id luid-of-Sales"]
    );
    resolving.apply().await?;
    assert_eq!((resolving.calls()?, resolving.subjects()), (vec!["jobs".to_owned()], vec![]));
    assert_eq!(resolving.resolved()?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn a_resource_without_a_task_that_is_not_refreshed_for_a_week_has_one_alert() -> anyhow::Result<()> {
    let resolving = Resolving::start().await?;
    resolving.fail("f1")?;
    resolving.apply().await?;
    resolving.subjects();
    resolving.set_oddities(tasks(OddDetail::Null))?;
    let mut hours = 0;
    while resolving.has_failing() {
        assert_eq!(resolving.subjects(), [""; 0]);
        resolving.pass(20 * 60)?;
        hours += 20;
        resolving.apply().await?;
    }
    assert_eq!(hours, 180);
    assert_eq!(resolving.subjects(), ["Tableau marketing: workbook is not refreshed any more: Sales"]);
    resolving.apply().await?;
    assert_eq!((resolving.calls()?, resolving.subjects()), (vec!["jobs".to_owned()], vec![]));
    Ok(())
}

#[tokio::test]
async fn many_resources_that_refresh_again_share_an_alert() -> anyhow::Result<()> {
    let resolving = Resolving::start().await?;
    let names: Vec<_> = (0..60).map(|number| format!("Sales{number}")).collect();
    for outcome in [RefreshOutcome::Failed, RefreshOutcome::Succeeded] {
        for name in &names {
            resolving.refresh(&format!("{name}-{outcome:?}"), name, outcome)?;
        }
        resolving.subjects();
        resolving.apply().await?;
    }
    assert_eq!(resolving.resolved()?.len(), 60);
    assert_eq!(resolving.subjects(), ["Tableau marketing: 60 extract refreshes work again"]);
    // Tasks once, and the context of as many resources as a run reads.
    let calls = resolving.calls()?;
    let count = |what: &str| calls.iter().filter(|call| call.starts_with(what)).count();
    assert_eq!((count("jobs"), count("tasks"), count("workbooks/"), count("users/")), (1, 1, 50, 1));
    Ok(())
}

#[tokio::test]
async fn failures_end_as_well_when_no_failure_is_an_event_any_more() -> anyhow::Result<()> {
    let mut resolving = Resolving::start().await?;
    resolving.fail("f1")?;
    resolving.apply().await?;
    resolving.declared.events = "ViewDeleted";
    resolving.succeed("s1")?;
    assert_eq!(resolving.apply().await?.resolved.len(), 1);
    resolving.apply().await?;
    assert_eq!(resolving.calls()?, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn a_failure_counts_as_handled_only_when_its_resource_is_stored_as_failing() -> anyhow::Result<()> {
    let resolving = Resolving::start().await?;
    resolving.fail("f1")?;
    resolving.pass(15)?;
    let broken = |beginning| *resolving.declared.table.broken.lock().expect("no test panicked") = beginning;
    broken(Some("failing#"));
    let failure = resolving.declared.apply().await?.expect_err("the state cannot be stored");
    assert!(failure.to_string().contains("the item cannot be changed"), "{failure}");
    assert!(!resolving.has_failing());
    broken(None);
    // The next run explains it again, with the same identifier.
    assert_eq!(resolving.apply().await?.explained.len(), 1);
    assert!(resolving.has_failing());
    resolving.succeed("s1")?;
    assert_eq!(resolving.apply().await?.resolved.len(), 1);
    Ok(())
}

#[tokio::test]
async fn successes_that_a_run_cannot_read_hold_nothing_back_and_are_read_by_the_next() -> anyhow::Result<()> {
    let resolving = Resolving::start().await?;
    resolving.fail("f1")?;
    resolving.apply().await?;
    resolving.set_oddities(tasks(OddDetail::ServerError))?;
    for number in 0..205 {
        resolving.refresh(&format!("s{number:03}"), "Other", RefreshOutcome::Succeeded)?;
    }
    for read in [200, 5, 0] {
        let report = resolving.apply().await?;
        let calls = resolving.calls()?;
        assert_eq!((calls.iter().filter(|call| call.starts_with("jobs/")).count(), report.refreshes_left), (read, 0));
        // The successes ended fifteen minutes ago, and a job settles after five. A small step alone is not stored.
        let watermark = &resolving.declared.table.content("site#marketing")["refreshes"]["watermark"];
        let Timestamp(watermark) = serde_json::from_value(watermark.clone())?;
        assert!(read == 0 || OffsetDateTime::now_utc() - watermark < Duration::minutes(10), "{watermark}");
    }
    Ok(())
}

#[tokio::test]
async fn each_event_that_sns_accepted_has_one_line_in_the_log() -> anyhow::Result<()> {
    let resolving = Resolving::start().await?;
    site(&resolving.tableau, SITE, |site| site.webhooks.iter_mut().for_each(|webhook| webhook.disable(None)))?;
    resolving.fail("f1")?;
    // SNS accepts the recovered event, and not the explanation.
    *resolving.declared.topics.events_taken.lock().expect("no panic") = Some(1);
    resolving.pass(15)?;
    assert!(resolving.declared.apply().await?.is_err());
    assert_eq!(resolving.records().len(), 1);
    *resolving.declared.topics.events_taken.lock().expect("no panic") = None;
    resolving.apply().await?;
    resolving.succeed("s1")?;
    resolving.apply().await?;

    let (records, events) = (resolving.records(), resolving.declared.topics.events());
    let found: Vec<_> = records.iter().map(|it| (it.event.as_str(), it.recovered, it.job_id.as_deref())).collect();
    let expected = [
        ("WorkbookRefreshFailed", true, Some("f1")),
        ("WorkbookRefreshFailed", true, Some("f1")),
        ("RefreshFailureExplained", false, Some("f1")),
        // The tasks of the site showed it, and no job.
        ("RefreshFailureResolved", false, None),
    ];
    assert_eq!(found, expected);
    assert!(records.iter().map(|it| it.event_id).eq(events.iter().map(|event| event.id)), "{events:?}");
    for record in &records {
        assert_eq!((record.site.as_str(), record.resource_id.as_deref()), (SITE, Some("luid-of-Sales")));
        assert_eq!(record.resource_name.as_deref(), Some("Sales"));
    }
    assert!((900..1000).contains(&records[0].delay_s) && records[3].delay_s < 60, "{records:?}");
    // Not in any line of the log: the notes, and who owns the resource.
    let log = resolving.declared.log().join("\n");
    assert!(!log.contains("Login failed") && !log.contains("Lovelace"), "{log}");
    Ok(())
}
