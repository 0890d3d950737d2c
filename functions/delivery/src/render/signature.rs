//! Signatures as Standard Webhooks define them, version 1: HMAC-SHA256 over identifier, time and body.

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use time::OffsetDateTime;

use crate::render::text::identifier;

/// The beginning of a signing secret, before its base64.
const SECRET_PREFIX: &str = "whsec_";

/// The most characters of an identifier in a header.
const MAX_ID: usize = 255;

/// Returns the three headers of a signed message. `None` if the secret is not `whsec_` and base64.
pub(crate) fn headers(
    secret: &SecretString,
    id: &str,
    now: OffsetDateTime,
    body: &[u8],
) -> Option<Vec<(String, SecretString)>> {
    let key = BASE64_STANDARD.decode(secret.expose_secret().strip_prefix(SECRET_PREFIX)?).ok()?;
    let (id, timestamp) = (header_id(id), now.unix_timestamp().to_string());
    let mut hmac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    hmac.update(format!("{id}.{timestamp}.").as_bytes());
    hmac.update(body);
    let signature = BASE64_STANDARD.encode(hmac.finalize().into_bytes());
    let headers =
        [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", format!("v1,{signature}"))];
    Some(headers.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
}

/// Returns an identifier for a header. A dot separates the signed parts, so no identifier has one.
fn header_id(id: &str) -> String {
    let safe = |character: char| if character.is_ascii_graphic() && character != '.' { character } else { '_' };
    identifier(&id.chars().map(safe).collect::<String>(), MAX_ID)
}
