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
        (None, Action::Plan | Action::Test | Action::Destroy | Action::Explain) => Ok(Keyring::of(random_key()?)),
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use secrecy::{ExposeSecret, SecretString};
    use shared::sites::entry::{BadEntry, SiteEntry};

    use super::*;

    /// Parameters with nothing but signing keys.
    #[derive(Default)]
    struct Keys(Mutex<Option<SecretString>>);

    impl Keys {
        fn stored(&self) -> Option<Keyring> {
            let stored = self.0.lock().expect("no panic");
            stored.as_ref().map(|stored| Keyring::parse(stored.expose_secret()).expect("a keyring"))
        }

        fn count(&self) -> Option<usize> {
            self.stored().as_ref().map(Keyring::keys_count)
        }
    }

    impl Parameters for Keys {
        async fn site_entries(&self) -> Result<Vec<Result<SiteEntry, BadEntry>>, ParametersError> {
            Ok(Vec::new())
        }

        async fn keyring(&self) -> Result<Option<Keyring>, ParametersError> {
            Ok(self.stored())
        }

        async fn create_keyring(&self, keyring: &Keyring) -> Result<(), ParametersError> {
            self.0.lock().expect("no panic").get_or_insert_with(|| keyring.to_stored());
            Ok(())
        }

        async fn replace_keyring(&self, keyring: &Keyring) -> Result<(), ParametersError> {
            *self.0.lock().expect("no panic") = Some(keyring.to_stored());
            Ok(())
        }

        async fn wait_until_new_key_is_known(&self) {}

        async fn tableau_ca(&self) -> Result<Option<String>, ParametersError> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn only_apply_and_rotate_store_the_first_key() -> Result<(), ParametersError> {
        for (action, stored) in [
            (Action::Plan, None),
            (Action::Test, None),
            (Action::Destroy, None),
            (Action::Apply, Some(1)),
            (Action::Rotate, Some(1)),
        ] {
            let keys = Keys::default();
            keyring_for(&keys, action, true).await?;
            assert_eq!(keys.count(), None, "{action:?} without a site");
            keyring_for(&keys, action, false).await?;
            assert_eq!(keys.count(), stored, "{action:?}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_rotation_keeps_the_previous_key_and_retires_older_ones() -> Result<(), ParametersError> {
        let keys = Keys::default();
        let first = keyring_for(&keys, Action::Apply, false).await?;
        let second = keyring_for(&keys, Action::Rotate, false).await?;
        assert_eq!((keys.count(), second != first), (Some(2), true));
        let third = keyring_for(&keys, Action::Rotate, false).await?;
        assert_eq!(keys.count(), Some(3));
        retire_keys(&keys, &second).await?;
        assert_eq!(keys.count(), Some(3), "another rotation has begun");
        retire_keys(&keys, &third).await?;
        assert_eq!(keys.count(), Some(2));
        Ok(())
    }
}
