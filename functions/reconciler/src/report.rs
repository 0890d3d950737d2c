//! What a run did, or would do, for machines and for people.

use std::fmt::{self, Write};

use serde::Serialize;

use crate::request::Action;

/// What a run did. Sites are in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was asked for.
    pub action: Action,
    /// What was done at each site.
    pub sites: Vec<SiteReport>,
    /// The same for people.
    pub text: String,
}

/// What was done at one site, or with [`Action::Plan`] would be. All lists hold webhook names.
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
    /// Webhooks that were deleted, since they are no longer wanted.
    pub deleted: Vec<String>,
    /// Surplus copies of our webhooks that were deleted.
    pub surplus: Vec<String>,
    /// Our webhooks that were as they should be.
    pub unchanged: Vec<String>,
    /// Webhooks that are not ours and that were left alone.
    pub foreign: Vec<String>,
    /// Webhooks that Tableau was asked to test.
    pub tests: Vec<Tested>,
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
    /// When it was last changed, which for a disabled webhook is when it was disabled, in Tableau's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// A webhook that Tableau tested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tested {
    /// Its name.
    pub name: String,
    /// The HTTP status that Tableau got from the destination, `None` if it got no answer.
    pub status: Option<u16>,
}

impl Tested {
    /// Whether the destination took the test.
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

impl Report {
    /// A report on sites, with its text. `sites_path` says where entries belong, should there be none.
    pub fn new(action: Action, mut sites: Vec<SiteReport>, sites_path: &str) -> Self {
        // Sites finish in any order.
        sites.sort_by(|a, b| a.site.cmp(&b.site));
        let mut text = String::new();
        // Writing to a text cannot fail.
        let _ = sites.iter().try_for_each(|site| site.write(&mut text, action));
        let failed = sites.iter().filter(|site| site.failed()).count();
        let all = |one, many| counted(sites.len(), one, many);
        let _ = match (sites.len(), failed, action) {
            (0, _, _) => write!(text, "Nothing to do: there is no site entry under {sites_path}."),
            (_, 0, Action::Plan) => {
                let changes = sites.iter().map(SiteReport::changes).sum();
                let changing = sites.iter().filter(|site| site.changes() > 0).count();
                let changes = counted(changes, "change", "changes");
                write!(text, "{changes} at {changing} of {}. Nothing was done.", all("site", "sites"))
            }
            (_, 0, Action::Apply) => write!(text, "{} as declared.", all("site is", "sites are")),
            (_, 0, Action::Rotate) => {
                write!(text, "{} as declared, with a new signing key.", all("site is", "sites are"))
            }
            (_, 0, Action::Test) => {
                let tests = sites.iter().map(|site| site.tests.len()).sum();
                write!(text, "{} taken by the receiver.", counted(tests, "test was", "tests were"))
            }
            (_, 0, Action::Destroy) => write!(text, "{} without any webhook of ours.", all("site is", "sites are")),
            (_, failed, _) => write!(text, "{failed} of {} failed.", all("site", "sites")),
        };
        Self { action, sites, text }
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

    /// How many webhooks were changed, or would be.
    pub fn changes(&self) -> usize {
        let Self { updated, enabled, created, deleted, surplus, .. } = self;
        // A webhook that was moved and enabled is one webhook.
        let only_enabled = enabled.iter().filter(|enabled| !updated.contains(&enabled.name)).count();
        updated.len() + only_enabled + created.len() + deleted.len() + surplus.len()
    }

    fn write(&self, text: &mut String, action: Action) -> fmt::Result {
        let Self { site, updated, enabled, created, deleted, surplus, unchanged, foreign, tests, notes, errors } = self;
        let done = |done, to_do| if action == Action::Plan { to_do } else { done };
        let counts = [
            (updated.len(), done("moved", "to move")),
            (enabled.len(), done("enabled", "to enable")),
            (created.len(), done("created", "to create")),
            (deleted.len() + surplus.len(), done("deleted", "to delete")),
            (unchanged.len(), "unchanged"),
            (foreign.len(), "foreign"),
            (tests.len(), "tested"),
            (errors.len(), if errors.len() == 1 { "error" } else { "errors" }),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let counts: Vec<_> = counts.collect();
        writeln!(text, "{site}: {}", if counts.is_empty() { "no webhooks".to_owned() } else { counts.join(", ") })?;
        for name in updated {
            writeln!(text, "  ~ {name}: to the declared address and event")?;
        }
        for Enabled { name, reason, since } in enabled {
            let since = since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
            let reason = reason.as_deref().unwrap_or("no reason given");
            writeln!(text, "  ! {name}: disabled by Tableau{since}: {reason}")?;
        }
        created.iter().try_for_each(|name| writeln!(text, "  + {name}"))?;
        deleted.iter().try_for_each(|name| writeln!(text, "  - {name}"))?;
        surplus.iter().try_for_each(|name| writeln!(text, "  - {name}: a surplus copy"))?;
        foreign.iter().try_for_each(|name| writeln!(text, "  . {name}: not ours, left alone"))?;
        for Tested { name, status } in tests {
            let answer = status.map_or_else(|| "got no answer".to_owned(), |status| format!("was answered {status}"));
            writeln!(text, "  ? {name}: Tableau's test {answer}")?;
        }
        notes.iter().try_for_each(|note| writeln!(text, "  {note}"))?;
        errors.iter().try_for_each(|error| writeln!(text, "  error: {error}"))
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
