//! SSM and SNS over TLS and a target, all without delay, for a function that is measured.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use axum::{Json, Router, body::Bytes, http::StatusCode, serve::Listener};
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::registration::keyring::{KEY_BYTES, Keyring};
use tls::Authority;
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

/// SNS's answer to a publish that it accepts.
const ACCEPTED: &str = r#"<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult>
    <MessageId>00000000-0000-4000-8000-000000000000</MessageId></PublishResult></PublishResponse>"#;

/// The services, each on its own port, as on AWS.
#[derive(Debug)]
pub struct Cloud {
    /// Endpoint of SSM.
    pub ssm: String,
    /// Endpoint of SNS.
    pub sns: String,
    /// The only signing key.
    pub keyring: Keyring,
    state: Arc<State>,
    tasks: Vec<JoinHandle<()>>,
    authority: String,
    folder: PathBuf,
}

#[derive(Debug, Default)]
struct State {
    messages: AtomicUsize,
    /// The time that SNS and the target take for a message, in milliseconds.
    latency: AtomicU64,
}

impl State {
    /// Takes a message.
    async fn take(&self) {
        let latency = self.latency.load(Ordering::Relaxed);
        if latency > 0 {
            sleep(Duration::from_millis(latency)).await;
        }
        self.messages.fetch_add(1, Ordering::Relaxed);
    }
}

/// The trust store that a function is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The CA certificate of the services.
    One,
    /// That, and all public CA certificates.
    Bundle,
}

impl Cloud {
    /// Starts them. Trust stores are written to `folder`.
    ///
    /// # Errors
    ///
    /// No port is free, or a file cannot be written.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let authority = Authority::new()?;
        let keyring = Keyring::of([7; KEY_BYTES]);
        let stored = keyring.to_stored();
        let state = Arc::<State>::default();
        let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        // One message a millisecond is the most that the forwarder sends.
        let address = format!("http://{}/", target.local_addr()?);
        let entry = json!({ "preset": "plain", "address": address, "per_second": 1000 }).to_string();
        let keys = stored.expose_secret().to_owned();
        let ssm = Router::new().fallback(move |request: Bytes| {
            let request: Value = serde_json::from_slice(&request).unwrap_or_default();
            let is_target = request["Name"].as_str().is_some_and(|name| name.contains("/targets/"));
            let value = if is_target { &entry } else { &keys };
            let parameter = json!({ "Name": request["Name"], "Type": "SecureString", "Value": value });
            std::future::ready(Json(json!({ "Parameter": parameter })))
        });
        let accept = {
            let state = Arc::clone(&state);
            Router::new().fallback(async move || state.take().await)
        };
        let sns = {
            let state = Arc::clone(&state);
            // Refuses any other call, such as one that opens a connection, as SNS refuses an unsigned request.
            Router::new().fallback(move |body: Bytes| answer(Arc::clone(&state), body))
        };
        let mut cloud = Self {
            ssm: String::new(),
            sns: String::new(),
            keyring,
            state,
            tasks: vec![tokio::spawn(async move {
                // It serves until the task is aborted.
                let _ = axum::serve(target, accept).await;
            })],
            authority: authority.pem(),
            folder: folder.to_owned(),
        };
        for (router, address) in [(ssm, &mut cloud.ssm), (sns, &mut cloud.sns)] {
            let listener = authority.listen("localhost").await?;
            *address = format!("https://localhost:{}", listener.local_addr()?.port());
            cloud.tasks.push(tokio::spawn(async move {
                // It serves until the task is aborted.
                let _ = axum::serve(listener, router).await;
            }));
        }
        Ok(cloud)
    }

    /// Sets how long SNS and the target take for a message.
    pub fn delay(&self, latency: Duration) {
        self.state.latency.store(latency.as_millis().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts the messages that SNS and the target took so far.
    pub fn messages(&self) -> usize {
        self.state.messages.load(Ordering::Relaxed)
    }

    /// Writes a trust store and returns its path.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn trust_store(&self, trust: Trust) -> anyhow::Result<PathBuf> {
        let (name, others) = match trust {
            Trust::One => ("one.pem", String::new()),
            Trust::Bundle => ("bundle.pem", TLS_SERVER_ROOT_CERTS.iter().map(|root| pem(root)).collect()),
        };
        let path = self.folder.join(name);
        fs::write(&path, others + &self.authority).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn answer(state: Arc<State>, body: Bytes) -> (StatusCode, &'static str) {
    if !body.starts_with(b"Action=Publish&") {
        return (StatusCode::FORBIDDEN, "");
    }
    state.take().await;
    (StatusCode::OK, ACCEPTED)
}

fn pem(certificate: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(certificate);
    let lines = base64.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}
