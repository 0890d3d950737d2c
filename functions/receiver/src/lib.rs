//! The receiver: verifies Tableau's webhook deliveries and publishes them to SNS.
//!
//! A call becomes a request in [`function_url`]. [`receiver`] verifies it with the keys of [`keyring_cache`], publishes the
//! event and its alert unless `recently_published` has them, and logs the result through [`delivery_log`].

pub mod config;
pub mod delivery_log;
pub mod function_url;
pub mod keyring_cache;
pub mod receiver;

mod recently_published;

pub use lambda_support::BoxError;
