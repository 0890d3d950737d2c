//! Answers requests: verifies, publishes, logs.

use lambda_http::{
    Body, Request, RequestExt, Response,
    http::{
        HeaderValue, Method, StatusCode,
        header::{ALLOW, CONTENT_TYPE},
    },
};
use lambda_support::{error_chain, topic::Topic};
use shared::{
    alerts::{message::AlertMessage, selection::DeliveryAlerts},
    events::{
        cloud_event::EventMessage,
        delivery::Delivery,
        delivery_log::{AlertOutcome, DeliveryRecord, Outcome, Publication},
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

/// The receiver of one environment.
#[derive(Debug)]
pub struct Receiver<S, E, A> {
    keyring: KeyringCache<S>,
    events: OnceTopic<E>,
    alerts: Option<Alerts<A>>,
    delivery_log: DeliveryLog,
}

/// The alerts topic, and the alerts sent there.
#[derive(Debug)]
struct Alerts<A> {
    topic: OnceTopic<A>,
    selected: DeliveryAlerts,
}

/// A topic, and the events published there recently. Each topic has its own list: when only one accepted a delivery,
/// Tableau's retry publishes to the other.
#[derive(Debug)]
struct OnceTopic<T> {
    topic: T,
    published: RecentlyPublished,
}

/// The deadline came before SNS's answer. SNS may have accepted the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out: SNS did not accept the message before the receiver had to answer")]
struct NotInTime;

impl<T> OnceTopic<T> {
    fn new(topic: T) -> Self {
        Self { topic, published: RecentlyPublished::default() }
    }

    /// Publishes a message before the deadline.
    async fn publish<M>(&self, id: EventId, message: M, deadline: Instant) -> Result<(), BoxError>
    where
        T: Topic<M>,
    {
        timeout_at(deadline, self.topic.publish(message)).await.map_err(|_| NotInTime)??;
        self.published.insert(id);
        Ok(())
    }
}

impl<S: KeyringSource, E: Topic<EventMessage>, A: Topic<AlertMessage>> Receiver<S, E, A> {
    /// Creates a receiver that has published nothing yet. Without a topic for `alerts` no alert is sent.
    pub fn new(
        keyring: KeyringCache<S>,
        events: E,
        alerts: Option<A>,
        selected: DeliveryAlerts,
        delivery_log: DeliveryLog,
    ) -> Self {
        let alerts = alerts.map(|topic| Alerts { topic: OnceTopic::new(topic), selected });
        Self { keyring, events: OnceTopic::new(events), alerts, delivery_log }
    }

    /// Answers a request. A request without a valid signature is answered 404, whatever else it carries.
    ///
    /// One deadline holds for all calls to AWS: separate limits for the keys and the publishes would add up, or leave time
    /// unused.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        let deadline = Instant::now() + AWS_TIMEOUT;
        // The raw path: normalising could turn another path into a registration's.
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

    /// Publishes an authentic delivery once, and logs the result.
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
        let publication = self.publish(&delivery, id, deadline).await;
        let outcome = publication.outcome;
        let is_published = matches!(outcome, Outcome::Published | Outcome::Undelivered);
        let latency = is_published.then(|| start.elapsed());
        self.delivery_log.delivery(&DeliveryRecord::of(&delivery, id, publication), latency);
        (outcome, id)
    }

    /// Publishes to both topics, side by side, what they do not have yet.
    async fn publish(&self, delivery: &Delivery<'_>, id: EventId, deadline: Instant) -> Publication {
        let message = match (!self.events.published.contains(id)).then(|| delivery.message(id)).transpose() {
            Ok(message) => message,
            Err(error) => {
                let error = Some(error.to_string());
                return Publication { outcome: Outcome::TooLarge, alert: None, error, alert_error: None };
            }
        };
        let is_new = message.is_some();
        let event = async {
            match message {
                Some(message) => self.events.publish(id, message, deadline).await,
                None => Ok(()),
            }
        };
        let (event, alert) = tokio::join!(event, self.alert(delivery, id, deadline));
        let error = event.err().map(|error| error_chain(&*error));
        let (alert, alert_error) = match alert {
            Ok(outcome) => (outcome, None),
            Err(error) => (Some(AlertOutcome::Failed), Some(error_chain(&*error))),
        };
        let outcome = match (&error, alert) {
            (Some(_), _) | (_, Some(AlertOutcome::Failed)) => Outcome::Undelivered,
            (None, Some(AlertOutcome::Sent)) => Outcome::Published,
            (None, Some(AlertOutcome::Duplicate) | None) if is_new => Outcome::Published,
            (None, Some(AlertOutcome::Duplicate) | None) => Outcome::Duplicate,
        };
        Publication { outcome, alert, error, alert_error }
    }

    /// Sends the alert about a delivery. Returns `None` if its event has no alert.
    async fn alert(
        &self,
        delivery: &Delivery<'_>,
        id: EventId,
        deadline: Instant,
    ) -> Result<Option<AlertOutcome>, BoxError> {
        let Some(Alerts { topic, selected }) = &self.alerts else { return Ok(None) };
        if topic.published.contains(id) {
            return Ok(Some(AlertOutcome::Duplicate));
        }
        let Some(message) = AlertMessage::of_delivery(delivery, id, selected) else { return Ok(None) };
        topic.publish(id, message, deadline).await?;
        Ok(Some(AlertOutcome::Sent))
    }
}

fn status(status: &str, id: EventId) -> Response<Body> {
    let body = format!(r#"{{"status":"{status}","id":"{id}"}}"#);
    let mut response = Response::new(Body::Text(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns an answer without headers and body.
fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response
}
