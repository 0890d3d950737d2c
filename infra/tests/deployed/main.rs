//! `cargo infra` as a person runs it, at a local cloud.

// It looks into /proc.
#![cfg(target_os = "linux")]

mod breaking;
#[path = "../command/mod.rs"]
mod command;
mod endings;
mod office;
mod operating;
mod reading;
mod replay;
mod running;
