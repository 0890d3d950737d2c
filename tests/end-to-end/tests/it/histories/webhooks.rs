//! Random histories of webhooks: whatever people, Tableau, networks and crashes do to declared sites, the reconciler does no
//! harm and repairs everything.

mod checks;
mod execution;
mod history;

use super::driver::execute_histories;
use execution::Webhooks;

/// Enough histories for at least one crash after each of [`DONE_IN_RUNS`].
const ENOUGH_HISTORIES: usize = 2000;

/// Everything a run does by which it changes or learns something.
const DONE_IN_RUNS: [&str; 11] = [
    "read entries",
    "read keys",
    "create keys",
    "replace keys",
    "POST auth/signin",
    "GET sites/{site}/webhooks",
    "PUT sites/{site}/webhooks/{id}",
    "POST sites/{site}/webhooks",
    "DELETE sites/{site}/webhooks/{id}",
    "GET sites/{site}/webhooks/{id}/test",
    "POST auth/signout",
];

// One thread: requests of a run that was cut off are then known to be carried out once they were waited for.
#[tokio::test]
async fn whatever_happens_nothing_is_harmed_and_two_quiet_runs_put_everything_right() -> anyhow::Result<()> {
    let tally = execute_histories::<Webhooks>().await?;
    let crashes_after = |done: &&str| tally.count(&format!("crashes after {done}"));
    let missed: Vec<_> = DONE_IN_RUNS.into_iter().filter(|done| crashes_after(done) == 0).collect();
    assert!(missed.is_empty() || tally.count("histories") < ENOUGH_HISTORIES, "no crash came after {missed:?}");
    Ok(())
}
