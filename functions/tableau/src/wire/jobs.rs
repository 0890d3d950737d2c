//! Background jobs in Tableau's JSON: the list, and one refresh in full.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;
use shared::refreshes::job::{EndedJob, Refresh, RefreshOutcome, RefreshedKind, RefreshedResource};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use crate::{
    body::Unreadable,
    wire::{
        list::{List, Pagination, identifier, number, read_pagination},
        notes::read_notes,
    },
};

/// The job types of extract refreshes, full and incremental.
pub(crate) const REFRESH_TYPES: [&str; 4] =
    ["refresh_extracts", "increment_extracts", "refresh_extracts_via_bridge", "increment_extracts_via_bridge"];

/// One page of a list of jobs.
#[derive(Debug)]
pub(crate) struct JobPage {
    pub(crate) rows: Vec<JobRow>,
    pub(crate) pagination: Option<Pagination>,
}

/// A row of a list of jobs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct JobRow {
    pub(crate) id: String,
    pub(crate) job: Result<Listed, Odd>,
}

/// A job as a list describes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// A refresh that ended.
    Ended(EndedJob),
    /// A refresh that has not ended.
    Running,
    /// A job of another type.
    Other,
}

/// The reason why no event can be made from a job. Quotes nothing of the job.
pub(crate) type Odd = &'static str;

/// Reads a page of the list.
pub(crate) fn read_jobs(answer: &Value) -> Result<JobPage, Unreadable> {
    let jobs = List {
        members: ["backgroundJobs", "backgroundJob"],
        other: "it is not a list of jobs",
        not_a_list: "its jobs are not a list",
    };
    Ok(JobPage { rows: jobs.read(answer, read_row)?, pagination: read_pagination(answer)? })
}

/// Reads a row of the list.
fn read_row(job: &Value) -> JobRow {
    let text = |member: &str| job[member].as_str().filter(|text| !text.is_empty());
    let Some(id) = identifier(&job["id"]) else {
        // A hash distinguishes the row from others, also when a page repeats it.
        let mut hasher = DefaultHasher::new();
        job.to_string().hash(&mut hasher);
        return JobRow { id: format!("unnamed-{:016x}", hasher.finish()), job: Err("its row has no identifier") };
    };
    let listed = || {
        if text("jobType").is_some_and(|kind| !REFRESH_TYPES.contains(&kind)) {
            return Ok(Listed::Other);
        }
        let status = text("status").ok_or("it has no status")?;
        let outcome = match status.to_ascii_lowercase().as_str() {
            "success" => RefreshOutcome::Succeeded,
            "failed" => RefreshOutcome::Failed,
            "cancelled" | "canceled" => RefreshOutcome::Cancelled,
            "inprogress" | "pending" => return Ok(Listed::Running),
            _ => return Err("it has a status that this release does not know"),
        };
        let started_at = text("startedAt").map(time_of).transpose()?;
        let ended_at = time_of(text("endedAt").or(text("completedAt")).ok_or("it does not say when it ended")?)?;
        let is_via_bridge = text("jobType").is_some_and(|kind| kind.ends_with("_via_bridge"));
        Ok(Listed::Ended(EndedJob { id: id.to_owned(), outcome, started_at, ended_at, is_via_bridge }))
    };
    JobRow { id: id.to_owned(), job: listed() }
}

/// Returns the size of a row in memory.
pub(crate) fn size_of_row(row: &JobRow) -> usize {
    size_of_val(row) + 2 * row.id.len()
}

/// Reads a time.
pub(crate) fn time_of(text: &str) -> Result<OffsetDateTime, Odd> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok();
    // Later conversions to UTC must not fail.
    time.and_then(|time| time.checked_to_offset(UtcOffset::UTC)).ok_or("it has a time that this release does not know")
}

/// Reads a refresh in full. `listed` is the job as the list describes it.
pub(crate) fn read_refresh(answer: &Value, listed: &EndedJob) -> Result<Refresh, Odd> {
    let job = answer["job"].as_object().ok_or("Tableau's answer holds no job")?;
    let code = job.get("finishCode").filter(|code| !code.is_null()).map(number);
    let fits = match (code, listed.outcome) {
        // Via Bridge, 0 says that the job was handed over, however it then ended.
        (None, _) | (Some(Some(0)), RefreshOutcome::Succeeded) => true,
        (Some(Some(0)), _) => listed.is_via_bridge,
        (Some(Some(1)), outcome) => outcome == RefreshOutcome::Failed,
        (Some(Some(2)), outcome) => outcome == RefreshOutcome::Cancelled,
        // Completed at Bridge; in an old sample cancelled.
        (Some(Some(3)), outcome) => outcome != RefreshOutcome::Failed,
        (Some(_), _) => return Err("it has a finish code that this release does not know"),
    };
    if !fits {
        return Err("its finish code contradicts its status");
    }
    let details = job.get("extractRefreshJob").unwrap_or(&Value::Null);
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let resource = |member: &str, kind| {
        let resource = &details[member];
        Some(RefreshedResource { kind, luid: text(&resource["id"])?, name: text(&resource["name"]) })
    };
    let datasource = resource("datasource", RefreshedKind::Datasource);
    let resource = match (datasource, resource("workbook", RefreshedKind::Workbook)) {
        (Some(resource), None) | (None, Some(resource)) => resource,
        (None, None) => return Err("it does not say what it refreshed"),
        (Some(_), Some(_)) => return Err("it says that it refreshed two things"),
    };
    let started_at = job.get("startedAt").and_then(text).map(|at| time_of(&at)).transpose()?;
    Ok(Refresh {
        job_id: listed.id.clone(),
        resource,
        started_at: started_at.or(listed.started_at),
        ended_at: listed.ended_at,
        outcome: listed.outcome,
        notes: read_notes(job, details),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::refreshes::state::MAX_ID_BYTES;

    use super::*;

    fn row(change: &Value) -> Value {
        let mut job = json!({ "id": "j1", "status": "Failed", "jobType": "refresh_extracts", "priority": "50",
            "createdAt": "2026-05-21T08:00:00Z", "startedAt": "2026-05-21T08:00:01Z", "endedAt": "2026-05-21T08:03:00Z" });
        for (member, value) in change.as_object().into_iter().flatten() {
            job[member] = value.clone();
        }
        job
    }

    fn ended(change: &Value) -> Result<Result<Listed, Odd>, Unreadable> {
        let page = read_jobs(&json!({ "backgroundJobs": { "backgroundJob": [row(change)] } }))?;
        page.rows.into_iter().next().map(|row| row.job).ok_or("none")
    }

    #[test]
    fn a_list_is_read_in_every_shape() {
        let ids = |answer: &Value| {
            let page = read_jobs(answer)?;
            Ok::<_, Unreadable>(page.rows.into_iter().map(|row| row.id).collect::<Vec<_>>())
        };
        for answer in [
            json!({ "backgroundJobs": {} }),
            json!({ "backgroundJobs": null }),
            json!({ "backgroundJobs": [] }),
            json!({ "backgroundJobs": { "backgroundJob": [] } }),
            json!({ "pagination": { "pageNumber": "1", "pageSize": "100", "totalAvailable": "0" } }),
        ] {
            assert_eq!(ids(&answer), Ok(vec![]), "{answer}");
        }
        for answer in [
            json!({ "backgroundJobs": { "backgroundJob": row(&json!({})) } }),
            json!({ "backgroundJobs": [row(&json!({}))] }),
        ] {
            assert_eq!(ids(&answer), Ok(vec!["j1".to_owned()]), "{answer}");
        }
        for answer in [
            json!([]),
            json!({ "error": {} }),
            json!({ "backgroundJobs": 1 }),
            json!({ "backgroundJobs": {}, "pagination": {} }),
        ] {
            assert!(ids(&answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn a_row_without_an_id_is_odd_and_spares_the_others() -> Result<(), Unreadable> {
        let without_id = |id: Value| row(&json!({ "id": id }));
        let too_long = "1".repeat(MAX_ID_BYTES + 1);
        for odd in [
            json!(null),
            json!(7),
            json!("j2"),
            json!(true),
            json!([]),
            json!({}),
            without_id(json!(null)),
            without_id(json!("")),
            without_id(json!(7)),
            without_id(json!({ "id": "j2" })),
            without_id(json!(too_long)),
            without_id(json!("\u{1}\u{2}")),
            without_id(json!("..")),
        ] {
            let jobs = [row(&json!({})), odd.clone(), row(&json!({ "id": "j3" }))];
            let page = read_jobs(&json!({ "backgroundJobs": { "backgroundJob": jobs } }))?;
            let [first, odd_row, last] = &page.rows[..] else { panic!("{odd}") };
            assert_eq!((&*first.id, &*last.id), ("j1", "j3"), "{odd}");
            assert!(odd_row.id.starts_with("unnamed-") && odd_row.job.is_err(), "{odd_row:?}");
        }
        Ok(())
    }

    #[test]
    fn a_row_is_an_ended_refresh_a_running_one_another_job_or_odd() {
        for (change, outcome) in [
            (json!({}), RefreshOutcome::Failed),
            (json!({ "status": "Success", "jobType": "increment_extracts" }), RefreshOutcome::Succeeded),
            (json!({ "status": "Cancelled", "jobType": null }), RefreshOutcome::Cancelled),
            (json!({ "jobType": "refresh_extracts_via_bridge" }), RefreshOutcome::Failed),
            (json!({ "status": "Success", "jobType": "increment_extracts_via_bridge" }), RefreshOutcome::Succeeded),
        ] {
            assert!(matches!(ended(&change), Ok(Ok(Listed::Ended(job))) if job.outcome == outcome), "{change}");
        }
        assert_eq!(ended(&json!({ "status": "InProgress", "endedAt": null })), Ok(Ok(Listed::Running)));
        assert_eq!(ended(&json!({ "jobType": "run_flow" })), Ok(Ok(Listed::Other)));
        for change in [
            json!({ "status": "Suspended" }),
            json!({ "status": null }),
            json!({ "endedAt": null }),
            json!({ "endedAt": "yesterday" }),
            json!({ "startedAt": "2026-13-01" }),
        ] {
            assert!(matches!(ended(&change), Ok(Err(_))), "{change}");
        }
    }

    #[test]
    fn a_refresh_is_read_in_full_and_an_ambiguous_one_is_odd() {
        let Ok(Ok(Listed::Ended(list_item))) = ended(&json!({})) else { panic!("no job") };
        let read = |change: &Value| {
            let mut job = json!({ "id": "j1", "mode": "Asynchronous", "type": "RefreshExtract", "finishCode": "1",
                "startedAt": "2026-05-21T08:00:01Z", "completedAt": "2026-05-21T08:03:00Z",
                "extractRefreshJob": { "workbook": { "id": "w1", "name": "Superstore" }, "notes": "Login failed." } });
            for (member, value) in change.as_object().into_iter().flatten() {
                job[member] = value.clone();
            }
            read_refresh(&json!({ "job": job }), &list_item)
        };
        let refresh = read(&json!({})).expect("a refresh");
        assert_eq!(refresh.resource.name.as_deref(), Some("Superstore"));
        assert_eq!((refresh.notes.is_some(), refresh.started_at), (true, list_item.started_at));
        let sparse =
            json!({ "finishCode": null, "startedAt": null, "extractRefreshJob": { "datasource": { "id": "d1" } } });
        let refresh = read(&sparse).expect("a refresh");
        assert_eq!((refresh.notes, refresh.started_at), (None, list_item.started_at));
        for change in [
            json!({ "finishCode": "4" }),
            json!({ "finishCode": "" }),
            json!({ "extractRefreshJob": null }),
            json!({ "extractRefreshJob": {} }),
            json!({ "extractRefreshJob": { "workbook": { "name": "without id" } } }),
            json!({ "extractRefreshJob": { "workbook": { "id": "w" }, "datasource": { "id": "d" } } }),
            json!({ "startedAt": "soon" }),
        ] {
            assert!(read(&change).is_err(), "{change}");
        }
        for answer in [json!({}), json!({ "job": null }), json!({ "job": [] }), json!([]), json!(null)] {
            assert_eq!(read_refresh(&answer, &list_item), Err("Tableau's answer holds no job"), "{answer}");
        }
    }

    #[test]
    fn a_finish_code_that_contradicts_the_status_is_odd() {
        let reads = |code: &Value, status: &str, kind: &str| {
            let Ok(Ok(Listed::Ended(job))) = ended(&json!({ "status": status, "jobType": kind })) else {
                panic!("no job")
            };
            let details = json!({ "workbook": { "id": "w1" } });
            read_refresh(&json!({ "job": { "finishCode": code, "extractRefreshJob": details } }), &job)
                .is_ok_and(|refresh| refresh.outcome == job.outcome)
        };
        for (code, fitting) in [
            (0, "Success"),
            (1, "Failed"),
            (2, "Cancelled"),
            // Completed at Bridge; in an old sample cancelled.
            (3, "Success Cancelled"),
            (4, ""),
        ] {
            for status in ["Success", "Failed", "Cancelled"] {
                let fits = fitting.contains(status);
                assert_eq!(reads(&json!(code), status, "refresh_extracts"), fits, "{code} {status}");
                assert_eq!(reads(&json!(code.to_string()), status, "refresh_extracts"), fits, "{code} {status}");
                // Via Bridge, 0 says that the job was handed over.
                let fits = fits || code == 0;
                assert_eq!(reads(&json!(code), status, "refresh_extracts_via_bridge"), fits, "{code} {status}");
            }
        }
    }
}
