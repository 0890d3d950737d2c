//! `cargo infra url`: the signed address of one event of one site.

use anyhow::Context;
use clap::Args;
use shared::{
    events::catalogue::Event,
    registration::{claim::Registration, signed_url::ReceiverUrl, site_name::SiteName},
};

use crate::target::Target;

/// Prints the signed address at which the receiver takes one event of one site, for who registers a webhook by hand. It
/// is a credential: whoever knows it can speak for that event of that site.
#[derive(Clone, Debug, Args)]
pub struct Url {
    /// Our name for the site.
    site: SiteName,
    /// Tableau's name of the event, such as WorkbookCreated.
    event: Event,
    #[command(flatten)]
    target: Target,
}

/// Runs the command. Nothing but the address goes to standard output.
///
/// # Errors
///
/// There is no such stack, or it has no signing keys yet.
pub async fn run(arguments: Url) -> anyhow::Result<()> {
    let Url { site, event, target } = arguments;
    if !event.is_known() {
        let known: Vec<_> = Event::catalogue().map(|event| event.to_string()).collect();
        eprintln!("warning: {event} is no event that this release knows; it knows {}", known.join(", "));
    }
    let way = target.way().await?;
    let stack = way.stack().await?;
    let receiver = stack.output("ReceiverUrl")?;
    let receiver = ReceiverUrl::parse(receiver).with_context(|| format!("{receiver} is no address"))?;
    let keyring = stack.keyring(&way.aws).await?;
    eprintln!(
        "warning: this address is a credential: whoever knows it can send {event} as {site}. It is good until the \
         signing keys have been rotated twice. Do not call a webhook {}-{event} that you register by hand: the \
         reconciler takes those for its own",
        stack.name()
    );
    println!("{}", Registration { site, event }.signed_url(&receiver, &keyring).expose());
    Ok(())
}
