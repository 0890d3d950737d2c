//! What people are told of the reconciler's work: a problem that came, one that is gone, a test's outcome.

use std::collections::{BTreeMap, BTreeSet};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    alerts::{
        message::{AlertContent, AlertMessage},
        phrasing::format_time,
        text::{Text, text},
    },
    problems::{Place, Problem, ProblemKind},
};

/// How many places are told of in full. The report has them all.
const IN_FULL: usize = 10;

/// How many sites are named in a heading.
const IN_HEADING: usize = 3;

/// Something to tell people of, not yet in a form that they get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// A few words, with where it is.
    pub headline: String,
    /// What a text message has room for besides.
    gist: Text,
    /// Paragraphs.
    paragraphs: Vec<Text>,
    next: Text,
    id: String,
    thread: String,
    keywords: Vec<String>,
    event_type: String,
}

impl Notification {
    /// A problem that people do not know of yet, at one place or several.
    pub(crate) fn new(kind: ProblemKind, now: OffsetDateTime, places: &BTreeMap<Place, &Problem>) -> Self {
        let sites: BTreeSet<_> = places.keys().map(|place| place.site.as_str()).collect();
        let alone = places.len() == 1;
        let gist = places.values().next().filter(|_| alone).map(|problem| problem.what.clone().into());
        let mut told: Vec<_> = places
            .iter()
            .take(IN_FULL)
            .map(|(place, Problem { what, detail, .. })| {
                let detail = detail.clone().map(|detail| text![" (", Text::verbatim(detail), ")"]).unwrap_or_default();
                text!["Tableau site ", place.site.clone(), ": ", what.clone(), detail]
            })
            .collect();
        if let Some(more) = places.len().checked_sub(IN_FULL).filter(|more| *more > 0) {
            let names: Vec<_> = places.keys().skip(IN_FULL).map(Place::to_string).collect();
            told.push(text!["And ", more.to_string(), " more: ", names.join(", "), "."]);
        }
        // Mostly they differ in the site's name only.
        let next = places.iter().next().map(|(place, Problem { remedy, .. })| match (remedy.as_str(), alone) {
            ("", _) => Text::default(),
            (remedy, true) => remedy.to_owned().into(),
            (remedy, false) => format!("For {}: {remedy}", place.site).into(),
        });
        told.push(kind.consequence().into());
        Self {
            headline: format!("{}: {}", heading(&sites), kind.headline()),
            gist: gist.unwrap_or_default(),
            paragraphs: told,
            next: next.unwrap_or_default(),
            id: format!("{}/new", thread(kind, now)),
            thread: thread(kind, now),
            keywords: keywords(kind, &sites),
            event_type: kind.to_string(),
        }
    }

    /// A problem that began and was over when people could not be alerted.
    pub(crate) fn late(kind: ProblemKind, since: OffsetDateTime, places: &BTreeSet<Place>) -> Self {
        let sites: BTreeSet<_> = places.iter().map(|place| place.site.as_str()).collect();
        let names: Vec<_> = places.iter().map(Place::to_string).collect();
        let when = format_time(since).map(|since| format!("At {since} UTC")).unwrap_or_else(|| "Before".to_owned());
        let what = text![when, ", when you could not be alerted, at ", names.join(", "), ": ", kind.headline(), "."];
        Self {
            headline: format!("{}: {}", heading(&sites), kind.headline()),
            gist: what.clone(),
            paragraphs: vec![what, kind.consequence().into()],
            next: "The reconciler's log of that time has the details.".into(),
            id: format!("{}/late", thread(kind, since)),
            thread: thread(kind, since),
            keywords: keywords(kind, &sites),
            event_type: kind.to_string(),
        }
    }

    /// A problem that is over, at places where people know of it; everywhere, if none is named.
    pub(crate) fn solved(
        kind: ProblemKind,
        since: OffsetDateTime,
        places: &BTreeSet<Place>,
        now: OffsetDateTime,
    ) -> Self {
        let sites: BTreeSet<_> = places.iter().map(|place| place.site.as_str()).collect();
        let at = if places.is_empty() { "all sites".to_owned() } else { heading(&sites) };
        let lasted = format_time(since).map(|since| format!("It had lasted since {since} UTC.")).unwrap_or_default();
        let names: Vec<_> = places.iter().map(Place::to_string).collect();
        let names = if names.len() > 1 { format!(" ({})", names.join(", ")) } else { String::new() };
        Self {
            headline: format!("{at}: solved: {}", kind.headline()),
            paragraphs: vec![format!("Solved at {at}{names}: {}. {lasted}", kind.headline()).into()],
            gist: lasted.into(),
            next: Text::default(),
            id: thread_id(&format!("{}/solved", thread(kind, since)), now),
            thread: thread(kind, since),
            keywords: keywords(kind, &sites),
            event_type: kind.to_string(),
        }
    }

    /// What came of a test that a person asked for. `text` is the report.
    pub fn test(outcome: &str, text: &str, now: OffsetDateTime) -> Self {
        let id = thread_id("test", now);
        Self {
            headline: format!("Fanout: test: {outcome}"),
            gist: Text::default(),
            paragraphs: vec![
                "Somebody had Tableau test its webhooks. This message shows that alerts reach you.".into(),
                Text::joined(text.lines().map(report_line), "\n"),
            ],
            next: "Nothing needs to be done if every test was taken.".into(),
            thread: id.clone(),
            id,
            keywords: vec!["test".to_owned()],
            event_type: "test".to_owned(),
        }
    }
}

impl From<Notification> for AlertMessage {
    fn from(notification: Notification) -> Self {
        let Notification { headline, gist, paragraphs, next, id, thread, keywords, event_type } = notification;
        let description = Text::joined(paragraphs, "\n\n");
        let end = if next.is_empty() { Text::default() } else { text!["\n\n", next.clone()] };
        AlertContent {
            subject: text!["Tableau ", headline.clone()],
            email: description.clone().and(end),
            sms: text!["Tableau ", headline.clone(), ". ", gist],
            id,
            title: headline.clone().into(),
            description,
            next: if next.is_empty() { "Nothing needs to be done.".into() } else { next },
            keywords,
            thread,
            summary: headline.into(),
            event_type,
            related: None,
        }
        .into()
    }
}

/// A line of a report.
fn report_line(line: &str) -> Text {
    let indented = if line.starts_with("  ") { "  " } else { "" };
    text![indented, line.trim().to_owned()]
}

/// The sites by name, or how many they are.
pub(crate) fn heading(sites: &BTreeSet<&str>) -> String {
    if sites.len() > IN_HEADING {
        return format!("{} sites", sites.len());
    }
    sites.iter().copied().collect::<Vec<_>>().join(", ")
}

/// What keeps the message about a problem and the one about its end together.
fn thread(kind: ProblemKind, since: OffsetDateTime) -> String {
    thread_id(&kind.to_string(), since)
}

fn thread_id(what: &str, since: OffsetDateTime) -> String {
    format!("{what}/{}", since.format(&Rfc3339).unwrap_or_default())
}

fn keywords(kind: ProblemKind, sites: &BTreeSet<&str>) -> Vec<String> {
    [kind.to_string()].into_iter().chain(sites.iter().take(IN_HEADING).map(|site| (*site).to_owned())).collect()
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

    /// Every form of a message, as a person might see them one below the other.
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
    fn a_new_trouble_says_what_happened_what_it_means_and_what_to_do() {
        insta::assert_snapshot!(shown(new(&["marketing".to_owned()])));
    }

    #[test]
    fn a_trouble_of_many_sites_tells_of_some_in_full_and_names_the_others() {
        let sites: Vec<_> = (1..=12).map(|number| format!("site-{number:02}")).collect();
        insta::assert_snapshot!(shown(new(&sites)));
    }

    #[test]
    fn a_trouble_that_is_gone_is_told_in_the_thread_of_its_beginning() {
        let place = Place { site: "marketing".to_owned(), event: None };
        let solved = Notification::solved(ProblemKind::TokenRefused, NOW, &BTreeSet::from([place]), NOW);
        assert_eq!(solved.thread, new(&["marketing".to_owned()]).thread);
        insta::assert_snapshot!(shown(solved));
    }

    #[test]
    fn what_tableau_says_becomes_no_mention_and_no_novel() {
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
        fn whatever_tableau_says_no_notice_of_it_has_markup_or_is_refused(
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
