//! The product from outside: against a simulated Tableau, a local AWS, and programs that others wrote.

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
