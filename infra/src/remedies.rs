//! Fixes for errors of the AWS CLI and of a sign-in to Tableau. Each text has what happened, the effect and the fix; the
//! error's causes follow as details.

use shared::{problems::ProblemKind, sites::entry::SiteEntry};
use tableau::TableauError;

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

/// The AWS CLI could not be started.
pub(crate) fn no_aws_cli() -> String {
    format!("the AWS CLI cannot be started. Fix: install it, see {AWS_CLI_URL}")
}

/// Adds the fix to an error of a sign-in with an entry that is not stored yet.
pub(crate) fn for_sign_in(entry: &SiteEntry, error: TableauError) -> anyhow::Error {
    let SiteEntry { server, content_url, token_name, .. } = entry;
    let (problem, fix) = match error.kind() {
        ProblemKind::TokenRefused => (
            format!("Tableau rejected the token {token_name:?}"),
            format!(
                "check the token's name and secret and the site {content_url:?}, or create a new token. A token is also \
                 rejected when it was revoked, has expired or is for another site"
            ),
        ),
        ProblemKind::TokenShared => (
            format!("another program uses the token {token_name:?}"),
            "create a token for Tableau Fanout alone".to_owned(),
        ),
        ProblemKind::NotAdministrator => (
            format!("the owner of the token {token_name:?} is no administrator of the site"),
            "create a token as a site administrator".to_owned(),
        ),
        ProblemKind::SiteNotFound => (
            format!("there is no site {content_url:?}"),
            "use the part after /site/ in a browser's address".to_owned(),
        ),
        ProblemKind::ServerUnreachable | ProblemKind::CertificateNotTrusted => (
            format!("{server} cannot be reached from here"),
            "add --no-sign-in if only the reconciler can reach it. If your own CA signed its certificate, store the CA \
             certificate first (README.md, \"A Tableau Server behind a firewall\")"
                .to_owned(),
        ),
        ProblemKind::ServerTooOld => {
            (format!("{server} is too old"), "upgrade it to Tableau Server 2020.3 or newer".to_owned())
        }
        ProblemKind::SignInRedirected => (
            format!("{server} redirects sign-ins to an address that gets no token"),
            "let calls to /api/ pass the single sign-on in front of the server, or use the address of Tableau itself"
                .to_owned(),
        ),
        ProblemKind::TooManyRequests => {
            ("Tableau limits the number of requests".to_owned(), "try again later".to_owned())
        }
        _ => ("Tableau did not answer as expected".to_owned(), format!("check that {server} is a Tableau server")),
    };
    anyhow::Error::new(error).context(format!("{problem}. Nothing was stored. Fix: {fix}"))
}
