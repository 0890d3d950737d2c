//! What people are told of refreshes that Tableau did not tell of, and of why refreshes failed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::{
    alert::{AlertMessage, CARD_CHARACTERS, Named, Words, as_code, identifier, related, shortened, thread, told},
    message::EventId,
    notes::Notes,
    notice::heading,
    refresh::{EXPLAINED, Refresh},
    registration::{Registration, SiteName},
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

/// How a name is set off from the text around it.
type Quoted = fn(&Named) -> String;

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
    let line = |(Registration { site, event }, refresh): &(Registration, &Refresh), quoted: Quoted| {
        let at = refresh.events().find_map(|(own, at)| (own == *event).then_some(at));
        let stage = event.action().unwrap_or_default().trim_start_matches("refresh-");
        let when = at.map(on).unwrap_or_default();
        format!("{site}: the extract refresh of the {} {stage}{when}", subject(refresh, quoted))
    };
    let list = |quoted, most| listed(recovered.iter().map(|event| format!("- {}", line(event, quoted))), most, "\n");
    let count = counted(recovered.len(), "missed event", "missed events");
    let headline = format!("{}: {count} found in the jobs", heading(&sites));
    let what = "Tableau could not deliver these events while a webhook did not work. They were found in its jobs";
    let next = format!("The events topic has them by now. {NEXT}");
    let first = recovered.first().map(|event| line(event, unquoted)).unwrap_or_default();
    let words = Words {
        subject: format!("Tableau {headline}"),
        email: format!("{what}:\n\n{}\n\n{next}", list(Named::quoted, IN_EMAIL)),
        sms: format!("Tableau {headline}. {first}"),
        id: id.to_string(),
        title: headline.clone(),
        description: shortened(&format!("{what}:\n{}", list(Named::as_code, IN_CARD)), CARD_CHARACTERS),
        next,
        keywords: keywords("recovered", &sites),
        thread: id.to_string(),
        summary: headline,
        metadata: metadata("RefreshEventsRecovered"),
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
        let (kind, name) = (refresh.resource.kind.as_str(), named(refresh).text);
        let (id, job) = (self.id(), identifier(&refresh.job_id));
        let reason = notes.reason(REASON_CHARACTERS);
        let when = on(refresh.ended_at);
        let lasted = refresh.duration_seconds().map(|seconds| format!(", after {}", lasting(seconds)));
        let lasted = lasted.unwrap_or_default();
        let sentence = |quoted| {
            let subject = subject(refresh, quoted);
            format!("The extract refresh of the {subject} failed on the Tableau site {site}{when}{lasted}")
        };
        let headline = format!("why the {kind} refresh failed");
        let mut metadata = metadata(EXPLAINED);
        metadata.insert("relatedResources".to_owned(), related(&refresh.resource.luid));
        Words {
            subject: format!("Tableau {site}: {headline}: {name}"),
            email: format!(
                "{}. Tableau says why:\n\n{reason}\n\n{NEXT}\n\nEvent {EXPLAINED}, id {id}, job {job}.",
                sentence(Named::quoted)
            ),
            sms: format!("Tableau {site}: {kind} refresh failed: {name}: {reason}"),
            id: id.to_string(),
            title: format!("{headline}: {name}"),
            description: format!("{}. Tableau says why: {}", sentence(Named::as_code), as_code(&reason)),
            next: NEXT.to_owned(),
            keywords: vec![site.to_string(), EXPLAINED.to_owned()],
            thread: thread(site, &refresh.resource.luid),
            summary: format!("{}: {reason}", sentence(Named::quoted)),
            metadata,
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
    let list = |quoted: Quoted, quoted_reason: fn(&str) -> String, most| {
        let lines = groups.iter().map(|group| {
            let names = group.iter().map(|Failure { site, refresh, .. }| {
                let subject = subject(refresh, quoted);
                if sites.len() > 1 { format!("{site}: {subject}") } else { subject }
            });
            let names = listed(names.collect::<BTreeSet<_>>().into_iter(), NAMED, ", ");
            format!("- {}: {}\n  {names}", counted(group.len(), "failure", "failures"), quoted_reason(&reason(group)))
        });
        listed(lines, most, "\n")
    };
    let (count, reasons) =
        (counted(failures.len(), "extract refresh", "extract refreshes"), counted(groups.len(), "reason", "reasons"));
    let times = || failures.iter().map(|failure| failure.refresh.ended_at);
    let between = match (times().min().and_then(told), times().max().and_then(told)) {
        (Some(first), Some(last)) if first != last => format!(" between {first} and {last} UTC"),
        (Some(at), _) => format!(" on {at} UTC"),
        (None, _) => String::new(),
    };
    let headline = format!("{}: why {count} failed", heading(&sites));
    let what = format!("{count} failed{between}. Tableau says why, for {reasons}");
    let first = groups.first().map(|group| format!("{} times: {}", group.len(), reason(group))).unwrap_or_default();
    let id = together("explained failures", failures.iter().map(Failure::id)).to_string();
    Words {
        subject: format!("Tableau {headline}, {reasons}"),
        email: format!("{what}:\n\n{}\n\n{NEXT}", list(Named::quoted, str::to_owned, IN_EMAIL)),
        sms: format!("Tableau {headline}, {reasons}. {first}"),
        title: headline.clone(),
        description: shortened(&format!("{what}:\n{}", list(Named::as_code, as_code, IN_CARD)), CARD_CHARACTERS),
        next: NEXT.to_owned(),
        keywords: keywords(EXPLAINED, &sites),
        thread: id.clone(),
        id,
        summary: format!("{headline}, {reasons}."),
        metadata: metadata(EXPLAINED),
    }
    .into()
}

/// Kind and name of what was refreshed.
fn subject(refresh: &Refresh, quoted: Quoted) -> String {
    format!("{} {}", refresh.resource.kind.as_str(), quoted(&named(refresh)))
}

fn named(refresh: &Refresh) -> Named {
    let resource = &refresh.resource;
    Named::of(resource.kind.as_str(), resource.name.as_deref(), Some(&resource.luid))
}

fn unquoted(named: &Named) -> String {
    named.text.clone()
}

fn on(at: OffsetDateTime) -> String {
    told(at).map(|at| format!(" on {at} UTC")).unwrap_or_default()
}

/// The first of some texts, and how many more there are.
fn listed(texts: impl ExactSizeIterator<Item = String>, most: usize, separator: &str) -> String {
    let more = texts.len().saturating_sub(most);
    let more = (more > 0).then(|| format!("and {more} more"));
    texts.take(most).chain(more).collect::<Vec<_>>().join(separator)
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A duration as a person says it.
fn lasting(seconds: i64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// What tells a message about several events from every other.
fn together(what: &str, ids: impl Iterator<Item = EventId>) -> EventId {
    let ids: BTreeSet<_> = ids.map(|id| id.to_string()).collect();
    EventId::of([what.as_bytes()].into_iter().chain(ids.iter().map(String::as_bytes)))
}

fn keywords(what: &str, sites: &BTreeSet<&str>) -> Vec<String> {
    [what].iter().chain(sites.iter().take(NAMED)).map(|word| (*word).to_owned()).collect()
}

fn metadata(event_type: &str) -> Map<String, Value> {
    Map::from_iter([("eventType".to_owned(), json!(event_type))])
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use time::{Duration, macros::datetime};

    use super::*;
    use crate::{
        message::Delivery,
        payload::Payload,
        refresh::{RefreshOutcome, RefreshedKind, RefreshedResource},
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
        #[test]
        fn no_name_and_no_notes_break_a_subject_a_text_message_or_the_card(
            name: String, luid in ".*", notes in ".{1,2000}", count in 1_usize..8, sites in vec("[a-z]{1,40}", 8),
        ) {
            let mut refresh = failed(1, &notes);
            (refresh.resource.name, refresh.resource.luid) = (Some(name), luid.clone());
            let sites: Vec<_> = sites.iter().map(|name| site(name)).collect();
            let failures: Vec<_> = sites.iter().take(count).map(|site| (site, &refresh)).collect();
            let event: crate::event::Event = "WorkbookRefreshFailed".parse().expect("an event");
            let missed: Vec<_> = failures.iter().map(|(site, refresh)| {
                (Registration { site: (*site).clone(), event: event.clone() }, *refresh)
            }).collect();
            for alert in explained_alerts(&failures).iter().chain(&recovered_alert(&missed)) {
                prop_assert!(alert.subject.len() < 100 && alert.subject.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                prop_assert!(alert.body.len() < 32 * 1024, "{} bytes", alert.body.len());
                let (texts, card) = texts(alert);
                let sms = texts["sms"].as_str().expect("a text");
                prop_assert!(sms.chars().count() <= 140 && !sms.chars().any(char::is_control), "{}", sms);
                prop_assert!(!card["content"]["description"].as_str().expect("a text").contains(['<', '>']));
            }
        }
    }
}
