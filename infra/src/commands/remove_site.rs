//! `cargo infra remove-site`: removes a Tableau site.

use anyhow::{Context, bail};
use clap::Args;
use shared::{
    events::catalogue::Event,
    registration::site_name::SiteName,
    sites::{commands::infra, webhook::NamePrefix},
};

use crate::{
    aws::{Aws, has_code},
    connection::StackOptions,
    interruption::{Effect, explained},
    parameters,
    reconciler::{self, Answer, RunFailed},
    site_entries::{DeclaredSite, DeclaredSites},
    stack::Stack,
    steps::{show, step},
    terminal::{good, print, warning},
};

const EXAMPLES: &str = "Examples:
  cargo infra remove-site marketing
  cargo infra remove-site marketing --force";

/// Removes a Tableau site with its webhooks.
///
/// Deletes the site's webhooks on Tableau, its entry and its state, and ends its open alerts.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RemoveSite {
    /// Your name for the site.
    name: SiteName,
    /// Remove the site even if some of its webhooks are left on Tableau.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    options: StackOptions,
}

/// Runs the command.
///
/// # Errors
///
/// The site is not declared, or its webhooks could not be deleted. The error says what is left.
pub async fn run(arguments: RemoveSite) -> anyhow::Result<()> {
    let effect = Effect::new("Nothing was removed. Fix: run this command again");
    explained(&effect, remove(arguments, &effect)).await
}

async fn remove(arguments: RemoveSite, effect: &Effect) -> anyhow::Result<()> {
    let RemoveSite { name, force, options } = arguments;
    let connection = options.connect().await?;
    let (aws, stack) = (&connection.aws, connection.stack().await?);
    let declared = DeclaredSites::read(aws, &stack).await?;
    let parameter = stack.site_parameter(name.as_str())?;
    let site = declared.find(&name).with_context(|| not_declared(&parameter, &declared, &stack))?;
    let entry = site.entry.as_ref().ok();
    match entry.and_then(|entry| declared.other(&site.name, &entry.server, &entry.content_url)) {
        // The reconciler manages a site of Tableau by one entry.
        Some(other) => {
            show(&format!("the site's webhooks stay, since the entry {} declares the same site", other.name))
        }
        None => {
            effect.set(format!(
                "The reconciler continues to delete the webhooks of {name}. The entry stays, and the schedule creates them \
                 again. Fix: run this command again"
            ));
            delete_webhooks(aws, &stack, &name, site, force).await?;
        }
    }
    effect.set(format!(
        "The webhooks of {name} are deleted, and its entry may be. Fix: run this command again if `{}` still lists the site",
        infra("sites", stack.name())
    ));
    let delete = parameters::delete(aws, std::slice::from_ref(&parameter));
    step(&format!("Delete the entry {parameter}"), delete).await?;
    // The schedule does the same, some minutes later.
    effect.set(format!("{name} is removed. The next run of the schedule deletes its state, and ends its open alerts"));
    let forgotten = step("Delete the site's state, and end its open alerts", async {
        match reconciler::forget_removed_sites(aws, &stack).await? {
            Answer::Report(_) => Ok(()),
            Answer::Failure { kind, text } => bail!("the reconciler failed ({kind}): {text}"),
        }
    });
    forgotten.await.with_context(|| {
        format!("{name} is removed, but its state and open alerts are not. The next run of the schedule tries again")
    })?;
    print(format!("\n{}", good(format!("{name} is removed."))));
    if let Some(entry) = entry {
        print(format!("Revoke its token {:?} on Tableau, unless something else uses it.", entry.token_name));
    }
    Ok(())
}

fn not_declared(parameter: &str, declared: &DeclaredSites, stack: &Stack) -> String {
    let names: Vec<_> = declared.iter().map(|site| site.name.as_str()).collect();
    let names = if names.is_empty() { "no site".to_owned() } else { names.join(", ") };
    format!(
        "there is no entry {parameter}. Nothing was removed. Fix: choose a declared site; `{}` lists them. Details: declared \
         are {names}",
        infra("sites", stack.name())
    )
}

/// Deletes the site's webhooks with the reconciler. With `force`, an error is only shown.
async fn delete_webhooks(
    aws: &Aws,
    stack: &Stack,
    name: &SiteName,
    site: &DeclaredSite,
    force: bool,
) -> anyhow::Result<()> {
    let delete = reconciler::run(aws, stack, "destroy", std::slice::from_ref(name));
    let Err(error) = step(&format!("Delete the webhooks of {name} on Tableau"), delete).await else { return Ok(()) };
    if RunFailed::sites_succeeded(&error) {
        return Ok(());
    }
    let webhooks = webhooks(stack, site)?;
    // Another run ends soon, and may use the entry.
    if !force || has_code(&error, "TooManyRequestsException") {
        bail!(error.context(format!(
            "the webhooks of {name} could not be deleted. Its entry stays, and the schedule creates deleted webhooks again. \
             Fix: follow the report above and run this command again; or run `{}` and delete these webhooks on Tableau \
             yourself: {webhooks}",
            infra(&format!("remove-site {name} --force"), stack.name())
        )));
    }
    show(&warning(format!(
        "continues because of --force. These webhooks may be left on Tableau, and keep sending events. Delete them there: \
         {webhooks}"
    )));
    Ok(())
}

/// Returns the names of the webhooks that a site may have.
fn webhooks(stack: &Stack, site: &DeclaredSite) -> anyhow::Result<String> {
    let prefix: NamePrefix = stack.name().parse()?;
    let own = site.entry.as_ref().ok().and_then(|entry| entry.events.clone());
    let of_stack =
        || stack.setting("Events").filter(|events| !events.is_empty()).and_then(|it| Event::parse_list(it).ok());
    let events = own.or_else(of_stack).unwrap_or_else(Event::default_selection);
    let names: Vec<_> = events.iter().map(|event| prefix.name_for(event)).collect();
    Ok(names.join(", "))
}
