//! Entries that are missing, not usable, corrected or changed.

use std::time::Duration;

use serde_json::json;
use tokio::time;

use crate::{
    target::{Answer, Target},
    world::{CHAT, World, entry, event},
};

#[tokio::test]
async fn an_entry_is_read_once_a_minute() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(200)).await?;
    let world = World::new().with(&target, json!({}), 20);
    world.batch().await;
    world.batch().await;
    assert_eq!((target.calls().len(), world.cloud.reads()), (20, 1));
    time::pause();
    time::advance(Duration::from_secs(61)).await;
    time::resume();
    world.cloud.send(CHAT, event(21));
    world.batch().await;
    assert_eq!((target.calls().len(), world.cloud.reads()), (21, 2));
    Ok(())
}

#[tokio::test]
async fn a_refused_secret_is_read_again_before_the_next_message() -> anyhow::Result<()> {
    for status in [401, 403, 404, 410] {
        let old = Target::start(move |_, _| Answer::Status(status)).await?;
        let new = Target::start(|_, _| Answer::Status(200)).await?;
        let world = World::new().with(&old, json!({}), 1);
        world.batch().await;
        world.cloud.store("chat", entry(new.address, json!({})));
        world.cloud.send(CHAT, event(2));
        world.finish().await;
        assert_eq!((old.calls().len(), new.calls().len(), world.cloud.dead().len()), (1, 2, 0), "{status}");
        assert_eq!(world.cloud.reads(), 2);
    }
    Ok(())
}

#[tokio::test]
async fn an_entry_that_is_missing_or_not_usable_can_be_corrected_for_a_day() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(200)).await?;
    let unusable = entry(target.address, json!({ "preset": "s3cret-preset" }));
    let broken = json!({ "preset": "custom", "address": "https://127.0.0.1/s3cret-path", "template": "{{ s3cret" });
    for (stored, reason) in [
        (None, "the target has no SSM parameter"),
        (Some(json!("s3cret")), "the target entry chat cannot be used: its value is not a JSON object."),
        (Some(unusable), "the target entry chat cannot be used: preset is not valid"),
        (Some(broken), "template"),
    ] {
        let world = World::new();
        if let Some(stored) = &stored {
            world.cloud.store("chat", stored);
        }
        world.cloud.send(CHAT, event(1));
        world.batch().await;
        assert_eq!((world.cloud.queued(), world.cloud.dead().len()), (1, 0));
        let lines = world.lines();
        let error = lines[0]["error"].as_str().unwrap_or_default();
        assert!(error.contains(reason) && !error.contains("s3cret"), "{error}");

        // It is not corrected.
        world.finish().await;
        let dead = format!("{:?}", world.cloud.dead());
        assert!(world.cloud.dead().len() == 1 && dead.contains(reason) && !dead.contains("s3cret"), "{dead}");

        // It is corrected.
        let world = World::new();
        world.cloud.send(CHAT, event(1));
        world.batch().await;
        world.cloud.store("chat", entry(target.address, json!({})));
        time::pause();
        time::advance(Duration::from_secs(61)).await;
        time::resume();
        world.finish().await;
        assert_eq!((world.cloud.queued(), world.cloud.dead().len()), (0, 0));
    }
    assert_eq!(target.calls().len(), 4);
    Ok(())
}

#[tokio::test]
async fn nothing_is_lost_while_ssm_fails() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(200)).await?;
    let world = World::new().with(&target, json!({}), 10);
    world.cloud.fail(true, false);
    world.batch().await;
    assert_eq!((world.cloud.queued(), world.cloud.reads()), (10, 1));
    world.cloud.fail(false, false);
    time::pause();
    time::advance(Duration::from_secs(61)).await;
    time::resume();
    world.finish().await;
    assert_eq!((target.calls().len(), world.cloud.dead().len()), (10, 0));
    Ok(())
}
