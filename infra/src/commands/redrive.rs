//! `cargo infra redrive`: sends the dead letters of a target again.

use anyhow::{Context, ensure};
use clap::Args;
use shared::{alerts::phrasing::pluralize, sites::commands::infra, targets::name::TargetName};
use time::OffsetDateTime;

use crate::{
    aws::Aws,
    connection::StackOptions,
    interruption::{Effect, explained},
    queue,
    steps::{show, step},
    terminal::{good, print},
};

/// Sends the dead letters of a target again.
///
/// Moves each message from the dead letters back to the queue of the target, without the reason. Correct the target first, or
/// the messages come back. Those that come back meanwhile stay dead letters.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  cargo infra redrive failures")]
pub struct Redrive {
    /// Name of the target.
    name: TargetName,
    #[command(flatten)]
    options: StackOptions,
}

/// Runs the command.
///
/// # Errors
///
/// The target does not exist, or a message could not be moved or is hidden. None is lost.
pub async fn run(arguments: Redrive) -> anyhow::Result<()> {
    let effect = Effect::new("No message is lost. Some may be sent twice. Fix: run this command again for the others");
    explained(&effect, redrive(arguments)).await
}

async fn redrive(arguments: Redrive) -> anyhow::Result<()> {
    let Redrive { name, options } = arguments;
    let connection = options.connect().await?;
    let (aws, stack) = (&connection.aws, &connection.name);
    let queues = tokio::try_join!(find(aws, name.dead_letters(stack), stack), find(aws, name.queue(stack), stack))?;
    let title = format!("Move the dead letters of {name} to its queue");
    let (moved, left) = step(&title, move_all(aws, &queues.0, &queues.1)).await?;
    let messages = pluralize(moved, "message", "messages");
    ensure!(
        moved > 0 || left == 0,
        "no dead letter of {name} was moved: {} hidden for up to 2 minutes. No message is lost. Fix: run this command again then",
        pluralize(usize::try_from(left).unwrap_or(usize::MAX), "is", "are")
    );
    if moved == 0 {
        print(format!("\n{}", good(format!("{name} has no dead letters."))));
        return Ok(());
    }
    print(format!("\n{}", good(format!("Sent {messages} of {name} again."))));
    if left > 0 {
        print(format!("Dead letters left or added meanwhile: {left}."));
    }
    print(format!("To see whether they are delivered: {}", infra("targets", stack)));
    Ok(())
}

/// Finds the URL of a queue.
async fn find(aws: &Aws, queue: String, stack: &str) -> anyhow::Result<String> {
    let url = queue::find(aws, &queue).await?;
    url.with_context(|| {
        format!(
            "there is no queue {queue}. Nothing was moved. Fix: choose a target with a queue; `{}` lists them",
            infra("targets", stack)
        )
    })
}

/// Moves the messages that are there now. A target that still fails would otherwise return them for ever. Returns the number
/// of those moved, and of those left.
async fn move_all(aws: &Aws, from: &str, to: &str) -> anyhow::Result<(usize, u64)> {
    let (start, mut moved) = (OffsetDateTime::now_utc(), 0);
    loop {
        let some = queue::move_some(aws, from, to, start).await?;
        if some == 0 {
            return Ok((moved, queue::depth(aws, from).await?));
        }
        moved += some;
        show(&format!("{moved} moved"));
    }
}
