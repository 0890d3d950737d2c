//! Lambda concurrency that a stack reserves, and how much of it the account has left.
//!
//! The receiver's reservation keeps a flood of its public URL from using up the account's concurrency, and the
//! reconciler's keeps runs apart. A new account can have a quota of 10 and then reserve nothing at all.

use anyhow::{Context, bail};

use crate::aws::Aws;

/// The receiver's reservation unless a parameter says otherwise, as the template has it.
const DEFAULT_RECEIVER: u32 = 20;

/// The least reservation of the receiver that is chosen for somebody: its URL then takes 50 requests a second.
const LEAST_RECEIVER: u32 = 5;

/// How much of its quota an account has to leave unreserved (AWS Lambda developer guide, "Configuring reserved
/// concurrency"). One with a smaller quota can reserve nothing.
const UNRESERVED: u32 = 100;

/// Concurrency of an account in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// How many executions the account may have at a time.
    quota: u32,
    /// How many of them no function but the stack's own has reserved.
    unreserved: u32,
}

/// What is done about the reservations of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Parameters to be set, as `NAME=VALUE`.
    pub parameters: Vec<String>,
    /// The same for people, with its reason.
    pub words: String,
}

impl Account {
    /// Looks at an account, and at what the stack's functions of these names have reserved. There may be none yet.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn look(aws: &Aws, functions: &[&str]) -> anyhow::Result<Self> {
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

    /// How much a stack can reserve.
    fn free(self) -> u32 {
        self.unreserved.saturating_sub(UNRESERVED.min(self.quota))
    }

    /// Decides what a stack reserves, by its parameters `ReceiverReservedConcurrency` and `ExclusiveRuns`. Empty ones
    /// are chosen by what fits.
    ///
    /// # Errors
    ///
    /// What the parameters say does not fit.
    pub fn decide(self, receiver: &str, exclusive_runs: &str) -> anyhow::Result<Decision> {
        let (Self { quota, .. }, free) = (self, self.free());
        let reconciler = u32::from(exclusive_runs != "false");
        // What is no number the template refuses.
        let asked = receiver.parse().ok();
        let receiver = asked.unwrap_or(DEFAULT_RECEIVER * reconciler);
        let needed = receiver.saturating_add(reconciler);
        let can = format!("this account's quota is {quota}, and the stack can reserve {free} of it");
        let keep = |words: String| Ok(Decision { parameters: Vec::new(), words });
        let choose = |parameter: String, words: String| Ok(Decision { parameters: vec![parameter], words });
        match asked {
            None if reconciler == 0 && free > DEFAULT_RECEIVER => keep(format!(
                "no Lambda concurrency is reserved (ExclusiveRuns=false), so that a flood of the receiver's URL can use up \
                 all that the account has; but {can}: add --parameter ExclusiveRuns=true"
            )),
            None if reconciler == 0 => keep(nothing_is_reserved(&can)),
            _ if needed <= free => keep(format!(
                "Lambda concurrency: the receiver reserves {receiver}, the reconciler {reconciler}; {can}"
            )),
            None if free > LEAST_RECEIVER => {
                let parameter = format!("ReceiverReservedConcurrency={}", free - reconciler);
                let words = format!("{can}, so {parameter} is chosen, and 1 for the reconciler");
                choose(parameter, words)
            }
            None => choose("ExclusiveRuns=false".to_owned(), nothing_is_reserved(&can)),
            Some(_) => bail!(
                "the stack would reserve {needed} of the account's Lambda concurrency: {receiver} for the receiver, \
                 {reconciler} for the reconciler. But {can}, since Lambda keeps {UNRESERVED} for functions without a \
                 reservation. Lower ReceiverReservedConcurrency, or set it to nothing and let this command choose; or ask for \
                 a higher quota (Service Quotas, AWS Lambda, Concurrent executions)"
            ),
        }
    }
}

fn nothing_is_reserved(can: &str) -> String {
    format!(
        "no Lambda concurrency is reserved (ExclusiveRuns=false), since {can}. A flood of the receiver's URL can use up all \
         that the account has, and two runs of the reconciler can overlap. Ask for a higher quota (Service Quotas, AWS \
         Lambda, Concurrent executions), then deploy with --parameter ExclusiveRuns=true"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(quota: u32, unreserved: u32, receiver: &str, exclusive_runs: &str) -> anyhow::Result<Decision> {
        Account { quota, unreserved }.decide(receiver, exclusive_runs)
    }

    #[test]
    fn what_is_reserved_follows_from_what_the_account_has_left() -> anyhow::Result<()> {
        let none: &[&str] = &[];
        for (quota, unreserved, receiver, exclusive_runs, parameters, words) in [
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
            (10, 10, "", "false", none, "Ask for a higher quota"),
            (1000, 1000, "", "false", none, "add --parameter ExclusiveRuns=true"),
            (1000, 1000, "50", "", none, "the receiver reserves 50, the reconciler 1"),
            (1000, 1000, "50", "false", none, "the receiver reserves 50, the reconciler 0"),
            (10, 10, "0", "false", none, "the receiver reserves 0, the reconciler 0"),
        ] {
            let decision = decided(quota, unreserved, receiver, exclusive_runs)?;
            assert_eq!(decision.parameters, parameters, "{quota} {unreserved} {receiver} {exclusive_runs}");
            assert!(decision.words.contains(words), "{words:?} is missing: {}", decision.words);
        }
        Ok(())
    }

    #[test]
    fn a_reservation_that_somebody_asked_for_and_that_does_not_fit_is_refused() {
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
