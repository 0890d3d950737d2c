//! Reconciler: keeps the webhooks of every Tableau site as declared, recovers missed refresh events, and alerts of problems.
//!
//! [`reconciler`] carries a request out. It reads entries and keys ([`parameters`]) and the state ([`state_table`]), groups
//! the sites by token (`token_groups`), and runs them side by side (`token_runs`, `site_run`): each site converges
//! (`convergence`) and its jobs are read (`recovery`), with the context of failures
//! (`context`). A run each minute only explains the failures in a queue
//! ([`failure_queue`], `failed_refreshes`). The `ending` publishes events (`publishing`), sends alerts (`alerting`)
//! and stores the state. The result is a [`report`] or a [`failure`], whose texts for errors are in `remedies`.

pub mod config;
pub mod failure;
pub mod failure_queue;
pub mod parameters;
pub mod reconciler;
pub mod report;
pub mod request;
pub mod state_table;

mod alerting;
mod context;
mod convergence;
mod ending;
mod failed_refreshes;
mod publishing;
mod recovery;
mod refreshes;
mod remedies;
mod report_text;
mod signing_keys;
mod site_run;
mod state;
mod token_end;
mod token_groups;
mod token_runs;

pub use lambda_support::BoxError;
