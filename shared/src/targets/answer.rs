//! Judgement of a target's answer: delivered, to be sent again, or never.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use crate::alerts::phrasing::pluralize;

/// The time from a message's arrival in the queue in which it is sent again: a target that is down for a night or a day gets
/// it, and nothing arrives that is days old.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The least wait before the second attempt. Each further one is twice as long, up to half of [`MAX_GAP`].
pub const MIN_GAP: Duration = Duration::from_secs(10);

/// The longest wait, unless the target asks for a longer one. A target that works again gets everything within an hour.
pub const MAX_GAP: Duration = Duration::from_secs(60 * 60);

/// The longest wait that SQS accepts. A message can stay invisible for 12 hours from its receipt (Amazon SQS API reference,
/// `ChangeMessageVisibility`). Ten minutes are left for the batching window and the invocation before.
pub const MAX_WAIT: Duration = Duration::from_secs(12 * 60 * 60 - 10 * 60);

/// Answer of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetAnswer {
    /// An HTTP answer.
    Status {
        /// Its status.
        code: u16,
        /// Its header `Retry-After`.
        retry_after: Option<String>,
    },
    /// No answer, and the reason, such as "the connection was refused". It is a literal, since the error of an HTTP client may
    /// have the address in it.
    NoAnswer(&'static str),
}

/// One attempt to send a message.
///
/// ```
/// use std::time::Duration;
///
/// use shared::targets::answer::{Attempt, Judgement, TargetAnswer};
/// use time::macros::datetime;
///
/// let attempt = Attempt {
///     tries: 1,
///     sent_at: datetime!(2026-05-21 08:00:00 UTC),
///     now: datetime!(2026-05-21 08:00:01 UTC),
///     jitter: 0.5,
/// };
/// let answer = |code, retry_after: Option<&str>| {
///     let retry_after = retry_after.map(str::to_owned);
///     attempt.judge(&TargetAnswer::Status { code, retry_after }, false)
/// };
/// let again = |seconds| Judgement::Again { wait: Duration::from_secs(seconds), rereads: false };
///
/// assert_eq!(answer(204, None), Judgement::Delivered);
/// assert_eq!(answer(500, None), again(15));
/// assert_eq!(answer(429, Some("120")), again(120));
/// assert_eq!(answer(503, Some("Thu, 21 May 2026 08:30:01 GMT")), again(1800));
/// assert!(matches!(answer(401, None), Judgement::Again { rereads: true, .. }));
///
/// let reason = "the target answered 422, and would answer the same again".to_owned();
/// assert_eq!(answer(422, None), Judgement::Never { reason });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// The number of this attempt, from 1 (`ApproximateReceiveCount`).
    pub tries: u32,
    /// When the message came into the queue (`SentTimestamp`).
    pub sent_at: OffsetDateTime,
    /// When the answer came.
    pub now: OffsetDateTime,
    /// A random number from 0 to 1, so that messages do not return together.
    pub jitter: f64,
}

/// Consequence of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The target accepted the message.
    Delivered,
    /// The message is sent again.
    Again {
        /// After this time: whole seconds, at least one, as SQS counts them.
        wait: Duration,
        /// Whether the entry is read again first, since its credentials or its address may be outdated.
        rereads: bool,
    },
    /// The message goes to the dead letters.
    Never {
        /// The reason, which has nothing of the entry.
        reason: String,
    },
}

/// Meaning of an answer, whenever it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Passing { rereads: bool },
    Lasting,
}

impl TargetAnswer {
    fn outcome(&self, redirect_is_success: bool) -> Outcome {
        match self {
            Self::Status { code: 200..=299, .. } => Outcome::Accepted,
            Self::Status { code: 300..=399, .. } if redirect_is_success => Outcome::Accepted,
            // A rotated secret or a moved address must not cost any message.
            Self::Status { code: 401 | 403 | 404 | 410, .. } => Outcome::Passing { rereads: true },
            Self::Status { code: 408 | 425 | 429 | 500..=599, .. } | Self::NoAnswer(_) => {
                Outcome::Passing { rereads: false }
            }
            Self::Status { .. } => Outcome::Lasting,
        }
    }

    /// Whether the target asks for fewer calls, as GitHub does with 403.
    pub fn limits_rate(&self) -> bool {
        matches!(self, Self::Status { code: 429, .. } | Self::Status { retry_after: Some(_), .. })
    }

    /// Describes the answer in a sentence about the target.
    fn verb(&self) -> String {
        match self {
            Self::Status { code, .. } => format!("answered {code}"),
            Self::NoAnswer(reason) => format!("did not answer ({reason})"),
        }
    }

    /// Returns the wait that the target asks for: seconds, or a date (RFC 9110, section 10.2.3).
    fn requested_wait(&self, now: OffsetDateTime) -> Option<Duration> {
        let Self::Status { retry_after: Some(header), .. } = self else { return None };
        let header = header.trim();
        let date = || {
            let wait = OffsetDateTime::parse(header, &Rfc2822).ok()? - now;
            // A past date asks for no wait.
            Some(wait.try_into().unwrap_or_default())
        };
        let is_number = !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit());
        // A number without end is a long time as well.
        let seconds = || Duration::from_secs(header.parse().unwrap_or(u64::MAX));
        if is_number { Some(seconds()) } else { date() }
    }
}

impl Attempt {
    /// Judges the answer to this attempt. `redirect_is_success` is that of the entry.
    ///
    /// Waits grow from [`MIN_GAP`] to [`MAX_GAP`]. A longer one that the target asks for is kept, as far as SQS accepts it. No
    /// wait ends later than [`MAX_AGE`] after the arrival.
    pub fn judge(&self, answer: &TargetAnswer, redirect_is_success: bool) -> Judgement {
        let rereads = match answer.outcome(redirect_is_success) {
            Outcome::Accepted => return Judgement::Delivered,
            Outcome::Lasting => {
                let reason = format!("the target {}, and would answer the same again", answer.verb());
                return Judgement::Never { reason };
            }
            Outcome::Passing { rereads } => rereads,
        };
        let wait = self.gap().max(answer.requested_wait(self.now).unwrap_or_default());
        let wait = Duration::from_secs(wait.min(MAX_WAIT).min(self.time_left()).as_secs());
        if wait.is_zero() {
            let hours = MAX_AGE.as_secs() / 3600;
            let attempts = pluralize(self.tries.try_into().unwrap_or(usize::MAX), "attempt", "attempts");
            let reason = format!("{attempts} in {hours} hours failed, and at last the target {}", answer.verb());
            return Judgement::Never { reason };
        }
        Judgement::Again { wait, rereads }
    }

    /// Whether no further attempt follows, if this one fails.
    pub fn is_last(&self) -> bool {
        self.time_left() < Duration::from_secs(1)
    }

    /// Returns the time in which the message can still be sent again.
    fn time_left(&self) -> Duration {
        let age = self.now - self.sent_at;
        // A message from the future, by another clock, has come now.
        MAX_AGE.saturating_sub(age.try_into().unwrap_or_default())
    }

    /// Returns the wait after this attempt: from a time that doubles up to twice of it, so that each is longer than the one
    /// before, until the longest is reached.
    fn gap(&self) -> Duration {
        let doublings = 2_u32.saturating_pow(self.tries.saturating_sub(1));
        let least = MIN_GAP.saturating_mul(doublings).min(MAX_GAP / 2);
        let jitter = if self.jitter.is_finite() { self.jitter.clamp(0.0, 1.0) } else { 0.0 };
        least + least.mul_f64(jitter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*, sample::select};
    use time::macros::datetime;

    use super::*;

    const SENT_AT: OffsetDateTime = datetime!(2026-05-21 08:00:00 UTC);

    fn status(code: u16) -> TargetAnswer {
        TargetAnswer::Status { code, retry_after: None }
    }

    fn later(seconds: u32) -> TargetAnswer {
        TargetAnswer::Status { code: 429, retry_after: Some(seconds.to_string()) }
    }

    fn attempt(tries: u32, age: Duration, jitter: f64) -> Attempt {
        Attempt { tries, sent_at: SENT_AT, now: SENT_AT + age, jitter }
    }

    fn wait(attempt: Attempt, answer: &TargetAnswer) -> Option<Duration> {
        match attempt.judge(answer, false) {
            Judgement::Again { wait, .. } => Some(wait),
            Judgement::Delivered | Judgement::Never { .. } => None,
        }
    }

    fn reason(attempt: Attempt, answer: &TargetAnswer) -> String {
        match attempt.judge(answer, false) {
            Judgement::Never { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn each_status_has_its_consequence() {
        let first = attempt(1, Duration::ZERO, 0.0);
        for code in (0..=999).chain([u16::MAX]) {
            for redirect_is_success in [false, true] {
                let judgement = first.judge(&status(code), redirect_is_success);
                let again = |rereads| Judgement::Again { wait: MIN_GAP, rereads };
                match code {
                    200..=299 => assert_eq!(judgement, Judgement::Delivered, "{code}"),
                    300..=399 if redirect_is_success => assert_eq!(judgement, Judgement::Delivered, "{code}"),
                    401 | 403 | 404 | 410 => assert_eq!(judgement, again(true), "{code}"),
                    408 | 425 | 429 | 500..=599 => assert_eq!(judgement, again(false), "{code}"),
                    _ => {
                        let reason = format!("the target answered {code}, and would answer the same again");
                        assert_eq!(judgement, Judgement::Never { reason });
                    }
                }
            }
        }
        let judgement = first.judge(&TargetAnswer::NoAnswer("the connection was refused"), true);
        assert_eq!(judgement, Judgement::Again { wait: MIN_GAP, rereads: false });
    }

    #[test]
    fn gaps_double_up_to_an_hour_and_jitter_makes_them_longer() {
        let seconds = |tries, jitter| wait(attempt(tries, HOUR, jitter), &status(500)).map(|wait| wait.as_secs());
        for (tries, least, longest) in [
            (0, 10, 20),
            (1, 10, 20),
            (2, 20, 40),
            (3, 40, 80),
            (8, 1280, 2560),
            (9, 1800, 3600),
            (10, 1800, 3600),
            (1000, 1800, 3600),
            (u32::MAX, 1800, 3600),
        ] {
            assert_eq!((seconds(tries, 0.0), seconds(tries, 1.0)), (Some(least), Some(longest)), "{tries}");
            for odd in [f64::NAN, f64::INFINITY, -1.0] {
                assert_eq!(seconds(tries, odd), Some(least));
            }
            assert_eq!(seconds(tries, 7.0), Some(longest));
        }
    }

    #[test]
    fn a_wait_that_the_target_asks_for_is_kept_unless_the_own_one_is_longer() {
        let now = datetime!(2026-05-21 08:00:00 UTC);
        let attempt = Attempt { tries: 1, sent_at: now, now, jitter: 0.0 };
        for (header, seconds) in [
            ("120", 120),
            (" 3600 ", 3600),
            ("0", 10),
            ("9", 10),
            ("Thu, 21 May 2026 08:00:45 GMT", 45),
            ("Thu, 21 May 2026 07:00:00 GMT", 10),
            ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_WAIT.as_secs()),
            ("99999999999999999999999999", MAX_WAIT.as_secs()),
            ("-120", 10),
            ("+120", 10),
            ("1.5", 10),
            ("soon", 10),
            ("", 10),
        ] {
            for code in [429, 503, 401] {
                let answer = TargetAnswer::Status { code, retry_after: Some(header.to_owned()) };
                assert_eq!(wait(attempt, &answer), Some(Duration::from_secs(seconds)), "{header:?}");
            }
        }
    }

    #[test]
    fn a_wait_fits_into_sqs_and_into_the_rest_of_the_day() {
        let asked = later(86_400);
        assert_eq!(wait(attempt(1, Duration::ZERO, 0.0), &asked), Some(MAX_WAIT));
        assert_eq!(wait(attempt(1, 20 * HOUR, 0.0), &asked), Some(4 * HOUR));
        assert_eq!(
            wait(attempt(20, 24 * HOUR - Duration::from_secs(5), 0.0), &status(500)),
            Some(Duration::from_secs(5))
        );
        // The rest of the day in whole seconds.
        assert_eq!(
            wait(attempt(20, 24 * HOUR - Duration::from_millis(1_500), 0.0), &status(500)),
            Some(Duration::from_secs(1))
        );
        // By the clock of SQS the message has not come yet.
        let early = Attempt { now: SENT_AT - Duration::from_secs(60), ..attempt(1, Duration::ZERO, 0.0) };
        assert_eq!(wait(early, &status(500)), Some(MIN_GAP));
    }

    #[test]
    fn after_a_day_the_reason_has_the_last_answer() {
        insta::assert_snapshot!(reason(attempt(41, 24 * HOUR, 0.0), &status(503)), @"41 attempts in 24 hours failed, and at last the target answered 503");
        insta::assert_snapshot!(
            reason(attempt(1, 24 * HOUR - Duration::from_millis(900), 1.0), &TargetAnswer::NoAnswer("no answer in 10 s")),
            @"1 attempt in 24 hours failed, and at last the target did not answer (no answer in 10 s)"
        );
        assert_eq!(attempt(41, 25 * HOUR, 0.0).judge(&status(200), false), Judgement::Delivered);
        // The reason of an answer that lasts is the answer.
        assert_eq!(
            reason(attempt(41, 25 * HOUR, 0.0), &status(400)),
            "the target answered 400, and would answer the same again"
        );
    }

    fn any_passing_answer() -> impl Strategy<Value = TargetAnswer> {
        let code = select(vec![408, 425, 429, 500, 502, 503, 504, 599, 401, 403, 404, 410]);
        let header = prop_oneof![
            any::<u32>().prop_map(|seconds| seconds.to_string()),
            (0_u32..7200).prop_map(|seconds| seconds.to_string()),
            (0_u32..24).prop_map(|hour| format!("Fri, 22 May 2026 {hour:02}:00:00 GMT")),
            any::<String>(),
        ];
        let status = (code, option::weighted(0.3, header))
            .prop_map(|(code, retry_after)| TargetAnswer::Status { code, retry_after });
        prop_oneof![4 => status, 1 => Just(TargetAnswer::NoAnswer("the connection was refused"))]
    }

    proptest! {
        #[test]
        fn a_message_is_sent_again_for_a_day_and_no_longer_and_rarely_enough(
            answers in vec((any_passing_answer(), 0.0..1.0, 0_u64..10_000), 1..20),
        ) {
            let (mut now, mut tries) = (SENT_AT, 0);
            let end = SENT_AT + MAX_AGE;
            for (answer, jitter, took_ms) in answers.iter().cycle() {
                now += Duration::from_millis(*took_ms);
                tries += 1;
                match (Attempt { tries, sent_at: SENT_AT, now, jitter: *jitter }).judge(answer, false) {
                    Judgement::Again { wait, .. } => {
                        prop_assert!(wait >= MIN_GAP || now + wait + Duration::from_secs(1) > end, "{wait:?}");
                        prop_assert!(wait >= Duration::from_secs(1) && wait <= MAX_WAIT, "{wait:?}");
                        prop_assert_eq!(wait.subsec_nanos(), 0);
                        now += wait;
                        prop_assert!(now <= end, "{now}");
                    }
                    Judgement::Never { reason } => {
                        prop_assert!(reason.contains("24 hours"), "{reason}");
                        prop_assert!(now + Duration::from_secs(1) > end, "{now}");
                        break;
                    }
                    Judgement::Delivered => prop_assert!(false, "delivered"),
                }
            }
            // SQS moves a message to the dead letters after 1000 receipts, which is for crashes.
            prop_assert!(tries < 100, "{tries}");
        }

        #[test]
        fn a_wait_grows_with_each_attempt(jitter in vec(0.0..=1.0, 2), tries in 1_u32..9) {
            let wait = |tries, jitter| wait(attempt(tries, Duration::ZERO, jitter), &status(500));
            prop_assert!(wait(tries, jitter[0]) <= wait(tries + 1, jitter[1]) || tries == 8);
        }
    }
}
