//! Signed URLs: destinations of webhooks, which are their credentials.

use std::fmt;

use url::Url;

use crate::{
    registration::{
        claim::{Claim, PATH_ROOT, Registration},
        keyring::Keyring,
    },
    settings::address,
};

impl Registration {
    /// Returns the address to register on Tableau, signed with the newest key.
    pub fn signed_url(&self, receiver: &ReceiverUrl, keyring: &Keyring) -> RegistrationUrl {
        let Self { site, event } = self;
        let signature = self.newest_signature(keyring);
        RegistrationUrl(format!("{}{PATH_ROOT}/{site}/{event}/{signature}", receiver.0))
    }
}

/// Address of the receiver, ending in a slash.
///
/// ```
/// use shared::registration::signed_url::ReceiverUrl;
///
/// let receiver = ReceiverUrl::parse("https://receiver.example/stage");
/// assert_eq!(receiver, ReceiverUrl::parse("https://receiver.example/stage/"));
/// // A signed URL is a credential, so only a loopback host may have plain http.
/// assert_eq!(ReceiverUrl::parse("http://receiver.example"), None);
/// assert!(ReceiverUrl::parse("http://localhost:8000").is_some());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverUrl(String);

impl ReceiverUrl {
    /// Description of a valid address, for error messages.
    pub const EXPECTED: &str = "the receiver's https address, such as https://abc.lambda-url.eu-central-1.on.aws/";

    /// Reads an address; `None` if it is not an https address (http for a loopback host) that a path can extend.
    pub fn parse(text: &str) -> Option<Self> {
        let url = address::parse(text)?;
        let slash = if url.path().ends_with('/') { "" } else { "/" };
        Some(Self(format!("{url}{slash}")))
    }

    /// Returns the path that a webhook's destination has at the receiver; `None` if it leads to another host or path.
    pub(crate) fn path_of<'a>(&self, destination: &'a RegistrationUrl) -> Option<&'a str> {
        // The receiver's address ends in a slash, and the path begins with it.
        destination.0.strip_prefix(self.0.trim_end_matches('/')).filter(|path| path.starts_with('/'))
    }
}

/// A webhook's destination. It authenticates deliveries, so only Tableau sees it.
///
/// Held in normal form, so that all texts for one address are equal.
///
/// ```
/// use shared::registration::signed_url::RegistrationUrl;
///
/// let url = RegistrationUrl::observed(
///     "https://RECEIVER.example:443/hooks/marketing/ViewDeleted/x".to_owned(),
/// );
/// assert_eq!(url.expose(), "https://receiver.example/hooks/marketing/ViewDeleted/x");
/// assert_eq!(format!("{url:?}"), "RegistrationUrl([redacted])");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RegistrationUrl(String);

impl RegistrationUrl {
    /// Normalizes an address that Tableau reports, whose host may be in upper case or have the default port.
    pub fn observed(url: String) -> Self {
        Self(Url::parse(&url).map_or(url, String::from))
    }

    /// Returns the secret of a registration's address: its signature. `None` if the address has another form.
    pub(crate) fn signature(&self) -> Option<&str> {
        let (before, signature) = self.after_host().rsplit_once('/')?;
        let root = before.rfind(&format!("/{PATH_ROOT}/"))?;
        Claim::parse(&self.after_host()[root..]).map(|_| signature)
    }

    pub(crate) fn after_host(&self) -> &str {
        let after_scheme = self.0.split_once("//").map_or(&*self.0, |(_, rest)| rest);
        after_scheme.find(['/', '?', '#']).map_or("", |start| &after_scheme[start..])
    }

    /// Exposes the address for the request that registers it.
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
    use crate::registration::{keyring::KEY_BYTES, site_name::MAX_SITE_NAME_CHARACTERS};

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
        fn a_signed_path_is_verified_as_its_registration(
            site in "[a-z0-9-]{1,40}", event in "[A-Za-z]{1,30}", key: [u8; KEY_BYTES],
        ) {
            let registration = registration(&site, &event).expect("valid by construction");
            let path = signed_path(&registration, &Keyring::of(key)).expect("valid by construction");
            let claim = Claim::parse(&path).expect("our own path");
            prop_assert_eq!(claim.verify(&Keyring::of(key)).map(|verified| verified.registration().clone()), Some(registration));
        }

        #[test]
        fn a_path_with_any_character_changed_is_not_verified(
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
    fn a_signature_is_valid_for_its_own_site_and_event_only() {
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
            path.replace("/a/", &format!("/{}/", "a".repeat(MAX_SITE_NAME_CHARACTERS + 1))),
        ] {
            assert!(Claim::parse(&changed).is_none(), "{changed}");
        }
    }

    #[test]
    fn a_receiver_has_an_https_address_or_a_loopback_host() {
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
        fn a_registered_address_is_recognized_in_any_spelling_of_host_and_port(
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
    fn another_address_is_not_equal_to_the_registered_one() {
        let observed = |text: &str| RegistrationUrl::observed(text.to_owned());
        let url = observed("https://receiver.example/hooks/a/B/signature");
        for other in [
            "",
            "receiver.example/hooks/a/B/signature",
            "http://receiver.example/hooks/a/B/signature",
            "https://receiver.example:444/hooks/a/B/signature",
            "https://receiver.example/hooks/a/B/signature/",
            "https://receiver.example/hooks/a/B/Signature",
            // The receiver does not decode paths.
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
    fn a_registration_url_is_not_shown_when_debugged() {
        let url = RegistrationUrl::observed("https://receiver.example/hooks/a/B/signature".to_owned());
        assert_eq!(format!("{url:?}"), "RegistrationUrl([redacted])");
    }
}
