//! What both functions do at the AWS edge: how clients are made, and how the keyring parameter is read.

pub mod aws;
pub mod keyring;
