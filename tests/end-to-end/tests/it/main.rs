//! Tests of the functions from outside, with a simulated Tableau, a local AWS, and independent programs.

mod actions;
mod alerting;
mod answer_time;
mod binaries;
mod echoes;
mod environment;
mod errors;
mod histories;
mod killed;
mod log;
mod odd_jobs;
mod peers;
mod reconciling;
mod refreshes;
mod tableau;
mod template;
mod token_ends;
