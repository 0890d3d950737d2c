//! A webhook destination that is not our receiver.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use tokio::{net::TcpListener, task::JoinHandle};
use url::Url;

/// A server that accepts every POST, keeps it, and gives one answer.
#[derive(Debug)]
pub struct Destination {
    /// Its address, for the simulator's gateway.
    pub address: Url,
    received: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Destination {
    /// Starts one on a free loopback port.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub async fn answering(status: StatusCode) -> anyhow::Result<Self> {
        let received = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = format!("http://{}", listener.local_addr()?).parse()?;
        let receive = async move |State(received): State<Arc<Mutex<Vec<_>>>>, headers: HeaderMap, body: String| {
            received.lock().unwrap_or_else(PoisonError::into_inner).push((headers, body));
            (status, "seen")
        };
        let router = Router::new().fallback(receive).with_state(received.clone());
        let task = tokio::spawn(async { axum::serve(listener, router).await });
        Ok(Self { address, received, task })
    }

    /// Deletes the requests so far.
    pub fn forget(&self) {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns the requests.
    pub fn received(&self) -> Vec<(HeaderMap, String)> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        self.task.abort();
    }
}
