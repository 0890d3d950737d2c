//! Notifications: a problem that begins, one that is solved, the outcome of a test.

use std::collections::{BTreeMap, BTreeSet};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    alerts::{
        data::{AlertKind, Severity},
        message::{AlertContent, AlertMessage, Related},
        phrasing::format_time,
        text::{Text, text},
    },
    problems::{Place, Problem, ProblemKind},
    targets::{
        entry::Preset,
        name::{TARGET, TargetName},
    },
};

/// The most places that are described in full. The report has all of them.
const MAX_DESCRIBED: usize = 10;

/// The most sites that are named in a heading.
const MAX_IN_HEADING: usize = 3;

/// A notification for subscribers, before it is rendered for each protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    kind: AlertKind,
    severity: Severity,
    /// The names of all sites.
    sites: Vec<String>,
    /// A few words, with the sites.
    pub headline: String,
    /// The rest of the text message.
    gist: Text,
    /// Paragraphs: what happened, then the effect.
    paragraphs: Vec<Text>,
    /// The fix.
    fix: Text,
    /// The raw details.
    details: Text,
    id: String,
    thread: String,
    keywords: Vec<String>,
    event_type: String,
    related: Option<Related>,
}

/// Type of the alerts about a target.
const TARGET_REFUSES: &str = "target-refuses";

impl Notification {
    /// A problem that begins, at one place or several.
    pub(crate) fn new(kind: ProblemKind, now: OffsetDateTime, places: &BTreeMap<Place, &Problem>) -> Self {
        let sites: BTreeSet<_> = places.keys().map(|place| place.site.as_str()).collect();
        let alone = places.len() == 1;
        let gist = places.values().next().filter(|_| alone).map(|problem| problem.what.clone().into());
        let mut paragraphs: Vec<_> = (places.iter().take(MAX_DESCRIBED))
            .map(|(place, Problem { what, .. })| text!["Tableau site ", place.site.clone(), ": ", what.clone()])
            .collect();
        if places.len() > MAX_DESCRIBED {
            let names: Vec<_> = places.keys().skip(MAX_DESCRIBED).map(Place::to_string).collect();
            paragraphs.push(text!["And ", names.len().to_string(), " more: ", names.join(", "), "."]);
        }
        paragraphs.push(kind.effect().into());
        // Mostly they differ in the site's name only.
        let fix = places.iter().next().map(|(place, Problem { remedy, .. })| match (remedy.as_str(), alone) {
            ("", _) => Text::default(),
            (remedy, true) => remedy.to_owned().into(),
            (remedy, false) => format!("For {}: {remedy}", place.site).into(),
        });
        let details = places.iter().find_map(|(place, Problem { detail, .. })| {
            let detail = Text::verbatim(detail.clone()?);
            Some(if alone { detail } else { text![place.site.clone(), ": ", detail] })
        });
        Self {
            kind: AlertKind::Problem,
            severity: severity_of(kind),
            sites: site_names(&sites),
            headline: format!("{}: {}", heading(&sites), kind.headline()),
            gist: gist.unwrap_or_default(),
            paragraphs,
            fix: fix.unwrap_or_default(),
            details: details.unwrap_or_default(),
            id: format!("{}/new", thread(kind, now)),
            thread: thread(kind, now),
            keywords: keywords(kind, &sites),
            event_type: kind.to_string(),
            related: None,
        }
    }

    /// A problem that began and ended while no alert could be sent.
    pub(crate) fn late(kind: ProblemKind, since: OffsetDateTime, places: &BTreeSet<Place>) -> Self {
        let sites: BTreeSet<_> = places.iter().map(|place| place.site.as_str()).collect();
        let names: Vec<_> = places.iter().map(Place::to_string).collect();
        let when = format_time(since).map(|since| format!("At {since} UTC")).unwrap_or_else(|| "Before".to_owned());
        let what = text![when, ", while no alert could be sent, at ", names.join(", "), ": ", kind.headline(), "."];
        Self {
            kind: AlertKind::ProblemSolved,
            severity: Severity::Warning,
            sites: site_names(&sites),
            headline: format!("{}: {}", heading(&sites), kind.headline()),
            gist: what.clone(),
            paragraphs: vec![what, kind.effect().into()],
            fix: "The reconciler's log of that time has the details.".into(),
            details: Text::default(),
            id: format!("{}/late", thread(kind, since)),
            thread: thread(kind, since),
            keywords: keywords(kind, &sites),
            event_type: kind.to_string(),
            related: None,
        }
    }

    /// A problem that is solved, at some places; at all sites if none is named.
    pub(crate) fn solved(
        kind: ProblemKind,
        since: OffsetDateTime,
        places: &BTreeSet<Place>,
        now: OffsetDateTime,
    ) -> Self {
        let sites: BTreeSet<_> = places.iter().map(|place| place.site.as_str()).collect();
        let at = if places.is_empty() { "all sites".to_owned() } else { heading(&sites) };
        let began =
            if kind == ProblemKind::TokenEnding { "The last alert of it was sent at" } else { "It had lasted since" };
        let lasted = format_time(since).map(|since| format!("{began} {since} UTC.")).unwrap_or_default();
        let names: Vec<_> = places.iter().map(Place::to_string).collect();
        let is_named = names.len() > 1 || places.iter().any(|place| place.event.is_some());
        let names = if is_named { format!(" ({})", names.join(", ")) } else { String::new() };
        Self {
            kind: AlertKind::ProblemSolved,
            severity: Severity::Info,
            sites: site_names(&sites),
            headline: format!("{at}: solved: {}", kind.headline()),
            paragraphs: vec![format!("Solved at {at}{names}: {}. {lasted}", kind.headline()).into()],
            gist: lasted.into(),
            fix: Text::default(),
            details: Text::default(),
            id: thread_id(&format!("{}/solved", thread(kind, since)), now),
            thread: thread(kind, since),
            keywords: keywords(kind, &sites),
            event_type: kind.to_string(),
            related: None,
        }
    }

    /// The outcome of a requested test. `text` has a line for each site.
    pub fn test(outcome: &str, text: &str, now: OffsetDateTime) -> Self {
        let id = thread_id("test", now);
        Self {
            kind: AlertKind::Test,
            severity: Severity::Info,
            sites: Vec::new(),
            headline: format!("Fanout: test: {outcome}"),
            gist: Text::default(),
            paragraphs: vec![
                "Tableau tested its webhooks, as requested. This message shows that alerts reach you.".into(),
                Text::joined(text.lines().map(report_line), "\n"),
            ],
            fix: "Nothing needs to be done if every test was accepted.".into(),
            details: Text::default(),
            thread: id.clone(),
            id,
            keywords: vec!["test".to_owned()],
            event_type: "test".to_owned(),
            related: None,
        }
    }

    /// A target that refuses messages, since `since`.
    pub fn target_refuses(target: &TargetName, preset: Preset, status: u16, since: OffsetDateTime) -> Self {
        let thread = target_thread(target, since);
        let what = format!("The target {target} (preset {preset}) refuses messages: it answered {status}.");
        let fix = format!(
            "Fix: if its address or credentials are outdated, run `cargo infra add-target {target} --overwrite`. The next \
             attempt uses the new ones."
        );
        Self {
            severity: Severity::Error,
            gist: what.clone().into(),
            paragraphs: vec![
                what.into(),
                "Messages for it wait in its queue. Each one is tried for 24 hours, and then goes to the dead letters."
                    .into(),
            ],
            fix: fix.into(),
            id: format!("{thread}/new"),
            ..Self::of_target(AlertKind::Problem, target, "messages refused", thread)
        }
    }

    /// A target that refused messages, and takes them again.
    pub fn target_works(target: &TargetName, since: OffsetDateTime, now: OffsetDateTime) -> Self {
        let thread = target_thread(target, since);
        let lasted = format_time(since).map(|since| format!("It had refused them since {since} UTC. "));
        let lasted = lasted.unwrap_or_default();
        Self {
            severity: Severity::Info,
            gist: lasted.clone().into(),
            paragraphs: vec![
                format!(
                    "The target {target} takes messages again. {lasted}Those that wait in its queue follow, most within an hour."
                )
                .into(),
            ],
            id: thread_id(&format!("{thread}/solved"), now),
            ..Self::of_target(AlertKind::ProblemSolved, target, "solved: messages refused", thread)
        }
    }

    /// An alert about a target, without its texts.
    fn of_target(kind: AlertKind, target: &TargetName, headline: &str, thread: String) -> Self {
        Self {
            kind,
            severity: Severity::Info,
            sites: Vec::new(),
            headline: format!("target {target}: {headline}"),
            gist: Text::default(),
            paragraphs: Vec::new(),
            fix: Text::default(),
            details: Text::default(),
            id: String::new(),
            thread,
            keywords: vec![TARGET_REFUSES.to_owned(), target.to_string()],
            event_type: TARGET_REFUSES.to_owned(),
            related: Some(Related { kind: TARGET, id: target.to_string(), name: None, project: None }),
        }
    }
}

impl From<Notification> for AlertMessage {
    fn from(notification: Notification) -> Self {
        let Notification {
            kind,
            severity,
            sites,
            headline,
            gist,
            paragraphs,
            fix,
            details,
            id,
            thread,
            keywords,
            event_type,
            related,
        } = notification;
        let details = if details.is_empty() { None } else { Some(text!["Details: ", details]) };
        let in_email =
            paragraphs.clone().into_iter().chain((!fix.is_empty()).then(|| fix.clone())).chain(details.clone());
        AlertContent {
            kind,
            severity,
            resolved: kind == AlertKind::ProblemSolved,
            sites,
            subject: text!["Tableau ", headline.clone()],
            email: Text::joined(in_email, "\n\n"),
            sms: text!["Tableau ", headline.clone(), ". ", gist],
            id,
            title: headline.clone().into(),
            description: Text::joined(paragraphs.into_iter().chain(details), "\n\n"),
            next: vec![if fix.is_empty() { "Nothing needs to be done.".into() } else { fix }],
            pages: Vec::new(),
            keywords,
            thread,
            summary: headline.into(),
            event_type,
            related,
        }
        .into()
    }
}

fn severity_of(kind: ProblemKind) -> Severity {
    let is_foreseen = kind == ProblemKind::TokenEnding;
    // The run has enabled the webhook again.
    let is_repaired = kind == ProblemKind::WebhookDisabled;
    if is_foreseen || is_repaired { Severity::Warning } else { Severity::Error }
}

pub(crate) fn site_names(sites: &BTreeSet<&str>) -> Vec<String> {
    sites.iter().map(|site| (*site).to_owned()).collect()
}

/// A line of a report.
fn report_line(line: &str) -> Text {
    let indented = if line.starts_with("  ") { "  " } else { "" };
    text![indented, line.trim().to_owned()]
}

/// The sites by name, or how many they are.
pub(crate) fn heading(sites: &BTreeSet<&str>) -> String {
    if sites.len() > MAX_IN_HEADING {
        return format!("{} sites", sites.len());
    }
    sites.iter().copied().collect::<Vec<_>>().join(", ")
}

/// Returns the thread of the messages about a problem and about its end.
fn thread(kind: ProblemKind, since: OffsetDateTime) -> String {
    thread_id(&kind.to_string(), since)
}

fn target_thread(target: &TargetName, since: OffsetDateTime) -> String {
    thread_id(&format!("target/{target}"), since)
}

fn thread_id(what: &str, since: OffsetDateTime) -> String {
    format!("{what}/{}", since.format(&Rfc3339).unwrap_or_default())
}

fn keywords(kind: ProblemKind, sites: &BTreeSet<&str>) -> Vec<String> {
    [kind.to_string()].into_iter().chain(sites.iter().take(MAX_IN_HEADING).map(|site| (*site).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::Value;
    use time::macros::datetime;

    use super::*;
    use crate::alerts::hostile;

    const NOW: OffsetDateTime = datetime!(2026-05-21 08:00:00 UTC);

    fn refused(site: &str) -> Problem {
        Problem {
            kind: ProblemKind::TokenRefused,
            event: None,
            what: "Tableau refused the token \"fanout\".".to_owned(),
            remedy: format!("Make a new one and store the entry {site} again."),
            detail: Some("POST https://tableau.example/api/3.27/auth/signin was answered with 401".to_owned()),
        }
    }

    /// Every form of a message, one below the other.
    fn shown(notification: Notification) -> String {
        let alert = AlertMessage::from(notification);
        let texts: Value = serde_json::from_str(&alert.body).expect("JSON");
        let text = |protocol: &str| texts[protocol].as_str().expect("a text");
        let card: Value = serde_json::from_str(text("https")).expect("JSON");
        format!("{}\n---\n{}\n---\n{}\n---\n{card:#}", alert.subject, text("email"), text("sms"))
    }

    fn new(sites: &[String]) -> Notification {
        let problems: Vec<_> = sites.iter().map(|site| refused(site)).collect();
        let places = sites.iter().map(|site| Place { site: site.clone(), event: None });
        Notification::new(ProblemKind::TokenRefused, NOW, &places.zip(&problems).collect())
    }

    #[test]
    fn a_new_problem_has_what_happened_the_effect_the_fix_and_the_details() {
        insta::assert_snapshot!(shown(new(&["marketing".to_owned()])));
    }

    #[test]
    fn a_problem_of_many_sites_is_described_for_some_and_names_the_others() {
        let sites: Vec<_> = (1..=12).map(|number| format!("site-{number:02}")).collect();
        insta::assert_snapshot!(shown(new(&sites)));
    }

    #[test]
    fn a_solved_problem_is_in_the_thread_of_its_beginning() {
        let place = Place { site: "marketing".to_owned(), event: None };
        let solved = Notification::solved(ProblemKind::TokenRefused, NOW, &BTreeSet::from([place]), NOW);
        assert_eq!(solved.thread, new(&["marketing".to_owned()]).thread);
        insta::assert_snapshot!(shown(solved));
    }

    #[test]
    fn a_target_that_refuses_messages_has_what_happened_the_effect_and_the_fix() {
        let target = "bi-team".parse().expect("a name");
        let refuses = Notification::target_refuses(&target, Preset::Slack, 404, NOW);
        let works = Notification::target_works(&target, NOW, NOW + time::Duration::hours(5));
        assert_eq!(refuses.thread, works.thread);
        insta::assert_snapshot!(shown(refuses));
        insta::assert_snapshot!(shown(works));
    }

    #[test]
    fn text_from_tableau_becomes_no_mention_and_is_cut() {
        let mut problem = refused("marketing");
        problem.what = format!("Tableau says: <!channel> {}", "many words ".repeat(10_000));
        let place = Place { site: "marketing".to_owned(), event: None };
        let alert = AlertMessage::from(Notification::new(problem.kind, NOW, &BTreeMap::from([(place, &problem)])));
        let texts: Value = serde_json::from_str(&alert.body).expect("JSON");
        let card = texts["https"].as_str().expect("a text");
        assert!(!card.contains("<!channel>") && card.len() < 4096, "{} bytes", card.len());
        assert!(texts["sms"].as_str().is_some_and(|text| text.chars().count() <= 140));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_notification_has_markup_or_is_refused(
            problems in vec((hostile::any_text(), hostile::any_text(), hostile::any_text(), hostile::any_text()), 1..14),
            report in hostile::any_text(),
        ) {
            let problems: Vec<_> = problems.into_iter().map(|(site, what, remedy, detail)| {
                let problem = Problem { kind: ProblemKind::ServerFailed, event: None, what, remedy, detail: Some(detail) };
                (Place { site, event: None }, problem)
            }).collect();
            let kind = ProblemKind::ServerFailed;
            let new = Notification::new(kind, NOW, &problems.iter().map(|(place, problem)| (place.clone(), problem)).collect());
            let places: BTreeSet<_> = problems.iter().map(|(place, _)| place.clone()).collect();
            let (late, solved) = (Notification::late(kind, NOW, &places), Notification::solved(kind, NOW, &places, NOW));
            for notification in [new, late, solved, Notification::test(&report, &report, NOW)] {
                let AlertMessage { subject, body } = notification.into();
                hostile::assert_safe(&subject, &body);
            }
        }
    }
}
