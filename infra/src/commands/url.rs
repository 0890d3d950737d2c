//! `cargo infra url`: prints a signed webhook URL.

use anyhow::{Context, ensure};
use clap::Args;
use shared::{
    events::catalogue::Event,
    registration::{claim::Registration, signed_url::ReceiverUrl, site_name::SiteName},
    sites::commands::stack_option,
};

use crate::{
    connection::StackOptions,
    parameters,
    terminal::{print_error, warning},
};

/// Prints a signed URL, for a webhook that you register by hand.
///
/// The URL is a credential: with it, anyone can send that event of that site.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Exit status: 0 the URL is printed, 1 the site is not declared, or something failed, 2 usage.

Example:
  cargo infra url marketing WorkbookCreated")]
pub struct Url {
    /// Your name for the site.
    site: SiteName,
    /// Tableau's name of the event, such as WorkbookCreated.
    event: Event,
    /// Print the URL for a site that is not declared, too.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    options: StackOptions,
}

/// Runs the command. Standard output has the URL alone.
///
/// # Errors
///
/// The stack does not exist, has no signing keys yet, or does not declare the site.
pub async fn run(arguments: Url) -> anyhow::Result<()> {
    let Url { site, event, force, options } = arguments;
    if !event.is_known() {
        let known: Vec<_> = Event::catalogue().map(|event| event.to_string()).collect();
        warn(&format!("this release does not know the event {event}. It knows {}", known.join(", ")));
    }
    let connection = options.connect().await?;
    let stack = connection.stack().await?;
    if parameters::read(&connection.aws, &stack.site_parameter(site.as_str())?).await?.is_none() {
        let undeclared = format!(
            "the stack {} declares no site {site}. The receiver would publish what is sent to this URL as events of {site}.",
            stack.name()
        );
        let option = stack_option(stack.name());
        ensure!(
            force,
            "{undeclared} The URL was not printed. Fix: declare the site with `cargo infra add-site {site}{option}`, correct \
             its name, or add --force"
        );
        warn(&undeclared);
    }
    let receiver = stack.output("ReceiverUrl")?;
    let receiver = ReceiverUrl::parse(receiver).with_context(|| format!("{receiver} is no URL"))?;
    let keyring = stack.keyring(&connection.aws).await?;
    warn(&format!(
        "this URL is a credential. With it, anyone can send {event} of {site}. It is valid until the signing keys \
         have been rotated twice. Do not name your webhook {}-{event}: the reconciler manages webhooks of that name",
        stack.name()
    ));
    println!("{}", Registration { site, event }.signed_url(&receiver, &keyring).expose());
    Ok(())
}

fn warn(text: &str) {
    print_error(warning(format!("warning: {text}")));
}
