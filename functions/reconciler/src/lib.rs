//! Lambda 2: keeps every Tableau site's webhook registrations as declared.

pub mod config;
pub mod parameters;
pub mod reconciler;
pub mod report;
pub mod request;
pub mod state_table;

mod alerting;
mod explained;
mod recovery;
mod state;
mod visit;
mod visits;

pub use common::BoxError;
