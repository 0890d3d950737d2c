//! One configuration for all AWS clients of a function.

use std::{fs, io, path::PathBuf};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_types::timeout::TimeoutConfig;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::BoxError;

/// Variable that names another trust store, as in the other AWS SDKs. The Rust SDK leaves it to the application.
pub const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// The trust store that `AWS_CA_BUNDLE` names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaBundleError {
    /// There is no such file, or it may not be read.
    #[error("{CA_BUNDLE} names {}, which cannot be read: expected a PEM file of certificates", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no certificate, or one that is none.
    #[error("{CA_BUNDLE} names {}, which is no list of certificates: expected a PEM file", path.display())]
    NoCertificates {
        /// The file.
        path: PathBuf,
    },
    /// The HTTP client does not take it.
    #[error("the trust store was not taken by the HTTP client")]
    NotTaken {
        /// Why.
        source: BoxError,
    },
}

/// Makes the configuration that all AWS clients of a function share, and with it their connections: region,
/// credentials and endpoint as the AWS SDKs take them from the environment, our time limits, and the trust store that
/// `ca_bundle` (the value of [`CA_BUNDLE`]) names instead of the system's.
///
/// # Errors
///
/// The trust store cannot be used.
pub async fn sdk_config(ca_bundle: Option<PathBuf>, timeouts: TimeoutConfig) -> Result<SdkConfig, CaBundleError> {
    let trust_store = match ca_bundle {
        Some(path) => TrustStore::empty().with_pem_certificate(read_ca_bundle(path)?),
        None => TrustStore::default(),
    };
    let tls = TlsContext::builder().with_trust_store(trust_store).build();
    let tls = tls.map_err(|error| CaBundleError::NotTaken { source: error.into() })?;
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https();
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http).timeout_config(timeouts);
    Ok(loader.load().await)
}

/// Reads a trust store and makes sure of it, since the SDK's HTTP client panics over one it cannot use.
fn read_ca_bundle(path: PathBuf) -> Result<Vec<u8>, CaBundleError> {
    let pem = match fs::read(&path) {
        Ok(pem) => pem,
        Err(source) => return Err(CaBundleError::Unreadable { path, source }),
    };
    let mut roots = RootCertStore::empty();
    let all_usable = CertificateDer::pem_slice_iter(&pem)
        .all(|certificate| certificate.is_ok_and(|certificate| roots.add(certificate).is_ok()));
    if all_usable && !roots.is_empty() { Ok(pem) } else { Err(CaBundleError::NoCertificates { path }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_store_that_cannot_be_used_is_an_error_that_names_the_variable_and_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = directory.path().join("missing.pem");
        let empty = directory.path().join("empty.pem");
        fs::write(&empty, "").expect("written");
        let broken = directory.path().join("broken.pem");
        fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("written");
        for path in [missing, empty, broken] {
            let error = read_ca_bundle(path.clone()).expect_err("not usable").to_string();
            assert!(error.contains("AWS_CA_BUNDLE") && error.contains(&*path.to_string_lossy()), "{error}");
        }
    }
}
