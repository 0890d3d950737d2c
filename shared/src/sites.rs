//! Sites: their entries, their webhooks, and the plan that changes the webhooks.

pub mod address;
pub mod commands;
pub mod entry;
pub mod plan;
pub mod sign_in;
pub mod token_end;
pub mod webhook;
