//! What all AWS clients of a function share: settings, trust, and one HTTP client.
//!
//! Read from the environment that Lambda makes, and not by `aws-config`: its other sources (profiles, instance metadata,
//! roles to assume) are none of a function, and cost every start and every package.

use std::{
    fmt, fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::Duration,
};

use aws_sdk_sns::config::{
    BehaviorVersion, Credentials, Region, SharedCredentialsProvider,
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
use aws_types::{
    SdkConfig,
    service_config::{LoadServiceConfig, ServiceConfigKey},
};
use shared::invalid::{Fields, Invalid};
use tokio::time::timeout;

use crate::{BoxError, trust};

/// Variable that names another trust store, as in the other AWS SDKs. The Rust SDK leaves it to the application.
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// How long [`Aws::connect_to_sns`] may take: a connection takes milliseconds. Where SNS does not answer, a start is not
/// to wait for it longer than for the signing keys.
const CONNECTION_WAIT: Duration = Duration::from_millis(500);

/// What the environment says about AWS.
#[derive(Clone, Debug)]
pub struct AwsSettings {
    region: String,
    credentials: Credentials,
    endpoints: Endpoints,
    use_fips: Option<bool>,
    use_dual_stack: Option<bool>,
    ca_bundle: Option<PathBuf>,
}

/// Other addresses than AWS's own.
#[derive(Clone, Debug, Default)]
struct Endpoints {
    all: Option<String>,
    sns: Option<String>,
    ssm: Option<String>,
}

/// What all AWS clients of a function share.
#[derive(Clone)]
pub struct Aws {
    /// What a client is made of.
    pub config: SdkConfig,
    connector: SharedHttpConnector,
    sns: Params,
}

impl fmt::Debug for Aws {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Aws").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The clients cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// The trust store that `AWS_CA_BUNDLE` names does not exist, or may not be read.
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
    /// The SDK does not take what it is given.
    #[error("the AWS clients cannot be made")]
    NotTaken {
        /// Why.
        source: BoxError,
    },
}

impl AwsSettings {
    /// Reads the settings through a lookup by variable name: those of the AWS SDKs that Lambda sets or that a function
    /// may be given.
    ///
    /// # Errors
    ///
    /// Everything that is missing or not valid, at once.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Invalid> {
        const ADDRESS: &str = "an address, such as https://sns.eu-central-1.amazonaws.com";
        const SWITCH: &str = "true or false";
        let mut fields = Fields::new(|name: &str| match name {
            "AWS_REGION" => lookup(name).or_else(|| lookup("AWS_DEFAULT_REGION")),
            _ => lookup(name),
        });
        let mut required = |name, expected| fields.required(name, expected, |text| Some(text.to_owned()));
        let region = required("AWS_REGION", "a region, such as eu-central-1");
        let key = required("AWS_ACCESS_KEY_ID", "credentials, as Lambda sets them");
        let secret = required("AWS_SECRET_ACCESS_KEY", "credentials, as Lambda sets them");
        let token = fields.optional("AWS_SESSION_TOKEN", "a session token", |text| Some(text.to_owned()));
        let mut address = |name| {
            let is_address = |text: &str| text.starts_with("https://") || text.starts_with("http://");
            fields.optional(name, ADDRESS, |text| is_address(text).then(|| text.to_owned()))
        };
        let endpoints = Endpoints {
            all: address("AWS_ENDPOINT_URL"),
            sns: address("AWS_ENDPOINT_URL_SNS"),
            ssm: address("AWS_ENDPOINT_URL_SSM"),
        };
        let mut switch = |name| fields.optional(name, SWITCH, |text| text.to_ascii_lowercase().parse().ok());
        let use_fips = switch("AWS_USE_FIPS_ENDPOINT");
        let use_dual_stack = switch("AWS_USE_DUALSTACK_ENDPOINT");
        let ca_bundle = fields.optional(CA_BUNDLE, "a PEM file of certificates", |text| Some(text.into()));
        let settings = || {
            let credentials = Credentials::new(key?, secret?, token, None, "environment");
            Some(Self { region: region?, credentials, endpoints, use_fips, use_dual_stack, ca_bundle })
        };
        let settings = settings();
        fields.finish(
            settings,
            "the function's environment cannot be used",
            "Lambda sets region and credentials; elsewhere set them as for the AWS CLI (`aws configure export-credentials \
             --format env`).",
        )
    }

    /// The certificates to trust: those that are named, or the public ones that AWS's own are signed with.
    fn trust_store(&self) -> Result<Vec<u8>, AwsError> {
        match &self.ca_bundle {
            Some(path) => fs::read(path).map_err(|source| AwsError::Unreadable { path: path.clone(), source }),
            // Whoever has other endpoints may have other authorities for them.
            None if self.endpoints.is_aws() => Ok(trust::roots_for_region(&self.region).into_bytes()),
            None => Ok(trust::all_roots().into_bytes()),
        }
    }
}

impl Endpoints {
    fn is_aws(&self) -> bool {
        let Self { all, sns, ssm } = self;
        all.is_none() && sns.is_none() && ssm.is_none()
    }
}

impl LoadServiceConfig for Endpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        match (key.service_id(), key.env()) {
            ("SNS", "AWS_ENDPOINT_URL") => self.sns.clone(),
            ("SSM", "AWS_ENDPOINT_URL") => self.ssm.clone(),
            _ => None,
        }
    }
}

impl Aws {
    /// What clients with these settings and time limits share.
    ///
    /// # Errors
    ///
    /// The trust store cannot be used.
    pub fn new(settings: AwsSettings, timeouts: TimeoutConfig) -> Result<Self, AwsError> {
        let not_taken = |source: BoxError| AwsError::NotTaken { source };
        // Made once: the SDK's own way makes one for each client, and one to throw away, and each reads the certificates.
        let connector = connector(settings.trust_store()?, &timeouts)
            .ok_or_else(|| AwsError::NoCertificates { path: settings.ca_bundle.clone().unwrap_or_default() })?;
        let AwsSettings { region, credentials, endpoints, use_fips, use_dual_stack, ca_bundle: _ } = settings;
        let sns = Params::builder()
            .region(region.clone())
            .set_endpoint(endpoints.sns.as_ref().or(endpoints.all.as_ref()).cloned())
            .use_fips(use_fips.unwrap_or_default())
            .use_dual_stack(use_dual_stack.unwrap_or_default());
        let mut config = SdkConfig::builder();
        config.set_use_fips(use_fips).set_use_dual_stack(use_dual_stack).set_endpoint_url(endpoints.all.clone());
        let config = config
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .service_config(endpoints)
            .timeout_config(timeouts)
            .http_client(http_client_fn({
                let connector = connector.clone();
                move |_, _| connector.clone()
            }));
        let sns = sns.build().map_err(|error| not_taken(error.into()))?;
        Ok(Self { config: config.build(), connector, sns })
    }

    /// Opens a connection to SNS, which the first publish then finds, and does not fail: if SNS cannot be reached, it is
    /// the publish that tells.
    ///
    /// The request is unsigned and asks for nothing, so that it takes no permission, changes nothing, and is nobody's call
    /// in an audit log. What is answered is all the same.
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
        match timeout(CONNECTION_WAIT, connect).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error, "no connection to SNS yet"),
            Err(_) => tracing::debug!("no connection to SNS yet"),
        }
    }
}

/// The HTTP client, `None` if `pem` is no list of certificates.
fn connector(pem: Vec<u8>, timeouts: &TimeoutConfig) -> Option<SharedHttpConnector> {
    // Without any certificate it would believe nobody, and say so only when it is used.
    let begin = b"-----BEGIN CERTIFICATE-----";
    pem.windows(begin.len()).any(|bytes| bytes == begin).then_some(())?;
    let tls = TlsContext::builder().with_trust_store(TrustStore::empty().with_pem_certificate(pem)).build().ok()?;
    let mut limits = HttpConnectorSettings::builder();
    limits.set_connect_timeout(timeouts.connect_timeout());
    let connector = Connector::builder()
        .connector_settings(limits.build())
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(tls);
    // It panics over a certificate that it cannot use. To read them all beforehand would take as long again.
    catch_unwind(AssertUnwindSafe(|| SharedHttpConnector::new(connector.build()))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(more: &'static [(&str, &str)]) -> Result<AwsSettings, Invalid> {
        AwsSettings::from_lookup(|name| {
            let lambdas =
                [("AWS_REGION", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")];
            let all = more.iter().chain(&lambdas);
            all.clone().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_lambda_does_not_set_is_named_at_once() {
        let error = AwsSettings::from_lookup(|_| None).expect_err("nothing is set").to_string();
        for name in ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            assert!(error.contains(&format!("{name} is missing: expected ")), "{error}");
        }
    }

    #[test]
    fn a_setting_that_cannot_be_followed_is_an_error() {
        for more in [
            &[("AWS_ENDPOINT_URL", "localhost:4566")],
            &[("AWS_ENDPOINT_URL_SNS", "sns")],
            &[("AWS_USE_FIPS_ENDPOINT", "yes")],
        ] {
            let error = settings(more).expect_err("not valid").to_string();
            assert!(error.contains(&format!("{} is not valid: expected ", more[0].0)), "{error}");
        }
    }

    #[test]
    fn an_endpoint_of_a_service_goes_before_that_of_all() -> Result<(), BoxError> {
        let settings = settings(&[
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("AWS_ENDPOINT_URL_SNS", "http://127.0.0.1:2"),
            ("AWS_USE_FIPS_ENDPOINT", "TRUE"),
        ])?;
        let aws = Aws::new(settings, TimeoutConfig::disabled())?;
        assert_eq!(aws.sns.endpoint(), Some("http://127.0.0.1:2"));
        assert_eq!(aws.config.endpoint_url(), Some("http://127.0.0.1:1"));
        assert_eq!((aws.sns.use_fips(), aws.config.use_fips()), (Some(true), Some(true)));
        Ok(())
    }

    #[test]
    fn no_setting_shows_the_secret() -> Result<(), BoxError> {
        let shown = format!("{:?}", settings(&[("AWS_SECRET_ACCESS_KEY", "hidden"), ("AWS_SESSION_TOKEN", "hidden")])?);
        assert!(!shown.contains("hidden"), "{shown}");
        Ok(())
    }

    #[test]
    fn a_trust_store_that_cannot_be_used_is_an_error_that_names_the_variable_and_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = directory.path().join("missing.pem");
        let empty = directory.path().join("empty.pem");
        fs::write(&empty, "").expect("written");
        let broken = directory.path().join("broken.pem");
        fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("written");
        for path in [missing, empty, broken] {
            let settings = AwsSettings { ca_bundle: Some(path.clone()), ..settings(&[]).expect("as Lambda sets them") };
            let error = Aws::new(settings, TimeoutConfig::disabled()).expect_err("not usable").to_string();
            assert!(error.contains("AWS_CA_BUNDLE") && error.contains(&*path.to_string_lossy()), "{error}");
        }
    }
}
