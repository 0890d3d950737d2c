//! Extract refreshes: Tableau's jobs, the events recovered from them, and the reasons of failures.

pub mod health;
pub mod job;
pub mod notes;
pub mod state;
pub mod window;
