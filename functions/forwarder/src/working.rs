//! The targets that work, as far as an environment knows.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use shared::targets::name::TargetName;

/// Targets that take messages, and about which no alert is open.
#[derive(Debug, Default)]
pub struct Working(Mutex<BTreeSet<TargetName>>);

impl Working {
    pub(crate) fn contains(&self, target: &TargetName) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(target)
    }

    pub(crate) fn insert(&self, target: &TargetName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(target.clone());
    }

    pub(crate) fn remove(&self, target: &TargetName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(target);
    }
}
