//! Deliveries that cannot be verified while the signing keys cannot be read: their log records, from which they are
//! verified later, and the limit of these records.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    events::catalogue::Event,
    registration::{
        claim::{Claim, Registration, SignatureDigest, Verified},
        keyring::Keyring,
        site_name::SiteName,
    },
};

/// The most bytes of a record's line in the log. The largest known delivery of Tableau has less: two names of 255
/// characters, each character escaped with 12 bytes, and 0.5 KB besides, in base64.
const LINE_BYTES: usize = 12 * 1024;

/// The most bytes of a line besides names and body: field names, time, request id, sentence, digest of the signature.
const OVERHEAD_BYTES: usize = 512;

/// The most bytes that an environment records in a minute: some 200 typical deliveries. A flood costs at most a fifth of
/// a dollar a day and environment.
pub const MINUTE_BYTES: usize = 256 * 1024;

/// How long the budget lasts.
const MINUTE: Duration = Duration::from_secs(60);

/// A delivery that could be neither verified nor rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnverifiedRecord {
    site: SiteName,
    /// The event that the delivery claims to be registered for.
    event: Event,
    outcome: Unverified,
    signature_sha256: SignatureDigest,
    body_base64: String,
}

/// The only outcome of such a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Unverified {
    Unverified,
}

impl UnverifiedRecord {
    /// `outcome` of these records.
    pub const OUTCOME: &str = "unverified";

    /// The sentence of their lines.
    pub const MESSAGE: &str = "The signing keys could not be read. To verify and publish this delivery when they can, run: cargo infra replay 24";

    /// Records a delivery whole, with a digest in place of its signature. `None` if it is larger than any of Tableau's.
    pub fn of(claim: &Claim, body: &[u8]) -> Option<Self> {
        let Registration { site, event } = claim.registration();
        let encoded_length = body.len().div_ceil(3) * 4;
        if encoded_length + site.as_str().len() + event.as_str().len() + OVERHEAD_BYTES > LINE_BYTES {
            return None;
        }
        Some(Self {
            site: site.clone(),
            event: event.clone(),
            outcome: Unverified::Unverified,
            signature_sha256: claim.signature_digest(),
            body_base64: BASE64_STANDARD.encode(body),
        })
    }

    /// Verifies the delivery: `None` if none of the keys made its signature.
    pub fn verify(&self, keyring: &Keyring) -> Option<Verified> {
        let registration = Registration { site: self.site.clone(), event: self.event.clone() };
        self.signature_sha256.verify(registration, keyring)
    }

    /// Returns the body as it came, `None` if the record was changed since.
    pub fn body(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(&self.body_base64).ok()
    }

    /// The most bytes of its line in the log.
    fn line_bytes(&self) -> usize {
        self.body_base64.len() + self.site.as_str().len() + self.event.as_str().len() + OVERHEAD_BYTES
    }
}

/// Limits the bytes that are recorded in a minute, however many requests arrive: first come, first served. Each minute
/// has a new budget, so that a flood keeps a genuine delivery out for the rest of a minute at most.
#[derive(Debug, Default)]
pub struct RecordBudget {
    minute_began: Option<Duration>,
    used_bytes: usize,
}

impl RecordBudget {
    /// Takes the bytes of a record, and returns whether there were enough. `now` is the time since any fixed moment.
    pub fn take(&mut self, record: &UnverifiedRecord, now: Duration) -> bool {
        if self.minute_began.is_none_or(|began| now.saturating_sub(began) >= MINUTE) {
            *self = Self { minute_began: Some(now), used_bytes: 0 };
        }
        let used_bytes = self.used_bytes + record.line_bytes();
        let is_enough = used_bytes <= MINUTE_BYTES;
        if is_enough {
            self.used_bytes = used_bytes;
        }
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        events::delivery_log::DeliveryRecord,
        registration::{
            keyring::KEY_BYTES,
            signed_url::{ReceiverUrl, RegistrationUrl},
        },
    };

    const RECEIVER: &str = "https://receiver.example";

    fn keyring(key: u8) -> Keyring {
        Keyring::of([key; KEY_BYTES])
    }

    fn url(site: &str, event: &str, key: u8) -> RegistrationUrl {
        let registration =
            Registration { site: site.parse().expect("a site"), event: event.parse().expect("an event") };
        registration.signed_url(&ReceiverUrl::parse(RECEIVER).expect("an address"), &keyring(key))
    }

    fn claim(url: &RegistrationUrl) -> Claim {
        url.expose().strip_prefix(RECEIVER).and_then(Claim::parse).expect("our own path")
    }

    fn record(body: &[u8]) -> UnverifiedRecord {
        UnverifiedRecord::of(&claim(&url("marketing", "WorkbookCreated", 7)), body).expect("a small delivery")
    }

    proptest! {
        #[test]
        fn a_recorded_delivery_is_verified_by_its_key_alone(
            site in "[a-z0-9-]{1,40}", event in "[A-Za-z]{1,30}", key: u8, body: Vec<u8>,
        ) {
            let url = url(&site, &event, key);
            let record = UnverifiedRecord::of(&claim(&url), &body).expect("a small delivery");
            let line = serde_json::to_string(&record).expect("a record is JSON");
            let record: UnverifiedRecord = serde_json::from_str(&line).expect("a record");
            let verified = record.verify(&keyring(key.wrapping_add(1)).with_newest([key; KEY_BYTES]));
            let expected = claim(&url).verify(&keyring(key));
            prop_assert!(expected.is_some());
            prop_assert_eq!((verified, record.body()), (expected, Some(body)));
            prop_assert_eq!(record.verify(&keyring(key.wrapping_add(1))), None);
        }

        #[test]
        fn a_minute_has_at_most_two_budgets_and_an_hour_one_a_minute(
            deliveries in prop::collection::vec((0_u64..2000, 0_usize..9000), 1..300),
        ) {
            let (mut budget, mut now, mut taken) = (RecordBudget::default(), Duration::ZERO, Vec::new());
            let claim = claim(&url("marketing", "WorkbookCreated", 7));
            for (after, length) in deliveries {
                now += Duration::from_millis(after);
                let Some(record) = UnverifiedRecord::of(&claim, &vec![b'x'; length]) else { continue };
                if budget.take(&record, now) {
                    taken.push((now, record.line_bytes()));
                }
            }
            for (lasts, budgets) in [(60, 2), (3600, 61)] {
                let (mut first, mut bytes) = (0, 0);
                for (at, length) in &taken {
                    bytes += length;
                    while *at - taken[first].0 >= Duration::from_secs(lasts) {
                        bytes -= taken[first].1;
                        first += 1;
                    }
                    prop_assert!(bytes <= budgets * MINUTE_BYTES, "{bytes} bytes in {lasts} s");
                }
            }
        }
    }

    #[test]
    fn a_record_has_all_of_a_delivery_except_its_signature() {
        let url = url("marketing", "WorkbookCreated", 7);
        let record = UnverifiedRecord::of(&claim(&url), b"{}").expect("a small delivery");
        let expected = json!({
            "site": "marketing",
            "event": "WorkbookCreated",
            "outcome": "unverified",
            // Computed with Python's hashlib of the signature that is documented in registration.rs.
            "signature_sha256": "771c96a290c13412e5abe8b09b35ac0ee831b11652e1a86ea5e795e932b0fdb4",
            "body_base64": "e30=",
        });
        let shown = serde_json::to_value(&record).expect("a record is JSON");
        assert_eq!(shown, expected);
        assert!(serde_json::from_value::<DeliveryRecord>(shown).is_err(), "it is read as a verified delivery");
    }

    #[test]
    fn a_record_is_valid_for_its_site_and_event_and_its_digest_for_none() {
        let line = serde_json::to_string(&record(b"{}")).expect("a record is JSON");
        for (good, other) in [("marketing", "finance"), ("Created", "Deleted")] {
            let changed: UnverifiedRecord = serde_json::from_str(&line.replace(good, other)).expect("a record");
            assert_eq!(changed.verify(&keyring(7)), None, "{other}");
        }
        let shown = String::from(record(b"{}").signature_sha256);
        let bytes =
            [&shown[..32], &shown[32..]].map(|half| u128::from_str_radix(half, 16).expect("hexadecimal").to_be_bytes());
        let presented = BASE64_URL_SAFE_NO_PAD.encode(bytes.concat());
        let claim = Claim::parse(&format!("/hooks/marketing/WorkbookCreated/{presented}")).expect("well-formed");
        assert_eq!(claim.verify(&keyring(7)), None);
    }

    #[test]
    fn a_body_larger_than_any_delivery_of_tableau_is_not_recorded() {
        let largest_name = "\\ud83d\\udcc8".repeat(255);
        let body = json!({ "event_type": "WorkbookCreated", "resource_name": largest_name, "text": largest_name });
        let body = body.to_string().replace("\\\\", "\\");
        assert!(body.len() > 6000 && record(body.as_bytes()).line_bytes() < LINE_BYTES, "{}", body.len());
        let (small, large) = ("A".repeat(100), "A".repeat(LINE_BYTES));
        for (event, body) in [(&small, vec![0; LINE_BYTES * 3 / 4]), (&large, Vec::new())] {
            assert_eq!(UnverifiedRecord::of(&claim(&url("marketing", event, 7)), &body), None);
        }
    }

    #[test]
    fn a_full_minute_takes_nothing_from_the_next() {
        let (mut budget, minute) = (RecordBudget::default(), Duration::from_secs(60));
        let (junk, genuine) = (record(b""), record(&[0; 6000]));
        for began in [Duration::from_secs(5), Duration::from_secs(65), Duration::from_secs(1000)] {
            assert!(budget.take(&genuine, began), "{began:?}");
            while budget.take(&junk, began + minute / 2) {}
            assert!(!budget.take(&genuine, began + minute - Duration::from_millis(1)));
        }
    }
}
