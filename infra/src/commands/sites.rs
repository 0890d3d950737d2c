//! `cargo infra sites`: lists the declared sites.

use std::collections::BTreeMap;

use anyhow::ensure;
use clap::Args;
use serde_json::{Value, json};
use shared::sites::{
    address::in_browser,
    commands::{SiteCommands, infra},
    entry::SiteEntry,
    token_end::TokenEnd,
};

use crate::{
    connection::StackOptions,
    site_entries::{DeclaredSite, DeclaredSites, same_site},
    stack::Stack,
    state_table,
    terminal::{BOLD, bad, columns, good, print, reserve_stdout, styled},
};

const EXAMPLES: &str = "Examples:
  cargo infra sites
  cargo infra sites --json";

/// The most characters of the column with a site's events.
const MAX_EVENTS: usize = 60;

/// Lists the declared Tableau sites, without secrets.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Sites {
    /// Print a JSON list.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: StackOptions,
}

/// Runs the command.
///
/// # Errors
///
/// The entries cannot be read, or one of them cannot be used.
pub async fn run(arguments: Sites) -> anyhow::Result<()> {
    let Sites { json, options } = arguments;
    if json {
        reserve_stdout();
    }
    let connection = options.connect().await?;
    let stack = connection.stack().await?;
    let declared = DeclaredSites::read(&connection.aws, &stack).await?;
    // A stack of an earlier release has no state table.
    let read = match stack.output("StateTableName") {
        Ok(table) => state_table::sites(&connection.aws, table).await?.token_ends,
        Err(_) => BTreeMap::new(),
    };
    let token_ends = |site: &DeclaredSite| {
        let declared = site.entry.as_ref().ok().and_then(|entry| entry.token_expires);
        read.get(&site.name).copied().or(declared)
    };
    let listed = |site| Listed { site, token_ends: token_ends(site), problem: problem(site, &declared, &stack) };
    let sites: Vec<_> = declared.iter().map(listed).collect();
    if json {
        let sites: Vec<_> = sites.iter().map(to_json).collect();
        println!("{:#}", Value::from(sites));
    } else if sites.is_empty() {
        print(format!("No site is declared. To add one: {}", infra("add-site marketing", stack.name())));
    } else {
        table(&sites).iter().for_each(print);
    }
    let unusable = sites.iter().filter(|listed| listed.problem.is_some()).count();
    let commands = SiteCommands { stack: stack.name(), sites_path: stack.output("SitesPath")? };
    let first = sites.iter().find(|listed| listed.problem.is_some()).map(|listed| listed.site.name.as_str());
    ensure!(
        unusable == 0,
        "{unusable} of {} site entries cannot be used. Their webhooks are not managed. Fix: correct the entry with {}",
        sites.len(),
        commands.replace_entry(first.unwrap_or_default())
    );
    Ok(())
}

/// A site in the list.
struct Listed<'a> {
    site: &'a DeclaredSite,
    token_ends: Option<TokenEnd>,
    /// Why its entry cannot be used.
    problem: Option<String>,
}

/// Returns why an entry cannot be used.
fn problem(site: &DeclaredSite, declared: &DeclaredSites, stack: &Stack) -> Option<String> {
    let SiteEntry { server, content_url, .. } = match &site.entry {
        Ok(entry) => entry,
        Err(bad) => return Some(bad.error.to_string()),
    };
    // The reconciler uses the first of two.
    let other = declared.other(&site.name, server, content_url).filter(|other| other.name < site.name)?;
    Some(same_site(&other.name, server, content_url, stack.name(), ""))
}

fn events(entry: &SiteEntry) -> Option<Vec<String>> {
    entry.events.as_ref().map(|events| events.iter().map(ToString::to_string).collect())
}

fn to_json(Listed { site, token_ends, problem }: &Listed<'_>) -> Value {
    let DeclaredSite { name, stored_at, .. } = site;
    match &site.entry {
        Err(_) => json!({ "name": name, "stored": stored_at, "problem": problem }),
        Ok(entry) => json!({
            "name": name,
            "server": entry.server.origin().ascii_serialization(),
            "site": entry.content_url,
            "token_name": entry.token_name,
            "token_ends": token_ends,
            "events": events(entry),
            "stored": stored_at,
            "problem": problem,
        }),
    }
}

/// Formats the sites in aligned columns.
fn table(sites: &[Listed<'_>]) -> Vec<String> {
    let head = ["name", "site", "token", "token ends", "stored", "events"].map(str::to_owned);
    let rows: Vec<_> = [head].into_iter().chain(sites.iter().map(row)).collect();
    let rows = columns(&rows);
    let mut lines: Vec<_> = rows.first().map(|head| styled(BOLD, format!("  {head}"))).into_iter().collect();
    for (Listed { site, problem, .. }, row) in sites.iter().zip(rows.iter().skip(1)) {
        lines.push(match problem {
            None => good(row),
            Some(problem) => bad(format!("{}: {problem}", site.name)),
        });
    }
    lines
}

fn row(Listed { site, token_ends, .. }: &Listed<'_>) -> [String; 6] {
    let stored: String = site.stored_at.chars().take("2026-05-21".len()).collect();
    let Ok(entry) = &site.entry else {
        return [site.name.clone(), String::new(), String::new(), String::new(), stored, String::new()];
    };
    let events = events(entry).map_or_else(|| "the stack's".to_owned(), |events| events.join(" "));
    let events = match events.char_indices().nth(MAX_EVENTS) {
        Some((end, _)) => format!("{}…", &events[..end]),
        None => events,
    };
    let address = in_browser(&entry.server, &entry.content_url);
    let ends = token_ends.map_or_else(|| "not known".to_owned(), |end| end.time().date().to_string());
    [site.name.clone(), address, entry.token_name.clone(), ends, stored, events]
}
