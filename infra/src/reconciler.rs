//! Invocations of the reconciler and their results.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use shared::{registration::site_name::SiteName, sites::commands::infra};
use thiserror::Error;
use tokio::{
    fs,
    time::{Instant, sleep},
};

use crate::{
    aws::{Aws, Input, has_code},
    run_report::SitePart,
    stack::Stack,
    steps::show,
};

/// How long the AWS CLI waits for the result, in seconds: Lambda's maximum. By default it stops waiting earlier and
/// invokes the function again.
const ANSWER_TIMEOUT: &str = "900";

/// How long an invocation waits while others run: one takes 5 minutes at most, and Lambda may start a queued one before ours.
const BUSY_TIMEOUT: Duration = Duration::from_secs(660);

/// The pause between two attempts. A run that explains failures takes seconds.
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// Result of an invocation.
#[derive(Debug)]
pub enum Answer {
    /// The report of a run that succeeded.
    Report(Value),
    /// The error of a run that failed.
    Failure {
        /// The kind of failure, such as `SitesFailed`.
        kind: String,
        /// The error's text, mostly the text of the report.
        text: String,
    },
}

/// Invokes the reconciler for some sites, or for all if `sites` is empty.
///
/// # Errors
///
/// The invocation did not start.
pub async fn invoke(aws: &Aws, stack: &Stack, action: &str, sites: &[SiteName]) -> anyhow::Result<Answer> {
    invoke_with(
        aws,
        stack,
        &match sites {
            [] => json!({ "action": action }),
            sites => json!({ "action": action, "sites": sites }),
        },
    )
    .await
}

/// Has the reconciler delete the state of sites that are no longer declared, after it ended the alerts of their problems. It
/// reaches no site.
///
/// # Errors
///
/// The invocation did not start.
pub async fn forget_removed_sites(aws: &Aws, stack: &Stack) -> anyhow::Result<Answer> {
    invoke_with(aws, stack, &json!({ "action": "apply", "sites": [] })).await
}

async fn invoke_with(aws: &Aws, stack: &Stack, request: &Value) -> anyhow::Result<Answer> {
    let invoke = ["lambda", "invoke", "--cli-read-timeout", ANSWER_TIMEOUT];
    let options =
        ["--function-name", stack.output("ReconcilerName")?, "--payload", "fileb:///dev/stdin", "report.json"];
    let (command, request) = ([&invoke[..], &options].concat(), request.to_string());
    let (mut is_waiting, end) = (false, Instant::now() + BUSY_TIMEOUT);
    let answer = loop {
        match aws.json_with(&command, Input::Text(&request)).await {
            Err(error) if has_code(&error, "TooManyRequestsException") => {
                if Instant::now() >= end {
                    bail!(error.context(
                        "the reconciler is busy with other runs. Nothing was done. Fix: try again in a few minutes"
                    ));
                }
                if !is_waiting {
                    show(
                        "the reconciler is busy with another run, which takes 5 minutes at most. This waits for its end",
                    );
                }
                is_waiting = true;
                sleep(BUSY_PAUSE).await;
            }
            answer => break answer?,
        }
    };
    let report = fs::read_to_string(aws.folder().join("report.json")).await?;
    let report: Value = serde_json::from_str(&report).context("the reconciler's answer is no JSON")?;
    if answer["FunctionError"].is_null() {
        return Ok(Answer::Report(report));
    }
    let text = |member: &str, default: &str| report[member].as_str().unwrap_or(default).to_owned();
    Ok(Answer::Failure { kind: text("errorType", "Error"), text: text("errorMessage", "it gave no reason") })
}

/// Describes the effect of an interruption while the reconciler runs.
pub fn continues(stack: &Stack) -> String {
    format!(
        "The reconciler continues a run that has begun, for some minutes at most. Fix: see its outcome with `{}`, as the last \
         run",
        infra("status", stack.name())
    )
}

/// Invokes the reconciler, prints the text of its report, and returns the report.
///
/// # Errors
///
/// The invocation did not start, or the run failed.
pub async fn run(aws: &Aws, stack: &Stack, action: &str, sites: &[SiteName]) -> anyhow::Result<Value> {
    let answer = invoke(aws, stack, action, sites).await?;
    show(answer.text());
    answer.check(stack)?;
    Ok(answer.json(action))
}

impl Answer {
    /// The text of the report, or of the error.
    pub fn text(&self) -> &str {
        match self {
            Self::Report(report) => report["text"].as_str().unwrap_or("a report without a text"),
            Self::Failure { text, .. } => text,
        }
    }

    /// Returns the report for a program. That of a run that failed has less, since Lambda returns a failure as a text.
    pub fn json(self, action: &str) -> Value {
        match self {
            Self::Report(mut report) => {
                report["failure"] = Value::Null;
                report
            }
            Self::Failure { kind, text } => {
                json!({ "action": action, "failure": kind, "sites": SitePart::parse_all(&text), "text": text })
            }
        }
    }

    /// Checks that the run succeeded.
    ///
    /// # Errors
    ///
    /// It failed. The text has the reason.
    pub fn check(&self, stack: &Stack) -> anyhow::Result<()> {
        let Self::Failure { kind, .. } = self else { return Ok(()) };
        match RunFailed::of(kind) {
            Some(failed) => Err(failed.into()),
            None => bail!(
                "the reconciler failed ({kind}) before it reached a site. Fix: see the message above and the log \
                 /aws/lambda/{}",
                stack.output("ReconcilerName")?
            ),
        }
    }
}

/// A run that reported its work and failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RunFailed {
    /// Some sites failed.
    #[error("some sites failed. Their webhooks may not be as declared. Fix: follow the report above")]
    Sites,
    /// Older signing keys could not be retired.
    #[error(
        "every site succeeded, but older signing keys could not be retired. Webhook URLs signed with them stay valid. Fix: \
         run `cargo infra reconcile rotate` again when the cause above is fixed"
    )]
    Keys,
    /// Alerts could not be sent.
    #[error("every site succeeded, but alerts could not be sent. The next run sends them. Fix: see the report above")]
    Alerts,
    /// Missed refreshes could not all be published.
    #[error(
        "every site succeeded, but some missed refreshes could not be published. The next run continues. Fix: see the \
         report above"
    )]
    Refreshes,
    /// The state could not be read or stored.
    #[error(
        "every site succeeded, but the reconciler's state could not be read or stored. Alerts and recovery may be \
         incomplete. Fix: see the report above"
    )]
    State,
}

impl RunFailed {
    /// Maps the reconciler's error type. `None` if the run reached no site.
    fn of(kind: &str) -> Option<Self> {
        match kind {
            "SitesFailed" => Some(Self::Sites),
            "KeysFailed" => Some(Self::Keys),
            "AlertsFailed" => Some(Self::Alerts),
            "RefreshesFailed" => Some(Self::Refreshes),
            "StateUnavailable" => Some(Self::State),
            _ => None,
        }
    }

    /// Returns whether an error is of a run in which every site succeeded.
    pub fn sites_succeeded(error: &anyhow::Error) -> bool {
        error.downcast_ref::<Self>().is_some_and(|failed| *failed != Self::Sites)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn only_failed_sites_are_reported_as_failed_sites() {
        for (kind, is_of_sites) in [
            ("SitesFailed", true),
            ("KeysFailed", false),
            ("AlertsFailed", false),
            ("RefreshesFailed", false),
            ("StateUnavailable", false),
        ] {
            let error = RunFailed::of(kind).context("the reconciler has no such failure").expect(kind);
            assert_eq!(error.to_string().starts_with("every site succeeded, but"), !is_of_sites, "{kind}");
            let error = anyhow::Error::new(error).context("an outer context");
            assert_eq!(RunFailed::sites_succeeded(&error), !is_of_sites, "{kind}");
        }
        assert_eq!(RunFailed::of("ParametersUnreadable"), None);
    }
}
