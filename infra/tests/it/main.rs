//! `cargo infra` as a person runs it.

// It looks into /proc.
#![cfg(target_os = "linux")]

mod breaking;
mod endings;
mod office;
mod operating;
mod reading;
mod replay;
mod running;
