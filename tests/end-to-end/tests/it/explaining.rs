//! Runs that explain the failed refreshes in the queue.

use anyhow::Context;
use axum::http::StatusCode;
use end_to_end::{
    declared::{Declared, report_of, site},
    destination::Destination,
};
use reconciler::{
    report::{Report, SiteReport},
    request::Action,
};
use serde_json::Value;
use tableau_simulator::{
    model::{Job, OddDetail, RefreshOutcome},
    server::{Running, Simulator},
};
use time::{Duration, OffsetDateTime};

use crate::refreshes::{failed, failed_event, pass};

/// The calls of a run that explains one failure.
const CALLS_OF_ONE: [&str; 7] = [
    "POST auth/signin",
    "GET sites/{site}/jobs",
    "GET sites/{site}/jobs/j1",
    "GET sites/{site}/tasks/extractRefreshes",
    "GET sites/{site}/workbooks/luid-of-j1",
    "GET sites/{site}/users/{user}",
    "POST auth/signout",
];

/// Sites with webhooks that work, and a reconciler that has run once.
struct Explaining {
    tableau: Running,
    declared: Declared,
    _destination: Destination,
}

impl Explaining {
    async fn start(sites: &[&str]) -> anyhow::Result<Self> {
        let destination = Destination::answering(StatusCode::OK).await?;
        let tableau = Simulator::start(Some(destination.address.clone())).await?;
        let mut declared = Declared::sites(&tableau, sites);
        (declared.recover_hours, declared.events) = ("24", "WorkbookRefreshFailed");
        declared.apply().await??;
        pass(&tableau, &declared, sites, Duration::minutes(15))?;
        declared.topics.take_alerts();
        Ok(Self { tableau, declared, _destination: destination })
    }

    /// Runs the reconciler. Forgets the calls before.
    async fn run(&self, action: Action) -> anyhow::Result<Report> {
        self.tableau.simulator.world().sites.values_mut().for_each(|site| site.calls.clear());
        report_of(self.declared.run(action, None).await?)
    }

    /// Lets a refresh fail. Its webhook delivers the event.
    fn fail(&self, name: &str, id: &str) -> anyhow::Result<()> {
        self.deliver(name, id);
        self.list(name, failed(id))
    }

    fn deliver(&self, name: &str, id: &str) {
        self.declared.failures.send(&failed_event(name, "WorkbookRefreshFailed", &failed(id).luid));
    }

    fn list(&self, name: &str, job: Job) -> anyhow::Result<()> {
        site(&self.tableau, name, |site| site.jobs.push(job))
    }

    fn calls(&self, name: &str) -> anyhow::Result<Vec<String>> {
        site(&self.tableau, name, |site| site.calls.clone())
    }

    /// Returns how many failures were explained on the events topic.
    fn explained(&self) -> usize {
        let events = self.declared.topics.events();
        events.iter().filter(|event| event.attributes["event_type"] == "RefreshFailureExplained").count()
    }
}

fn explained(report: &Report) -> usize {
    report.sites.iter().map(|site| site.explained.len()).sum()
}

#[tokio::test]
async fn a_failure_in_the_queue_is_explained_without_a_look_at_webhooks() -> anyhow::Result<()> {
    let explaining = Explaining::start(&["marketing"]).await?;
    explaining.fail("marketing", "j1")?;
    let report = explaining.run(Action::Explain).await?;
    let calls = explaining.calls("marketing")?.into_iter().map(|call| match call.split_once("/users/") {
        Some((before, _)) => format!("{before}/users/{{user}}"),
        None => call,
    });
    assert_eq!(calls.collect::<Vec<_>>(), CALLS_OF_ONE);
    assert!(report.text.ends_with("1 failed refresh was explained at 1 site."), "{}", report.text);
    assert_eq!((explaining.explained(), explaining.declared.failures.counts()), (1, (0, 0)));
    insta::assert_snapshot!(explaining.declared.topics.take_subjects().join("\n"), @r#"Tableau marketing: why the workbook refresh failed: Sales "j1""#);

    let report = explaining.run(Action::Explain).await?;
    assert_eq!((report.text.as_str(), explaining.calls("marketing")?.len()), (EMPTY, 0));
    // The schedule finds nothing left to do.
    let report = explaining.run(Action::Apply).await?;
    assert_eq!((explained(&report), explaining.explained()), (0, 1));
    Ok(())
}

const EMPTY: &str = "Nothing to explain: no site has a failed refresh in the queue.";

#[tokio::test]
async fn the_schedule_explains_what_is_in_the_queue_too() -> anyhow::Result<()> {
    let explaining = Explaining::start(&["marketing"]).await?;
    explaining.fail("marketing", "j1")?;
    // A run of some sites leaves the queue to others.
    explaining.declared.run(Action::Apply, Some(vec![])).await??;
    assert_eq!(explaining.declared.failures.counts(), (1, 0));
    let report = explaining.run(Action::Apply).await?;
    assert_eq!((explained(&report), explaining.declared.failures.counts()), (1, (0, 0)));
    Ok(())
}

#[tokio::test]
async fn a_job_that_is_listed_late_is_tried_three_times_and_then_left_to_the_schedule() -> anyhow::Result<()> {
    for listed_after in 0..4 {
        let explaining = Explaining::start(&["marketing"]).await?;
        explaining.deliver("marketing", "j1");
        let job = failed("j1");
        for number in 0..3 {
            if number == listed_after {
                explaining.list("marketing", job.clone())?;
            }
            let report = explaining.run(Action::Explain).await?;
            assert_eq!(explained(&report), usize::from(number == listed_after), "{listed_after}");
            let left = usize::from(number < listed_after && number < 2);
            assert_eq!(explaining.declared.failures.counts(), (left, 0), "{listed_after} {number}");
        }
        assert_eq!(explaining.run(Action::Explain).await?.text, EMPTY);
        if listed_after == 3 {
            explaining.list("marketing", job)?;
            assert_eq!(explained(&explaining.run(Action::Apply).await?), 1);
        }
        assert_eq!(explaining.explained(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_failure_is_not_taken_for_an_earlier_one_of_its_resource() -> anyhow::Result<()> {
    let explaining = Explaining::start(&["marketing"]).await?;
    explaining.fail("marketing", "j1")?;
    explaining.run(Action::Explain).await?;
    pass(&explaining.tableau, &explaining.declared, &["marketing"], Duration::minutes(10))?;
    explaining.deliver("marketing", "j1");
    assert_eq!(explained(&explaining.run(Action::Explain).await?), 0);
    assert_eq!(explaining.declared.failures.counts(), (1, 0));
    explaining.list("marketing", Job { id: "j2".to_owned(), ..failed("j1") })?;
    assert_eq!(explained(&explaining.run(Action::Explain).await?), 1);
    assert_eq!(explaining.declared.failures.counts(), (0, 0));
    Ok(())
}

#[tokio::test]
async fn one_run_explains_two_hundred_failures_of_three_sites_in_one_alert() -> anyhow::Result<()> {
    let sites = ["finance", "marketing", "sales"];
    let explaining = Explaining::start(&sites).await?;
    for number in 0..200 {
        explaining.fail(sites[number % 3], &format!("j{number}"))?;
    }
    let report = explaining.run(Action::Explain).await?;
    assert_eq!((explained(&report), explaining.explained()), (200, 200), "{}", report.text);
    assert_eq!(explaining.declared.failures.counts(), (0, 0));
    let subjects = explaining.declared.topics.take_subjects();
    assert_eq!(subjects, ["Tableau finance, marketing, sales: 200 extract refreshes failed for 1 reason"]);
    Ok(())
}

#[tokio::test]
async fn a_run_that_explains_leaves_problems_to_the_schedule() -> anyhow::Result<()> {
    let mut explaining = Explaining::start(&["finance", "marketing"]).await?;
    explaining.fail("finance", "j1")?;
    explaining.fail("marketing", "j2")?;
    let working = explaining.declared.entries.clone();
    explaining.declared.set("finance", "token_secret", "of-another-token".into())?;
    let lines = explaining.declared.log().len();
    let report = explaining.declared.run(Action::Explain, None).await??;
    let failed: Vec<_> = report.sites.iter().filter(|site| site.failed()).map(|it| it.site.as_str()).collect();
    assert_eq!((failed, explained(&report)), (vec!["finance"], 1), "{}", report.text);
    let subjects = explaining.declared.topics.take_subjects();
    assert_eq!(subjects.len(), 1, "{subjects:?}");
    // No alarm may take it for a run that keeps the webhooks as declared, or for one that fails.
    // Behind the line of the explanation.
    let line: Value = serde_json::from_str(&explaining.declared.log()[lines + 1])?;
    let metrics = &line["_aws"]["CloudWatchMetrics"][0]["Metrics"];
    assert_eq!(
        metrics,
        &serde_json::json!([{ "Name": "Explained" }, { "Name": "Recovered" }, { "Name": "Resolved" }, { "Name": "NotRecovered" }, { "Name": "AlertsFailed" }])
    );
    assert_eq!((explaining.declared.log().len(), explaining.declared.failures.counts()), (lines + 2, (1, 0)));

    let report = explaining.run(Action::Apply).await?;
    assert_eq!(report.sites.iter().filter(|site| site.failed()).count(), 1);
    assert_eq!(explaining.declared.topics.take_subjects(), ["Tableau finance: token refused"]);
    explaining.declared.entries = working;
    // It does not say that the problem is over, either: the schedule does.
    explaining.run(Action::Explain).await?;
    let subjects = explaining.declared.topics.take_subjects();
    assert_eq!(subjects, [r#"Tableau finance: why the workbook refresh failed: Sales "j1""#]);
    explaining.run(Action::Apply).await?;
    assert_eq!(explaining.declared.topics.take_subjects(), ["Tableau finance: solved: token refused"]);
    Ok(())
}

#[tokio::test]
async fn a_message_that_nobody_can_explain_is_deleted_and_hinders_no_other() -> anyhow::Result<()> {
    let explaining = Explaining::start(&["marketing"]).await?;
    let succeeded = failed_event("marketing", "WorkbookRefreshSucceeded", "luid");
    for message in ["", "{}", "no event", &succeeded, &failed_event("unknown", "WorkbookRefreshFailed", "luid")] {
        explaining.declared.failures.send(message);
    }
    let report = explaining.run(Action::Explain).await?;
    assert_eq!((report.sites, explaining.declared.failures.counts()), (Vec::<SiteReport>::new(), (0, 0)));
    explaining.declared.failures.send("no event");
    explaining.fail("marketing", "j1")?;
    let report = explaining.run(Action::Explain).await?;
    assert_eq!((explained(&report), explaining.declared.failures.counts()), (1, (0, 0)));
    Ok(())
}

#[tokio::test]
async fn without_an_answer_of_the_queue_or_the_table_failures_stay_for_later_runs() -> anyhow::Result<()> {
    let mut explaining = Explaining::start(&["marketing"]).await?;
    explaining.fail("marketing", "j1")?;
    explaining.declared.failures.fail = true;
    let text = explaining.run(Action::Explain).await?.text;
    assert_eq!(text, format!("{EMPTY}\nThe queue could not be read: SQS is not available."));
    explaining.declared.failures.fail = false;
    *explaining.declared.table.error.lock().expect("no test panicked") = Some("DynamoDB is not available".to_owned());
    explaining.declared.run(Action::Explain, None).await??;
    assert_eq!((explaining.explained(), explaining.declared.failures.counts()), (0, (1, 0)));
    *explaining.declared.table.error.lock().expect("no test panicked") = None;
    assert_eq!(explained(&explaining.run(Action::Explain).await?), 1);
    explaining.fail("marketing", "j3")?;
    explaining.declared.entries_fail = true;
    let report = explaining.declared.run(Action::Explain, None).await??;
    assert!(report.text.contains("SSM is not available"), "{}", report.text);
    assert_eq!(explaining.declared.failures.counts(), (0, 1), "it comes back after the visibility timeout");
    explaining.declared.entries_fail = false;
    // Where no failure is explained, the queue is not read.
    explaining.declared.recover_hours = "0";
    explaining.fail("marketing", "j2")?;
    assert_eq!(explaining.run(Action::Explain).await?.text, EMPTY);
    let failure = explaining.declared.run(Action::Explain, Some(vec!["marketing".to_owned()])).await?.err();
    assert!(failure.is_some_and(|failure| failure.to_string().contains("name none")));
    Ok(())
}

#[tokio::test]
async fn an_event_without_a_valid_time_is_explained_by_its_resource() -> anyhow::Result<()> {
    let explaining = Explaining::start(&["marketing"]).await?;
    let mut event: Value =
        serde_json::from_str(&failed_event("marketing", "WorkbookRefreshFailed", &failed("j1").luid))?;
    event["time"] = Value::Null;
    explaining.declared.failures.send(&event.to_string());
    explaining.list("marketing", Job { ended_at: OffsetDateTime::now_utc(), ..failed("j1") })?;
    assert_eq!(explained(&explaining.run(Action::Explain).await?), 1);
    assert_eq!(explaining.declared.failures.counts(), (0, 0));
    Ok(())
}

/// Sets the number of job queries that the state of a site has for the day.
fn set_job_queries(explaining: &Explaining, count: u32) -> anyhow::Result<()> {
    let mut items = explaining.declared.table.items();
    let item = items.get_mut("failing#marketing").context("no item")?;
    item.content["job_queries"]["count"] = count.into();
    Ok(())
}

#[tokio::test]
async fn after_15_000_job_queries_of_a_day_the_schedule_explains_failures() -> anyhow::Result<()> {
    let explaining = Explaining::start(&["marketing"]).await?;
    for number in 0..20 {
        explaining.fail("marketing", &format!("j{number}"))?;
    }
    explaining.run(Action::Explain).await?;
    let counted = explaining.declared.table.items()["failing#marketing"].content["job_queries"]["count"].clone();
    assert_eq!(counted, 1 + 20);
    let version = explaining.declared.table.items()["failing#marketing"].version;
    explaining.run(Action::Apply).await?;
    assert_eq!(
        explaining.declared.table.items()["failing#marketing"].version,
        version,
        "one query is not worth a write"
    );

    explaining.fail("marketing", "late")?;
    set_job_queries(&explaining, 15_000)?;
    let report = explaining.run(Action::Explain).await?;
    assert!(report.text.contains("It had 15000 job queries today"), "{}", report.text);
    assert_eq!((explained(&report), explaining.calls("marketing")?.len()), (0, 0));
    assert_eq!(explaining.declared.failures.counts(), (1, 0));
    assert_eq!(explained(&explaining.run(Action::Apply).await?), 1);

    explaining.fail("marketing", "later")?;
    set_job_queries(&explaining, 14_999)?;
    assert_eq!(explained(&explaining.run(Action::Explain).await?), 1);
    Ok(())
}

/// The longest time that a run takes at a fast site. It takes milliseconds.
const LEFT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

#[tokio::test]
async fn a_second_run_explains_no_failure_that_the_first_has_not_stored_yet() -> anyhow::Result<()> {
    let mut explaining = Explaining::start(&["fast", "slow"]).await?;
    // With a token of its own, so that the sites are looked at side by side.
    explaining.declared.set("fast", "token_name", "of-fast".into())?;
    site(&explaining.tableau, "fast", |site| site.tokens[0].name = "of-fast".to_owned())?;
    explaining.fail("fast", "j1")?;
    explaining.fail("slow", "j2")?;
    site(&explaining.tableau, "slow", |site| site.oddities.delay_ms = 300)?;
    let second = async {
        let left = async {
            while !explaining.calls("fast")?.iter().any(|call| call == "POST auth/signout") {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(LEFT_TIMEOUT, left).await.context("the run did not end at the fast site")??;
        report_of(explaining.declared.run(Action::Apply, Some(vec!["fast".to_owned()])).await?)
    };
    let (first, second) = tokio::try_join!(explaining.run(Action::Explain), second)?;
    assert_eq!((explained(&first), explained(&second), explaining.explained()), (2, 0, 2));
    assert!(second.text.contains("Another run uses the token"), "{}", second.text);
    assert_eq!(explained(&explaining.run(Action::Apply).await?), 0);
    Ok(())
}

#[tokio::test]
async fn a_run_that_explains_forgets_no_job_that_an_earlier_run_handled() -> anyhow::Result<()> {
    let explaining = Explaining::start(&["marketing"]).await?;
    explaining.fail("marketing", "j1")?;
    explaining.run(Action::Explain).await?;
    pass(&explaining.tableau, &explaining.declared, &["marketing"], Duration::minutes(10))?;
    // Without tasks, a run reads each success that may be the end of the failure.
    site(&explaining.tableau, "marketing", |site| site.oddities.content.tasks = Some(OddDetail::ServerError))?;
    let luid = "luid-of-another".to_owned();
    explaining.list("marketing", Job { luid, outcome: RefreshOutcome::Succeeded, ..failed("s1") })?;
    for is_read in [true, false] {
        explaining.run(Action::Apply).await?;
        let calls = explaining.calls("marketing")?;
        assert_eq!(calls.contains(&"GET sites/{site}/jobs/s1".to_owned()), is_read, "{calls:?}");
        explaining.fail("marketing", if is_read { "j2" } else { "j3" })?;
        assert_eq!(explained(&explaining.run(Action::Explain).await?), 1);
    }
    Ok(())
}

#[tokio::test]
async fn an_alert_that_cannot_be_sent_is_in_the_log_and_raises_an_alarm() -> anyhow::Result<()> {
    let mut explaining = Explaining::start(&["marketing"]).await?;
    explaining.fail("marketing", "j1")?;
    explaining.declared.topics.alerts_fail = true;
    explaining.declared.run(Action::Explain, None).await??;
    let line: Value = serde_json::from_str(explaining.declared.log().last().context("no line")?)?;
    assert_eq!(
        (&line["outcome"], &line["AlertsFailed"], line["alert_error"].is_string()),
        (&"failed".into(), &1.into(), true)
    );
    assert_eq!(line["Explained"], 1);
    Ok(())
}
