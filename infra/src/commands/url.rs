//! `cargo infra url`: prints a signed webhook URL.

use anyhow::Context;
use clap::Args;
use shared::{
    events::catalogue::Event,
    registration::{claim::Registration, signed_url::ReceiverUrl, site_name::SiteName},
};

use crate::target::Target;

/// Prints the signed URL for one event of one site, for a webhook that you register by hand. The URL is a credential: with
/// it, anyone can send that event of that site.
#[derive(Clone, Debug, Args)]
pub struct Url {
    /// Your name for the site.
    site: SiteName,
    /// Tableau's name of the event, such as WorkbookCreated.
    event: Event,
    #[command(flatten)]
    target: Target,
}

/// Runs the command. Standard output has the URL alone.
///
/// # Errors
///
/// The stack does not exist, or has no signing keys yet.
pub async fn run(arguments: Url) -> anyhow::Result<()> {
    let Url { site, event, target } = arguments;
    if !event.is_known() {
        let known: Vec<_> = Event::catalogue().map(|event| event.to_string()).collect();
        eprintln!("warning: this release does not know the event {event}. It knows {}", known.join(", "));
    }
    let connection = target.connect().await?;
    let stack = connection.stack().await?;
    let receiver = stack.output("ReceiverUrl")?;
    let receiver = ReceiverUrl::parse(receiver).with_context(|| format!("{receiver} is no URL"))?;
    let keyring = stack.keyring(&connection.aws).await?;
    eprintln!(
        "warning: this URL is a credential. With it, anyone can send {event} of {site}. It is valid until the signing keys \
         have been rotated twice. Do not name your webhook {}-{event}: the reconciler manages webhooks of that name",
        stack.name()
    );
    println!("{}", Registration { site, event }.signed_url(&receiver, &keyring).expose());
    Ok(())
}
