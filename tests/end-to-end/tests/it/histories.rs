//! Random histories of sites: whatever administrators, Tableau, AWS and crashes do, runs do no harm, repair everything, lose
//! no refresh event silently, and leave no alert standing whose problem is over.

mod alerts;
mod checks;
mod crash;
mod driver;
mod environment;
mod execution;
mod history;
mod recorder;
mod refreshes;

/// Enough histories for at least one crash after each of [`DONE_IN_RUNS`].
const ENOUGH_HISTORIES: usize = 2000;

/// Everything a run does by which it changes or learns something. Reading the state always ends before what a run reads beside
/// it.
const DONE_IN_RUNS: [&str; 17] = [
    "read entries",
    "read keys",
    "create keys",
    "replace keys",
    "hold token",
    "POST auth/signin",
    "GET sites/{site}/webhooks",
    "PUT sites/{site}/webhooks/{id}",
    "POST sites/{site}/webhooks",
    "DELETE sites/{site}/webhooks/{id}",
    "GET sites/{site}/webhooks/{id}/test",
    "GET sites/{site}/jobs",
    "POST auth/signout",
    "publish event",
    "publish alert",
    "store site",
    "store run",
];

// One thread: requests of a run that was cut off are then known to be carried out once they were waited for.
#[tokio::test]
async fn whatever_happens_nothing_is_harmed_or_lost_and_two_quiet_runs_put_everything_right() -> anyhow::Result<()> {
    let tally = driver::execute_histories().await?;
    let crashes_after = |done: &&str| tally.count(&format!("crashes after {done}"));
    let missed: Vec<_> = DONE_IN_RUNS.into_iter().filter(|done| crashes_after(done) == 0).collect();
    assert!(missed.is_empty() || tally.count("histories") < ENOUGH_HISTORIES, "no crash came after {missed:?}");
    assert!(tally.count("resolutions published") > 0 || tally.count("histories") < ENOUGH_HISTORIES);
    Ok(())
}
