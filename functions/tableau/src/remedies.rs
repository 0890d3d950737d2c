//! Remedies: what happened to a site, and how to fix it. The reconciler's alerts and `cargo infra add-site` show them.

use shared::sites::entry::SiteEntry;

use crate::error::{ErrorKind, TableauError};

/// The remedy of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// The description, in sentences.
    pub what: String,
    /// The fix, in sentences; a command at their end has no period after it.
    pub fix: String,
}

/// A site as its remedies name it.
#[derive(Clone, Copy, Debug)]
pub struct SiteContext<'a> {
    /// The site's entry.
    pub entry: &'a SiteEntry,
    /// The SSM parameter of CA certificates, if the stack has one.
    pub ca_parameter: Option<&'a str>,
    /// How to store a changed entry, such as `run: cargo infra add-site marketing --overwrite`.
    pub store: &'a str,
    /// The next step if the error may pass, such as `The next run tries again`.
    pub retry: &'a str,
}

impl Remedy {
    /// Returns the remedy for an error.
    pub fn of(error: &TableauError, context: SiteContext<'_>) -> Self {
        let SiteContext { entry, ca_parameter, store, retry } = context;
        let SiteEntry { name, server, content_url, token_name, .. } = entry;
        let (what, fix) = match error.kind() {
            ErrorKind::Unreachable => (
                format!("{server} cannot be reached."),
                format!(
                    "Check `server` in the site entry {name}, that the server runs, and that the network allows the \
                     connection, directly or through the proxy in HTTPS_PROXY."
                ),
            ),
            ErrorKind::CertificateNotTrusted => {
                (format!("The certificate of {server} is not trusted."), trust(ca_parameter))
            }
            ErrorKind::OutOfTime => ("Tableau did not answer in time.".to_owned(), format!("{retry}.")),
            ErrorKind::SignInRedirected => (
                match error {
                    TableauError::Redirected { to, .. } => {
                        format!("{server} redirects sign-ins to {to}. The token was not sent there.")
                    }
                    _ => format!("{server} redirects sign-ins."),
                },
                format!(
                    "Let calls to /api/ pass whatever guards the server, such as single sign-on. If Tableau answers at \
                     another address, use that as `server` and {store}"
                ),
            ),
            ErrorKind::ServerTooOld => (
                format!("{server} is too old for webhooks by the name of their event."),
                "Upgrade it to Tableau Server 2020.3 or newer.".to_owned(),
            ),
            ErrorKind::TokenRefused => (
                format!(
                    "Tableau refused the token {token_name:?}. It is wrong, revoked, expired (after 15 days without use, \
                     or at its set lifetime), or for another site than {content_url:?}: Tableau does not say which."
                ),
                format!("Create a new token as an administrator of the site and {store}"),
            ),
            ErrorKind::SessionEnded => (
                format!("Another program uses the token {token_name:?}: its sign-in ended our session twice."),
                format!("Create a token that only Tableau Fanout uses and {store}"),
            ),
            ErrorKind::SiteNotFound => (
                format!("{server} has no site {content_url:?}."),
                format!("Correct `site`, which is the part after /site/ in a browser's address, and {store}"),
            ),
            ErrorKind::NotAdministrator => (
                format!("The owner of the token {token_name:?} is not an administrator of the site."),
                format!("Create a token as an administrator of the site and {store}"),
            ),
            ErrorKind::RateLimited => (
                "Tableau limits requests (429) and asks for a longer wait than there is time for.".to_owned(),
                format!("{retry}. If this continues, let the schedule run less often."),
            ),
            ErrorKind::Failed => ("Tableau answered with an error.".to_owned(), check_status(entry, retry)),
            ErrorKind::Unreadable => ("Tableau's answer cannot be read.".to_owned(), check_status(entry, retry)),
        };
        Self { what, fix }
    }
}

fn check_status(SiteEntry { server, .. }: &SiteEntry, retry: &str) -> String {
    format!("{retry}. If this continues, check that {server} is a Tableau server, and its status.")
}

/// The fix for a server whose certificate no trusted CA signed.
fn trust(ca_parameter: Option<&str>) -> String {
    match ca_parameter {
        Some(parameter) => format!(
            "If your own CA signed it, store the CA's certificate: aws ssm put-parameter --name {parameter} --type String \
             --overwrite --value file://ca.pem. Otherwise install a certificate of a public CA on the server."
        ),
        None => "Install a certificate of a public CA on the server.".to_owned(),
    }
}
