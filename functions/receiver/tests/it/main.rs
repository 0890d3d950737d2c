//! The receiver as Lambda calls it: Function URL events in, answers and published messages out.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod alerts;
mod any_request;
mod deliveries;
mod doubles;
mod log;
mod start;
mod strangers;
mod time;
mod unverified;
