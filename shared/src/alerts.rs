//! Alerts: messages for subscribers of the alerts topic.
//!
//! A run finds problems, and alerts follow:
//!
//! ```
//! use shared::{
//!     alerts::state::{AlertPlan, AlertState, Findings},
//!     problems::{Problem, ProblemKind},
//! };
//! use time::macros::datetime;
//!
//! let problem = Problem {
//!     kind: ProblemKind::TokenRefused,
//!     event: None,
//!     what: "Tableau refused the token `fanout`.".to_owned(),
//!     remedy: "Fix: run `cargo infra add-site marketing --overwrite`.".to_owned(),
//!     detail: None,
//! };
//! let mut findings = Findings {
//!     sites: [("marketing", AlertState::default())].into(),
//!     checked: ["marketing"].into(),
//!     found: vec![("marketing", &problem)],
//!     ..Findings::default()
//! };
//! let now = datetime!(2026-05-21 08:00 UTC);
//!
//! // The problem begins.
//! let mut plan = AlertPlan::new(&findings, now);
//! let alert = plan.alerts[0].clone();
//! assert_eq!(alert.notification.headline, "marketing: token refused");
//! plan.confirm(&alert);
//!
//! // The next run finds it again, and sends no further alert.
//! findings.sites = [("marketing", plan.sites["marketing"].clone())].into();
//! assert_eq!(AlertPlan::new(&findings, now).alerts, []);
//!
//! // A later run does not find it.
//! findings.found.clear();
//! let plan = AlertPlan::new(&findings, now);
//! assert_eq!(plan.alerts[0].notification.headline, "marketing: solved: token refused");
//! ```

pub mod data;
pub mod event_alert;
#[cfg(test)]
mod hostile;
pub mod message;
pub mod notification;
pub mod phrasing;
pub mod refresh_alert;
pub mod resolution_alert;
pub mod selection;
pub mod state;
pub mod text;
mod transliteration;
