//! The parts that end-to-end tests run on: the deployed stack, a function's own binary, a declaration without AWS, a webhook
//! destination, stand-ins of the services outside of AWS, the evaluation of alarms, and an earlier state of the project.

pub mod aging;
pub mod cloudwatch;
pub mod declared;
pub mod destination;
pub mod lambda;
pub mod local_stack;
pub mod previous;
pub mod stand_ins;
