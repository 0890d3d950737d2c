//! The reconciler's binary, killed at any moment of its runs, with DynamoDB, SSM, SNS and SQS on ministack.
//!
//! `KILLS` sets the number of kills.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use end_to_end::{aging::age, declared::site};
use infra::queue;
use serde_json::{Value, json};
use shared::state::TOKEN_PREFIX;
use tableau_simulator::model::Job;
use tokio::time::timeout;

use crate::{
    binaries::{TABLE, World, apply},
    refreshes::failed,
};

const SITE: &str = "marketing";

/// Default of `KILLS`, which takes some ten seconds.
const DEFAULT_KILLS: u64 = 12;

/// Time limit for the events of a run to reach the queue.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Lets ten minutes pass: makes the stored state and every job older.
async fn pass(world: &World) -> anyhow::Result<()> {
    let by = time::Duration::minutes(10);
    let stored = world.dynamodb("Scan", &json!({ "TableName": TABLE })).await?;
    for item in stored["Items"].as_array().context("no items")? {
        let mut item = item.clone();
        age(&mut item, by);
        world.dynamodb("PutItem", &json!({ "TableName": TABLE, "Item": item })).await?;
    }
    site(&world.tableau, SITE, |site| {
        for job in &mut site.jobs {
            job.started_at -= by;
            job.ended_at -= by;
        }
    })
}

/// Disables the webhooks, and adds jobs that failed six minutes ago.
fn fail(world: &World, jobs: &[String]) -> anyhow::Result<()> {
    site(&world.tableau, SITE, |site| {
        site.webhooks.iter_mut().for_each(|webhook| webhook.disable(None));
        site.calls.clear();
        let age = time::Duration::minutes(6);
        site.jobs.extend(jobs.iter().map(|id| {
            let job = failed(id);
            Job { started_at: job.started_at - age, ended_at: job.ended_at - age, ..job }
        }));
    })
}

/// Receives events until both of each job have arrived. Checks that each has one identifier.
async fn receive_events(
    world: &World,
    queue: &str,
    jobs: &[String],
    ids: &mut BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let mut expected: BTreeSet<_> = (jobs.iter())
        .flat_map(|job| ["WorkbookRefreshFailed", "RefreshFailureExplained"].map(|event| format!("{event} {job}")))
        .collect();
    while !expected.is_empty() {
        for message in queue::receive(&world.cloud.aws, queue).await? {
            let event: Value = serde_json::from_str(message["Body"].as_str().context("no body")?)?;
            let text = |member: &str| event[member].as_str().unwrap_or_default();
            let job = text("subject").trim_start_matches("luid-of-");
            let name = format!("{} {job}", text("type").trim_start_matches("com.tableau."));
            expected.remove(&name);
            let id = text("id").to_owned();
            let known = ids.entry(name).or_insert_with(|| id.clone());
            ensure!(*known == id, "two identifiers: {event}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_run_after_a_kill_publishes_all_events_with_their_ids() -> anyhow::Result<()> {
    let kills = env::var("KILLS").ok().map(|kills| kills.parse()).transpose()?.unwrap_or(DEFAULT_KILLS);
    let world = World::start().await?;
    let topic = world.cloud.aws.json(&["sns", "create-topic", "--name", "events"]).await?;
    let topic = topic["TopicArn"].as_str().context("no topic")?;
    let queue = queue::create(&world.cloud.aws, "events").await?;
    queue::subscribe(&world.cloud.aws, &queue, topic, &json!({ "RawMessageDelivery": "true" })).await?;
    world.declare(SITE, &format!("http://{}", world.tableau.address), &["WorkbookRefreshFailed"]).await?;
    let variables = [("EVENTS_TOPIC_ARN", topic), ("RECOVER_HOURS", "24")];
    // The first run creates the keys and the webhook.
    world.reconciler(&variables).await?.invoke("first", apply()).await?;

    let mut longest = Duration::from_millis(100);
    let (mut ids, mut moments) = (BTreeMap::new(), BTreeSet::new());
    for number in 0..kills {
        pass(&world).await?;
        let jobs = ["a", "b"].map(|letter| format!("{number}-{letter}"));
        fail(&world, &jobs)?;
        let reconciler = world.reconciler(&variables).await?;
        reconciler.started().await?;
        // Any moment within the longest run so far.
        let moment = longest.mul_f64(RandomState::new().hash_one(number) as f64 / u64::MAX as f64);
        let ended = timeout(moment, reconciler.invoke("killed", apply())).await.is_ok();
        drop(reconciler);
        let calls = site(&world.tableau, SITE, |site| site.calls.len())?;
        moments.insert((ended, calls));

        // The killed run's token is free again.
        pass(&world).await?;
        let reconciler = world.reconciler(&variables).await?;
        reconciler.started().await?;
        let start = Instant::now();
        let answer = reconciler.invoke("next", apply()).await?;
        longest = longest.max(start.elapsed());
        ensure!(answer["text"].as_str().is_some_and(|text| text.ends_with("1 site is as declared.")), "{answer}");
        ensure!(answer["sites"][0]["not_recovered"] == json!([]), "{answer}");

        let received = receive_events(&world, &queue, &jobs, &mut ids);
        timeout(ARRIVAL_TIMEOUT, received).await.context("not all events arrived")??;
    }
    println!("{kills} kills, after so many calls to Tableau (true: after the end): {moments:?}");
    let left = world.dynamodb("Scan", &json!({ "TableName": TABLE })).await?;
    ensure!(!left.to_string().contains(TOKEN_PREFIX), "a token is still in use: {left}");
    Ok(())
}
