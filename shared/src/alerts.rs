//! Alerts: messages for subscribers of the alerts topic.

pub mod event_alert;
#[cfg(test)]
mod hostile;
pub mod message;
pub mod notification;
mod phrasing;
pub mod refresh_alert;
pub mod selection;
pub mod state;
pub mod text;
