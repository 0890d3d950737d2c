//! The targets of a stack with their queues, as read from AWS. None of it is a secret.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde_json::{Map, Value};
use shared::{
    alerts::phrasing::pluralize,
    sites::commands::infra,
    targets::{entry::TargetEntry, name::TargetName},
};
use time::{OffsetDateTime, serde::rfc3339};

use crate::{
    aws::{Aws, is_denied, shell_quoted},
    findings::Finding,
    log,
    stack::{Condition, Stack},
    target_entries::{self, DeclaredTarget, DeclaredTargets},
    target_messages::{Messages, Topic},
    target_stack::{self, Depth},
    terminal::{print_error, warning},
};

/// Targets that are read side by side. Each takes some processes of the AWS CLI.
const TARGETS_AT_ONCE: usize = 2;

/// How far back to look for errors first: the longest time between two attempts, and some minutes.
const RECENT: Duration = Duration::from_secs(70 * 60);

/// How far back to look for the errors of targets with undelivered messages.
const LOOKBACK: Duration = Duration::from_secs(24 * 3600);

/// Lines of the forwarder's log about messages that were not delivered.
const FAILED: &str = r#"{ ($.outcome = "again") || ($.outcome = "dead letter") }"#;

/// A target.
#[derive(Debug)]
pub struct Target {
    /// Its name, which may be invalid.
    pub name: String,
    /// Its entry in SSM.
    pub declared: Option<DeclaredTarget>,
    /// Its stack.
    pub stack: Option<Stack>,
    /// Its messages.
    pub depth: Depth,
    /// Its newest error.
    pub last_error: Option<LastError>,
    /// Whether the main stack has the forwarder, which a release before targets lacks.
    pub has_forwarder: bool,
}

/// The newest attempt of a target that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// When it failed.
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
    /// The reason.
    pub error: String,
}

/// The state of a target, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetReading {
    /// Its name.
    pub name: String,
    /// Its preset, if its entry can be used.
    pub preset: Option<&'static str>,
    /// The messages that it gets.
    pub gets: Option<String>,
    /// Messages in its queue.
    pub waiting: u64,
    /// Messages that are not tried again.
    pub dead_letters: u64,
    /// Its newest error: of the last 70 minutes, or of a day if it has undelivered messages.
    pub last_error: Option<LastError>,
    /// When its entry was stored.
    pub stored: Option<String>,
    /// Why it gets nothing.
    pub problem: Option<String>,
    /// The fix of the problem.
    #[serde(skip)]
    pub fix: String,
}

/// Lists the names of all targets: of entries, and of stacks that are left without one. Some may be invalid.
///
/// # Errors
///
/// A command fails.
pub async fn names(aws: &Aws, stack: &str) -> anyhow::Result<BTreeSet<String>> {
    let path = target_entries::path(stack);
    let prefix = format!("{stack}-target-");
    let (entries, queues) = (
        ["ssm", "get-parameters-by-path", "--path", &path, "--query", "Parameters[].Name"],
        ["sqs", "list-queues", "--queue-name-prefix", &prefix, "--query", "QueueUrls"],
    );
    let (entries, queues) = tokio::join!(aws.json(&entries), aws.json(&queues));
    let queues = match queues {
        Err(error) if is_denied(&error) => {
            let text = "the queues could not be listed, so a target without an entry is not shown. Fix: give the deployer the \
                        newer policy, which infra/deployer-policy.json has";
            print_error(warning(text));
            Value::Null
        }
        queues => queues?,
    };
    let entries = entries?;
    let last = |value: &Value| Some(value.as_str()?.rsplit('/').next()?.to_owned());
    let mut names: BTreeSet<_> = entries.as_array().into_iter().flatten().filter_map(last).collect();
    let queues = queues.as_array().into_iter().flatten().filter_map(last);
    // The name of a dead-letter queue is not that of a target.
    let queues = queues.filter_map(|queue| queue.strip_prefix(&prefix)?.parse::<TargetName>().ok());
    for target in queues.filter(|target| !names.contains(target.as_str())).collect::<Vec<_>>() {
        // SQS lists a deleted queue for a minute, and a queue of somebody else may have such a name.
        if target_stack::exists(aws, stack, &target).await? {
            names.insert(target.to_string());
        }
    }
    Ok(names)
}

/// Reads the forwarder's lines about failed attempts since a time. `None` if it has no log, as in a release before targets.
async fn failed_lines(aws: &Aws, stack: &Stack, since: OffsetDateTime) -> anyhow::Result<Option<Value>> {
    log::lines_if_any(aws, &target_stack::forwarder(stack.name()), since, FAILED).await
}

/// Reads all targets, sorted by name.
///
/// # Errors
///
/// A command fails.
pub async fn read(aws: &Aws, stack: &Stack, now: OffsetDateTime) -> anyhow::Result<Vec<Target>> {
    let names = names(aws, stack.name()).await?;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let (declared, lines) =
        tokio::try_join!(DeclaredTargets::read(aws, stack), failed_lines(aws, stack, now - RECENT))?;
    let (mut declared, mut errors) = (declared.into_map(), last_errors(lines.as_ref()));
    let has_forwarder = lines.is_some();
    let targets = names.into_iter().map(|name| {
        let (declared, last_error) = (declared.remove(&name), errors.remove(&name));
        async move {
            let (found, depth) = match name.parse::<TargetName>() {
                Ok(target) => tokio::try_join!(
                    target_stack::find(aws, stack.name(), &target),
                    target_stack::depth(aws, stack.name(), &target)
                )?,
                Err(_) => (None, Depth::default()),
            };
            anyhow::Ok(Target { name, declared, stack: found, depth, last_error, has_forwarder })
        }
    });
    let mut targets: Vec<_> = stream::iter(targets).buffered(TARGETS_AT_ONCE).try_collect().await?;
    if targets.iter().any(Target::lacks_error) {
        // A target that does not work has many lines, which take long to read.
        let mut errors = last_errors(failed_lines(aws, stack, now - LOOKBACK).await?.as_ref());
        let lacking = targets.iter_mut().filter(|target| target.lacks_error());
        lacking.for_each(|target| target.last_error = errors.remove(&target.name));
    }
    Ok(targets)
}

/// Finds the newest error of each target. A local cloud returns other lines too.
fn last_errors(lines: Option<&Value>) -> BTreeMap<String, LastError> {
    let mut errors = BTreeMap::<String, LastError>::new();
    for (at, line) in lines.into_iter().flat_map(log::in_json) {
        let (Some(target), Some(error)) = (line["target"].as_str(), line["error"].as_str()) else { continue };
        if errors.get(target).is_none_or(|known| known.at <= at) {
            errors.insert(target.to_owned(), LastError { at, error: error.to_owned() });
        }
    }
    errors
}

impl Target {
    /// Whether it has undelivered messages, and no reason is known.
    fn lacks_error(&self) -> bool {
        self.last_error.is_none() && self.depth != Depth::default()
    }

    /// Returns its entry, if it can be used.
    pub fn entry(&self) -> Option<&TargetEntry> {
        self.declared.as_ref()?.entry.as_ref().ok()
    }

    /// Returns its topic and filter policy, if it has a stack.
    pub fn subscription(&self, stack: &Stack) -> Option<(Topic, Map<String, Value>)> {
        target_stack::subscription(stack, self.stack.as_ref()?)
    }

    /// Returns its state.
    pub fn reading(&self, stack: &Stack) -> TargetReading {
        let Self { name, declared, depth, last_error, .. } = self;
        let gets = self.subscription(stack).zip(self.entry());
        let (problem, fix) = self.problem(stack).unzip();
        TargetReading {
            name: name.clone(),
            preset: self.entry().map(|entry| entry.preset.as_str()),
            gets: gets.map(|((topic, policy), entry)| Messages::describe(topic, &policy, &entry.selection)),
            waiting: depth.waiting,
            dead_letters: depth.dead_letters,
            last_error: last_error.clone(),
            stored: declared.as_ref().map(|declared| declared.stored_at.clone()),
            problem,
            fix: fix.unwrap_or_default(),
        }
    }

    /// Returns why it gets nothing, and the fix.
    fn problem(&self, stack: &Stack) -> Option<(String, String)> {
        let (name, of_stack) = (&self.name, stack.name());
        let change = infra(&format!("add-target {name} --overwrite"), of_stack);
        let repair = || format!("{change}, or {}", infra(&format!("remove-target {name}"), of_stack));
        let problem = match (&self.declared, &self.stack) {
            (None, _) => "its entry is missing, so nothing is sent to it".to_owned(),
            (Some(DeclaredTarget { entry: Err(error), .. }), _) => {
                let parameter = target_entries::parameter(of_stack, name);
                let delete = || format!("aws ssm delete-parameter --name {}", shell_quoted(&parameter));
                // No command of ours takes such a name.
                let fix = if name.parse::<TargetName>().is_ok() { repair() } else { delete() };
                return Some((error.trim_end_matches('.').to_owned(), fix));
            }
            _ if !self.has_forwarder => {
                let what = format!("the stack {of_stack} has no forwarder, so nothing is sent to it");
                return Some((what, infra("deploy", of_stack)));
            }
            (_, None) => "its stack is missing, so it gets no messages".to_owned(),
            (_, Some(of_target)) => match of_target.condition() {
                Condition::Ready | Condition::Updating | Condition::RollbackFailed => {
                    let has_other = target_stack::has_other_topic(stack, of_target);
                    let what = "it subscribes to a topic that the stack does not have, so it gets no messages";
                    return has_other.then(|| (what.to_owned(), change));
                }
                Condition::Busy | Condition::Broken | Condition::Planned => {
                    format!("its stack is in the state {}, so it may get no messages", of_target.state())
                }
            },
        };
        Some((problem, repair()))
    }
}

impl TargetReading {
    /// Returns what is wrong with it in the stack called `stack`, or deserves a look.
    pub fn findings(&self, stack: &str) -> Vec<Finding> {
        let Self { name, waiting, dead_letters, last_error, problem, fix, .. } = self;
        let change = infra(&format!("add-target {name} --overwrite"), stack);
        let redrive = infra(&format!("redrive {name}"), stack);
        let error = last_error.as_ref().map(|last| format!(" The last error: {}.", last.error)).unwrap_or_default();
        let count = |count: u64| pluralize(count.try_into().unwrap_or(usize::MAX), "message", "messages");
        let mut findings = Vec::new();
        if let Some(problem) = problem {
            findings.push(Finding::wrong(format!("target {name}: {problem}."), fix));
        }
        if *dead_letters > 0 {
            let what = format!("target {name}: {} not delivered, and not tried again.{error}", count(*dead_letters));
            findings.push(Finding::wrong(what, format!("correct the target, such as with {change}; then {redrive}")));
        } else if *waiting > 0 && last_error.is_some() {
            let what = format!("target {name}: {} to be sent again, for a day at most.{error}", count(*waiting));
            findings.push(Finding::notable(what, format!("correct the target, such as with {change}")));
        }
        findings
    }
}

/// Returns the targets whose names are valid.
///
/// # Errors
///
/// A command fails.
pub async fn valid_names(aws: &Aws, stack: &str) -> anyhow::Result<Vec<TargetName>> {
    let names = names(aws, stack).await.context("the targets could not be listed")?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_error_of_each_target_is_found() {
        let line = |target: &str, error: Option<&str>| {
            json!({ "target": target, "outcome": "again", "error": error }).to_string()
        };
        let lines = json!([
            [2000, line("a", Some("the target answered 500"))],
            [3000, line("a", Some("the target answered 503"))],
            [4000, line("a", None)],
            [1000, line("b", Some("no answer in time"))],
            [5000, "START"],
        ]);
        let errors = last_errors(Some(&lines));
        let shown = |name: &str| errors.get(name).map(|error| (error.at.unix_timestamp(), error.error.as_str()));
        assert_eq!(shown("a"), Some((3, "the target answered 503")));
        assert_eq!(shown("b"), Some((1, "no answer in time")));
        assert_eq!(errors.len(), 2);
    }
}
