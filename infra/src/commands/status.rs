//! `cargo infra status`: shows whether a stack and its sites work.

use anyhow::ensure;
use clap::Args;
use time::OffsetDateTime;

use crate::{
    connection::StackOptions,
    steps::with_spinner,
    terminal::{print, reserve_stdout},
};

mod details;
pub(super) mod overview;
pub(super) mod readings;
mod recovery;
mod row;
mod targets;
mod version;

use overview::Overview;
use readings::Readings;

/// Shows whether the stack, its sites, alarms and subscribers are as they should be.
///
/// Changes nothing. Problems come first, each with its fix.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Marks: ✓ as it should be, ! deserves a look, ✗ wrong.
Sites and their problems are those of the last run; --verbose asks the reconciler for the plan of each site.
Exit status: 0 nothing is wrong, 1 something is wrong or cannot be read, 2 usage.

Examples:
  cargo infra status
  cargo infra status --json | jq '.problems'")]
pub struct Status {
    #[command(flatten)]
    options: StackOptions,
    /// Print the status as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Something is wrong, or a part of the status could not be read.
pub async fn run(arguments: Status) -> anyhow::Result<()> {
    let Status { options, json } = arguments;
    if json {
        reserve_stdout();
    }
    let is_verbose = options.is_verbose();
    let connection = options.connect().await?;
    let (aws, now) = (&connection.aws, OffsetDateTime::now_utc());
    let read = async {
        let stack = connection.stack().await?;
        let read = Readings::read(aws, &stack, now).await?;
        anyhow::Ok((stack, read))
    };
    let read = with_spinner(read).await;
    if let (true, Err(error)) = (json, &read) {
        println!("{:#}", overview::unreadable(&format!("{error:#}")));
    }
    let (stack, (readings, stored)) = read?;
    let overview = Overview::of(&readings, now);
    if json {
        println!("{:#}", overview.json(&readings));
    }
    if is_verbose || !json {
        overview.lines().iter().for_each(print);
    }
    if is_verbose {
        details::print(aws, &stack, &readings, &stored).await?;
    }
    let problems = overview.problems();
    ensure!(
        problems == 0,
        "{problems} {} of {}. Fix: see above",
        if problems == 1 { "problem" } else { "problems" },
        stack.name()
    );
    Ok(())
}
