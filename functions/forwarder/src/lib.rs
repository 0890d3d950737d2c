//! Forwarder: sends the events and alerts in the queues of targets to services outside of AWS.
//!
//! [`forwarder`] handles a batch of messages of SQS ([`batch`]). For each one it reads the target's entry ([`targets`]),
//! renders the message and sends it (the crate [`delivery`]). A message that the target does not accept returns to its queue,
//! or goes to the dead letters ([`queues`], [`dead_letters`]). For some targets a schedule invokes it, and it sends one message
//! for all in the queue, one each six minutes at most ([`holds`]). It sends alerts about targets that refuse messages.

pub mod batch;
mod coalescing;
pub mod config;
pub mod dead_letters;
pub mod forwarder;
pub mod holds;
mod outcome;
mod problems;
pub mod queues;
mod settling;
pub mod targets;
pub mod working;

pub use lambda_support::BoxError;
