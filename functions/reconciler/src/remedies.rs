//! Problems of sites, each with its remedy.

use lambda_support::error_chain;
use shared::{
    problems::{Problem, ProblemKind},
    sites::{entry::SiteEntry, plan::Change, token_end::TokenEnd},
};
use tableau::{ErrorKind, Remedy, SiteContext, TableauError};
use time::OffsetDateTime;

use crate::{
    config::Config,
    report::{Enabled, NotRecovered, Tested},
    request::Action,
};

/// Context of a site's problems.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advice<'a> {
    pub(crate) config: &'a Config,
    pub(crate) action: Action,
    pub(crate) entry: &'a SiteEntry,
}

/// Returns the kind of problem that an error of Tableau's client is for a site.
fn problem_kind(kind: ErrorKind) -> ProblemKind {
    match kind {
        ErrorKind::Unreachable => ProblemKind::ServerUnreachable,
        ErrorKind::CertificateNotTrusted => ProblemKind::CertificateNotTrusted,
        ErrorKind::OutOfTime => ProblemKind::OutOfTime,
        ErrorKind::SignInRedirected => ProblemKind::SignInRedirected,
        ErrorKind::ServerTooOld => ProblemKind::ServerTooOld,
        ErrorKind::TokenRefused => ProblemKind::TokenRefused,
        ErrorKind::SessionEnded => ProblemKind::TokenShared,
        ErrorKind::SiteNotFound => ProblemKind::SiteNotFound,
        ErrorKind::NotAdministrator => ProblemKind::NotAdministrator,
        ErrorKind::RateLimited => ProblemKind::TooManyRequests,
        ErrorKind::Failed | ErrorKind::Unreadable => ProblemKind::ServerFailed,
    }
}

impl Advice<'_> {
    /// Returns the problem of an error that concerns the whole site.
    pub(crate) fn on_site(&self, error: &TableauError) -> Problem {
        let Self { config, action, entry } = self;
        let commands = config.site_commands();
        let context = SiteContext {
            entry,
            ca_parameter: config.tableau_ca_parameter.as_deref(),
            store: &format!("run: {}", commands.replace_entry(entry.name.as_str())),
            retry: &action.or_again("The next run tries again"),
        };
        let Remedy { what, mut fix } = Remedy::of(error, context);
        let name = entry.name.as_str();
        fix += &match error.kind() {
            ErrorKind::Unreachable => format!(" If its address has changed: {}", commands.replace_entry(name)),
            ErrorKind::SiteNotFound => format!(". If the site no longer exists: {}", commands.remove_site(name)),
            _ => String::new(),
        };
        let detail = Some(error_chain(error));
        match problem_kind(error.kind()) {
            ProblemKind::OutOfTime => Problem { detail, ..out_of_time(format!("{what} {fix}")) },
            kind => Problem { kind, event: None, what, remedy: fix, detail },
        }
    }

    /// Returns the problem of a token that ends soon.
    pub(crate) fn on_token_ending(&self, end: TokenEnd, now: OffsetDateTime) -> Problem {
        let Self { config, entry, .. } = self;
        Problem {
            kind: ProblemKind::TokenEnding,
            event: None,
            what: format!("The token {:?} ends on {}.", entry.token_name, end.in_days(now)),
            remedy: format!(
                "Create a new token on Tableau (My Account Settings, Personal Access Tokens) as an administrator of the site \
                 and run: {}",
                config.site_commands().replace_entry(entry.name.as_str())
            ),
            detail: None,
        }
    }

    /// Returns the problem of an error that concerns one webhook alone.
    pub(crate) fn on_change(&self, change: &Change, error: &TableauError) -> Problem {
        let prefix = &self.config.name_prefix;
        let (event, what, remedy) = match change {
            Change::Create { desired } | Change::Update { desired, .. } | Change::Enable { desired, .. } => (
                Some(desired.event.clone()),
                format!("Tableau refused {}.", desired.name),
                format!(
                    "If this server does not know the event {}, leave it out of the site's `events`: {}",
                    desired.event,
                    self.config.site_commands().replace_events(self.entry.name.as_str())
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

    /// Returns the problem of webhooks that still differ from the declaration after all changes.
    pub(crate) fn on_differences<'b>(&self, names: impl Iterator<Item = &'b str>) -> Problem {
        let names: Vec<_> = names.collect();
        Problem {
            kind: ProblemKind::NotAsDeclared,
            event: None,
            what: format!(
                "After all changes, {} of our webhooks still differ from the declaration: {}.",
                names.len(),
                names.join(", ")
            ),
            remedy: format!("Check whether another stack called {} manages the same site.", self.config.name_prefix),
            detail: None,
        }
    }

    /// Returns the problem of a webhook that Tableau had disabled.
    pub(crate) fn on_disabled(&self, enabled: &Enabled) -> Problem {
        Problem {
            kind: ProblemKind::WebhookDisabled,
            event: self.config.name_prefix.event_of(&enabled.name),
            what: enabled.to_string(),
            remedy: format!("To see why its deliveries failed: {}", self.receiver_log_command()),
            detail: None,
        }
    }

    /// Returns the problem of tests that did not reach the receiver, `None` if all did.
    pub(crate) fn on_tests(&self, tests: &[Tested]) -> Option<Problem> {
        let mut failed = tests.iter().filter(|test| !test.succeeded());
        let first = failed.next()?;
        let count = 1 + failed.count();
        Some(Problem {
            kind: ProblemKind::TestFailed,
            event: None,
            what: format!("{count} of {} tests did not reach the receiver, the first of {first}.", tests.len()),
            remedy: format!("To see which calls arrived: {}", self.receiver_log_command()),
            detail: None,
        })
    }

    fn receiver_log_command(&self) -> String {
        format!("aws logs tail /aws/lambda/{}-receiver --since 1d", self.config.name_prefix)
    }
}

/// The most lost refreshes that an alert describes one by one.
const MAX_LOST_IN_FULL: usize = 5;

/// Returns the problem of refreshes that are not recovered, `None` if there are none. `stack` is the stack's name.
pub(crate) fn lost(not_recovered: &[NotRecovered], stack: &str) -> Option<Problem> {
    if not_recovered.is_empty() {
        return None;
    }
    let described: Vec<_> = not_recovered.iter().take(MAX_LOST_IN_FULL).map(|it| format!("{it}.")).collect();
    let more = not_recovered.len() - described.len();
    let more = if more > 0 { format!(" And {more} more.") } else { String::new() };
    Some(Problem {
        kind: ProblemKind::RefreshesLost,
        event: None,
        what: format!("Refreshes may be missing on the events topic: {}{more}", described.join(" ")),
        remedy: format!("To list them all: aws logs tail /aws/lambda/{stack}-reconciler --since 1d"),
        detail: None,
    })
}

/// Returns the problem of alerts about refreshes that could not be sent.
pub(crate) fn alerts_lost(error: &str) -> Problem {
    Problem {
        kind: ProblemKind::AlertsLost,
        event: None,
        what: "Alerts about failed or missed refreshes could not be sent.".to_owned(),
        remedy: "Check the reconciler's permissions and the key of the alerts topic.".to_owned(),
        detail: Some(error.to_owned()),
    }
}

/// Returns the problem of an entry that cannot be used.
pub(crate) fn unusable(what: String, remedy: String) -> Problem {
    Problem { kind: ProblemKind::EntryUnusable, event: None, what, remedy, detail: None }
}

/// Returns the problem of work for which no time was left.
pub(crate) fn out_of_time(what: String) -> Problem {
    let remedy = "If this continues, raise the timeout of the reconciler's function: at most 900 seconds.";
    Problem { kind: ProblemKind::OutOfTime, event: None, what, remedy: remedy.to_owned(), detail: None }
}
