//! Chooses the Lambda concurrency that a stack reserves, by the account's quota.
//!
//! The receiver's reservation keeps a flood of its public URL from using up the account's concurrency. The reconciler's
//! prevents overlapping runs. A new account can have a quota of 10 and cannot reserve anything.

use anyhow::{Context, bail};
use shared::alerts::phrasing::pluralize;

use crate::aws::Aws;

/// The template's default reservation of the receiver.
const DEFAULT_RECEIVER: u32 = 20;

/// The smallest reservation of the receiver that is chosen automatically. Its URL then takes 50 requests a second.
const MIN_RECEIVER: u32 = 5;

/// The part of its quota that an account must leave unreserved (AWS Lambda developer guide, "Configuring reserved
/// concurrency"). An account with a smaller quota can reserve nothing.
const UNRESERVED: u32 = 100;

/// Invocations of the forwarder that a target may have at the same time: `MaximumConcurrency` of its event source mapping.
const PER_TARGET: u32 = 2;

/// Concurrency of an account in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Concurrent executions that the account may have.
    quota: u32,
    /// The part that no other function than the stack's has reserved.
    unreserved: u32,
}

/// The chosen reservations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Parameters to set, as `NAME=VALUE`.
    pub parameters: Vec<String>,
    /// Explanation for the user.
    pub message: String,
}

impl Account {
    /// Reads the account's quota, and the reservations of the stack's functions. `functions` is empty for a new stack.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn read(aws: &Aws, functions: &[&str]) -> anyhow::Result<Self> {
        let settings = aws.json(&["lambda", "get-account-settings", "--query", "AccountLimit"]).await?;
        let count = |name: &str| settings[name].as_u64().and_then(|count| count.try_into().ok());
        let quota = count("ConcurrentExecutions").context("the account has no concurrency quota")?;
        let mut unreserved: u32 = count("UnreservedConcurrentExecutions").unwrap_or(quota);
        for function in functions {
            let reserved = ["lambda", "get-function-concurrency", "--function-name", function];
            let reserved = aws.json(&reserved).await?;
            let reserved = reserved["ReservedConcurrentExecutions"].as_u64().and_then(|count| count.try_into().ok());
            unreserved = unreserved.saturating_add(reserved.unwrap_or(0));
        }
        Ok(Self { quota, unreserved })
    }

    /// Concurrency that a stack can reserve.
    fn free(self) -> u32 {
        self.unreserved.saturating_sub(UNRESERVED.min(self.quota))
    }

    /// Returns a warning if slow targets could take more than half of the concurrency that nobody has reserved. The account
    /// must have been read without functions.
    pub fn warn_of_targets(self, targets: usize) -> Option<String> {
        let Self { unreserved, .. } = self;
        let used = u32::try_from(targets).unwrap_or(u32::MAX).saturating_mul(PER_TARGET);
        (used > unreserved / 2).then(|| {
            format!(
                "{} can take {used} of the {unreserved} concurrent executions that the account's functions share. If \
                 they are slow, other functions may be throttled, also the receiver unless it has a reservation. Fix: request \
                 a higher quota (Service Quotas, AWS Lambda, Concurrent executions), or send to fewer targets",
                pluralize(targets, "target", "targets")
            )
        })
    }

    /// Chooses the reservations by the parameters `ReceiverReservedConcurrency` and `ExclusiveRuns`. Empty ones get values
    /// that fit.
    ///
    /// # Errors
    ///
    /// The requested reservations do not fit.
    pub fn decide(self, receiver: &str, exclusive_runs: &str) -> anyhow::Result<Decision> {
        let (Self { quota, .. }, free) = (self, self.free());
        let reconciler = u32::from(exclusive_runs != "false");
        // The template rejects a value that is no number.
        let requested = receiver.parse().ok();
        let receiver = requested.unwrap_or(DEFAULT_RECEIVER * reconciler);
        let needed = receiver.saturating_add(reconciler);
        let limits = format!("this account's quota is {quota}, and the stack can reserve {free} of it");
        let keep = |message: String| Ok(Decision { parameters: Vec::new(), message });
        let choose = |parameter: String, message: String| Ok(Decision { parameters: vec![parameter], message });
        match requested {
            None if reconciler == 0 && free > DEFAULT_RECEIVER => keep(format!(
                "no Lambda concurrency is reserved (ExclusiveRuns=false). A flood of the receiver's URL can use up the \
                 account's concurrency. Fix: add --parameter ExclusiveRuns=true. Details: {limits}"
            )),
            None if reconciler == 0 => keep(nothing_is_reserved(&limits)),
            _ if needed <= free => keep(format!(
                "Lambda concurrency: the receiver reserves {receiver}, the reconciler {reconciler}; {limits}"
            )),
            None if free > MIN_RECEIVER => {
                let parameter = format!("ReceiverReservedConcurrency={}", free - reconciler);
                let message = format!("Lambda concurrency: {parameter}, and 1 for the reconciler; {limits}");
                choose(parameter, message)
            }
            None => choose("ExclusiveRuns=false".to_owned(), nothing_is_reserved(&limits)),
            Some(_) => bail!(
                "the stack would reserve {needed} of the account's Lambda concurrency: {receiver} for the receiver, \
                 {reconciler} for the reconciler. Nothing was done. Fix: lower ReceiverReservedConcurrency, or leave it empty \
                 so that this command chooses, or request a higher quota (Service Quotas, AWS Lambda, Concurrent \
                 executions). Details: {limits}; Lambda keeps {UNRESERVED} for functions without a reservation"
            ),
        }
    }
}

fn nothing_is_reserved(limits: &str) -> String {
    format!(
        "no Lambda concurrency is reserved (ExclusiveRuns=false). A flood of the receiver's URL can use up the account's \
         concurrency, and two runs of the reconciler can overlap. Fix: request a higher quota (Service Quotas, AWS Lambda, \
         Concurrent executions), then deploy with --parameter ExclusiveRuns=true. Details: {limits}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(quota: u32, unreserved: u32, receiver: &str, exclusive_runs: &str) -> anyhow::Result<Decision> {
        Account { quota, unreserved }.decide(receiver, exclusive_runs)
    }

    #[test]
    fn the_reservations_fit_what_the_account_has_left() -> anyhow::Result<()> {
        let none: &[&str] = &[];
        for (quota, unreserved, receiver, exclusive_runs, parameters, message) in [
            (1000, 1000, "", "", none, "the receiver reserves 20, the reconciler 1"),
            (1000, 1000, "", "true", none, "the receiver reserves 20, the reconciler 1"),
            (1000, 121, "", "", none, "the receiver reserves 20, the reconciler 1"),
            (1000, 120, "", "", &["ReceiverReservedConcurrency=19"], "the stack can reserve 20 of it"),
            (1000, 106, "", "", &["ReceiverReservedConcurrency=5"], "the stack can reserve 6 of it"),
            (1000, 105, "", "", &["ExclusiveRuns=false"], "no Lambda concurrency is reserved"),
            (1000, 100, "", "", &["ExclusiveRuns=false"], "no Lambda concurrency is reserved"),
            (1000, 90, "", "", &["ExclusiveRuns=false"], "no Lambda concurrency is reserved"),
            (50, 50, "", "", &["ExclusiveRuns=false"], "no Lambda concurrency is reserved"),
            (10, 10, "", "", &["ExclusiveRuns=false"], "this account's quota is 10"),
            (10, 10, "", "true", &["ExclusiveRuns=false"], "this account's quota is 10"),
            (10, 10, "", "false", none, "request a higher quota"),
            (1000, 1000, "", "false", none, "add --parameter ExclusiveRuns=true"),
            (1000, 1000, "50", "", none, "the receiver reserves 50, the reconciler 1"),
            (1000, 1000, "50", "false", none, "the receiver reserves 50, the reconciler 0"),
            (10, 10, "0", "false", none, "the receiver reserves 0, the reconciler 0"),
        ] {
            let decision = decided(quota, unreserved, receiver, exclusive_runs)?;
            assert_eq!(decision.parameters, parameters, "{quota} {unreserved} {receiver} {exclusive_runs}");
            assert!(decision.message.contains(message), "{message:?} is missing: {}", decision.message);
        }
        Ok(())
    }

    #[test]
    fn targets_are_reported_if_they_can_take_more_than_half_of_the_free_concurrency() {
        for (unreserved, targets, is_reported) in [(10, 2, false), (10, 3, true), (979, 244, false), (979, 245, true)] {
            let warning = Account { quota: 1000, unreserved }.warn_of_targets(targets);
            assert_eq!(warning.is_some(), is_reported, "{unreserved} {targets}");
        }
        let warning = Account { quota: 10, unreserved: 10 }.warn_of_targets(3);
        let expected = "3 targets can take 6 of the 10 concurrent executions that the account's functions share. If they are \
                        slow, other functions may be throttled, also the receiver unless it has a reservation. Fix: request a \
                        higher quota (Service Quotas, AWS Lambda, Concurrent executions), or send to fewer targets";
        assert_eq!(warning.as_deref(), Some(expected));
    }

    #[test]
    fn a_requested_reservation_that_does_not_fit_is_rejected() {
        for (quota, unreserved, receiver, exclusive_runs) in
            [(1000, 150, "50", ""), (1000, 149, "50", "false"), (10, 10, "1", "false"), (10, 10, "0", "true")]
        {
            let error = decided(quota, unreserved, receiver, exclusive_runs).expect_err("it does not fit").to_string();
            assert!(
                error.contains("the stack would reserve ") && error.contains(&format!("quota is {quota}")),
                "{error}"
            );
        }
    }
}
