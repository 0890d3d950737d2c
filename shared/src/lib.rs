//! Models and pure rules of Tableau Fanout: no I/O, no clock, no AWS SDK.
//!
//! - [`registration`]: the signed URL of a webhook, by which a request is verified.
//! - [`events`]: from a verified delivery to the message on the events topic.
//! - [`sites`]: what is declared for a site, what Tableau has, and the plan between them.
//! - [`refreshes`]: what Tableau's jobs say about refreshes, and how far they were processed.
//! - [`problems`] and [`alerts`]: what is wrong with a site, and the messages about it.
//! - [`state`]: the items that the reconciler stores between runs.
//! - [`targets`]: services outside of AWS, and the messages that they get.
//! - [`redaction`] and [`settings`]: hiding secrets, and reading configuration.
//!
//! The path of an event, from the signed URL of a webhook to the message on the events topic:
//!
//! ```
//! use shared::{
//!     events::delivery::Delivery,
//!     registration::{
//!         claim::{Claim, Registration},
//!         keyring::Keyring,
//!         signed_url::ReceiverUrl,
//!     },
//! };
//!
//! // The reconciler registers a webhook with a signed URL.
//! let receiver = ReceiverUrl::parse("https://receiver.example").ok_or(ReceiverUrl::EXPECTED)?;
//! let keyring = Keyring::of([7; 32]);
//! let registration =
//!     Registration { site: "marketing".parse()?, event: "WorkbookRefreshFailed".parse()? };
//! let url = registration.signed_url(&receiver, &keyring);
//!
//! // Tableau posts to it. The receiver verifies the path before it reads the body.
//! let path = url.expose().trim_start_matches("https://receiver.example");
//! let claim = Claim::parse(path).ok_or("answered with 404")?;
//! let verified = claim.verify(&keyring).ok_or("answered with 404")?;
//! let body = br#"{"event_type":"WorkbookRefreshFailed","resource_name":"Regional Sales"}"#;
//! let delivery = Delivery::read(&verified, body);
//!
//! // Subscriptions filter by the attributes of the message.
//! let message = delivery.message(delivery.id("request-1"))?;
//! assert_eq!(message.attributes["site"], "marketing");
//! assert_eq!(message.attributes["action"], "refresh-failed");
//! assert_eq!(message.attributes["resource_name"], "Regional Sales");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

pub mod alerts;
pub mod events;
pub mod problems;
pub mod redaction;
pub mod refreshes;
pub mod registration;
pub mod settings;
pub mod sites;
pub mod state;
pub mod targets;
pub mod timestamp;
