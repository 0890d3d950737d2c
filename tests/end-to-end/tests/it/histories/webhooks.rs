//! Random histories of what people, Tableau, networks and crashes do to declared sites, and what the reconciler makes of it.
//!
//! `HISTORIES` says how many there are, `HISTORIES_SEED` which is the first. Chance is left in what the seed does not hold:
//! keys, waits, and how calls of different sites mingle.

pub(super) mod execution;
mod history;

use std::{
    env,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Instant,
};

use anyhow::Context;
use axum::http::StatusCode;
use end_to_end::destination::Destination;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use tableau_simulator::server::Simulator;
use tokio::task::JoinSet;

use self::{
    execution::{Environment, Tally},
    history::{History, any_history},
};

/// How many histories there are if nobody says: as many as take some ten seconds.
const USUAL_HISTORIES: u64 = 300;

/// How many are enough for a crash after everything that a run does.
const ENOUGH_HISTORIES: usize = 2000;

/// What a run does, as far as something is changed or learnt by it.
const DONE_IN_RUNS: [&str; 11] = [
    "read entries",
    "read keys",
    "make keys",
    "replace keys",
    "POST auth/signin",
    "GET sites/{site}/webhooks",
    "PUT sites/{site}/webhooks/{id}",
    "POST sites/{site}/webhooks",
    "DELETE sites/{site}/webhooks/{id}",
    "GET sites/{site}/webhooks/{id}/test",
    "POST auth/signout",
];

/// How many are lived side by side, since most of their time is spent waiting for another attempt at a call.
const AT_ONCE: u64 = 48;

/// How many smaller histories are tried in place of one that went wrong.
const MOST_SMALLER: usize = 300;

/// A number from the environment.
pub(super) fn number(variable: &str, otherwise: u64) -> anyhow::Result<u64> {
    let Some(text) = env::var_os(variable) else { return Ok(otherwise) };
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.with_context(|| format!("{variable} is no number"))
}

/// The history that a seed stands for, with what there is to make it smaller.
fn tree(seed: u64) -> anyhow::Result<impl ValueTree<Value = History>> {
    let seed = [seed.to_le_bytes(); 4].concat();
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    any_history().new_tree(&mut runner).map_err(|error| anyhow::anyhow!("no history: {error}"))
}

/// A history that goes wrong as well, with as few and as simple steps as can be found, and what goes wrong in it.
async fn smallest(
    environment: &Environment,
    seed: u64,
    mut problem: anyhow::Error,
    numbers: &mut impl Iterator<Item = usize>,
) -> anyhow::Result<(History, anyhow::Error)> {
    let mut tree = tree(seed)?;
    let mut smallest = tree.current();
    let mut may_go_on = tree.simplify();
    for number in numbers.take(MOST_SMALLER) {
        if !may_go_on {
            break;
        }
        let smaller = tree.current();
        may_go_on = match environment.live(number, &smaller).await {
            Err(found) => {
                (smallest, problem) = (smaller, found);
                tree.simplify()
            }
            Ok(_) => tree.complicate(),
        };
    }
    Ok((smallest, problem))
}

fn print(tally: &Tally, seconds: f64, first_seed: u64) {
    let Tally {
        histories,
        steps,
        runs,
        failed_runs,
        calls,
        late_calls,
        crashes_after_calls,
        crashes_after,
        second_run_needed,
    } = tally;
    println!("{histories} histories from seed {first_seed} on, {AT_ONCE} at once, in {seconds:.1} s");
    println!("{steps} steps, {runs} runs of which {failed_runs} failed and {} crashed", tally.crashes());
    println!("{calls} calls to Tableau, of which {late_calls} were carried out after the crash of their run");
    println!("one quiet run was not enough after {second_run_needed}");
    println!("crashes by calls to Tableau before them: {crashes_after_calls:?}");
    for (last, crashes) in crashes_after {
        println!("{crashes:6} crashes after {}", if last.is_empty() { "nothing" } else { last });
    }
}

// One thread: what a run that was cut off had sent is then known to be carried out when it was waited for.
#[tokio::test]
async fn whatever_happens_nothing_is_harmed_and_two_quiet_runs_put_everything_right() -> anyhow::Result<()> {
    let first_seed = number("HISTORIES_SEED", RandomState::new().hash_one("seed") >> 32)?;
    let mut seeds = (first_seed..).take(number("HISTORIES", USUAL_HISTORIES)?.try_into()?);
    let start = Instant::now();
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Arc::new(Simulator::start(Some(destination.address.clone())).await?);
    let mut tally = Tally::default();
    let (mut numbers, mut living) = (0.., JoinSet::new());
    let mut begin = |environment: Environment, living: &mut JoinSet<_>| -> anyhow::Result<()> {
        let Some((seed, number)) = seeds.next().zip(numbers.next()) else { return Ok(()) };
        let history = tree(seed)?.current();
        living.spawn(async move {
            let result = environment.live(number, &history).await;
            (environment, seed, result)
        });
        Ok(())
    };
    for _ in 0..AT_ONCE {
        begin(Environment::new(tableau.clone())?, &mut living)?;
    }
    while let Some(lived) = living.join_next().await {
        let (environment, seed, result) = lived?;
        // Thousands of histories have more tests than it is to remember.
        destination.forget();
        match result {
            Ok(lived) => tally.add(lived),
            Err(problem) => {
                living.abort_all();
                print(&tally, start.elapsed().as_secs_f64(), first_seed);
                let told = format!("{}{problem:#}", tree(seed)?.current());
                let (smallest, problem) = smallest(&environment, seed, problem, &mut numbers).await?;
                anyhow::bail!(
                    "HISTORIES=1 HISTORIES_SEED={seed} repeats this:\n{told}\n\nMade smaller:\n{smallest}{problem:#}"
                );
            }
        }
        begin(environment, &mut living)?;
    }
    print(&tally, start.elapsed().as_secs_f64(), first_seed);
    let missed: Vec<_> = DONE_IN_RUNS.into_iter().filter(|done| !tally.crashes_after.contains_key(*done)).collect();
    assert!(missed.is_empty() || tally.histories < ENOUGH_HISTORIES, "no crash came after {missed:?}");
    Ok(())
}
