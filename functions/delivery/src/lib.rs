//! Delivery of a message to a target: rendered by the target's preset ([`render`]) and sent ([`sender`]) to a public address
//! only ([`addresses`]).
//!
//! The forwarder delivers by it, and so does the command that adds a target and sends a sample.

pub mod addresses;
pub mod render;
pub mod sender;
