//! From a request to an answer.

use lambda_http::{
    Body, Request, RequestExt, Response,
    http::{
        HeaderValue, Method, StatusCode,
        header::{ALLOW, CONTENT_TYPE},
    },
};
use shared::{
    alert::{AlertEvents, AlertMessage},
    message::{Delivery, EventId, EventMessage},
    registration::{Claim, Registration, Verified},
};

use crate::{
    BoxError,
    keyring_cache::{KeyringCache, KeyringSource, KeyringUnavailable},
    recently_published::RecentlyPublished,
    topic::Topic,
};

/// The receiver: what one environment knows and what it talks to.
#[derive(Debug)]
pub struct Receiver<S, E, A> {
    keyring: KeyringCache<S>,
    events: Remembering<E>,
    alerts: Option<Alerts<A>>,
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

    async fn publish<M>(&self, id: EventId, message: M) -> Result<Publication, BoxError>
    where
        T: Topic<M>,
    {
        if self.published.contains(id) {
            return Ok(Publication::NotNeeded);
        }
        self.topic.publish(message).await?;
        self.published.insert(id);
        Ok(Publication::New)
    }
}

impl<A: Topic<AlertMessage>> Alerts<A> {
    async fn publish(&self, delivery: &Delivery<'_>, id: EventId) -> Result<Publication, BoxError> {
        match delivery.alert(id, &self.wanted) {
            Some(alert) => self.topic.publish(id, alert).await,
            None => Ok(Publication::NotNeeded),
        }
    }
}

/// What became of an authentic delivery.
#[derive(Debug)]
enum Outcome {
    /// SNS accepted all that was not published before.
    Published(EventId),
    /// This environment published all of it before.
    Duplicate(EventId),
    /// SNS would not take it, now or later.
    TooLarge,
    /// SNS did not accept all of it. Tableau's retry may have more luck.
    NotAccepted,
}

impl<S: KeyringSource, E: Topic<EventMessage>, A: Topic<AlertMessage>> Receiver<S, E, A> {
    /// A receiver that has published nothing yet. Without a topic for `alerts` people are told nothing.
    pub fn new(keyring: KeyringCache<S>, events: E, alerts: Option<A>, wanted: AlertEvents) -> Self {
        let alerts = alerts.map(|topic| Alerts { topic: Remembering::new(topic), wanted });
        Self { keyring, events: Remembering::new(events), alerts }
    }

    /// Answers a request. A caller who cannot sign learns nothing but 404, whatever else the request carries.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        // As sent: a normalised path could make a registration out of something that is none.
        let Some(claim) = Claim::parse(request.raw_http_path()) else {
            return empty(StatusCode::NOT_FOUND);
        };
        let verified = match self.keyring.verify(&claim).await {
            Ok(Some(verified)) => verified,
            Ok(None) => return empty(StatusCode::NOT_FOUND),
            Err(KeyringUnavailable) => return empty(StatusCode::SERVICE_UNAVAILABLE),
        };
        if request.method() != Method::POST {
            let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let request_id = request.lambda_context_ref().map(|context| context.request_id.as_str()).unwrap_or_default();
        match self.deliver(&verified, request.body(), request_id).await {
            Outcome::Published(id) => status("published", id),
            Outcome::Duplicate(id) => status("duplicate", id),
            Outcome::TooLarge => empty(StatusCode::PAYLOAD_TOO_LARGE),
            Outcome::NotAccepted => empty(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// Publishes an authentic delivery, once, and says in one log line what became of it.
    #[tracing::instrument(skip_all, fields(
        site = %verified.registration().site,
        event.registered = %verified.registration().event,
        event.type,
        event.id,
        resource.luid,
    ))]
    async fn deliver(&self, verified: &Verified, body: &[u8], request_id: &str) -> Outcome {
        let delivery = Delivery::read(verified, body);
        let id = delivery.id(request_id);
        let span = tracing::Span::current();
        span.record("event.type", delivery.event_type()).record("event.id", tracing::field::display(id));
        span.record("resource.luid", delivery.resource_luid());
        if let Some(event_type) = delivery.contradicting_event_type() {
            let Registration { event, .. } = verified.registration();
            tracing::warn!(event.payload_type = event_type, "the payload contradicts its registration for {event}");
        }
        let message = match delivery.message(id) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(size_bytes = error.size_bytes, "not published: {error}");
                return Outcome::TooLarge;
            }
        };
        let alert = async {
            match &self.alerts {
                Some(alerts) => alerts.publish(&delivery, id).await,
                None => Ok(Publication::NotNeeded),
            }
        };
        let (event, alert) = tokio::join!(self.events.publish(id, message), alert);
        let failed = [("events", &event), ("alerts", &alert)].map(|(topic, result)| match result {
            Ok(_) => false,
            Err(error) => {
                let error = &**error as &(dyn std::error::Error + 'static);
                tracing::error!(error, topic, "not published: SNS did not accept the message");
                true
            }
        });
        if failed.contains(&true) {
            return Outcome::NotAccepted;
        }
        if [event, alert].into_iter().any(|result| result.is_ok_and(|done| done == Publication::New)) {
            tracing::info!("published");
            Outcome::Published(id)
        } else {
            tracing::info!("duplicate: published before");
            Outcome::Duplicate(id)
        }
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
