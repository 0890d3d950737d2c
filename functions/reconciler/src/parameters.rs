//! What the reconciler keeps in SSM: site entries and the keyring.

use aws_sdk_ssm::{Client, operation::put_parameter::builders::PutParameterFluentBuilder, types::ParameterType};
use common::keyring::KeyringParameter;
use secrecy::{ExposeSecret, SecretString};
use shared::keyring::Keyring;

use crate::{BoxError, config::Config};

/// Where site entries and signing keys are kept.
pub trait Parameters {
    /// Every site entry: the name of its parameter and its value, not yet read.
    fn site_entries(&self) -> impl Future<Output = Result<Vec<(String, SecretString)>, BoxError>> + Send;

    /// The signing keys, `None` if there are none yet.
    fn keyring(&self) -> impl Future<Output = Result<Option<Keyring>, BoxError>> + Send;

    /// Stores the first signing keys. If another run was faster, its keys stay.
    fn create_keyring(&self, keyring: &Keyring) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Stores other signing keys in place of those that are there.
    fn replace_keyring(&self, keyring: &Keyring) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// SSM Parameter Store.
#[derive(Clone, Debug)]
pub struct SsmParameters {
    ssm: Client,
    sites_path: String,
    keyring: KeyringParameter,
    key_alias: String,
}

impl SsmParameters {
    /// The parameters that the configuration names, encrypted with the stack's own key.
    pub fn new(ssm: Client, config: &Config, keyring: KeyringParameter) -> Self {
        // The template gives the stack's key this alias, so that people and functions can name it alike.
        let key_alias = format!("alias/{}", config.name_prefix);
        Self { ssm, sites_path: config.sites_path.clone(), keyring, key_alias }
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

impl Parameters for SsmParameters {
    async fn site_entries(&self) -> Result<Vec<(String, SecretString)>, BoxError> {
        let pages = self.ssm.get_parameters_by_path().path(&self.sites_path).with_decryption(true).into_paginator();
        let pages = pages.send().collect::<Result<Vec<_>, _>>().await?;
        let parameters = pages.into_iter().flat_map(|page| page.parameters.unwrap_or_default());
        Ok(parameters.filter_map(|parameter| Some((parameter.name?, parameter.value?.into()))).collect())
    }

    async fn keyring(&self) -> Result<Option<Keyring>, BoxError> {
        Ok(self.keyring.read().await?)
    }

    async fn create_keyring(&self, keyring: &Keyring) -> Result<(), BoxError> {
        match self.put_keyring(keyring).overwrite(false).send().await {
            Ok(_) => {
                tracing::info!(parameter = self.keyring.name(), "made the first signing key");
                Ok(())
            }
            Err(error) if error.as_service_error().is_some_and(|error| error.is_parameter_already_exists()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn replace_keyring(&self, keyring: &Keyring) -> Result<(), BoxError> {
        self.put_keyring(keyring).overwrite(true).send().await?;
        tracing::info!(parameter = self.keyring.name(), keys = keyring.keys_count(), "stored other signing keys");
        Ok(())
    }
}
