//! `cargo infra reconcile`: runs the reconciler now.

use anyhow::ensure;
use clap::{Args, ValueEnum};
use shared::registration::site_name::SiteName;

use crate::{reconciler, steps::step, target::Target};

/// Runs the reconciler and prints its report. The exit status is 0 if every site succeeded.
#[derive(Clone, Debug, Args)]
pub struct Reconcile {
    /// The action.
    action: Action,
    /// The sites, by your names for them; by default all.
    #[arg(long = "site", value_name = "NAME", num_args = 1..)]
    sites: Vec<SiteName>,
    #[command(flatten)]
    target: Target,
}

/// Actions of this command. `test`, and `destroy` for all sites, are commands of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Print what `apply` would change, and change nothing.
    Plan,
    /// Register every site's webhooks as declared.
    Apply,
    /// Add a new signing key and move every webhook to it. Always for all sites, since they share the keys.
    Rotate,
    /// Delete the stack's webhooks of the given sites. Do this before you delete their entries.
    Destroy,
}

/// Runs the command.
///
/// # Errors
///
/// The run did not start, or some of its work failed. The rest of its work stays.
pub async fn run(arguments: Reconcile) -> anyhow::Result<()> {
    let Reconcile { action, sites, target } = arguments;
    ensure!(
        action != Action::Rotate || sites.is_empty(),
        "rotate applies to all sites, since they share the signing keys. Fix: leave out --site"
    );
    ensure!(
        action != Action::Destroy || !sites.is_empty(),
        "destroy needs the names of sites. Fix: add --site, or run `cargo infra destroy` for all sites and the stack"
    );
    let action = match action {
        Action::Plan => "plan",
        Action::Apply => "apply",
        Action::Rotate => "rotate",
        Action::Destroy => "destroy",
    };
    let connection = target.connect().await?;
    let stack = connection.stack().await?;
    let run = reconciler::run(&connection.aws, &stack, action, &sites);
    step(&format!("Run the reconciler: {action}"), run).await.map(drop)
}
