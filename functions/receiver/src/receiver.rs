//! From a request to an answer.

use std::collections::BTreeMap;

use lambda_http::{
    Body, Request, RequestExt, Response,
    http::{
        HeaderValue, Method, StatusCode,
        header::{ALLOW, CONTENT_TYPE},
    },
};
use lambda_support::{error_chain, topic::Topic};
use shared::{
    alerts::{message::AlertMessage, selection::AlertEvents},
    events::{
        cloud_event::EventMessage,
        delivery::Delivery,
        delivery_log::{DeliveryRecord, Outcome},
        id::EventId,
    },
    registration::claim::{Claim, Verified},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    BoxError,
    config::AWS_TIMEOUT,
    delivery_log::DeliveryLog,
    keyring_cache::{KeyringCache, KeyringSource, KeyringUnavailable},
    recently_published::RecentlyPublished,
};

/// The receiver: what one environment knows and what it talks to.
#[derive(Debug)]
pub struct Receiver<S, E, A> {
    keyring: KeyringCache<S>,
    events: Remembering<E>,
    alerts: Option<Alerts<A>>,
    delivery_log: DeliveryLog,
}

/// What people are told, and where.
#[derive(Debug)]
struct Alerts<A> {
    topic: Remembering<A>,
    wanted: AlertEvents,
}

/// A topic, and what was published there lately. Each topic has its own memory: when one accepted a delivery and the
/// other did not, Tableau's retry publishes only what is missing.
#[derive(Debug)]
struct Remembering<T> {
    topic: T,
    published: RecentlyPublished,
}

/// SNS may have accepted the message all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out: SNS did not accept the message before the receiver had to answer")]
struct NotInTime;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Publication {
    /// The topic accepted it.
    New,
    /// The topic has it from before, or is not to have it.
    NotNeeded,
}

impl<T> Remembering<T> {
    fn new(topic: T) -> Self {
        Self { topic, published: RecentlyPublished::default() }
    }

    /// Publishes a message before the deadline, if there is one to publish.
    async fn publish<M>(&self, id: EventId, message: Option<M>, deadline: Instant) -> Result<Publication, BoxError>
    where
        T: Topic<M>,
    {
        let Some(message) = message else { return Ok(Publication::NotNeeded) };
        timeout_at(deadline, self.topic.publish(message)).await.map_err(|_| NotInTime)??;
        self.published.insert(id);
        Ok(Publication::New)
    }
}

impl<S: KeyringSource, E: Topic<EventMessage>, A: Topic<AlertMessage>> Receiver<S, E, A> {
    /// A receiver that has published nothing yet. Without a topic for `alerts` people are told nothing.
    pub fn new(
        keyring: KeyringCache<S>,
        events: E,
        alerts: Option<A>,
        wanted: AlertEvents,
        delivery_log: DeliveryLog,
    ) -> Self {
        let alerts = alerts.map(|topic| Alerts { topic: Remembering::new(topic), wanted });
        Self { keyring, events: Remembering::new(events), alerts, delivery_log }
    }

    /// Answers a request. A caller who cannot sign learns nothing but 404, whatever else the request carries.
    ///
    /// One deadline holds for all that a request waits for: limits of their own for the keys and the publishes would add
    /// up, or leave time unused.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        let deadline = Instant::now() + AWS_TIMEOUT;
        // As sent: a normalised path could make a registration out of something that is none.
        let Some(claim) = Claim::parse(request.raw_http_path()) else {
            self.delivery_log.rejected();
            return empty(StatusCode::NOT_FOUND);
        };
        let verified = match self.keyring.verify(&claim, deadline, &self.delivery_log).await {
            Ok(Some(verified)) => verified,
            Ok(None) => {
                self.delivery_log.rejected();
                return empty(StatusCode::NOT_FOUND);
            }
            Err(KeyringUnavailable) => {
                let delivered = (request.method() == Method::POST).then_some(&request.body()[..]);
                self.delivery_log.unverified(&claim, delivered);
                return empty(StatusCode::SERVICE_UNAVAILABLE);
            }
        };
        if request.method() != Method::POST {
            self.delivery_log.rejected();
            let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        self.delivery_log.log_turned_away();
        let request_id = request.lambda_context_ref().map(|context| context.request_id.as_str()).unwrap_or_default();
        let (outcome, id) = self.deliver(&verified, request.body(), request_id, deadline).await;
        match outcome {
            Outcome::Published => status("published", id),
            Outcome::Duplicate => status("duplicate", id),
            Outcome::TooLarge => empty(StatusCode::PAYLOAD_TOO_LARGE),
            Outcome::Undelivered => empty(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// Publishes an authentic delivery, once, and writes one line of what became of it.
    async fn deliver(
        &self,
        verified: &Verified,
        body: &[u8],
        request_id: &str,
        deadline: Instant,
    ) -> (Outcome, EventId) {
        let delivery = Delivery::read(verified, body);
        let id = delivery.id(request_id);
        let start = Instant::now();
        let (outcome, errors) = self.publish(&delivery, id, deadline).await;
        let published = matches!(outcome, Outcome::Published | Outcome::Undelivered);
        let record = DeliveryRecord::of(&delivery, id, outcome, errors);
        self.delivery_log.delivery(&record, published.then(|| start.elapsed()));
        (outcome, id)
    }

    /// Publishes what the topics do not have yet, side by side. Returns the errors of those that did not accept it.
    async fn publish(
        &self,
        delivery: &Delivery<'_>,
        id: EventId,
        deadline: Instant,
    ) -> (Outcome, BTreeMap<String, String>) {
        let event = match (!self.events.published.contains(id)).then(|| delivery.message(id)).transpose() {
            Ok(event) => event,
            Err(error) => return (Outcome::TooLarge, BTreeMap::from([("events".to_owned(), error.to_string())])),
        };
        let alert = async {
            match &self.alerts {
                Some(Alerts { topic, wanted }) if !topic.published.contains(id) => {
                    topic.publish(id, AlertMessage::of_delivery(delivery, id, wanted), deadline).await
                }
                Some(_) | None => Ok(Publication::NotNeeded),
            }
        };
        let (event, alert) = tokio::join!(self.events.publish(id, event, deadline), alert);
        let is_new = [&event, &alert].into_iter().flatten().any(|publication| *publication == Publication::New);
        let results = [("events", event), ("alerts", alert)].into_iter();
        let errors: BTreeMap<_, _> =
            results.filter_map(|(topic, result)| Some((topic.to_owned(), error_chain(&*result.err()?)))).collect();
        let outcome = match (errors.is_empty(), is_new) {
            (false, _) => Outcome::Undelivered,
            (true, true) => Outcome::Published,
            (true, false) => Outcome::Duplicate,
        };
        (outcome, errors)
    }
}

fn status(status: &str, id: EventId) -> Response<Body> {
    let body = format!(r#"{{"status":"{status}","id":"{id}"}}"#);
    let mut response = Response::new(Body::Text(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer of which the status is all that is to be known.
fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response
}
