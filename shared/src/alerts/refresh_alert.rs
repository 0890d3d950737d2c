//! Alerts about recovered events, and about the reasons of failed refreshes.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    alerts::{
        message::{AlertContent, AlertMessage, thread},
        notification::heading,
        phrasing::{DisplayName, format_duration, format_time, join_first, on_date, pluralize},
        text::{MAX_NAME_CHARACTERS, Text, text, truncate},
    },
    events::id::EventId,
    refreshes::{
        job::{EXPLAINED, Refresh},
        notes::Notes,
    },
    registration::{claim::Registration, site_name::SiteName},
};

/// The least number of failures that share one alert.
const MIN_SHARED: usize = 4;

/// The most events or reasons in an e-mail, and on a card.
const MAX_IN_EMAIL: usize = 100;

const MAX_ON_CARD: usize = 10;

/// The most resources named for one reason, and the most sites among the keywords.
const MAX_NAMED: usize = 5;

/// The most characters of the only reason, and of one of several.
const MAX_REASON_CHARACTERS: usize = 600;

const MAX_SHORT_REASON_CHARACTERS: usize = 200;

const NEXT: &str = "To see a job in full, open its site in Tableau and choose Jobs.";

/// Returns the alerts with the reasons of failed refreshes: one for each, in the thread of the alert about the failure, or
/// one for all if they are many. A failure without notes has no alert, since there is no reason to add.
pub fn explained_alerts(failures: &[(&SiteName, &Refresh)]) -> Vec<AlertMessage> {
    let failures: Vec<_> = failures
        .iter()
        .filter_map(|(site, refresh)| Some(Failure { site, refresh, notes: refresh.notes.as_ref()? }))
        .collect();
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
        text![site.to_string(), ": the extract refresh of the ", resource(refresh), " ", stage, when]
    };
    let list = |max| join_first(recovered.iter().map(|event| text!["- ", line(event)]), max, "\n");
    let count = pluralize(recovered.len(), "missed event", "missed events");
    let headline = format!("{}: {count} recovered", heading(&sites));
    let what = "Tableau did not deliver these events while a webhook was down. They were recovered from Tableau's jobs and \
                are on the events topic now:";
    let content = AlertContent {
        subject: text!["Tableau ", headline.clone()],
        email: text![what, "\n\n", list(MAX_IN_EMAIL), "\n\n", NEXT],
        sms: text!["Tableau ", headline.clone(), ". ", recovered.first().map(line).unwrap_or_default()],
        id: id.clone(),
        title: headline.clone().into(),
        description: text![what, "\n", list(MAX_ON_CARD)],
        next: NEXT.into(),
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
    refresh: &'a Refresh,
    notes: &'a Notes,
}

impl Failure<'_> {
    fn id(&self) -> EventId {
        self.refresh.event_id(self.site, EXPLAINED)
    }

    /// Returns the alert about this failure alone.
    fn alert(&self) -> AlertMessage {
        let Self { site, refresh, notes } = self;
        let (site, kind, name) = (site.to_string(), refresh.resource.kind.as_str(), display_name(refresh).bare());
        let id = self.id().to_string();
        let reason = Text::verbatim(notes.reason(MAX_REASON_CHARACTERS));
        let duration = refresh.duration_seconds().map(|seconds| format!(", after {}", format_duration(seconds)));
        let sentence = text![
            "The extract refresh of the ",
            resource(refresh),
            " failed on the Tableau site ",
            site.clone(),
            on_date(refresh.ended_at),
            duration.unwrap_or_default()
        ];
        let effect = text![". The ", kind, " keeps the data of its last successful refresh. Tableau's reason:"];
        let job = truncate(&refresh.job_id, MAX_NAME_CHARACTERS);
        let details = text!["Details: event ", EXPLAINED, ", id ", id.clone(), ", job ", job, "."];
        let title = text!["why the ", kind, " refresh failed: ", name.clone()];
        AlertContent {
            subject: text!["Tableau ", site.clone(), ": ", title.clone()],
            email: text![sentence.clone(), effect.clone(), "\n\n", reason.clone(), "\n\n", NEXT, "\n\n", details],
            sms: text!["Tableau ", site.clone(), ": ", kind, " refresh failed: ", name, ": ", reason.clone()],
            id,
            title,
            description: text![sentence.clone(), effect, " ", reason.clone()],
            next: NEXT.into(),
            keywords: vec![site, EXPLAINED.to_owned()],
            thread: thread(self.site, &refresh.resource.luid),
            summary: text![sentence, ": ", reason],
            event_type: EXPLAINED.to_owned(),
            related: Some(refresh.resource.luid.clone()),
        }
        .into()
    }
}

/// Returns one alert about many failures, by reason.
fn shared_alert(failures: &[Failure<'_>]) -> AlertMessage {
    let groups = by_reason(failures);
    let sites: BTreeSet<_> = failures.iter().map(|failure| failure.site.as_str()).collect();
    let list = |max| {
        let lines = groups.iter().map(|group| {
            let names = group.iter().map(|Failure { site, refresh, .. }| {
                let resource = resource(refresh);
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
    let what = format!("{count} failed{}. {effect} Tableau's reasons:", between(failures));
    let first = groups
        .first()
        .map(|group| format!("{}: {}", pluralize(group.len(), "time", "times"), reason(group)))
        .unwrap_or_default();
    let id = shared_id("explained failures", failures.iter().map(Failure::id));
    AlertContent {
        subject: text!["Tableau ", headline.clone()],
        email: text![what.clone(), "\n\n", list(MAX_IN_EMAIL), "\n\n", NEXT],
        sms: text!["Tableau ", headline.clone(), ". ", first],
        title: headline.clone().into(),
        description: text![what, "\n", list(MAX_ON_CARD)],
        next: NEXT.into(),
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
        groups.entry(failure.notes.without_particulars()).or_default().push(failure);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    // Stable: equally frequent reasons stay in the order of their texts.
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    groups
}

/// Returns the reason of a group: the least of its texts, so that it does not depend on their order.
fn reason(group: &[&Failure<'_>]) -> String {
    let notes = group.iter().map(|failure| failure.notes).min();
    notes.map(|notes| notes.reason(MAX_SHORT_REASON_CHARACTERS)).unwrap_or_default()
}

/// Returns the time or times at which refreshes failed, as part of a sentence.
fn between(failures: &[Failure<'_>]) -> String {
    let times = || failures.iter().map(|failure| failure.refresh.ended_at);
    match (times().min().and_then(format_time), times().max().and_then(format_time)) {
        (Some(first), Some(last)) if first != last => format!(" between {first} and {last} UTC"),
        (Some(at), _) => format!(" on {at} UTC"),
        (None, _) => String::new(),
    }
}

/// Returns kind and name of a refreshed resource.
fn resource(refresh: &Refresh) -> Text {
    text![refresh.resource.kind.as_str(), " ", display_name(refresh).in_sentence()]
}

fn display_name(refresh: &Refresh) -> DisplayName {
    let resource = &refresh.resource;
    DisplayName::of(resource.kind.as_str(), resource.name.as_deref(), Some(&resource.luid))
}

/// Returns the identifier of an alert about several events.
fn shared_id(what: &str, ids: impl Iterator<Item = EventId>) -> String {
    let ids: BTreeSet<_> = ids.map(|id| id.to_string()).collect();
    EventId::of([what.as_bytes()].into_iter().chain(ids.iter().map(String::as_bytes))).to_string()
}

fn keywords(what: &str, sites: &BTreeSet<&str>) -> Vec<String> {
    [what].iter().chain(sites.iter().take(MAX_NAMED)).map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::{Value, json};
    use time::{Duration, macros::datetime};

    use super::*;
    use crate::{
        alerts::hostile,
        events::{delivery::Delivery, payload::Payload},
        refreshes::job::{RefreshOutcome, RefreshedKind, RefreshedResource},
    };

    fn site(name: &str) -> SiteName {
        name.parse().expect("a site")
    }

    fn failed(number: i64, notes: &str) -> Refresh {
        Refresh {
            job_id: format!("job-{number}"),
            resource: RefreshedResource {
                kind: if number % 2 == 0 { RefreshedKind::Datasource } else { RefreshedKind::Workbook },
                luid: format!("luid-{number}"),
                name: Some(format!("Sales {number:03}")),
            },
            started_at: Some(datetime!(2026-05-21 08:00:00 UTC)),
            ended_at: datetime!(2026-05-21 08:03:07 UTC) + Duration::minutes(number),
            outcome: RefreshOutcome::Failed,
            notes: Notes::redacted(notes),
        }
    }

    fn texts(alert: &AlertMessage) -> (Value, Value) {
        let texts: Value = serde_json::from_str(&alert.body).expect("JSON");
        let card = serde_json::from_str(texts["https"].as_str().expect("a text")).expect("JSON");
        (texts, card)
    }

    /// Returns all forms of an alert, one below the other.
    fn shown(alert: &AlertMessage) -> String {
        let (texts, card) = texts(alert);
        let text = |protocol: &str| texts[protocol].as_str().expect("a text");
        format!("{}\n---\n{}\n---\n{}\n---\n{card:#}", alert.subject, text("email"), text("sms"))
    }

    fn explained(site: &SiteName, failures: &[Refresh]) -> Vec<AlertMessage> {
        explained_alerts(&failures.iter().map(|refresh| (site, refresh)).collect::<Vec<_>>())
    }

    fn recovered(events: &[(&str, &str, Refresh)]) -> AlertMessage {
        let registration =
            |name: &str, event: &str| Registration { site: site(name), event: event.parse().expect("an event") };
        let events: Vec<_> = events.iter().map(|(site, event, refresh)| (registration(site, event), refresh)).collect();
        recovered_alert(&events).expect("an alert")
    }

    #[test]
    fn one_failure_is_explained_in_the_thread_of_its_alert() {
        let site = site("marketing");
        let refresh =
            failed(1, "[Microsoft][ODBC Driver 17 for SQL Server] Login failed for user.\n\tat a.B(C.java:1)");
        let alerts = explained(&site, &[refresh.clone(), failed(2, "")]);
        assert_eq!(alerts.len(), 1);
        insta::assert_snapshot!(shown(&alerts[0]));

        let registration = Registration { site, event: "WorkbookRefreshFailed".parse().expect("an event") };
        let verified = registration.clone().verified_in_tests();
        let body = json!({ "resource_luid": refresh.resource.luid }).to_string();
        let id = Delivery::read(&verified, body.as_bytes()).id("request");
        let payload = Payload::parse(body.as_bytes()).expect("an object");
        let first = AlertMessage::about(&registration, &payload, id);
        let thread = |alert| texts(alert).1["metadata"]["threadId"].clone();
        assert_eq!(thread(&alerts[0]), thread(&first));
    }

    #[test]
    fn many_failures_share_one_alert_by_reason_in_any_order() {
        let site = site("marketing");
        let mut failures: Vec<_> = (0..10).map(|number| failed(number, "Login failed for user 'sa'.")).collect();
        failures.extend((10..13).map(|number| failed(number, &format!("Cannot open database 'db{number}'."))));
        failures.push(failed(13, "Out of memory"));
        let alerts = explained(&site, &failures);
        assert_eq!(alerts.len(), 1);
        insta::assert_snapshot!(shown(&alerts[0]));
        failures.reverse();
        assert_eq!(explained(&site, &failures), alerts);
        assert_eq!(explained(&site, &failures[..MIN_SHARED - 1]).len(), MIN_SHARED - 1);
    }

    #[test]
    fn recovered_events_share_one_alert() {
        let events: Vec<_> =
            (0..12).map(|number| ("marketing", "WorkbookRefreshFailed", failed(2 * number + 1, ""))).collect();
        insta::assert_snapshot!(shown(&recovered(&events)));
        assert_eq!(recovered_alert(&[]), None);
    }

    #[test]
    fn failures_of_several_sites_name_the_sites() {
        let (marketing, sales) = (site("marketing"), site("sales"));
        let failures: Vec<_> = (0..4).map(|number| failed(number, "Out of memory")).collect();
        let failures: Vec<_> = failures
            .iter()
            .zip([&marketing, &marketing, &sales, &sales])
            .map(|(refresh, site)| (site, refresh))
            .collect();
        let (texts, _) = texts(&explained_alerts(&failures)[0]);
        insta::assert_snapshot!(texts["email"].as_str().expect("a text"), @r#"
        4 extract refreshes failed between 2026-05-21 at 08:03 and 2026-05-21 at 08:06 UTC. Each datasource or workbook keeps the data of its last successful refresh. Tableau's reasons:

        - 4 failures: Out of memory
          marketing: datasource "Sales 000", marketing: workbook "Sales 001", sales: datasource "Sales 002", sales: workbook "Sales 003"

        To see a job in full, open its site in Tableau and choose Jobs.
        "#);
        let missed = recovered(&[
            ("marketing", "WorkbookRefreshStarted", failed(1, "")),
            ("sales", "DatasourceRefreshFailed", failed(2, "")),
        ]);
        insta::assert_snapshot!(missed.subject, @"Tableau marketing, sales: 2 missed events recovered");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_job_makes_an_alert_unsafe_or_too_large(
            resources in vec((hostile::any_text(), hostile::any_text(), hostile::any_text(), hostile::any_text()), 1..8),
            sites in vec("[a-z0-9-]{1,40}", 8),
        ) {
            let refreshes: Vec<_> = resources.into_iter().map(|(name, luid, job, notes)| {
                let mut refresh = failed(1, &notes);
                (refresh.resource.name, refresh.resource.luid, refresh.job_id) = (Some(name), luid, job);
                refresh
            }).collect();
            let sites: Vec<_> = sites.iter().map(|name| site(name)).collect();
            let failures: Vec<_> = sites.iter().zip(&refreshes).collect();
            let event: crate::events::catalogue::Event = "WorkbookRefreshFailed".parse().expect("an event");
            let missed: Vec<_> = failures.iter().map(|(site, refresh)| {
                (Registration { site: (*site).clone(), event: event.clone() }, *refresh)
            }).collect();
            for AlertMessage { subject, body } in explained_alerts(&failures).iter().chain(&recovered_alert(&missed)) {
                hostile::assert_safe(subject, body);
            }
        }
    }
}
