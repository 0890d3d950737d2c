//! Events: from Tableau's delivery to a message on the events topic.

mod attributes;
pub mod catalogue;
pub mod cloud_event;
pub mod delivery;
pub mod delivery_log;
pub mod id;
pub mod payload;
pub mod unverified;
