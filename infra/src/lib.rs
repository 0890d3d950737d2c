//! What `cargo infra` does, as a library, so that tests run the same stack by the same steps.

pub mod aws;
pub mod cloud;
pub mod environment;
pub mod functions;
pub mod local;
pub mod python;
pub mod queue;
pub mod replay;
pub mod sample;
pub mod service;
pub mod stack;
pub mod steps;
pub mod target;
pub mod workspace;
