//! Recovery and explanation of refreshes from Tableau's jobs.

use std::collections::BTreeSet;

use anyhow::Context;
use axum::http::StatusCode;
use end_to_end::{
    declared::{Declared, Table, site},
    destination::Destination,
};
use reconciler::{failure::Failure, report::SiteReport, request::Action, state_table::Item};
use serde_json::{Value, json};
use shared::{
    events::cloud_event::EventMessage,
    problems::ProblemKind,
    sites::entry::SiteEntry,
    state::{TokenHold, to_item, token_key},
    timestamp::Timestamp,
};
use tableau_simulator::{
    model::{Job, JobOddities, RefreshKind, RefreshOutcome},
    server::{Running, Simulator},
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

const SITE: &str = "marketing";

/// A Tableau server with one unchanged site, and a reconciler that recovers refreshes.
struct Refreshes {
    tableau: Running,
    declared: Declared,
    _destination: Destination,
}

/// Lets time pass: makes the stored state and every job older.
pub(super) fn pass(tableau: &Running, declared: &Declared, sites: &[&str], time: Duration) -> anyhow::Result<()> {
    declared.table.age(time);
    for name in sites {
        site(tableau, name, |site| {
            for job in &mut site.jobs {
                job.started_at -= time;
                job.ended_at -= time;
            }
        })?;
    }
    Ok(())
}

/// Returns a workbook's refresh that has just failed.
pub(super) fn failed(id: &str) -> Job {
    let ended_at = OffsetDateTime::now_utc();
    Job {
        id: id.to_owned(),
        kind: RefreshKind::Workbook,
        luid: format!("luid-of-{id}"),
        name: format!("Sales \"{id}\" 📈"),
        outcome: RefreshOutcome::Failed,
        is_incremental: false,
        is_via_bridge: false,
        started_at: ended_at - Duration::minutes(2),
        ended_at,
        notes: Some("Login failed for user 'etl'.".to_owned()),
    }
}

/// Returns the event of a failure that has just been delivered, as the queue of failed refreshes has it.
pub(super) fn failed_event(site: &str, event: &str, luid: &str) -> String {
    let time = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    let (source, r#type) = (format!("/tableau/{site}"), format!("com.tableau.{event}"));
    json!({ "specversion": "1.0", "source": source, "type": r#type, "subject": luid, "time": time }).to_string()
}

impl Refreshes {
    async fn start() -> anyhow::Result<Self> {
        let destination = Destination::answering(StatusCode::OK).await?;
        let tableau = Simulator::start(Some(destination.address.clone())).await?;
        let mut declared = Declared::sites(&tableau, &[SITE]);
        declared.recover_hours = "24";
        declared.events = "WorkbookRefreshFailed,ViewDeleted";
        let refreshes = Self { tableau, declared, _destination: destination };
        let report = refreshes.declared.apply().await??;
        assert!(report.text.ends_with("failures from now on are explained."), "{}", report.text);
        refreshes.pass(15)?;
        Ok(refreshes)
    }

    /// Runs the reconciler.
    async fn apply(&self) -> anyhow::Result<SiteReport> {
        site(&self.tableau, SITE, |site| site.calls.clear())?;
        self.declared.apply_to_first().await
    }

    fn pass(&self, minutes: i64) -> anyhow::Result<()> {
        pass(&self.tableau, &self.declared, &[SITE], Duration::minutes(minutes))
    }

    fn fail(&self, id: &str) -> anyhow::Result<()> {
        site(&self.tableau, SITE, |site| site.jobs.push(failed(id)))
    }

    fn disable(&self) -> anyhow::Result<()> {
        site(&self.tableau, SITE, |site| {
            site.webhooks.iter_mut().filter(|it| it.name.ends_with("Failed")).for_each(|webhook| webhook.disable(None));
        })
    }

    fn calls(&self) -> anyhow::Result<Vec<String>> {
        site(&self.tableau, SITE, |site| site.calls.clone())
    }

    fn set_oddities(&self, jobs: JobOddities) -> anyhow::Result<()> {
        site(&self.tableau, SITE, |site| site.oddities.jobs = jobs)
    }

    /// Returns the published events, as type and resource, sorted.
    fn published(&self) -> Vec<String> {
        let of = |name: &str, event: &EventMessage| event.attributes.get(name).cloned().unwrap_or_default();
        let mut published: Vec<_> = (self.declared.topics.events().iter())
            .map(|event| format!("{} {}", of("event_type", event), of("resource_luid", event)))
            .collect();
        published.sort();
        published
    }
}

#[tokio::test]
async fn failed_refreshes_of_a_disabled_webhook_are_recovered_and_explained_once() -> anyhow::Result<()> {
    let refreshes = Refreshes::start().await?;
    refreshes.disable()?;
    for id in ["j1", "j2", "j3"] {
        refreshes.fail(id)?;
    }
    refreshes.pass(10)?;
    let report = refreshes.declared.apply().await??;
    let lines = report.text.lines().map(|line| line.split(" at 2").next().unwrap_or_default());
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r#"
    marketing: 1 enabled, 1 unchanged, 1 tested, 3 recovered, 3 explained
      ! fan-WorkbookRefreshFailed: disabled by Tableau: Webhook disabled after 4 failed delivery attempts.
      ? fan-WorkbookRefreshFailed: Tableau's test was answered 200
      < WorkbookRefreshFailed of the workbook "Sales \"j1\" 📈"
      < WorkbookRefreshFailed of the workbook "Sales \"j2\" 📈"
      < WorkbookRefreshFailed of the workbook "Sales \"j3\" 📈"
      < refresh of the workbook "Sales \"j1\" 📈" failed
      < refresh of the workbook "Sales \"j2\" 📈" failed
      < refresh of the workbook "Sales \"j3\" 📈" failed
    1 site is as declared.
    "#);
    let expected = [
        "RefreshFailureExplained luid-of-j1",
        "RefreshFailureExplained luid-of-j2",
        "RefreshFailureExplained luid-of-j3",
        "WorkbookRefreshFailed luid-of-j1",
        "WorkbookRefreshFailed luid-of-j2",
        "WorkbookRefreshFailed luid-of-j3",
    ];
    assert_eq!(refreshes.published(), expected);
    let marked = |event: &EventMessage| event.attributes.get("recovered").map(String::as_str) == Some("true");
    assert_eq!(refreshes.declared.topics.events().iter().filter(|event| marked(event)).count(), 3);
    let subjects = refreshes.declared.topics.take_subjects();
    insta::assert_snapshot!(subjects.join("\n"), @r#"
    Tableau marketing: 3 missed events recovered
    Tableau marketing: webhook was disabled
    Tableau marketing: why the workbook refresh failed: Sales "j1"
    Tableau marketing: why the workbook refresh failed: Sales "j2"
    Tableau marketing: why the workbook refresh failed: Sales "j3"
    "#);
    let line: Value = serde_json::from_str(refreshes.declared.log().last().context("no line")?)?;
    assert_eq!((line["Recovered"].as_f64(), line["Explained"].as_f64()), (Some(3.0), Some(3.0)), "{line}");
    for minutes in [0, 15, 15] {
        refreshes.pass(minutes)?;
        let report = refreshes.apply().await?;
        assert_eq!((report.recovered, report.explained, report.not_recovered), (vec![], vec![], vec![]));
    }
    assert_eq!(refreshes.published(), expected);
    Ok(())
}

#[tokio::test]
async fn refreshes_of_resources_with_any_name_reach_every_subscriber() -> anyhow::Result<()> {
    let refreshes = Refreshes::start().await?;
    refreshes.disable()?;
    let names = [
        ("Sales 📈", Some("Sales ")),
        ("Sales \"North\"", Some("Sales North")),
        ("C:\\extracts", Some("C:extracts")),
        ("a\tb\u{7f}", Some("ab")),
        ("🇩🇪", None),
    ];
    for (number, (name, _)) in names.iter().enumerate() {
        refreshes.fail(&format!("j{number}"))?;
        site(&refreshes.tableau, SITE, |site| {
            site.jobs.last_mut().map(|job| (*name).clone_into(&mut job.name)).context("no job")
        })??;
    }
    refreshes.pass(10)?;
    let report = refreshes.apply().await?;
    assert_eq!((report.recovered.len(), report.explained.len(), report.not_recovered), (5, 5, vec![]));
    let events = refreshes.declared.topics.events();
    for (name, attribute) in names {
        let of_it = events.iter().filter_map(|event| {
            let body: Value = serde_json::from_str(&event.body).ok()?;
            (body["data"]["resource_name"] == name).then(|| event.attributes.get("resource_name").map(String::as_str))
        });
        assert_eq!(of_it.collect::<Vec<_>>(), [attribute; 2], "{name:?}");
    }
    Ok(())
}

#[tokio::test]
async fn recovery_costs_an_unchanged_run_one_call_and_none_if_it_is_off() -> anyhow::Result<()> {
    let mut refreshes = Refreshes::start().await?;
    let without = ["POST auth/signin", "GET sites/{site}/webhooks", "POST auth/signout"];
    refreshes.apply().await?;
    let with = ["POST auth/signin", "GET sites/{site}/webhooks", "GET sites/{site}/jobs", "POST auth/signout"];
    assert_eq!(refreshes.calls()?, with);
    refreshes.declared.recover_hours = "0";
    refreshes.pass(15)?;
    refreshes.apply().await?;
    assert_eq!(refreshes.calls()?, without);
    assert_eq!(refreshes.declared.table.content("site#marketing"), json!({ "format": 1 }));
    // A plan has no such call either, nor a site without refresh events.
    refreshes.declared.recover_hours = "24";
    refreshes.declared.run(Action::Plan, None).await??;
    refreshes.declared.events = "ViewDeleted";
    refreshes.apply().await?;
    refreshes.apply().await?;
    assert_eq!(refreshes.calls()?, without);
    Ok(())
}

#[tokio::test]
async fn a_failure_with_a_working_webhook_is_explained_and_not_recovered() -> anyhow::Result<()> {
    let refreshes = Refreshes::start().await?;
    refreshes.fail("j1")?;
    refreshes.declared.topics.take_alerts();
    // The job has only just ended.
    let report = refreshes.apply().await?;
    assert_eq!((report.recovered.len(), report.explained.len()), (0, 1));
    assert_eq!(refreshes.calls()?.iter().filter(|call| call.contains("/jobs")).count(), 2);
    let alerts = refreshes.declared.topics.take_alerts();
    for _ in 0..6 {
        refreshes.pass(15)?;
        let report = refreshes.apply().await?;
        assert_eq!((report.recovered.len(), report.explained.len()), (0, 0));
        assert_eq!(refreshes.calls()?.iter().filter(|call| call.contains("/jobs")).count(), 1);
    }
    let texts: Value = serde_json::from_str(&alerts.first().context("no alert")?.body)?;
    let card: Value = serde_json::from_str(texts["https"].as_str().context("no card")?)?;
    assert!(card["content"]["description"].as_str().is_some_and(|text| text.contains("Login failed")), "{card:#}");
    Ok(())
}

#[tokio::test]
async fn jobs_that_could_not_be_read_are_recovered_by_the_next_run() -> anyhow::Result<()> {
    let refreshes = Refreshes::start().await?;
    refreshes.disable()?;
    refreshes.fail("j1")?;
    refreshes.pass(10)?;
    // The webhook is repaired, but the jobs cannot be read. The outage stays recorded.
    refreshes.set_oddities(JobOddities { too_many_requests: 9, ..JobOddities::default() })?;
    let report = refreshes.apply().await?;
    assert_eq!((report.enabled.len(), report.recovered, report.explained), (1, vec![], vec![]));
    let calls = refreshes.calls()?.into_iter().filter(|call| call.contains("/jobs")).count();
    assert!(calls == 1 && report.notes[0].contains("429"), "{calls}: {:?}", report.notes);
    refreshes.set_oddities(JobOddities::default())?;
    refreshes.pass(15)?;
    let report = refreshes.apply().await?;
    assert_eq!((report.recovered.len(), report.explained.len()), (1, 1), "{report:?}");
    Ok(())
}

#[tokio::test]
async fn an_ambiguous_job_is_named_and_not_published() -> anyhow::Result<()> {
    let usual = JobOddities::default();
    for (oddities, reason) in [
        (JobOddities { without_resource: true, ..usual.clone() }, "it does not say what it refreshed"),
        (
            JobOddities { finish_code: Some("4".to_owned()), ..usual.clone() },
            "a finish code that this release does not know",
        ),
        (JobOddities { without_end: true, ..usual.clone() }, "it does not say when it ended"),
    ] {
        let refreshes = Refreshes::start().await?;
        refreshes.disable()?;
        refreshes.fail("j1")?;
        refreshes.pass(10)?;
        refreshes.set_oddities(oddities)?;
        let report = refreshes.apply().await?;
        assert_eq!(refreshes.published(), [""; 0]);
        assert!(report.not_recovered.len() == 1 && report.not_recovered[0].to_string().contains(reason), "{report:?}");
        assert!(
            refreshes
                .declared
                .topics
                .take_subjects()
                .contains(&"Tableau marketing: refreshes may be missing".to_owned())
        );
    }
    let refreshes = Refreshes::start().await?;
    refreshes.fail("j1")?;
    refreshes.pass(10)?;
    refreshes.set_oddities(JobOddities { job_type: Some("run_flow".to_owned()), ..usual })?;
    let report = refreshes.apply().await?;
    assert_eq!(report.notes, ["1 of its jobs are of a type that was not asked for, and were skipped."]);
    Ok(())
}

#[tokio::test]
async fn refreshes_of_a_server_with_clock_skew_are_recovered_once() -> anyhow::Result<()> {
    for offset in [-7200, -90, -20, 20, 90, 7200] {
        let refreshes = Refreshes::start().await?;
        // The server has had this clock since its first run.
        refreshes.declared.table.items().clear();
        refreshes.set_oddities(JobOddities { clock_offset_seconds: offset, ..JobOddities::default() })?;
        refreshes.apply().await?;
        refreshes.pass(15)?;
        let mut recovered = 0;
        for round in 0..14 {
            if round == 0 {
                refreshes.disable()?;
            }
            if round < 2 {
                refreshes.fail(&format!("j{round}"))?;
            }
            let report = refreshes.apply().await?;
            recovered += report.recovered.len();
            assert_eq!(report.not_recovered, [], "{offset}");
            refreshes.pass(15)?;
        }
        // The first was missed. The second ended after the repair, or with a slow clock in the margin before it.
        assert!((1..=2).contains(&recovered), "{offset}: {recovered}");
        let ids: BTreeSet<_> = refreshes.declared.topics.events().iter().map(|event| event.id).collect();
        assert_eq!(ids.len(), refreshes.published().len());
        assert!(refreshes.published().contains(&"WorkbookRefreshFailed luid-of-j0".to_owned()), "{offset}");
        assert_eq!(
            refreshes.published().iter().filter(|it| it.starts_with("RefreshFailureExplained")).count(),
            2,
            "{offset}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_run_publishes_a_limited_number_of_jobs_and_later_runs_the_rest() -> anyhow::Result<()> {
    const JOBS: usize = 450;
    let refreshes = Refreshes::start().await?;
    refreshes.disable()?;
    // Many fail within a second, as when a database is down.
    (0..JOBS).try_for_each(|number| refreshes.fail(&format!("j{number:04}")))?;
    refreshes.pass(10)?;
    let mut counts = Vec::new();
    for _ in 0..4 {
        let report = refreshes.apply().await?;
        counts.push((report.recovered.len(), report.explained.len(), report.refreshes_left));
        refreshes.pass(15)?;
    }
    assert_eq!(counts, [(200, 200, 250), (200, 200, 50), (50, 50, 0), (0, 0, 0)]);
    let published: BTreeSet<_> = refreshes.published().into_iter().collect();
    assert_eq!(published.len(), 2 * JOBS);
    // The state keeps the identifiers of one hour.
    refreshes.pass(60)?;
    refreshes.apply().await?;
    let stored = refreshes.declared.table.content("site#marketing");
    let failing = refreshes.declared.table.content("failing#marketing")["resources"].clone();
    // It keeps no more failing resources.
    assert_eq!(failing.as_object().map(serde_json::Map::len), Some(400));
    assert!(stored.to_string().len() < 500, "{stored}");
    Ok(())
}

#[tokio::test]
async fn an_event_that_sns_does_not_accept_fails_the_run_and_is_sent_by_the_next() -> anyhow::Result<()> {
    let refreshes = Refreshes::start().await?;
    refreshes.disable()?;
    (0..3).try_for_each(|number| refreshes.fail(&format!("j{number}")))?;
    refreshes.pass(10)?;
    // The first job's two messages, and the recovered event of the second.
    if let Ok(mut taken) = refreshes.declared.topics.events_taken.lock() {
        *taken = Some(3);
    }
    let Err(failure @ Failure::Refreshes(_)) = refreshes.declared.apply().await? else { anyhow::bail!("it succeeded") };
    let text = failure.to_string();
    assert!(text.contains("2 refreshes are left to the next run") && !text.contains("not recovered"), "{text}");
    if let Ok(mut taken) = refreshes.declared.topics.events_taken.lock() {
        *taken = None;
    }
    refreshes.pass(15)?;
    refreshes.apply().await?;
    let expected = [
        "RefreshFailureExplained luid-of-j0",
        "RefreshFailureExplained luid-of-j1",
        "RefreshFailureExplained luid-of-j2",
        "WorkbookRefreshFailed luid-of-j0",
        "WorkbookRefreshFailed luid-of-j1",
        // Published again, with the same identifier.
        "WorkbookRefreshFailed luid-of-j1",
        "WorkbookRefreshFailed luid-of-j2",
    ];
    assert_eq!(refreshes.published(), expected);
    let ids: BTreeSet<_> = refreshes.declared.topics.events().iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), expected.len() - 1);
    Ok(())
}

#[tokio::test]
async fn no_refresh_is_dropped_while_sns_is_down() -> anyhow::Result<()> {
    const RUNS: usize = 10;
    let refreshes = Refreshes::start().await?;
    refreshes.disable()?;
    if let Ok(mut taken) = refreshes.declared.topics.events_taken.lock() {
        *taken = Some(0);
    }
    let mut expected = Vec::new();
    for run in 0..RUNS {
        let id = format!("j{run}");
        refreshes.fail(&id)?;
        expected.push(format!("RefreshFailureExplained luid-of-{id}"));
        refreshes.pass(10)?;
        let Err(Failure::Refreshes(report)) = refreshes.declared.apply().await? else { anyhow::bail!("it succeeded") };
        assert_eq!((report.sites[0].refreshes_left, &report.sites[0].not_recovered), (run + 1, &vec![]));
        // The next job ends after the repair of the webhook.
        refreshes.pass(5)?;
    }
    if let Ok(mut taken) = refreshes.declared.topics.events_taken.lock() {
        *taken = None;
    }
    refreshes.declared.apply().await??;
    // The webhook was repaired by the first run.
    expected.push("WorkbookRefreshFailed luid-of-j0".to_owned());
    assert_eq!(refreshes.published(), expected);
    Ok(())
}

#[tokio::test]
async fn lost_or_changed_state_is_reported() -> anyhow::Result<()> {
    let lost: fn(&Table) = |table| table.items().clear();
    let changed: fn(&Table) = |table| {
        if let Some(item) = table.items().get_mut("site#marketing") {
            item.content = json!({ "format": 1, "problems": "none" });
        }
    };
    for (change, expected) in [
        (lost, "There is no state yet, since this is the first run or it was lost"),
        (changed, "the state of marketing is of another format, or was changed by hand"),
    ] {
        let refreshes = Refreshes::start().await?;
        refreshes.disable()?;
        refreshes.fail("j1")?;
        refreshes.pass(10)?;
        change(&refreshes.declared.table);
        let report = match refreshes.declared.apply().await? {
            Ok(report) | Err(Failure::State(report)) => report,
            Err(failure) => anyhow::bail!("{failure}"),
        };
        assert!(report.text.contains(expected), "{}", report.text);
        assert_eq!(report.sites[0].enabled.len(), 1);
        // The outage is known, but not its start.
        let not_recovered = report.sites[0].not_recovered[0].to_string();
        assert!(not_recovered.contains("there is no state of this site"), "{not_recovered}");
        refreshes.fail("j2")?;
        refreshes.pass(15)?;
        refreshes.declared.apply().await??;
        assert_eq!(refreshes.published(), ["RefreshFailureExplained luid-of-j2"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_run_without_its_table_repairs_webhooks_publishes_nothing_and_fails() -> anyhow::Result<()> {
    let mut refreshes = Refreshes::start().await?;
    refreshes.disable()?;
    refreshes.fail("j1")?;
    refreshes.pass(10)?;
    refreshes.declared.topics.take_alerts();
    let secret = refreshes.declared.entries[SITE].clone();
    for _ in 0..2 {
        if let Ok(mut error) = refreshes.declared.table.error.lock() {
            *error = Some("ThrottlingException: Rate exceeded".to_owned());
        }
        let Err(Failure::State(report)) = refreshes.declared.apply().await? else { anyhow::bail!("it succeeded") };
        assert!(
            report.text.contains("The state cannot be read: ThrottlingException: Rate exceeded."),
            "{}",
            report.text
        );
        assert_eq!(report.sites[0].explained, []);
    }
    let healthy = site(&refreshes.tableau, SITE, |site| site.webhooks.iter().all(|webhook| webhook.is_enabled))?;
    assert!(healthy && refreshes.published().is_empty());
    // The alert of the state that was read before is not repeated.
    refreshes.declared.set(SITE, "token_secret", json!("wrong"))?;
    assert!(matches!(refreshes.declared.apply().await?, Err(Failure::Sites(_))));
    assert_eq!(refreshes.declared.topics.take_subjects(), [""; 0]);
    refreshes.declared.entries.insert(SITE.to_owned(), secret);
    if let Ok(mut error) = refreshes.declared.table.error.lock() {
        *error = None;
    }
    refreshes.declared.apply().await??;
    assert_eq!(refreshes.published(), ["RefreshFailureExplained luid-of-j1"]);
    Ok(())
}

#[tokio::test]
async fn refreshes_that_are_too_old_are_reported_and_a_rotation_is_no_outage() -> anyhow::Result<()> {
    let refreshes = Refreshes::start().await?;
    refreshes.disable()?;
    refreshes.fail("j1")?;
    refreshes.pass(60 * 26)?;
    refreshes.fail("j2")?;
    refreshes.pass(10)?;
    let report = refreshes.apply().await?;
    assert!(report.not_recovered[0].to_string().ends_with("they ended longer ago than RECOVER_HOURS"), "{report:?}");
    assert_eq!(refreshes.published(), ["RefreshFailureExplained luid-of-j2", "WorkbookRefreshFailed luid-of-j2"]);

    refreshes.pass(30)?;
    refreshes.apply().await?;
    refreshes.fail("j3")?;
    refreshes.pass(10)?;
    let report = refreshes.declared.run(Action::Rotate, None).await??;
    assert_eq!(
        (report.sites[0].updated.len(), report.sites[0].recovered.len(), report.sites[0].explained.len()),
        (2, 0, 1)
    );
    Ok(())
}

#[tokio::test]
async fn a_site_whose_token_another_run_uses_is_left_to_it_until_the_hold_ends() -> anyhow::Result<()> {
    let refreshes = Refreshes::start().await?;
    let tokens = refreshes.declared.table.items().keys().filter(|key| key.starts_with("token#")).count();
    assert_eq!(tokens, 0, "a run releases its tokens");
    // A run that was cut off right after its start.
    let until = OffsetDateTime::now_utc() + Duration::minutes(6);
    let hold = TokenHold { holder: "another".to_owned(), until: Timestamp(until.truncate_to_second()) };
    let key = token_key(&SiteEntry::parse(SITE, &refreshes.declared.entries[SITE])?);
    let item = Item { key: key.clone(), version: Some(1), content: to_item(&hold) };
    refreshes.declared.table.items().insert(key, item);
    refreshes.disable()?;
    refreshes.fail("j1")?;
    let report = refreshes.apply().await?;
    assert!(report.notes[0].starts_with("Another run uses the token \"fanout\", until 2"), "{report:?}");
    assert_eq!((refreshes.calls()?.len(), report.enabled.len(), report.errors.len()), (0, 0, 0));
    let Err(Failure::Sites(report)) = refreshes.declared.run(Action::Rotate, None).await? else {
        anyhow::bail!("a rotation that updated nothing succeeded")
    };
    assert_eq!(report.sites[0].errors[0].kind, ProblemKind::TokenInUse);
    refreshes.pass(7)?;
    let report = refreshes.apply().await?;
    assert_eq!((report.updated.len(), report.recovered.len(), report.explained.len()), (2, 1, 1));
    Ok(())
}
