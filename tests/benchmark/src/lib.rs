//! What the receiver costs, measured beside what one would have instead. `benches/functions.rs` runs and prints it.

pub mod candidate;
pub mod cloud;
pub mod instructions;
pub mod report;
pub mod round;
pub mod runtime_api;
