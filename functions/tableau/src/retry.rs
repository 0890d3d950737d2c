//! Retry policies: after which failures a call is repeated, how often, and after how long.

use std::time::Duration;

/// The most attempts at a call.
const MAX_ATTEMPTS: u32 = 3;

/// The wait before the second attempt; twice as long before the third.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The wait after a 429 that names none; twice as long the second time.
const DEFAULT_RATE_LIMIT_WAIT: Duration = Duration::from_secs(15);

/// A failure that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The connection failed or broke off.
    NoAnswer,
    /// The answer took longer than a call may.
    Timeout,
    /// Tableau answered 5xx.
    ServerError,
    /// Tableau answered 429.
    RateLimited,
}

/// The failures after which a call is repeated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryPolicy(&'static [Failure]);

impl RetryPolicy {
    /// For calls that may be carried out twice. A repeated sign-in ends the session of the first.
    pub(crate) const REPEATABLE: Self =
        Self(&[Failure::NoAnswer, Failure::Timeout, Failure::ServerError, Failure::RateLimited]);

    /// For creating a webhook: after any other failure Tableau may have created one, and a repetition creates a second.
    pub(crate) const CREATE: Self = Self(&[Failure::RateLimited]);

    /// For jobs, their context and tokens: a later run reads jobs and tokens too, and context is left out, so a long wait gains
    /// nothing.
    pub(crate) const JOBS: Self = Self(&[Failure::NoAnswer, Failure::ServerError]);

    /// Returns the wait between attempt number `attempt`, which failed, and the next; `None` if there is no next one.
    /// `requested` is the wait that Tableau asked for.
    pub(crate) fn wait(self, failure: Failure, attempt: u32, requested: Option<Duration>) -> Option<Duration> {
        if attempt >= MAX_ATTEMPTS || !self.0.contains(&failure) {
            return None;
        }
        let first = if failure == Failure::RateLimited { DEFAULT_RATE_LIMIT_WAIT } else { FIRST_WAIT };
        Some(requested.unwrap_or_else(|| jittered(first * 2_u32.pow(attempt - 1))))
    }
}

/// Shortens a wait by a random share of up to a half, so that the sites of one server do not return together.
fn jittered(wait: Duration) -> Duration {
    // Without randomness all waits are equal, which is still a wait.
    let chance = getrandom::u32().unwrap_or_default();
    wait - wait.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_retries_its_failures_twice_with_growing_waits() {
        let wait = |policy: RetryPolicy, failure| policy.wait(failure, 1, None);
        assert_eq!(wait(RetryPolicy::CREATE, Failure::Timeout), None);
        assert_eq!(wait(RetryPolicy::JOBS, Failure::RateLimited), None);
        for (failure, first) in [(Failure::ServerError, FIRST_WAIT), (Failure::RateLimited, DEFAULT_RATE_LIMIT_WAIT)] {
            for (attempt, longest) in [(1, first), (2, 2 * first)] {
                let wait = RetryPolicy::REPEATABLE.wait(failure, attempt, None).expect("a next attempt");
                assert!((longest / 2..=longest).contains(&wait), "{failure:?} {attempt} {wait:?}");
            }
            assert_eq!(RetryPolicy::REPEATABLE.wait(failure, MAX_ATTEMPTS, None), None);
        }
    }

    #[test]
    fn the_wait_that_tableau_asks_for_is_kept() {
        let requested = Some(Duration::from_secs(7));
        assert_eq!(RetryPolicy::CREATE.wait(Failure::RateLimited, 2, requested), requested);
    }
}
