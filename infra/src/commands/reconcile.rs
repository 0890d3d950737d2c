//! `cargo infra reconcile`: has the reconciler do something now, and shows its report.

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;
use shared::registration::site_name::SiteName;
use thiserror::Error;

use crate::{
    aws::Aws,
    stack::{Answer, Stack},
    steps::{show, step},
    target::Target,
};

/// Runs the reconciler and shows its report. The exit status says whether every site is as it should be.
#[derive(Clone, Debug, Args)]
pub struct Reconcile {
    /// What it is to do.
    action: Action,
    /// The sites to do it for, by our names for them; all if none are named.
    #[arg(long = "site", value_name = "NAME", num_args = 1..)]
    sites: Vec<SiteName>,
    #[command(flatten)]
    target: Target,
}

/// What it can be asked for here. `test` is a command of its own, and so is `destroy` for all sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Say what `apply` would change, and change nothing.
    Plan,
    /// Make every site's webhooks what they should be.
    Apply,
    /// Put a new signing key in front and move every webhook to it. For all sites, since they share the keys.
    Rotate,
    /// Delete our webhooks at the sites that are named, before their entries are deleted.
    Destroy,
}

/// Runs the command.
///
/// # Errors
///
/// The reconciler could not be asked, or not all was done. What was done stays.
pub async fn run(arguments: Reconcile) -> anyhow::Result<()> {
    let Reconcile { action, sites, target } = arguments;
    ensure!(
        action != Action::Rotate || sites.is_empty(),
        "rotate is for all sites, since they share the signing keys: leave --site out"
    );
    ensure!(
        action != Action::Destroy || !sites.is_empty(),
        "destroy is for sites that are named: add --site, or end all with `cargo infra destroy`"
    );
    let action = match action {
        Action::Plan => "plan",
        Action::Apply => "apply",
        Action::Rotate => "rotate",
        Action::Destroy => "destroy",
    };
    let way = target.way().await?;
    let stack = way.stack().await?;
    let report = reconciled(&way.aws, &stack, action, &sites);
    step(&format!("Run the reconciler: {action}"), report).await.map(drop)
}

/// Has the reconciler do something, shows what it says, and returns its report.
///
/// # Errors
///
/// It could not be asked, or not all was done.
pub async fn reconciled(aws: &Aws, stack: &Stack, action: &str, sites: &[SiteName]) -> anyhow::Result<Value> {
    match stack.reconcile(aws, action, sites).await? {
        Answer::Report(report) => {
            show(report["text"].as_str().context("a report without a text")?);
            Ok(report)
        }
        Answer::Failure { kind, text } => {
            show(&text);
            match RunFailed::of(&kind) {
                Some(failed) => Err(failed.into()),
                None => bail!(
                    "the reconciler failed ({kind}): see above, and its log /aws/lambda/{}",
                    stack.output("ReconcilerName")?
                ),
            }
        }
    }
}

/// A run that reported what it did, and did not do all that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RunFailed {
    /// Some sites failed.
    #[error("not every site succeeded: what is said above tells what to do")]
    Sites,
    /// Older signing keys could not be retired.
    #[error("every site succeeded, but older signing keys could not be retired: see above")]
    Keys,
    /// Alerts could not be sent.
    #[error("every site succeeded, but alerts could not be sent: see above")]
    Alerts,
    /// Missed refreshes could not all be published.
    #[error("every site succeeded, but missed refreshes could not all be published: see above. The next run goes on")]
    Refreshes,
    /// The state could not be read or stored.
    #[error("every site succeeded, but the reconciler's state could not be read or stored: see above")]
    State,
}

impl RunFailed {
    /// What the reconciler says by a kind of failure, `None` if the run looked at no site.
    fn of(kind: &str) -> Option<Self> {
        match kind {
            "SitesFailed" => Some(Self::Sites),
            "KeysFailed" => Some(Self::Keys),
            "AlertsFailed" => Some(Self::Alerts),
            "RefreshesFailed" => Some(Self::Refreshes),
            "StateUnavailable" => Some(Self::State),
            _ => None,
        }
    }

    /// Whether an error is of a run after which every site is as it should be.
    pub fn left_sites_well(error: &anyhow::Error) -> bool {
        error.downcast_ref::<Self>().is_some_and(|failed| *failed != Self::Sites)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn only_a_failure_of_sites_is_called_one() {
        for (kind, is_of_sites) in [
            ("SitesFailed", true),
            ("KeysFailed", false),
            ("AlertsFailed", false),
            ("RefreshesFailed", false),
            ("StateUnavailable", false),
        ] {
            let error = RunFailed::of(kind).context("the reconciler has no such failure").expect(kind);
            assert_eq!(error.to_string().starts_with("every site succeeded, but"), !is_of_sites, "{kind}");
            let error = anyhow::Error::new(error).context("this step failed");
            assert_eq!(RunFailed::left_sites_well(&error), !is_of_sites, "{kind}");
        }
        assert_eq!(RunFailed::of("ParametersUnreadable"), None);
    }
}
