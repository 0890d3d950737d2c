//! Targets that get one call for all messages, one each six minutes at most.

use std::time::Duration;

use forwarder::batch::Invocation;
use serde_json::{Value, json};

use crate::{
    target::{Answer, Target},
    world::{CHAT, World, entry, event},
};

const GAP: Duration = Duration::from_secs(331);

fn sheet(target: &Target, members: Value) -> Value {
    let mut sheet = entry(target.address, members);
    sheet["preset"] = "coefficient".into();
    sheet.as_object_mut().expect("an object").remove("per_second");
    sheet
}

/// Returns a world with messages for the target `chat`, which coalesces.
fn world(target: &Target, members: Value, messages: usize) -> World {
    let world = World::new().with(target, json!({}), messages);
    world.cloud.store("chat", sheet(target, members));
    world
}

fn bodies(target: &Target) -> Vec<String> {
    target.calls().into_iter().map(|call| call.body).collect()
}

#[test]
fn the_schedule_in_the_template_of_a_target_invokes_the_forwarder() -> anyhow::Result<()> {
    let template = include_str!("../../../../infra/target.yaml");
    let inputs = template.lines().filter_map(|line| line.trim().strip_prefix("Input: !Sub '")?.strip_suffix('\''));
    let inputs: Vec<_> = inputs.map(|input| input.replace("${Target}", "chat")).collect();
    assert_eq!(inputs.len(), 1);
    let Invocation::Coalesce { target } = serde_json::from_str(&inputs[0])? else { anyhow::bail!("a batch") };
    assert_eq!(target.as_str(), "chat");
    Ok(())
}

#[tokio::test]
async fn all_messages_are_one_call_and_none_is_left() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(200)).await?;
    let world = world(&target, json!({ "credentials": { "type": "bearer", "token": "t" } }), 123);
    world.coalesce("chat").await;
    assert_eq!((bodies(&target), world.cloud.queued()), (vec![r#"{"messages":123}"#.to_owned()], 0));
    assert!(target.calls()[0].head.contains("authorization: Bearer t"));
    assert_eq!((world.lines().len(), world.cloud.holds()), (123, vec!["target#chat".to_owned()]));
    // Nothing arrived since.
    world.cloud.advance(GAP);
    world.coalesce("chat").await;
    assert_eq!(target.calls().len(), 1);
    Ok(())
}

#[tokio::test]
async fn only_selected_messages_are_counted_and_no_call_is_made_for_none() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(200)).await?;
    let members = json!({ "selection": { "projects": ["Finance"] } });
    let world = world(&target, members, 3);
    world.coalesce("chat").await;
    assert_eq!((target.calls().len(), world.cloud.queued(), world.cloud.holds().len()), (0, 0, 0));
    let mut selected = event(4);
    selected["data"] = json!({ "project": { "name": "Finance" } });
    for body in [selected.to_string(), event(5).to_string(), "no message".to_owned()] {
        world.cloud.send(CHAT, body);
    }
    world.coalesce("chat").await;
    assert_eq!(bodies(&target), [r#"{"messages":1}"#]);
    assert_eq!((world.cloud.queued(), world.cloud.dead().len()), (0, 1));
    Ok(())
}

#[tokio::test]
async fn calls_are_five_minutes_apart_however_often_the_schedule_fires() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(200)).await?;
    let world = world(&target, json!({}), 2);
    world.coalesce("chat").await;
    world.cloud.send(CHAT, event(3));
    // At once, and twice at the same time.
    world.coalesce("chat").await;
    world.cloud.advance(Duration::from_secs(200));
    world.cloud.send(CHAT, event(4));
    tokio::join!(world.coalesce("chat"), world.coalesce("chat"));
    assert_eq!((target.calls().len(), world.cloud.queued()), (1, 2));
    let waits = world.cloud.waits();
    assert!(waits.iter().all(|wait| *wait <= GAP), "{waits:?}");
    world.cloud.advance(Duration::from_secs(131));
    world.coalesce("chat").await;
    assert_eq!((bodies(&target)[1].as_str(), world.cloud.queued()), (r#"{"messages":2}"#, 0));
    Ok(())
}

#[tokio::test]
async fn messages_are_kept_for_a_day_while_the_target_fails_and_each_ends_once() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(503)).await?;
    let world = world(&target, json!({}), 20);
    let mut late = None;
    while world.cloud.advance_to_next() && world.cloud.dead().len() < 20 {
        world.coalesce("chat").await;
        if late.is_none() && world.cloud.now() > Duration::from_secs(23 * 3600) {
            world.cloud.send(CHAT, event(21));
            late = Some(world.cloud.now());
        }
        world.cloud.advance(GAP);
    }
    // One that arrived an hour ago has most of its day left.
    assert_eq!((world.cloud.dead().len(), world.cloud.queued()), (20, 1));
    let hours = world.cloud.now().as_secs() / 3600;
    assert!((23..=25).contains(&hours), "{hours} hours");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_lasts_makes_all_messages_dead_letters() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(422)).await?;
    let world = world(&target, json!({}), 12);
    world.coalesce("chat").await;
    assert_eq!((target.calls().len(), world.cloud.dead().len(), world.cloud.queued()), (1, 12, 0));
    Ok(())
}

#[tokio::test]
async fn messages_above_the_limit_of_sqs_stay_for_the_next_call() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(200)).await?;
    let world = world(&target, json!({}), 35);
    world.cloud.limit_in_flight(20);
    world.coalesce("chat").await;
    assert_eq!((bodies(&target), world.cloud.queued()), (vec![r#"{"messages":20}"#.to_owned()], 15));
    Ok(())
}

#[tokio::test]
async fn nothing_is_sent_or_lost_while_the_table_fails() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(200)).await?;
    let world = world(&target, json!({}), 3);
    world.cloud.fail_alerts(true, false);
    world.coalesce("chat").await;
    assert_eq!((target.calls().len(), world.cloud.queued()), (0, 3));
    assert!(world.lines().iter().all(|line| line["error"] == "the state table could not be used: DynamoDB throttles"));
    world.cloud.fail_alerts(false, false);
    world.cloud.advance(GAP);
    world.coalesce("chat").await;
    assert_eq!((bodies(&target), world.cloud.queued()), (vec![r#"{"messages":3}"#.to_owned()], 0));
    Ok(())
}

#[tokio::test]
async fn a_preset_that_does_not_fit_the_stack_of_its_target_costs_no_message() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(200)).await?;
    let world = world(&target, json!({}), 1);
    world.batch().await;
    assert!(world.lines()[0]["error"].as_str().is_some_and(|error| error.contains("its stack has no schedule")));
    let other = World::new().with(&target, json!({}), 1);
    other.coalesce("chat").await;
    assert!(other.lines()[0]["error"].as_str().is_some_and(|error| error.contains("its stack has a schedule")));
    assert_eq!((target.calls().len(), world.cloud.queued(), other.cloud.queued()), (0, 1, 1));
    Ok(())
}
