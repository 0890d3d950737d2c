//! Signing keys of a run: reads them, creates the first, and rotates them.

use shared::registration::keyring::{KEY_BYTES, Keyring};

use crate::{
    parameters::{Parameters, ParametersError},
    request::Action,
};

/// Returns the signing keys for an action: the stored ones, or new ones. Without any site nothing is signed, so that any
/// key will do.
pub(crate) async fn keyring_for(
    parameters: &impl Parameters,
    action: Action,
    is_unused: bool,
) -> Result<Keyring, ParametersError> {
    if is_unused {
        return Ok(Keyring::of(random_key()?));
    }
    match (parameters.keyring().await?, action) {
        (Some(keyring), Action::Rotate) => {
            parameters.replace_keyring(&keyring.with_newest(random_key()?)).await?;
            parameters.wait_until_new_key_is_known().await;
            // Another rotation may have stored its own key over this one. Both use the stored keys now.
            stored_keyring(parameters).await
        }
        (Some(keyring), _) => Ok(keyring),
        // No webhook was signed yet, and these actions sign none: any key shows the plan.
        (None, Action::Plan | Action::Test | Action::Destroy) => Ok(Keyring::of(random_key()?)),
        (None, Action::Apply | Action::Rotate) => {
            parameters.create_keyring(&Keyring::of(random_key()?)).await?;
            stored_keyring(parameters).await
        }
    }
}

/// Retires old keys after every site was moved to the newest. The one before it stays, since deliveries under it may be on
/// their way.
pub(crate) async fn retire_keys(parameters: &impl Parameters, keyring: &Keyring) -> Result<(), ParametersError> {
    let stored = stored_keyring(parameters).await?;
    // Otherwise another rotation has begun, whose key must not be lost.
    if stored == *keyring {
        parameters.replace_keyring(&stored.without_retired()).await?;
    }
    Ok(())
}

/// Reads the signing keys that this run, or a faster one, has just stored.
async fn stored_keyring(parameters: &impl Parameters) -> Result<Keyring, ParametersError> {
    let stored = parameters.keyring().await?;
    stored.ok_or(ParametersError::KeyringMissing)
}

fn random_key() -> Result<[u8; KEY_BYTES], ParametersError> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(ParametersError::NoRandomness)?;
    Ok(key)
}
