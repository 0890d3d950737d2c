//! `cargo infra`: runs and operates the product.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use infra::{
    local::{self, Local},
    replay::{self, Replay},
};

/// Runs and operates Tableau Fanout.
#[derive(Debug, Parser)]
#[command(name = "cargo infra", bin_name = "cargo infra", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Local(Local),
    Replay(Replay),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let result = match command {
        Command::Local(arguments) => local::run(arguments).await,
        Command::Replay(arguments) => replay::run(arguments).await,
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("\nerror: {error}");
    error.chain().skip(1).for_each(|cause| eprintln!("  because {cause}"));
    ExitCode::FAILURE
}
