//! Refreshes: Tableau's jobs, the events recovered from them, and why they failed.

pub mod health;
pub mod job;
pub mod notes;
pub mod state;
pub mod window;
