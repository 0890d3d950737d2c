//! Alerts about recovered events, and about why refreshes failed.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    alerts::{
        message::{AlertContent, AlertMessage, thread},
        notification::heading,
        phrasing::{DisplayName, format_duration, format_time, join_first, on, pluralize},
        text::{NAME_CHARACTERS, Text, text, truncate},
    },
    events::id::EventId,
    refreshes::{
        job::{EXPLAINED, Refresh},
        notes::Notes,
    },
    registration::{claim::Registration, site_name::SiteName},
};

/// From how many failures on people get one message about them all.
const BURST: usize = 4;

/// How many events or reasons are told of in an e-mail, and how many on a card.
const IN_EMAIL: usize = 100;

const IN_CARD: usize = 10;

/// How many things are named that failed for one reason.
const NAMED: usize = 5;

/// The most characters of a reason where it is the only one, and where it is one of several.
const REASON_CHARACTERS: usize = 600;

const SHORT_REASON_CHARACTERS: usize = 200;

/// What to look at next.
const NEXT: &str = "The Jobs page of a site shows its jobs in full: open the site in Tableau and choose Jobs.";

/// What people are told of why refreshes failed: a message about each, in the thread of the one that said that it
/// failed, or one about all if they are many. A failure without notes is left out: there is nothing to add to what
/// people know of it.
pub fn explained_alerts(failures: &[(&SiteName, &Refresh)]) -> Vec<AlertMessage> {
    let failures: Vec<_> = failures
        .iter()
        .filter_map(|(site, refresh)| Some(Failure { site, refresh, notes: refresh.notes.as_ref()? }))
        .collect();
    match failures.len() {
        ..BURST => failures.iter().map(Failure::alert).collect(),
        _ => vec![burst(&failures)],
    }
}

/// What people are told of events that Tableau did not deliver: one message about them all, `None` if there are none.
pub fn recovered_alert(recovered: &[(Registration, &Refresh)]) -> Option<AlertMessage> {
    if recovered.is_empty() {
        return None;
    }
    let ids = recovered.iter().map(|(Registration { site, event }, refresh)| refresh.event_id(site, event.as_str()));
    let id = together("recovered events", ids);
    let sites: BTreeSet<_> = recovered.iter().map(|(registration, _)| registration.site.as_str()).collect();
    let line = |(Registration { site, event }, refresh): &(Registration, &Refresh)| {
        let at = refresh.events().find_map(|(own, at)| (own == *event).then_some(at));
        let stage = event.action().unwrap_or_default().trim_start_matches("refresh-");
        let when = at.map(on).unwrap_or_default();
        text![site.to_string(), ": the extract refresh of the ", subject(refresh), " ", stage, when]
    };
    let list = |most| join_first(recovered.iter().map(|event| text!["- ", line(event)]), most, "\n");
    let count = pluralize(recovered.len(), "missed event", "missed events");
    let headline = format!("{}: {count} found in the jobs", heading(&sites));
    let what = "Tableau could not deliver these events while a webhook did not work. They were found in its jobs:";
    let next = text!["The events topic has them by now. ", NEXT];
    let words = AlertContent {
        subject: text!["Tableau ", headline.clone()],
        email: text![what, "\n\n", list(IN_EMAIL), "\n\n", next.clone()],
        sms: text!["Tableau ", headline.clone(), ". ", recovered.first().map(line).unwrap_or_default()],
        id: id.to_string(),
        title: headline.clone().into(),
        description: text![what, "\n", list(IN_CARD)],
        next,
        keywords: keywords("recovered", &sites),
        thread: id.to_string(),
        summary: headline.into(),
        event_type: "RefreshEventsRecovered".to_owned(),
        related: None,
    };
    Some(words.into())
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

    /// What people are told of this one.
    fn alert(&self) -> AlertMessage {
        let Self { site, refresh, notes } = self;
        let (site, kind, name) = (site.to_string(), refresh.resource.kind.as_str(), named(refresh).bare());
        let id = self.id().to_string();
        let reason = Text::verbatim(notes.reason(REASON_CHARACTERS));
        let lasted = refresh.duration_seconds().map(|seconds| format!(", after {}", format_duration(seconds)));
        let sentence = text![
            "The extract refresh of the ",
            subject(refresh),
            " failed on the Tableau site ",
            site.clone(),
            on(refresh.ended_at),
            lasted.unwrap_or_default()
        ];
        let headline = text!["why the ", kind, " refresh failed: ", name.clone()];
        let job = truncate(&refresh.job_id, NAME_CHARACTERS);
        let end = text!["\n\nEvent ", EXPLAINED, ", id ", id.clone(), ", job ", job, "."];
        AlertContent {
            subject: text!["Tableau ", site.clone(), ": ", headline.clone()],
            email: text![sentence.clone(), ". Tableau says why:\n\n", reason.clone(), "\n\n", NEXT, end],
            sms: text!["Tableau ", site.clone(), ": ", kind, " refresh failed: ", name, ": ", reason.clone()],
            id,
            title: headline,
            description: text![sentence.clone(), ". Tableau says why: ", reason.clone()],
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

/// What people are told of many failures: the reasons, the most frequent first.
fn burst(failures: &[Failure<'_>]) -> AlertMessage {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for failure in failures {
        groups.entry(failure.notes.without_particulars()).or_default().push(failure);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    // Stable: what is equally frequent stays in the order of its text.
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    let sites: BTreeSet<_> = failures.iter().map(|failure| failure.site.as_str()).collect();
    let reason = |group: &[&Failure<'_>]| {
        // The least, so that it does not depend on the order of the failures.
        let notes = group.iter().map(|failure| failure.notes).min();
        notes.map(|notes| notes.reason(SHORT_REASON_CHARACTERS)).unwrap_or_default()
    };
    let list = |most| {
        let lines = groups.iter().map(|group| {
            let names = group.iter().map(|Failure { site, refresh, .. }| {
                let subject = subject(refresh);
                if sites.len() > 1 { text![site.to_string(), ": ", subject] } else { subject }
            });
            let names = join_first(names.collect::<BTreeSet<_>>().into_iter(), NAMED, ", ");
            let count = pluralize(group.len(), "failure", "failures");
            text!["- ", count, ": ", Text::verbatim(reason(group)), "\n  ", names]
        });
        join_first(lines, most, "\n")
    };
    let (count, reasons) = (
        pluralize(failures.len(), "extract refresh", "extract refreshes"),
        pluralize(groups.len(), "reason", "reasons"),
    );
    let times = || failures.iter().map(|failure| failure.refresh.ended_at);
    let between = match (times().min().and_then(format_time), times().max().and_then(format_time)) {
        (Some(first), Some(last)) if first != last => format!(" between {first} and {last} UTC"),
        (Some(at), _) => format!(" on {at} UTC"),
        (None, _) => String::new(),
    };
    let headline = format!("{}: why {count} failed", heading(&sites));
    let what = format!("{count} failed{between}. Tableau says why, for {reasons}:");
    let first = groups.first().map(|group| format!("{} times: {}", group.len(), reason(group))).unwrap_or_default();
    let id = together("explained failures", failures.iter().map(Failure::id)).to_string();
    let short = text![headline.clone(), ", ", reasons];
    AlertContent {
        subject: text!["Tableau ", short.clone()],
        email: text![what.clone(), "\n\n", list(IN_EMAIL), "\n\n", NEXT],
        sms: text!["Tableau ", short.clone(), ". ", first],
        title: headline.into(),
        description: text![what, "\n", list(IN_CARD)],
        next: NEXT.into(),
        keywords: keywords(EXPLAINED, &sites),
        thread: id.clone(),
        id,
        summary: text![short, "."],
        event_type: EXPLAINED.to_owned(),
        related: None,
    }
    .into()
}

/// Kind and name of what was refreshed.
fn subject(refresh: &Refresh) -> Text {
    text![refresh.resource.kind.as_str(), " ", named(refresh).in_sentence()]
}

fn named(refresh: &Refresh) -> DisplayName {
    let resource = &refresh.resource;
    DisplayName::of(resource.kind.as_str(), resource.name.as_deref(), Some(&resource.luid))
}

/// What tells a message about several events from every other.
fn together(what: &str, ids: impl Iterator<Item = EventId>) -> EventId {
    let ids: BTreeSet<_> = ids.map(|id| id.to_string()).collect();
    EventId::of([what.as_bytes()].into_iter().chain(ids.iter().map(String::as_bytes)))
}

fn keywords(what: &str, sites: &BTreeSet<&str>) -> Vec<String> {
    [what].iter().chain(sites.iter().take(NAMED)).map(|word| (*word).to_owned()).collect()
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

    /// Every form of a message, as a person might see them one below the other.
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
    fn one_failure_is_explained_in_the_thread_of_the_alert_that_it_failed() {
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
    fn many_failures_are_one_message_by_reason_whatever_their_order() {
        let site = site("marketing");
        let mut failures: Vec<_> = (0..10).map(|number| failed(number, "Login failed for user 'sa'.")).collect();
        failures.extend((10..13).map(|number| failed(number, &format!("Cannot open database 'db{number}'."))));
        failures.push(failed(13, "Out of memory"));
        let alerts = explained(&site, &failures);
        assert_eq!(alerts.len(), 1);
        insta::assert_snapshot!(shown(&alerts[0]));
        failures.reverse();
        assert_eq!(explained(&site, &failures), alerts);
        assert_eq!(explained(&site, &failures[..BURST - 1]).len(), BURST - 1);
    }

    #[test]
    fn events_that_were_missed_are_one_message() {
        let events: Vec<_> =
            (0..12).map(|number| ("marketing", "WorkbookRefreshFailed", failed(2 * number + 1, ""))).collect();
        insta::assert_snapshot!(shown(&recovered(&events)));
        assert_eq!(recovered_alert(&[]), None);
    }

    #[test]
    fn sites_are_told_apart() {
        let (marketing, sales) = (site("marketing"), site("sales"));
        let failures: Vec<_> = (0..4).map(|number| failed(number, "Out of memory")).collect();
        let failures: Vec<_> = failures
            .iter()
            .zip([&marketing, &marketing, &sales, &sales])
            .map(|(refresh, site)| (site, refresh))
            .collect();
        let (texts, _) = texts(&explained_alerts(&failures)[0]);
        insta::assert_snapshot!(texts["email"].as_str().expect("a text"), @r#"
        4 extract refreshes failed between 2026-05-21 at 08:03 and 2026-05-21 at 08:06 UTC. Tableau says why, for 1 reason:

        - 4 failures: Out of memory
          marketing: datasource "Sales 000", marketing: workbook "Sales 001", sales: datasource "Sales 002", sales: workbook "Sales 003"

        The Jobs page of a site shows its jobs in full: open the site in Tableau and choose Jobs.
        "#);
        let missed = recovered(&[
            ("marketing", "WorkbookRefreshStarted", failed(1, "")),
            ("sales", "DatasourceRefreshFailed", failed(2, "")),
        ]);
        insta::assert_snapshot!(missed.subject, @"Tableau marketing, sales: 2 missed events found in the jobs");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_jobs_say_no_alert_about_them_has_markup_or_is_refused(
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
