//! A Tableau server as far as webhooks and refreshes go: the REST API in JSON and XML, one session per personal access
//! token, deliveries with Tableau's retries and its habit of disabling what fails, and jobs that tell what ran.
//!
//! It stands on what is documented and what was seen on the wire, and it is strict: what a real server would refuse, it
//! refuses. Each documented oddity is a switch in [`model::Oddities`], as is each thing that a hostile server may do.

pub mod control;
pub mod delivery;
pub mod echo;
pub mod model;
pub mod server;

mod hostile;
mod jobs;
mod rest;
mod xml;
