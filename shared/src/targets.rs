//! Targets: services outside of AWS to which the forwarder sends events and alerts.

pub mod address;
mod alarm;
pub mod answer;
pub mod credentials;
pub mod entry;
pub mod hold;
mod members;
pub mod message;
pub mod name;
pub mod selection;
