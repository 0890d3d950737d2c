//! Forwarder: sends the events and alerts in the queues of targets to services outside of AWS.
//!
//! [`forwarder`] handles a batch of messages of SQS ([`batch`]). For each one it reads the target's entry ([`targets`]),
//! renders the message and sends it (the crate [`delivery`]). A message that the target does not accept returns to its queue,
//! or goes to the dead letters ([`queues`], [`dead_letters`]).

pub mod batch;
pub mod config;
pub mod dead_letters;
pub mod forwarder;
pub mod queues;
pub mod targets;

pub use lambda_support::BoxError;
