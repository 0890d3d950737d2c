//! What both functions do at the AWS edge: how clients are made, and how the keyring parameter is read.

pub mod aws;
pub mod keyring;

/// An error of a call to AWS.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
