//! Random histories of refreshes: whatever happens to webhooks, runs and the stored state, each event is delivered, recovered
//! or named in the log, and none is published twice.

mod events;
mod execution;
mod history;

use super::driver::execute_histories;
use execution::Refreshes;

#[tokio::test]
async fn whatever_happens_each_refresh_is_told_of_or_named_and_none_is_told_of_twice() -> anyhow::Result<()> {
    execute_histories::<Refreshes>().await?;
    Ok(())
}
