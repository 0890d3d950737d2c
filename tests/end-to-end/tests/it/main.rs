//! Tests of the functions from outside, with a simulated Tableau, a local AWS, and independent programs.

mod actions;
mod alerting;
mod answer_time;
mod binaries;
mod content;
mod echoes;
mod environment;
mod errors;
mod explaining;
mod histories;
mod killed;
mod log;
mod odd_jobs;
mod peers;
mod reconciling;
mod refreshes;
mod resolving;
mod tableau;
mod template;
mod token_ends;
