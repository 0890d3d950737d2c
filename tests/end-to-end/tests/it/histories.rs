//! Model-based tests: random histories of sites, faults and crashes, with the reconciler against the simulated Tableau.

mod crash;
mod driver;
mod environment;
mod recorder;
mod refreshes;
mod webhooks;
