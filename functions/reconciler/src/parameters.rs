//! What the reconciler finds and keeps in SSM.

use std::time::Duration;

use aws_sdk_ssm::{
    Client,
    operation::{get_parameter::GetParameterError, put_parameter::builders::PutParameterFluentBuilder},
    types::ParameterType,
};
use common::keyring::{KeyringParameter, REFRESH_INTERVAL};
use secrecy::{ExposeSecret, SecretString};
use shared::keyring::Keyring;
use tokio::time::sleep;

use crate::{BoxError, config::Config};

/// How much longer than a receiver's [`REFRESH_INTERVAL`] a new key is left alone: a stored parameter is read
/// everywhere within a second, and clocks that count to sixty differ by less than this.
const MARGIN: Duration = Duration::from_secs(5);

/// How the name of the lease goes on from that of what is remembered of refreshes.
const LEASE: &str = "-lease";

/// Where site entries, signing keys and the reconciler's own notes are kept.
pub trait Parameters {
    /// Every site entry: the name of its parameter and its value, not yet read.
    fn site_entries(&self) -> impl Future<Output = Result<Vec<(String, SecretString)>, BoxError>> + Send;

    /// The signing keys, `None` if there are none yet.
    fn keyring(&self) -> impl Future<Output = Result<Option<Keyring>, BoxError>> + Send;

    /// Stores the first signing keys. If another run was faster, its keys stay.
    fn create_keyring(&self, keyring: &Keyring) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Stores other signing keys in place of those that are there.
    fn replace_keyring(&self, keyring: &Keyring) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Waits until every receiver reads keys that were stored just now when it meets a signature of theirs. Without
    /// that, one that a stranger's guess made look a moment before would turn Tableau away for a minute.
    fn new_key_known(&self) -> impl Future<Output = ()> + Send;

    /// Certificates (PEM) of authorities that Tableau servers are trusted by besides the public ones, if there are any.
    fn tableau_ca(&self) -> impl Future<Output = Result<Option<String>, BoxError>> + Send;

    /// What people were told of, as it was stored; `None` if nothing was yet.
    fn told(&self) -> impl Future<Output = Result<Option<String>, BoxError>> + Send;

    /// Stores what people were told of.
    fn store_told(&self, told: &str) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// What is remembered of refreshes, as it was stored; `None` if nothing is.
    fn refreshes(&self) -> impl Future<Output = Result<Option<String>, BoxError>> + Send;

    /// Stores what is remembered of refreshes.
    fn store_refreshes(&self, refreshes: &str) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// The lease of the run that took it last, as it was stored, with its version, which counts all that were ever
    /// stored; `None` if there was none.
    fn refreshes_lease(&self) -> impl Future<Output = Result<Option<(String, i64)>, BoxError>> + Send;

    /// Stores a lease, and returns its version.
    fn store_refreshes_lease(&self, lease: &str) -> impl Future<Output = Result<i64, BoxError>> + Send;
}

/// SSM Parameter Store.
#[derive(Clone, Debug)]
pub struct SsmParameters {
    ssm: Client,
    sites_path: String,
    keyring: KeyringParameter,
    key_alias: String,
    state: String,
    tableau_ca: Option<String>,
    refreshes: Option<String>,
}

impl SsmParameters {
    /// The parameters that the configuration names, encrypted with the stack's own key.
    pub fn new(ssm: Client, config: &Config, keyring: KeyringParameter) -> Self {
        // The template gives the stack's key this alias, so that people and functions can name it alike.
        let key_alias = format!("alias/{}", config.name_prefix);
        let Config { sites_path, state_parameter, tableau_ca_parameter, recovery, .. } = config.clone();
        Self {
            ssm,
            sites_path,
            keyring,
            key_alias,
            state: state_parameter,
            tableau_ca: tableau_ca_parameter,
            refreshes: recovery.map(|recovery| recovery.parameter),
        }
    }

    /// The name of the parameter that holds what is remembered of refreshes.
    fn refreshes_name(&self) -> Result<&str, BoxError> {
        self.refreshes.as_deref().ok_or_else(|| "no parameter is named for refreshes".into())
    }

    /// The value of a parameter that is no secret, `None` if there is no such parameter.
    async fn plain(&self, name: &str) -> Result<Option<String>, BoxError> {
        Ok(self.plain_with_version(name).await?.map(|(value, _)| value))
    }

    async fn plain_with_version(&self, name: &str) -> Result<Option<(String, i64)>, BoxError> {
        // Decrypted all the same, should somebody have stored it as a secret.
        match self.ssm.get_parameter().name(name).with_decryption(true).send().await {
            Ok(output) => Ok(output.parameter.and_then(|parameter| Some((parameter.value?, parameter.version)))),
            Err(error) if error.as_service_error().is_some_and(GetParameterError::is_parameter_not_found) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores a value that is no secret, and returns its version.
    async fn put_plain(&self, name: &str, description: &str, value: &str) -> Result<i64, BoxError> {
        let put = self.ssm.put_parameter().name(name).r#type(ParameterType::String).overwrite(true);
        Ok(put.description(description).value(value).send().await?.version())
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

    async fn new_key_known(&self) {
        sleep(REFRESH_INTERVAL + MARGIN).await;
    }

    async fn tableau_ca(&self) -> Result<Option<String>, BoxError> {
        match &self.tableau_ca {
            Some(name) => self.plain(name).await,
            None => Ok(None),
        }
    }

    async fn told(&self) -> Result<Option<String>, BoxError> {
        self.plain(&self.state).await
    }

    async fn store_told(&self, told: &str) -> Result<(), BoxError> {
        self.put_plain(&self.state, "Which troubles people were told of", told).await.map(drop)
    }

    async fn refreshes(&self) -> Result<Option<String>, BoxError> {
        self.plain(self.refreshes_name()?).await
    }

    async fn store_refreshes(&self, refreshes: &str) -> Result<(), BoxError> {
        let what = "How far refreshes were told of, and when webhooks were silent";
        self.put_plain(self.refreshes_name()?, what, refreshes).await.map(drop)
    }

    async fn refreshes_lease(&self) -> Result<Option<(String, i64)>, BoxError> {
        self.plain_with_version(&format!("{}{LEASE}", self.refreshes_name()?)).await
    }

    async fn store_refreshes_lease(&self, lease: &str) -> Result<i64, BoxError> {
        self.put_plain(&format!("{}{LEASE}", self.refreshes_name()?), "Which run may tell of refreshes", lease).await
    }
}
