//! The keyring parameter in SSM.

use std::time::Duration;

use aws_sdk_ssm::{
    Client,
    error::SdkError,
    operation::get_parameter::{GetParameterError, GetParameterOutput},
};
use shared::registration::keyring::{InvalidKeyring, Keyring};
use thiserror::Error;

/// How long the receiver believes its keyring to be current when a signature does not verify: a stranger's guesses cost
/// at most one call a minute, and a new key is known within one.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// The SSM parameter that holds the signing keys.
#[derive(Clone, Debug)]
pub struct KeyringParameter {
    ssm: Client,
    name: String,
}

/// The keyring could not be read. That there is none is not an error.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// SSM did not give it.
    #[error("the signing keys could not be read from the SSM parameter {parameter}")]
    Unreadable {
        /// Name of the parameter.
        parameter: String,
        /// What SSM said.
        source: Box<SdkError<GetParameterError>>,
    },
    /// SSM gave something else.
    #[error(
        "the SSM parameter {parameter} holds no usable signing keys (restore an earlier version of it, or delete it \
         and run the reconciler, which makes new ones and moves every registration to them)"
    )]
    Invalid {
        /// Name of the parameter.
        parameter: String,
        /// What is wrong with it.
        source: InvalidKeyring,
    },
}

impl KeyringParameter {
    /// The parameter called `name`.
    pub fn new(ssm: Client, name: String) -> Self {
        Self { ssm, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the keyring, `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// SSM cannot be reached or refuses, or the parameter holds something else.
    pub async fn read(&self) -> Result<Option<Keyring>, KeyringError> {
        let answer = self.ssm.get_parameter().name(&self.name).with_decryption(true).send().await;
        let parameter = || self.name.clone();
        match answer {
            Ok(output) => {
                parse(&output).map(Some).map_err(|source| KeyringError::Invalid { parameter: parameter(), source })
            }
            Err(error) if error.as_service_error().is_some_and(GetParameterError::is_parameter_not_found) => Ok(None),
            Err(error) => Err(KeyringError::Unreadable { parameter: parameter(), source: Box::new(error) }),
        }
    }
}

fn parse(output: &GetParameterOutput) -> Result<Keyring, InvalidKeyring> {
    Keyring::parse(output.parameter().and_then(|parameter| parameter.value()).unwrap_or_default())
}
