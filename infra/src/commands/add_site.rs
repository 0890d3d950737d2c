//! `cargo infra add-site`: declares a Tableau site.

use std::{
    io::{self, IsTerminal, Read, Write},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use shared::{
    problems::ProblemKind, redaction::known_secrets::KnownSecrets, registration::site_name::SiteName,
    sites::entry::SiteEntry,
};
use tableau::{Tableau, TableauError};
use tokio::time::Instant;

use crate::{
    aws::{Aws, has_code},
    reconcile::{RunFailed, reconciled},
    stack::{Stack, read_parameter},
    state_table,
    steps::{show, step},
    target::Target,
};

/// How long Tableau may take for a sign-in, with a repetition or two.
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(90);

/// Declares a Tableau site: asks for what is needed to sign in, tries it, stores it encrypted, and has the site's webhooks
/// registered. If standard input is no terminal, reads the site entry from it, as JSON.
#[derive(Clone, Debug, Args)]
pub struct AddSite {
    /// Your name for the site: lower-case letters, digits and hyphens, at most 40. People read it in messages.
    name: SiteName,
    /// Replace the entry that is there.
    #[arg(long)]
    overwrite: bool,
    /// Do not try to sign in from here: for a server that only the reconciler reaches.
    #[arg(long)]
    no_sign_in: bool,
    #[command(flatten)]
    target: Target,
}

/// Runs the command.
///
/// # Errors
///
/// There is an entry already, the new one cannot be used, or the site's webhooks could not all be registered. The error
/// says whether anything was stored.
pub async fn run(arguments: AddSite) -> anyhow::Result<()> {
    let AddSite { name, overwrite, no_sign_in, target } = arguments;
    let way = target.way().await?;
    let (aws, stack) = (&way.aws, way.stack().await?);
    let parameter = stack.site_parameter(name.as_str())?;
    // Before anybody types.
    ensure!(
        overwrite || !exists(aws, &parameter).await?,
        "there is an entry {parameter} already, and nothing was changed: --overwrite replaces it"
    );
    let text = entry_text()?;
    let entry = SiteEntry::parse(&parameter, text.expose_secret()).context("nothing was stored")?;
    if !no_sign_in {
        let title = format!("Sign in to {} as the token {:?}", entry.server, entry.token_name);
        step(&title, sign_in_alone(aws, &stack, &entry)).await.context("nothing was stored")?;
    }
    let store = stack.put_site(aws, name.as_str(), &text, overwrite);
    step(&format!("Store the entry {parameter}, encrypted"), store).await?;
    let report = reconciled(aws, &stack, "apply", std::slice::from_ref(&name));
    if let Err(error) = step(&format!("Register the webhooks of {name}"), report).await {
        let what = if RunFailed::left_sites_well(&error) {
            format!("the entry is stored, and the webhooks of {name} are registered")
        } else {
            format!(
                "the entry is stored, but its site is not as it should be yet. The schedule tries again; to try now: \
                 cargo infra reconcile apply --site {name}"
            )
        };
        return Err(error.context(what));
    }
    println!("\nFrom now on the schedule looks after {name}. To see an event come through: cargo infra test");
    Ok(())
}

/// Whether there is a parameter of this name. What it holds is not asked for.
async fn exists(aws: &Aws, parameter: &str) -> anyhow::Result<bool> {
    match aws.run(&["ssm", "get-parameter", "--name", parameter, "--query", "Parameter.Version"]).await {
        Ok(_) => Ok(true),
        Err(error) if has_code(&error, "ParameterNotFound") => Ok(false),
        Err(error) => Err(error),
    }
}

/// The site entry: asked for, or read if nobody can be asked.
fn entry_text() -> anyhow::Result<SecretString> {
    if !io::stdin().is_terminal() {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
        ensure!(
            !text.trim().is_empty(),
            "standard input is empty: run this in a terminal to be asked, or give it the site entry as JSON, such as \
             {}",
            json!({ "server": "https://10ax.online.tableau.com", "site": "marketing", "token_name": "…",
                "token_secret": "…" })
        );
        return Ok(SecretString::from(text.trim()));
    }
    let server = asked("Address of the server, such as https://10ax.online.tableau.com: ")?;
    let site = asked("Site, as it follows /site/ in a browser's address (empty for the Default site): ")?;
    let token_name = asked("Name of the personal access token: ")?;
    let token_secret = rpassword::prompt_password("Secret of the token (not shown): ")?;
    let entry =
        json!({ "server": server, "site": site, "token_name": token_name, "token_secret": token_secret.trim() });
    Ok(SecretString::from(entry.to_string()))
}

fn asked(question: &str) -> anyhow::Result<String> {
    print!("{question}");
    io::stdout().flush()?;
    let mut answer = String::new();
    let length = io::stdin().read_line(&mut answer)?;
    ensure!(length > 0, "the answer is missing; nothing was stored");
    Ok(answer.trim().to_owned())
}

/// Signs in while no run of the reconciler uses the token: a token has one session.
async fn sign_in_alone(aws: &Aws, stack: &Stack, entry: &SiteEntry) -> anyhow::Result<()> {
    // A stack of an earlier version has no such table.
    let Ok(table) = stack.output("StateTableName") else { return sign_in(aws, stack, entry).await };
    let token = state_table::hold_token(aws, table, entry, 2 * SIGN_IN_TIMEOUT).await?;
    let result = sign_in(aws, stack, entry).await;
    let released = state_table::release_token(aws, token).await;
    result.and(released)
}

/// Signs in to Tableau and looks at the webhooks, which only an administrator may.
async fn sign_in(aws: &Aws, stack: &Stack, entry: &SiteEntry) -> anyhow::Result<()> {
    let tableau = Tableau::new()?;
    // As the reconciler does, so that what works here works there.
    let parameter = stack.parameter("tableau-ca");
    let authorities = read_parameter(aws, &parameter).await?;
    let authorities = authorities.as_ref().map(SecretString::expose_secret);
    tableau.trust(authorities).with_context(|| format!("the certificates in {parameter} cannot be used"))?;
    let deadline = Instant::now() + SIGN_IN_TIMEOUT;
    let mut session =
        tableau.sign_in(entry, KnownSecrets::default(), deadline).await.map_err(|error| explained(entry, error))?;
    let webhooks = session.list(|_| false).await;
    let signed_out = session.sign_out().await;
    let webhooks = webhooks.map_err(|error| explained(entry, error))?;
    let count = webhooks.readable.len() + webhooks.odd.len();
    show(&format!("Tableau takes the token; the site has {count} webhooks"));
    if let Err(error) = signed_out {
        show(&format!("The session could not be ended, which does no harm: {error}"));
    }
    Ok(())
}

/// An error with what to do about it.
fn explained(entry: &SiteEntry, error: TableauError) -> anyhow::Error {
    let SiteEntry { server, content_url, token_name, .. } = entry;
    let remedy = match error.kind() {
        ProblemKind::TokenRefused => format!(
            "Tableau refused the token {token_name:?}: its name or secret is wrong, it was revoked or has expired, or \
             it is for another site than {content_url:?}. Tableau does not tell which"
        ),
        ProblemKind::TokenShared => {
            format!("somebody else uses the token {token_name:?} right now: make one for this purpose only")
        }
        ProblemKind::NotAdministrator => {
            format!("the owner of the token {token_name:?} is no administrator of the site: make a token as one")
        }
        ProblemKind::SiteNotFound => {
            format!("there is no site {content_url:?}: what follows /site/ in a browser's address is wanted")
        }
        ProblemKind::ServerUnreachable | ProblemKind::CertificateNotTrusted => format!(
            "{server} cannot be reached from here. If only the reconciler reaches it, add --no-sign-in; if an authority \
             of your own signed its certificate, store that first (README.md, \"A Tableau Server behind a firewall\")"
        ),
        ProblemKind::ServerTooOld => "the server is too old: Tableau Server 2020.3 or newer is needed".to_owned(),
        ProblemKind::SignInRedirected => format!(
            "{server} sends sign-ins elsewhere, where no token is sent: have whatever guards the server let calls to \
             /api/ through, or give the address at which Tableau itself answers"
        ),
        ProblemKind::TooManyRequests => "Tableau asks for patience: try again later".to_owned(),
        _ => "Tableau did not do what it was asked to: is this the address of a Tableau server?".to_owned(),
    };
    anyhow::Error::new(error).context(remedy)
}
