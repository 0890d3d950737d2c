//! Derives histories from seeds, executes many at once, and shrinks one that fails.
//!
//! `HISTORIES` sets their number, `HISTORIES_SEED` the first seed. A seed does not determine everything: keys, delays, and
//! the order of concurrent calls still vary.

use std::{
    collections::BTreeMap,
    env, fmt,
    future::poll_fn,
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Instant,
};

use anyhow::Context;
use axum::http::StatusCode;
use end_to_end::destination::Destination;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use tableau_simulator::server::{Running, Simulator};
use tokio::task::JoinSet;

use super::{
    execution::execute,
    history::{History, any_history},
};

/// The most smaller histories that are tried after a failure.
const MAX_SHRINKS: usize = 300;

/// The number of histories unless `HISTORIES` is set: as many as take some fifteen seconds.
const DEFAULT_HISTORIES: u64 = 150;

/// How many are executed at once, since most of their time is spent waiting for retries.
const AT_ONCE: usize = 100;

/// Counts of what histories consisted of, by description.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<String, usize>);

impl Tally {
    pub(super) fn add(&mut self, what: impl Into<String>, count: usize) {
        *self.0.entry(what.into()).or_default() += count;
    }

    pub(super) fn count(&self, what: &str) -> usize {
        self.0.get(what).copied().unwrap_or_default()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(formatter, "{count:8} {what}"))
    }
}

/// Executes as many histories as asked for, and prints and returns what they consisted of.
///
/// # Errors
///
/// The first history that fails, its seed, how to repeat it, and the smallest that fails like it.
pub(super) async fn execute_histories() -> anyhow::Result<Tally> {
    let first_seed = variable("HISTORIES_SEED", RandomState::new().hash_one("seed") >> 32)?;
    let mut seeds = (first_seed..).take(variable("HISTORIES", DEFAULT_HISTORIES)?.try_into()?);
    let start = Instant::now();
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Arc::new(Simulator::start(Some(destination.address.clone())).await?);
    let (mut tally, mut numbers, mut executing) = (Tally::default(), 0.., JoinSet::new());
    let mut failed = None;
    loop {
        while executing.len() < AT_ONCE
            && let Some((seed, number)) = seeds.next().zip(numbers.next())
        {
            let (tableau, history) = (tableau.clone(), tree(seed)?.current());
            executing.spawn(async move { (seed, execute_caught(tableau, number, &history).await) });
        }
        let Some(executed) = executing.join_next().await else { break };
        let (seed, result) = executed?;
        // Thousands of histories deliver more test events than fit into memory.
        destination.forget();
        match result {
            Ok(counts) => counts.0.into_iter().for_each(|(what, count)| tally.add(what, count)),
            Err(error) => {
                failed = Some((seed, error));
                break;
            }
        }
        tally.add("histories", 1);
    }
    executing.shutdown().await;
    println!("{tally}in {:.1} s, {AT_ONCE} at once, from seed {first_seed}", start.elapsed().as_secs_f64());
    let Some((seed, error)) = failed else { return Ok(tally) };
    let smallest = shrink(&tableau, seed, &mut numbers).await?;
    anyhow::bail!(
        "The history of seed {seed} failed. Repeat it with `HISTORIES=1 HISTORIES_SEED={seed} cargo test --workspace \
         --test it -- --nocapture histories`.\n{}{error:#}\n\n{}",
        tree(seed)?.current(),
        smallest.unwrap_or_else(|| "No smaller history failed.".to_owned())
    )
}

/// Returns a number from the environment.
fn variable(name: &str, default: u64) -> anyhow::Result<u64> {
    let Some(text) = env::var_os(name) else { return Ok(default) };
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.with_context(|| format!("{name} must be a number, and is {text:?}"))
}

/// Derives a history from a seed, together with the smaller ones it shrinks to.
fn tree(seed: u64) -> anyhow::Result<impl ValueTree<Value = History>> {
    let seed = [seed.to_le_bytes(); 4].concat();
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    any_history().new_tree(&mut runner).map_err(|reason| anyhow::anyhow!("no history of this seed: {reason}"))
}

/// Executes a history. A panic fails it as an error does, so that its seed is known.
async fn execute_caught(tableau: Arc<Running>, number: usize, history: &History) -> anyhow::Result<Tally> {
    let mut executing = pin!(execute(tableau, number, history));
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| executing.as_mut().poll(context)));
        polled.unwrap_or_else(|_| Poll::Ready(Err(anyhow::anyhow!("it panicked (see the message above)"))))
    })
    .await
}

/// Returns the smallest history found that fails, with its error.
async fn shrink(
    tableau: &Arc<Running>,
    seed: u64,
    numbers: &mut impl Iterator<Item = usize>,
) -> anyhow::Result<Option<String>> {
    let mut tree = tree(seed)?;
    let (mut smallest, mut goes_on) = (None, tree.simplify());
    for number in numbers.take(MAX_SHRINKS) {
        if !goes_on {
            break;
        }
        let history = tree.current();
        goes_on = match execute_caught(tableau.clone(), number, &history).await {
            Err(error) => {
                smallest = Some(format!("The smallest history found that fails:\n{history}{error:#}"));
                tree.simplify()
            }
            Ok(_) => tree.complicate(),
        };
    }
    Ok(smallest)
}
