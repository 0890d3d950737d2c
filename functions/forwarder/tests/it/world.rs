//! A forwarder with a queue, parameters and a log that are values.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use delivery::{addresses::AllowedAddresses, sender::HttpSender};
use forwarder::{
    batch::{BatchResponse, Invocation},
    forwarder::Forwarder,
    targets::Entries,
    working::Working,
};
use lambda_support::metrics::MetricLog;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    cloud::Cloud,
    target::{Call, Target},
};

/// Name of the queue of the target `chat`.
pub(crate) const CHAT: &str = "tableau-fanout-target-chat";

/// The time of an invocation.
const INVOCATION: Duration = Duration::from_secs(60);

/// The time for an answer: shorter than on AWS, for targets that never answer.
const SEND_TIMEOUT: Duration = Duration::from_millis(500);

/// A forwarder, and everything around it but the targets.
pub(crate) struct World {
    pub(crate) cloud: Cloud,
    pub(crate) forwarder: Forwarder<Cloud, HttpSender, Cloud, Cloud, Cloud>,
    log: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// Creates one that may send to this machine.
    pub(crate) fn new() -> Self {
        Self::sending_to(AllowedAddresses::PublicAndLoopback)
    }

    /// Creates one that may send to some addresses.
    pub(crate) fn sending_to(addresses: AllowedAddresses) -> Self {
        let (cloud, log) = (Cloud::default(), Arc::<Mutex<Vec<String>>>::default());
        let written = Arc::clone(&log);
        let write = move |line: &str| written.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        let forwarder = Forwarder {
            stack: "tableau-fanout".to_owned(),
            entries: Entries::new(cloud.clone()),
            sender: HttpSender::new(addresses, SEND_TIMEOUT).expect("a client"),
            queues: cloud.clone(),
            holds: cloud.clone(),
            alerts: cloud.clone(),
            working: Working::default(),
            log: MetricLog::new("tableau-fanout-forwarder".to_owned(), write),
        };
        Self { cloud, forwarder, log }
    }

    /// Stores the entry of the target `chat`, with more members, and adds messages to its queue.
    pub(crate) fn with(self, target: &Target, members: Value, messages: usize) -> Self {
        self.cloud.store("chat", entry(target.address, members));
        for number in 1..=messages {
            self.cloud.send(CHAT, event(number));
        }
        self
    }

    /// Handles one batch, if there is a visible message, by a deadline.
    pub(crate) async fn batch_until(&self, deadline: Instant) -> bool {
        let Some(event) = self.cloud.receive() else { return false };
        let ids: Vec<_> = event.records.iter().map(|record| record.message_id.clone()).collect();
        let response = self.forwarder.run(Invocation::Batch(event), deadline).await;
        self.cloud.delete(&ids, &response);
        true
    }

    /// Handles one batch, if there is a visible message.
    pub(crate) async fn batch(&self) -> bool {
        self.batch_until(Instant::now() + INVOCATION).await
    }

    /// Handles what is in the queue of a target, as its schedule invokes it.
    pub(crate) async fn coalesce(&self, target: &str) {
        let target = target.parse().expect("a name");
        let answer = self.forwarder.run(Invocation::Coalesce { target }, Instant::now() + INVOCATION).await;
        assert_eq!(answer, BatchResponse::default());
    }

    /// Handles batches until no message is left, and lets the time of their waits pass.
    pub(crate) async fn finish(&self) {
        while self.cloud.advance_to_next() {
            assert!(self.batch().await, "a message is visible");
        }
    }

    /// Returns the lines of the log.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Returns the number of each message's ends: calls that are a success, and dead letters.
    pub(crate) fn ends(&self, target: &Target, is_success: impl Fn(&Call) -> bool) -> BTreeMap<String, (usize, usize)> {
        let mut ends = BTreeMap::<String, (usize, usize)>::new();
        for call in target.calls().iter().filter(|call| is_success(call)) {
            ends.entry(call.id()).or_default().0 += 1;
        }
        for letter in self.cloud.dead() {
            let body: Value = serde_json::from_str(letter.body()).expect("JSON");
            ends.entry(body["id"].as_str().expect("an identifier").to_owned()).or_default().1 += 1;
        }
        ends
    }
}

/// An entry of the preset that passes an event on as it is.
pub(crate) fn entry(address: SocketAddr, members: Value) -> Value {
    let mut entry =
        json!({ "preset": "plain", "address": format!("http://{address}/s3cret-path"), "per_second": 1000 });
    for (name, value) in members.as_object().into_iter().flatten() {
        entry[name] = value.clone();
    }
    entry
}

/// An event with a number as its identifier.
pub(crate) fn event(number: usize) -> Value {
    json!({
        "specversion": "1.0",
        "id": format!("event-{number}"),
        "source": "/tableau/marketing",
        "type": "com.tableau.WorkbookRefreshFailed",
        "data": { "resource_name": "private-name" },
    })
}
