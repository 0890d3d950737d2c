//! Extract refresh tasks in Tableau's JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shared::refreshes::{
    context::{RefreshTask, ResourceKey},
    job::RefreshedKind,
};

use crate::{
    body::Unreadable,
    wire::{
        jobs::time_of,
        list::{List, identifier, number},
    },
};

/// Reads the tasks of the wanted resources. A task that cannot be read is left out.
pub(crate) fn read_tasks(
    answer: &Value,
    wanted: &BTreeSet<ResourceKey>,
) -> Result<BTreeMap<ResourceKey, RefreshTask>, Unreadable> {
    let tasks =
        List { members: ["tasks", "task"], other: "it is not a list of tasks", not_a_list: "its tasks are not a list" };
    let mut read = BTreeMap::<_, RefreshTask>::new();
    for (resource, task) in tasks.read(answer, read_task)?.into_iter().flatten() {
        if wanted.contains(&resource) {
            let merged = read.get(&resource).map_or(task, |other| other.merged(task));
            read.insert(resource, merged);
        }
    }
    Ok(read)
}

/// Reads a task; `None` if it does not name one resource.
fn read_task(task: &Value) -> Option<(ResourceKey, RefreshTask)> {
    let refresh = &task["extractRefresh"];
    let luid = |kind: RefreshedKind| identifier(&refresh[kind.as_str()]["id"]).map(|luid| (kind, luid.to_owned()));
    let resource = match [RefreshedKind::Datasource, RefreshedKind::Workbook].map(luid) {
        [Some(resource), None] | [None, Some(resource)] => resource,
        [None, None] | [Some(_), Some(_)] => return None,
    };
    let schedule = &refresh["schedule"];
    let next_run_at = schedule["nextRunAt"].as_str().and_then(|at| time_of(at).ok());
    let failures = number(&refresh["consecutiveFailedCount"]).and_then(|count| count.try_into().ok());
    let is_suspended = schedule["state"].as_str().map(|state| state.eq_ignore_ascii_case("Suspended"));
    Some((resource, RefreshTask::new(next_run_at, failures, is_suspended)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    fn task(kind: &str, luid: &str, failures: &Value) -> Value {
        json!({ "extractRefresh": { "id": "t1", "priority": 50, "consecutiveFailedCount": failures,
            "type": "RefreshExtractTask", "schedule": { "frequency": "Daily", "nextRunAt": "2026-05-21T08:00:00Z",
            "frequencyDetails": {} }, kind: { "id": luid } } })
    }

    fn wanted() -> BTreeSet<ResourceKey> {
        [(RefreshedKind::Workbook, "w1"), (RefreshedKind::Datasource, "d1")]
            .map(|(kind, luid)| (kind, luid.to_owned()))
            .into()
    }

    /// Returns the read tasks as kind, identifier and failures.
    fn read(answer: &Value) -> Result<String, Unreadable> {
        let tasks = read_tasks(answer, &wanted())?;
        let shown = tasks.iter().map(|((kind, luid), task)| {
            format!(
                "{} {luid} {}",
                kind.as_str(),
                task.consecutive_failures.map_or("none".to_owned(), |it| it.to_string())
            )
        });
        Ok(shown.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn a_list_is_read_in_every_shape() {
        let one = task("workbook", "w1", &json!(2));
        for answer in
            [json!({ "tasks": { "task": [one] } }), json!({ "tasks": [one] }), json!({ "tasks": { "task": one } })]
        {
            assert_eq!(read(&answer).as_deref(), Ok("workbook w1 2"), "{answer}");
        }
        for answer in [json!({ "tasks": {} }), json!({ "tasks": [] }), json!({ "tasks": null }), json!({})] {
            assert_eq!(read(&answer).as_deref(), Ok(""), "{answer}");
        }
        for answer in [json!([]), json!(null), json!({ "error": {} }), json!({ "tasks": 1 })] {
            assert!(read(&answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn an_odd_or_other_task_spares_the_others() {
        let mut both = task("workbook", "w1", &json!(9));
        both["extractRefresh"]["datasource"] = json!({ "id": "d1" });
        let without_resource = json!({ "extractRefresh": { "consecutiveFailedCount": 9 } });
        let others =
            [task("workbook", "w2", &json!(9)), task("datasource", "w1", &json!(9)), task("flow", "w1", &json!(9))];
        let odd = [json!(null), json!(7), json!("w1"), json!([]), json!({}), json!({ "extractRefresh": null }), both];
        let own = [task("workbook", "w1", &json!("3")), task("datasource", "d1", &json!(null))];
        let tasks: Vec<_> = others.into_iter().chain(odd).chain([without_resource]).chain(own).collect();
        assert_eq!(read(&json!({ "tasks": { "task": tasks } })).as_deref(), Ok("datasource d1 none, workbook w1 3"));
    }

    #[test]
    fn a_task_is_read_with_the_members_that_it_has() {
        let at = Some(datetime!(2026-05-21 08:00 UTC));
        let read = |schedule: Value, failures: Value| {
            let mut task = task("workbook", "w1", &failures);
            task["extractRefresh"]["schedule"] = schedule;
            read_task(&task).map(|(_, task)| task)
        };
        let next = json!({ "nextRunAt": "2026-05-21T10:00:00+02:00" });
        for (schedule, failures, task) in [
            (next.clone(), json!(4), RefreshTask::new(at, Some(4), None)),
            (next.clone(), json!("5"), RefreshTask::new(None, Some(5), None)),
            (next.clone(), json!(-1), RefreshTask::new(at, None, None)),
            (next.clone(), json!("many"), RefreshTask::new(at, None, None)),
            (next.clone(), json!(5_000_000_000_u64), RefreshTask::new(at, None, None)),
            (json!({ "nextRunAt": "soon" }), json!(1), RefreshTask::new(None, Some(1), None)),
            (json!(null), json!(1), RefreshTask::new(None, Some(1), None)),
            (
                json!({ "state": "Suspended", "nextRunAt": "2026-05-21T08:00:00Z" }),
                json!(1),
                RefreshTask::new(None, Some(1), Some(true)),
            ),
            (json!({ "state": "Active" }), json!(null), RefreshTask::new(None, None, Some(false))),
        ] {
            assert_eq!(read(schedule.clone(), failures.clone()), Some(task), "{schedule} {failures}");
        }
    }

    #[test]
    fn several_tasks_of_a_resource_are_merged() -> Result<(), Unreadable> {
        let mut sooner = task("workbook", "w1", &json!(1));
        sooner["extractRefresh"]["schedule"]["nextRunAt"] = json!("2026-05-20T08:00:00Z");
        let tasks = read_tasks(&json!({ "tasks": [task("workbook", "w1", &json!(3)), sooner] }), &wanted())?;
        let merged = RefreshTask::new(Some(datetime!(2026-05-20 08:00 UTC)), Some(3), None);
        assert_eq!(tasks.values().copied().collect::<Vec<_>>(), [merged]);
        Ok(())
    }
}
