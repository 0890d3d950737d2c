//! Lambda 1: takes Tableau's deliveries, knows which are genuine, and publishes them to SNS.

pub mod config;
pub mod delivery_log;
pub mod function_url;
pub mod keyring_cache;
pub mod receiver;

mod recently_published;

pub use lambda_support::BoxError;
