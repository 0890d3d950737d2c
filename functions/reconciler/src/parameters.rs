//! The parameters in SSM that the reconciler reads and writes.

use std::time::Duration;

use aws_sdk_ssm::{
    Client,
    operation::{get_parameter::GetParameterError, put_parameter::builders::PutParameterFluentBuilder},
    types::ParameterType,
};
use lambda_support::keyring::{KeyringError, KeyringParameter, REFRESH_INTERVAL};
use secrecy::{ExposeSecret, SecretString};
use shared::{
    registration::keyring::Keyring,
    sites::entry::{BadEntry, SiteEntry},
};
use thiserror::Error;
use tokio::time::sleep;

use crate::{BoxError, config::Config};

/// The time by which the wait for a new key exceeds a receiver's [`REFRESH_INTERVAL`]. A stored parameter can be read
/// everywhere within a second, and clocks that measure a minute differ by less than this.
const MARGIN: Duration = Duration::from_secs(5);

/// A parameter could not be read or stored.
#[derive(Debug, Error)]
pub enum ParametersError {
    /// SSM did not return a parameter, or those under a path.
    #[error("SSM did not return {parameter}")]
    Unreadable {
        /// The parameter's name, or the path.
        parameter: String,
        /// The error of the call.
        source: BoxError,
    },
    /// The signing keys could not be read.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// SSM did not store the signing keys.
    #[error("SSM did not store the signing keys in {parameter}")]
    NotStored {
        /// The parameter's name.
        parameter: String,
        /// The error of the call.
        source: BoxError,
    },
    /// The signing keys were stored, and are not there.
    #[error("the signing keys were stored and could not be read again")]
    KeyringMissing,
    /// The system gave no random bytes for a key.
    #[error("the system returned no random bytes for a signing key")]
    NoRandomness(#[source] getrandom::Error),
}

/// Storage for site entries, signing keys and certificates.
pub trait Parameters {
    /// Returns every site entry, or the error in it.
    fn site_entries(&self) -> impl Future<Output = Result<Vec<Result<SiteEntry, BadEntry>>, ParametersError>> + Send;

    /// Returns the signing keys, `None` if there are none yet.
    fn keyring(&self) -> impl Future<Output = Result<Option<Keyring>, ParametersError>> + Send;

    /// Stores the first signing keys. Keys that another run stored first stay.
    fn create_keyring(&self, keyring: &Keyring) -> impl Future<Output = Result<(), ParametersError>> + Send;

    /// Replaces the signing keys.
    fn replace_keyring(&self, keyring: &Keyring) -> impl Future<Output = Result<(), ParametersError>> + Send;

    /// Waits until every receiver reads newly stored keys when it needs them. A receiver reads the keys once a minute at
    /// most, and a stranger's guess can use up that read: without the wait it could reject Tableau for a minute.
    fn wait_until_new_key_is_known(&self) -> impl Future<Output = ()> + Send;

    /// Returns the CA certificates (PEM) of Tableau servers, besides the public ones, if there are any.
    fn tableau_ca(&self) -> impl Future<Output = Result<Option<String>, ParametersError>> + Send;
}

/// SSM Parameter Store.
#[derive(Clone, Debug)]
pub struct SsmParameters {
    ssm: Client,
    sites_path: String,
    keyring: KeyringParameter,
    key_alias: String,
    tableau_ca: Option<String>,
}

impl SsmParameters {
    /// Uses the parameters that the configuration names, encrypted with the stack's own key.
    pub fn new(ssm: Client, config: &Config, keyring: KeyringParameter) -> Self {
        // The template gives the stack's key this alias, so that administrators and functions name it alike.
        let key_alias = format!("alias/{}", config.name_prefix);
        let Config { sites_path, tableau_ca_parameter, .. } = config.clone();
        Self { ssm, sites_path, keyring, key_alias, tableau_ca: tableau_ca_parameter }
    }

    fn put_keyring(&self, keyring: &Keyring) -> PutParameterFluentBuilder {
        self.ssm
            .put_parameter()
            .name(self.keyring.name())
            .description("Keys that sign the addresses of Tableau's webhooks, newest first")
            .r#type(ParameterType::SecureString)
            .key_id(&self.key_alias)
            .value(keyring.to_stored().expose_secret())
    }
}

impl SsmParameters {
    fn not_stored(&self, error: impl Into<BoxError>) -> ParametersError {
        ParametersError::NotStored { parameter: self.keyring.name().to_owned(), source: error.into() }
    }
}

impl Parameters for SsmParameters {
    async fn site_entries(&self) -> Result<Vec<Result<SiteEntry, BadEntry>>, ParametersError> {
        let pages = self.ssm.get_parameters_by_path().path(&self.sites_path).with_decryption(true).into_paginator();
        let pages = pages.send().collect::<Result<Vec<_>, _>>().await;
        let pages = pages.map_err(|error| unreadable(&self.sites_path, error))?;
        let parameters = pages.into_iter().flat_map(|page| page.parameters.unwrap_or_default());
        let entries = parameters.filter_map(|parameter| {
            let value = SecretString::from(parameter.value?);
            Some(SiteEntry::read(&parameter.name?, value.expose_secret()))
        });
        Ok(entries.collect())
    }

    async fn keyring(&self) -> Result<Option<Keyring>, ParametersError> {
        Ok(self.keyring.read().await?)
    }

    async fn create_keyring(&self, keyring: &Keyring) -> Result<(), ParametersError> {
        match self.put_keyring(keyring).overwrite(false).send().await {
            Ok(_) => {
                tracing::info!(parameter = self.keyring.name(), "created the first signing key");
                Ok(())
            }
            Err(error) if error.as_service_error().is_some_and(|error| error.is_parameter_already_exists()) => Ok(()),
            Err(error) => Err(self.not_stored(error)),
        }
    }

    async fn replace_keyring(&self, keyring: &Keyring) -> Result<(), ParametersError> {
        self.put_keyring(keyring).overwrite(true).send().await.map_err(|error| self.not_stored(error))?;
        tracing::info!(parameter = self.keyring.name(), keys = keyring.keys_count(), "replaced the signing keys");
        Ok(())
    }

    async fn wait_until_new_key_is_known(&self) {
        sleep(REFRESH_INTERVAL + MARGIN).await;
    }

    async fn tableau_ca(&self) -> Result<Option<String>, ParametersError> {
        let Some(name) = &self.tableau_ca else { return Ok(None) };
        // With decryption, should an administrator have stored it as a SecureString.
        match self.ssm.get_parameter().name(name).with_decryption(true).send().await {
            Ok(output) => Ok(output.parameter.and_then(|parameter| parameter.value)),
            Err(error) if error.as_service_error().is_some_and(GetParameterError::is_parameter_not_found) => Ok(None),
            Err(error) => Err(unreadable(name, error)),
        }
    }
}

fn unreadable(parameter: &str, error: impl Into<BoxError>) -> ParametersError {
    ParametersError::Unreadable { parameter: parameter.to_owned(), source: error.into() }
}
