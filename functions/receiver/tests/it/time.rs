//! How long an answer takes, on a clock that only the test moves.

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

fn milliseconds() -> impl Strategy<Value = Duration> {
    // Timers count in milliseconds; what takes exactly as long as there is time for may be in time or not.
    (0_u64..4000).prop_map(|number| Duration::from_millis(number | 1))
}

proptest! {
    #[test]
    fn one_deadline_holds_for_the_keys_and_both_topics_together(
        keys in milliseconds(), events in milliseconds(), alerts in milliseconds(),
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
            for (topic, takes) in [("events", events), ("alerts", alerts)] {
                let is_named = undelivered.iter().any(|line| line["errors"][topic].is_string());
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
    // None of those that waited reads again for the rest of its time.
    assert_eq!(harness.parameter.reads(), 2);
}
