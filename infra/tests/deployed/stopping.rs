//! The end of the local stack: by a server that ends, or by a signal.

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::local_command::LocalCommand;

#[tokio::test]
async fn a_killed_server_stops_the_local_stack_with_a_message() -> anyhow::Result<()> {
    for (server, name) in [("/ministack", "ministack"), ("/tableau-simulator", "the Tableau simulator")] {
        let local = LocalCommand::start().await?;
        local.kill_server(server)?;
        let (success, messages) = local.ended().await?;
        assert!(
            !success && messages.contains(&format!("error: {name} has ended, so the local stack stops")),
            "{messages}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_interrupt_or_a_kill_leaves_no_process() -> anyhow::Result<()> {
    for (signal, succeeds) in [(Signal::SIGINT, true), (Signal::SIGTERM, true), (Signal::SIGKILL, false)] {
        let local = LocalCommand::start().await?;
        ensure!(local.processes()?.len() > 4, "two supervisors, two servers and a function: {:?}", local.processes());
        let id = local.process.id().and_then(|id| i32::try_from(id).ok()).context("it has ended")?;
        kill(Pid::from_raw(id), signal)?;
        let (success, messages) = local.ended().await?;
        assert_eq!(success, succeeds, "{signal}: {messages}");
    }
    Ok(())
}
