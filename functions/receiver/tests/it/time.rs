//! The time until an answer, on a clock that the test moves.

use std::time::Duration;

use proptest::prelude::*;
use receiver::config::{AWS_TIMEOUT, START_TIMEOUT};
use tokio::time::Instant;

use crate::doubles::{Answer, Harness, KEY, Stored, path};

const FAILED: &str = include_str!("../../../../tests/payloads/datasource-refresh-failed.json");

pub(crate) fn on_a_paused_clock<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test)
}

/// Times of calls in milliseconds, odd or even ones. Timers count in milliseconds: calls of exactly the time limit, which is
/// even, may be in time or not, so the first call takes odd times and the others even ones.
fn milliseconds(parity: u64) -> impl Strategy<Value = Duration> {
    (0_u64..2000).prop_map(move |number| Duration::from_millis(2 * number + parity))
}

proptest! {
    #[test]
    fn one_deadline_holds_for_the_keys_and_both_topics_together(
        keys in milliseconds(1), events in milliseconds(0), alerts in milliseconds(0),
    ) {
        on_a_paused_clock(async {
            let harness = Harness::start(Stored::Unavailable).await;
            harness.parameter.store(Stored::Key(KEY));
            harness.parameter.slow_down(keys);
            harness.topic.slow_down(events);
            harness.alerts.slow_down(alerts);
            let start = Instant::now();
            let answer = harness.post(&path("marketing", "DatasourceRefreshFailed", KEY), FAILED).await;
            let elapsed = start.elapsed();

            let needed = keys + events.max(alerts);
            prop_assert!(elapsed <= needed.min(AWS_TIMEOUT), "{elapsed:?} of {needed:?}");
            prop_assert_eq!(answer.status, if needed < AWS_TIMEOUT { 200 } else { 503 });
            let undelivered: Vec<_> =
                harness.log().into_iter().filter(|line| line["outcome"] == "undelivered").collect();
            prop_assert_eq!(undelivered.len(), usize::from(keys < AWS_TIMEOUT && needed > AWS_TIMEOUT));
            for (name, takes) in [("error", events), ("alert_error", alerts)] {
                let is_named = undelivered.iter().any(|line| line[name].is_string());
                prop_assert_eq!(is_named, keys < AWS_TIMEOUT && keys + takes > AWS_TIMEOUT);
            }
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_does_not_wait_for_ssm_and_the_first_request_reads_the_keys() {
    let start = Instant::now();
    let harness = Harness::slow(Stored::Key(KEY), START_TIMEOUT * 2).await;
    assert_eq!(start.elapsed(), START_TIMEOUT);
    let answer = harness.post(&path("marketing", "WorkbookCreated", KEY), "{}").await;
    assert_eq!(answer.outcome(), "200 published");
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_one_read_of_the_keys_are_answered_in_time_each() {
    let harness = Harness::start(Stored::Unavailable).await;
    harness.parameter.slow_down(AWS_TIMEOUT * 2);
    let path = path("marketing", "WorkbookCreated", KEY);
    let request = async |after: Duration| {
        tokio::time::sleep(after).await;
        let start = Instant::now();
        assert_eq!(harness.post(&path, "{}").await, Answer::empty(503));
        assert!(start.elapsed() <= AWS_TIMEOUT, "{:?}", start.elapsed());
    };
    let [first, second, third] = [0, 100, 2000].map(Duration::from_millis);
    tokio::join!(request(first), request(second), request(third));
    // None of the requests that waited reads again.
    assert_eq!(harness.parameter.reads(), 2);
}
