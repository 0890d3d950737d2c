//! The forwarder as Lambda calls it: batches of SQS in, requests to targets and dead letters out.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod aws;
mod batches;
mod cloud;
mod coalescing;
mod credentials;
mod entries;
mod faults;
mod problems;
mod secrets;
mod target;
mod templates;
mod world;
