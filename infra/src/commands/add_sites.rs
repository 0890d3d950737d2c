//! `cargo infra add-sites`: adds the Tableau sites of a file.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use futures_util::{StreamExt, stream};
use secrecy::ExposeSecret;
use shared::{
    alerts::phrasing::pluralize,
    registration::site_name::SiteName,
    sites::{address::in_browser, commands::infra},
};
use tableau::SITES_AT_ONCE;
use tokio::sync::Semaphore;

use crate::{
    aws::Aws,
    connection::StackOptions,
    interruption::{Effect, explained},
    reconciler::{self, Answer},
    remedies,
    site_entries::{DeclaredSites, NewEntry},
    site_file::{self, Row},
    site_sign_in::SiteSignIn,
    stack::Stack,
    steps::{show, step},
    terminal::{bad, good, print},
};

/// Parameters stored at once. SSM accepts three a second by default (AWS General Reference, quotas of Systems Manager).
const PUTS_AT_ONCE: usize = 3;

const EXAMPLES: &str = "Examples:
  cargo infra add-sites sites.csv
  cargo infra add-sites renewed-tokens.csv --overwrite

The file is CSV, or a JSON list of objects with these members:
  name,server,site,token_name,token_secret,events,token_expires
  marketing,https://10ax.online.tableau.com,marketing,fanout-marketing,SECRET,,
  finance,https://tableau.example/#/site/fin/home,,fanout-finance,SECRET,ViewDeleted,2027-05-21";

/// Adds the Tableau sites of a CSV or JSON file.
///
/// Signs in to the sites side by side, stores the entries that work, and registers their webhooks. Names the other sites with
/// the reason.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AddSites {
    /// The file.
    file: PathBuf,
    /// Change existing entries. Values that the file does not give stay.
    #[arg(long)]
    overwrite: bool,
    /// Do not sign in from here, if only the reconciler can reach the servers.
    #[arg(long)]
    no_sign_in: bool,
    #[command(flatten)]
    options: StackOptions,
}

/// Runs the command.
///
/// # Errors
///
/// The file cannot be read, or some sites were not stored or not registered. The output names them.
pub async fn run(arguments: AddSites) -> anyhow::Result<()> {
    let effect = Effect::new("Nothing was stored. Fix: run this command again");
    explained(&effect, add(arguments, &effect)).await
}

async fn add(arguments: AddSites, effect: &Effect) -> anyhow::Result<()> {
    let AddSites { file, overwrite, no_sign_in, options } = arguments;
    let rows = site_file::read(&file)?;
    let count = rows.len();
    let connection = options.connect().await?;
    let (aws, stack) = (&connection.aws, connection.stack().await?);
    let declared = DeclaredSites::read(aws, &stack).await?;
    let sign_in = if no_sign_in { None } else { Some(SiteSignIn::new(aws, &stack, &declared).await?) };
    let sign_in = sign_in.as_ref();
    let adding =
        Adding { aws, stack: &stack, declared: &declared, overwrite, sign_in, puts: Semaphore::new(PUTS_AT_ONCE) };
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
    let title = if no_sign_in { "Store the entries of" } else { "Sign in and store the entries of" };
    effect.set(
        "The sites with ✓ above are stored, and the schedule registers their webhooks. Fix: run this command again, which \
         passes over the sites that are stored",
    );
    let outcomes = step(&format!("{title} {}", sites(count)), async { Ok(adding.add(rows, width).await) }).await?;
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let stored: Vec<_> = outcomes.into_iter().flatten().flatten().collect();
    let registered = match stored.as_slice() {
        [] => Ok(()),
        names => {
            effect.set(format!("The sites with ✓ above are stored. {}", reconciler::continues(&stack)));
            let register = register(aws, &stack, names, width);
            step(&format!("Register the webhooks of {}", sites(names.len())), register).await.with_context(|| {
                format!(
                    "the entries are stored, but their webhooks may not be as declared. The schedule tries again. Fix: follow \
                     the report above, then run `{}`",
                    infra("reconcile apply", stack.name())
                )
            })
        }
    };
    if failed > 0 {
        let file = file.display();
        let again = infra(&format!("add-sites {file}{}", if overwrite { " --overwrite" } else { "" }), stack.name());
        let error = format!(
            "{failed} of {} are not stored; the others are. Fix: correct the lines marked with ✗ in {file} and run `{again}`. \
             It passes over the sites that are stored",
            sites(count)
        );
        registered.context(error.clone())?;
        bail!(error);
    }
    registered?;
    print(format!("\n{}", good(format!("The schedule now manages the webhooks of {}.", sites(count)))));
    print(format!("To receive a test event: {}", infra("test", stack.name())));
    Ok(())
}

fn sites(count: usize) -> String {
    pluralize(count, "site", "sites")
}

/// Registers the webhooks of the stored sites in one run.
async fn register(aws: &Aws, stack: &Stack, names: &[SiteName], width: usize) -> anyhow::Result<()> {
    match reconciler::invoke(aws, stack, "apply", names).await? {
        Answer::Report(report) => {
            for site in report["sites"].as_array().into_iter().flatten() {
                let count = |list: &str| site[list].as_array().map_or(0, Vec::len);
                let count = ["created", "updated", "enabled", "unchanged"].map(count).iter().sum::<usize>();
                let name = site["site"].as_str().unwrap_or_default();
                show(&good(format!("{name:width$}  {}", pluralize(count, "webhook", "webhooks"))));
            }
            Ok(())
        }
        Answer::Failure { kind, text } => {
            show(&text);
            bail!("the run failed ({kind})")
        }
    }
}

/// The parts that all sites of the file share.
struct Adding<'a> {
    aws: &'a Aws,
    stack: &'a Stack,
    declared: &'a DeclaredSites,
    overwrite: bool,
    /// `None` if entries are stored without a sign-in.
    sign_in: Option<&'a SiteSignIn<'a>>,
    puts: Semaphore,
}

/// A site of the file that can be stored.
struct Candidate {
    place: String,
    name: SiteName,
    new: NewEntry,
}

/// The name of a stored site, `None` if it was stored already.
type Outcome = anyhow::Result<Option<SiteName>>;

impl Adding<'_> {
    /// Adds the sites, and shows a line for each as soon as it is known.
    async fn add(&self, rows: Vec<Row>, width: usize) -> Vec<Outcome> {
        let (mut outcomes, mut by_token) = (Vec::new(), BTreeMap::<_, Vec<Candidate>>::new());
        let mut earlier = Vec::new();
        for row in rows {
            let (place, name) = (row.place.clone(), row.name.clone());
            match self.candidate(row, &earlier) {
                Ok(Some(candidate)) => {
                    let entry = &candidate.new.entry;
                    earlier.push((candidate.name.clone(), entry.server.clone(), entry.content_url.clone()));
                    let token = [entry.server.as_str(), &entry.token_name, entry.token_secret.expose_secret()];
                    by_token.entry(token.map(str::to_owned)).or_default().push(candidate);
                }
                Ok(None) => {
                    show(&good(format!("{name:width$}  is stored already")));
                    outcomes.push(Ok(None));
                }
                Err(error) => outcomes.push(show_error(&place, &name, width, error)),
            }
        }
        // A token has one session, so that its sites follow one another.
        let groups = stream::iter(by_token.into_values()).map(async |candidates| {
            let mut outcomes = Vec::new();
            for Candidate { place, name, new } in candidates {
                outcomes.push(match self.store(&name, &new).await {
                    Ok(()) => {
                        let address = in_browser(&new.entry.server, &new.entry.content_url);
                        show(&good(format!("{:width$}  {address}", name.as_str())));
                        Ok(Some(name))
                    }
                    Err(error) => show_error(&place, name.as_str(), width, error),
                });
            }
            outcomes
        });
        let groups: Vec<_> = groups.buffer_unordered(SITES_AT_ONCE).collect().await;
        outcomes.extend(groups.into_iter().flatten());
        outcomes
    }

    /// Checks a row without Tableau. `None` if the same entry is stored already.
    fn candidate(&self, row: Row, earlier: &[(SiteName, url::Url, String)]) -> anyhow::Result<Option<Candidate>> {
        let Row { place, name, members } = row;
        let name: SiteName = name.parse().with_context(|| format!("the name {name:?} is not valid"))?;
        let parameter = self.stack.site_parameter(name.as_str())?;
        let stored = self.declared.find(&name);
        let base = stored.filter(|_| self.overwrite);
        let new = NewEntry::new(&parameter, members.0, base)?;
        for (other, server, content_url) in earlier {
            ensure!(*other != name, "the file has this name twice");
            let is_same = (server, content_url) == (&new.entry.server, &new.entry.content_url);
            ensure!(!is_same, "{other} in the same file is the same site");
        }
        if stored.is_some_and(|stored| stored.equals(&new)) {
            return Ok(None);
        }
        ensure!(
            stored.is_none() || self.overwrite,
            "the entry {parameter} exists already, with other values. Fix: add --overwrite to change it"
        );
        new.expect_no_other(self.declared, self.stack.name())?;
        Ok(Some(Candidate { place, name, new }))
    }

    /// Signs in with an entry and stores it.
    async fn store(&self, name: &SiteName, new: &NewEntry) -> anyhow::Result<()> {
        if let Some(sign_in) = self.sign_in {
            let tried = sign_in.try_token(&new.entry).await;
            tried.map_err(|error| {
                let Some(refused) = error.downcast_ref() else { return error };
                let (what, fix) =
                    remedies::for_sign_in(&new.entry, &sign_in.ca_parameter, refused, "run this command again");
                error.context(format!("{what} Fix: {fix}"))
            })?;
        }
        let _permit = self.puts.acquire().await?;
        self.stack.put_site(self.aws, name.as_str(), &new.text, self.overwrite).await
    }
}

/// Shows why a site was not stored.
fn show_error(place: &str, name: &str, width: usize, error: anyhow::Error) -> Outcome {
    let details: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
    let details = if details.is_empty() { String::new() } else { format!(" Details: {}", details.join(": ")) };
    let error_text = error.to_string();
    show(&bad(format!("{name:width$}  {place}: {}.{details}", error_text.trim_end_matches('.'))));
    Err(error)
}
