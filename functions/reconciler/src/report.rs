//! What a run did, for machines and for people.

use std::fmt::{self, Write};

use serde::Serialize;

/// What a run did. Sites are in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was done at each site.
    pub sites: Vec<SiteReport>,
    /// The same for people.
    pub text: String,
}

/// What was done at one site. All lists hold webhook names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SiteReport {
    /// Our name for the site.
    pub site: String,
    /// Webhooks that were given the right address or event.
    pub updated: Vec<String>,
    /// Webhooks that Tableau had disabled and that were enabled again.
    pub enabled: Vec<Enabled>,
    /// Webhooks that were made.
    pub created: Vec<String>,
    /// Webhooks that were deleted: no longer wanted, or surplus copies.
    pub deleted: Vec<String>,
    /// Our webhooks that were as they should be.
    pub unchanged: Vec<String>,
    /// Webhooks that are not ours and that were left alone.
    pub foreign: Vec<String>,
    /// What is worth knowing and no error.
    pub notes: Vec<String>,
    /// What went wrong. A site with errors is not as declared.
    pub errors: Vec<String>,
}

/// A webhook that was enabled again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Enabled {
    /// Its name.
    pub name: String,
    /// Why Tableau had disabled it, in Tableau's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Report {
    /// A report on sites, with its text. `sites_path` says where entries belong, should there be none.
    pub fn new(mut sites: Vec<SiteReport>, sites_path: &str) -> Self {
        // Sites finish in any order.
        sites.sort_by(|a, b| a.site.cmp(&b.site));
        let mut text: String = sites.iter().map(ToString::to_string).collect();
        let failed = sites.iter().filter(|site| site.failed()).count();
        // Writing to a text cannot fail.
        let _ = match (sites.len(), failed) {
            (0, _) => write!(text, "Nothing to do: there is no site entry under {sites_path}."),
            (all, 0) => write!(text, "{} as declared.", counted(all, "site is", "sites are")),
            (all, failed) => write!(text, "{} of {} failed.", failed, counted(all, "site", "sites")),
        };
        Self { sites, text }
    }

    /// Whether any site is not as declared.
    pub fn failed(&self) -> bool {
        self.sites.iter().any(SiteReport::failed)
    }
}

impl SiteReport {
    /// A report on a site at which nothing was done yet.
    pub fn new(site: impl Into<String>) -> Self {
        Self { site: site.into(), ..Self::default() }
    }

    /// A report on a site that could not even be looked at.
    pub fn of_failure(site: impl Into<String>, error: String) -> Self {
        Self { errors: vec![error], ..Self::new(site) }
    }

    /// Whether the site is not as declared.
    pub fn failed(&self) -> bool {
        !self.errors.is_empty()
    }
}

impl fmt::Display for SiteReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, updated, enabled, created, deleted, unchanged, foreign, notes, errors } = self;
        let counts = [
            (updated.len(), "updated"),
            (enabled.len(), "enabled"),
            (created.len(), "created"),
            (deleted.len(), "deleted"),
            (unchanged.len(), "unchanged"),
            (foreign.len(), "foreign"),
            (errors.len(), if errors.len() == 1 { "error" } else { "errors" }),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let counts: Vec<_> = counts.collect();
        writeln!(
            formatter,
            "{site}: {}",
            if counts.is_empty() { "no webhooks".to_owned() } else { counts.join(", ") }
        )?;
        updated.iter().try_for_each(|name| writeln!(formatter, "  ~ {name} now has the declared address and event"))?;
        for Enabled { name, reason } in enabled {
            let reason = reason.as_deref().unwrap_or("no reason given");
            writeln!(formatter, "  ! {name} is enabled again; Tableau had disabled it: {reason}")?;
        }
        created.iter().try_for_each(|name| writeln!(formatter, "  + {name}"))?;
        deleted.iter().try_for_each(|name| writeln!(formatter, "  - {name}"))?;
        notes.iter().try_for_each(|note| writeln!(formatter, "  {note}"))?;
        errors.iter().try_for_each(|error| writeln!(formatter, "  error: {error}"))
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
