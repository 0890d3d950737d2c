//! Batches: order, rate, deadline, and messages that a target does not get.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    target::{Answer, Call, Target},
    world::{CHAT, World, entry, event},
};

async fn accepting() -> anyhow::Result<Target> {
    Target::start(|_, _| Answer::Status(200)).await
}

/// An alert of the alerts topic.
fn alert(id: &str, severity: &str) -> Value {
    json!({
        "kind": "problem",
        "severity": severity,
        "title": "A problem",
        "text": "Something happened.",
        "next_steps": [],
        "links": [],
        "sites": ["marketing"],
        "thread": "thread",
        "resolved": false,
        "event_id": id,
    })
}

#[tokio::test]
async fn messages_are_sent_one_after_another_at_half_of_the_rate() -> anyhow::Result<()> {
    let target = accepting().await?;
    let world = World::new().with(&target, json!({ "per_second": 20 }), 5);
    let begin = Instant::now();
    world.batch().await;
    let calls = target.calls();
    assert_eq!(
        calls.iter().map(|call| call.id()).collect::<Vec<_>>(),
        (1..=5).map(|it| format!("event-{it}")).collect::<Vec<_>>()
    );
    // Another invocation may have the other half, so this one takes 100 ms for each message, the last one included.
    assert!(begin.elapsed() >= Duration::from_millis(500), "{:?}", begin.elapsed());
    Ok(())
}

#[tokio::test]
async fn messages_without_time_before_the_deadline_return_to_the_queue_for_some_seconds() -> anyhow::Result<()> {
    let target = accepting().await?;
    // The gap between two calls is 400 ms, and one call needs up to 35 s with all that follows.
    let world = World::new().with(&target, json!({ "per_second": 5 }), 5);
    world.batch_until(Instant::now() + Duration::from_millis(35_200)).await;
    assert_eq!(target.calls().len(), 1);
    assert_eq!(world.cloud.waits(), [Duration::from_secs(20); 4]);
    let outcomes: Vec<_> = world.lines().iter().map(|line| line["outcome"].clone()).collect();
    assert_eq!(outcomes, ["forwarded", "postponed", "postponed", "postponed", "postponed"]);
    world.finish().await;
    assert_eq!(
        world.ends(&target, Call::is_accepted),
        (1..=5).map(|number| (format!("event-{number}"), (1, 0))).collect()
    );
    Ok(())
}

#[tokio::test]
async fn a_short_timeout_of_the_function_does_not_stop_everything() -> anyhow::Result<()> {
    let target = accepting().await?;
    let world = World::new().with(&target, json!({}), 3);
    let mut batches = 0;
    while world.cloud.advance_to_next() {
        world.batch_until(Instant::now() + Duration::from_secs(3)).await;
        batches += 1;
    }
    assert_eq!((target.calls().len(), batches), (3, 3));
    Ok(())
}

#[tokio::test]
async fn the_entry_selects_alerts_and_a_message_that_is_not_selected_leaves_no_trace() -> anyhow::Result<()> {
    let target = accepting().await?;
    let world = World::new().with(&target, json!({ "selection": { "severities": ["error"] } }), 0);
    for (id, severity) in [("a", "info"), ("b", "error"), ("c", "warning")] {
        world.cloud.send(CHAT, alert(id, severity));
    }
    world.finish().await;
    assert_eq!(target.calls().iter().map(|call| call.id()).collect::<Vec<_>>(), ["b"]);
    assert_eq!((world.lines().len(), world.cloud.dead().len()), (1, 0));
    Ok(())
}

#[tokio::test]
async fn an_alarm_about_a_target_does_not_go_to_it() -> anyhow::Result<()> {
    let target = accepting().await?;
    let world = World::new().with(&target, json!({}), 0);
    let alarm = |queue: &str| {
        json!({
            "AlarmName": format!("{queue}-alarm"),
            "NewStateValue": "ALARM",
            "NewStateReason": "Threshold crossed",
            "StateChangeTime": "2026-05-21T08:00:00.000+0000",
            "Region": "EU (Frankfurt)",
            "OldStateValue": "OK",
            "AWSAccountId": "123456789012",
            "Trigger": {
                "MetricName": "ApproximateNumberOfMessagesVisible",
                "Namespace": "AWS/SQS",
                "Dimensions": [{ "name": "QueueName", "value": queue }],
            },
        })
    };
    world.cloud.send(CHAT, alarm("tableau-fanout-target-chat-dead"));
    world.cloud.send(CHAT, alarm("tableau-fanout-target-other-dead"));
    world.finish().await;
    let calls = target.calls();
    assert!(calls.len() == 1 && calls[0].body.contains("target-other-dead"), "{calls:?}");
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_none_is_a_dead_letter_at_once_and_the_others_go_on() -> anyhow::Result<()> {
    let target = accepting().await?;
    let world = World::new().with(&target, json!({}), 1);
    for body in ["", "private-text", "[]", "{\"private\":1}"] {
        world.cloud.send(CHAT, body);
    }
    world.batch().await;
    assert_eq!((world.cloud.queued(), target.calls().len(), world.cloud.dead().len()), (0, 1, 4));
    let bodies: BTreeSet<_> = world.cloud.dead().iter().map(|letter| letter.body().to_owned()).collect();
    assert!(bodies.contains("private-text"), "{bodies:?}");
    assert!(!format!("{:?}{:?}", world.lines(), world.cloud.dead()).contains("private"));
    Ok(())
}

#[tokio::test]
async fn messages_of_several_queues_go_to_their_targets() -> anyhow::Result<()> {
    let (chat, pager) = (accepting().await?, accepting().await?);
    let world = World::new().with(&chat, json!({}), 2);
    world.cloud.store("pager", entry(pager.address, json!({})));
    world.cloud.send("tableau-fanout-target-pager", event(3));
    // Not that of a target: nobody can correct it in time.
    world.cloud.send("tableau-fanout-failures", event(4));
    world.finish().await;
    assert_eq!((chat.calls().len(), pager.calls().len()), (2, 1));
    let dead = format!("{:?}", world.cloud.dead());
    assert!(world.cloud.dead().len() == 1 && dead.contains("the queue is not that of a target"), "{dead}");
    Ok(())
}
