//! What went wrong, in words that say what to do about it.

use lambda_support::error_chain;
use shared::{
    problems::{Problem, ProblemKind},
    sites::{entry::SiteEntry, plan::Change},
};
use tableau::TableauError;

use crate::{
    config::Config,
    report::{Enabled, NotRecovered, Tested},
    request::Action,
};

/// Advice about a site, which names the stack's own parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advice<'a> {
    pub(crate) config: &'a Config,
    /// What was asked for.
    pub(crate) action: Action,
    pub(crate) entry: &'a SiteEntry,
}

impl Advice<'_> {
    /// An error that concerns the whole site.
    pub(crate) fn on_site(&self, error: &TableauError) -> Problem {
        let Self { config, action, entry } = self;
        let SiteEntry { name, token_name, content_url, server, .. } = entry;
        let store = format!("store the entry again: {}", config.store_command(name.as_str()));
        let kind = error.kind();
        let (what, remedy) = match kind {
            ProblemKind::SignInRedirected => (
                match error {
                    TableauError::Redirected { to, .. } => {
                        format!("The server sends sign-ins to {to}: personal access tokens do not go through it.")
                    }
                    _ => "The server sends sign-ins elsewhere.".to_owned(),
                },
                format!(
                    "Have whatever guards the server, such as single sign-on, let calls to /api/ through; or if Tableau \
                     answers at another address, name that as `server`, and {store}"
                ),
            ),
            ProblemKind::TokenRefused => (
                format!(
                    "Tableau refused the token {token_name:?}. It is wrong, revoked, expired (after 15 days without use, \
                     or at its set lifetime), or for another site than {content_url:?}: Tableau does not tell which."
                ),
                format!("Make a new one as an administrator of the site, and {store}"),
            ),
            ProblemKind::TokenShared => (
                format!("The session was ended twice: somebody else uses the token {token_name:?}."),
                format!("Make a token for this purpose only, and {store}"),
            ),
            ProblemKind::NotAdministrator => (
                format!("The owner of the token {token_name:?} is no administrator of the site."),
                format!("Make a token as an administrator of the site, and {store}"),
            ),
            ProblemKind::SiteNotFound => (
                format!("There is no site {content_url:?} on {server}."),
                format!("Correct `site`, which is what follows /site/ in a browser's address, and {store}"),
            ),
            ProblemKind::OutOfTime => {
                return Problem {
                    detail: Some(error_chain(error)),
                    ..out_of_time(format!(
                        "There was no time left to wait for Tableau. {}.",
                        action.or_again("The next run goes on")
                    ))
                };
            }
            ProblemKind::TooManyRequests => (
                "Tableau asks for patience, for longer than this run may last.".to_owned(),
                format!(
                    "{}; if this stays, let the schedule run less often.",
                    action.or_again("The next run tries again")
                ),
            ),
            ProblemKind::CertificateNotTrusted => {
                (format!("The certificate of {server} is not trusted."), untrusted(config))
            }
            ProblemKind::ServerUnreachable => (
                format!("{server} cannot be reached from here."),
                format!(
                    "Is `server` in the entry {name} right, is the server up, and does its network let AWS in, directly \
                     or through the proxy that HTTPS_PROXY names?"
                ),
            ),
            ProblemKind::ServerTooOld => (
                "The server is too old for webhooks as they are needed here.".to_owned(),
                "Upgrade it to Tableau Server 2020.3 or newer.".to_owned(),
            ),
            _ => (
                "Tableau did not do what it was asked to.".to_owned(),
                format!("{}; if this stays, look at the server's status.", action.or_again("The next run tries again")),
            ),
        };
        Problem { kind, event: None, what, remedy, detail: Some(error_chain(error)) }
    }

    /// An error that concerns one webhook alone.
    pub(crate) fn on_change(&self, change: &Change, error: &TableauError) -> Problem {
        let prefix = &self.config.name_prefix;
        let (event, what, remedy) = match change {
            Change::Create { desired } | Change::Update { desired, .. } | Change::Enable { desired, .. } => (
                Some(desired.event.clone()),
                format!("Tableau refused {}.", desired.name),
                format!(
                    "If this server does not know the event {}, leave it out of the site's `events`.",
                    desired.event
                ),
            ),
            Change::Delete { observed, .. } => (
                prefix.event_of(&observed.name),
                format!("Tableau refused to delete {}.", observed.name),
                "Delete it on Tableau.".to_owned(),
            ),
        };
        Problem { kind: ProblemKind::WebhookRefused, event, what, remedy, detail: Some(error_chain(error)) }
    }

    /// What is not as declared after everything was done.
    pub(crate) fn on_what_is_left<'b>(&self, names: impl Iterator<Item = &'b str>) -> Problem {
        let names: Vec<_> = names.collect();
        Problem {
            kind: ProblemKind::NotAsDeclared,
            event: None,
            what: format!(
                "After everything was done, {} of our webhooks are still not as declared: {}.",
                names.len(),
                names.join(", ")
            ),
            remedy: format!("Does another stack called {} look after the same site?", self.config.name_prefix),
            detail: None,
        }
    }

    /// A webhook that Tableau had disabled.
    pub(crate) fn on_disabled(&self, enabled: &Enabled) -> Problem {
        Problem {
            kind: ProblemKind::WebhookDisabled,
            event: self.config.name_prefix.event_of(&enabled.name),
            what: enabled.to_string(),
            remedy: format!("Why its deliveries failed, {}", self.receivers_log()),
            detail: None,
        }
    }

    /// Tests that the receiver did not take, `None` if it took them all.
    pub(crate) fn on_tests(&self, tests: &[Tested]) -> Option<Problem> {
        let mut failed = tests.iter().filter(|test| !test.succeeded());
        let first = failed.next()?;
        let count = 1 + failed.count();
        Some(Problem {
            kind: ProblemKind::TestFailed,
            event: None,
            what: format!("{count} of {} tests did not reach the receiver, the first of {first}.", tests.len()),
            remedy: format!("What became of the calls, {}", self.receivers_log()),
            detail: None,
        })
    }

    fn receivers_log(&self) -> String {
        format!("the receiver's log says: /aws/lambda/{}-receiver.", self.config.name_prefix)
    }
}

/// What to do about a server whose certificate is signed by nobody we trust.
fn untrusted(config: &Config) -> String {
    let public = "give the server a certificate that a public authority signed";
    match &config.tableau_ca_parameter {
        Some(parameter) => format!(
            "If an authority of your own signed it, store that authority's certificate: aws ssm put-parameter --name \
             {parameter} --type String --overwrite --value file://ca.pem. Otherwise {public}."
        ),
        None => format!("It takes to {public}."),
    }
}

/// How many of the refreshes that were given up a person is told of in full.
const LOST_IN_FULL: usize = 5;

/// Refreshes that were given up, `None` if none were. `stack` is the stack's name.
pub(crate) fn lost(not_recovered: &[NotRecovered], stack: &str) -> Option<Problem> {
    if not_recovered.is_empty() {
        return None;
    }
    let told: Vec<_> = not_recovered.iter().take(LOST_IN_FULL).map(|it| format!("{it}.")).collect();
    let more = not_recovered.len() - told.len();
    let more = if more > 0 { format!(" And {more} more.") } else { String::new() };
    Some(Problem {
        kind: ProblemKind::RefreshesLost,
        event: None,
        what: format!("Refreshes may be missing on the events topic: {}{more}", told.join(" ")),
        remedy: format!("The log has them all: /aws/lambda/{stack}-reconciler."),
        detail: None,
    })
}

/// Alerts about refreshes that were not accepted, and why.
pub(crate) fn alerts_lost(error: &str) -> Problem {
    Problem {
        kind: ProblemKind::AlertsLost,
        event: None,
        what: "Alerts about refreshes that failed, or whose events were missed, could not be sent.".to_owned(),
        remedy: "Look at the reconciler's permissions and at the alerts topic's key.".to_owned(),
        detail: Some(error.to_owned()),
    }
}

/// An entry that cannot be used, and why.
pub(crate) fn unusable(what: String, remedy: String) -> Problem {
    Problem { kind: ProblemKind::EntryUnusable, event: None, what, remedy, detail: None }
}

/// What there was no time for.
pub(crate) fn out_of_time(what: String) -> Problem {
    let remedy = "If this stays, give the reconciler more time: at most 900 seconds.";
    Problem { kind: ProblemKind::OutOfTime, event: None, what, remedy: remedy.to_owned(), detail: None }
}
