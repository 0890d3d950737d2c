//! Fixes for errors of the AWS CLI and of a sign-in to Tableau. Each text has what happened, the effect and the fix; the
//! error's causes follow as details.

use shared::sites::entry::SiteEntry;
use tableau::{ErrorKind, Remedy, SiteContext, TableauError};

/// Page of the AWS CLI.
pub(crate) const AWS_CLI_URL: &str = "https://aws.amazon.com/cli/";

/// The AWS CLI has no region.
pub(crate) const NO_REGION: &str =
    "the AWS CLI has no region. Fix: run `aws configure set region REGION`, or set AWS_DEFAULT_REGION";

const NO_CREDENTIALS: &str =
    "the AWS CLI has no credentials. Fix: run `aws configure` or `aws sso login`, or choose a profile with AWS_PROFILE";

const EXPIRED: &str = "the AWS credentials have expired. Fix: sign in again, for example with `aws sso login`";

const UNKNOWN_CREDENTIALS: &str = "AWS does not accept these credentials. Fix: check with `aws configure list` that they are complete and the right ones";

/// Errors before any answer of the service, by a part of the AWS CLI's message.
const AWS_CLI: [(&str, &str); 12] = [
    ("Unable to locate credentials", NO_CREDENTIALS),
    ("Partial credentials found", NO_CREDENTIALS),
    ("You must specify a region", NO_REGION),
    ("The config profile", "the AWS CLI does not know this profile. Fix: correct AWS_PROFILE"),
    ("ExpiredToken", EXPIRED),
    ("Token has expired", EXPIRED),
    ("Error loading SSO Token", EXPIRED),
    ("InvalidClientTokenId", UNKNOWN_CREDENTIALS),
    ("UnrecognizedClientException", UNKNOWN_CREDENTIALS),
    ("SignatureDoesNotMatch", UNKNOWN_CREDENTIALS),
    ("Could not connect to the endpoint URL", "AWS cannot be reached. Fix: check the network and the region's name"),
    (
        "AccessDenied",
        "these credentials lack a permission. Fix: ask the account's administrator for the permission in the details",
    ),
];

/// Returns the fix for a message of the AWS CLI, if there is one.
pub(crate) fn for_aws_cli(message: &str) -> Option<&'static str> {
    AWS_CLI.iter().find(|(part, _)| message.contains(part)).map(|(_, remedy)| *remedy)
}

/// Returns the details of an error: its causes. `None` if there are none.
pub fn details(error: &anyhow::Error) -> Option<String> {
    let causes: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
    (!causes.is_empty()).then(|| format!("Details: {}", causes.join(": ")))
}

/// The AWS CLI could not be started.
pub(crate) fn no_aws_cli() -> String {
    format!("the AWS CLI cannot be started. Fix: install it, see {AWS_CLI_URL}")
}

/// Returns what happened and the fix for an error of a sign-in with an entry that is not stored yet. The SSM parameter
/// `ca_parameter` holds the CA certificates of the stack. `again` says how to try again, such as `answer again`.
pub(crate) fn for_sign_in(
    entry: &SiteEntry,
    ca_parameter: &str,
    error: &TableauError,
    again: &str,
) -> (String, String) {
    let mut retry = again.to_owned();
    retry[..1].make_ascii_uppercase();
    let context = SiteContext { entry, ca_parameter: Some(ca_parameter), store: again, retry: &retry };
    let Remedy { what, mut fix } = Remedy::of(error, context);
    if matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::CertificateNotTrusted) {
        fix.push_str(" If only the reconciler reaches the server, add --no-sign-in.");
    }
    (what, fix)
}
