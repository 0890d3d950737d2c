//! From a request to an answer.

use lambda_http::{
    Body, Request, RequestExt, Response,
    http::{
        HeaderValue, Method, StatusCode,
        header::{ALLOW, CONTENT_TYPE},
    },
};
use shared::{
    message::{Delivery, EventId},
    registration::{Claim, Registration, Verified},
};

use crate::{
    keyring_cache::{KeyringCache, KeyringSource, KeyringUnavailable},
    recently_published::RecentlyPublished,
    topic::EventsTopic,
};

/// The receiver: what one environment knows and what it talks to.
#[derive(Debug)]
pub struct Receiver<S, T> {
    keyring: KeyringCache<S>,
    topic: T,
    published: RecentlyPublished,
}

/// What became of an authentic delivery.
#[derive(Debug)]
enum Outcome {
    /// SNS accepted it.
    Published(EventId),
    /// This environment published it before.
    Duplicate(EventId),
    /// SNS would not take it, now or later.
    TooLarge,
    /// SNS did not accept it. Tableau's retry may have more luck.
    NotAccepted,
}

impl<S: KeyringSource, T: EventsTopic> Receiver<S, T> {
    /// A receiver that has published nothing yet.
    pub fn new(keyring: KeyringCache<S>, topic: T) -> Self {
        Self { keyring, topic, published: RecentlyPublished::default() }
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
        if self.published.contains(id) {
            tracing::info!("duplicate: published before");
            return Outcome::Duplicate(id);
        }
        let message = match delivery.message(id) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(size_bytes = error.size_bytes, "not published: {error}");
                return Outcome::TooLarge;
            }
        };
        if let Err(error) = self.topic.publish(message).await {
            let error = format!("{:#}", anyhow::Error::from_boxed(error));
            tracing::error!(error, "not published: SNS did not accept the event");
            return Outcome::NotAccepted;
        }
        self.published.insert(id);
        tracing::info!("published");
        Outcome::Published(id)
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
