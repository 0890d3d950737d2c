//! The reconciler's actions other than `apply`.

use std::sync::PoisonError;

use anyhow::Context;
use axum::http::StatusCode;
use end_to_end::{
    declared::{Declared, site},
    destination::Destination,
};
use lambda_runtime::Diagnostic;
use reconciler::{
    failure::Failure,
    report::{Outcome, Report},
    request::Action,
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::registration::keyring::Keyring;
use tableau_simulator::{
    model::{Oddities, Webhook},
    server::{Running, Simulator},
};

use crate::refreshes::failed;

/// A Tableau server with two sites, and a server in the receiver's place.
struct Sites {
    tableau: Running,
    declared: Declared,
    destination: Destination,
}

impl Sites {
    async fn start(status: StatusCode) -> anyhow::Result<Self> {
        let destination = Destination::answering(status).await?;
        let tableau = Simulator::start(Some(destination.address.clone())).await?;
        let declared = Declared::sites(&tableau, &["finance", "marketing"]);
        Ok(Self { tableau, declared, destination })
    }

    /// Runs an action that is to succeed.
    async fn run(&self, action: Action) -> anyhow::Result<Report> {
        Ok(self.declared.run(action, None).await??)
    }

    fn webhooks(&self) -> Vec<Webhook> {
        let world = self.tableau.simulator.world();
        world.sites.values().flat_map(|site| site.webhooks.clone()).collect()
    }

    fn keys(&self) -> anyhow::Result<usize> {
        let stored = self.declared.stored_keyring();
        Ok(Keyring::parse(stored.as_ref().context("no keyring")?.expose_secret())?.keys_count())
    }

    /// Changes the webhooks of one site in every way at once.
    fn drift(&self) -> anyhow::Result<()> {
        site(&self.tableau, "marketing", |site| {
            let [moved, disabled, _] = &mut site.webhooks[..] else { return };
            moved.url = "https://elsewhere.example/".to_owned();
            disabled.disable(None);
            let copy = |id: &str, name: &str| Webhook { id: id.to_owned(), name: name.to_owned(), ..moved.clone() };
            let added = [copy("s", "fan-ViewDeleted"), copy("u", "fan-UserDeleted"), copy("f", "fan-out-ViewDeleted")];
            site.webhooks.remove(2);
            site.webhooks.extend(added);
        })
    }
}

#[tokio::test]
async fn a_plan_reports_the_changes_of_the_next_apply_and_makes_none() -> anyhow::Result<()> {
    let sites = Sites::start(StatusCode::OK).await?;
    let plan = sites.run(Action::Plan).await?;
    assert_eq!(plan.sites.iter().map(|site| site.created.len()).collect::<Vec<_>>(), [3, 3]);
    assert!(sites.declared.stored_keyring().is_none(), "a plan created signing keys");

    sites.run(Action::Apply).await?;
    sites.drift()?;
    let before = sites.webhooks();
    site(&sites.tableau, "marketing", |site| site.calls.clear())?;
    let plan = sites.run(Action::Plan).await?;
    assert_eq!(sites.webhooks(), before);
    let calls = site(&sites.tableau, "marketing", |site| site.calls.clone())?;
    assert_eq!(calls, ["POST auth/signin", "GET sites/{site}/webhooks", "POST auth/signout"]);
    insta::assert_snapshot!(plan.text, @"
    finance: 3 unchanged
    marketing: 1 to update, 1 to enable, 1 to create, 2 to delete, 1 foreign
      ~ fan-ViewDeleted: to the declared URL and event
      ! fan-WorkbookCreated: disabled by Tableau: Webhook disabled after 4 failed delivery attempts.
      + fan-WorkbookRefreshFailed
      - fan-UserDeleted
      - fan-ViewDeleted: a surplus copy
      . fan-out-ViewDeleted: not ours, not changed
    5 changes at 1 of 2 sites. Nothing was done.
    ");

    let mut applied = sites.run(Action::Apply).await?;
    insta::assert_snapshot!(applied.text, @"
    finance: 3 unchanged
    marketing: 1 updated, 1 enabled, 1 created, 2 deleted, 1 foreign, 2 tested
      ~ fan-ViewDeleted: to the declared URL and event
      ! fan-WorkbookCreated: disabled by Tableau: Webhook disabled after 4 failed delivery attempts.
      + fan-WorkbookRefreshFailed
      - fan-UserDeleted
      - fan-ViewDeleted: a surplus copy
      . fan-out-ViewDeleted: not ours, not changed
      ? fan-ViewDeleted: Tableau's test was answered 200
      ? fan-WorkbookCreated: Tableau's test was answered 200
    2 sites are as declared.
    ");
    for site in &mut applied.sites {
        site.tests.clear();
    }
    assert_eq!(applied.sites, plan.sites);
    assert_eq!(
        sites.run(Action::Plan).await?.text.lines().last(),
        Some("0 changes at 0 of 2 sites. Nothing was done.")
    );
    Ok(())
}

#[tokio::test]
async fn each_run_that_may_change_webhooks_writes_metrics() -> anyhow::Result<()> {
    let mut sites = Sites::start(StatusCode::OK).await?;
    sites.run(Action::Plan).await?;
    sites.run(Action::Apply).await?;
    sites.drift()?;
    sites.declared.set("finance", "token_secret", json!("wrong"))?;
    sites.declared.run(Action::Apply, None).await?.err().context("the run succeeded")?;
    let lines: Vec<Value> =
        sites.declared.log().iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let names = [
        "WebhooksCreated",
        "WebhooksUpdated",
        "WebhooksDisabled",
        "WebhooksDeleted",
        "Sites",
        "SitesFailed",
        "Succeeded",
    ];
    let counts = lines.iter().map(|line| names.map(|name| line[name].as_f64().unwrap_or(-1.0)));
    let expected = [[6.0, 0.0, 0.0, 0.0, 2.0, 0.0, 1.0], [1.0, 1.0, 1.0, 2.0, 2.0, 1.0, 0.0]];
    assert_eq!(counts.collect::<Vec<_>>(), expected);
    assert!(lines.iter().all(|line| line["action"] == "apply" && line["Duration"].as_f64() > Some(0.0)), "{lines:?}");
    Ok(())
}

#[tokio::test]
async fn new_and_disabled_webhooks_are_tested_through_tableau() -> anyhow::Result<()> {
    let sites = Sites::start(StatusCode::BAD_GATEWAY).await?;
    let report = sites.run(Action::Apply).await?;
    let tested = report.sites.iter().map(|site| site.tests.iter().map(|test| (&*test.name, &test.outcome)).collect());
    let answered = [("fan-ViewDeleted", &Outcome::Status(Some(502)))];
    assert_eq!(tested.collect::<Vec<Vec<_>>>(), [answered, answered]);
    assert_eq!(sites.destination.received().len(), 2);
    sites.drift()?;
    let report = sites.run(Action::Apply).await?;
    let tested: Vec<_> = report.sites[1].tests.iter().map(|test| &*test.name).collect();
    assert_eq!(tested, ["fan-ViewDeleted", "fan-WorkbookCreated"]);
    Ok(())
}

#[tokio::test]
async fn a_test_covers_every_webhook_and_fails_if_the_receiver_refuses_one() -> anyhow::Result<()> {
    let sites = Sites::start(StatusCode::OK).await?;
    sites.run(Action::Apply).await?;
    let before = sites.destination.received().len();
    let report = sites.run(Action::Test).await?;
    assert_eq!(report.text.lines().last(), Some("6 tests were accepted by the receiver."));
    assert_eq!(sites.destination.received().len(), before + 6);

    let refusing = Sites::start(StatusCode::NOT_FOUND).await?;
    refusing.run(Action::Apply).await?;
    let failure = refusing.declared.run(Action::Test, Some(vec!["finance".to_owned()])).await?.err();
    insta::assert_snapshot!(failure.context("the test succeeded")?, @"
    finance: 3 tested, 1 error
      ? fan-ViewDeleted: Tableau's test was answered 404
      ? fan-WorkbookCreated: Tableau's test was answered 404
      ? fan-WorkbookRefreshFailed: Tableau's test was answered 404
      error: 3 of 3 tests did not reach the receiver, the first of fan-ViewDeleted: Tableau's test was answered 404. To see which calls arrived: aws logs tail /aws/lambda/fan-receiver --since 1d
    1 of 1 site failed.
    ");
    Ok(())
}

#[tokio::test]
async fn destroy_deletes_own_webhooks_only() -> anyhow::Result<()> {
    let sites = Sites::start(StatusCode::OK).await?;
    sites.run(Action::Apply).await?;
    sites.drift()?;
    let report = sites.declared.run(Action::Destroy, Some(vec!["marketing".to_owned()])).await??;
    assert_eq!(report.text.lines().last(), Some("1 site is without any webhook of ours."));
    let names: Vec<_> = sites.webhooks().into_iter().map(|webhook| webhook.name).collect();
    let of_finance = ["fan-ViewDeleted", "fan-WorkbookCreated", "fan-WorkbookRefreshFailed"];
    assert_eq!(names, [&of_finance[..], &["fan-out-ViewDeleted"]].concat());
    Ok(())
}

#[tokio::test]
async fn a_rotation_moves_every_webhook_to_a_new_key_and_keeps_the_previous() -> anyhow::Result<()> {
    let sites = Sites::start(StatusCode::OK).await?;
    sites.run(Action::Apply).await?;
    for _ in 0..3 {
        let before = sites.webhooks();
        let report = sites.run(Action::Rotate).await?;
        assert_eq!(report.sites.iter().map(|site| site.updated.len()).collect::<Vec<_>>(), [3, 3]);
        assert!(report.sites.iter().all(|site| site.tests.len() == 1 && site.tests[0].succeeded()), "{report:?}");
        for (before, after) in before.iter().zip(sites.webhooks()) {
            assert!(before.id == after.id && before.url != after.url);
        }
        assert_eq!(sites.keys()?, 2);
    }
    Ok(())
}

#[tokio::test]
async fn no_key_is_retired_while_a_site_cannot_be_updated() -> anyhow::Result<()> {
    let mut sites = Sites::start(StatusCode::OK).await?;
    sites.run(Action::Apply).await?;
    sites.run(Action::Rotate).await?;
    let secret = sites.declared.entries["finance"].clone();
    sites.declared.set("finance", "token_secret", json!("wrong"))?;
    assert!(matches!(sites.declared.run(Action::Rotate, None).await?, Err(Failure::Sites(_))));
    assert_eq!(sites.keys()?, 3);
    sites.declared.entries.insert("finance".to_owned(), secret);
    sites.run(Action::Rotate).await?;
    assert_eq!(sites.keys()?, 2);
    Ok(())
}

/// Sets how many more events SNS accepts.
fn accept_events(declared: &Declared, count: Option<usize>) {
    *declared.topics.events_taken.lock().unwrap_or_else(PoisonError::into_inner) = count;
}

/// Sets the error of every call to the table.
fn fail_table(declared: &Declared, error: Option<&str>) {
    *declared.table.error.lock().unwrap_or_else(PoisonError::into_inner) = error.map(str::to_owned);
}

#[tokio::test]
async fn a_rotation_that_cannot_retire_keys_reports_its_changes_and_sends_alerts() -> anyhow::Result<()> {
    let sites = Sites::start(StatusCode::OK).await?;
    sites.run(Action::Apply).await?;
    sites.declared.topics.take_alerts();
    site(&sites.tableau, "marketing", |site| site.webhooks[0].disable(None))?;
    *sites.declared.keyrings_taken.lock().expect("no panic") = Some(1);
    let failure = sites.declared.run(Action::Rotate, None).await?.err().context("it succeeded")?;
    let (text, kind) = (failure.to_string(), Diagnostic::from(failure).error_type);
    assert!(text.contains("marketing: 3 updated, 1 enabled"), "{text}");
    assert!(text.contains("Older signing keys could not be retired: SSM did not store the signing keys in"), "{text}");
    assert_eq!(kind, "KeysFailed");
    assert_eq!(sites.declared.topics.take_subjects(), ["Tableau marketing: webhook was disabled"]);
    let line: Value = serde_json::from_str(sites.declared.log().last().context("no line")?)?;
    assert_eq!((line["WebhooksDisabled"].as_f64(), line["Succeeded"].as_f64()), (Some(1.0), Some(0.0)), "{line}");
    assert_eq!(line["message"], "every site is as declared, but older signing keys could not be retired");
    *sites.declared.keyrings_taken.lock().expect("no panic") = None;
    sites.run(Action::Rotate).await?;
    assert_eq!(sites.keys()?, 2);
    Ok(())
}

#[tokio::test]
async fn the_log_line_of_a_run_names_exactly_its_failures() -> anyhow::Result<()> {
    let mut sites = Sites::start(StatusCode::OK).await?;
    let mut messages = Vec::new();
    sites.declared.recover_hours = "24";
    sites.run(Action::Apply).await?;
    site(&sites.tableau, "marketing", |site| site.webhooks[0].disable(None))?;
    sites.declared.topics.alerts_fail = true;
    assert!(matches!(sites.declared.apply().await?, Err(Failure::Alerts(_))));
    sites.declared.topics.alerts_fail = false;
    site(&sites.tableau, "marketing", |site| site.jobs.push(failed("j1")))?;
    accept_events(&sites.declared, Some(0));
    assert!(matches!(sites.declared.apply().await?, Err(Failure::Refreshes(_))));
    accept_events(&sites.declared, None);
    fail_table(&sites.declared, Some("ThrottlingException"));
    assert!(matches!(sites.declared.apply().await?, Err(Failure::State(_))));
    fail_table(&sites.declared, None);
    sites.run(Action::Destroy).await?;
    for line in sites.declared.log() {
        let line: Value = serde_json::from_str(&line)?;
        messages.extend(line["Succeeded"].is_number().then(|| line["message"].as_str().unwrap_or_default().to_owned()));
    }
    assert_eq!(
        messages,
        [
            "every site is as declared",
            "every site is as declared, but alerts could not be sent",
            "every site is as declared, but missed refreshes could not all be published",
            "every site is as declared, but the state could not be read or stored",
            "every site is without any webhook of ours",
        ]
    );
    Ok(())
}

#[tokio::test]
async fn destroy_plan_and_test_do_not_refer_to_later_runs() -> anyhow::Result<()> {
    let mut sites = Sites::start(StatusCode::OK).await?;
    sites.declared.recover_hours = "24";
    sites.run(Action::Apply).await?;
    for is_lost in [true, false] {
        if is_lost {
            sites.declared.table.items().clear();
        } else {
            sites.declared.table.items().values_mut().for_each(|item| item.content = json!({}));
        }
        let destroyed = sites.run(Action::Destroy).await?.text;
        assert!(!destroyed.contains("failures") && !destroyed.contains("recover"), "{is_lost} {destroyed}");
        sites.run(Action::Apply).await?;
    }
    for action in [Action::Destroy, Action::Plan, Action::Test] {
        let failure = sites.declared.run_for(std::time::Duration::from_secs(1), action, None).await?;
        let text = failure.err().context("there was time")?.to_string();
        assert!(!text.contains("next run") && text.contains("Run this again"), "{action:?} {text}");
    }
    site(&sites.tableau, "finance", |site| site.oddities.too_many_requests = 9)?;
    site(&sites.tableau, "marketing", |site| site.oddities.html_errors = true)?;
    site(&sites.tableau, "marketing", |site| site.oddities.server_errors = 99)?;
    for action in [Action::Destroy, Action::Plan, Action::Test] {
        let text = sites.declared.run(action, None).await?.err().context("it succeeded")?.to_string();
        assert!(!text.contains("next run"), "{action:?} {text}");
    }
    fail_table(&sites.declared, Some("ThrottlingException"));
    site(&sites.tableau, "finance", |site| site.oddities = Oddities::default())?;
    let text = sites.declared.run(Action::Destroy, Some(vec!["finance".to_owned()])).await??.text;
    assert!(text.contains("The state was not deleted: ThrottlingException."), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_rotation_of_some_sites_is_refused() -> anyhow::Result<()> {
    let sites = Sites::start(StatusCode::OK).await?;
    let failure = sites.declared.run(Action::Rotate, Some(vec!["finance".to_owned()])).await?.err();
    let expected = "rotate is for all sites, since all share the signing keys: name none";
    assert_eq!(failure.context("it succeeded")?.to_string(), expected);
    assert!(sites.declared.stored_keyring().is_none() && sites.webhooks().is_empty());
    Ok(())
}
