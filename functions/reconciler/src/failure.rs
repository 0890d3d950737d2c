//! Failures of a run, as Lambda reports them.

use std::{error::Error, fmt};

use lambda_runtime::Diagnostic;
use lambda_support::error_chain;

use crate::{parameters::ParametersError, report::Report};

/// A run that did not leave every site as declared, or could not alert, publish or store everything.
pub enum Failure {
    /// The request is not valid. Nothing was done.
    Request(&'static str),
    /// A parameter could not be read, or the signing keys could not be stored. No site was checked.
    Parameters(ParametersError),
    /// Some sites failed. The others are as declared.
    Sites(Report),
    /// Every site is as declared, but older signing keys could not be retired.
    Keys(Report),
    /// Every site is as declared, but alerts could not be sent.
    Alerts(Report),
    /// Every site is as declared, but missed events or explanations could not be published.
    Refreshes(Report),
    /// Every site is as declared, but the state could not be read or stored.
    State(Report),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(what) => formatter.write_str(what),
            Self::Parameters(error) => {
                let error = error_chain(error);
                write!(formatter, "the parameters in SSM could not be read or stored: {error}")
            }
            Self::Sites(report)
            | Self::Keys(report)
            | Self::Alerts(report)
            | Self::Refreshes(report)
            | Self::State(report) => formatter.write_str(&report.text),
        }
    }
}

impl Error for Failure {}

impl Failure {
    /// Returns the kind of failure that a report describes, if it does: failed sites first, since without them nothing works.
    pub(crate) fn kind_of(report: &Report) -> Option<fn(Report) -> Self> {
        let Report { keys_error, alerts_error, refreshes_error, state_error, .. } = report;
        match (report.failed(), keys_error, alerts_error, refreshes_error, state_error) {
            (true, ..) => Some(Self::Sites),
            (false, Some(_), ..) => Some(Self::Keys),
            (false, None, Some(_), ..) => Some(Self::Alerts),
            (false, None, None, Some(_), _) => Some(Self::Refreshes),
            (false, None, None, None, Some(_)) => Some(Self::State),
            (false, None, None, None, None) => None,
        }
    }

    /// Returns the report, if any site was checked.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Request(_) | Self::Parameters(_) => None,
            Self::Sites(report)
            | Self::Keys(report)
            | Self::Alerts(report)
            | Self::Refreshes(report)
            | Self::State(report) => Some(report),
        }
    }
}

// The runtime logs this.
impl fmt::Debug for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        let error_type = match failure {
            Failure::Request(_) => "InvalidRequest",
            Failure::Parameters(_) => "ParametersUnreadable",
            Failure::Sites(_) => "SitesFailed",
            Failure::Keys(_) => "KeysFailed",
            Failure::Alerts(_) => "AlertsFailed",
            Failure::Refreshes(_) => "RefreshesFailed",
            Failure::State(_) => "StateUnavailable",
        };
        Self { error_type: error_type.to_owned(), error_message: failure.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use shared::problems::{Problem, ProblemKind};

    use super::*;
    use crate::report::SiteReport;

    #[test]
    fn a_report_with_several_errors_fails_by_the_first_that_matters() {
        let error = || Some("it failed".to_owned());
        let problem = Problem {
            kind: ProblemKind::TokenRefused,
            event: None,
            what: "It broke.".to_owned(),
            remedy: String::new(),
            detail: None,
        };
        let mut report = Report::default();
        assert!(Failure::kind_of(&report).is_none());
        let failure = |report: &Report| Failure::kind_of(report).map(|kind| Diagnostic::from(kind(report.clone())));
        let mut add = |expected: &str, change: &dyn Fn(&mut Report)| {
            change(&mut report);
            assert_eq!(failure(&report).map(|it| it.error_type).as_deref(), Some(expected));
        };
        add("StateUnavailable", &|report| report.state_error = error());
        add("RefreshesFailed", &|report| report.refreshes_error = error());
        add("AlertsFailed", &|report| report.alerts_error = error());
        add("KeysFailed", &|report| report.keys_error = error());
        add("SitesFailed", &|report| report.sites = vec![SiteReport::of_failure("a", problem.clone())]);
    }
}
