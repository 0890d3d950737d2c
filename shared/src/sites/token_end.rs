//! End of a personal access token: its stages, at each of which subscribers are alerted, and its stored state.
//!
//! Tableau Cloud lists when a token ends. Elsewhere the site entry may say so. The last answer of Tableau about the present
//! token counts for more than the entry, the entry for more than an earlier answer.

use serde::{Deserialize, Serialize};
use time::{
    Date, Duration, OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, macros::format_description,
};

use crate::{
    alerts::{phrasing::pluralize, state::AlertState},
    problems::{ProblemKind, Problems},
    timestamp::Timestamp,
};

/// The days before the end at which an alert is sent. The alert of the end itself is that Tableau refuses the token.
pub const STAGES: [i64; 4] = [30, 14, 7, 1];

/// The time between two readings of the list of tokens.
const READ_EVERY: Duration = Duration::DAY;

/// The longest time after its end in which a token may still be accepted. A date in a site entry stands for its beginning in
/// UTC, and clocks differ. A token that is accepted later has another end.
const GRACE: Duration = Duration::days(2);

/// The time at which a token ends, in UTC, to the second.
///
/// ```
/// use shared::sites::token_end::TokenEnd;
/// use time::macros::datetime;
///
/// let end = TokenEnd::parse("2027-05-21").ok_or("no date")?;
/// assert_eq!(Some(end), TokenEnd::parse("2027-05-21T02:00:00+02:00"));
///
/// let now = datetime!(2027-05-10 08:00 UTC);
/// assert_eq!(end.to_string(), "2027-05-21T00:00:00Z");
/// assert_eq!(end.in_days(now), "2027-05-21 (in 10 days)");
/// // Subscribers are alerted if the last alert was sent before this time.
/// assert_eq!(end.stage_began(now), Some(datetime!(2027-05-07 00:00 UTC)));
/// # Ok::<_, &str>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenEnd(Timestamp);

impl TokenEnd {
    /// The end at a time.
    pub fn at(at: OffsetDateTime) -> Self {
        Self(Timestamp(at.to_offset(UtcOffset::UTC).truncate_to_second()))
    }

    /// Reads a date or a time in the form of RFC 3339. A date stands for its beginning in UTC.
    pub fn parse(text: &str) -> Option<Self> {
        let of_date =
            || Date::parse(text, format_description!("[year]-[month]-[day]")).ok().map(|it| it.midnight().assume_utc());
        // No calendar of Tableau goes further, and no calculation leaves the range of times.
        let at = OffsetDateTime::parse(text, &Rfc3339).ok().or_else(of_date)?;
        Some(at).filter(|at| (1971..9000).contains(&at.year())).map(Self::at)
    }

    /// Returns the time.
    pub fn time(self) -> OffsetDateTime {
        self.0.0
    }

    /// Returns the number of whole days that are left; none after the end.
    pub fn days_left(self, now: OffsetDateTime) -> u32 {
        (self.time() - now).whole_days().try_into().unwrap_or_default()
    }

    /// Formats the date and the number of days that are left.
    pub fn in_days(self, now: OffsetDateTime) -> String {
        let days = match self.days_left(now) {
            0 if self.time() <= now => "reached".to_owned(),
            0 => "in less than a day".to_owned(),
            days => format!("in {}", pluralize(days.try_into().unwrap_or(usize::MAX), "day", "days")),
        };
        format!("{} ({days})", self.time().date())
    }

    /// Returns when the present stage began: the last of those [`STAGES`] days before the end. `None` if none has begun, or if
    /// the end is past for so long that a token that is accepted must have another.
    pub fn stage_began(self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let began = STAGES.iter().map(|days| self.time() - Duration::days(*days));
        began.filter(|began| *began <= now).max().filter(|_| !self.is_refuted(now))
    }

    /// Whether a token that is accepted now must have another end.
    fn is_refuted(self, now: OffsetDateTime) -> bool {
        now - self.time() > GRACE
    }
}

impl std::fmt::Display for TokenEnd {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// State of the announcements of a token's end. An item of its own, since an earlier release would take the site's item with
/// it for unreadable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenEndState {
    /// The token: the digest of its server and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// When Tableau was asked for the list of tokens. Further calls on that day leave it, so that they cause no write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked: Option<Timestamp>,
    /// The end in the last list that had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listed: Option<TokenEnd>,
    /// Whether the last list had none, or could not be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_outdated: bool,
    /// The end that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends: Option<TokenEnd>,
    /// The announcement that subscribers know of, and when it was last made.
    #[serde(default, skip_serializing_if = "Problems::is_empty")]
    problems: Problems,
    /// The announcement that subscribers may know of, and when it was made.
    #[serde(default, skip_serializing_if = "Problems::is_empty")]
    alerting: Problems,
}

impl TokenEndState {
    /// Returns when the token ends, if that is known.
    pub fn ends(&self) -> Option<TokenEnd> {
        self.ends
    }

    /// Returns the announcement, as subscribers know it.
    pub fn alerts(&self) -> AlertState {
        AlertState { known: self.problems.clone(), alerting: self.alerting.clone() }
    }

    /// Replaces the announcement by the one among the problems of a site.
    #[must_use]
    pub fn with_alerts(self, alerts: AlertState) -> Self {
        let AlertState { known, alerting } = alerts.only(|kind| kind == ProblemKind::TokenEnding);
        Self { problems: known, alerting, ..self }
    }

    /// Whether to ask Tableau for the list of tokens: once a day, at once for another token, and in each run while the end
    /// that it listed is announced, so that a renewal is noticed.
    pub fn is_due(&self, token: &str, now: OffsetDateTime) -> bool {
        let is_listed = self.listed.is_some() && !self.is_outdated;
        self.token.as_deref() != Some(token) || !self.was_asked(now) || (self.is_announced() && is_listed)
    }

    /// Notes that Tableau was asked, and the end of the token in its list, if it had one.
    pub fn note_asked(&mut self, token: &str, listed: Option<TokenEnd>, now: OffsetDateTime) {
        self.forget_other(token);
        if !self.was_asked(now) {
            self.asked = Some(Timestamp(now.truncate_to_second()));
        }
        self.is_outdated = listed.is_none() && self.listed.is_some();
        self.listed = listed.or(self.listed);
    }

    /// Notes which end counts now. `declared` is the one in the site entry; `is_accepted` says whether Tableau accepted the
    /// token in this run. Returns whether the token was renewed, so that the announcement is over: a new end that is near
    /// already is announced by the next run.
    pub fn note_end(
        &mut self,
        token: &str,
        declared: Option<TokenEnd>,
        is_accepted: bool,
        now: OffsetDateTime,
    ) -> bool {
        let before = self.ends;
        self.forget_other(token);
        let current = self.listed.filter(|_| !self.is_outdated);
        let is_possible = |end: &TokenEnd| !(is_accepted && end.is_refuted(now));
        self.ends = [current, declared, self.listed].into_iter().flatten().find(is_possible);
        let is_later = |(ends, before): (TokenEnd, TokenEnd)| ends.time() - before.time() > GRACE;
        self.is_announced() && self.ends.zip(before).is_some_and(is_later)
    }

    fn was_asked(&self, now: OffsetDateTime) -> bool {
        self.asked.is_some_and(|Timestamp(asked)| asked <= now && now - asked < READ_EVERY)
    }

    fn is_announced(&self) -> bool {
        self.alerts() != AlertState::default()
    }

    /// Forgets the ends of another token.
    fn forget_other(&mut self, token: &str) {
        if self.token.as_deref() != Some(token) {
            let Self { problems, alerting, ends, .. } = std::mem::take(self);
            *self = Self { token: Some(token.to_owned()), problems, alerting, ends, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::{
        problems::ProblemKey,
        state::{read_item, to_item},
    };

    const NOW: OffsetDateTime = datetime!(2026-05-21 08:00:00.5 UTC);

    const TOKEN: &str = "4f1d";

    fn end_in(time: Duration) -> TokenEnd {
        TokenEnd::at(NOW + time)
    }

    /// A state whose announcement was made at a time.
    fn announced(state: TokenEndState, at: OffsetDateTime) -> TokenEndState {
        let key = ProblemKey { kind: ProblemKind::TokenEnding, event: None };
        let known = [(key, Timestamp(at))].into();
        state.with_alerts(AlertState { known, alerting: Problems::new() })
    }

    #[test]
    fn an_end_is_a_date_or_a_time() {
        for (text, expected) in [
            ("2027-05-21", Some("2027-05-21T00:00:00Z")),
            ("2027-05-21T08:00:00Z", Some("2027-05-21T08:00:00Z")),
            ("2027-05-21T08:00:00.999+02:00", Some("2027-05-21T06:00:00Z")),
            ("0000-01-01", None),
            ("9999-12-31T23:59:59-23:59", None),
            ("2027-02-30", None),
            ("21.05.2027", None),
            ("2027-05-21 08:00", None),
            ("never", None),
            ("", None),
        ] {
            assert_eq!(TokenEnd::parse(text).map(|end| end.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn days_are_counted_down_in_words() {
        for (left, expected) in [
            (Duration::days(30) + Duration::SECOND, "(in 30 days)"),
            (Duration::days(30) - Duration::SECOND, "(in 29 days)"),
            (Duration::DAY + Duration::SECOND, "(in 1 day)"),
            (Duration::HOUR, "(in less than a day)"),
            (Duration::seconds(-1), "(reached)"),
        ] {
            let text = end_in(left).in_days(NOW);
            assert!(text.ends_with(expected), "{left}: {text}");
        }
    }

    #[test]
    fn the_last_answer_of_tableau_counts_then_the_entry_then_an_earlier_answer() {
        let [listed, declared] = [end_in(Duration::days(300)), end_in(Duration::days(200))];
        let mut state = TokenEndState::default();
        state.note_end(TOKEN, Some(declared), true, NOW);
        assert_eq!(state.ends(), Some(declared));
        state.note_asked(TOKEN, Some(listed), NOW);
        for (declared, expected) in [(None, Some(listed)), (Some(declared), Some(listed))] {
            state.note_end(TOKEN, declared, true, NOW);
            assert_eq!(state.ends(), expected);
        }
        state.note_asked(TOKEN, None, NOW);
        for (declared, expected) in [(None, Some(listed)), (Some(declared), Some(declared))] {
            state.note_end(TOKEN, declared, true, NOW);
            assert_eq!(state.ends(), expected);
        }
        // Another token.
        state.note_end("5e2c", None, true, NOW);
        assert_eq!(state.ends(), None);
    }

    #[test]
    fn a_token_that_is_accepted_long_after_its_end_has_another() {
        let mut state = TokenEndState::default();
        for (past, is_accepted, is_kept) in [(1, true, true), (3, false, true), (3, true, false)] {
            let end = end_in(-Duration::days(past));
            state.note_end(TOKEN, Some(end), is_accepted, NOW);
            assert_eq!(state.ends(), Some(end).filter(|_| is_kept), "{past} {is_accepted}");
        }
    }

    #[test]
    fn tableau_is_asked_once_a_day_and_in_each_run_while_its_end_is_announced() {
        let later = |hours| NOW + Duration::hours(hours);
        let mut state = TokenEndState::default();
        assert!(state.is_due(TOKEN, NOW));
        state.note_asked(TOKEN, None, NOW);
        let is_due = |state: &TokenEndState, hours| state.is_due(TOKEN, later(hours));
        assert_eq!([0, 23, 25].map(|hours| is_due(&state, hours)), [false, false, true]);
        assert!(state.is_due("5e2c", NOW), "another token");
        assert!(is_due(&state, -1), "the clock was set back");
        // A server that has no list is not asked more often.
        assert!(!is_due(&announced(state.clone(), NOW), 1));
        state.note_asked(TOKEN, Some(end_in(Duration::days(20))), later(25));
        assert!(!is_due(&state, 26) && is_due(&announced(state.clone(), later(25)), 26));
        // These calls change nothing that is stored.
        let before = state.clone();
        state.note_asked(TOKEN, Some(end_in(Duration::days(20))), later(26));
        assert_eq!(state, before);
    }

    #[test]
    fn a_later_end_is_a_renewal_of_what_was_announced() {
        let renewed = |announce: bool, token: &str, days: i64| {
            let mut state = TokenEndState::default();
            state.note_end(TOKEN, Some(end_in(Duration::days(10))), true, NOW);
            let mut state = if announce { announced(state, NOW) } else { state };
            state.note_end(token, Some(end_in(Duration::days(days))), true, NOW)
        };
        assert!(renewed(true, TOKEN, 365) && renewed(true, "5e2c", 20));
        assert!(!renewed(false, TOKEN, 365) && !renewed(true, TOKEN, 11) && !renewed(true, "5e2c", 9));
    }

    #[test]
    fn the_item_is_readable_and_has_no_name_of_the_token() {
        let mut state = TokenEndState::default();
        state.note_asked(TOKEN, Some(end_in(Duration::days(20))), NOW);
        state.note_end(TOKEN, None, true, NOW);
        let item = to_item(&announced(state.clone(), NOW));
        let expected = json!({
            "format": 1,
            "token": TOKEN,
            "asked": "2026-05-21T08:00:00Z",
            "listed": "2026-06-10T08:00:00Z",
            "ends": "2026-06-10T08:00:00Z",
            "problems": { "token-ending": "2026-05-21T08:00:00.5Z" },
        });
        assert_eq!(item, expected);
        assert_eq!(read_item::<TokenEndState>(&item).ok(), Some(announced(state, NOW)));
        assert_eq!(to_item(&TokenEndState::default()), json!({ "format": 1 }));
    }

    proptest! {
        /// Runs at any times alert of each stage once: when the last alert was sent before the stage began.
        #[test]
        fn each_stage_that_a_run_sees_is_alerted_once(
            lasts in 0_i64..400 * 24, gaps in proptest::collection::vec(1_i64..60 * 24, 1..60), fraction in 0_i64..1_000_000_000,
        ) {
            let end = TokenEnd::at(NOW + Duration::hours(lasts));
            let (mut now, mut last, mut alerted) = (NOW + Duration::nanoseconds(fraction), None::<OffsetDateTime>, Vec::new());
            for gap in gaps {
                let began = end.stage_began(now);
                let left = end.time() - now;
                // The greatest stage that has begun.
                let stage = STAGES.into_iter().filter(|days| left <= Duration::days(*days)).min();
                prop_assert_eq!(began.is_some(), stage.is_some() && left >= -GRACE, "{}", left);
                prop_assert!(began.is_none_or(|began| began <= now));
                if let Some(began) = began && last.is_none_or(|last| last < began) {
                    last = Some(now.truncate_to_second());
                    alerted.extend(stage);
                }
                now += Duration::hours(gap);
            }
            // In order, and none twice.
            prop_assert!(alerted.is_sorted_by(|one, other| one > other), "{:?}", alerted);
        }
    }
}
