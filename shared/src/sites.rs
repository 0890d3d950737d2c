//! Sites: their entries, their webhooks, and the plan that brings one to the other.

pub mod entry;
pub mod plan;
pub mod sign_in;
pub mod webhook;
