//! Failures of a run, as Lambda reports them.

use std::{error::Error, fmt};

use lambda_runtime::Diagnostic;
use lambda_support::error_chain;

use crate::{BoxError, report::Report};

/// A run that did not leave every site as declared, or did not tell people so.
pub enum Failure {
    /// What was asked for makes no sense. Nothing was done.
    Request(&'static str),
    /// The declaration could not be read, so that no site was looked at; or the signing keys not be stored.
    Parameters(BoxError),
    /// Some sites failed. The others are as declared.
    Sites(Report),
    /// Every site is as declared, but older signing keys could not be retired.
    Keys(Report),
    /// Every site is as declared, but people could not be told what they should know.
    Alerts(Report),
    /// Every site is as declared, but missed events or explanations could not be published.
    Refreshes(Report),
    /// Every site is as declared, but the run could not read its state or not store it.
    State(Report),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(what) => formatter.write_str(what),
            Self::Parameters(error) => {
                let error = error_chain(&**error);
                write!(formatter, "what is declared cannot be read from SSM, or not be stored there: {error}")
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
    /// What was done all the same, if any site was looked at.
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

// What the runtime logs.
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
