//! `cargo infra reconcile`: runs the reconciler now.

use std::ffi::OsStr;

use anyhow::ensure;
use clap::{
    Arg, Args, Command, ValueEnum,
    builder::{EnumValueParser, PossibleValue, StyledStr, TypedValueParser},
    error::{ContextKind, ContextValue},
};
use shared::registration::site_name::SiteName;

use crate::{
    connection::StackOptions,
    interruption::{Effect, explained},
    reconciler,
    steps::{show, step},
    terminal::reserve_stdout,
};

/// Runs the reconciler and prints its report.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Marks: + created, ~ corrected, ! enabled, - deleted, . not ours, ? tested, < recovered or explained.
Exit status: 0 every site succeeded, 1 something failed, 2 usage.

Examples:
  cargo infra reconcile plan --site marketing
  cargo infra reconcile apply")]
pub struct Reconcile {
    /// The action.
    #[arg(value_parser = ActionParser)]
    action: Action,
    /// The sites, by your names for them; by default all.
    #[arg(long = "site", value_name = "NAME", num_args = 1..)]
    sites: Vec<SiteName>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: StackOptions,
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

/// The course of a `rotate`, which takes long.
const ROTATE: &str = "It adds a signing key and waits 65 seconds, in which every receiver reads it. Then it moves every webhook to \
                      the new key. No event is lost. This takes a minute and a half for a few sites";

/// Parses an action. Never suggests another action for a wrong one, since that could be `destroy`.
#[derive(Clone, Debug)]
struct ActionParser;

impl TypedValueParser for ActionParser {
    type Value = Action;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<Action, clap::Error> {
        EnumValueParser::<Action>::new().parse_ref(command, argument, value).map_err(|mut error| {
            error.remove(ContextKind::SuggestedValue);
            if value == "test" {
                let tip = StyledStr::from("to test every webhook: cargo infra test");
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
            }
            error
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Action::value_variants().iter().filter_map(Action::to_possible_value)))
    }
}

/// Runs the command.
///
/// # Errors
///
/// The run did not start, or some of its work failed. The rest of its work stays.
pub async fn run(arguments: Reconcile) -> anyhow::Result<()> {
    let Reconcile { action, sites, json, options } = arguments;
    if json {
        reserve_stdout();
    }
    ensure!(
        action != Action::Rotate || sites.is_empty(),
        "rotate applies to all sites, since they share the signing keys. Fix: leave out --site"
    );
    ensure!(
        action != Action::Destroy || !sites.is_empty(),
        "destroy needs the names of sites. Fix: add --site, or run `cargo infra destroy` for all sites and the stack"
    );
    let connection = options.connect().await?;
    let stack = connection.stack().await?;
    let (name, about, effect) = match action {
        Action::Plan => ("plan", "", "A plan changes nothing. Fix: run this command again".to_owned()),
        Action::Apply => ("apply", "", reconciler::continues(&stack)),
        Action::Rotate => ("rotate", ROTATE, reconciler::continues(&stack)),
        Action::Destroy => ("destroy", "", reconciler::continues(&stack)),
    };
    let title = format!("Run the reconciler: {name}");
    let mut report = None;
    let run = step(&title, async {
        show(about);
        let answer = reconciler::invoke(&connection.aws, &stack, name, &sites).await?;
        show(answer.text());
        let result = answer.check(&stack);
        report = Some(answer.json(name));
        result
    });
    let result = explained(&Effect::new(effect), run).await;
    if let (true, Some(report)) = (json, report) {
        println!("{report:#}");
    }
    result
}
