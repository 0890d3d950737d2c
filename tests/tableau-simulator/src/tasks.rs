//! The REST API of extract refresh tasks: when each refresh runs next, and how often in a row it failed.

use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};

use crate::{
    content::{Content, body, odd_answer},
    jobs::format_time,
    model::{RefreshKind, Site},
    refusal::{NO_SUCH_PATH, Refusal},
    rest::{Reply, write_list},
};

/// Lists all tasks. Tableau has neither a filter nor pages here.
pub(crate) fn list(site: &Site, query: &str) -> Result<Reply, Refusal> {
    let oddities = &site.oddities.content;
    if let Some(detail) = oddities.tasks {
        return odd_answer(detail, "tasks", NO_SUCH_PATH);
    }
    if !query.is_empty() {
        return Err(Refusal::new(400, 400_000, "Bad Request", "The query has a parameter that is not known."));
    }
    let others = (0..oddities.other_tasks).map(|number| {
        let name = format!("Other {number}");
        write(site, &site.new_content(RefreshKind::Workbook, &name, &format!("00000000-0000-4000-8000-{number:012}")))
    });
    let content = site.content();
    let own = content.iter().map(|content| write(site, content));
    let mut tasks: Vec<_> = oddities.odd_tasks.iter().cloned().chain(others).chain(own).collect();
    if oddities.counts_as_text {
        for count in tasks.iter_mut().filter_map(|task| task.pointer_mut("/extractRefresh/consecutiveFailedCount")) {
            *count = json!(count.to_string());
        }
    }
    let mut answer = Map::new();
    if oddities.bare_list {
        answer.insert("tasks".to_owned(), json!(tasks));
    } else {
        write_list(&mut answer, ["tasks", "task"], tasks, &site.oddities);
    }
    Ok(body(Value::Object(answer), oddities))
}

/// Returns when a task runs next, once a day after the last time. A schedule does not know which of its tasks are suspended.
pub(crate) fn next_run(site: &Site, content: &Content) -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    let last = site.jobs_of(content).last().map_or(now, |job| job.started_at);
    let days = ((now - last).whole_days() + 1).max(1);
    last.saturating_add(Duration::days(days))
}

fn write(site: &Site, content: &Content) -> Value {
    let oddities = &site.oddities.content;
    let clock = Duration::seconds(site.oddities.jobs.clock_offset_seconds);
    let next_run_at = format_time(next_run(site, content), clock);
    let schedule = if oddities.on_server {
        let state = if oddities.schedule_suspended { "Suspended" } else { "Active" };
        json!({ "id": site.catalog.project.id, "name": "Every night", "state": state, "priority": 50, "type": "Extract",
            "frequency": "Daily", "nextRunAt": next_run_at })
    } else {
        json!({ "frequency": "Daily", "nextRunAt": next_run_at, "frequencyDetails": {
            "start": "04:00:00", "intervals": { "interval": [{ "hours": "24" }, { "weekDay": "Monday" }] } } })
    };
    let member = match content.kind {
        RefreshKind::Datasource => "datasource",
        RefreshKind::Workbook => "workbook",
    };
    json!({ "extractRefresh": {
        "id": format!("task-of-{}", content.luid),
        "priority": 50,
        "consecutiveFailedCount": site.failures_in_a_row(content),
        "type": "RefreshExtractTask",
        "schedule": schedule,
        member: { "id": content.luid },
    } })
}
