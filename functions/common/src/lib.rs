//! What both functions do at the AWS edge: how clients are made, how the keyring parameter is read, and how metrics are
//! told.

pub mod aws;
pub mod keyring;
pub mod metrics;

/// An error of a call to AWS.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
