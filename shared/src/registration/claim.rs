//! Registrations, and the verification of a request's claim to one.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    events::catalogue::Event,
    registration::{
        keyring::{Keyring, SIGNATURE_BYTES},
        site_name::SiteName,
    },
};

/// First segment of every registration's path.
pub(crate) const PATH_ROOT: &str = "hooks";

/// One event of one site, for which a webhook is registered on Tableau.
///
/// ```
/// use shared::registration::{claim::Registration, keyring::Keyring, signed_url::ReceiverUrl};
///
/// let registration =
///     Registration { site: "marketing".parse()?, event: "WorkbookRefreshFailed".parse()? };
/// let receiver = ReceiverUrl::parse("https://receiver.example").ok_or(ReceiverUrl::EXPECTED)?;
/// let url = registration.signed_url(&receiver, &Keyring::of([7; 32]));
/// assert!(
///     url.expose().starts_with("https://receiver.example/hooks/marketing/WorkbookRefreshFailed/")
/// );
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registration {
    /// Name of the site.
    pub site: SiteName,
    /// The event.
    pub event: Event,
}

impl Registration {
    /// Returns the signatures of its address, one for each key.
    pub(crate) fn signatures(&self, keyring: &Keyring) -> impl Iterator<Item = String> {
        keyring.signatures(&self.signed_message()).map(encode).collect::<Vec<_>>().into_iter()
    }

    /// Returns the signature of its address by the newest key.
    pub(crate) fn newest_signature(&self, keyring: &Keyring) -> String {
        encode(keyring.sign(&self.signed_message()))
    }

    fn signed_message(&self) -> String {
        let Self { site, event } = self;
        format!("v1\n{site}\n{event}")
    }
}

/// Encodes a signature for an address.
fn encode(signature: [u8; SIGNATURE_BYTES]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(signature)
}

/// A request's claim to a registration, not verified yet.
///
/// ```
/// use shared::registration::{
///     claim::{Claim, Registration},
///     keyring::Keyring,
///     signed_url::ReceiverUrl,
/// };
///
/// let registration =
///     Registration { site: "marketing".parse()?, event: "WorkbookRefreshFailed".parse()? };
/// # let receiver = ReceiverUrl::parse("https://receiver.example").ok_or(ReceiverUrl::EXPECTED)?;
/// let url = registration.signed_url(&receiver, &Keyring::of([7; 32]));
/// let path = url.expose().trim_start_matches("https://receiver.example");
///
/// let claim = Claim::parse(path).ok_or("not the path of a registration")?;
/// let verified = claim.verify(&Keyring::of([7; 32])).ok_or("no key made the signature")?;
/// assert_eq!(*verified.registration(), registration);
/// assert_eq!(claim.verify(&Keyring::of([8; 32])), None);
///
/// // The signature is valid for this site and event only.
/// let of_finance = Claim::parse(&path.replace("marketing", "finance"));
/// assert!(of_finance.is_some_and(|claim| claim.verify(&Keyring::of([7; 32])).is_none()));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Claim {
    registration: Registration,
    signature: [u8; SIGNATURE_BYTES],
}

/// A verified registration. Only [`Claim::verify`] and
/// [`UnverifiedRecord::verify`](crate::events::unverified::UnverifiedRecord::verify) make one, and only its deliveries can be
/// published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified(Registration);

impl Claim {
    /// Reads a request's path; `None` if it does not have the form of a registration's.
    pub fn parse(path: &str) -> Option<Self> {
        let mut segments = path.strip_prefix('/')?.split('/');
        let (root, site, event, signature) = (segments.next()?, segments.next()?, segments.next()?, segments.next()?);
        if root != PATH_ROOT || segments.next().is_some() {
            return None;
        }
        let registration = Registration { site: site.parse().ok()?, event: event.parse().ok()? };
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?.try_into().ok()?;
        Some(Self { registration, signature })
    }

    /// Returns the claimed registration.
    pub(crate) fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Returns a digest of the claim's signature.
    pub(crate) fn signature_digest(&self) -> SignatureDigest {
        SignatureDigest::of(&self.signature)
    }

    /// Returns the registration if one of the keys made the signature.
    pub fn verify(&self, keyring: &Keyring) -> Option<Verified> {
        let Self { registration, signature } = self;
        keyring.verifies(&registration.signed_message(), signature).then(|| Verified(registration.clone()))
    }
}

/// SHA-256 of a claim's signature: enough to verify it once the keys can be read again. It reveals nothing, since a signature
/// has 256 bits that cannot be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct SignatureDigest([u8; 32]);

/// The text is not the digest of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the digest of a signature consists of 64 hexadecimal digits")]
pub(crate) struct InvalidSignatureDigest;

impl SignatureDigest {
    fn of(signature: &[u8; SIGNATURE_BYTES]) -> Self {
        Self(Sha256::digest(signature).into())
    }

    /// Returns the registration if the digest is that of its signature by one of the keys.
    pub(crate) fn verify(self, registration: Registration, keyring: &Keyring) -> Option<Verified> {
        let message = registration.signed_message();
        let is_made = keyring.signatures(&message).any(|signature| Self::of(&signature) == self);
        is_made.then_some(Verified(registration))
    }
}

impl From<SignatureDigest> for String {
    fn from(digest: SignatureDigest) -> Self {
        digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for SignatureDigest {
    type Error = InvalidSignatureDigest;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidSignatureDigest);
        }
        let mut digest = [0; 32];
        for (byte, position) in digest.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[position..position + 2], 16).map_err(|_| InvalidSignatureDigest)?;
        }
        Ok(Self(digest))
    }
}

#[cfg(test)]
impl Registration {
    /// Skips the verification.
    pub(crate) fn verified_in_tests(self) -> Verified {
        Verified(self)
    }
}

impl Verified {
    /// Returns the registration.
    pub fn registration(&self) -> &Registration {
        &self.0
    }
}
