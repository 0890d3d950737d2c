//! The keyring parameter in SSM.

use std::time::Duration;

use aws_sdk_ssm::{
    Client,
    error::SdkError,
    operation::get_parameter::{GetParameterError, GetParameterOutput},
};
use shared::registration::keyring::{InvalidKeyring, Keyring};
use thiserror::Error;

/// How long the receiver counts its keyring as current when a signature does not verify. Invalid signatures cost at most one
/// call a minute, and a new key is known within a minute.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// The SSM parameter that holds the signing keys.
#[derive(Clone, Debug)]
pub struct KeyringParameter {
    ssm: Client,
    name: String,
}

/// The keyring could not be read. A missing keyring is no error.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// SSM returned an error.
    #[error("the signing keys could not be read from the SSM parameter {parameter}")]
    Unreadable {
        /// Name of the parameter.
        parameter: String,
        /// The error.
        source: Box<SdkError<GetParameterError>>,
    },
    /// The parameter holds no keyring.
    #[error(
        "the SSM parameter {parameter} holds no usable signing keys (restore an earlier version of it, or delete it \
         and run the reconciler, which creates new keys and moves every registration to them)"
    )]
    Invalid {
        /// Name of the parameter.
        parameter: String,
        /// The reason.
        source: InvalidKeyring,
    },
}

impl KeyringParameter {
    /// Creates a client of the parameter `name`.
    pub fn new(ssm: Client, name: String) -> Self {
        Self { ssm, name }
    }

    /// Returns the name of the parameter.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the keyring. `None` if the parameter does not exist.
    ///
    /// # Errors
    ///
    /// SSM cannot be reached or refuses, or the parameter holds no keyring.
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
