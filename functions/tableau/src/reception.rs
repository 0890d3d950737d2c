//! Receives the bodies of answers within limits of memory.

use std::{collections::BTreeSet, io::Write};

use flate2::write::GzDecoder;
use reqwest::{Response, header::CONTENT_ENCODING};

use crate::{
    body::{INCOMPLETE, TOO_LARGE, Unreadable, decoded},
    rows::RowFilter,
};

/// The most bytes read of an error. Its text is truncated to far fewer.
const ERROR: usize = 64 * 1024;

const UNKNOWN_COMPRESSION: Unreadable = "its compression is unknown";

/// The reason why the end of an answer was not received.
pub(crate) enum Interrupted {
    /// The connection failed, or the time ran out.
    Failed(reqwest::Error),
    /// The body cannot be read.
    Unreadable(Unreadable),
}

/// Receives the body of an answer of at most `max_bytes`, or the beginning of an error's. Of a list to be filtered, keeps the rows
/// with a `wanted` identifier (see [`RowFilter`]).
pub(crate) async fn receive(
    response: &mut Response,
    max_bytes: usize,
    wanted: Option<&BTreeSet<String>>,
) -> Result<Vec<u8>, Interrupted> {
    let is_error = !response.status().is_success();
    if let Some(wanted) = wanted.filter(|_| !is_error) {
        let rows = receive_rows(response, RowFilter::new(wanted, max_bytes)).await?;
        return decoded(rows, max_bytes, false).map_err(Interrupted::Unreadable);
    }
    let max_bytes = if is_error { max_bytes.min(ERROR) } else { max_bytes };
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if chunk.len() <= max_bytes - body.len() => body.extend(chunk),
            Ok(Some(chunk)) if is_error => {
                body.extend(&chunk[..max_bytes - body.len()]);
                break;
            }
            Ok(Some(_)) => return Err(Interrupted::Unreadable(TOO_LARGE)),
            Ok(None) => break,
            // The status of an error says enough.
            Err(_) if is_error => break,
            Err(error) => return Err(Interrupted::Failed(error)),
        }
    }
    if !has_known_encoding(response) && !is_error && !body.is_empty() {
        return Err(Interrupted::Unreadable(UNKNOWN_COMPRESSION));
    }
    decoded(body, max_bytes, is_error).map_err(Interrupted::Unreadable)
}

fn has_known_encoding(response: &Response) -> bool {
    let encoding = response.headers().get(CONTENT_ENCODING).and_then(|encoding| encoding.to_str().ok());
    encoding.is_none_or(|encoding| ["gzip", "x-gzip", "identity", ""].contains(&encoding.trim()))
}

async fn receive_rows(response: &mut Response, mut filter: RowFilter<'_>) -> Result<Vec<u8>, Interrupted> {
    if !has_known_encoding(response) {
        return Err(Interrupted::Unreadable(UNKNOWN_COMPRESSION));
    }
    let mut next = response.chunk().await.map_err(Interrupted::Failed)?;
    // No JSON begins with the first byte of gzip.
    if next.as_ref().is_some_and(|chunk| chunk.starts_with(&[0x1f])) {
        let mut decoder = GzDecoder::new(filter);
        while let Some(chunk) = next {
            let written = decoder.write_all(&chunk);
            written.map_err(|_| Interrupted::Unreadable(decoder.get_ref().error().unwrap_or(INCOMPLETE)))?;
            next = response.chunk().await.map_err(Interrupted::Failed)?;
        }
        filter = decoder.finish().map_err(|_| Interrupted::Unreadable(INCOMPLETE))?;
    } else {
        while let Some(chunk) = next {
            filter.push(&chunk).map_err(Interrupted::Unreadable)?;
            next = response.chunk().await.map_err(Interrupted::Failed)?;
        }
    }
    Ok(filter.kept())
}
