//! Alerts about targets that refuse messages.

use std::time::Duration;

use serde_json::json;
use shared::alerts::data::{AlertKind, Severity};

use crate::{
    target::{Answer, Target},
    world::{CHAT, World, event},
};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_target_that_refuses_messages_causes_one_alert_and_one_when_it_works() -> anyhow::Result<()> {
    for status in [401, 403, 404, 410] {
        let target = Target::start(move |all, _| Answer::Status(if all < 12 { status } else { 200 })).await?;
        let world = World::new().with(&target, json!({}), 4);
        world.batch().await;
        world.finish().await;
        let alerts = world.cloud.alerts();
        let kinds: Vec<_> = alerts.iter().map(|alert| (alert.kind, alert.severity, alert.resolved)).collect();
        let expected = [(AlertKind::Problem, Severity::Error, false), (AlertKind::ProblemSolved, Severity::Info, true)];
        assert_eq!(kinds, expected, "{status}");
        assert_eq!((&alerts[0].thread, alerts[0].sites.len()), (&alerts[1].thread, 0));
        assert!(alerts[0].thread.starts_with("target/chat/") && alerts[0].event_id != alerts[1].event_id);
        let texts = format!("{} {:?}", alerts[0].text, alerts[0].next_steps);
        for expected in ["chat", "plain", &status.to_string(), "add-target chat --overwrite", "24 hours"] {
            assert!(texts.contains(expected), "{texts}");
        }
        assert!(!format!("{alerts:?}").contains("s3cret") && !format!("{alerts:?}").contains("127.0.0.1"));
        assert_eq!(world.cloud.holds().len(), 0);
    }
    Ok(())
}

#[tokio::test]
async fn an_alert_is_repeated_after_a_day() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(401)).await?;
    let world = World::new().with(&target, json!({}), 1);
    for _ in 0..30 {
        world.batch().await;
        world.cloud.advance(HOUR);
        world.cloud.send(CHAT, event(2));
    }
    let alerts = world.cloud.alerts();
    assert_eq!(alerts.iter().map(|alert| alert.kind).collect::<Vec<_>>(), [AlertKind::Problem; 2]);
    assert_eq!(alerts[0].thread, alerts[1].thread);
    Ok(())
}

#[tokio::test]
async fn the_first_message_after_the_correction_ends_the_problem_even_if_none_was_left() -> anyhow::Result<()> {
    let target = Target::start(|all, _| Answer::Status(if all < 1 { 401 } else { 200 })).await?;
    let world = World::new().with(&target, json!({}), 1);
    world.batch().await;
    world.cloud.forget_messages();
    world.cloud.send(CHAT, event(2));
    world.batch().await;
    assert_eq!(world.cloud.alerts().len(), 2);
    Ok(())
}

#[tokio::test]
async fn an_end_that_sns_does_not_accept_is_sent_with_the_next_message() -> anyhow::Result<()> {
    let target = Target::start(|all, _| Answer::Status(if all < 1 { 401 } else { 200 })).await?;
    let world = World::new().with(&target, json!({}), 1);
    world.batch().await;
    world.cloud.fail_alerts(false, true);
    world.finish().await;
    world.cloud.fail_alerts(false, false);
    world.cloud.send(CHAT, event(2));
    world.batch().await;
    let alerts = world.cloud.alerts();
    assert_eq!((alerts.len(), &alerts[0].thread), (2, &alerts[1].thread));
    Ok(())
}

#[tokio::test]
async fn a_target_that_limits_its_rate_with_403_causes_no_alert() -> anyhow::Result<()> {
    let target = Target::start(|all, _| match all {
        0 => Answer::With(403, "retry-after", "60".to_owned()),
        _ => Answer::Status(200),
    });
    let target = target.await?;
    let world = World::new().with(&target, json!({}), 1);
    world.finish().await;
    assert_eq!((world.cloud.alerts().len(), target.calls().len()), (0, 2));
    Ok(())
}

#[tokio::test]
async fn a_target_that_fails_for_a_while_causes_no_alert() -> anyhow::Result<()> {
    for failure in [Answer::Status(503), Answer::Status(429), Answer::Reset, Answer::Status(422)] {
        let target = Target::start(move |all, _| if all < 4 { failure.clone() } else { Answer::Status(200) }).await?;
        let world = World::new().with(&target, json!({}), 2);
        world.finish().await;
        assert_eq!((world.cloud.alerts(), world.cloud.holds()), (Vec::new(), Vec::new()));
    }
    Ok(())
}

#[tokio::test]
async fn an_alert_that_sns_does_not_accept_is_sent_with_the_next_attempt() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(410)).await?;
    let world = World::new().with(&target, json!({}), 1);
    for (table_fails, sns_fails, alerts) in
        [(false, true, 0), (true, false, 0), (false, false, 1), (true, true, 1), (false, false, 1)]
    {
        world.cloud.fail_alerts(table_fails, sns_fails);
        world.cloud.advance_to_next();
        world.batch().await;
        assert_eq!(world.cloud.alerts().len(), alerts, "{table_fails} {sns_fails}");
        assert_eq!(world.cloud.queued(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn an_alert_about_a_target_does_not_go_to_it() -> anyhow::Result<()> {
    let refusing = Target::start(|_, _| Answer::Status(401)).await?;
    let world = World::new().with(&refusing, json!({}), 1);
    world.batch().await;
    let alert = json!(world.cloud.alerts()[0]);
    let target = Target::start(|_, _| Answer::Status(200)).await?;
    let world = World::new().with(&target, json!({}), 0);
    world.cloud.store("pager", crate::world::entry(target.address, json!({})));
    for queue in [CHAT, "tableau-fanout-target-pager"] {
        world.cloud.send(queue, &alert);
    }
    world.finish().await;
    assert_eq!((target.calls().len(), world.cloud.queued()), (1, 0));
    Ok(())
}
