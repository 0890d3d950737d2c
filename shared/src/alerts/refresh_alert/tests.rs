use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use time::{Duration, macros::datetime};

use super::*;
use crate::{
    alerts::hostile,
    events::{delivery::Delivery, payload::Payload},
    refreshes::{
        context::{FailureContext, Owner, OwnerDetails, Project},
        explanation::tests::explanation,
        failing::FailingResources,
        job::{RefreshOutcome, RefreshedKind, RefreshedResource},
    },
};

fn site(name: &str) -> SiteName {
    name.parse().expect("a site")
}

/// Returns an explanation without context.
fn bare(refresh: &Refresh) -> Explanation {
    Explanation::new(refresh.clone(), FailureContext::default(), &FailingResources::default())
}

fn failed(number: i64, notes: &str) -> Refresh {
    Refresh {
        job_id: format!("job-{number}"),
        resource: RefreshedResource {
            kind: if number % 2 == 0 { RefreshedKind::Datasource } else { RefreshedKind::Workbook },
            luid: format!("luid-{number}"),
            name: Some(format!("Sales {number:03}")),
        },
        started_at: Some(datetime!(2026-05-21 08:00:00 UTC)),
        ended_at: datetime!(2026-05-21 08:03:07 UTC) + Duration::minutes(number),
        outcome: RefreshOutcome::Failed,
        notes: Notes::redacted(notes),
    }
}

fn texts(alert: &AlertMessage) -> (Value, Value) {
    let texts: Value = serde_json::from_str(&alert.body).expect("JSON");
    let card = serde_json::from_str(texts["https"].as_str().expect("a text")).expect("JSON");
    (texts, card)
}

/// Returns all forms of an alert, one below the other.
fn shown(alert: &AlertMessage) -> String {
    let (texts, card) = texts(alert);
    let text = |protocol: &str| texts[protocol].as_str().expect("a text");
    format!("{}\n---\n{}\n---\n{}\n---\n{card:#}", alert.subject, text("email"), text("sms"))
}

fn explained(site: &SiteName, failures: &[Refresh]) -> Vec<AlertMessage> {
    let explanations: Vec<_> = failures.iter().map(bare).collect();
    explained_alerts(&explanations.iter().map(|explanation| (site, explanation)).collect::<Vec<_>>())
}

fn recovered(events: &[(&str, &str, Refresh)]) -> AlertMessage {
    let registration =
        |name: &str, event: &str| Registration { site: site(name), event: event.parse().expect("an event") };
    let events: Vec<_> = events.iter().map(|(site, event, refresh)| (registration(site, event), refresh)).collect();
    recovered_alert(&events).expect("an alert")
}

#[test]
fn one_failure_is_explained_in_the_thread_of_its_alert() {
    let site = site("marketing");
    let refresh = failed(1, "[Microsoft][ODBC Driver 17 for SQL Server] Login failed for user.\n\tat a.B(C.java:1)");
    let alerts = explained(&site, &[refresh.clone(), failed(2, "")]);
    insta::assert_snapshot!(shown(&alerts[0]));

    let registration = Registration { site, event: "WorkbookRefreshFailed".parse().expect("an event") };
    let verified = registration.clone().verified_in_tests();
    let body = json!({ "resource_luid": refresh.resource.luid }).to_string();
    let id = Delivery::read(&verified, body.as_bytes()).id("request");
    let payload = Payload::parse(body.as_bytes()).expect("an object");
    let first = AlertMessage::about(&registration, &payload, id, true);
    let thread = |alert| texts(alert).1["metadata"]["threadId"].clone();
    assert_eq!(thread(&alerts[0]), thread(&first));
    let (without_reason, _) = texts(&alerts[1]);
    assert_eq!(without_reason["sms"], "Tableau marketing: datasource refresh failed: Sales 002: no reason given");
}

#[test]
fn many_failures_share_one_alert_by_reason_in_any_order() {
    let site = site("marketing");
    let mut failures: Vec<_> = (0..10).map(|number| failed(number, "Login failed for user 'sa'.")).collect();
    failures.extend((10..13).map(|number| failed(number, &format!("Cannot open database 'db{number}'."))));
    failures.push(failed(13, "Out of memory"));
    let alerts = explained(&site, &failures);
    assert_eq!(alerts.len(), 1);
    insta::assert_snapshot!(shown(&alerts[0]));
    failures.reverse();
    assert_eq!(explained(&site, &failures), alerts);
    assert_eq!(explained(&site, &failures[..MIN_SHARED - 1]).len(), MIN_SHARED - 1);
}

#[test]
fn recovered_events_share_one_alert() {
    let events: Vec<_> =
        (0..12).map(|number| ("marketing", "WorkbookRefreshFailed", failed(2 * number + 1, ""))).collect();
    insta::assert_snapshot!(shown(&recovered(&events)));
    assert_eq!(recovered_alert(&[]), None);
}

#[test]
fn failures_of_several_sites_name_the_sites() {
    let (marketing, sales) = (site("marketing"), site("sales"));
    let failures: Vec<_> = (0..4).map(|number| bare(&failed(number, "Out of memory"))).collect();
    let sites = [&marketing, &marketing, &sales, &sales];
    let failures: Vec<_> = sites.into_iter().zip(&failures).collect();
    let (texts, _) = texts(&explained_alerts(&failures)[0]);
    insta::assert_snapshot!(texts["email"].as_str().expect("a text"), @r#"
    4 extract refreshes failed between 2026-05-21 at 08:03 and 2026-05-21 at 08:06 UTC. Each datasource or workbook keeps the data of its last successful refresh. Tableau's reasons:

    - 4 failures: Out of memory
      marketing: datasource "Sales 000", marketing: workbook "Sales 001", sales: datasource "Sales 002", sales: workbook "Sales 003"

    To see a job in full, open its site in Tableau and choose Jobs.
    "#);
    let missed = recovered(&[
        ("marketing", "WorkbookRefreshStarted", failed(1, "")),
        ("sales", "DatasourceRefreshFailed", failed(2, "")),
    ]);
    insta::assert_snapshot!(missed.subject, @"Tableau marketing, sales: 2 missed events recovered");
}

/// Returns an explanation with the texts of its job as names of project, owner and page.
fn hostile_context(mut explanation: Explanation) -> Explanation {
    let name = explanation.refresh.resource.name.clone().unwrap_or_default();
    let page = format!("https://tableau.example/#/{name}");
    let context = &mut explanation.context;
    context.resource.project = Some(Project { id: name.clone(), name: name.clone() });
    context.owner = Some(Owner { id: name.clone(), name: Some(name.clone()), email: Some(name) });
    (context.resource.webpage_url, context.history_url) = (page.parse().ok(), page.parse().ok());
    explanation
}

#[test]
fn a_failure_with_context_says_whose_it_is_and_where_to_look() {
    let site = site("marketing");
    let explanation = explanation(OwnerDetails::Email);
    insta::assert_snapshot!(shown(&explained_alerts(&[(&site, &explanation)])[0]));
}

#[test]
fn a_failure_says_how_often_it_happened_and_when_tableau_suspends_the_refresh() {
    let mut explanation = explanation(OwnerDetails::None);
    let mut repetition = |tableau, ours, is_suspended| {
        (explanation.context.task.consecutive_failures, explanation.in_a_row.failures) = (tableau, ours);
        explanation.context.task.is_suspended = is_suspended;
        let site = site("marketing");
        Failure { site: &site, explanation: &explanation }.repetition().mail()
    };
    let next = "Next run: 2026-05-22 at 08:00 UTC.";
    assert_eq!(repetition(Some(1), 1, Some(false)), next);
    assert_eq!(repetition(None, 1, None), next);
    let since = "since 2026-05-20 at 08:03 UTC";
    assert_eq!(repetition(None, 2, None), format!("It failed for the 2nd time in a row {since}. {next}"));
    assert_eq!(repetition(Some(3), 3, Some(false)), format!("It failed for the 3rd time in a row {since}. {next}"));
    let suspends = "After the 5th failure in a row Tableau suspends the refresh.";
    let fourth = format!("It failed for the 4th time in a row. {suspends} {next}");
    assert_eq!(repetition(Some(4), 1, Some(false)), fourth);
    let suspended = "Tableau has suspended the refresh, and it does not run again until somebody resumes it.";
    let fifth = format!("It failed for the 5th time in a row {since}. {suspended} {next}");
    assert_eq!(repetition(Some(5), 5, Some(true)), fifth);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_job_makes_an_alert_unsafe_or_too_large(
        resources in vec((hostile::any_text(), hostile::any_text(), hostile::any_text(), hostile::any_text()), 1..8),
        sites in vec("[a-z0-9-]{1,40}", 8),
    ) {
        let refreshes: Vec<_> = resources.into_iter().map(|(name, luid, job, notes)| {
            let mut refresh = failed(1, &notes);
            (refresh.resource.name, refresh.resource.luid, refresh.job_id) = (Some(name), luid, job);
            refresh
        }).collect();
        let sites: Vec<_> = sites.iter().map(|name| site(name)).collect();
        let explanations: Vec<_> = refreshes.iter().map(|refresh| hostile_context(bare(refresh))).collect();
        let failures: Vec<_> = sites.iter().zip(&explanations).collect();
        let event: crate::events::catalogue::Event = "WorkbookRefreshFailed".parse().expect("an event");
        let missed: Vec<_> = sites.iter().zip(&refreshes).map(|(site, refresh)| {
            (Registration { site: site.clone(), event: event.clone() }, refresh)
        }).collect();
        for AlertMessage { subject, body } in explained_alerts(&failures).iter().chain(&recovered_alert(&missed)) {
            hostile::assert_safe(subject, body);
        }
    }
}

#[test]
fn programs_get_an_alert_as_json() {
    let site = site("marketing");
    let explanation = explanation(OwnerDetails::Name);
    let (texts, _) = texts(&explained_alerts(&[(&site, &explanation)])[0]);
    let data: Value = serde_json::from_str(texts["sqs"].as_str().expect("a text")).expect("JSON");
    insta::assert_snapshot!(format!("{data:#}"));
}
