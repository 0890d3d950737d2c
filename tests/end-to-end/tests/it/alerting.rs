//! The reconciler's alerts: which ones it sends, and how often.

use anyhow::Context;
use axum::http::StatusCode;
use end_to_end::{
    declared::{Declared, site},
    destination::Destination,
};
use reconciler::{failure::Failure, request::Action};
use serde_json::{Value, json};
use shared::alerts::message::AlertMessage;
use tableau_simulator::{
    model::{Job, RefreshKind, RefreshOutcome},
    server::{Running, Simulator},
};
use time::{Duration, OffsetDateTime};

use crate::refreshes::pass;

/// Two sites on one Tableau server, and a server in the receiver's place.
struct Sites {
    tableau: Running,
    declared: Declared,
    _destination: Destination,
}

impl Sites {
    async fn start(status: StatusCode) -> anyhow::Result<Self> {
        let destination = Destination::answering(status).await?;
        let tableau = Simulator::start(Some(destination.address.clone())).await?;
        let declared = Declared::sites(&tableau, &["finance", "marketing"]);
        Ok(Self { tableau, declared, _destination: destination })
    }

    /// Runs an action, whether it succeeds or not. Returns the subjects of its alerts.
    async fn alerts_of(&self, action: Action) -> anyhow::Result<Vec<String>> {
        // Other tests check the report.
        let _ = self.declared.run(action, None).await?;
        Ok(self.declared.topics.take_subjects())
    }

    /// Replaces the stored state by that of other sites.
    fn copy_state_of(&self, others: &Self) {
        *self.declared.table.items() = others.declared.table.items().clone();
    }

    fn disable(&self, name: &str) -> anyhow::Result<()> {
        site(&self.tableau, name, |site| {
            site.webhooks[0].is_enabled = false;
            site.webhooks[0].status_change_reason =
                Some("Webhook disabled after 4 failed delivery attempts.".to_owned());
        })
    }
}

const NOTHING: [&str; 0] = [];

#[tokio::test]
async fn a_refused_token_causes_one_alert_and_its_renewal_another() -> anyhow::Result<()> {
    let mut sites = Sites::start(StatusCode::OK).await?;
    assert_eq!(sites.alerts_of(Action::Apply).await?, NOTHING);
    let entry = sites.declared.entries["marketing"].clone();
    sites.declared.set("marketing", "token_secret", json!("wrong"))?;
    assert_eq!(sites.alerts_of(Action::Apply).await?, ["Tableau marketing: token refused"]);
    for _ in 0..3 {
        assert_eq!(sites.alerts_of(Action::Apply).await?, NOTHING);
    }
    // A plan sends no alerts.
    assert_eq!(sites.alerts_of(Action::Plan).await?, NOTHING);
    sites.declared.entries.insert("marketing".to_owned(), entry);
    assert_eq!(sites.alerts_of(Action::Plan).await?, NOTHING);
    assert_eq!(sites.alerts_of(Action::Apply).await?, ["Tableau marketing: solved: token refused"]);
    assert_eq!(sites.alerts_of(Action::Apply).await?, NOTHING);
    Ok(())
}

/// Polls a run until a condition holds, and drops it there, as a crash of the function does.
async fn cut_off(run: impl Future, mut is_due: impl FnMut() -> bool) -> anyhow::Result<()> {
    let due = async {
        while !is_due() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = due => Ok(()),
        _ = run => anyhow::bail!("the run ended before the condition held"),
    }
}

#[tokio::test]
async fn a_disabled_webhook_causes_an_alert_even_if_the_run_ends_after_the_repair() -> anyhow::Result<()> {
    let sites = Sites::start(StatusCode::OK).await?;
    sites.declared.apply().await??;
    sites.disable("marketing")?;
    let is_enabled = || site(&sites.tableau, "marketing", |site| site.webhooks[0].is_enabled).unwrap_or_default();
    cut_off(sites.declared.apply(), is_enabled).await?;
    sites.declared.table.items().retain(|key, _| !key.starts_with("token#"));
    assert_eq!(sites.alerts_of(Action::Apply).await?, ["Tableau marketing: webhook was disabled"]);
    assert_eq!(sites.alerts_of(Action::Apply).await?, NOTHING);
    Ok(())
}

#[tokio::test]
async fn the_next_run_solves_a_problem_of_a_run_that_was_cut_off() -> anyhow::Result<()> {
    let mut sites = Sites::start(StatusCode::OK).await?;
    sites.declared.apply().await??;
    let entry = sites.declared.entries["marketing"].clone();
    sites.declared.set("marketing", "token_secret", json!("another-one-for-this-test"))?;
    let mut alerts = Vec::new();
    cut_off(sites.declared.apply(), || {
        alerts.extend(sites.declared.topics.take_subjects());
        !alerts.is_empty()
    })
    .await?;
    assert_eq!(alerts, ["Tableau marketing: token refused"]);
    sites.declared.table.items().retain(|key, _| !key.starts_with("token#"));
    sites.declared.entries.insert("marketing".to_owned(), entry);
    assert_eq!(sites.alerts_of(Action::Apply).await?, ["Tableau marketing: solved: token refused"]);
    assert_eq!(sites.alerts_of(Action::Apply).await?, NOTHING);
    Ok(())
}

#[tokio::test]
async fn the_alert_of_a_disabled_webhook_has_tableaus_reason_and_the_repair() -> anyhow::Result<()> {
    let sites = Sites::start(StatusCode::OK).await?;
    sites.declared.apply().await??;
    sites.disable("marketing")?;
    sites.declared.apply().await??;
    let alerts = sites.declared.topics.take_alerts();
    let texts: Value = serde_json::from_str(&alerts.first().context("no alert")?.body)?;
    assert_eq!((alerts.len(), &*alerts[0].subject), (1, "Tableau marketing: webhook was disabled"));
    insta::assert_snapshot!(texts["email"].as_str().context("no e-mail")?, @"
    Tableau site marketing: fan-ViewDeleted: disabled by Tableau: Webhook disabled after 4 failed delivery attempts.

    It is enabled again. Missed refresh events are recovered from Tableau's jobs; other missed events are lost.

    To see why its deliveries failed: aws logs tail /aws/lambda/fan-receiver --since 1d
    ");
    assert_eq!(sites.alerts_of(Action::Apply).await?, NOTHING);
    sites.disable("finance")?;
    sites.disable("marketing")?;
    assert_eq!(sites.alerts_of(Action::Apply).await?, ["Tableau finance, marketing: webhook was disabled"]);
    Ok(())
}

#[tokio::test]
async fn a_webhook_whose_test_failed_is_tested_until_it_succeeds() -> anyhow::Result<()> {
    let failing = Sites::start(StatusCode::BAD_GATEWAY).await?;
    assert_eq!(failing.alerts_of(Action::Apply).await?, ["Tableau finance, marketing: webhook test failed"]);
    assert_eq!(failing.alerts_of(Action::Apply).await?, NOTHING);
    let tests = |sites: &Sites| {
        site(&sites.tableau, "finance", |site| site.calls.iter().filter(|call| call.ends_with("/test")).count())
    };
    assert_eq!(tests(&failing)?, 2);

    // The same sites with a working receiver.
    let mut working = Sites::start(StatusCode::OK).await?;
    working.declared.apply().await??;
    let before = tests(&working)?;
    working.copy_state_of(&failing);
    assert_eq!(working.alerts_of(Action::Apply).await?, ["Tableau finance, marketing: solved: webhook test failed"]);
    assert_eq!(tests(&working)?, before + 1);
    // A site run that ends before the test solves no problem.
    working.copy_state_of(&failing);
    for name in ["finance", "marketing"] {
        working.declared.set(name, "token_secret", json!("wrong"))?;
    }
    assert_eq!(working.alerts_of(Action::Apply).await?, ["Tableau finance, marketing: token refused"]);
    Ok(())
}

#[tokio::test]
async fn a_refused_event_causes_one_alert_and_its_removal_another() -> anyhow::Result<()> {
    let mut sites = Sites::start(StatusCode::OK).await?;
    site(&sites.tableau, "marketing", |site| site.oddities.refuses_site_events = true)?;
    sites.declared.set("marketing", "events", json!(["SiteCreated", "ViewDeleted"]))?;
    assert_eq!(sites.alerts_of(Action::Apply).await?, ["Tableau marketing: webhook refused"]);
    assert_eq!(sites.alerts_of(Action::Apply).await?, NOTHING);
    // Another event is another problem.
    sites.declared.set("marketing", "events", json!(["SiteCreated", "SiteUpdated", "ViewDeleted"]))?;
    assert_eq!(sites.alerts_of(Action::Apply).await?, ["Tableau marketing: webhook refused"]);
    sites.declared.set("marketing", "events", json!(["ViewDeleted"]))?;
    let solved = "Tableau marketing: solved: webhook refused";
    assert_eq!(sites.alerts_of(Action::Apply).await?.first().map(String::as_str), Some(solved));
    Ok(())
}

#[tokio::test]
async fn an_unsent_alert_fails_the_run_and_is_sent_by_the_next() -> anyhow::Result<()> {
    let mut sites = Sites::start(StatusCode::OK).await?;
    sites.declared.apply().await??;
    sites.disable("marketing")?;
    sites.declared.topics.alerts_fail = true;
    let Err(failure @ Failure::Alerts(_)) = sites.declared.apply().await? else { anyhow::bail!("the run succeeded") };
    let text = failure.to_string();
    let last = text.lines().last().context("no text")?;
    assert_eq!(last, "Alerts could not be sent: SNS is not available. The next run sends them.");
    let line: Value = serde_json::from_str(sites.declared.log().last().context("no line")?)?;
    assert_eq!((line["Succeeded"].as_f64(), line["AlertsFailed"].as_f64()), (Some(0.0), Some(1.0)), "{line}");
    sites.declared.set("finance", "token_secret", json!("wrong"))?;
    assert!(matches!(sites.declared.apply().await?, Err(Failure::Sites(_))));
    sites.declared.topics.alerts_fail = false;
    // The alert is sent although the webhook is enabled again.
    let late = ["Tableau finance: token refused", "Tableau marketing: webhook was disabled"];
    assert_eq!(sites.alerts_of(Action::Apply).await?, late);
    assert_eq!(sites.alerts_of(Action::Apply).await?, NOTHING);
    Ok(())
}

#[tokio::test]
async fn an_alert_that_sns_refuses_fails_one_run_and_repeats_no_other() -> anyhow::Result<()> {
    let mut sites = Sites::start(StatusCode::OK).await?;
    sites.declared.apply().await??;
    if let Ok(mut refused) = sites.declared.topics.refused.lock() {
        *refused = Some("cannot be reached".to_owned());
    }
    sites.declared.set("finance", "token_secret", json!("wrong"))?;
    sites.declared.set("marketing", "server", json!("http://127.0.0.1:1"))?;
    let Err(failure @ Failure::Sites(_)) = sites.declared.apply().await? else { anyhow::bail!("the run succeeded") };
    let text = failure.to_string();
    let last = text.lines().last().context("no text")?;
    let reason = "the message is refused for good: InvalidParameterException: Invalid parameter: Message";
    assert_eq!(last, format!("Alerts could not be sent: {reason}. They are not sent again."));
    assert_eq!(sites.declared.topics.take_subjects(), ["Tableau finance: token refused"]);
    for _ in 0..2 {
        assert_eq!(sites.alerts_of(Action::Apply).await?, NOTHING);
    }
    let Err(failure) = sites.declared.apply().await? else { anyhow::bail!("the run succeeded") };
    assert!(!failure.to_string().contains("Alerts could not be sent"), "{failure}");
    Ok(())
}

#[tokio::test]
async fn lost_or_unreadable_state_repeats_alerts() -> anyhow::Result<()> {
    let mut sites = Sites::start(StatusCode::OK).await?;
    sites.declared.set("marketing", "server", json!("http://127.0.0.1:1"))?;
    for content in [json!({}), json!({ "format": 1, "problems": 1 }), json!(null)] {
        for item in sites.declared.table.items().values_mut() {
            item.content = content.clone();
        }
        assert_eq!(sites.alerts_of(Action::Apply).await?, ["Tableau marketing: server not reachable"]);
        assert_eq!(sites.alerts_of(Action::Apply).await?, NOTHING);
    }
    Ok(())
}

#[tokio::test]
async fn a_run_of_one_site_sends_no_alerts_about_others() -> anyhow::Result<()> {
    let mut sites = Sites::start(StatusCode::OK).await?;
    for name in ["finance", "marketing"] {
        sites.declared.set(name, "token_secret", json!("wrong"))?;
    }
    let one = async |name: &str| {
        let _ = sites.declared.run(Action::Apply, Some(vec![name.to_owned()])).await?;
        anyhow::Ok(sites.declared.topics.take_subjects())
    };
    assert_eq!(one("finance").await?, ["Tableau finance: token refused"]);
    assert_eq!(one("marketing").await?, ["Tableau marketing: token refused"]);
    // An undeclared name is the caller's mistake, and no problem of a site.
    assert_eq!(one("sales").await?, NOTHING);
    assert_eq!(one("finance").await?, NOTHING);
    Ok(())
}

#[tokio::test]
async fn a_removed_site_leaves_no_open_alert_and_no_state() -> anyhow::Result<()> {
    let mut sites = Sites::start(StatusCode::OK).await?;
    sites.declared.set("marketing", "token_secret", json!("wrong"))?;
    assert_eq!(sites.alerts_of(Action::Apply).await?, ["Tableau marketing: token refused"]);
    sites.declared.entries.remove("marketing");
    // A run that cannot send the alert keeps the state for the next one.
    sites.declared.topics.alerts_fail = true;
    assert!(matches!(sites.declared.apply().await?, Err(Failure::Alerts(_))));
    assert_ne!(sites.declared.table.content("site#marketing"), Value::Null);
    sites.declared.topics.alerts_fail = false;
    // It needs to reach no site.
    sites.declared.run(Action::Apply, Some(Vec::new())).await??;
    assert_eq!(sites.declared.topics.take_subjects(), ["Tableau marketing: solved: token refused"]);
    assert_eq!(sites.declared.table.content("site#marketing"), Value::Null);
    assert_eq!(sites.alerts_of(Action::Apply).await?, NOTHING);
    Ok(())
}

#[tokio::test]
async fn a_test_always_sends_an_alert_with_its_result() -> anyhow::Result<()> {
    for (status, expected) in [
        (StatusCode::OK, "Tableau Fanout: test: 6 tests were accepted by the receiver"),
        (StatusCode::NOT_FOUND, "Tableau Fanout: test: 2 of 2 sites failed"),
    ] {
        let sites = Sites::start(status).await?;
        sites.alerts_of(Action::Apply).await?;
        for _ in 0..2 {
            assert_eq!(sites.alerts_of(Action::Test).await?, [expected]);
        }
    }
    Ok(())
}

#[tokio::test]
async fn no_text_of_tableau_becomes_markup_or_a_separate_line() -> anyhow::Result<()> {
    const HOSTILE: &str = "<!channel> [x](https://evil.example)\n  error: \u{202e}*b* `c` <@U024BE7LH>\u{1b}[2J";
    let mut sites = Sites::start(StatusCode::OK).await?;
    sites.declared.recover_hours = "24";
    sites.declared.apply().await??;
    pass(&sites.tableau, &sites.declared, &["marketing"], Duration::minutes(15))?;
    site(&sites.tableau, "marketing", |site| {
        for webhook in &mut site.webhooks {
            webhook.disable(Some(HOSTILE.to_owned()));
        }
        let mut foreign = site.webhooks[0].clone();
        (foreign.id, foreign.name) = ("foreign".to_owned(), HOSTILE.to_owned());
        site.webhooks.push(foreign);
        let ended_at = OffsetDateTime::now_utc() - Duration::minutes(10);
        site.jobs.push(Job {
            id: "j1".to_owned(),
            kind: RefreshKind::Workbook,
            luid: "luid".to_owned(),
            name: HOSTILE.to_owned(),
            outcome: RefreshOutcome::Failed,
            is_incremental: false,
            is_via_bridge: false,
            started_at: ended_at - Duration::minutes(1),
            ended_at,
            notes: Some(HOSTILE.to_owned()),
        });
    })?;
    let report = sites.declared.apply().await??;
    let site_report = &report.sites[1];
    let counts = [&site_report.enabled.len(), &site_report.recovered.len(), &site_report.explained.len()];
    assert_eq!((counts, site_report.foreign.len()), ([&3, &1, &1], 1), "{}", report.text);
    let tested = sites.declared.run(Action::Test, None).await??;
    assert!(report.text.contains("evil.example"), "{}", report.text);
    for text in [&report.text, &tested.text] {
        assert!(!text.lines().any(|line| line.starts_with("  error:")), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
    }
    let alerts = sites.declared.topics.take_alerts();
    let subjects: Vec<_> = alerts.iter().map(|alert| alert.subject.as_str()).collect();
    assert_eq!(alerts.len(), 4, "{subjects:?}");
    for AlertMessage { body, .. } in &alerts {
        let texts: Value = serde_json::from_str(body)?;
        let text = |protocol: &str| texts[protocol].as_str().context("no text");
        for (text, marks) in [
            (text("https")?, &["<", "](", "*b*", "\u{202e}", "\u{1b}"][..]),
            (text("email")?, &["\u{202e}", "\u{1b}", "\n  error:"]),
            (text("sms")?, &["\u{202e}", "\u{1b}", "\n"]),
        ] {
            // A code span keeps the stars and brackets of a name.
            let outside: String = text.split('`').step_by(2).collect();
            assert!(!marks.iter().any(|mark| outside.contains(mark)), "{text}");
            assert!(!text.contains("<!channel>") || !text.starts_with('{'), "{text}");
        }
    }
    Ok(())
}
