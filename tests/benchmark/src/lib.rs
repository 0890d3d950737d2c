//! Measures the receiver beside an empty handler and a bare publish. `benches/functions.rs` runs this and prints tables.
//!
//! [`candidate`] builds the programs. [`round`] starts one against a [`cloud`] and a [`runtime_api`], and [`report`] formats
//! the figures. [`instructions`] counts under an emulator.

pub mod candidate;
pub mod cloud;
pub mod instructions;
pub mod report;
pub mod round;
pub mod runtime_api;
