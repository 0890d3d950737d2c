//! Tableau's JSON: the bodies sent, and the answers in every shape seen.

pub(crate) mod content;
pub(crate) mod errors;
pub(crate) mod jobs;
pub(crate) mod list;
mod notes;
pub(crate) mod retry_after;
pub(crate) mod session;
pub(crate) mod tasks;
pub(crate) mod tokens;
pub(crate) mod webhooks;
