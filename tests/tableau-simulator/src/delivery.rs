//! Deliveries as Tableau makes them.

use std::{error::Error, time::Duration};

use reqwest::{
    Client,
    header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT},
    redirect::Policy,
};
use serde::{Deserialize, Serialize};
use url::Url;

/// Waits before Tableau's three retries. The real ones are not published. These grow like them, and keep tests fast.
const RETRY_GAPS: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];

/// Time limit for an answer. The real one is not published.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Default `Accept` header of Java's HTTP client, as captured in 2019.
const JAVA_ACCEPT: &str = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2";

/// The delivery of one event to one webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The webhook's name.
    pub webhook: String,
    /// The answers, at most four.
    pub attempts: Vec<Attempt>,
}

/// One POST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// The answer's body, or the reason why there was no answer.
    pub body: String,
}

impl Attempt {
    /// Whether Tableau counts it as delivered: any 2xx.
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// Sends events to webhook destinations.
#[derive(Clone, Debug)]
pub struct Courier {
    http: Client,
    gateway: Option<Url>,
}

impl Courier {
    /// Creates a courier. With a `gateway` it sends everything there, with the destination's name in the `Host` header. The
    /// gateway replaces name resolution and TLS.
    ///
    /// # Errors
    ///
    /// The HTTP client cannot be created.
    pub fn new(gateway: Option<Url>) -> reqwest::Result<Self> {
        // An error means that the process already has a provider, which will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().redirect(Policy::none()).timeout(ANSWER_TIMEOUT).no_proxy().build()?;
        Ok(Self { http, gateway })
    }

    /// Sends an event, at most four times.
    pub async fn deliver(&self, webhook: &str, url: &str, body: &str) -> Delivery {
        let mut attempts = vec![self.attempt(url, body).await];
        for gap in RETRY_GAPS {
            if attempts.last().is_some_and(Attempt::succeeded) {
                break;
            }
            tokio::time::sleep(gap).await;
            attempts.push(self.attempt(url, body).await);
        }
        Delivery { webhook: webhook.to_owned(), attempts }
    }

    /// Makes one POST.
    pub async fn attempt(&self, url: &str, body: &str) -> Attempt {
        match self.post(url, body).await {
            Ok((status, body)) => Attempt { status: Some(status), body },
            Err(error) => Attempt { status: None, body: format!("{error:#}") },
        }
    }

    async fn post(&self, url: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let mut url: Url = url.parse()?;
        let host = url.host_str().unwrap_or_default().to_owned();
        if let Some(gateway) = &self.gateway {
            let mut through = gateway.clone();
            through.set_path(url.path());
            through.set_query(url.query());
            url = through;
        }
        let mut request = self
            .http
            .post(url)
            .header(USER_AGENT, "TableauWebhooks/1.0")
            .header(CONTENT_TYPE, "application/json")
            .header("charset", "utf-8")
            .header(ACCEPT, JAVA_ACCEPT)
            .body(body.to_owned());
        if self.gateway.is_some() {
            request = request.header(HOST, host);
        }
        let response = request.send().await.map_err(without_url)?;
        Ok((response.status().as_u16(), response.text().await.map_err(without_url)?))
    }
}

fn without_url(error: reqwest::Error) -> impl Error + Send + Sync + 'static {
    error.without_url()
}
