//! The AWS edge of the functions: code that both of them use.
//!
//! - [`aws`]: the set-up of all AWS clients. [`keyring`] reads the signing keys from SSM, [`topic`] publishes to SNS.
//! - [`logging`] and [`metrics`]: the two ways to a line of the function's log. Both write the format of `log_line`.

use std::{error::Error, iter::successors};

pub mod aws;
pub mod keyring;
pub mod logging;
pub mod metrics;
pub mod topic;

mod log_line;

/// An error of a call to AWS.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Returns an error and its causes in one line.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let causes = successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
