//! Alerts about recovered events, and about the reasons of failed refreshes.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    alerts::{
        data::{AlertKind, Severity},
        message::{AlertContent, AlertMessage, Page, Related, thread},
        notification::{heading, site_names},
        phrasing::{DisplayName, format_duration, format_time, join_first, on_date, pluralize},
        text::{MAX_NAME_CHARACTERS, Text, plain, text, truncate},
    },
    events::id::EventId,
    refreshes::{
        context::{FAILURES_UNTIL_SUSPENSION, FailureContext},
        explanation::{EXPLAINED, Explanation},
        job::Refresh,
        notes::Notes,
    },
    registration::{claim::Registration, site_name::SiteName},
};

/// The least number of failures that share one alert.
pub(crate) const MIN_SHARED: usize = 4;

/// The most events or reasons in an e-mail, and on a card.
pub(crate) const MAX_IN_EMAIL: usize = 100;

pub(crate) const MAX_ON_CARD: usize = 10;

/// The most resources named for one reason, and the most sites among the keywords.
const MAX_NAMED: usize = 5;

/// The most characters of the only reason, and of one of several.
const MAX_REASON_CHARACTERS: usize = 600;

const MAX_SHORT_REASON_CHARACTERS: usize = 200;

/// The reason of a job without notes.
const NO_REASON: &str = "no reason given";

const NEXT: &str = "To see a job in full, open its site in Tableau and choose Jobs.";

/// Returns the alerts with the reasons of failed refreshes: one for each, in the thread of the alert about the failure, or
/// one for all if they are many.
pub fn explained_alerts(failures: &[(&SiteName, &Explanation)]) -> Vec<AlertMessage> {
    let failures: Vec<_> = failures.iter().map(|(site, explanation)| Failure { site, explanation }).collect();
    match failures.len() {
        ..MIN_SHARED => failures.iter().map(Failure::alert).collect(),
        _ => vec![shared_alert(&failures)],
    }
}

/// Returns the alert about events that Tableau did not deliver, `None` if there are none.
pub fn recovered_alert(recovered: &[(Registration, &Refresh)]) -> Option<AlertMessage> {
    if recovered.is_empty() {
        return None;
    }
    let ids = recovered.iter().map(|(Registration { site, event }, refresh)| refresh.event_id(site, event.as_str()));
    let id = shared_id("recovered events", ids);
    let sites: BTreeSet<_> = recovered.iter().map(|(registration, _)| registration.site.as_str()).collect();
    let line = |(Registration { site, event }, refresh): &(Registration, &Refresh)| {
        let at = refresh.events().find_map(|(own, at)| (own == *event).then_some(at));
        let stage = event.action().unwrap_or_default().trim_start_matches("refresh-");
        let when = at.map(on_date).unwrap_or_default();
        let name = name_of(refresh, refresh.resource.name.as_deref()).in_sentence();
        let kind = refresh.resource.kind.as_str();
        text![site.to_string(), ": the extract refresh of the ", kind, " ", name, " ", stage, when]
    };
    let list = |max| join_first(recovered.iter().map(|event| text!["- ", line(event)]), max, "\n");
    let count = pluralize(recovered.len(), "missed event", "missed events");
    let headline = format!("{}: {count} recovered", heading(&sites));
    let what = "Tableau did not deliver these events while a webhook was down. They were recovered from Tableau's jobs and \
                are on the events topic now:";
    let content = AlertContent {
        kind: AlertKind::RefreshRecovered,
        severity: Severity::Warning,
        resolved: false,
        sites: site_names(&sites),
        subject: text!["Tableau ", headline.clone()],
        email: text![what, "\n\n", list(MAX_IN_EMAIL), "\n\n", NEXT],
        sms: text!["Tableau ", headline.clone(), ". ", recovered.first().map(line).unwrap_or_default()],
        id: id.clone(),
        title: headline.clone().into(),
        description: text![what, "\n", list(MAX_ON_CARD)],
        next: vec![NEXT.into()],
        pages: Vec::new(),
        keywords: keywords("recovered", &sites),
        thread: id,
        summary: headline.into(),
        event_type: "RefreshEventsRecovered".to_owned(),
        related: None,
    };
    Some(content.into())
}

/// A failed refresh with its reason.
struct Failure<'a> {
    site: &'a SiteName,
    explanation: &'a Explanation,
}

impl Failure<'_> {
    fn id(&self) -> EventId {
        self.explanation.id(self.site)
    }

    fn notes(&self) -> Option<&Notes> {
        self.explanation.refresh.notes.as_ref()
    }

    /// Returns how often the resource failed, and when it runs next.
    fn repetition(&self) -> Text {
        let (task, failures) = (&self.explanation.context.task, self.explanation.failures_in_a_row());
        let since = self.explanation.failing_since().filter(|_| failures > 1);
        let since = since.and_then(|since| format_time(since.0)).map(|since| format!(" since {since} UTC"));
        let in_a_row = (failures > 1)
            .then(|| text!["It failed for the ", ordinal(failures), " time in a row", since.unwrap_or_default()]);
        let limit = FAILURES_UNTIL_SUSPENSION;
        let suspension = match task.is_suspended {
            Some(true) => {
                Some("Tableau has suspended the refresh, and it does not run again until somebody resumes it".into())
            }
            Some(false) if task.consecutive_failures.is_some_and(|count| count + 1 == limit) => {
                Some(format!("After the {} failure in a row Tableau suspends the refresh", ordinal(limit)).into())
            }
            _ => None,
        };
        let next = task.next_run_at.and_then(format_time).map(|at| format!("Next run: {at} UTC").into());
        sentences([in_a_row, suspension, next])
    }

    /// Returns the pages to open.
    fn pages(&self) -> Vec<Page> {
        let (kind, context) = (self.explanation.refresh.resource.kind.as_str(), &self.explanation.context);
        let resource = context.resource.webpage_url.as_ref();
        let resource = resource.and_then(|url| Page::new(format!("Open the {kind}"), url));
        let history = context.history_url.as_ref().and_then(|url| Page::new("Refreshes of the site", url));
        resource.into_iter().chain(history).collect()
    }

    /// Returns the alert about this failure alone.
    fn alert(&self) -> AlertMessage {
        let Self { site, explanation: Explanation { refresh, .. } } = self;
        let (site, kind, name) =
            (site.to_string(), refresh.resource.kind.as_str(), display_name(self.explanation).bare());
        let id = self.id().to_string();
        let reason = self.notes().map(|notes| notes.reason(MAX_REASON_CHARACTERS));
        let reason = Text::verbatim(reason.unwrap_or_else(|| NO_REASON.to_owned()));
        let duration = refresh.duration_seconds().map(|seconds| format!(", after {}", format_duration(seconds)));
        let sentence = text![
            "The extract refresh of the ",
            resource(self.explanation),
            " failed on the Tableau site ",
            site.clone(),
            on_date(refresh.ended_at),
            duration.unwrap_or_default()
        ];
        let effect = text![". The ", kind, " keeps the data of its last successful refresh. Tableau's reason:"];
        let job = truncate(&refresh.job_id, MAX_NAME_CHARACTERS);
        let details = text!["Details: event ", EXPLAINED, ", id ", id.clone(), ", job ", job, "."];
        let title = text!["why the ", kind, " refresh failed: ", name.clone()];
        let facts = paragraphs([ownership(&self.explanation.context), self.repetition()], "\n");
        let pages = self.pages();
        let next: Vec<Text> = if pages.is_empty() { vec![NEXT.into()] } else { Vec::new() };
        let steps = next.iter().cloned().chain(pages.iter().map(Page::line));
        let email = paragraphs(
            [
                text![sentence.clone(), effect.clone()],
                reason.clone(),
                facts.clone(),
                Text::joined(steps, "\n"),
                details,
            ],
            "\n\n",
        );
        AlertContent {
            kind: AlertKind::RefreshExplained,
            severity: Severity::Error,
            resolved: false,
            sites: vec![site.clone()],
            subject: text!["Tableau ", site.clone(), ": ", title.clone()],
            email,
            sms: text!["Tableau ", site.clone(), ": ", kind, " refresh failed: ", name, ": ", reason.clone()],
            id,
            title,
            description: paragraphs([text![sentence.clone(), effect, " ", reason.clone()], facts], "\n"),
            next,
            pages,
            keywords: vec![site, EXPLAINED.to_owned()],
            thread: thread(self.site, &refresh.resource.luid),
            summary: text![sentence, ": ", reason],
            event_type: EXPLAINED.to_owned(),
            related: Some(related(
                self.explanation.refresh.resource.kind.as_str(),
                &refresh.resource.luid,
                self.explanation.resource_name(),
                &self.explanation.context,
            )),
        }
        .into()
    }
}

/// Returns whose resource it is.
pub(crate) fn ownership(context: &FailureContext) -> Text {
    let project = context.project_name().map(|project| text!["Project: ", name(project)]);
    let owner = context.owner.as_ref().and_then(|owner| {
        let email = owner.email.as_deref().map(name);
        match (owner.name.as_deref().map(name), email) {
            (Some(name), Some(email)) => Some(text!["Owner: ", name, " (", email, ")"]),
            (Some(name), None) => Some(text!["Owner: ", name]),
            (None, Some(email)) => Some(text!["Owner: ", email]),
            (None, None) => None,
        }
    });
    sentences([project, owner])
}

/// Returns one alert about many failures, by reason.
fn shared_alert(failures: &[Failure<'_>]) -> AlertMessage {
    let groups = by_reason(failures);
    let sites: BTreeSet<_> = failures.iter().map(|failure| failure.site.as_str()).collect();
    let list = |max| {
        let lines = groups.iter().map(|group| {
            let names = group.iter().map(|Failure { site, explanation, .. }| {
                let resource = resource(explanation);
                if sites.len() > 1 { text![site.to_string(), ": ", resource] } else { resource }
            });
            let names = join_first(names.collect::<BTreeSet<_>>().into_iter(), MAX_NAMED, ", ");
            let count = pluralize(group.len(), "failure", "failures");
            text!["- ", count, ": ", Text::verbatim(reason(group)), "\n  ", names]
        });
        join_first(lines, max, "\n")
    };
    let (count, reasons) = (
        pluralize(failures.len(), "extract refresh", "extract refreshes"),
        pluralize(groups.len(), "reason", "reasons"),
    );
    let headline = format!("{}: {count} failed for {reasons}", heading(&sites));
    let effect = "Each datasource or workbook keeps the data of its last successful refresh.";
    let suspended = failures.iter().filter(|failure| failure.explanation.says_suspended()).count();
    let suspended = match suspended {
        0 => String::new(),
        1 => " Tableau has suspended 1 of the refreshes until somebody resumes it.".to_owned(),
        count => format!(" Tableau has suspended {count} of the refreshes until somebody resumes them."),
    };
    let what = format!("{count} failed{}. {effect}{suspended} Tableau's reasons:", between(failures));
    let first = groups
        .first()
        .map(|group| format!("{}: {}", pluralize(group.len(), "time", "times"), reason(group)))
        .unwrap_or_default();
    let id = shared_id("explained failures", failures.iter().map(Failure::id));
    AlertContent {
        kind: AlertKind::RefreshExplained,
        severity: Severity::Error,
        resolved: false,
        sites: site_names(&sites),
        subject: text!["Tableau ", headline.clone()],
        email: text![what.clone(), "\n\n", list(MAX_IN_EMAIL), "\n\n", NEXT],
        sms: text!["Tableau ", headline.clone(), ". ", first],
        title: headline.clone().into(),
        description: text![what, "\n", list(MAX_ON_CARD)],
        next: vec![NEXT.into()],
        pages: Vec::new(),
        keywords: keywords(EXPLAINED, &sites),
        thread: id.clone(),
        id,
        summary: text![headline, "."],
        event_type: EXPLAINED.to_owned(),
        related: None,
    }
    .into()
}

/// Groups failures by reason, the most frequent first.
fn by_reason<'f, 'a>(failures: &'f [Failure<'a>]) -> Vec<Vec<&'f Failure<'a>>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for failure in failures {
        groups.entry(failure.notes().map(Notes::without_particulars)).or_default().push(failure);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    // Stable: equally frequent reasons stay in the order of their texts.
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    groups
}

/// Returns the reason of a group: the least of its texts, so that it does not depend on their order.
fn reason(group: &[&Failure<'_>]) -> String {
    let notes = group.iter().filter_map(|failure| failure.notes()).min();
    notes.map_or_else(|| NO_REASON.to_owned(), |notes| notes.reason(MAX_SHORT_REASON_CHARACTERS))
}

/// Returns the time or times at which refreshes failed, as part of a sentence.
fn between(failures: &[Failure<'_>]) -> String {
    let times = || failures.iter().map(|failure| failure.explanation.refresh.ended_at);
    match (times().min().and_then(format_time), times().max().and_then(format_time)) {
        (Some(first), Some(last)) if first != last => format!(" between {first} and {last} UTC"),
        (Some(at), _) => format!(" on {at} UTC"),
        (None, _) => String::new(),
    }
}

/// Returns kind and name of a resource whose refresh failed.
fn resource(explanation: &Explanation) -> Text {
    text![explanation.refresh.resource.kind.as_str(), " ", display_name(explanation).in_sentence()]
}

fn display_name(explanation: &Explanation) -> DisplayName {
    name_of(&explanation.refresh, explanation.resource_name())
}

fn name_of(refresh: &Refresh, name: Option<&str>) -> DisplayName {
    DisplayName::of(refresh.resource.kind.as_str(), name, Some(&refresh.resource.luid))
}

/// Returns the name of a project or a user, or the address of a user. A name can look like a link, so it is no plain text.
fn name(name: &str) -> Text {
    Text::verbatim(truncate(&plain(name), MAX_NAME_CHARACTERS))
}

/// Joins sentences, each without its full stop.
fn sentences(texts: impl IntoIterator<Item = Option<Text>>) -> Text {
    let texts: Vec<_> = texts.into_iter().flatten().collect();
    if texts.is_empty() { Text::default() } else { Text::joined(texts, ". ").and(".") }
}

/// Joins the texts that are not empty.
pub(crate) fn paragraphs(texts: impl IntoIterator<Item = Text>, separator: &'static str) -> Text {
    Text::joined(texts.into_iter().filter(|text| !text.is_empty()), separator)
}

/// Formats a number as in "the 3rd time".
fn ordinal(number: u32) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// Returns the identifier of an alert about several events.
pub(crate) fn shared_id(what: &str, ids: impl Iterator<Item = EventId>) -> String {
    let ids: BTreeSet<_> = ids.map(|id| id.to_string()).collect();
    EventId::of([what.as_bytes()].into_iter().chain(ids.iter().map(String::as_bytes))).to_string()
}

/// Returns the resource that an alert is about.
pub(crate) fn related(kind: &'static str, luid: &str, name: Option<&str>, context: &FailureContext) -> Related {
    let project = context.project_name().map(str::to_owned);
    Related { kind, id: luid.to_owned(), name: name.map(str::to_owned), project }
}

pub(crate) fn keywords(what: &str, sites: &BTreeSet<&str>) -> Vec<String> {
    [what].iter().chain(sites.iter().take(MAX_NAMED)).map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests;
