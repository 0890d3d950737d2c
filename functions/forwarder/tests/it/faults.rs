//! Targets that fail: nothing is lost, and each message ends once, delivered or as a dead letter.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use crate::{
    cloud::VISIBILITY_TIMEOUT,
    target::{Answer, Call, Target},
    world::{CHAT, World, entry, event},
};

const MESSAGES: usize = 4;
const HOUR: Duration = Duration::from_secs(3600);

/// The end of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Delivered,
    Dead { status: Option<u16> },
}

/// A target that fails, and what follows.
struct Fault {
    name: &'static str,
    /// The answer by the number of earlier calls about the message, and the time.
    answer: Box<dyn Fn(usize, Duration) -> Answer + Send + Sync>,
    members: Value,
    end: End,
    /// The calls of each message; `None` for those of a day.
    calls: Option<usize>,
}

impl Fault {
    fn new(
        name: &'static str,
        end: End,
        calls: Option<usize>,
        answer: impl Fn(usize, Duration) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self { name, answer: Box::new(answer), members: json!({}), end, calls }
    }

    /// Fails once, and then works.
    fn once(name: &'static str, failure: Answer) -> Self {
        Self::new(name, End::Delivered, Some(2), move |same, _| match same {
            0 => failure.clone(),
            _ => Answer::Status(200),
        })
    }

    /// Always answers the same.
    fn always(name: &'static str, status: u16, calls: Option<usize>) -> Self {
        Self::new(name, End::Dead { status: Some(status) }, calls, move |_, _| Answer::Status(status))
    }
}

fn faults() -> Vec<Fault> {
    let down_for = |time: Duration, failure: Answer| {
        move |_, now: Duration| if now < time { failure.clone() } else { Answer::Status(202) }
    };
    let location = || Answer::With(302, "location", "http://127.0.0.1:1/elsewhere".to_owned());
    let redirects = Fault::new("answers 302", End::Dead { status: Some(302) }, Some(1), move |_, _| location());
    let mut apps_script = Fault::new("answers 302 as a success", End::Delivered, Some(1), move |_, _| location());
    apps_script.members = json!({ "redirect_is_success": true });
    vec![
        Fault::once("works", Answer::Status(204)).calls(1),
        Fault::once("fails once", Answer::Status(500)),
        Fault::once("asks for another time", Answer::Status(425)),
        Fault::once("limits its rate", Answer::With(429, "retry-after", "120".to_owned())).any_calls(),
        Fault::once("hangs once", Answer::Hang),
        Fault::once("resets once", Answer::Reset),
        Fault::once("answers without end", Answer::Endless(200)).calls(1),
        Fault::new("is down for a minute", End::Delivered, None, down_for(HOUR / 60, Answer::Status(500))),
        Fault::new("is down for a night", End::Delivered, None, down_for(HOUR * 10, Answer::Reset)),
        Fault::new("forgets its address for a night", End::Delivered, None, down_for(HOUR * 10, Answer::Status(404))),
        redirects,
        apps_script,
        Fault::always("answers 400", 400, Some(1)),
        Fault::always("answers 413", 413, Some(1)),
        Fault::always("answers 422", 422, Some(1)),
        Fault::always("answers 410", 410, None),
        Fault::always("answers 401", 401, None),
        Fault::always("answers 503", 503, None),
        Fault::new("resets all day", End::Dead { status: None }, None, |_, _| Answer::Reset),
    ]
}

impl Fault {
    fn calls(self, calls: usize) -> Self {
        Self { calls: Some(calls), ..self }
    }

    fn any_calls(self) -> Self {
        Self { calls: None, ..self }
    }
}

/// Checks a fault, and returns its row of the table.
async fn check(fault: Fault) -> anyhow::Result<String> {
    let Fault { name, answer, members, end, calls } = fault;
    let is_success =
        |call: &Call| call.is_accepted() || (call.is_redirected() && members["redirect_is_success"] == true);
    let world = World::new();
    let clock = world.cloud.clone();
    let target = Target::start(move |_, same| answer(same, clock.now())).await?;
    let world = world.with(&target, members.clone(), MESSAGES);
    world.finish().await;

    let one = match end {
        End::Delivered => (1, 0),
        End::Dead { .. } => (0, 1),
    };
    let expected: BTreeMap<_, _> = (1..=MESSAGES).map(|number| (format!("event-{number}"), one)).collect();
    let ends = world.ends(&target, is_success);
    assert_eq!(ends, expected, "{name}");
    let all_calls = target.calls().len();
    let (accepted, dead) = (ends.values().map(|end| end.0).sum::<usize>(), world.cloud.dead().len());
    let lost = MESSAGES - ends.len();
    let row = format!("{name:34} {MESSAGES:>4} {all_calls:>5} {accepted:>8} {dead:>12} {lost:>4}\n");
    match calls {
        Some(calls) => assert_eq!(all_calls, MESSAGES * calls, "{name}"),
        None => assert!(all_calls > MESSAGES, "{name}: {all_calls} calls"),
    }
    let End::Dead { status } = end else { return Ok(row) };
    for letter in world.cloud.dead() {
        let attributes = letter.attributes();
        let found = attributes.iter().find(|attribute| attribute.name == "status").map(|it| it.value.clone());
        assert_eq!(found, status.map(|status| status.to_string()), "{name}");
    }
    // At once, or after a day.
    let age = world.cloud.now();
    let is_expected = if calls.is_some() { age < HOUR } else { (HOUR * 23..HOUR * 25).contains(&age) };
    assert!(is_expected, "{name}: dead after {age:?}");
    Ok(row)
}

#[tokio::test]
async fn each_message_is_delivered_or_dead_once_whatever_the_target_answers() -> anyhow::Result<()> {
    let mut table = format!(
        "{:34} {:>4} {:>5} {:>8} {:>12} {:>4}\n",
        "the target", "sent", "calls", "accepted", "dead letters", "lost"
    );
    for fault in faults() {
        table += &check(fault).await?;
    }
    println!("{table}");
    Ok(())
}

#[tokio::test]
async fn gaps_grow_from_seconds_to_an_hour() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(500)).await?;
    let world = World::new().with(&target, json!({}), 1);
    world.finish().await;
    let mut waits = world.cloud.waits();
    // The last one ends with the day.
    waits.pop();
    assert!((10..=20).contains(&waits[0].as_secs()), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= HOUR), "{waits:?}");
    assert!(waits.iter().skip(10).all(|wait| *wait >= HOUR / 2), "{waits:?}");
    assert!((20..=60).contains(&waits.len()), "{waits:?}");
    Ok(())
}

#[tokio::test]
async fn the_wait_that_a_target_asks_for_is_kept_in_seconds_and_as_a_date() -> anyhow::Result<()> {
    let date = (OffsetDateTime::now_utc() + HOUR).format(&Rfc2822)?.replace("+0000", "GMT");
    for (retry_after, expected) in [("120".to_owned(), 120..=120), (date, 3590..=3600)] {
        let shown = retry_after.clone();
        let target = Target::start(move |_, same| match same {
            0 => Answer::With(429, "retry-after", retry_after.clone()),
            _ => Answer::Status(200),
        });
        let target = target.await?;
        let world = World::new().with(&target, json!({}), 1);
        world.finish().await;
        let waits: Vec<_> = world.cloud.waits().iter().map(Duration::as_secs).collect();
        assert!(waits.len() == 1 && expected.contains(&waits[0]), "{shown}: {waits:?}");
        assert_eq!(world.ends(&target, Call::is_accepted), [("event-1".to_owned(), (1, 0))].into());
    }
    Ok(())
}

#[tokio::test]
async fn a_target_that_limits_its_rate_is_not_called_again_in_the_batch() -> anyhow::Result<()> {
    let target = Target::start(|all, _| match all {
        2 => Answer::With(429, "retry-after", "60".to_owned()),
        _ => Answer::Status(200),
    });
    let target = target.await?;
    let world = World::new().with(&target, json!({}), 8);
    world.batch().await;
    assert_eq!(target.calls().len(), 3);
    assert_eq!(world.cloud.waits(), [Duration::from_secs(60); 6]);
    world.finish().await;
    assert_eq!(
        world.ends(&target, Call::is_accepted),
        (1..=8).map(|number| (format!("event-{number}"), (1, 0))).collect()
    );
    Ok(())
}

#[tokio::test]
async fn no_message_is_a_dead_letter_because_another_met_a_limit() -> anyhow::Result<()> {
    // The forwarder did not run for a day.
    let target = Target::start(|all, _| match all {
        0 => Answer::With(429, "retry-after", "60".to_owned()),
        _ => Answer::Status(200),
    });
    let target = target.await?;
    let world = World::new().with(&target, json!({}), 4);
    world.cloud.advance(HOUR * 25);
    world.finish().await;
    let dead: Vec<_> = world.cloud.dead().iter().map(|letter| letter.body().to_owned()).collect();
    assert_eq!((dead.len(), target.calls().len()), (1, 4), "{dead:?}");
    assert!(dead[0].contains("event-1"), "{dead:?}");
    Ok(())
}

#[tokio::test]
async fn an_answer_without_end_is_read_up_to_a_limit() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Endless(200)).await?;
    let world = World::new().with(&target, json!({}), 1);
    world.finish().await;
    assert_eq!(world.ends(&target, Call::is_accepted), [("event-1".to_owned(), (1, 0))].into());
    // The buffers of the connection take some of it.
    assert!(target.endless_bytes() < 16 * 1024 * 1024, "{} bytes", target.endless_bytes());
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_and_a_closed_port_are_reasons_of_dead_letters() -> anyhow::Result<()> {
    let tls = tls::Authority::new()?.listen("localhost").await?;
    let port = axum::serve::Listener::local_addr(&tls)?.port();
    let server = tokio::spawn(axum::serve(tls, axum::Router::new()).into_future());
    let closed = Target::start(|_, _| Answer::Status(200)).await?.address;
    for (address, reason) in [
        (format!("https://localhost:{port}/s3cret-path"), "the certificate is not accepted"),
        (format!("http://{closed}/s3cret-path"), "the connection was refused"),
    ] {
        let world = World::new();
        world.cloud.store("chat", entry(closed, json!({ "address": address })));
        world.cloud.send(CHAT, event(1));
        world.finish().await;
        let dead = world.cloud.dead();
        assert_eq!(dead.len(), 1, "{reason}");
        assert!(format!("{dead:?}").contains(reason), "{dead:?}");
    }
    server.abort();
    Ok(())
}

#[tokio::test]
async fn a_message_stays_in_its_queue_while_sqs_fails() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(422)).await?;
    let world = World::new().with(&target, json!({}), 2);
    world.cloud.fail(false, true);
    world.batch().await;
    assert_eq!((world.cloud.queued(), world.cloud.dead().len()), (2, 0));
    let lines = world.lines();
    assert!(
        lines.iter().all(|line| line["queue_error"] == "SQS throttles" && line["DeadLetters"].is_null()),
        "{lines:?}"
    );
    world.cloud.fail(false, false);
    world.finish().await;
    assert_eq!((world.cloud.queued(), world.cloud.dead().len()), (0, 2));
    Ok(())
}

#[tokio::test]
async fn a_batch_that_is_killed_is_repeated() -> anyhow::Result<()> {
    let target = Target::start(|all, _| if all == 3 { Answer::Hang } else { Answer::Status(200) }).await?;
    let world = Arc::new(World::new().with(&target, json!({}), 10));
    let killed = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.batch().await }
    });
    target.called(4).await;
    killed.abort();
    assert!(killed.await.expect_err("killed").is_cancelled());
    assert_eq!(world.cloud.queued(), 10);
    world.cloud.advance(VISIBILITY_TIMEOUT);
    world.finish().await;
    let ends = world.ends(&target, Call::is_accepted);
    assert_eq!(ends.values().filter(|end| **end == (1, 0)).count(), 7, "{ends:?}");
    assert_eq!(ends.values().filter(|end| **end == (2, 0)).count(), 3, "{ends:?}");
    Ok(())
}

#[tokio::test]
async fn a_failed_message_is_seen_by_the_metrics() -> anyhow::Result<()> {
    let target = Target::start(|_, same| Answer::Status(if same == 0 { 500 } else { 200 })).await?;
    let world = World::new().with(&target, json!({}), 1);
    world.batch().await;
    world.cloud.advance(HOUR);
    world.finish().await;
    let lines = world.lines();
    assert_eq!((&lines[0]["ForwardRetried"], &lines[0]["OldestUndelivered"]), (&json!(1), &json!(0)));
    assert_eq!((&lines[1]["Forwarded"], &lines[1]["age_s"]), (&json!(1), &json!(3600)));
    assert_eq!((&lines[1]["attempts"], &lines[1]["target"]), (&json!(2), &json!("chat")));
    Ok(())
}

#[tokio::test]
async fn the_metric_of_a_target_is_the_age_of_its_oldest_message_until_that_left_the_queue() -> anyhow::Result<()> {
    for (last, end) in [(200, "forwarded"), (422, "dead letter")] {
        let target = Target::start(move |_, same| Answer::Status(if same < 9 { 503 } else { last })).await?;
        let world = World::new().with(&target, json!({}), 1);
        world.finish().await;
        let lines = world.lines();
        let (last, before) = lines.split_last().expect("a line");
        for line in before {
            assert_eq!((&line["OldestUndelivered"], &line["QueueName"]), (&line["age_s"], &json!(CHAT)), "{line}");
        }
        assert!(before.last().is_some_and(|line| line["OldestUndelivered"].as_u64() > Some(1800)), "{before:?}");
        assert_eq!((&last["outcome"], &last["OldestUndelivered"]), (&json!(end), &json!(0)));
        assert_eq!(last["_aws"]["CloudWatchMetrics"][1]["Dimensions"], json!([["QueueName"]]));
    }
    Ok(())
}

#[tokio::test]
async fn the_metric_of_a_target_ends_with_a_message_that_it_no_longer_gets() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(503)).await?;
    let world = World::new().with(&target, json!({}), 1);
    world.batch().await;
    world.cloud.store("chat", entry(target.address, json!({ "selection": { "sites": ["other"] } })));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    world.finish().await;
    let lines = world.lines();
    assert_eq!((lines.len(), &lines[1]["outcome"]), (2, &json!("not selected")));
    assert_eq!(lines[1]["OldestUndelivered"], 0);
    Ok(())
}
