//! A service on this machine that plays targets: it accepts each message, and passes it on to the window.

use anyhow::Context;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, Uri},
};
use serde_json::Value;
use shared::alerts::text::plain;
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

use crate::tail::TargetMessage;

/// The most characters of a message.
const MAX_CHARACTERS: usize = 160;

/// The running service.
#[derive(Debug)]
pub(super) struct Sink {
    /// Its address. The path is the name of a target.
    pub(super) address: String,
    arrivals: UnboundedReceiver<TargetMessage>,
    server: JoinHandle<()>,
}

impl Sink {
    /// Starts it.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
        let address = format!("http://{}", listener.local_addr()?);
        let (sender, arrivals) = unbounded_channel();
        let router = Router::new().fallback(accept).with_state(sender);
        let server = tokio::spawn(async {
            // It runs until it is dropped.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, arrivals, server })
    }

    /// Waits for a message.
    pub(super) async fn arrival(&mut self) -> anyhow::Result<TargetMessage> {
        self.arrivals.recv().await.context("the service that plays targets has ended")
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn accept(State(sender): State<UnboundedSender<TargetMessage>>, uri: Uri, body: Bytes) -> StatusCode {
    let target = plain(uri.path().trim_start_matches('/'));
    let text =
        serde_json::from_slice(&body).map_or_else(|_| "a message that is no JSON".to_owned(), |body| line(&body));
    // Nobody receives after the end of the window.
    let _ = sender.send(TargetMessage { target, text });
    StatusCode::OK
}

/// Formats a message: the type and the resource of an event, the text of a chat, or its JSON.
fn line(body: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let event = text(&body["type"]).filter(|_| body["specversion"].is_string());
    let event = event.map(|event| format!("{event} {}", text(&body["data"]["resource_name"]).unwrap_or_default()));
    let line = event.or_else(|| text(&body["text"])).unwrap_or_else(|| body.to_string());
    let short: String = line.chars().take(MAX_CHARACTERS).collect();
    plain(&format!("{}{}", short.trim_end(), if short.len() < line.len() { "…" } else { "" }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_a_line() {
        let event = json!({ "specversion": "1.0", "type": "com.tableau.Test", "data": {} });
        assert_eq!(line(&event), "com.tableau.Test");
        let named =
            json!({ "specversion": "1.0", "type": "com.tableau.ViewDeleted", "data": { "resource_name": "A" } });
        assert_eq!(line(&named), "com.tableau.ViewDeleted A");
        assert_eq!(
            line(&json!({ "text": "workbook refresh failed: Sales", "blocks": [] })),
            "workbook refresh failed: Sales"
        );
        assert_eq!(line(&json!({ "messages": 3 })), r#"{"messages":3}"#);
        assert_eq!(line(&json!({ "text": "ä".repeat(500) })).chars().count(), MAX_CHARACTERS + 1);
    }
}
