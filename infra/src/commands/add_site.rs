//! `cargo infra add-site`: adds a Tableau site.

use std::io::{self, IsTerminal, Read};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;
use shared::{
    registration::site_name::SiteName,
    sites::{address::in_browser, commands::infra, entry::SiteEntry, token_end::TokenEnd},
};
use tableau::TableauError;

use self::form::{Field, Form};
use crate::{
    connection::StackOptions,
    interruption::{Effect, explained},
    reconciler::{self, RunFailed},
    remedies,
    site_entries::{DeclaredSite, DeclaredSites, NewEntry, members},
    site_sign_in::SiteSignIn,
    steps::{show, step},
    terminal::{bad, good, print},
};

mod form;

const EXAMPLES: &str = "Examples:
  cargo infra add-site marketing
  cargo infra add-site marketing --overwrite
  echo '{\"events\":[\"WorkbookRefreshFailed\"]}' | cargo infra add-site marketing --overwrite";

/// Adds a Tableau site, and registers its webhooks.
///
/// Asks for the site's address and a token, signs in, and stores the site entry encrypted. If standard input is no terminal,
/// reads the site entry from it as JSON.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AddSite {
    /// Your name for the site, as messages show it. Lower-case letters, digits and hyphens, at most 40.
    name: SiteName,
    /// Change an existing entry. Values that you do not give stay.
    #[arg(long)]
    overwrite: bool,
    /// Do not sign in from here, if only the reconciler can reach the server.
    #[arg(long)]
    no_sign_in: bool,
    /// The date on which the token ends, such as 2027-05-21. Tableau Cloud tells it by itself.
    #[arg(long, value_name = "DATE", value_parser = token_end)]
    token_expires: Option<String>,
    #[command(flatten)]
    options: StackOptions,
}

/// Runs the command.
///
/// # Errors
///
/// The entry exists already or is not valid, the sign-in failed, or some webhooks could not be registered. The error says
/// whether the entry was stored.
pub async fn run(arguments: AddSite) -> anyhow::Result<()> {
    let effect = Effect::new("Nothing was stored. Fix: run this command again");
    explained(&effect, add(arguments, &effect)).await
}

async fn add(arguments: AddSite, effect: &Effect) -> anyhow::Result<()> {
    let AddSite { name, overwrite, no_sign_in, token_expires, options } = arguments;
    let connection = options.connect().await?;
    let (aws, stack) = (&connection.aws, connection.stack().await?);
    let parameter = stack.site_parameter(name.as_str())?;
    let declared = DeclaredSites::read(aws, &stack).await?;
    let stored = declared.find(&name);
    // Before the user types anything.
    ensure!(
        overwrite || stored.is_none(),
        "the entry {parameter} exists already. Nothing was stored. Fix: to change it, run `{}`",
        infra(&format!("add-site {name} --overwrite"), stack.name())
    );
    let sign_in = if no_sign_in { None } else { Some(SiteSignIn::new(aws, &stack, &declared).await?) };
    let sign_in = sign_in.as_ref();
    let new = if io::stdin().is_terminal() {
        let form = Form::new(&parameter, &name, &declared, stack.name(), token_expires);
        ask_for_entry(form, sign_in).await?
    } else {
        let new = read_entry(&parameter, stored, token_expires)?;
        new.expect_no_other(&declared, stack.name())?;
        if let Some(sign_in) = sign_in {
            try_token(sign_in, &new.entry).await.map_err(|error| {
                let Some(refused) = error.downcast_ref() else { return error };
                let (what, fix) =
                    remedies::for_sign_in(&new.entry, &sign_in.ca_parameter, refused, "run this command again");
                error.context(format!("{what} Nothing was stored. Fix: {fix}"))
            })?;
        }
        new
    };
    show_kept_events(stored, &new.entry);
    effect.set(format!(
        "The entry {parameter} may be stored. Fix: see it with `{}`, and run this command again if it is missing",
        infra("sites", stack.name())
    ));
    let store = stack.put_site(aws, name.as_str(), &new.text, overwrite);
    step(&format!("Store the entry {parameter}, encrypted"), store).await?;
    effect.set(format!("The entry {parameter} is stored. {}", reconciler::continues(&stack)));
    let apply = reconciler::run(aws, &stack, "apply", std::slice::from_ref(&name));
    if let Err(error) = step(&format!("Register the webhooks of {name}"), apply).await {
        let effect = if RunFailed::sites_succeeded(&error) {
            format!("the entry is stored and the webhooks of {name} are registered, but the run failed")
        } else {
            format!(
                "the entry is stored, but the webhooks of {name} are not as declared. The schedule tries again. Fix: follow \
                 the report above, then run `{}`",
                infra(&format!("reconcile apply --site {name}"), stack.name())
            )
        };
        return Err(error.context(effect));
    }
    print(format!("\n{}", good(format!("The schedule now manages the webhooks of {name}."))));
    print(format!("To receive a test event: {}", infra("test", stack.name())));
    Ok(())
}

/// Shows which events a changed entry keeps. Without this line a user could expect the stack's events.
fn show_kept_events(stored: Option<&DeclaredSite>, entry: &SiteEntry) {
    let before = stored.and_then(|stored| stored.entry.as_ref().ok()).and_then(|entry| entry.events.as_ref());
    if let (Some(before), Some(after)) = (before, &entry.events)
        && before == after
    {
        let events: Vec<_> = after.iter().map(ToString::to_string).collect();
        show(&format!("the site keeps its own events: {}", events.join(", ")));
    }
}

/// Checks a date or a time.
fn token_end(text: &str) -> Result<String, &'static str> {
    TokenEnd::parse(text).map(|_| text.to_owned()).ok_or("expected a date, such as 2027-05-21")
}

/// Reads the site entry from standard input, with the end of the token from the command line.
fn read_entry(
    parameter: &str,
    stored: Option<&DeclaredSite>,
    token_expires: Option<String>,
) -> anyhow::Result<NewEntry> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
    ensure!(
        !text.trim().is_empty(),
        "standard input is empty. Nothing was stored. Fix: run this command in a terminal, or pass the site entry as JSON, \
         such as {}",
        json!({ "server": "https://10ax.online.tableau.com", "site": "marketing", "token_name": "…", "token_secret": "…" })
    );
    let new = members(&text).and_then(|mut members| {
        members.extend(token_expires.map(|end| ("token_expires".to_owned(), end.into())));
        NewEntry::new(parameter, members, stored)
    });
    new.context("the site entry is not valid. Nothing was stored. Fix: correct the values in the details")
}

/// Asks the user for the site entry. After an error asks again, for the values that can be wrong.
async fn ask_for_entry(mut form: Form<'_>, sign_in: Option<&SiteSignIn<'_>>) -> anyhow::Result<NewEntry> {
    form.ask(&Field::ALL).await?;
    loop {
        let new = form.entry()?;
        let Some(sign_in) = sign_in else { return Ok(new) };
        let Err(error) = try_token(sign_in, &new.entry).await else { return Ok(new) };
        // Any other error has nothing to do with the values.
        let Some(refused) = error.downcast_ref::<TableauError>() else { return Err(error) };
        let fields = Field::suspects(refused.kind());
        let again = if fields.is_empty() { "try again" } else { "answer again" };
        let (what, fix) = remedies::for_sign_in(&new.entry, &sign_in.ca_parameter, refused, again);
        print(bad(what));
        print(format!("Nothing is stored yet. Fix: {fix}\nDetails: {error:#}"));
        form.ask_again(fields).await?;
    }
}

/// Tries the token of an entry in a step.
async fn try_token(sign_in: &SiteSignIn<'_>, entry: &SiteEntry) -> anyhow::Result<()> {
    let SiteEntry { server, content_url, token_name, .. } = entry;
    let title = format!("Sign in to {} with the token {token_name:?}", in_browser(server, content_url));
    step(&title, async {
        let count = sign_in.try_token(entry).await?;
        show(&format!("Tableau accepts the token; the site has {count} webhooks"));
        Ok(())
    })
    .await
}
