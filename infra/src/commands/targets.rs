//! `cargo infra targets`: lists the targets.

use anyhow::ensure;
use clap::Args;
use serde_json::json;
use shared::sites::commands::infra;
use time::OffsetDateTime;

use crate::{
    connection::StackOptions,
    findings::Finding,
    targets::{self, TargetReading},
    terminal::{BAD, BOLD, GOOD, WARNING, columns, print, reserve_stdout, styled},
};

const EXAMPLES: &str = "\
Waiting messages are sent again for a day, and are then dead letters, which only `cargo infra redrive` sends again.
Exit status: 0 every target works, 1 a target gets nothing or has dead letters, 2 usage.

Examples:
  cargo infra targets
  cargo infra targets --json | jq '.[].dead_letters'";

/// Lists the targets outside of AWS, without addresses and secrets.
///
/// Shows what each one gets, its messages that are not delivered, and its last error.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Targets {
    /// Print a JSON list.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: StackOptions,
}

/// Runs the command.
///
/// # Errors
///
/// The targets cannot be read, one of them gets nothing, or has dead letters.
pub async fn run(arguments: Targets) -> anyhow::Result<()> {
    let Targets { json, options } = arguments;
    if json {
        reserve_stdout();
    }
    let connection = options.connect().await?;
    let stack = connection.stack().await?;
    let targets = targets::read(&connection.aws, &stack, OffsetDateTime::now_utc()).await?;
    let targets: Vec<_> = targets.iter().map(|target| target.reading(&stack)).collect();
    let findings: Vec<_> = targets.iter().flat_map(|target| target.findings(stack.name())).collect();
    if json {
        println!("{:#}", json!(targets));
    } else if targets.is_empty() {
        let add = infra("add-target failures --preset slack --on failures", stack.name());
        print(format!("There is no target. To add one: {add}"));
    } else {
        table(&targets, stack.name())
            .iter()
            .chain(&findings.iter().flat_map(Finding::lines).collect::<Vec<_>>())
            .for_each(print);
    }
    let wrong = targets.iter().filter(|target| is_wrong(target, stack.name())).count();
    ensure!(wrong == 0, "{wrong} of {} targets do not get their messages. Fix: see above", targets.len());
    Ok(())
}

fn is_wrong(target: &TargetReading, stack: &str) -> bool {
    target.findings(stack).iter().any(|finding| finding.is_wrong)
}

/// Formats the targets in aligned columns, each with a mark.
fn table(targets: &[TargetReading], stack: &str) -> Vec<String> {
    let head = ["name", "preset", "gets", "waiting", "dead letters", "last error"].map(str::to_owned);
    let rows: Vec<_> = [head].into_iter().chain(targets.iter().map(row)).collect();
    let mark = |target: &TargetReading| match target.findings(stack).iter().map(|finding| finding.is_wrong).max() {
        None => styled(GOOD, '✓'),
        Some(false) => styled(WARNING, '!'),
        Some(true) => styled(BAD, '✗'),
    };
    let mut lines = columns(&rows).into_iter();
    let head = lines.next().map(|head| styled(BOLD, format!("  {head}")));
    let lines = targets.iter().zip(lines).map(|(target, line)| format!("{} {line}", mark(target)));
    head.into_iter().chain(lines).collect()
}

fn row(target: &TargetReading) -> [String; 6] {
    let TargetReading { name, preset, gets, waiting, dead_letters, last_error, .. } = target;
    let error = last_error.as_ref().map_or_else(
        || "none".to_owned(),
        |last| format!("{:02}:{:02} UTC: {}", last.at.hour(), last.at.minute(), last.error),
    );
    let preset = preset.unwrap_or("not known").to_owned();
    let gets = gets.clone().unwrap_or_else(|| "nothing".to_owned());
    [name.clone(), preset, gets, waiting.to_string(), dead_letters.to_string(), error]
}
