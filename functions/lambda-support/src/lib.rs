//! What both functions do at the AWS edge: how clients are made, how the keyring parameter is read, how messages are
//! published, and how metrics are told.

use std::{error::Error, iter::successors};

pub mod aws;
pub mod keyring;
pub mod logging;
pub mod metrics;
pub mod topic;

/// An error of a call to AWS.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// An error and what caused it, in one line.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let causes = successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
