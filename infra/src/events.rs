//! The events of a stack, from the logs of its functions, and what became of each.
//!
//! [`search`] names the logs and estimates their size. [`history`] reads them and joins the lines about one event to a
//! [`record`]; its answers are a [`listing`] and the [`story`] of one event. [`rendering`] shows the messages that a delivery
//! becomes.

pub mod filter;
pub mod history;
pub mod listing;
pub mod lookback;
pub mod record;
pub mod rendering;
pub mod search;
pub mod story;

mod attempt;
