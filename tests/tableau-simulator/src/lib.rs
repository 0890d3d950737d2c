//! A Tableau server for tests of webhooks and extract refreshes: the REST API in JSON and XML, one session per personal
//! access token, deliveries with Tableau's retries, webhooks that are disabled after failures, jobs, and content with its
//! refresh tasks and pages.
//!
//! It follows the documentation and observed traffic, and refuses every call that a real server would refuse. Each documented
//! oddity is a switch in [`model::Oddities`], as is each behaviour of a hostile server.
//!
//! [`server`] reads a call. `rest` answers it from the state in [`model`], with `jobs`, [`content`], `tasks`, [`tokens`],
//! [`echo`] and `hostile`. `pages` answers browsers. [`delivery`] sends events. [`control`] has the calls that only the simulator knows.

pub mod content;
pub mod control;
pub mod delivery;
pub mod echo;
pub mod model;
pub mod server;
pub mod tokens;

mod hostile;
mod jobs;
mod pages;
mod refusal;
mod rest;
mod tasks;
mod xml;
