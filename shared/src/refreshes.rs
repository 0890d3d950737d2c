//! Extract refreshes: Tableau's jobs, the events recovered from them, and the reasons of failures.

pub mod context;
pub mod event_log;
pub mod explanation;
pub mod failed_event;
pub mod failing;
pub mod health;
pub mod job;
pub mod job_queries;
pub mod notes;
pub mod resolution;
pub mod state;
pub mod window;
