//! `cargo infra add-site`: adds a Tableau site.

use std::{
    io::{self, IsTerminal, Read, Write},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use shared::{redaction::known_secrets::KnownSecrets, registration::site_name::SiteName, sites::entry::SiteEntry};
use tableau::Tableau;
use tokio::time::Instant;

use crate::{
    aws::Aws,
    parameters,
    reconciler::{self, RunFailed},
    remedies,
    stack::Stack,
    state_table,
    steps::{show, step},
    target::Target,
};

/// How long a sign-in to Tableau may take, with retries.
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(90);

/// Adds a Tableau site: asks for server, site and token, signs in, stores the site entry encrypted, and registers the site's
/// webhooks. If standard input is no terminal, reads the site entry from it as JSON.
#[derive(Clone, Debug, Args)]
pub struct AddSite {
    /// Your name for the site, as messages show it. Lower-case letters, digits and hyphens, at most 40.
    name: SiteName,
    /// Replace an existing entry.
    #[arg(long)]
    overwrite: bool,
    /// Do not sign in from here, if only the reconciler can reach the server.
    #[arg(long)]
    no_sign_in: bool,
    #[command(flatten)]
    target: Target,
}

/// Runs the command.
///
/// # Errors
///
/// The entry exists already or is not valid, the sign-in failed, or some webhooks could not be registered. The error says
/// whether the entry was stored.
pub async fn run(arguments: AddSite) -> anyhow::Result<()> {
    let AddSite { name, overwrite, no_sign_in, target } = arguments;
    let connection = target.connect().await?;
    let (aws, stack) = (&connection.aws, connection.stack().await?);
    let parameter = stack.site_parameter(name.as_str())?;
    // Before the user types anything.
    ensure!(
        overwrite || !parameters::exists(aws, &parameter).await?,
        "the entry {parameter} exists already. Nothing was stored. Fix: add --overwrite to replace it"
    );
    let text = if io::stdin().is_terminal() {
        // What is not asked for stays, such as the site's own events.
        let stored = if overwrite { parameters::read(aws, &parameter).await? } else { None };
        ask_for_entry(stored.as_ref())?
    } else {
        read_entry()?
    };
    let entry = SiteEntry::parse(&parameter, text.expose_secret())
        .context("the site entry is not valid. Nothing was stored. Fix: correct the values in the details")?;
    if !no_sign_in {
        let title = format!("Sign in to {} with the token {:?}", entry.server, entry.token_name);
        step(&title, sign_in_while_unused(aws, &stack, &entry)).await?;
    }
    let store = stack.put_site(aws, name.as_str(), &text, overwrite);
    step(&format!("Store the entry {parameter}, encrypted"), store).await?;
    let apply = reconciler::run(aws, &stack, "apply", std::slice::from_ref(&name));
    if let Err(error) = step(&format!("Register the webhooks of {name}"), apply).await {
        let effect = if RunFailed::sites_succeeded(&error) {
            format!("the entry is stored and the webhooks of {name} are registered, but the run failed")
        } else {
            format!(
                "the entry is stored, but the webhooks of {name} are not as declared. The schedule tries again. Fix: follow \
                 the report above, then run `cargo infra reconcile apply --site {name}`"
            )
        };
        return Err(error.context(effect));
    }
    println!("\nThe schedule now manages the webhooks of {name}. To receive a test event: cargo infra test");
    Ok(())
}

/// Reads the site entry from standard input.
fn read_entry() -> anyhow::Result<SecretString> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
    ensure!(
        !text.trim().is_empty(),
        "standard input is empty. Nothing was stored. Fix: run this command in a terminal, or pass the site entry as JSON, \
         such as {}",
        json!({ "server": "https://10ax.online.tableau.com", "site": "marketing", "token_name": "…", "token_secret": "…" })
    );
    Ok(SecretString::from(text.trim()))
}

/// Asks the user for the site entry. Other members of the stored entry stay.
fn ask_for_entry(stored: Option<&SecretString>) -> anyhow::Result<SecretString> {
    let server = ask("Address of the server, such as https://10ax.online.tableau.com: ")?;
    let site = ask("Site, the part after /site/ in a browser's address (empty for the Default site): ")?;
    let token_name = ask("Name of the personal access token: ")?;
    let token_secret = rpassword::prompt_password("Secret of the token (not shown): ")?;
    let stored = stored.and_then(|stored| serde_json::from_str::<Map<_, _>>(stored.expose_secret()).ok());
    let mut entry = stored.unwrap_or_default();
    let answers =
        [("server", &*server), ("site", &*site), ("token_name", &*token_name), ("token_secret", token_secret.trim())];
    entry.extend(answers.map(|(member, answer)| (member.to_owned(), Value::from(answer))));
    Ok(SecretString::from(Value::Object(entry).to_string()))
}

fn ask(question: &str) -> anyhow::Result<String> {
    print!("{question}");
    io::stdout().flush()?;
    let mut answer = String::new();
    let length = io::stdin().read_line(&mut answer)?;
    ensure!(length > 0, "the input ended. Nothing was stored");
    Ok(answer.trim().to_owned())
}

/// Signs in while no run of the reconciler uses the token, since a token has one session.
async fn sign_in_while_unused(aws: &Aws, stack: &Stack, entry: &SiteEntry) -> anyhow::Result<()> {
    // A stack of an earlier release has no state table.
    let Ok(table) = stack.output("StateTableName") else { return sign_in(aws, stack, entry).await };
    let token = state_table::hold_token(aws, table, entry, 2 * SIGN_IN_TIMEOUT).await?;
    let result = sign_in(aws, stack, entry).await;
    let released = state_table::release_token(aws, token).await;
    result.and(released)
}

/// Signs in to Tableau and lists the webhooks, which only an administrator may.
async fn sign_in(aws: &Aws, stack: &Stack, entry: &SiteEntry) -> anyhow::Result<()> {
    let tableau = Tableau::new()?;
    // The reconciler trusts the same CA certificates.
    let parameter = stack.parameter("tableau-ca");
    let certificates = parameters::read(aws, &parameter).await?;
    let certificates = certificates.as_ref().map(SecretString::expose_secret);
    tableau.trust_ca_certificates(certificates).with_context(|| {
        format!(
            "the CA certificates in {parameter} are not valid. Nothing was stored. Fix: store a valid PEM file there"
        )
    })?;
    let deadline = Instant::now() + SIGN_IN_TIMEOUT;
    let session = tableau.sign_in(entry, KnownSecrets::default(), deadline).await;
    let mut session = session.map_err(|error| remedies::for_sign_in(entry, &parameter, error))?;
    let webhooks = session.list(|_| false).await;
    let signed_out = session.sign_out().await;
    let webhooks = webhooks.map_err(|error| remedies::for_sign_in(entry, &parameter, error))?;
    let count = webhooks.readable.len() + webhooks.odd.len();
    show(&format!("Tableau accepts the token; the site has {count} webhooks"));
    if let Err(error) = signed_out {
        show(&format!("The sign-out failed, which does no harm: {error}"));
    }
    Ok(())
}
