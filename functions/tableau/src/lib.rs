//! Client of Tableau's REST API, as far as webhooks, refresh jobs and their context need it.
//!
//! [`Tableau`] signs in to a site and returns a [`Session`], which manages webhooks (`webhooks`), and reads jobs (`jobs`),
//! their context (`content`), and when the token ends (`tokens`). A call goes from there through `session` (renewal) to `http`
//! (retries after `retry`, time and memory limits). The body of an answer comes back through `reception` (`rows` filters a long
//! list), `body` (decompression, bounded JSON), `secrets` (redaction) and `wire` (Tableau's JSON).
//! Every failure is a [`TableauError`], whose [`ErrorKind`] names what the client saw; `remedies` says how to fix it.

#[doc(hidden)]
pub mod fuzzing;

mod answer;
mod body;
mod call;
mod client;
mod content;
mod error;
mod http;
mod jobs;
mod paging;
mod reception;
mod remedies;
mod retry;
mod rows;
mod secrets;
mod session;
mod sign_in;
mod tokens;
mod version;
mod webhooks;
mod wire;

pub use body::SITES_AT_ONCE;
pub use call::Call;
pub use client::Tableau;
pub use error::{ErrorKind, TableauError};
pub use http::InvalidCertificates;
pub use jobs::{OddJob, RefreshJobs, WhichJobs};
pub use remedies::{Remedy, SiteContext};
pub use session::Session;
pub use version::ApiVersion;
pub use webhooks::Webhooks;
