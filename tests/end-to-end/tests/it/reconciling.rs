//! The reconciler with a simulated Tableau, in each observed shape of a real one.

use std::{
    collections::BTreeSet,
    mem,
    ops::Deref,
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::http::StatusCode;
use end_to_end::{
    declared::{Declared, secret_of, site},
    destination::Destination,
};
use reconciler::{
    config::DEFAULT_TIMEOUT,
    failure::Failure,
    request::{Action, Request},
};
use serde_json::{Value, json};
use shared::{
    events::catalogue::Event, problems::ProblemKind, redaction::known_secrets::KnownSecrets, sites::entry::SiteEntry,
};
use tableau_simulator::{
    model::{
        AccessToken, EmptyList, ErrorShape, EventShape, Hostility, JobOddities, Oddities, RetryHint, Site, Webhook,
        Wrapping,
    },
    server::{Running, Simulator},
};

const SITE: &str = "marketing";

/// A Tableau server, and a server in the receiver's place.
struct Tableau {
    running: Running,
    _destination: Destination,
}

impl Deref for Tableau {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

async fn tableau() -> anyhow::Result<Tableau> {
    let destination = Destination::answering(StatusCode::OK).await?;
    let running = Simulator::start(Some(destination.address.clone())).await?;
    Ok(Tableau { running, _destination: destination })
}

async fn one_site() -> anyhow::Result<(Tableau, Declared)> {
    let tableau = tableau().await?;
    let declared = Declared::sites(&tableau, &[SITE]);
    Ok((tableau, declared))
}

fn webhook(id: &str, name: &str) -> anyhow::Result<Webhook> {
    Ok(Webhook {
        id: id.to_owned(),
        name: name.to_owned(),
        event: "WorkbookCreated".parse()?,
        url: format!("https://other.example/{id}"),
        is_enabled: true,
        status_change_reason: None,
    })
}

/// Returns the names of a site's webhooks, and whether they are enabled.
fn webhooks(tableau: &Running) -> anyhow::Result<Vec<(String, bool)>> {
    site(tableau, SITE, |site| site.webhooks.iter().map(|webhook| (webhook.name.clone(), webhook.is_enabled)).collect())
}

#[tokio::test]
async fn the_first_run_creates_the_webhooks_and_the_second_changes_nothing() -> anyhow::Result<()> {
    let (tableau, declared) = one_site().await?;
    let report = declared.apply_to_first().await?;
    let names = ["fan-ViewDeleted", "fan-WorkbookCreated", "fan-WorkbookRefreshFailed"];
    assert_eq!(report.created, names);
    assert_eq!(webhooks(&tableau)?, names.map(|name| (name.to_owned(), true)));

    site(&tableau, SITE, |site| site.calls.clear())?;
    let report = declared.apply_to_first().await?;
    assert_eq!((report.created.len(), report.unchanged.len()), (0, 3));
    let calls = site(&tableau, SITE, |site| site.calls.clone())?;
    assert_eq!(calls, ["POST auth/signin", "GET sites/{site}/webhooks", "POST auth/signout"]);
    Ok(())
}

#[tokio::test]
async fn every_observed_shape_of_tableaus_answers_is_read() -> anyhow::Result<()> {
    let usual = Oddities::default();
    let shapes = [
        Oddities { empty_list: EmptyList::Missing, ..usual.clone() },
        Oddities { empty_list: EmptyList::Null, ..usual.clone() },
        Oddities { empty_list: EmptyList::List, ..usual.clone() },
        Oddities { lone_object: true, ..usual.clone() },
        Oddities { enabled_as_text: true, ..usual.clone() },
        Oddities { event_shape: EventShape::Event, ..usual.clone() },
        Oddities { event_shape: EventShape::Source, ..usual.clone() },
        Oddities { urls_rewritten: true, ..usual.clone() },
        Oddities { page_size: Some(1), ..usual.clone() },
        Oddities { page_size: Some(2), ..usual.clone() },
        Oddities { page_size: Some(100), ..usual.clone() },
        Oddities { update_status: Some(200), ..usual.clone() },
        Oddities { html_errors: true, ..usual.clone() },
        Oddities { wrapping: Wrapping::ByteOrderMark, ..usual.clone() },
        Oddities { wrapping: Wrapping::Gzip, ..usual.clone() },
        Oddities { delay_ms: 20, ..usual.clone() },
    ];
    for shape in shapes {
        let (tableau, mut declared) = one_site().await?;
        site(&tableau, SITE, |site| site.oddities = shape.clone())?;
        // One webhook, then three, of which one is disabled, and then one has another URL.
        declared.events = "WorkbookCreated";
        assert_eq!(declared.apply_to_first().await?.errors, [], "{shape:?}");
        declared.events = "ViewDeleted,WorkbookCreated,WorkbookRefreshFailed";
        site(&tableau, SITE, |site| site.webhooks[0].is_enabled = false)?;
        let report = declared.apply_to_first().await?;
        assert_eq!((report.errors.len(), report.enabled.len(), report.created.len()), (0, 1, 2), "{shape:?}");
        site(&tableau, SITE, |site| site.webhooks[2].url = "https://other.example/".to_owned())?;
        let report = declared.apply_to_first().await?;
        assert_eq!((report.errors.len(), report.updated.len(), report.unchanged.len()), (0, 1, 2), "{shape:?}");
        assert!(!site(&tableau, SITE, |site| site.has_session())?, "{shape:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_redirected_sign_in_is_repeated_at_the_new_url() -> anyhow::Result<()> {
    // Later calls keep the path before `/api/`. Only the sign-in keeps the query.
    let here = "/pod-1/api/3.27/auth/signin?site=marketing&from=%2F";
    let (tableau, declared) = one_site().await?;
    let same = "/api/3.27/auth/signin?again=1".to_owned();
    for location in [here.to_owned(), format!("http://{}{here}", tableau.address), same] {
        site(&tableau, SITE, |site| {
            site.webhooks.clear();
            site.oddities.sign_in_moved_to = Some(location.clone());
        })?;
        let report = declared.apply_to_first().await?;
        assert_eq!((report.created.len(), report.errors), (3, vec![]), "{location}");
        assert!(!site(&tableau, SITE, |site| site.has_session())?, "{location}");
    }
    Ok(())
}

#[tokio::test]
async fn a_token_is_not_sent_to_a_forbidden_redirect() -> anyhow::Result<()> {
    let (tableau, declared) = one_site().await?;
    // On another port, and on this port at another path.
    let wall = Destination::answering(StatusCode::OK).await?;
    let port = wall.address.port().context("a port")?;
    let own = tableau.address;
    for (location, shown) in [
        (format!("http://127.0.0.1:{port}/login?SAMLRequest=c2VjcmV0"), format!("http://127.0.0.1:{port}")),
        (format!("http://127.0.0.1:{port}/api/3.27/auth/signin"), format!("http://127.0.0.1:{port}")),
        (format!("http://localhost:{port}/api/3.27/auth/signin"), format!("http://localhost:{port}")),
        (format!("//localhost:{port}/api/3.27/auth/signin"), format!("http://localhost:{port}")),
        (format!("http://localhost:{}/api/3.27/auth/signin", own.port()), format!("http://localhost:{}", own.port())),
        (format!("http://{own}@localhost:{port}/api/3.27/auth/signin"), format!("http://localhost:{port}")),
        ("https://sso.example/login?SAMLRequest=c2VjcmV0".to_owned(), "https://sso.example".to_owned()),
        ("/login?SAMLRequest=c2VjcmV0".to_owned(), format!("http://{own}")),
        ("http://".to_owned(), "an invalid address".to_owned()),
    ] {
        site(&tableau, SITE, |site| site.oddities.sign_in_moved_to = Some(location.clone()))?;
        let report = declared.apply_to_first().await?;
        let [error] = &report.errors[..] else { anyhow::bail!("{location}: {report:?}") };
        assert_eq!(error.kind, ProblemKind::SignInRedirected, "{location}: {error}");
        let expected = format!("http://{own}/ redirects sign-ins to {shown}. The token was not sent there.");
        assert_eq!(error.what, expected, "{location}");
        let error = error.to_string();
        assert!(!["c2VjcmV0", "/login", &secret_of(SITE)].iter().any(|secret| error.contains(secret)), "{error}");
        assert_eq!(wall.received().len(), 0, "{location}");
        assert_eq!(site(&tableau, SITE, |site| mem::take(&mut site.calls))?, ["POST auth/signin"], "{location}");
    }
    Ok(())
}

#[tokio::test]
async fn a_lost_session_is_opened_again_once_at_any_call() -> anyhow::Result<()> {
    let usual = Oddities::default();
    // List, three creates, list, test: six calls at which the session may be lost.
    for (calls, oddities) in (0..6).flat_map(|calls| {
        let shapes = [ErrorShape::Usual, ErrorShape::NumericCode, ErrorShape::Wrapped, ErrorShape::Empty];
        let shapes = shapes.map(|error_shape| Oddities { error_shape, ..usual.clone() });
        let wrappings = [Wrapping::ByteOrderMark, Wrapping::Gzip];
        let wrapped = wrappings.map(|wrapping| Oddities { wrapping, ..usual.clone() });
        let page = Oddities { html_errors: true, ..usual.clone() };
        shapes.into_iter().chain(wrapped).chain([page]).map(move |oddities| (calls, oddities))
    }) {
        let (tableau, declared) = one_site().await?;
        site(&tableau, SITE, |site| {
            site.oddities = Oddities { sessions_gone_after: Some(calls), ..oddities.clone() };
        })?;
        let report = declared.apply_to_first().await?;
        assert_eq!((report.created.len(), report.errors.len()), (3, 0), "after {calls} calls: {oddities:?} {report:?}");
        let sign_ins = site(&tableau, SITE, |site| site.calls.iter().filter(|call| call.ends_with("signin")).count())?;
        assert_eq!((sign_ins, site(&tableau, SITE, |site| site.has_session())?), (2, false), "{oddities:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_without_a_code_is_recognized_by_its_status() -> anyhow::Result<()> {
    for error_shape in [ErrorShape::Usual, ErrorShape::NumericCode, ErrorShape::Wrapped, ErrorShape::Empty] {
        let oddities = Oddities { error_shape, ..Oddities::default() };
        let (tableau, declared) = one_site().await?;
        site(&tableau, SITE, |site| {
            site.oddities = Oddities { token_is_shared: true, ..oddities.clone() };
        })?;
        let report = declared.apply_to_first().await?;
        let kinds: Vec<_> = report.errors.iter().map(|error| error.kind).collect();
        assert_eq!(kinds, [ProblemKind::TokenShared], "{oddities:?}");
        site(&tableau, SITE, |site| {
            site.oddities = oddities.clone();
            site.tokens.clear();
        })?;
        let report = declared.apply_to_first().await?;
        let kinds: Vec<_> = report.errors.iter().map(|error| error.kind).collect();
        assert_eq!(kinds, [ProblemKind::TokenRefused], "{oddities:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_with_an_unrequested_encoding_is_reported() -> anyhow::Result<()> {
    let (tableau, declared) = one_site().await?;
    site(&tableau, SITE, |site| site.oddities.wrapping = Wrapping::Unknown)?;
    let report = declared.apply_to_first().await?;
    let [error] = &report.errors[..] else { anyhow::bail!("{report:?}") };
    assert!(error.to_string().ends_with("its compression is unknown)"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_failed_to_return_its_version_is_asked_again_by_the_next_run() -> anyhow::Result<()> {
    let (tableau, declared) = one_site().await?;
    let reconciler = declared.reconciler(declared.clone(), declared.table.clone(), declared.topics.clone())?;
    site(&tableau, SITE, |site| site.tokens[0].is_administrator = false)?;
    // The number of attempts in one run.
    tableau.simulator.world().server_info_errors = 3;
    for version in ["3.9", "3.27", "3.27"] {
        let request = Request { action: Action::Apply, sites: None };
        let run = reconciler.run(request, tokio::time::Instant::now() + DEFAULT_TIMEOUT).await;
        let error = run.err().context("the run succeeded")?.to_string();
        assert!(error.contains(&format!("/api/{version}/sites/")), "{version}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn manual_changes_are_repaired_and_foreign_webhooks_are_left_alone() -> anyhow::Result<()> {
    let (tableau, declared) = one_site().await?;
    declared.apply_to_first().await?;
    let foreign = [
        webhook("f1", "somebody's own")?,
        Webhook { is_enabled: false, ..webhook("f2", "fan-out-WorkbookCreated")? },
        webhook("f3", "FAN-WorkbookCreated")?,
    ];
    let (other_event, surplus, unwanted) =
        ("LabelCreated".parse()?, webhook("surplus", "fan-WorkbookCreated")?, webhook("unwanted", "fan-UserDeleted")?);
    site(&tableau, SITE, |site| {
        site.webhooks[0].is_enabled = false;
        site.webhooks[0].status_change_reason = Some("Disabled after 4 failures.".to_owned());
        site.webhooks[1].event = other_event;
        site.webhooks.remove(2);
        site.webhooks.extend(foreign.clone());
        site.webhooks.extend([surplus, unwanted]);
    })?;
    insta::assert_snapshot!(declared.apply().await??.text, @"
    marketing: 1 updated, 1 enabled, 1 created, 2 deleted, 3 foreign, 2 tested
      ~ fan-WorkbookCreated: to the declared URL and event
      ! fan-ViewDeleted: disabled by Tableau: Disabled after 4 failures.
      + fan-WorkbookRefreshFailed
      - fan-UserDeleted
      - fan-WorkbookCreated: a surplus copy
      . FAN-WorkbookCreated: not ours, not changed
      . fan-out-WorkbookCreated: not ours, not changed
      . somebody's own: not ours, not changed
      ? fan-ViewDeleted: Tableau's test was answered 200
      ? fan-WorkbookCreated: Tableau's test was answered 200
    1 site is as declared.
    ");
    let left = site(&tableau, SITE, |site| site.webhooks.clone())?;
    assert!(foreign.iter().all(|webhook| left.contains(webhook)), "{left:?}");
    assert_eq!(declared.apply_to_first().await?.unchanged.len(), 3);
    Ok(())
}

/// Returns odd rows of foreign webhooks, and their names in the report.
fn odd_foreign_webhooks() -> Vec<(Value, &'static str)> {
    let url = json!({ "webhook-destination-http": { "method": "POST", "url": "https://other.example/" } });
    let with = |name: &str, value: Value| {
        let mut row = json!({ "id": "f1", "name": "theirs", "isEnabled": true, "webhook-destination": url });
        row[name] = value;
        row
    };
    let mut without_name = with("id", json!("f1"));
    without_name.as_object_mut().map(|row| row.remove("name"));
    let mut without_id = with("name", json!("theirs"));
    without_id.as_object_mut().map(|row| row.remove("id"));
    let members = ["id", "isEnabled", "event", "webhook-source", "webhook-destination", "statusChangeReason", "owner"];
    let mut rows: Vec<_> = members.map(|member| (with(member, Value::Null), "theirs")).into();
    let odd = [json!(17), json!(-1), json!(1), json!("1"), json!(""), json!("yes"), json!({}), json!([1]), json!(true)];
    for member in ["id", "isEnabled", "event"] {
        rows.extend(odd.iter().map(|value| (with(member, value.clone()), "theirs")));
    }
    rows.extend([
        (without_name, "a webhook without a name (f1)"),
        (with("name", Value::Null), "a webhook without a name (f1)"),
        (with("name", json!("")), "a webhook without a name (f1)"),
        (with("name", json!(17)), "17"),
        (with("name", json!(true)), "true"),
        (without_id, "theirs"),
        (json!({}), "a webhook without a name"),
        (with("more", json!({ "members": [null, {}] })), "theirs"),
        (with("webhook-source", json!("none")), "theirs"),
        (with("webhook-destination", json!([null])), "theirs"),
    ]);
    rows
}

#[tokio::test]
async fn an_odd_foreign_webhook_does_not_disturb_a_run() -> anyhow::Result<()> {
    for (row, name) in odd_foreign_webhooks() {
        for page_size in [None, Some(1)] {
            let (tableau, declared) = one_site().await?;
            site(&tableau, SITE, |site| {
                site.oddities = Oddities { odd_webhooks: vec![row.clone()], page_size, ..Oddities::default() };
            })?;
            let report = declared.apply_to_first().await?;
            assert_eq!((report.created.len(), report.errors), (3, vec![]), "{row}");
            let report = declared.apply_to_first().await?;
            assert_eq!((report.unchanged.len(), report.foreign), (3, vec![name.to_owned()]), "{row}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_unreadable_webhook_that_may_be_owned_stops_its_site_and_is_named() -> anyhow::Result<()> {
    let ours = json!({ "webhook-destination-http": { "url": "https://receiver.example:443/hooks/a/B/c2lnbmF0dXJl" } });
    for (row, named) in [
        (json!({ "name": "fan-ViewDeleted" }), "fan-ViewDeleted has no id"),
        (json!({ "id": null, "name": "fan-ViewDeleted" }), "fan-ViewDeleted has no id"),
        (json!({ "id": [], "name": "fan-ViewDeleted" }), "fan-ViewDeleted has no id"),
        (
            json!({ "id": "w1", "name": "fan-ViewDeleted", "isEnabled": "perhaps" }),
            "fan-ViewDeleted (w1) is neither enabled nor disabled",
        ),
        (
            json!({ "id": "w1", "name": "fan-ViewDeleted", "isEnabled": 2 }),
            "fan-ViewDeleted (w1) is neither enabled nor disabled",
        ),
        (json!({ "id": "w1", "name": ["fan-ViewDeleted"] }), "a webhook whose name cannot be read (w1)"),
        (json!({ "name": { "value": "fan-ViewDeleted" } }), "a webhook whose name cannot be read"),
        (json!({ "id": "w1", "webhook-destination": ours }), "a webhook without a name (w1)"),
        (json!({ "name": "", "webhook-destination": ours }), "a webhook without a name"),
        (json!("fan-ViewDeleted"), "a webhook whose name cannot be read"),
        (json!(17), "a webhook whose name cannot be read"),
        (json!(null), "a webhook whose name cannot be read"),
        (json!([]), "a webhook whose name cannot be read"),
    ] {
        let (tableau, declared) = one_site().await?;
        site(&tableau, SITE, |site| {
            site.oddities = Oddities { odd_webhooks: vec![row.clone()], ..Oddities::default() };
        })?;
        let report = declared.apply_to_first().await?;
        let [error] = &report.errors[..] else { anyhow::bail!("{row}: {report:?}") };
        assert!(error.to_string().contains(named), "{row}: {error}");
        assert!(!error.to_string().contains("c2lnbmF0dXJl"), "{row}: {error}");
        let calls = site(&tableau, SITE, |site| site.calls.clone())?;
        assert_eq!(calls, ["POST auth/signin", "GET sites/{site}/webhooks", "POST auth/signout"], "{row}");
    }
    Ok(())
}

#[tokio::test]
async fn a_new_key_updates_every_webhook() -> anyhow::Result<()> {
    let (tableau, declared) = one_site().await?;
    declared.apply_to_first().await?;
    let ids = |tableau: &Running| {
        site(tableau, SITE, |site| site.webhooks.iter().map(|webhook| webhook.id.clone()).collect::<Vec<_>>())
    };
    let before = ids(&tableau)?;
    declared.stored_keyring().take();
    let report = declared.apply_to_first().await?;
    assert_eq!((report.updated.len(), report.created.len(), report.deleted.len()), (3, 0, 0));
    assert_eq!(ids(&tableau)?, before);
    Ok(())
}

#[tokio::test]
async fn an_incomplete_list_changes_nothing() -> anyhow::Result<()> {
    let (tableau, declared) = one_site().await?;
    declared.apply_to_first().await?;
    let before = site(&tableau, SITE, |site| {
        site.oddities = Oddities { page_size: Some(2), last_page_missing: true, ..Oddities::default() };
        site.webhooks.clone()
    })?;
    declared.stored_keyring().take();
    let report = declared.apply_to_first().await?;
    assert_eq!(report.errors.len(), 1);
    assert!(report.errors[0].to_string().ends_with("it ends before the number of webhooks it names)"), "{report:?}");
    assert_eq!(site(&tableau, SITE, |site| (site.webhooks.clone(), site.has_session()))?, (before, false));
    Ok(())
}

#[tokio::test]
async fn while_tableau_refuses_all_calls_nothing_is_changed_and_the_reason_is_reported() -> anyhow::Result<()> {
    for (oddities, reason) in [
        (Oddities { too_many_requests: 9, ..Oddities::default() }, "429 Too Many Requests (429000): Too Many Requests"),
        (Oddities { server_errors: 9, ..Oddities::default() }, "500 Internal Server Error (500000)"),
        (
            Oddities { server_errors: 9, html_errors: true, ..Oddities::default() },
            "500 Internal Server Error: <!DOCTYPE",
        ),
    ] {
        let (tableau, declared) = one_site().await?;
        site(&tableau, SITE, |site| site.oddities = oddities)?;
        let report = declared.apply_to_first().await?;
        assert!(report.errors.len() == 1 && report.errors[0].to_string().contains(reason), "{report:?}");
        assert_eq!(webhooks(&tableau)?, []);
    }
    Ok(())
}

#[tokio::test]
async fn temporary_errors_and_short_waits_are_retried() -> anyhow::Result<()> {
    for oddities in [
        Oddities { server_errors: 2, ..Oddities::default() },
        Oddities { too_many_requests: 2, retry_after_seconds: Some(0), ..Oddities::default() },
        Oddities {
            too_many_requests: 2,
            retry_after_seconds: Some(0),
            retry_hint: RetryHint::OtherWords,
            ..Oddities::default()
        },
        Oddities {
            too_many_requests: 2,
            retry_after_seconds: Some(0),
            retry_hint: RetryHint::Date,
            jobs: JobOddities { clock_offset_seconds: 3600, ..JobOddities::default() },
            ..Oddities::default()
        },
    ] {
        let (tableau, declared) = one_site().await?;
        site(&tableau, SITE, |site| site.oddities = oddities.clone())?;
        let report = declared.apply_to_first().await?;
        assert_eq!((report.created.len(), report.errors.len()), (3, 0), "{oddities:?}: {report:?}");
    }
    Ok(())
}

/// Time limit for a run that waits, on the test's clock. It takes milliseconds.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_429_without_a_wait_is_retried_if_there_is_time() -> anyhow::Result<()> {
    for (requests, time, created) in [(1, 300, 3), (2, 300, 3), (9, 300, 0), (1, 100, 0)] {
        let (tableau, declared) = one_site().await?;
        site(&tableau, SITE, |site| {
            let oddities = Oddities { retry_hint: RetryHint::Nowhere, ..Oddities::default() };
            site.oddities = Oddities { too_many_requests: requests, ..oddities };
        })?;
        let mut run = pin!(declared.run_for(Duration::from_secs(time), Action::Apply, None));
        let left = || site(&tableau, SITE, |site| site.oddities.too_many_requests);
        let (start, mut seen) = (Instant::now(), requests);
        let result = loop {
            anyhow::ensure!(start.elapsed() < WAIT_TIMEOUT, "the run does not end");
            if let Ok(result) = tokio::time::timeout(Duration::from_millis(10), &mut run).await {
                break result?;
            }
            if left()? < seen {
                // The run got a 429, and waits on this runtime's clock.
                seen = left()?;
                tokio::time::pause();
                tokio::time::advance(Duration::from_secs(20) * 2_u32.pow((requests - seen).try_into()?)).await;
                tokio::time::resume();
            }
        };
        assert_eq!(result.is_ok(), created > 0, "{requests} in {time} s: {:?}", result.err());
        assert_eq!(webhooks(&tableau)?.len(), created, "{requests} in {time} s");
    }
    Ok(())
}

#[tokio::test]
async fn a_change_with_a_lost_answer_is_not_repeated() -> anyhow::Result<()> {
    let usual = Oddities::default();
    for oddities in [1, 2, 3].into_iter().flat_map(|calls| {
        [Oddities { lost_answers: calls, ..usual.clone() }, Oddities { broken_answers: calls, ..usual.clone() }]
    }) {
        let (tableau, declared) = one_site().await?;
        site(&tableau, SITE, |site| site.oddities = oddities)?;
        let report = declared.apply_to_first().await?;
        assert_eq!((report.created.len(), report.errors.len()), (3, 0), "{report:?}");
        assert_eq!(webhooks(&tableau)?.len(), 3);
        let creates =
            site(&tableau, SITE, |site| site.calls.iter().filter(|call| call.starts_with("POST sites")).count())?;
        assert_eq!(creates, 3);
    }
    Ok(())
}

#[tokio::test]
async fn a_failed_create_is_repeated_once_after_listing() -> anyhow::Result<()> {
    // Three creates fail, and are repeated after a list. A fourth failure leaves one webhook missing.
    for (failed_changes, created, errors) in [(1, 3, 0), (3, 3, 0), (4, 2, 1)] {
        let (tableau, declared) = one_site().await?;
        site(&tableau, SITE, |site| site.oddities.failed_changes = failed_changes)?;
        let report = declared.apply_to_first().await?;
        assert_eq!((report.created.len(), report.errors.len()), (created, errors), "{report:?}");
        assert_eq!(webhooks(&tableau)?.len(), created);
        let creates = |site: &mut Site| site.calls.iter().filter(|call| call.starts_with("POST sites")).count();
        assert_eq!(site(&tableau, SITE, creates)?, 3 + failed_changes.min(3));
    }
    Ok(())
}

#[tokio::test]
async fn the_newest_common_version_is_used_and_a_server_that_is_too_old_is_reported() -> anyhow::Result<()> {
    for (newest, version) in [((3, 9), "3.9"), ((3, 10), "3.10"), ((4, 1), "3.27")] {
        let (tableau, declared) = one_site().await?;
        tableau.simulator.world().newest_version = newest;
        site(&tableau, SITE, |site| site.tokens[0].is_administrator = false)?;
        let report = declared.apply_to_first().await?;
        assert!(report.errors[0].to_string().contains(&format!("/api/{version}/sites/")), "{report:?}");
    }
    let (tableau, declared) = one_site().await?;
    tableau.simulator.world().newest_version = (3, 8);
    let report = declared.apply_to_first().await?;
    let expected = "<server> is too old for webhooks by the name of their event. Upgrade it to Tableau Server 2020.3 or newer. (<server> supports version 3.8 of the REST API, and webhooks need 3.9 or newer)";
    let server = format!("http://{}/", tableau.address);
    assert_eq!(report.errors[0].to_string(), expected.replace("<server>", &server));
    Ok(())
}

#[tokio::test]
async fn a_run_without_time_begins_no_site_and_reports_it() -> anyhow::Result<()> {
    let (tableau, declared) = one_site().await?;
    let run = declared.run_for(Duration::from_secs(50), Action::Apply, None).await?;
    let error = run.err().context("the run succeeded")?.to_string();
    assert!(error.contains("Not checked, since there was no time left"), "{error}");
    assert_eq!(site(&tableau, SITE, |site| site.calls.len())?, 0);
    Ok(())
}

#[tokio::test]
async fn a_refused_event_does_not_prevent_other_webhooks() -> anyhow::Result<()> {
    let (tableau, mut declared) = one_site().await?;
    site(&tableau, SITE, |site| site.oddities.refuses_site_events = true)?;
    declared.events = "SiteCreated,FlowRunFailed,WorkbookCreated";
    let report = declared.apply_to_first().await?;
    assert_eq!((report.created.len(), report.errors.len(), report.notes.len()), (1, 2, 1), "{report:?}");
    assert!(report.notes[0].starts_with("FlowRunFailed is not an event this release knows"));
    assert_eq!(webhooks(&tableau)?, [("fan-WorkbookCreated".to_owned(), true)]);
    Ok(())
}

#[tokio::test]
async fn concurrent_runs_create_at_most_two_copies_and_the_next_deletes_one() -> anyhow::Result<()> {
    for broken_answers in 0..8 {
        let (tableau, declared) = one_site().await?;
        // A token for each, so that they do not end each other's session.
        let mut concurrent = declared.clone();
        concurrent.set(SITE, "token_name", json!("concurrent"))?;
        site(&tableau, SITE, |site| {
            let token = AccessToken { name: "concurrent".to_owned(), ..site.tokens[0].clone() };
            site.tokens.push(token);
            site.oddities.broken_answers = broken_answers;
        })?;
        let (one, other) = tokio::join!(declared.apply(), concurrent.apply());
        // Each may fail over the other's changes.
        let _ = (one?, other?);
        for name in ["fan-ViewDeleted", "fan-WorkbookCreated", "fan-WorkbookRefreshFailed"] {
            let copies = |site: &mut Site| site.webhooks.iter().filter(|webhook| webhook.name == name).count();
            assert!(site(&tableau, SITE, copies)? <= 2, "{broken_answers} broken answers: {:?}", webhooks(&tableau)?);
        }
        site(&tableau, SITE, |site| site.oddities = Oddities::default())?;
        declared.apply().await??;
        assert_eq!(webhooks(&tableau)?.len(), 3);
    }
    Ok(())
}

#[tokio::test]
async fn a_working_copy_is_not_deleted_while_the_other_cannot_be_repaired() -> anyhow::Result<()> {
    let refused = Oddities { refuses_site_events: true, ..Oddities::default() };
    // The update and its two retries fail, in the first round and in the second.
    for oddities in [refused, Oddities { failed_changes: 6, ..Oddities::default() }] {
        let (tableau, mut declared) = one_site().await?;
        declared.events = "SiteCreated";
        declared.apply_to_first().await?;
        // The older copy is to stay. Both copies need a new URL.
        let copy = site(&tableau, SITE, |site| {
            let copy = Webhook { id: "z".to_owned(), ..site.webhooks[0].clone() };
            site.webhooks[0].url = "https://other.example/".to_owned();
            site.webhooks.push(copy.clone());
            site.oddities = oddities;
            copy
        })?;
        declared.run(Action::Rotate, None).await?.err().context("the run succeeded")?;
        assert!(site(&tableau, SITE, |site| site.webhooks.contains(&copy))?);

        site(&tableau, SITE, |site| site.oddities = Oddities::default())?;
        declared.apply().await??;
        assert_eq!(site(&tableau, SITE, |site| site.webhooks.len())?, 1);
    }
    // Otherwise it is deleted in the same run, also if a change failed at first, or its answer was lost.
    let usual = Oddities::default();
    let (failed, lost) =
        (Oddities { failed_changes: 3, ..usual.clone() }, Oddities { lost_answers: 3, ..usual.clone() });
    for (action, oddities, updated) in [
        (Action::Rotate, usual, 1),
        (Action::Rotate, failed.clone(), 1),
        (Action::Rotate, lost.clone(), 1),
        (Action::Apply, failed, 0),
        (Action::Apply, lost, 0),
    ] {
        let (tableau, mut declared) = one_site().await?;
        declared.events = "SiteCreated";
        declared.apply_to_first().await?;
        site(&tableau, SITE, |site| {
            let copy = Webhook { id: "z".to_owned(), ..site.webhooks[0].clone() };
            site.webhooks.push(copy);
            site.oddities = oddities;
        })?;
        let report = declared.run(action, None).await??.sites.remove(0);
        assert_eq!((report.updated.len(), report.surplus.len()), (updated, 1), "{report:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_failing_site_disturbs_no_other_and_no_error_has_a_secret() -> anyhow::Result<()> {
    let tableau = tableau().await?;
    let names = ["good", "no-administrator", "refused", "unreachable"];
    let mut declared = Declared::sites(&tableau, &names);
    site(&tableau, "no-administrator", |site| site.tokens[0].is_administrator = false)?;
    declared.set("refused", "token_secret", json!("secret-that-is-wrong"))?;
    declared.set("unreachable", "server", json!("http://127.0.0.1:1"))?;
    declared.entries.insert("unreadable".to_owned(), "{\"token_secret\": \"secret-half".to_owned());

    let Err(failure @ Failure::Sites(_)) = declared.apply().await? else { anyhow::bail!("the run succeeded") };
    let text = failure.to_string().replace(&tableau.address.port().to_string(), "<port>");
    let id = site(&tableau, "no-administrator", |site| site.id.clone())?;
    insta::assert_snapshot!(text.replace(&id, "<site>"), @r#"
    good: 3 created, 1 tested
      + fan-ViewDeleted
      + fan-WorkbookCreated
      + fan-WorkbookRefreshFailed
      ? fan-ViewDeleted: Tableau's test was answered 200
    no-administrator: 1 error
      error: The owner of the token "fanout" is not an administrator of the site. Create a token as an administrator of the site and run: cargo infra add-site no-administrator --overwrite --stack fan (or: aws ssm put-parameter --name /tableau-fanout/sites/no-administrator --type SecureString --key-id alias/fan --overwrite --value file://site.json) (GET http://127.0.0.1:<port>/api/3.27/sites/<site>/webhooks answered 403 Forbidden (403004): Forbidden: Only administrators may do this.)
    refused: 1 error
      error: Tableau refused the token "fanout". It is wrong, revoked, expired (after 15 days without use, or at its set lifetime), or for another site than "refused": Tableau does not say which. Create a new token as an administrator of the site and run: cargo infra add-site refused --overwrite --stack fan (or: aws ssm put-parameter --name /tableau-fanout/sites/refused --type SecureString --key-id alias/fan --overwrite --value file://site.json) (POST http://127.0.0.1:<port>/api/3.27/auth/signin answered 401 Unauthorized (401001): Signin Error: Error signing in to Tableau Server or Tableau Cloud.)
    unreachable: 1 error
      error: http://127.0.0.1:1/ cannot be reached. Check `server` in the site entry unreachable, that the server runs, and that the network allows the connection, directly or through the proxy in HTTPS_PROXY. If its address has changed: cargo infra add-site unreachable --overwrite --stack fan (or: aws ssm put-parameter --name /tableau-fanout/sites/unreachable --type SecureString --key-id alias/fan --overwrite --value file://site.json) (GET http://127.0.0.1:1/api/2.4/serverinfo got no answer: error sending request: client error (Connect): tcp connect error: Connection refused (os error 111))
    unreadable: 1 error
      error: the site entry /tableau-fanout/sites/unreadable cannot be used: its value is not a JSON object. Store it again: cargo infra add-site unreadable --overwrite --stack fan (or: aws ssm put-parameter --name /tableau-fanout/sites/unreadable --type SecureString --key-id alias/fan --overwrite --value file://site.json)
    4 of 5 sites failed.
    "#);
    assert_eq!(site(&tableau, "good", |site| site.webhooks.len())?, 3);
    let shown = format!("{failure} {failure:?}");
    assert!(names.iter().all(|name| !shown.contains(&secret_of(name))) && !shown.contains("secret-"), "{shown}");
    assert!(names.iter().all(|name| !site(&tableau, name, |site| site.has_session()).unwrap_or(true)));
    Ok(())
}

#[tokio::test]
async fn sites_that_share_a_token_do_not_end_each_others_session() -> anyhow::Result<()> {
    let tableau = tableau().await?;
    let mut declared = Declared::sites(&tableau, &["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        site(&tableau, name, |site| {
            site.tokens[0].secret = "shared".to_owned();
            site.oddities.delay_ms = 10;
        })?;
        declared.set(name, "token_secret", json!("shared"))?;
    }
    let report = declared.apply().await??;
    assert_eq!(report.sites.iter().map(|site| site.created.len()).collect::<Vec<_>>(), [3, 3, 3]);
    for name in ["a", "b", "c"] {
        let sign_ins = site(&tableau, name, |site| site.calls.iter().filter(|call| call.ends_with("signin")).count())?;
        assert_eq!(sign_ins, 1, "{name}");
    }
    Ok(())
}

/// Time limit until each site had its run, which takes seconds.
const TURNS_TIMEOUT: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_run_begins_with_sites_of_a_shared_token_that_the_last_run_did_not_reach() -> anyhow::Result<()> {
    const SITES: [&str; 4] = ["a", "b", "c", "d"];
    let tableau = tableau().await?;
    let mut declared = Declared::sites(&tableau, &SITES);
    declared.events = "ViewDeleted";
    for name in SITES {
        site(&tableau, name, |site| {
            site.tokens[0].secret = "shared".to_owned();
            site.oddities.delay_ms = 300;
        })?;
        declared.set(name, "token_secret", json!("shared"))?;
    }
    let start = Instant::now();
    let (mut reached, mut runs) = (BTreeSet::new(), 0);
    while reached.len() < SITES.len() {
        anyhow::ensure!(start.elapsed() < TURNS_TIMEOUT, "only {reached:?} were reached");
        // The time that a run needs to begin a site, and some hundred milliseconds for those that it begins.
        let run = declared.run_for(Duration::from_millis(90_900), Action::Apply, None).await?;
        let (Ok(report) | Err(Failure::Sites(report))) = run else { anyhow::bail!("{run:?}") };
        let now = report.sites.into_iter().filter(|site| site.errors.is_empty()).map(|site| site.site);
        let now: BTreeSet<_> = now.collect();
        // On a busy machine it may reach none.
        runs += usize::from(!now.is_empty());
        let again: Vec<_> = now.intersection(&reached).collect();
        assert!(again.is_empty() || reached.union(&now).count() == SITES.len(), "{again:?} again, before others");
        reached.extend(now);
    }
    assert!(runs > 1, "all fitted into one run");
    Ok(())
}

#[tokio::test]
async fn calls_end_within_their_sessions_time_and_leave_some_for_the_sign_out() -> anyhow::Result<()> {
    let (tableau, declared) = one_site().await?;
    site(&tableau, SITE, |site| site.oddities.hostility = Some(Hostility::Drip))?;
    let entry = SiteEntry::parse(&format!("/sites/{SITE}"), &declared.entries[SITE])?;
    let client = tableau::Tableau::new()?;
    let start = Instant::now();
    let mut session =
        client.sign_in(&entry, KnownSecrets::default(), tokio::time::Instant::now() + Duration::from_secs(6)).await?;
    let error = session.list(|_| false).await.err().context("the list ended")?;
    assert_eq!(error.kind(), tableau::ErrorKind::OutOfTime, "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    session.sign_out().await?;
    assert!(!site(&tableau, SITE, |site| site.has_session())?);
    Ok(())
}

#[tokio::test]
async fn a_clock_out_of_range_is_ignored() -> anyhow::Result<()> {
    for seconds in [i64::MAX, 251_000_000_000, -60_000_000_000, i64::MIN] {
        let (tableau, mut declared) = one_site().await?;
        declared.recover_hours = "24";
        site(&tableau, SITE, |site| site.oddities.jobs.clock_offset_seconds = seconds)?;
        for _ in 0..2 {
            let report = declared.apply_to_first().await?;
            assert_eq!(report.errors, [], "{seconds}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_report_names_a_hundred_foreign_webhooks_and_counts_the_rest() -> anyhow::Result<()> {
    let (tableau, declared) = one_site().await?;
    site(&tableau, SITE, |site| {
        let row = |number: usize| json!({ "id": number, "name": format!("{number:04} {}", "n".repeat(2000)) });
        site.oddities.odd_webhooks = (0..250).map(row).collect();
    })?;
    let report = declared.apply_to_first().await?;
    assert_eq!((report.created.len(), report.errors), (3, vec![]));
    assert_eq!(report.notes, ["150 more of its webhooks are not ours, and were not changed."]);
    assert_eq!(report.foreign.len(), 100);
    assert!(report.foreign.iter().all(|name| name.chars().count() == 501 && name.ends_with('…')));
    Ok(())
}

#[tokio::test]
async fn of_two_entries_for_one_tableau_site_the_second_is_refused() -> anyhow::Result<()> {
    let tableau = tableau().await?;
    let mut declared = Declared::sites(&tableau, &["a"]);
    declared.entries.insert("b".to_owned(), declared.entries["a"].clone());
    for _ in 0..2 {
        let failure = declared.apply().await?.err().context("the run succeeded")?;
        let expected = "The entry /tableau-fanout/sites/b declares the same Tableau site as the entry a. Remove one of the \
                        two: cargo infra remove-site b --stack fan (or: aws ssm delete-parameter --name \
                        /tableau-fanout/sites/b)";
        assert!(failure.to_string().contains(expected), "{failure}");
        let moved = site(&tableau, "a", |site| site.calls.iter().filter(|call| call.starts_with("PUT")).count())?;
        assert_eq!((moved, site(&tableau, "a", |site| site.webhooks.len())?), (0, 3));
    }
    Ok(())
}

#[tokio::test]
async fn only_the_named_sites_are_reconciled() -> anyhow::Result<()> {
    let tableau = tableau().await?;
    let declared = Declared::sites(&tableau, &["a", "b"]);
    let report = declared.run(Action::Apply, Some(vec!["b".to_owned()])).await??;
    assert_eq!(report.sites.iter().map(|site| site.site.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(site(&tableau, "a", |site| site.calls.len())?, 0);

    let failure = declared.run(Action::Apply, Some(vec!["c".to_owned()])).await?.err().context("the run succeeded")?;
    assert!(failure.to_string().contains("There is no site entry /tableau-fanout/sites/c."), "{failure}");
    Ok(())
}

#[tokio::test]
async fn unchanged_sites_take_three_calls_each() -> anyhow::Result<()> {
    const SITES: usize = 200;
    let tableau = tableau().await?;
    let names: Vec<_> = (0..SITES).map(|number| format!("site-{number}")).collect();
    let mut declared = Declared::sites(&tableau, &names.iter().map(String::as_str).collect::<Vec<_>>());
    // Twenty events: all but the two that some servers refuse.
    let events: Vec<_> =
        Event::catalogue().filter(|event| !["SiteCreated", "SiteUpdated"].contains(&event.as_str())).collect();
    for name in &names {
        declared.set(name, "events", json!(events))?;
        // A token for each, so that the sites run concurrently.
        declared.set(name, "token_name", json!(name))?;
        site(&tableau, name, |site| site.tokens[0].name.clone_from(name))?;
    }
    for (created, calls) in [(20, None), (0, Some(3))] {
        for name in &names {
            site(&tableau, name, |site| site.calls.clear())?;
        }
        let start = Instant::now();
        let report = declared.apply().await??;
        println!("{SITES} sites, {created} webhooks to create at each: {:.1} s", start.elapsed().as_secs_f64());
        assert!(report.sites.iter().all(|site| site.created.len() == created && site.foreign.is_empty()));
        let world = tableau.simulator.world();
        assert!(world.sites.values().all(|site| calls.is_none_or(|calls| site.calls.len() == calls)));
        assert!(world.sites.values().all(|site| site.webhooks.len() == 20 && !site.has_session()));
    }
    Ok(())
}

#[tokio::test]
async fn every_report_names_a_misspelt_alert_event() -> anyhow::Result<()> {
    const NOTE: &str = "ALERT_EVENTS names WorkbookRefreshFaild, which is not an event this release knows: ";
    let (_tableau, mut declared) = one_site().await?;
    declared.alert_events = "WorkbookRefreshFaild,DatasourceRefreshFailed";
    for action in [Action::Plan, Action::Apply] {
        let report = declared.run(action, None).await??;
        assert_eq!(report.text.matches(NOTE).count(), 1, "{}", report.text);
        assert!(!report.text.contains("names DatasourceRefreshFailed"), "{}", report.text);
    }
    declared.entries.clear();
    let without_a_site = declared.run(Action::Plan, None).await??;
    assert!(without_a_site.text.contains(NOTE), "{}", without_a_site.text);
    declared.alert_events = "ALL";
    let report = declared.run(Action::Plan, None).await??;
    assert!(!report.text.contains("ALERT_EVENTS"), "{}", report.text);
    Ok(())
}

#[tokio::test]
async fn without_a_site_entry_there_is_nothing_to_do() -> anyhow::Result<()> {
    let report = Declared::default().apply().await??;
    assert_eq!(report.text, "Nothing to do: there is no site entry under /tableau-fanout/sites.");
    Ok(())
}
