//! Alerts about ends of failures: resources that refresh again, and resources that are not refreshed any more.

use std::collections::BTreeSet;

use crate::{
    alerts::{
        data::{AlertKind, Severity},
        message::{AlertContent, AlertMessage, Page, thread},
        notification::{heading, site_names},
        phrasing::{DisplayName, format_duration, format_time, join_first, pluralize},
        refresh_alert::{MAX_IN_EMAIL, MAX_ON_CARD, MIN_SHARED, keywords, ownership, paragraphs, related, shared_id},
        text::{Text, text},
    },
    events::id::EventId,
    refreshes::{
        job::event_id,
        resolution::{EndKind, FailureEnd, RESOLVED},
    },
    registration::site_name::SiteName,
    timestamp::Timestamp,
};

/// Type of the alert about a resource that is not refreshed any more. There is no such event.
const STOPPED: &str = "RefreshStopped";

const NO_ACTION: &str = "No action is needed.";

const RESUME: &str =
    "To have it refreshed again, correct the reason of its failures and resume its refresh in Tableau.";

const CORRECT: &str = "To have one refreshed again, correct the reason of its failures, and resume, reschedule or publish it in \
                       Tableau.";

const RESCHEDULE: &str = "If it is still needed, give it a refresh schedule in Tableau.";

const RESTORE: &str = "If it is still needed, publish it again.";

/// Returns the alerts about ends of failures: one for each, in the thread of the alerts about the failures. If resources that
/// refresh again are many, they share one alert, and so do those that are not refreshed any more.
pub fn end_alerts(ends: &[(&SiteName, &FailureEnd)]) -> Vec<AlertMessage> {
    let (resolved, stopped): (Vec<_>, Vec<_>) =
        ends.iter().map(|(site, end)| End { site, end }).partition(|end| end.is_resolved());
    let alerts = [resolved, stopped].into_iter().flat_map(|ends| match ends.len() {
        ..MIN_SHARED => ends.iter().map(End::alert).collect(),
        _ => vec![shared_alert(&ends)],
    });
    alerts.collect()
}

/// The end of a resource's failures at a site.
struct End<'a> {
    site: &'a SiteName,
    end: &'a FailureEnd,
}

impl End<'_> {
    fn is_resolved(&self) -> bool {
        self.end.kind == EndKind::Resolved
    }

    fn event_type(&self) -> &'static str {
        if self.is_resolved() { RESOLVED } else { STOPPED }
    }

    fn id(&self) -> EventId {
        event_id(self.site, self.event_type(), &self.end.failing.job)
    }

    fn resource_kind(&self) -> &'static str {
        self.end.failing.kind.as_str()
    }

    fn name(&self) -> DisplayName {
        DisplayName::of(self.resource_kind(), self.end.resource_name(), Some(&self.end.luid))
    }

    /// Returns kind and name of the resource.
    fn resource(&self) -> Text {
        text![self.resource_kind(), " ", self.name().in_sentence()]
    }

    /// Returns how often it failed.
    fn count(&self) -> String {
        pluralize(self.end.failing.failures.try_into().unwrap_or(usize::MAX), "failure", "failures")
    }

    /// Returns how often and how long it failed.
    fn failures(&self) -> String {
        let duration = self.end.duration_seconds().map(|seconds| format!(", {}", format_duration(seconds)));
        self.count() + &duration.unwrap_or_default()
    }

    /// Returns how it is now, in a few words.
    fn state(&self) -> &'static str {
        match self.end.kind {
            EndKind::Resolved => "works again",
            EndKind::Suspended => "Tableau has suspended its refresh",
            EndKind::Deleted => "it was deleted",
            EndKind::Unused => "it has no refresh task, and was not refreshed for 7 days",
        }
    }

    /// Returns the effect, and the next step.
    fn effect(&self) -> (Text, &'static str) {
        let kind = self.resource_kind();
        let keeps = text!["The ", kind, " keeps the data of its last successful refresh"];
        match self.end.kind {
            EndKind::Resolved => (text!["The ", kind, " has the data of this refresh."], NO_ACTION),
            EndKind::Suspended => (keeps.and(" until somebody resumes the refresh."), RESUME),
            EndKind::Deleted => (text!["Its refreshes have ended with it."], RESTORE),
            EndKind::Unused => (keeps.and("."), RESCHEDULE),
        }
    }

    /// Returns the alert about this end alone.
    fn alert(&self) -> AlertMessage {
        let (site, id, resource) = (self.site.to_string(), self.id().to_string(), self.resource());
        let (kind, event_type) = (self.resource_kind(), self.event_type());
        let since = |at: Timestamp| format_time(at.0).map(|at| format!(" since {at} UTC")).unwrap_or_default();
        let (title, summary, short) = if self.is_resolved() {
            // Tasks do not show when it refreshed.
            let since = self.end.job_id.as_ref().map(|_| since(self.end.at)).unwrap_or_default();
            let title = text![kind, " refresh works again: ", self.name().bare()];
            let what =
                text!["The extract refresh of the ", resource, " works again on the Tableau site ", site.clone()];
            (title, text![what, since, ", after ", self.failures(), "."], text![" after ", self.failures()])
        } else {
            let title = text![kind, " is not refreshed any more: ", self.name().bare()];
            let what = text!["The ", resource, " is not refreshed any more on the Tableau site ", site.clone()];
            let failures = text![" It had ", self.count(), since(self.end.failing.since), "."];
            (title, text![what, ": ", self.state(), ".", failures], text![": ", self.state()])
        };
        let (effect, next) = self.effect();
        let page = self.end.context.resource.webpage_url.as_ref();
        let page = page.filter(|_| self.end.kind != EndKind::Deleted);
        let page = page.and_then(|url| Page::new(format!("Open the {kind}"), url));
        let steps = [Text::from(next)].into_iter().chain(page.iter().map(Page::line));
        let description = text![summary.clone(), " ", effect];
        let ownership = ownership(&self.end.context);
        let noun = if self.is_resolved() { "event " } else { "alert " };
        let details = text!["Details: ", noun, event_type, ", id ", id.clone(), "."];
        let (alert_kind, severity) = kind_of(self.is_resolved());
        AlertContent {
            kind: alert_kind,
            severity,
            resolved: self.is_resolved(),
            sites: vec![site.clone()],
            subject: text!["Tableau ", site.clone(), ": ", title.clone()],
            email: paragraphs([description.clone(), ownership.clone(), Text::joined(steps, "\n"), details], "\n\n"),
            sms: text!["Tableau ", site.clone(), ": ", title.clone(), short],
            id,
            title,
            description: paragraphs([description, ownership], "\n"),
            next: vec![next.into()],
            pages: page.into_iter().collect(),
            keywords: vec![site, event_type.to_owned()],
            thread: thread(self.site, &self.end.luid),
            summary,
            event_type: event_type.to_owned(),
            related: Some(related(kind, &self.end.luid, self.end.resource_name(), &self.end.context)),
        }
        .into()
    }
}

fn kind_of(is_resolved: bool) -> (AlertKind, Severity) {
    if is_resolved {
        (AlertKind::RefreshResolved, Severity::Info)
    } else {
        (AlertKind::RefreshStopped, Severity::Warning)
    }
}

/// Returns one alert about many ends, which are all resolutions or none is.
fn shared_alert(ends: &[End<'_>]) -> AlertMessage {
    let sites: BTreeSet<_> = ends.iter().map(|end| end.site.as_str()).collect();
    let is_resolved = ends.first().is_some_and(End::is_resolved);
    let (event_type, happened) = if is_resolved { (RESOLVED, "work again") } else { (STOPPED, "do not run any more") };
    let lines: BTreeSet<_> = ends
        .iter()
        .map(|end| {
            let site = if sites.len() > 1 { format!("{}: ", end.site) } else { String::new() };
            let how = if is_resolved { text![" after ", end.failures()] } else { text![": ", end.state()] };
            text![site, end.resource(), how]
        })
        .collect();
    let list = |max| join_first(lines.iter().map(|line| text!["- ", line.clone()]), max, "\n");
    let count = pluralize(ends.len(), "extract refresh", "extract refreshes");
    let headline = format!("{}: {count} {happened}", heading(&sites));
    let (what, next) = if is_resolved {
        ("These datasources and workbooks refreshed successfully after their failures:", NO_ACTION)
    } else {
        ("These datasources and workbooks are not refreshed any more after their failures:", CORRECT)
    };
    let id = shared_id(event_type, ends.iter().map(End::id));
    let (kind, severity) = kind_of(is_resolved);
    AlertContent {
        kind,
        severity,
        resolved: is_resolved,
        sites: site_names(&sites),
        subject: text!["Tableau ", headline.clone()],
        email: text![what, "\n\n", list(MAX_IN_EMAIL), "\n\n", next],
        sms: text!["Tableau ", headline.clone(), ". ", join_first(lines.iter().cloned(), 1, ", ")],
        title: headline.clone().into(),
        description: text![what, "\n", list(MAX_ON_CARD)],
        next: vec![next.into()],
        pages: Vec::new(),
        keywords: keywords(event_type, &sites),
        thread: id.clone(),
        id,
        summary: text![headline, "."],
        event_type: event_type.to_owned(),
        related: None,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::Value;

    use super::*;
    use crate::{alerts::hostile, refreshes::resolution::tests::end};

    fn site(name: &str) -> SiteName {
        name.parse().expect("a site")
    }

    /// Returns all forms of an alert, one below the other.
    fn shown(alert: &AlertMessage) -> String {
        let texts: Value = serde_json::from_str(&alert.body).expect("JSON");
        let text = |protocol: &str| texts[protocol].as_str().expect("a text");
        let card: Value = serde_json::from_str(text("https")).expect("JSON");
        format!("{}\n---\n{}\n---\n{}\n---\n{card:#}", alert.subject, text("email"), text("sms"))
    }

    #[test]
    fn a_resource_that_works_again_has_one_alert_in_its_thread() {
        let (site, end) = (site("marketing"), end(EndKind::Resolved));
        let alerts = end_alerts(&[(&site, &end)]);
        assert_eq!(alerts.len(), 1);
        insta::assert_snapshot!(shown(&alerts[0]));
    }

    #[test]
    fn an_alert_says_why_a_resource_is_not_refreshed_any_more() {
        let site = site("marketing");
        let shown = [EndKind::Suspended, EndKind::Deleted, EndKind::Unused].map(|kind| {
            let alerts = end_alerts(&[(&site, &end(kind))]);
            let texts: Value = serde_json::from_str(&alerts[0].body).expect("JSON");
            format!("{}\n{}\n{}", alerts[0].subject, texts["email"].as_str().expect("a text"), texts["sms"])
        });
        insta::assert_snapshot!(shown.join("\n---\n"));
    }

    #[test]
    fn many_ends_share_an_alert_by_their_kind() {
        let sites = ["finance", "marketing"].map(site);
        let ends: Vec<_> = (0..12)
            .map(|number: usize| {
                let kind = [EndKind::Resolved, EndKind::Suspended, EndKind::Deleted][number % 3];
                FailureEnd { name: Some(format!("Sales {number}")), ..end(kind) }
            })
            .collect();
        let ends: Vec<_> = sites.iter().cycle().zip(&ends).collect();
        let alerts = end_alerts(&ends);
        insta::assert_snapshot!(alerts.iter().map(shown).collect::<Vec<_>>().join("\n\n"));
        let few: Vec<_> =
            ends.into_iter().filter(|(_, end)| end.kind == EndKind::Resolved).take(MIN_SHARED - 1).collect();
        assert_eq!(end_alerts(&few).len(), MIN_SHARED - 1);
        assert_eq!(end_alerts(&[]), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_name_makes_an_alert_unsafe_or_too_large(
            resources in vec((hostile::any_text(), hostile::any_text(), 0..4_usize), 1..8),
        ) {
            let site = site("marketing");
            let ends: Vec<_> = resources.into_iter().map(|(name, luid, kind)| {
                let kind = [EndKind::Resolved, EndKind::Suspended, EndKind::Deleted, EndKind::Unused][kind];
                FailureEnd { name: Some(name), luid, ..end(kind) }
            }).collect();
            for AlertMessage { subject, body } in end_alerts(&ends.iter().map(|end| (&site, end)).collect::<Vec<_>>()) {
                hostile::assert_safe(&subject, &body);
            }
        }
    }
}
