//! Answers of a hostile server, which use up the time or the memory of their reader.

use std::{convert::Infallible, io, io::Write, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::model::Hostility;

/// Size of an answer that ends: just below the most that the client reads.
const ANSWER_BYTES: usize = 1280 * 1024;

/// Decompressed size of the compressed answer.
const BOMB_BYTES: usize = 64 * 1024 * 1024;

/// Time between two bytes of the slow answer.
const DRIP_INTERVAL: Duration = Duration::from_millis(200);

/// Answers a call for a page of a list of webhooks.
pub(crate) fn list(hostility: Hostility, number: usize) -> Response {
    let json = |text: String| ([(header::CONTENT_TYPE, "application/json")], text).into_response();
    let page = |rows: usize, name: &str| {
        let pagination = json!({ "pageNumber": number.to_string(), "pageSize": rows.to_string(),
            "totalAvailable": "4000000000" });
        let row = |row: usize| format!(r#"{{"id":"{number}-{row}","name":"{name}"}}"#);
        let rows: Vec<_> = (0..rows).map(row).collect();
        json(format!(r#"{{"pagination":{pagination},"webhooks":{{"webhook":[{}]}}}}"#, rows.join(",")))
    };
    let many = |item: &str| {
        let items = format!("{item},").repeat(ANSWER_BYTES / (item.len() + 1) - 16);
        json(format!(r#"{{"webhooks":{{"webhook":[{items}{item}]}}}}"#))
    };
    match hostility {
        // Not reached: no sign-in succeeds.
        Hostility::SignInLoop => StatusCode::NO_CONTENT.into_response(),
        Hostility::EndlessPages => page(1, "theirs"),
        Hostility::LargePages => page(1000, &"n".repeat(50)),
        Hostility::EndlessAnswer => endless(Duration::ZERO, 64 * 1024).into_response(),
        Hostility::EndlessError => (StatusCode::BAD_REQUEST, endless(Duration::ZERO, 64 * 1024)).into_response(),
        Hostility::Drip => endless(DRIP_INTERVAL, 1).into_response(),
        Hostility::Bomb => {
            let mut response = bomb().unwrap_or_default().into_response();
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        }
        Hostility::ManyValues => many(r#"{"":0}"#),
        Hostility::Nested => json("[".repeat(ANSWER_BYTES)),
    }
}

/// Sends white space without end, in chunks of this size.
fn endless(interval: Duration, bytes: usize) -> Body {
    let chunk = Bytes::from(vec![b' '; bytes]);
    let chunks = stream::repeat(chunk).then(move |chunk| async move {
        // Lets other tasks run even without an interval.
        tokio::time::sleep(interval).await;
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(chunk)
    });
    Body::from_stream(chunks)
}

fn bomb() -> io::Result<Vec<u8>> {
    let (mut encoder, chunk) = (GzEncoder::new(Vec::new(), Compression::fast()), vec![b' '; 1024 * 1024]);
    for _ in 0..BOMB_BYTES / chunk.len() {
        encoder.write_all(&chunk)?;
    }
    encoder.finish()
}
