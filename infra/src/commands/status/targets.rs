//! The part of the overview about targets.

use shared::alerts::phrasing::pluralize;

use super::{
    readings::Readings,
    row::{Part, named, part},
};
use crate::targets::TargetReading;

/// Returns what is wrong with the targets, and the line about them.
pub(super) fn part_of(Readings { targets, stack, .. }: &Readings) -> Part {
    let findings: Vec<_> = targets.iter().flat_map(|target| target.findings(&stack.name)).collect();
    if targets.is_empty() {
        return part("targets", findings, "none".to_owned());
    }
    let total = |count: fn(&TargetReading) -> u64| {
        usize::try_from(targets.iter().map(count).sum::<u64>()).unwrap_or(usize::MAX)
    };
    let (waiting, dead) = (total(|target| target.waiting), total(|target| target.dead_letters));
    let waiting = match waiting {
        0 => "nothing waiting".to_owned(),
        count => format!("{} waiting", pluralize(count, "message", "messages")),
    };
    let dead = if dead == 0 { String::new() } else { format!(", {}", pluralize(dead, "dead letter", "dead letters")) };
    let names = named(targets.iter().map(|target| &*target.name));
    part("targets", findings, format!("{}: {names}; {waiting}{dead}", targets.len()))
}

/// Whether a finding about a target has the same as an alarm.
pub(super) fn reports(Readings { targets, stack, .. }: &Readings, alarm: &str) -> bool {
    let mut dead = targets.iter().filter(|target| target.dead_letters > 0);
    dead.any(|target| alarm == format!("{}-target-{}-dead-letters", stack.name, target.name))
}
