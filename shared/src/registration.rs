//! Registrations and their signed addresses: what lets the receiver know who may speak for what.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use url::Url;

use crate::{
    address,
    event::Event,
    keyring::{Keyring, SIGNATURE_BYTES},
    known_secrets::KnownSecrets,
};

/// The most characters a site name has: it is to be read in messages and stands in every registration's address.
const SITE_NAME_CHARACTERS: usize = 40;

/// First segment of every registration's path.
const PATH_ROOT: &str = "hooks";

/// Name people give a Tableau site here: 1 to 40 lower-case letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SiteName(String);

/// The text is not a site name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a site name consists of 1 to {SITE_NAME_CHARACTERS} lower-case letters, digits and hyphens")]
pub struct InvalidSiteName;

impl SiteName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SiteName {
    type Err = InvalidSiteName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > SITE_NAME_CHARACTERS || !text.bytes().all(allowed) {
            return Err(InvalidSiteName);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for SiteName {
    type Error = InvalidSiteName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One event of one site: what one webhook on Tableau is registered for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registration {
    /// The site, by our name for it.
    pub site: SiteName,
    /// The event.
    pub event: Event,
}

impl Registration {
    /// The address to register with Tableau, signed with the newest key.
    pub fn signed_url(&self, receiver: &ReceiverUrl, keyring: &Keyring) -> RegistrationUrl {
        let Self { site, event } = self;
        let signature = written(keyring.sign(&self.signed_message()));
        RegistrationUrl(format!("{}{PATH_ROOT}/{site}/{event}/{signature}", receiver.0))
    }

    /// What signs its address, or did: one for each key.
    pub(crate) fn signatures(&self, keyring: &Keyring) -> impl Iterator<Item = String> {
        keyring.signatures(&self.signed_message()).map(written).collect::<Vec<_>>().into_iter()
    }

    fn signed_message(&self) -> String {
        let Self { site, event } = self;
        format!("v1\n{site}\n{event}")
    }
}

/// A signature as an address has it.
fn written(signature: [u8; SIGNATURE_BYTES]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(signature)
}

/// A request's claim to speak for a registration, not yet believed.
#[derive(Debug)]
pub struct Claim {
    registration: Registration,
    signature: [u8; SIGNATURE_BYTES],
}

/// A registration whose signature was verified. Only [`Claim::verify`] and
/// [`UnverifiedRecord::verify`](crate::unverified::UnverifiedRecord::verify) make one, and only one of these can be
/// published for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified(Registration);

impl Claim {
    /// Reads a request's path, `None` if it is not of the form of a registration's.
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

    /// The registration that it claims to speak for.
    pub(crate) fn registration(&self) -> &Registration {
        &self.registration
    }

    /// A digest of the presented signature.
    pub(crate) fn signature_digest(&self) -> SignatureDigest {
        SignatureDigest::of(&self.signature)
    }

    /// The registration, if one of the keys made the signature.
    pub fn verify(&self, keyring: &Keyring) -> Option<Verified> {
        let Self { registration, signature } = self;
        keyring.verifies(&registration.signed_message(), signature).then(|| Verified(registration.clone()))
    }
}

/// SHA-256 of a presented signature: enough to verify it when the keys can be read again, and of no use to whoever finds
/// it, since a signature has 256 bits that cannot be guessed.
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

    /// The registration, if one of the keys makes the signature for it that has this digest.
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
    /// A registration as if its signature had been verified.
    pub(crate) fn verified_in_tests(self) -> Verified {
        Verified(self)
    }
}

impl Verified {
    /// What the request may speak for.
    pub fn registration(&self) -> &Registration {
        &self.0
    }
}

/// Address of the receiver, ending in a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverUrl(String);

impl ReceiverUrl {
    /// What a valid one looks like, for error messages.
    pub const EXPECTED: &str = "the receiver's https address, such as https://abc.lambda-url.eu-central-1.on.aws/";

    /// Reads an address, `None` if it is not an https address (http for a loopback host) that can be extended.
    pub fn parse(text: &str) -> Option<Self> {
        let url = address::parse(text)?;
        let slash = if url.path().ends_with('/') { "" } else { "/" };
        Some(Self(format!("{url}{slash}")))
    }

    /// The path that the receiver is called with at a webhook's destination, `None` if that is somewhere else.
    pub(crate) fn path_of<'a>(&self, destination: &'a RegistrationUrl) -> Option<&'a str> {
        // Ours ends in a slash, which the path begins with.
        destination.0.strip_prefix(self.0.trim_end_matches('/')).filter(|path| path.starts_with('/'))
    }
}

/// A webhook's destination: whoever knows it can speak for the registration, so it is shown to Tableau only.
///
/// In the one form that all texts for the same address have, so that equal ones are equal.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistrationUrl(String);

impl RegistrationUrl {
    /// Takes an address that Tableau reports: of a host in upper case, with the default port, or however it writes it.
    pub fn observed(url: String) -> Self {
        Self(Url::parse(&url).map_or(url, String::from))
    }

    /// What is secret of a registration's address: its signature. `None` if it is an address of another form.
    pub(crate) fn signature(&self) -> Option<&str> {
        let (before, signature) = self.after_host().rsplit_once('/')?;
        let root = before.rfind(&format!("/{PATH_ROOT}/"))?;
        Claim::parse(&self.after_host()[root..]).map(|_| signature)
    }

    /// The text without what is secret of the address, which of one of another form may be all that follows the host.
    pub fn removed_from(&self, text: &str) -> String {
        let mut secrets = KnownSecrets::default();
        secrets.add(self.signature().unwrap_or_else(|| self.after_host()));
        secrets.redacted(text).into_owned()
    }

    fn after_host(&self) -> &str {
        let after_scheme = self.0.split_once("//").map_or(&*self.0, |(_, rest)| rest);
        after_scheme.find(['/', '?', '#']).map_or("", |start| &after_scheme[start..])
    }

    /// The address itself, for the request that registers it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RegistrationUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RegistrationUrl([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keyring::KEY_BYTES;

    fn registration(site: &str, event: &str) -> Option<Registration> {
        Some(Registration { site: site.parse().ok()?, event: event.parse().ok()? })
    }

    fn signed_path(registration: &Registration, keyring: &Keyring) -> Option<String> {
        let receiver = ReceiverUrl::parse("https://receiver.example/")?;
        let url = registration.signed_url(&receiver, keyring);
        url.expose().strip_prefix("https://receiver.example").map(str::to_owned)
    }

    #[test]
    fn the_signature_is_the_documented_one() -> Result<(), Box<dyn std::error::Error>> {
        // Computed with Python's hmac: HMAC-SHA256 of "v1\nmarketing\nWorkbookCreated" under 32 bytes of 0x07.
        let registration = registration("marketing", "WorkbookCreated").ok_or("registration")?;
        let path = signed_path(&registration, &Keyring::of([7; KEY_BYTES])).ok_or("path")?;
        assert_eq!(path, "/hooks/marketing/WorkbookCreated/EE7fdf1T-E0LRhW_mmCTVGnqrv4bnhiwLKhU86Q3yBI");
        Ok(())
    }

    proptest! {
        #[test]
        fn what_was_signed_is_verified_and_says_the_same(
            site in "[a-z0-9-]{1,40}", event in "[A-Za-z]{1,30}", key: [u8; KEY_BYTES],
        ) {
            let registration = registration(&site, &event).expect("valid by construction");
            let path = signed_path(&registration, &Keyring::of(key)).expect("valid by construction");
            let claim = Claim::parse(&path).expect("our own path");
            prop_assert_eq!(claim.verify(&Keyring::of(key)).map(|verified| verified.0), Some(registration));
        }

        #[test]
        fn a_path_with_any_character_changed_is_not_believed(
            position in 0_usize..80, replacement: char, key: [u8; KEY_BYTES],
        ) {
            let registration = registration("marketing", "WorkbookCreated").expect("valid");
            let path = signed_path(&registration, &Keyring::of(key)).expect("valid");
            let position = position % path.len();
            let mut changed = path.clone();
            changed.replace_range(position..=position, &replacement.to_string());
            prop_assume!(changed != path);
            let verified = Claim::parse(&changed).and_then(|claim| claim.verify(&Keyring::of(key)));
            prop_assert_eq!(verified, None);
        }

        #[test]
        fn any_path_is_read_without_panic(path: String) {
            let _ = Claim::parse(&path);
        }
    }

    #[test]
    fn a_signature_speaks_for_its_own_site_and_event_only() {
        let keyring = Keyring::of([7; KEY_BYTES]);
        let path = signed_path(&registration("a", "WorkbookCreated").expect("valid"), &keyring).expect("valid");
        for changed in [path.replace("/a/", "/b/"), path.replace("Created", "Deleted")] {
            let claim = Claim::parse(&changed).expect("well-formed");
            assert_eq!(claim.verify(&keyring), None, "{changed}");
        }
    }

    #[test]
    fn paths_of_another_form_are_no_claims() {
        let path = signed_path(&registration("a", "WorkbookCreated").expect("valid"), &Keyring::of([7; KEY_BYTES]))
            .expect("valid");
        for changed in [
            String::new(),
            "/".to_owned(),
            format!("{path}/"),
            format!("/{path}"),
            format!("{path}="),
            format!("/prod{path}"),
            path.replace("/hooks/", "/Hooks/"),
            path.replace("/a/", "/A/"),
            path.replace("/a/", "/%61/"),
            path.replace("/a/", "//"),
            path.replace("/a/", &format!("/{}/", "a".repeat(SITE_NAME_CHARACTERS + 1))),
        ] {
            assert!(Claim::parse(&changed).is_none(), "{changed}");
        }
    }

    #[test]
    fn a_receiver_is_reached_by_https_or_on_this_machine() {
        for good in
            ["https://abc.lambda-url.eu-central-1.on.aws/", "http://127.0.0.1:9000/lambda-url/x", "http://[::1]:1/"]
        {
            assert!(ReceiverUrl::parse(good).is_some_and(|url| url.0.ends_with('/')), "{good}");
        }
        for bad in ["", "abc", "http://receiver.example/", "https://u:p@receiver.example/", "https://r.example/?q=1"] {
            assert_eq!(ReceiverUrl::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_registered_is_found_again_however_tableau_writes_its_host_and_port(
            site in "[a-z0-9-]{1,40}", event in "[A-Za-z]{1,30}", key: [u8; KEY_BYTES],
            capitals in proptest::collection::vec(any::<bool>(), 64), has_port: bool, is_escaped: bool,
        ) {
            const HOST: &str = "https://a1b2.lambda-url.eu-central-1.on.aws";
            let receiver = ReceiverUrl::parse(HOST).expect("a receiver");
            let registration = registration(&site, &event).expect("valid by construction");
            let url = registration.signed_url(&receiver, &Keyring::of(key));
            let path = url.expose().strip_prefix(HOST).expect("its path");
            let host: String = HOST.chars().zip(&capitals)
                .map(|(it, capital)| if *capital { it.to_ascii_uppercase() } else { it }).collect();
            let host = if is_escaped { host.replace("lambda", "%6Cambda") } else { host };
            let written = format!("{host}{}/.{path}", if has_port { ":443" } else { "" });
            let observed = RegistrationUrl::observed(written);
            prop_assert!(observed == url);
            prop_assert_eq!(receiver.path_of(&observed), Some(path));
        }
    }

    #[test]
    fn another_address_is_not_taken_for_the_registered_one() {
        let observed = |text: &str| RegistrationUrl::observed(text.to_owned());
        let url = observed("https://receiver.example/hooks/a/B/signature");
        for other in [
            "",
            "receiver.example/hooks/a/B/signature",
            "http://receiver.example/hooks/a/B/signature",
            "https://receiver.example:444/hooks/a/B/signature",
            "https://receiver.example/hooks/a/B/signature/",
            "https://receiver.example/hooks/a/B/Signature",
            // The receiver reads paths as they are.
            "https://receiver.example/hooks/%61/B/signature",
            "https://receiver.example//hooks/a/B/signature",
            "https://receiver.example/hooks/a/B/signature?",
            "https://user@receiver.example/hooks/a/B/signature",
            "https://receiver.example./hooks/a/B/signature",
        ] {
            assert!(observed(other) != url, "{other}");
        }
    }

    #[test]
    fn what_is_secret_of_an_address_is_taken_out_of_a_text() -> Result<(), Box<dyn std::error::Error>> {
        let registration = registration("marketing", "ViewDeleted").ok_or("a registration")?;
        let path = signed_path(&registration, &Keyring::of([7; KEY_BYTES])).ok_or("a path")?;
        let signature = path.rsplit('/').next().ok_or("a signature")?;
        for base in ["https://RECEIVER.example:443", "https://receiver.example/prod", "http://127.0.0.1:1/hooks/x"] {
            let ours = RegistrationUrl::observed(format!("{base}{path}"));
            assert_eq!(ours.signature(), Some(signature), "{base}");
            let text = format!("POST https://receiver.example{path} for ViewDeleted of marketing");
            let freed =
                "POST https://receiver.example/hooks/marketing/ViewDeleted/[redacted] for ViewDeleted of marketing";
            assert_eq!(ours.removed_from(&text), freed, "{base}");
        }
        let theirs =
            RegistrationUrl::observed("https://theirs.example/services/T01/c2lnbmF0dXJl?key=0123456789".to_owned());
        assert_eq!(theirs.signature(), None);
        let text = "https://THEIRS.example:443/services/T01/c2lnbmF0dXJl?key=0123456789, theirs.example";
        assert_eq!(theirs.removed_from(text), "https://THEIRS.example:443[redacted], theirs.example");
        for odd in ["", "/", "https://receiver.example", "https://receiver.example/", "x", "a//b/hooks/a/B/c"] {
            assert_eq!(RegistrationUrl::observed(odd.to_owned()).removed_from("a / b"), "a / b", "{odd}");
        }
        Ok(())
    }

    #[test]
    fn a_registration_url_is_not_shown_when_debugged() {
        let url = RegistrationUrl::observed("https://receiver.example/hooks/a/B/signature".to_owned());
        assert_eq!(format!("{url:?}"), "RegistrationUrl([redacted])");
    }
}
