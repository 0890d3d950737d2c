//! The signing keys: storage, signing and verification.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::Sha256;
use thiserror::Error;

/// Bytes of a signing key: the length of HMAC-SHA256's output, which RFC 2104 recommends as the minimum.
pub const KEY_BYTES: usize = 32;

/// Bytes of a signature: HMAC-SHA256, not truncated.
pub const SIGNATURE_BYTES: usize = 32;

type Key = SecretBox<[u8; KEY_BYTES]>;

/// The signing keys, at least one: the newest signs, all verify.
///
/// ```
/// use shared::registration::keyring::Keyring;
///
/// // A rotation: webhooks on Tableau still have URLs that the previous key signed.
/// let rotated = Keyring::of([7; 32]).with_newest([8; 32]);
/// assert_eq!(rotated.keys_count(), 2);
///
/// // The next rotation retires the oldest key.
/// let rotated = rotated.with_newest([9; 32]).without_retired();
/// assert_eq!(rotated, Keyring::of([8; 32]).with_newest([9; 32]));
/// ```
#[derive(Debug)]
pub struct Keyring {
    newest: Key,
    previous: Vec<Key>,
}

/// A stored keyring that cannot be used. The messages repeat no text of it, since it holds keys.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidKeyring {
    /// Not a JSON list of texts.
    #[error("the keyring is not a JSON list of texts: expected [\"<base64url of 32 bytes>\", …]")]
    NotAList,
    /// A list without a key.
    #[error("the keyring holds no key: expected at least one")]
    Empty,
    /// A text that is no key.
    #[error("key {position} of the keyring is not valid: expected base64url of {KEY_BYTES} bytes")]
    NotAKey {
        /// Position of the key, counted from 1.
        position: usize,
    },
}

impl PartialEq for Keyring {
    /// Whether the keys and their order are equal. Not constant-time: it compares trusted keyrings only.
    fn eq(&self, other: &Self) -> bool {
        let exposed = |keyring: &Self| keyring.keys().map(|key| *key.expose_secret()).collect::<Vec<_>>();
        exposed(self) == exposed(other)
    }
}

impl Keyring {
    /// Returns a keyring of one key.
    pub fn of(key: [u8; KEY_BYTES]) -> Self {
        Self { newest: SecretBox::new(Box::new(key)), previous: Vec::new() }
    }

    /// Returns the keyring with a new key that signs. The others still verify.
    #[must_use]
    pub fn with_newest(self, key: [u8; KEY_BYTES]) -> Self {
        let Self { newest, mut previous } = self;
        previous.insert(0, newest);
        Self { newest: SecretBox::new(Box::new(key)), previous }
    }

    /// Returns the keyring with its two newest keys only.
    #[must_use]
    pub fn without_retired(mut self) -> Self {
        self.previous.truncate(1);
        self
    }

    /// Returns the number of keys.
    pub fn keys_count(&self) -> usize {
        self.keys().count()
    }

    /// Reads a stored keyring: a JSON list of base64url keys, newest first.
    ///
    /// # Errors
    ///
    /// The text is not a list of at least one key.
    pub fn parse(text: &str) -> Result<Self, InvalidKeyring> {
        let encoded: Vec<&str> = serde_json::from_str(text).map_err(|_| InvalidKeyring::NotAList)?;
        let mut keys = encoded.into_iter().zip(1..).map(|(key, position)| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(key.trim_end_matches('=')).ok();
            let key: [u8; KEY_BYTES] =
                bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(InvalidKeyring::NotAKey { position })?;
            Ok(SecretBox::new(Box::new(key)))
        });
        let newest = keys.next().ok_or(InvalidKeyring::Empty)??;
        Ok(Self { newest, previous: keys.collect::<Result<_, _>>()? })
    }

    /// Returns the text to store.
    pub fn to_stored(&self) -> SecretString {
        let keys: Vec<_> =
            self.keys().map(|key| format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(key.expose_secret()))).collect();
        SecretString::from(format!("[{}]", keys.join(",")))
    }

    /// Signs with the newest key.
    pub(crate) fn sign(&self, message: &str) -> [u8; SIGNATURE_BYTES] {
        mac(&self.newest, message).finalize().into_bytes().into()
    }

    /// Signs with each key, the newest first.
    pub(crate) fn signatures(&self, message: &str) -> impl Iterator<Item = [u8; SIGNATURE_BYTES]> {
        self.keys().map(move |key| mac(key, message).finalize().into_bytes().into())
    }

    /// Whether any of the keys made the signature. Takes equal time for every wrong signature.
    pub(crate) fn verifies(&self, message: &str, signature: &[u8; SIGNATURE_BYTES]) -> bool {
        self.keys().any(|key| mac(key, message).verify_slice(signature).is_ok())
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.newest).chain(&self.previous)
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn mac(key: &Key, message: &str) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key.expose_secret()).expect("a key").chain_update(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_keyring_is_read_again() -> Result<(), InvalidKeyring> {
        let stored = Keyring::of([7; KEY_BYTES]).to_stored();
        let read = Keyring::parse(stored.expose_secret())?;
        assert!(read.verifies("message", &Keyring::of([7; KEY_BYTES]).sign("message")));
        assert!(!read.verifies("massage", &Keyring::of([7; KEY_BYTES]).sign("message")));
        Ok(())
    }

    #[test]
    fn the_first_key_signs_and_every_key_verifies() -> Result<(), InvalidKeyring> {
        let [old, new] = [1_u8, 2].map(|byte| BASE64_URL_SAFE_NO_PAD.encode([byte; KEY_BYTES]));
        let keyring = Keyring::parse(&format!(r#"["{new}","{old}="]"#))?;
        assert_eq!(keyring.sign("m"), Keyring::of([2; KEY_BYTES]).sign("m"));
        assert!(keyring.verifies("m", &Keyring::of([1; KEY_BYTES]).sign("m")));
        assert!(!keyring.verifies("m", &Keyring::of([3; KEY_BYTES]).sign("m")));
        Ok(())
    }

    #[test]
    fn a_new_key_signs_and_the_previous_ones_verify_until_they_are_retired() {
        let [first, second, third] = [1, 2, 3].map(|byte| Keyring::of([byte; KEY_BYTES]).sign("m"));
        let keyring = Keyring::of([1; KEY_BYTES]).with_newest([2; KEY_BYTES]).with_newest([3; KEY_BYTES]);
        assert_eq!(keyring.sign("m"), third);
        assert!([first, second, third].iter().all(|signature| keyring.verifies("m", signature)));
        let keyring = keyring.without_retired();
        assert_eq!((keyring.sign("m"), keyring.keys_count()), (third, 2));
        assert!(keyring.verifies("m", &second) && !keyring.verifies("m", &first));
    }

    #[test]
    fn an_invalid_keyring_is_refused() {
        let short = BASE64_URL_SAFE_NO_PAD.encode([1; KEY_BYTES - 1]);
        for (text, expected) in [
            ("", InvalidKeyring::NotAList),
            ("{}", InvalidKeyring::NotAList),
            ("[1]", InvalidKeyring::NotAList),
            ("[]", InvalidKeyring::Empty),
            (r#"["%"]"#, InvalidKeyring::NotAKey { position: 1 }),
            (&format!(r#"["{short}"]"#), InvalidKeyring::NotAKey { position: 1 }),
        ] {
            assert_eq!(Keyring::parse(text).err(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_keyring_shows_no_key_when_debugged() {
        let shown = format!("{:?}", Keyring::of([42; KEY_BYTES]));
        assert!(!shown.contains("42"), "{shown}");
    }
}
