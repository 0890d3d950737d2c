//! Model-based tests: random histories of sites, faults and crashes, with the reconciler against the simulated Tableau.

mod driver;
mod refreshes;
mod webhooks;
