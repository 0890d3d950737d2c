//! Set-up that all AWS clients of a function share: the SDK's own configuration, one HTTP client, and its trust store.

use std::{env, fs, io, path::PathBuf, time::Duration};

use aws_config::{
    BehaviorVersion, SdkConfig,
    default_provider::{
        endpoint_url::endpoint_url_provider, use_dual_stack::use_dual_stack_provider, use_fips::use_fips_provider,
    },
    ecs::EcsCredentialsProvider,
    environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider},
    meta::{credentials::CredentialsProviderChain, region::ProvideRegion},
    provider_config::ProviderConfig,
};
use aws_sdk_sns::config::{
    SharedCredentialsProvider,
    endpoint::{DefaultResolver, Params, ResolveEndpoint},
};
use aws_smithy_http_client::{
    Connector,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorSettings, SharedHttpConnector, http_client_fn},
    orchestrator::HttpRequest,
};
use aws_smithy_types::{byte_stream::ByteStream, timeout::TimeoutConfig};
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::timeout;
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::BoxError;

/// Variable that names a file of certificates to trust in place of the public ones, as in the other AWS SDKs. The Rust
/// SDK leaves it to the application.
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// Variable that names another endpoint of SNS. The SDK's clients read it themselves.
const SNS_ENDPOINT: &str = "AWS_ENDPOINT_URL_SNS";

/// The longest wait of [`Aws::connect_to_sns`]. A connection takes milliseconds. A start must not wait longer for SNS than
/// for the signing keys.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Settings that all AWS clients of a function share.
#[derive(Debug)]
pub struct Aws {
    /// Configuration that a client is made from.
    pub config: SdkConfig,
    connector: SharedHttpConnector,
    sns: Params,
}

/// The AWS clients cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// The file that `AWS_CA_BUNDLE` names does not exist, or may not be read.
    #[error("{CA_BUNDLE} names {}, which cannot be read: expected a PEM file of certificates", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// The file holds no certificate, or one that cannot be read.
    #[error("{CA_BUNDLE} names {}, which is not a list of certificates: expected a PEM file", path.display())]
    NotCertificates {
        /// The file.
        path: PathBuf,
    },
    /// No region is set. Every call to AWS needs one.
    #[error(
        "AWS_REGION is missing: expected a region, such as eu-central-1. Lambda sets it; elsewhere set it yourself"
    )]
    NoRegion,
    /// The SDK refuses a setting.
    #[error("the AWS clients cannot be made from these settings")]
    Refused {
        /// Reason.
        source: BoxError,
    },
}

impl Aws {
    /// Loads the SDK's configuration from the environment, with these time limits.
    ///
    /// Credentials come from the environment's variables or from where containers have them. These are pieces of
    /// `aws-config`: its own loader has every other source as well (profiles, roles, instance metadata), which takes
    /// 0.8 MB of each function and 0.8 million instructions of each start.
    ///
    /// # Errors
    ///
    /// There is no region, the trust store cannot be used, or the SDK refuses a setting.
    pub async fn load(timeouts: TimeoutConfig) -> Result<Self, AwsError> {
        let connector = connector(trust_store(variable(CA_BUNDLE))?, &timeouts)?;
        // One connector for all clients: by default the SDK makes one for each, and each reads the certificates again.
        let http_client = http_client_fn({
            let connector = connector.clone();
            move |_, _| connector.clone()
        });
        let provider = ProviderConfig::without_region().with_http_client(http_client.clone());
        let environment = EnvironmentVariableCredentialsProvider::new();
        let container = EcsCredentialsProvider::builder().configure(&provider).build();
        let credentials =
            CredentialsProviderChain::first_try("Environment", environment).or_else("Container", container);
        let region = EnvironmentVariableRegionProvider::new().region().await;
        let mut config = SdkConfig::builder();
        config.set_use_fips(use_fips_provider(&provider).await);
        config.set_use_dual_stack(use_dual_stack_provider(&provider).await);
        config.set_endpoint_url(endpoint_url_provider(&provider).await);
        let config = config
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(region)
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .service_config(ServiceEndpoints)
            .http_client(http_client)
            .timeout_config(timeouts)
            .build();
        let region = config.region().filter(|region| !region.as_ref().is_empty()).ok_or(AwsError::NoRegion)?;
        let sns = Params::builder()
            .region(region.to_string())
            .set_endpoint(variable(SNS_ENDPOINT).or_else(|| config.endpoint_url().map(str::to_owned)))
            .use_fips(config.use_fips().unwrap_or_default())
            .use_dual_stack(config.use_dual_stack().unwrap_or_default());
        let sns = sns.build().map_err(|error| AwsError::Refused { source: error.into() })?;
        Ok(Self { config, connector, sns })
    }

    /// Opens a connection to SNS that the first publish then uses. A failure is left to that publish to report.
    ///
    /// The request is unsigned: it needs no permission, changes nothing, and appears in no audit log. Its answer does not
    /// matter.
    pub async fn connect_to_sns(&self) {
        let connect = async {
            let endpoint = DefaultResolver::new().resolve_endpoint(&self.sns).await?;
            let mut request = HttpRequest::get(format!("{}/ping", endpoint.url().trim_end_matches('/')))?;
            request.headers_mut().insert("user-agent", "tableau-fanout");
            let answer = self.connector.call(request).await?;
            // Read to its end, or the connection could not be used again.
            ByteStream::new(answer.into_body()).collect().await?;
            Ok::<_, BoxError>(())
        };
        match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error, "no connection to SNS yet"),
            Err(_) => tracing::debug!("no connection to SNS yet"),
        }
    }
}

/// Endpoints of single services, from the environment.
#[derive(Debug)]
struct ServiceEndpoints;

impl LoadServiceConfig for ServiceEndpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        variable(&format!("{}_{}", key.env(), key.service_id().to_uppercase()))
    }
}

/// Returns the value of a variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the certificates to trust, as PEM: those of the file `bundle`, or all public ones (Mozilla's list, built in,
/// since reading the system's takes longer than the rest of a start).
fn trust_store(bundle: Option<String>) -> Result<Vec<u8>, AwsError> {
    let Some(path) = bundle.map(PathBuf::from) else { return Ok(public_certificates().into_bytes()) };
    match fs::read(&path) {
        Ok(pem) if are_certificates(&pem) => Ok(pem),
        Ok(_) => Err(AwsError::NotCertificates { path }),
        Err(source) => Err(AwsError::Unreadable { path, source }),
    }
}

fn public_certificates() -> String {
    TLS_SERVER_ROOT_CERTS.iter().fold(String::new(), |mut pem, certificate| {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        BASE64_STANDARD.encode_string(certificate, &mut pem);
        pem.push_str("\n-----END CERTIFICATE-----\n");
        pem
    })
}

/// Whether the SDK's client can read this: it panics over what it cannot read.
fn are_certificates(pem: &[u8]) -> bool {
    let mut roots = RootCertStore::empty();
    let mut certificates = CertificateDer::pem_slice_iter(pem);
    certificates.all(|certificate| certificate.is_ok_and(|it| roots.add(it).is_ok())) && !roots.is_empty()
}

fn connector(pem: Vec<u8>, timeouts: &TimeoutConfig) -> Result<SharedHttpConnector, AwsError> {
    let trust_store = TrustStore::empty().with_pem_certificate(pem);
    let tls = TlsContext::builder().with_trust_store(trust_store).build();
    let tls = tls.map_err(|error| AwsError::Refused { source: error.into() })?;
    let mut settings = HttpConnectorSettings::builder();
    settings.set_connect_timeout(timeouts.connect_timeout());
    let connector = Connector::builder()
        .connector_settings(settings.build())
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(tls);
    Ok(SharedHttpConnector::new(connector.build()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_store_that_cannot_be_used_is_an_error_that_names_the_variable_and_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let certificate = public_certificates().split_inclusive("-----END CERTIFICATE-----\n").take(1).collect();
        let unreadable = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (name, content) in [
            ("missing", None),
            ("empty", Some(String::new())),
            ("text", Some("no certificate".to_owned())),
            ("unreadable", Some(unreadable.to_owned())),
            ("unreadable at the end", Some(format!("{}{unreadable}", String::clone(&certificate)))),
        ] {
            let path = directory.path().join(name).to_string_lossy().into_owned();
            if let Some(content) = content {
                fs::write(&path, content).expect("written");
            }
            let error = trust_store(Some(path.clone())).expect_err(name).to_string();
            assert!(error.contains(CA_BUNDLE) && error.contains(&path), "{error}");
        }
        let path = directory.path().join("one").to_string_lossy().into_owned();
        fs::write(&path, &certificate).expect("written");
        assert_eq!(trust_store(Some(path)).expect("a certificate"), certificate.into_bytes());
    }

    #[test]
    fn without_a_bundle_every_public_certificate_is_trusted() {
        let pem = trust_store(None).expect("built in");
        assert!(are_certificates(&pem));
        assert_eq!(CertificateDer::pem_slice_iter(&pem).count(), TLS_SERVER_ROOT_CERTS.len());
    }
}
