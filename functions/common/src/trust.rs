//! The authorities that AWS is believed by, built in: reading the system's costs more than all the rest of a start.

use base64::{Engine, prelude::BASE64_STANDARD};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

/// What the certificates of Amazon's own authorities have in their names. Amazon asks for all five in a trust store
/// that is not the system's (<https://www.amazontrust.com/repository>).
const AMAZON: [&str; 2] = ["Amazon Root CA ", "Starfield Services Root Certificate Authority - G2"];

/// The authorities that sign for AWS's endpoints in a region, as PEM: Amazon's own in the commercial regions. For the
/// others (China, GovCloud, the European Sovereign Cloud, those to come) AWS promises nothing, and all public
/// authorities are trusted.
pub(crate) fn roots_for_region(region: &str) -> String {
    if is_commercial(region) { pem_of(|root| AMAZON.iter().any(|name| contains(root, name))) } else { all_roots() }
}

/// All public authorities (Mozilla's list), as PEM.
pub(crate) fn all_roots() -> String {
    pem_of(|_| true)
}

/// Whether a region is one of the partition `aws`, by the shape that AWS gives their names: `eu-central-1`, but
/// `us-gov-west-1`, `eusc-de-east-1`, `us-iso-east-1` and `cn-north-1`.
fn is_commercial(region: &str) -> bool {
    let mut parts = region.split('-');
    let (area, count) = (parts.next(), parts.count());
    area != Some("cn") && count == 2
}

fn pem_of(is_wanted: impl Fn(&[u8]) -> bool) -> String {
    let wanted = TLS_SERVER_ROOT_CERTS.iter().filter(|root| is_wanted(root));
    wanted.fold(String::new(), |mut pem, root| {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        BASE64_STANDARD.encode_string(root, &mut pem);
        pem.push_str("\n-----END CERTIFICATE-----\n");
        pem
    })
}

fn contains(certificate: &[u8], name: &str) -> bool {
    // An authority's certificate is its own: its name comes first as the issuer's.
    let issuer = certificate.get(..256).unwrap_or(certificate);
    issuer.windows(name.len()).any(|bytes| bytes == name.as_bytes())
}

#[cfg(test)]
mod tests {
    use rustls::{
        RootCertStore,
        pki_types::{CertificateDer, pem::PemObject},
    };

    use super::*;

    /// The trust store, as the HTTP client reads it.
    fn read(pem: &str) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.expect("PEM")).expect("a root");
        }
        roots
    }

    #[test]
    fn a_commercial_region_is_believed_by_amazons_five_authorities() {
        for region in ["us-east-1", "eu-central-1", "ap-southeast-5", "mx-central-1"] {
            let roots = read(&roots_for_region(region));
            let subjects: Vec<_> =
                roots.roots.iter().map(|root| String::from_utf8_lossy(&root.subject).into_owned()).collect();
            assert_eq!(subjects.len(), 5, "{subjects:?}");
            for name in ["Root CA 1", "Root CA 2", "Root CA 3", "Root CA 4", "Authority - G2"] {
                assert_eq!(subjects.iter().filter(|subject| subject.contains(name)).count(), 1, "{name}: {subjects:?}");
            }
        }
    }

    #[test]
    fn any_other_region_is_believed_by_every_public_authority() {
        for region in ["cn-north-1", "us-gov-west-1", "eusc-de-east-1", "us-iso-east-1", "eu-isoe-west-1", "moon"] {
            assert_eq!(read(&roots_for_region(region)).len(), TLS_SERVER_ROOT_CERTS.len(), "{region}");
        }
    }
}
