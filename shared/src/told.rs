//! Which troubles people were told of, so that they are told once: when a trouble comes and when it is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::{OffsetDateTime, serde::rfc3339};

use crate::{
    event::Event,
    notice::Notice,
    trouble::{Trouble, TroubleKind},
};

/// The most characters of an SSM parameter of the standard tier (AWS Systems Manager quotas).
pub const CHARACTERS: usize = 4096;

/// The only version of the stored form so far.
const VERSION: u32 = 1;

/// Where a trouble is: a site, or one event of it. Written `marketing` or `marketing/ViewDeleted`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub struct Place {
    /// Our name for the site.
    pub site: String,
    /// The event, if it is a trouble of one.
    pub event: Option<Event>,
}

impl From<String> for Place {
    fn from(text: String) -> Self {
        let event = text.rsplit_once('/').and_then(|(site, event)| Some((site.to_owned(), event.parse().ok()?)));
        match event {
            Some((site, event)) => Self { site, event: Some(event) },
            None => Self { site: text, event: None },
        }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.site)?;
        self.event.as_ref().map_or(Ok(()), |event| write!(formatter, "/{event}"))
    }
}

/// The troubles that people were told of and that are not gone yet.
///
/// It fits into a parameter whatever happens: while it does not, the places of the kind that takes most room are
/// forgotten, and of that kind people are told no more until it is gone everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    troubles: BTreeMap<(TroubleKind, Since), Places>,
    /// Webhooks that were disabled, and since when people wait to be told.
    untold: Option<(Since, BTreeSet<Place>)>,
}

/// When people were told.
type Since = OffsetDateTime;

/// Where a kind of trouble is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Places {
    /// At more places than can be listed.
    Many,
    /// At these.
    These(BTreeSet<Place>),
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    troubles: Vec<StoredTroubles>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    untold: Option<StoredTroubles>,
}

#[derive(Serialize, Deserialize)]
struct StoredTroubles {
    kind: TroubleKind,
    #[serde(with = "rfc3339")]
    since: Since,
    /// Left out if they are too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    places: Option<BTreeSet<Place>>,
}

/// The stored text is not of a form that this release knows.
#[derive(Debug, Error)]
#[error("it is not what this release stores there")]
pub struct InvalidTold;

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Findings<'a> {
    /// Every site that is declared.
    pub declared: BTreeSet<&'a str>,
    /// The sites that the run looked at.
    pub visited: BTreeSet<&'a str>,
    /// The troubles, with the site that each is at.
    pub troubles: Vec<(&'a str, &'a Trouble)>,
}

impl Findings<'_> {
    fn has_not_come_to(&self, place: &Place) -> bool {
        self.declared.contains(place.site.as_str()) && !self.visited.contains(place.site.as_str())
    }
}

impl Told {
    /// Reads the stored text.
    ///
    /// # Errors
    ///
    /// It is of no form that is known.
    pub fn parse(text: &str) -> Result<Self, InvalidTold> {
        let Stored { version, troubles, untold } = serde_json::from_str(text).map_err(|_| InvalidTold)?;
        if version != VERSION {
            return Err(InvalidTold);
        }
        let places = |places: Option<_>| places.map_or(Places::Many, Places::These);
        Ok(Self {
            troubles: troubles.into_iter().map(|told| ((told.kind, told.since), places(told.places))).collect(),
            untold: untold.map(|untold| (untold.since, untold.places.unwrap_or_default())),
        })
    }

    /// The text to store: JSON that a person can read, of at most [`CHARACTERS`].
    pub fn to_stored(&self) -> String {
        let troubles = self.troubles.iter().map(|((kind, since), places)| {
            let places = match places {
                Places::Many => None,
                Places::These(places) => Some(places.clone()),
            };
            StoredTroubles { kind: *kind, since: *since, places }
        });
        let untold = self.untold.as_ref().map(|(since, places)| StoredTroubles {
            kind: TroubleKind::WebhookDisabled,
            since: *since,
            places: Some(places.clone()),
        });
        to_json(&Stored { version: VERSION, troubles: troubles.collect(), untold })
    }

    /// Whether people were told of this trouble at this site.
    pub fn knows(&self, kind: TroubleKind, site: &str) -> bool {
        self.since(kind, site).is_some()
    }

    /// Since when there is this trouble at this site, if people were told of it; of one that wanders, since when no run has
    /// come to the site.
    pub fn since(&self, kind: TroubleKind, site: &str) -> Option<OffsetDateTime> {
        let mut of_kind = self.troubles.iter().filter(|((told, _), _)| *told == kind);
        let found = of_kind.find(|(_, places)| match places {
            Places::Many => true,
            Places::These(places) => places.iter().any(|place| place.site == site),
        });
        found.map(|((_, since), _)| *since)
    }

    /// What people are to be told after a run, and what they will have been told then. Of a site that was not looked
    /// at, or not as far, nothing is concluded; a site that is no longer declared has no troubles.
    #[must_use]
    pub fn after(self, found: &Findings<'_>, now: OffsetDateTime) -> (Self, Vec<Notice>) {
        // What is shown and stored is read by people.
        let now = now.truncate_to_second();
        let mut found_at: BTreeMap<TroubleKind, BTreeMap<Place, &Trouble>> = BTreeMap::new();
        let mut met: BTreeMap<&str, BTreeSet<TroubleKind>> = BTreeMap::new();
        for (site, trouble) in &found.troubles {
            let place = Place { site: (*site).to_owned(), event: trouble.event.clone() };
            found_at.entry(trouble.kind).or_default().insert(place, trouble);
            met.entry(site).or_default().insert(trouble.kind);
        }
        // Whether the run could have met the kind at the site.
        let is_known = |kind: TroubleKind, site: &str| {
            found.visited.contains(site) && !met.get(site).into_iter().flatten().any(|other| other.hides(kind))
        };
        let (mut told, mut notices) = (Self::default(), Vec::new());
        notices.extend(self.untold.map(|(since, places)| Notice::late(since, &places)));
        let (wandering, troubles): (BTreeMap<_, _>, _) =
            self.troubles.into_iter().partition(|((kind, _), _)| kind.wanders());
        let first = wandering.keys().next().copied();
        if let Some((kind, since)) = first {
            let here = found_at.remove(&kind);
            if here.is_none() && found.declared.iter().all(|site| is_known(kind, site)) {
                notices.push(Notice::solved(kind, since, None, now));
            } else {
                told.follow(kind, wandering, here.unwrap_or_default().into_keys().collect(), found, now);
            }
        }
        for ((kind, since), places) in troubles {
            let here = found_at.get(&kind);
            let mut solved = |places| {
                if kind.ends_with_a_message() {
                    notices.push(Notice::solved(kind, since, places, now));
                }
            };
            match places {
                Places::Many => {
                    let may_be_left = here.is_some() || found.declared.iter().any(|site| !is_known(kind, site));
                    if may_be_left {
                        told.troubles.insert((kind, since), Places::Many);
                    } else {
                        solved(None);
                    }
                }
                Places::These(places) => {
                    let is_declared = |place: &Place| found.declared.contains(place.site.as_str());
                    let is_left = |place: &Place| {
                        here.is_some_and(|here| here.contains_key(place)) || !is_known(kind, &place.site)
                    };
                    let (left, gone): (BTreeSet<_>, BTreeSet<_>) =
                        places.into_iter().filter(is_declared).partition(is_left);
                    if !gone.is_empty() {
                        solved(Some(&gone));
                    }
                    if !left.is_empty() {
                        told.troubles.insert((kind, since), Places::These(left));
                    }
                }
            }
        }
        for (kind, mut here) in found_at {
            for (_, places) in told.troubles.iter().filter(|((told, _), _)| *told == kind) {
                match places {
                    Places::Many => here.clear(),
                    Places::These(places) => here.retain(|place, _| !places.contains(place)),
                }
            }
            if !here.is_empty() {
                notices.push(Notice::new(kind, now, &here));
                let is_kept = |place: &Place| !kind.wanders() || found.has_not_come_to(place);
                let mut places: BTreeSet<_> = here.into_keys().filter(is_kept).collect();
                // Another run may have told of others in the same second.
                if let Some(Places::These(others)) = told.troubles.remove(&(kind, now)) {
                    places.extend(others);
                }
                told.troubles.insert((kind, now), Places::These(places));
            }
        }
        told.fit();
        (told, notices)
    }

    /// Remembers a kind of which people were told already, wherever it was: the places to which no run has come since, with
    /// when that was.
    fn follow(
        &mut self,
        kind: TroubleKind,
        before: BTreeMap<(TroubleKind, Since), Places>,
        mut here: BTreeSet<Place>,
        found: &Findings<'_>,
        now: OffsetDateTime,
    ) {
        for (number, (key, places)) in before.into_iter().enumerate() {
            let left: BTreeSet<_> = match places {
                Places::Many => BTreeSet::new(),
                Places::These(places) => places.into_iter().filter(|place| found.has_not_come_to(place)).collect(),
            };
            here.retain(|place| !left.contains(place));
            // The first says when people were told.
            if number == 0 || !left.is_empty() {
                self.troubles.insert(key, Places::These(left));
            }
        }
        here.retain(|place| found.has_not_come_to(place));
        if here.is_empty() {
            return;
        }
        match self.troubles.entry((kind, now)).or_insert_with(|| Places::These(BTreeSet::new())) {
            Places::These(places) => places.extend(here),
            Places::Many => {}
        }
    }

    /// What there is to remember of a run that could not tell people anything. A trouble that stays is met by the next
    /// run; a webhook that was disabled is enabled by then, and what was lost meanwhile would never be heard of.
    #[must_use]
    pub fn after_telling_nobody(mut self, found: &Findings<'_>, now: OffsetDateTime) -> Self {
        let disabled = found.troubles.iter().filter(|(_, trouble)| trouble.kind == TroubleKind::WebhookDisabled);
        let disabled = disabled.map(|(site, trouble)| Place { site: (*site).to_owned(), event: trouble.event.clone() });
        let disabled: BTreeSet<_> = disabled.collect();
        if !disabled.is_empty() {
            self.untold.get_or_insert_with(|| (now.truncate_to_second(), BTreeSet::new())).1.extend(disabled);
        }
        self.fit();
        self
    }

    /// Forgets places until the stored form fits.
    fn fit(&mut self) {
        while self.to_stored().len() > CHARACTERS {
            let room = |kind: TroubleKind| {
                let places =
                    self.troubles.iter().filter(move |((told, _), _)| *told == kind).map(|(_, places)| match places {
                        Places::Many => 0,
                        Places::These(places) => places.iter().map(|place| place.to_string().len()).sum::<usize>(),
                    });
                places.sum::<usize>()
            };
            if let Some((_, untold)) = &mut self.untold
                && self.troubles.keys().all(|(kind, _)| room(*kind) == 0)
            {
                // That there are some is told in any case.
                untold.pop_last();
                continue;
            }
            let Some((kind, since)) = self.troubles.keys().copied().max_by_key(|(kind, _)| room(*kind)) else { return };
            let since =
                self.troubles.keys().filter(|(told, _)| *told == kind).map(|(_, since)| *since).fold(since, Ord::min);
            self.troubles.retain(|(told, _), _| *told != kind);
            self.troubles.insert((kind, since), Places::Many);
        }
    }
}

#[expect(clippy::expect_used, reason = "kinds, times and names under fixed names can always be written as JSON")]
fn to_json(stored: &Stored) -> String {
    serde_json::to_string(stored).expect("what was told is JSON")
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use time::{Duration, macros::datetime};

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-05-21 08:00:00.5 UTC);

    fn trouble(kind: TroubleKind, event: Option<&str>) -> Trouble {
        let event = event.map(|event| event.parse().expect("an event"));
        Trouble { kind, event, what: "It broke.".to_owned(), remedy: "Mend it.".to_owned(), detail: None }
    }

    /// What a run found that looked at all declared sites.
    fn found<'a>(declared: &[&'a str], troubles: &[(&'a str, &'a Trouble)]) -> Findings<'a> {
        let declared: BTreeSet<_> = declared.iter().copied().collect();
        Findings { visited: declared.clone(), declared, troubles: troubles.to_vec() }
    }

    fn headlines(notices: &[Notice]) -> Vec<&str> {
        notices.iter().map(|notice| notice.headline.as_str()).collect()
    }

    #[test]
    fn a_trouble_is_told_when_it_comes_and_when_it_is_gone_and_not_between() {
        let refused = trouble(TroubleKind::TokenRefused, None);
        let troubled = found(&["a", "b"], &[("a", &refused)]);
        let (told, notices) = Told::default().after(&troubled, NOW);
        assert_eq!(headlines(&notices), ["a: token refused"]);
        assert_eq!(
            told.to_stored(),
            r#"{"version":1,"troubles":[{"kind":"token-refused","since":"2026-05-21T08:00:00Z","places":["a"]}]}"#
        );
        let (told, notices) = told.after(&troubled, NOW + Duration::minutes(15));
        assert_eq!(headlines(&notices), [""; 0]);
        let (told, notices) = told.after(&found(&["a", "b"], &[]), NOW + Duration::minutes(30));
        assert_eq!(headlines(&notices), ["a: solved: token refused"]);
        assert_eq!(told, Told::default());
    }

    #[test]
    fn of_a_site_that_was_not_looked_at_or_not_as_far_nothing_is_concluded() {
        let (refused, unreachable) =
            (trouble(TroubleKind::TokenRefused, None), trouble(TroubleKind::ServerUnreachable, None));
        let (told, _) = Told::default().after(&found(&["a", "b"], &[("a", &refused)]), NOW);
        let elsewhere = Findings { visited: ["b"].into(), ..found(&["a", "b"], &[]) };
        let (told, notices) = told.after(&elsewhere, NOW);
        assert_eq!((headlines(&notices), told.knows(TroubleKind::TokenRefused, "a")), (vec![], true));
        let (told, notices) = told.after(&found(&["a", "b"], &[("a", &unreachable)]), NOW);
        assert_eq!(headlines(&notices), ["a: server not reachable"]);
        let (told, notices) = told.after(&found(&["a", "b"], &[("a", &refused)]), NOW);
        assert_eq!(headlines(&notices), ["a: solved: server not reachable"]);
        // Whoever deletes an entry knows that its site is not looked after.
        assert_eq!(told.after(&found(&["b"], &[]), NOW), (Told::default(), vec![]));
    }

    #[test]
    fn a_disabled_webhook_is_told_of_once_and_its_repair_is_no_news() {
        let disabled = trouble(TroubleKind::WebhookDisabled, Some("ViewDeleted"));
        let (told, notices) = Told::default().after(&found(&["a"], &[("a", &disabled)]), NOW);
        assert_eq!(headlines(&notices), ["a: webhook was disabled"]);
        assert_eq!(told.after(&found(&["a"], &[]), NOW), (Told::default(), vec![]));
    }

    #[test]
    fn a_disabled_webhook_that_nobody_could_be_told_of_is_told_of_later() {
        let disabled = trouble(TroubleKind::WebhookDisabled, Some("ViewDeleted"));
        let run = found(&["a"], &[("a", &disabled)]);
        let told = Told::default().after_telling_nobody(&run, NOW);
        let told = Told::parse(&told.to_stored()).expect("readable");
        let (told, notices) = told.after(&found(&["a"], &[]), NOW);
        assert_eq!(headlines(&notices), ["a: webhook was disabled"]);
        assert_eq!(told, Told::default());
        // However many they are, it fits.
        let names: Vec<_> = (0..1000).map(|number| format!("site-{number:04}")).collect();
        let run = Findings { troubles: names.iter().map(|name| (name.as_str(), &disabled)).collect(), ..run };
        let told = Told::default().after_telling_nobody(&run, NOW);
        assert!(told.to_stored().len() <= CHARACTERS);
    }

    #[test]
    fn a_trouble_of_many_sites_is_one_message() {
        let refused = trouble(TroubleKind::TokenRefused, None);
        let sites: Vec<_> = (0..12).map(|number| format!("site-{number:02}")).collect();
        let sites: Vec<_> = sites.iter().map(String::as_str).collect();
        let troubles: Vec<_> = sites.iter().map(|site| (*site, &refused)).collect();
        let (told, notices) = Told::default().after(&found(&sites, &troubles), NOW);
        assert_eq!(headlines(&notices), ["12 sites: token refused"]);
        let (_, notices) = told.after(&found(&sites, &troubles[..3]), NOW);
        assert_eq!(headlines(&notices), ["9 sites: solved: token refused"]);
    }

    #[test]
    fn a_run_that_had_no_time_for_all_sites_is_told_of_once_whichever_sites_they_are() {
        let late = trouble(TroubleKind::OutOfTime, None);
        let (mut told, mut notices) = (Told::default(), vec![]);
        for site in ["a", "b"] {
            let other = if site == "a" { "b" } else { "a" };
            let run = Findings { visited: [other].into(), ..found(&["a", "b"], &[(site, &late)]) };
            let (after, more) = told.after(&run, NOW);
            told = after;
            notices.extend(more);
        }
        let (told, more) = told.after(&found(&["a", "b"], &[]), NOW);
        notices.extend(more);
        assert_eq!(headlines(&notices), ["a: no time left", "all sites: solved: no time left"]);
        assert_eq!(told, Told::default());
    }

    #[test]
    fn of_the_sites_that_runs_have_no_time_for_it_is_remembered_since_when_none_has_come_to_them() {
        const DECLARED: [&str; 5] = ["a", "b", "c", "d", "e"];
        let late = trouble(TroubleKind::OutOfTime, None);
        let mut told = Told::default();
        let mut order = DECLARED;
        // Each run comes to two sites, and does not come to an end with the second.
        for number in 0..20 {
            let late_at: Vec<_> = order[1..].iter().map(|site| (*site, &late)).collect();
            let run = Findings { visited: [order[0], order[1]].into(), ..found(&DECLARED, &late_at) };
            let now = NOW.truncate_to_second() + Duration::minutes(number);
            let (after, notices) = told.after(&run, now);
            assert_eq!(notices.len(), usize::from(number == 0), "told of once");
            told = Told::parse(&after.to_stored()).expect("readable");
            assert_eq!(order[..2].iter().find_map(|site| told.since(TroubleKind::OutOfTime, site)), None);
            let waited: BTreeSet<_> = order[2..].iter().copied().collect();
            order.sort_by_key(|site| {
                let since = told.since(TroubleKind::OutOfTime, site);
                (since.is_none(), since)
            });
            assert_eq!(order[..3].iter().copied().collect::<BTreeSet<_>>(), waited, "first those that had no turn");
        }
        let (told, notices) = told.after(&found(&DECLARED, &[]), NOW);
        assert_eq!((headlines(&notices), told), (vec!["all sites: solved: no time left"], Told::default()));
    }

    #[test]
    fn hundreds_of_sites_in_trouble_fit_and_more_are_remembered_as_many() {
        let (refused, other) = (trouble(TroubleKind::TokenRefused, None), trouble(TroubleKind::SiteNotFound, None));
        let names: Vec<_> = (0..1000).map(|number| format!("site-{number:04}")).collect();
        let sites: Vec<_> = names.iter().map(String::as_str).collect();
        for (count, stays_exact) in [(300, true), (1000, false)] {
            let mut troubles: Vec<_> = sites[..count].iter().map(|site| (*site, &refused)).collect();
            troubles[0].1 = &other;
            let (told, _) = Told::default().after(&found(&sites, &troubles), NOW);
            assert!(told.to_stored().len() <= CHARACTERS);
            assert!(told.knows(TroubleKind::TokenRefused, sites[count - 1]));
            assert_eq!(!told.knows(TroubleKind::TokenRefused, "elsewhere"), stays_exact);
            assert!(!told.knows(TroubleKind::SiteNotFound, "elsewhere"), "the small kind stays exact");
            let (told, notices) = told.after(&found(&sites, &troubles), NOW);
            assert_eq!(headlines(&notices), [""; 0]);
            let (told, notices) = told.after(&found(&sites, &[]), NOW);
            assert_eq!((notices.len(), told), (2, Told::default()));
        }
    }

    #[test]
    fn what_is_stored_is_read_again_and_nothing_else_is() {
        let text = r#"{"version":1,"troubles":[{"kind":"test-failed","since":"2026-05-21T08:00:00Z"},
            {"kind":"webhook-refused","since":"2026-05-21T08:00:00Z","places":["a/ViewDeleted","b"]}]}"#;
        let told = Told::parse(text).expect("readable");
        assert!(told.knows(TroubleKind::TestFailed, "any") && told.knows(TroubleKind::WebhookRefused, "a"));
        assert_eq!(Told::parse(&told.to_stored()).ok(), Some(told));
        for text in ["", "{}", "[]", r#"{"version":2,"troubles":[]}"#, r#"{"version":1,"troubles":[{"kind":"new"}]}"#] {
            assert!(Told::parse(text).is_err(), "{text}");
        }
    }

    const SITES: [&str; 4] = ["a", "b", "c", "d"];

    prop_compose! {
        /// What a run may find: some sites looked at, and troubles at some of them.
        fn any_run()(
            declared in proptest::sample::subsequence(SITES.to_vec(), 0..=4),
            looked_at in proptest::sample::subsequence(SITES.to_vec(), 0..=4),
            troubles in vec((select(&SITES[..]), any_kind(), any::<bool>()), 0..6),
        ) -> (Vec<&'static str>, Vec<&'static str>, Vec<(&'static str, Trouble)>) {
            let visited: Vec<_> = looked_at.into_iter().filter(|site| declared.contains(site)).collect();
            let is_at_event = |kind| matches!(kind, TroubleKind::WebhookRefused | TroubleKind::WebhookDisabled);
            let troubles = troubles.into_iter().filter(|(site, ..)| visited.contains(site));
            let troubles = troubles.map(|(site, kind, first)| {
                let event = if first { "ViewDeleted" } else { "UserDeleted" };
                (site, trouble(kind, Some(event).filter(|_| is_at_event(kind))))
            });
            let troubles = troubles.collect();
            (declared, visited, troubles)
        }
    }

    fn any_kind() -> impl Strategy<Value = TroubleKind> {
        select(vec![
            TroubleKind::EntryUnusable,
            TroubleKind::ServerUnreachable,
            TroubleKind::TokenRefused,
            TroubleKind::OutOfTime,
            TroubleKind::WebhookRefused,
            TroubleKind::WebhookDisabled,
            TroubleKind::TestFailed,
        ])
    }

    proptest! {
        #[test]
        fn nothing_is_told_twice_and_what_is_gone_everywhere_is_forgotten(runs in vec(any_run(), 1..8)) {
            let mut told = Told::default();
            for (number, (declared, visited, troubles)) in (0..).zip(&runs) {
                let run = Findings {
                    declared: declared.iter().copied().collect(),
                    visited: visited.iter().copied().collect(),
                    troubles: troubles.iter().map(|(site, trouble)| (*site, trouble)).collect(),
                };
                let (after, _) = told.after(&run, NOW + Duration::minutes(number / 2));
                for (site, trouble) in troubles.iter().filter(|(_, trouble)| !trouble.kind.wanders()) {
                    prop_assert!(after.knows(trouble.kind, site), "{:?} at {}", trouble.kind, site);
                }
                let stored = after.to_stored();
                prop_assert!(stored.len() <= CHARACTERS);
                let read = Told::parse(&stored).expect("readable");
                prop_assert_eq!(&read, &after);
                let (again, notices) = read.after(&run, NOW + Duration::hours(1));
                prop_assert_eq!(&again, &after);
                prop_assert_eq!(notices, vec![]);
                told = after;
            }
            let (told, _) = told.after(&found(&SITES, &[]), NOW + Duration::hours(2));
            prop_assert_eq!(told, Told::default());
        }
    }
}
