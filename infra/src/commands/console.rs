//! `cargo infra console`: a page in the browser with the sites and events of a stack.

use std::{convert::Infallible, time::Duration};

use anyhow::bail;
use clap::Args;
use futures_util::TryStreamExt;
use tokio::time::sleep;

use self::{backend::Backend, feed::Feed, server::Server};
use crate::{
    aws::Aws,
    connection::StackOptions,
    events::rendering::delivery_alerts,
    interruption::unless_interrupted,
    local_files::RunningStack,
    steps::step,
    tail::Tail,
    temporary_queues::{Topic, sweep},
    terminal::{BOLD, print, styled, warning},
};

pub(in crate::commands) mod backend;
pub(in crate::commands) mod feed;
mod gate;
mod schedule;
pub(in crate::commands) mod server;

/// How long the console waits after a failure, before it subscribes again.
const PAUSE: Duration = Duration::from_secs(10);

/// Serves a page in the browser: sites, events as they arrive, and actions.
///
/// The page belongs to this machine and this command: it is reachable on the loopback interface, with the address that is
/// printed, until Ctrl-C. The address lets its holder act with your rights on AWS.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  cargo infra console
  cargo infra console --port 8080 --stack tableau-fanout-test")]
pub struct Console {
    /// The port; by default a free one.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    #[command(flatten)]
    options: StackOptions,
}

/// Runs the command until it is interrupted.
///
/// # Errors
///
/// There is no such stack, the port is used, or the queues could not be removed.
pub async fn run(arguments: Console) -> anyhow::Result<()> {
    let Console { port, options } = arguments;
    let name = options.stack.clone();
    let connection = options.connect().await?;
    let (aws, stack) = (connection.aws.clone(), connection.stack().await?);
    sweep(&aws, &stack).await;
    // Only of the cloud that the command is connected to.
    let running = RunningStack::find(None).ok().filter(|running| aws.endpoint() == Some(&running.endpoint));
    let feed = Feed::new(delivery_alerts(&stack));
    let server = Server::start(Backend::new(connection, name, running, feed.clone()), port).await?;
    print(format!(
        "\n{}\n\n  {}\n\nCtrl-C ends it.",
        styled(BOLD, "The console of this stack is at this address, for this machine alone:"),
        server.url
    ));
    let tail = Tail::claim(&stack, &[Topic::Events, Topic::Alerts])?;
    let followed = unless_interrupted(follow(&aws, &tail, &feed)).await;
    let removed = step("Remove the queues and their subscriptions", tail.close(&aws)).await;
    // It holds the folder of the AWS CLI.
    drop(server);
    match followed? {
        Some(Err(error)) => Err(error),
        Some(Ok(never)) => match never {},
        None => removed,
    }
}

/// Passes on what arrives while the queues may be used. After a failure it notifies the pages, and subscribes again.
async fn follow(aws: &Aws, tail: &Tail, feed: &Feed) -> anyhow::Result<Infallible> {
    let mut last = String::new();
    loop {
        let followed = async {
            let mut arrivals = tail.open(aws).await?;
            feed.set_error(None);
            while let Some(arrival) = arrivals.try_next().await? {
                feed.push(&arrival);
            }
            bail!("the queues have ended")
        };
        let Err::<Infallible, anyhow::Error>(error) = followed.await;
        tail.expect_young(aws)?;
        let text = format!("{error:#}");
        if text != last {
            print(warning(format!("the console shows no new events, and tries again. Details: {text}")));
            last.clone_from(&text);
        }
        feed.set_error(Some(text));
        sleep(PAUSE).await;
    }
}
