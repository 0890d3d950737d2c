//! `cargo infra redrive`: sends the dead letters of a target again.

use anyhow::Context;
use clap::Args;
use shared::{alerts::phrasing::pluralize, sites::commands::infra, targets::name::TargetName};

use crate::{
    aws::Aws,
    connection::StackOptions,
    interruption::{Effect, explained},
    queue::{self, MAX_RECEIVED},
    steps::{show, step},
    terminal::{good, print},
};

/// Sends the dead letters of a target again.
///
/// Moves each message from the dead letters back to the queue of the target, without the reason. Correct the target first, or
/// the messages come back.
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
/// The target does not exist, or a message could not be moved. None is lost.
pub async fn run(arguments: Redrive) -> anyhow::Result<()> {
    let effect = Effect::new("No message is lost. One may be sent twice. Fix: run this command again for the others");
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

/// Moves at most as many messages as there are now. A target that still fails would otherwise return them for ever. Returns
/// the number of those moved, and of those left.
async fn move_all(aws: &Aws, from: &str, to: &str) -> anyhow::Result<(usize, u64)> {
    // SQS counts a new message late.
    let present = usize::try_from(queue::depth(aws, from).await?).unwrap_or(usize::MAX).max(MAX_RECEIVED);
    let mut moved = 0;
    while moved < present {
        let received = queue::move_some(aws, from, to, present - moved).await?;
        moved += received;
        if received == 0 {
            break;
        }
        show(&format!("{moved} moved"));
    }
    Ok((moved, queue::depth(aws, from).await?))
}
