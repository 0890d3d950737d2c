//! The parts that end-to-end tests run on: the deployed stack, a function's own binary, a declaration without AWS, a webhook
//! destination, and the evaluation of alarms.

pub mod aging;
pub mod cloudwatch;
pub mod declared;
pub mod destination;
pub mod lambda;
pub mod local_stack;
