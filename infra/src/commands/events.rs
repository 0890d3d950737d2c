//! `cargo infra events`: lists events, and what became of each.

use clap::{Args, Subcommand};

mod cells;
mod list;
mod show;

use list::List;
use show::Show;

/// Lists the last events of a stack, and what became of each.
///
/// Reads the logs of the functions, and changes nothing.
#[derive(Clone, Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Marks: ✓ published, ! not verified or without its alert, ✗ not published.
Outcomes: published; recovered (from a job, since Tableau did not deliver it); duplicate (published before); undelivered;
too-large; unverified (the signing keys could not be read).
Latency: until SNS had accepted the event; for the events of a job the time since its end.

Examples:
  cargo infra events --since 7d --site marketing --resource sales
  cargo infra events --outcome undelivered
  cargo infra events --json | jq '.events[].event'
  cargo infra events show 9c63a4d1032bb0ef67f67e5c34b46f43"
)]
pub struct Events {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    Show(Show),
}

/// Runs the command.
///
/// # Errors
///
/// The logs cannot be read, or do not have the event to show.
pub async fn run(arguments: Events) -> anyhow::Result<()> {
    match arguments {
        Events { command: Some(Command::Show(show)), .. } => show::run(show).await,
        Events { command: None, list } => list::run(list).await,
    }
}
