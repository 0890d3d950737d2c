//! Measures a target that takes 200 ms for each event, alone and beside one that is down, in an account that runs ten functions
//! at a time.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, ensure};
use end_to_end::{
    local_stack::LocalStack,
    stand_ins::{Service, StandIn},
};
use futures_util::future::try_join_all;
use infra::target_messages::Topic;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

/// The events of each part.
const EVENTS: usize = 1000;

/// The time from one event to the next. Two invocations at a time send ten a second to the healthy target.
const PACE: Duration = Duration::from_millis(125);

/// The time that the healthy target takes for each.
const SLOW: Duration = Duration::from_millis(200);

/// Time limit for all events of a part.
const PART_TIMEOUT: Duration = Duration::from_secs(600);

/// The functions that the account runs at a time.
const CONCURRENCY: &str = "10";

/// Times from Tableau's call to the arrival at the healthy target, sorted.
struct Part(Vec<Duration>);

impl Part {
    fn quantile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }
}

/// Sends events and measures.
async fn measure(with_dead: bool) -> anyhow::Result<Part> {
    let stack = LocalStack::with_concurrency(CONCURRENCY).await?;
    let healthy = StandIn::start(Service::Slow(SLOW)).await?;
    let dead = StandIn::start(Service::Down).await?;
    let created = json!({ "event_type": ["WorkbookCreated"] });
    let entry = |stand_in: &StandIn| json!({ "preset": "plain", "address": stand_in.address, "per_second": 1000 });
    stack.add_target("healthy", &entry(&healthy), Topic::Events, &created).await?;
    if with_dead {
        stack.add_target("dead", &entry(&dead), Topic::Events, &created).await?;
    }
    stack.declare("marketing", &["WorkbookCreated"]).await?;
    stack.cloud.apply(&stack.stack).await?;
    let start = Instant::now() + Duration::from_secs(1);
    let sent = try_join_all((0..EVENTS).map(async |number| {
        let at = start + PACE * number.try_into()?;
        sleep_until(at).await;
        let payload = json!({ "event_type": "WorkbookCreated", "resource_name": format!("Budget {number}") });
        let answers = stack.fire("marketing", "WorkbookCreated", &payload, 1).await?;
        ensure!(answers == [Some(200)], "the receiver answered {answers:?}");
        anyhow::Ok((format!("Budget {number}"), at))
    }));
    let sent: BTreeMap<_, _> = sent.await?.into_iter().collect();
    healthy.within(PART_TIMEOUT, |events| events.len() >= EVENTS).await?;
    let mut times = Vec::new();
    for call in healthy.calls() {
        let event = call.json()?;
        let name = event["data"]["resource_name"].as_str().context("no name")?;
        times.push(call.at - *sent.get(name).with_context(|| format!("{name} was not sent"))?);
    }
    ensure!(times.len() == EVENTS, "{} calls", times.len());
    ensure!(dead.calls().is_empty() != with_dead, "{} calls of the target that is down", dead.calls().len());
    times.sort();
    Ok(Part(times))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (alone, beside) = (measure(false).await?, measure(true).await?);
    println!("| the target of 200 ms | p50 | p95 | p99 |\n|---|---:|---:|---:|");
    for (name, part) in [("alone", &alone), ("beside one that is down", &beside)] {
        let [p50, p95, p99] = [50, 95, 99].map(|percent| part.quantile(percent).as_millis());
        println!("| {name} | {p50} ms | {p95} ms | {p99} ms |");
    }
    let ratio = beside.quantile(95).as_secs_f64() / alone.quantile(95).as_secs_f64();
    println!(
        "\nThe ratio of the p95: {ratio:.2}. {EVENTS} events, one each {PACE:?}; the receiver answered all with 200."
    );
    Ok(())
}
