//! What `cargo infra` does, as a library, so that tests run the same stack by the same steps.

pub mod add_site;
pub mod aws;
pub mod binaries;
pub mod cloud;
pub mod concurrency;
pub mod deploy;
pub mod destroy;
pub mod environment;
pub mod functions;
pub mod local;
pub mod log;
pub mod python;
pub mod queue;
pub mod reconcile;
pub mod recovery;
pub mod regions;
pub mod replay;
pub mod sample;
pub mod service;
pub mod stack;
pub mod stack_name;
pub mod state_table;
pub mod status;
pub mod steps;
pub mod target;
pub mod test;
pub mod url;
pub mod workspace;

mod aws_worker;
