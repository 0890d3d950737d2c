//! `cargo infra` at a local cloud.

// Reads /proc.
#![cfg(target_os = "linux")]

mod adding_a_site;
mod breaking;
#[path = "../command/mod.rs"]
mod command;
mod console;
mod deployer;
mod deploying;
mod events;
mod interrupting;
mod lifecycle;
mod local_command;
mod many_sites;
mod reading;
mod reading_targets;
mod replay;
mod sink;
mod stopping;
mod tail;
mod targets;
mod testbed;
mod version;
mod working;
