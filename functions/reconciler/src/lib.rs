//! Lambda 2: keeps every Tableau site's webhook registrations as declared.

pub mod config;
pub mod failure;
pub mod parameters;
pub mod reconciler;
pub mod report;
pub mod request;
pub mod state_table;

mod alerting;
mod convergence;
mod ending;
mod recovery;
mod remedies;
mod site_run;
mod state;
mod token_groups;

pub use lambda_support::BoxError;
