//! What a run did, or would do, for machines and for people.

use std::{
    collections::BTreeSet,
    fmt::{self, Write},
};

use serde::Serialize;
use shared::{
    alerts::text::plain,
    events::catalogue::Event,
    problems::Problem,
    refreshes::job::{Refresh, RefreshedResource},
};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, serde::rfc3339};

use crate::request::Action;

/// How many of a site's foreign webhooks a report names: it is kept in memory until the run ends, and sent as a whole.
const MOST_FOREIGN: usize = 100;

/// What a run did. Sites are in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was asked for.
    pub action: Action,
    /// What was done at each site.
    pub sites: Vec<SiteReport>,
    /// Why older signing keys could not be retired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_error: Option<String>,
    /// Why people could not be told what they should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerts_error: Option<String>,
    /// Why missed events or explanations could not be published, or not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refreshes_error: Option<String>,
    /// Why the state could not be read or stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_error: Option<String>,
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
    /// Events of refreshes that Tableau did not deliver and that were published.
    pub recovered: Vec<Recovered>,
    /// Failed refreshes whose reason was published.
    pub explained: Vec<Explained>,
    /// What may be missing on the events topic, and will be.
    pub not_recovered: Vec<NotRecovered>,
    /// How many refreshes are left to the next run.
    #[serde(skip_serializing_if = "is_zero")]
    pub refreshes_left: usize,
    /// What is worth knowing and no error.
    pub notes: Vec<String>,
    /// What was wrong, or is, at a site that is as declared all the same.
    pub warnings: Vec<Problem>,
    /// What went wrong. A site with errors is not as declared.
    pub errors: Vec<Problem>,
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

impl fmt::Display for Enabled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, reason, since } = self;
        write!(formatter, "{name}: disabled by Tableau")?;
        since.as_ref().map_or(Ok(()), |since| write!(formatter, " since {since}"))?;
        write!(formatter, ": {}", reason.as_deref().unwrap_or("no reason given"))
    }
}

/// An event that Tableau did not deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recovered {
    /// The event.
    pub event: Event,
    /// Tableau's identifier of the job that told of it.
    pub job: String,
    /// What it happened to.
    pub resource: String,
    /// When.
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
}

/// A failed refresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Tableau's identifier of the job.
    pub job: String,
    /// What was to be refreshed.
    pub resource: String,
    /// When it failed.
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
}

/// Refreshes that may be missing on the events topic: one, by its job, or all of some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotRecovered {
    /// Tableau's identifier of the job, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The events, if it is known which.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub events: BTreeSet<Event>,
    /// Since when, if that is known.
    #[serde(with = "rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub from: Option<OffsetDateTime>,
    /// Until when.
    #[serde(with = "rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub until: Option<OffsetDateTime>,
    /// Why.
    pub reason: String,
}

impl Recovered {
    /// The event of a refresh.
    pub(crate) fn of(refresh: &Refresh, event: &Event, at: OffsetDateTime) -> Self {
        Self { event: event.clone(), job: refresh.job_id.clone(), resource: named(&refresh.resource), at }
    }
}

impl Explained {
    /// A refresh that failed.
    pub(crate) fn of(refresh: &Refresh) -> Self {
        Self { job: refresh.job_id.clone(), resource: named(&refresh.resource), at: refresh.ended_at }
    }
}

impl NotRecovered {
    /// Whether it was found after the repair.
    pub(crate) fn is_new(&self) -> bool {
        self.job.is_some() || self.events.is_empty()
    }

    /// One job.
    pub(crate) fn job(id: &str, reason: impl Into<String>) -> Self {
        Self { job: Some(id.to_owned()), events: BTreeSet::new(), from: None, until: None, reason: reason.into() }
    }
}

fn named(RefreshedResource { kind, luid, name }: &RefreshedResource) -> String {
    format!("{} {:?}", kind.as_str(), name.as_ref().unwrap_or(luid))
}

pub(crate) fn format_time(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC).truncate_to_second().format(&Rfc3339).unwrap_or_default()
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl fmt::Display for Recovered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, job, resource, at } = self;
        write!(formatter, "{event} of the {resource} at {}: recovered from job {job}", format_time(*at))
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, resource, at } = self;
        write!(formatter, "why the refresh of the {resource} failed at {}: told from job {job}", format_time(*at))
    }
}

impl fmt::Display for NotRecovered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, events, from, until, reason } = self;
        formatter.write_str("not recovered: ")?;
        match job {
            Some(job) => write!(formatter, "job {job}")?,
            None if events.is_empty() => formatter.write_str("refreshes")?,
            None => formatter.write_str(&events.iter().map(Event::as_str).collect::<Vec<_>>().join(", "))?,
        }
        from.map_or(Ok(()), |from| write!(formatter, " from {}", format_time(from)))?;
        until.map_or(Ok(()), |until| write!(formatter, " until {}", format_time(until)))?;
        write!(formatter, ": {reason}")
    }
}

/// A webhook that Tableau was asked to test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tested {
    /// Its name.
    pub name: String,
    /// What Tableau said.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The HTTP status that Tableau got from the destination, `None` if it got no answer.
    Status(Option<u16>),
    /// Why Tableau did not test it.
    Error(String),
}

impl Tested {
    /// Whether the destination took the test.
    pub fn succeeded(&self) -> bool {
        matches!(self.outcome, Outcome::Status(Some(200..300)))
    }
}

impl fmt::Display for Tested {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, outcome } = self;
        match outcome {
            Outcome::Status(Some(status)) => write!(formatter, "{name}: Tableau's test was answered {status}"),
            Outcome::Status(None) => write!(formatter, "{name}: Tableau's test got no answer"),
            Outcome::Error(error) => write!(formatter, "{name}: Tableau did not test it: {error}"),
        }
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
        let all = |one, many| pluralize(sites.len(), one, many);
        let _ = match (sites.len(), failed, action) {
            (0, _, _) => write!(text, "Nothing to do: there is no site entry under {sites_path}."),
            (_, 0, Action::Plan) => {
                let changes = sites.iter().map(SiteReport::changes).sum();
                let changing = sites.iter().filter(|site| site.changes() > 0).count();
                let changes = pluralize(changes, "change", "changes");
                write!(text, "{changes} at {changing} of {}. Nothing was done.", all("site", "sites"))
            }
            (_, 0, Action::Apply) => write!(text, "{} as declared.", all("site is", "sites are")),
            (_, 0, Action::Rotate) => {
                write!(text, "{} as declared, with a new signing key.", all("site is", "sites are"))
            }
            (_, 0, Action::Test) => {
                let tests = sites.iter().map(|site| site.tests.len()).sum();
                write!(text, "{} taken by the receiver.", pluralize(tests, "test was", "tests were"))
            }
            (_, 0, Action::Destroy) => write!(text, "{} without any webhook of ours.", all("site is", "sites are")),
            (_, failed, _) => write!(text, "{failed} of {} failed.", all("site", "sites")),
        };
        Self { action, sites, keys_error: None, alerts_error: None, refreshes_error: None, state_error: None, text }
    }

    /// Adds what concerns the run as a whole.
    pub fn note(&mut self, note: &str) {
        self.text.push('\n');
        self.text.push_str(note);
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
    pub fn of_failure(site: impl Into<String>, error: Problem) -> Self {
        Self { errors: vec![error], ..Self::new(site) }
    }

    /// Adds webhooks that are not ours, some of which cannot be read.
    pub(crate) fn add_foreign(&mut self, foreign: Vec<String>, odd: Vec<String>) {
        self.foreign = foreign;
        self.foreign.extend(odd);
        self.foreign.sort();
        let more = self.foreign.len().saturating_sub(MOST_FOREIGN);
        if more > 0 {
            self.foreign.truncate(MOST_FOREIGN);
            self.notes.push(format!("{more} more of its webhooks are not ours, and were left alone."));
        }
    }

    /// Whether the site is not as declared.
    pub fn failed(&self) -> bool {
        !self.errors.is_empty()
    }

    /// All that is or was wrong, with the site's name.
    pub fn problems(&self) -> impl Iterator<Item = (&str, &Problem)> {
        self.errors.iter().chain(&self.warnings).map(|problem| (self.site.as_str(), problem))
    }

    /// How many webhooks were changed, or would be.
    pub fn changes(&self) -> usize {
        let Self { updated, enabled, created, deleted, surplus, .. } = self;
        // A webhook that was moved and enabled is one webhook.
        let only_enabled = enabled.iter().filter(|enabled| !updated.contains(&enabled.name)).count();
        updated.len() + only_enabled + created.len() + deleted.len() + surplus.len()
    }

    fn write(&self, text: &mut String, action: Action) -> fmt::Result {
        // The warnings are told where they arose: with what was enabled and what was tested.
        let Self {
            site,
            updated,
            enabled,
            created,
            deleted,
            surplus,
            unchanged,
            foreign,
            tests,
            recovered,
            explained,
            not_recovered,
            refreshes_left,
            notes,
            warnings: _,
            errors,
        } = self;
        let done = |done, to_do| if action == Action::Plan { to_do } else { done };
        // Names and reasons come from Tableau, and a report is printed on terminals: none begins a line of its own.
        let mut lines = Vec::new();
        let mut line =
            |mark: &str, what: &dyn fmt::Display| lines.push(format!("  {mark}{}", plain(&what.to_string())));
        let counts = [
            (updated.len(), done("moved", "to move")),
            (enabled.len(), done("enabled", "to enable")),
            (created.len(), done("created", "to create")),
            (deleted.len() + surplus.len(), done("deleted", "to delete")),
            (unchanged.len(), "unchanged"),
            (foreign.len(), "foreign"),
            (tests.len(), "tested"),
            (recovered.len(), "recovered"),
            (explained.len(), "explained"),
            (not_recovered.len(), "not recovered"),
            (errors.len(), if errors.len() == 1 { "error" } else { "errors" }),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let counts: Vec<_> = counts.collect();
        let counts = if counts.is_empty() { "no webhooks".to_owned() } else { counts.join(", ") };
        updated.iter().for_each(|name| line("~ ", &format_args!("{name}: to the declared address and event")));
        enabled.iter().for_each(|enabled| line("! ", enabled));
        created.iter().for_each(|name| line("+ ", name));
        deleted.iter().for_each(|name| line("- ", name));
        surplus.iter().for_each(|name| line("- ", &format_args!("{name}: a surplus copy")));
        foreign.iter().for_each(|name| line(". ", &format_args!("{name}: not ours, left alone")));
        tests.iter().for_each(|test| line("? ", test));
        recovered.iter().for_each(|event| line("< ", event));
        explained.iter().for_each(|refresh| line("< ", refresh));
        not_recovered.iter().for_each(|refreshes| line("", refreshes));
        if *refreshes_left > 0 {
            let left = pluralize(*refreshes_left, "refresh is", "refreshes are");
            line("", &format_args!("{left} left to the next run"));
        }
        notes.iter().for_each(|note| line("", note));
        errors.iter().for_each(|error| line("error: ", error));
        writeln!(text, "{}: {counts}", plain(site))?;
        lines.iter().try_for_each(|line| writeln!(text, "{line}"))
    }
}

fn pluralize(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
