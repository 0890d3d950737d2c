//! What happens when a part of the local stack, or the person, ends it.

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::running::Local;

#[tokio::test]
async fn a_server_that_is_killed_ends_everything_with_a_message() -> anyhow::Result<()> {
    for (server, name) in [("/ministack", "ministack"), ("/tableau-simulator", "the Tableau simulator")] {
        let local = Local::up().await?;
        local.kill_server(server)?;
        let (success, said) = local.ended().await?;
        assert!(
            !success && said.contains(&format!("error: {name} has ended, so everything is being stopped")),
            "{said}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_interrupt_or_a_kill_leaves_nothing_behind() -> anyhow::Result<()> {
    for (signal, ends_well) in [(Signal::SIGINT, true), (Signal::SIGTERM, true), (Signal::SIGKILL, false)] {
        let local = Local::up().await?;
        ensure!(local.processes()?.len() > 4, "two leashes, two servers and a function: {:?}", local.processes());
        let id = local.process.id().and_then(|id| i32::try_from(id).ok()).context("it has ended")?;
        kill(Pid::from_raw(id), signal)?;
        let (success, said) = local.ended().await?;
        assert_eq!(success, ends_well, "{signal}: {said}");
    }
    Ok(())
}
