//! Models and pure rules of Tableau Fanout: no I/O, no clock, no AWS SDK.
//!
//! - [`registration`]: the signed URL of a webhook, by which a request is verified.
//! - [`events`]: from a verified delivery to the message on the events topic.
//! - [`sites`]: what is declared for a site, what Tableau has, and the plan between them.
//! - [`refreshes`]: what Tableau's jobs say about refreshes, and how far they were processed.
//! - [`problems`] and [`alerts`]: what is wrong with a site, and the messages about it.
//! - [`state`]: the items that the reconciler stores between runs.
//! - [`redaction`] and [`settings`]: hiding secrets, and reading configuration.

pub mod alerts;
pub mod events;
pub mod problems;
pub mod redaction;
pub mod refreshes;
pub mod registration;
pub mod settings;
pub mod sites;
pub mod state;
pub mod timestamp;
