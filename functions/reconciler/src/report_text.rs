//! Text of a report.

use std::fmt::{self, Write};

use shared::{
    alerts::{phrasing::pluralize, text::plain},
    events::catalogue::Event,
    timestamp::Timestamp,
};
use time::OffsetDateTime;

use crate::{
    report::{Enabled, Explained, NotRecovered, Outcome, Recovered, Report, Resolved, SiteReport, Tested},
    request::Action,
};

impl Report {
    /// Creates a report on sites. Without any, the text names the `sites_path`, where entries belong.
    pub fn new(action: Action, mut sites: Vec<SiteReport>, sites_path: &str) -> Self {
        // Sites finish in any order.
        sites.sort_by(|a, b| a.site.cmp(&b.site));
        let text = report_text(action, &sites, sites_path);
        Self { action, sites, keys_error: None, alerts_error: None, refreshes_error: None, state_error: None, text }
    }
}

/// Returns the text of a report on sites. Without any, it names the `sites_path`, where entries belong.
fn report_text(action: Action, sites: &[SiteReport], sites_path: &str) -> String {
    let (mut text, now) = (String::new(), OffsetDateTime::now_utc());
    // Writing to a text cannot fail.
    let _ = sites.iter().try_for_each(|site| write_site(site, &mut text, action, now));
    let failed = sites.iter().filter(|site| site.failed()).count();
    let all = |one, many| pluralize(sites.len(), one, many);
    let _ = match (sites.len(), failed, action) {
        (0, _, Action::Explain) => write!(text, "Nothing to explain: no site has a failed refresh in the queue."),
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
            write!(text, "{} accepted by the receiver.", pluralize(tests, "test was", "tests were"))
        }
        (_, 0, Action::Explain) => {
            let explained = sites.iter().map(|site| site.explained.len()).sum();
            let refreshes = pluralize(explained, "failed refresh was", "failed refreshes were");
            write!(text, "{refreshes} explained at {}.", all("site", "sites"))
        }
        (_, 0, Action::Destroy) => write!(text, "{} without any webhook of ours.", all("site is", "sites are")),
        (_, failed, _) => write!(text, "{failed} of {} failed.", all("site", "sites")),
    };
    text
}

/// Writes the lines of one site.
fn write_site(report: &SiteReport, text: &mut String, action: Action, now: OffsetDateTime) -> fmt::Result {
    // The other lines show the warnings.
    let SiteReport {
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
        resolved,
        not_recovered,
        refreshes_left,
        token_ends,
        notes,
        warnings: _,
        errors,
    } = report;
    let done = |done, to_do| if action == Action::Plan { to_do } else { done };
    // Names and reasons come from Tableau, and terminals show a report: none may begin a line of its own.
    let mut lines = Vec::new();
    let mut line = |mark: &str, what: &dyn fmt::Display| lines.push(format!("  {mark}{}", plain(&what.to_string())));
    let counts = [
        (updated.len(), done("updated", "to update")),
        (enabled.len(), done("enabled", "to enable")),
        (created.len(), done("created", "to create")),
        (deleted.len() + surplus.len(), done("deleted", "to delete")),
        (unchanged.len(), "unchanged"),
        (foreign.len(), "foreign"),
        (tests.len(), "tested"),
        (recovered.len(), "recovered"),
        (explained.len(), "explained"),
        (resolved.len(), "resolved"),
        (not_recovered.len(), "not recovered"),
        (errors.len(), if errors.len() == 1 { "error" } else { "errors" }),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let counts: Vec<_> = counts.collect();
    let counts = if counts.is_empty() { "no webhooks".to_owned() } else { counts.join(", ") };
    updated.iter().for_each(|name| line("~ ", &format_args!("{name}: to the declared URL and event")));
    enabled.iter().for_each(|enabled| line("! ", enabled));
    created.iter().for_each(|name| line("+ ", name));
    deleted.iter().for_each(|name| line("- ", name));
    surplus.iter().for_each(|name| line("- ", &format_args!("{name}: a surplus copy")));
    foreign.iter().for_each(|name| line(". ", &format_args!("{name}: not ours, not changed")));
    tests.iter().for_each(|test| line("? ", test));
    recovered.iter().for_each(|event| line("< ", event));
    explained.iter().for_each(|refresh| line("< ", refresh));
    resolved.iter().for_each(|resource| line("< ", resource));
    not_recovered.iter().for_each(|refreshes| line("", refreshes));
    if *refreshes_left > 0 {
        let left = pluralize(*refreshes_left, "refresh is", "refreshes are");
        line("", &format_args!("{left} left to the next run"));
    }
    if let Some(end) = token_ends {
        line("", &format_args!("token ends on {}", end.in_days(now)));
    }
    notes.iter().for_each(|note| line("", note));
    errors.iter().for_each(|error| line("error: ", error));
    writeln!(text, "{}: {counts}", plain(site))?;
    lines.iter().try_for_each(|line| writeln!(text, "{line}"))
}

impl fmt::Display for Enabled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, reason, since } = self;
        write!(formatter, "{name}: disabled by Tableau")?;
        since.as_ref().map_or(Ok(()), |since| write!(formatter, " since {since}"))?;
        write!(formatter, ": {}", reason.as_deref().unwrap_or("no reason given"))
    }
}

impl fmt::Display for Recovered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, job, resource, at } = self;
        write!(formatter, "{event} of the {resource} at {}: recovered from job {job}", Timestamp(*at))
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, resource, at } = self;
        write!(formatter, "refresh of the {resource} failed at {}: explained from job {job}", Timestamp(*at))
    }
}

impl fmt::Display for Resolved {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, resource, failures, since } = self;
        let failures = pluralize((*failures).try_into().unwrap_or(usize::MAX), "failure", "failures");
        write!(formatter, "refresh of the {resource} works again after {failures} since {}", Timestamp(*since))?;
        job.as_ref().map_or(Ok(()), |job| write!(formatter, ": resolved by job {job}"))
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
        from.map_or(Ok(()), |from| write!(formatter, " from {}", Timestamp(from)))?;
        until.map_or(Ok(()), |until| write!(formatter, " until {}", Timestamp(until)))?;
        write!(formatter, ": {reason}")
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

#[cfg(test)]
mod tests {
    use shared::sites::token_end::TokenEnd;

    use super::*;

    #[test]
    fn a_report_counts_and_lists_the_changes_of_each_site() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let site = SiteReport {
            updated: names(&["fan-ViewDeleted"]),
            enabled: vec![Enabled { name: "fan-UserDeleted".to_owned(), reason: None, since: None }],
            created: names(&["fan-WorkbookCreated"]),
            surplus: names(&["fan-WorkbookCreated"]),
            foreign: names(&["Theirs\n  + fan-Forged"]),
            notes: names(&["A remark."]),
            token_ends: TokenEnd::parse("2026-05-21"),
            ..SiteReport::new("marketing")
        };
        let report = Report::new(Action::Plan, vec![site.clone(), SiteReport::new("finance")], "/fan/sites");
        insta::assert_snapshot!(report.text, @"
        finance: no webhooks
        marketing: 1 to update, 1 to enable, 1 to create, 1 to delete, 1 foreign
          ~ fan-ViewDeleted: to the declared URL and event
          ! fan-UserDeleted: disabled by Tableau: no reason given
          + fan-WorkbookCreated
          - fan-WorkbookCreated: a surplus copy
          . Theirs + fan-Forged: not ours, not changed
          token ends on 2026-05-21 (reached)
          A remark.
        4 changes at 1 of 2 sites. Nothing was done.
        ");
        let report = Report::new(Action::Apply, vec![site], "/fan/sites");
        assert_eq!(
            report.text.lines().next(),
            Some("marketing: 1 updated, 1 enabled, 1 created, 1 deleted, 1 foreign")
        );
        assert_eq!(report.text.lines().last(), Some("1 site is as declared."));
        let empty = Report::new(Action::Apply, Vec::new(), "/fan/sites");
        assert_eq!(empty.text, "Nothing to do: there is no site entry under /fan/sites.");
    }
}
