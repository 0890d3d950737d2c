//! Models and pure rules of Tableau Fanout. No I/O, no clock, no AWS SDK: what a byte means is
//! decided here, who fetched it is decided in `functions`.

pub mod address;
pub mod alert;
pub mod escapes;
pub mod event;
pub mod invalid;
pub mod keyring;
pub mod known_secrets;
pub mod message;
pub mod notes;
pub mod notice;
pub mod payload;
pub mod plan;
pub mod problems;
pub mod record;
pub mod recovery;
pub mod refresh;
pub mod refresh_alert;
pub mod registration;
pub mod sign_in;
pub mod site;
pub mod state;
pub mod text;
pub mod trouble;
pub mod unverified;
pub mod webhook;

mod redaction;
