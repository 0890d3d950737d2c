//! `cargo infra`: deploys and operates Tableau Fanout.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use infra::commands::{
    add_site::{self, AddSite},
    add_sites::{self, AddSites},
    add_target::{self, AddTarget},
    console::{self, Console},
    deploy::{self, Deploy},
    destroy::{self, Destroy},
    events::{self, Events},
    local::{self, Local},
    package::{self, Package},
    reconcile::{self, Reconcile},
    redrive::{self, Redrive},
    remove_site::{self, RemoveSite},
    remove_target::{self, RemoveTarget},
    replay::{self, Replay},
    simulate::{self, Simulate},
    sites::{self, Sites},
    status::{self, Status},
    tail::{self, Tail},
    targets::{self, Targets},
    test::{self, Test},
    url::{self, Url},
};
use infra::{
    remedies,
    terminal::{BAD, print_error, styled},
};

const EXAMPLES: &str = "Examples:
  cargo infra local --once                     see it work on this machine
  cargo infra deploy                           create or update the stack on AWS
  cargo infra add-site marketing               add a Tableau site
  cargo infra add-target team --preset slack   send failed refreshes to Slack
  cargo infra status                           see whether everything works
  cargo infra console                          see sites and events in the browser
  cargo infra status --help                    read more about a command";

/// Deploys and operates Tableau Fanout.
#[derive(Debug, Parser)]
#[command(name = "cargo infra", bin_name = "cargo infra", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    AddSite(AddSite),
    AddSites(AddSites),
    AddTarget(AddTarget),
    /// Prints the completions of a shell, for the name `infra`.
    #[command(after_help = "\
Example, in bash:
  alias infra='cargo infra'
  source <(cargo infra completions bash)")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    Console(Console),
    Deploy(Deploy),
    Destroy(Destroy),
    Events(Events),
    Local(Local),
    Package(Package),
    Reconcile(Reconcile),
    Redrive(Redrive),
    RemoveSite(RemoveSite),
    RemoveTarget(RemoveTarget),
    Replay(Replay),
    Simulate(Simulate),
    Sites(Sites),
    Status(Status),
    Tail(Tail),
    Targets(Targets),
    Test(Test),
    Url(Url),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let result = match command {
        Command::AddSite(arguments) => add_site::run(arguments).await,
        Command::AddSites(arguments) => add_sites::run(arguments).await,
        Command::AddTarget(arguments) => add_target::run(arguments).await,
        Command::Completions { shell } => {
            let mut command = Arguments::command().bin_name("infra");
            clap_complete::generate(shell, &mut command, "infra", &mut std::io::stdout());
            Ok(())
        }
        Command::Console(arguments) => console::run(arguments).await,
        Command::Deploy(arguments) => deploy::run(arguments).await,
        Command::Destroy(arguments) => destroy::run(arguments).await,
        Command::Events(arguments) => events::run(arguments).await,
        Command::Local(arguments) => local::run(arguments).await,
        Command::Package(arguments) => package::run(arguments).await,
        Command::Reconcile(arguments) => reconcile::run(arguments).await,
        Command::Redrive(arguments) => redrive::run(arguments).await,
        Command::RemoveSite(arguments) => remove_site::run(arguments).await,
        Command::RemoveTarget(arguments) => remove_target::run(arguments).await,
        Command::Replay(arguments) => replay::run(arguments).await,
        Command::Simulate(arguments) => simulate::run(arguments).await,
        Command::Sites(arguments) => sites::run(arguments).await,
        Command::Status(arguments) => status::run(arguments).await,
        Command::Tail(arguments) => tail::run(arguments).await,
        Command::Targets(arguments) => targets::run(arguments).await,
        Command::Test(arguments) => test::run(arguments).await,
        Command::Url(arguments) => url::run(arguments).await,
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    print_error(format!("\n{} {error}", styled(BAD, "error:")));
    remedies::details(&error).iter().for_each(print_error);
    ExitCode::FAILURE
}
