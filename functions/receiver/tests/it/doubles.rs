//! A receiver whose keyring, topics and log are values, and Function URL events to send it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lambda_http::Context;
use lambda_support::{
    metrics::MetricLog,
    topic::{Topic, TopicError},
};
use receiver::{
    BoxError,
    delivery_log::DeliveryLog,
    function_url::{FunctionUrlRequest, into_answer},
    keyring_cache::{KeyringCache, KeyringSource},
    receiver::Receiver,
};
use serde_json::{Value, json};
use shared::{
    alerts::{message::AlertMessage, selection::DeliveryAlerts},
    events::cloud_event::EventMessage,
    registration::{
        claim::Registration,
        keyring::{KEY_BYTES, Keyring},
        signed_url::ReceiverUrl,
    },
};
use strict_sns::publish::Publish;
use tokio::time::sleep;

pub(crate) const KEY: u8 = 7;
const SAMPLE: &str = include_str!("../../../../tests/events/receiver-workbook-created.json");

/// The answer of SSM.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    Key(u8),
    Missing,
    Unavailable,
}

/// A keyring parameter as a value, with the number of reads.
#[derive(Clone, Debug)]
pub(crate) struct Parameter(Arc<Mutex<Reads>>);

#[derive(Debug)]
struct Reads {
    stored: Stored,
    takes: Duration,
    count: usize,
}

impl Parameter {
    pub(crate) fn holding(stored: Stored) -> Self {
        Self(Arc::new(Mutex::new(Reads { stored, takes: Duration::ZERO, count: 0 })))
    }

    pub(crate) fn store(&self, stored: Stored) {
        self.lock().stored = stored;
    }

    /// Lets each read take so long.
    pub(crate) fn slow_down(&self, takes: Duration) {
        self.lock().takes = takes;
    }

    pub(crate) fn reads(&self) -> usize {
        self.lock().count
    }

    fn lock(&self) -> MutexGuard<'_, Reads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyringSource for Parameter {
    async fn read(&self) -> Result<Option<Keyring>, BoxError> {
        let takes = {
            let mut reads = self.lock();
            reads.count += 1;
            reads.takes
        };
        pass(takes).await;
        match self.lock().stored {
            Stored::Key(byte) => Ok(Some(Keyring::of([byte; KEY_BYTES]))),
            Stored::Missing => Ok(None),
            Stored::Unavailable => Err("SSM is unavailable".into()),
        }
    }
}

/// Waits, unless the time is zero.
async fn pass(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// A topic as a value, with SNS's rules: the messages that subscribers with a filter policy received, and how the topic
/// answers.
#[derive(Debug)]
pub(crate) struct FakeTopic<M>(Arc<Mutex<Publishes<M>>>);

#[derive(Debug)]
struct Publishes<M> {
    accepted: Vec<M>,
    refuses: bool,
    takes: Duration,
}

impl<M> Clone for FakeTopic<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M> Default for FakeTopic<M> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Publishes { accepted: Vec::new(), refuses: false, takes: Duration::ZERO })))
    }
}

impl<M> FakeTopic<M> {
    pub(crate) fn refuse(&self, refuses: bool) {
        self.lock().refuses = refuses;
    }

    /// Lets each publish take so long.
    pub(crate) fn slow_down(&self, takes: Duration) {
        self.lock().takes = takes;
    }

    fn lock(&self) -> MutexGuard<'_, Publishes<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Clone> FakeTopic<M> {
    pub(crate) fn published(&self) -> Vec<M> {
        self.lock().accepted.clone()
    }
}

impl<M: Send> Topic<M> for FakeTopic<M>
where
    for<'a> Publish: From<&'a M>,
{
    async fn publish(&self, message: M) -> Result<(), TopicError> {
        let takes = self.lock().takes;
        pass(takes).await;
        let mut topic = self.lock();
        if topic.refuses {
            return Err(TopicError::Failed("SNS is unavailable".into()));
        }
        if Publish::from(&message).accept().map_err(|refusal| TopicError::RefusedForGood(refusal.into()))?.is_whole() {
            topic.accepted.push(message);
        }
        Ok(())
    }
}

/// A receiver and the values around it.
pub(crate) struct Harness {
    pub(crate) parameter: Parameter,
    pub(crate) topic: FakeTopic<EventMessage>,
    pub(crate) alerts: FakeTopic<AlertMessage>,
    log: Arc<Mutex<Vec<Value>>>,
    receiver: Receiver<Parameter, FakeTopic<EventMessage>, FakeTopic<AlertMessage>>,
}

impl Harness {
    pub(crate) async fn start(stored: Stored) -> Self {
        Self::slow(stored, Duration::ZERO).await
    }

    /// Starts with a parameter of which a read takes so long.
    pub(crate) async fn slow(stored: Stored, takes: Duration) -> Self {
        let (parameter, topic, alerts) = (Parameter::holding(stored), FakeTopic::default(), FakeTopic::default());
        parameter.slow_down(takes);
        let keyring = KeyringCache::load(parameter.clone()).await;
        let log = Arc::<Mutex<Vec<Value>>>::default();
        let write = log.clone();
        let delivery_log = DeliveryLog::new(MetricLog::new("receiver".to_owned(), move |line| {
            let line = serde_json::from_str(line).expect("a line is JSON");
            write.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }));
        let receiver =
            Receiver::new(keyring, topic.clone(), Some(alerts.clone()), DeliveryAlerts::default(), delivery_log);
        Self { parameter, topic, alerts, log, receiver }
    }

    /// Returns the lines so far.
    pub(crate) fn log(&self) -> Vec<Value> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a POST to a path.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(event("POST", path, json!(body), false)).await
    }

    pub(crate) async fn send(&self, event: Value) -> Answer {
        self.try_send(event).await.expect("a Function URL event")
    }

    /// Sends any JSON. `None` if it is no Function URL event.
    pub(crate) async fn try_send(&self, event: Value) -> Option<Answer> {
        let mut context = Context::default();
        context.request_id = event["requestContext"]["requestId"].to_string();
        let request: FunctionUrlRequest = serde_json::from_value(event).ok()?;
        let response = self.receiver.handle(request.into_request(context)).await;
        Some(Answer::of(&serde_json::to_value(into_answer(response)).expect("JSON")))
    }

    /// Returns the only message published so far.
    pub(crate) fn only_message(&self) -> EventMessage {
        let published = self.topic.published();
        assert_eq!(published.len(), 1, "{published:?}");
        published[0].clone()
    }
}

/// An answer, to be compared whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    fn of(answer: &Value) -> Self {
        let headers = answer["headers"].as_object().into_iter().flatten();
        let headers = headers.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
        assert_eq!(answer["isBase64Encoded"], false, "{answer}");
        Self {
            status: answer["statusCode"].as_u64().and_then(|status| status.try_into().ok()).expect("a status"),
            headers: headers.collect(),
            body: answer["body"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// An answer without headers and body.
    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    /// The `status` that the body names.
    pub(crate) fn outcome(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).expect("a JSON body");
        format!("{} {}", self.status, body["status"].as_str().expect("a status"))
    }
}

/// The recorded Function URL event, with another method, path and body.
pub(crate) fn event(method: &str, path: &str, body: Value, is_base64: bool) -> Value {
    let mut event: Value = serde_json::from_str(SAMPLE).expect("the sample is JSON");
    event["rawPath"] = json!(path);
    event["requestContext"]["http"]["path"] = json!(path);
    event["requestContext"]["http"]["method"] = json!(method);
    event["body"] = body;
    event["isBase64Encoded"] = json!(is_base64);
    event
}

/// The signed path of a registration.
pub(crate) fn path(site: &str, event: &str, key: u8) -> String {
    let registration = Registration { site: site.parse().expect("a site"), event: event.parse().expect("an event") };
    let receiver = ReceiverUrl::parse("https://receiver.example/").expect("an address");
    let url = registration.signed_url(&receiver, &Keyring::of([key; KEY_BYTES]));
    url.expose().replace("https://receiver.example", "")
}
