//! The REST API of jobs: which extract refreshes ran, how they ended, and why they failed.

use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use url::form_urlencoded;

use crate::{
    content::odd_answer,
    model::{Job, JobOddities, NotesShape, OddRow, RefreshKind, RefreshOutcome, Site},
    refusal::Refusal,
    rest::{Reply, write_list},
};

/// The default and the greatest number of jobs on a page.
const PAGE_SIZE: usize = 100;
const MAX_PAGE_SIZE: usize = 1000;

/// The values of a job's status that the filter knows.
const STATUSES: [&str; 5] = ["Success", "Failed", "InProgress", "Pending", "Cancelled"];

/// The types of jobs that the filter knows.
const TYPES: [&str; 6] = [
    "refresh_extracts",
    "increment_extracts",
    "refresh_extracts_via_bridge",
    "increment_extracts_via_bridge",
    "run_flow",
    "subscription",
];

const INVALID_PAGE_NUMBER: Refusal =
    Refusal::new(400, 400_006, "Bad Request", "The page number is not a number, less than 1, or beyond the last page.");
const INVALID_PAGE_SIZE: Refusal =
    Refusal::new(400, 400_007, "Bad Request", "The page size is not a number, less than 1, or more than 1000.");
const INVALID_QUERY: Refusal =
    Refusal::new(400, 400_000, "Bad Request", "The query has a parameter that is not known, or has it twice.");
const INVALID_FILTER: Refusal =
    Refusal::new(400, 400_000, "Bad Request", "The filter expression is malformed, or filters by an unknown field.");
const NO_SUCH_JOB: Refusal = Refusal::new(404, 404_031, "Resource Not Found", "The job could not be found.");

/// Lists the jobs that a filter lets through, the newest first.
pub(crate) fn list(site: &Site, query: &str) -> Result<Reply, Refusal> {
    let mut parameters = Map::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let is_known = ["filter", "pageSize", "pageNumber"].contains(&&*name);
        if !is_known || parameters.insert(name.into_owned(), json!(value)).is_some() {
            return Err(INVALID_QUERY);
        }
    }
    let number = |name: &str, default, refusal: Refusal| match parameters.get(name).and_then(Value::as_str) {
        None => Ok(default),
        Some(text) => text.parse().ok().filter(|number| *number > 0).ok_or(refusal),
    };
    let asked = number("pageSize", PAGE_SIZE, INVALID_PAGE_SIZE)?;
    if asked > MAX_PAGE_SIZE {
        return Err(INVALID_PAGE_SIZE);
    }
    let size = site.oddities.page_size.unwrap_or(asked).min(asked);
    let page = number("pageNumber", 1, INVALID_PAGE_NUMBER)?;
    let conditions = match parameters.get("filter").and_then(Value::as_str) {
        None => Vec::new(),
        Some(filter) => read_filter(filter).ok_or(INVALID_FILTER)?,
    };
    let clock = Duration::seconds(site.oddities.jobs.clock_offset_seconds);
    let is_let_through = |job: &&Job| conditions.iter().all(|condition| condition.lets_through(job, clock));
    let listed = site.jobs.iter().filter(|job| is_listed(site, job));
    let mut jobs: Vec<_> = listed.filter(is_let_through).collect();
    jobs.sort_by_key(|job| std::cmp::Reverse(job.started_at));
    let total = jobs.len();
    if page > total.div_ceil(size).max(1) && !site.oddities.jobs.pages_go_on {
        return Err(INVALID_PAGE_NUMBER);
    }
    let is_missing = site.oddities.last_page_missing && page * size >= total;
    let jobs = jobs.into_iter().skip((page - 1) * size).take(if is_missing { 0 } else { size });
    let items = jobs.map(|job| list_item(job, &site.oddities.jobs.of(job), clock)).collect();
    let available = total + site.oddities.jobs.not_listed;
    let pagination = json!({
        "pageNumber": page.to_string(), "pageSize": size.to_string(), "totalAvailable": available.to_string(),
    });
    let mut answer = Map::from_iter([("pagination".to_owned(), pagination)]);
    write_list(&mut answer, ["backgroundJobs", "backgroundJob"], items, &site.oddities);
    Ok(Reply::Body(200, Value::Object(answer)))
}

/// Whether a job is listed yet.
fn is_listed(site: &Site, job: &Job) -> bool {
    let late = site.listed_late.get(&job.id).copied().unwrap_or_default();
    OffsetDateTime::now_utc() >= job.ended_at.saturating_add(Duration::seconds(late.into()))
}

/// Returns a job.
pub(crate) fn get(site: &Site, id: &str) -> Result<Reply, Refusal> {
    let job = site.jobs.iter().find(|job| job.id == id).ok_or(NO_SUCH_JOB)?;
    let JobOddities {
        without_resource, finish_code, job_type, without_end, clock_offset_seconds, detail, notes, ..
    } = site.oddities.jobs.of(job);
    if let Some(detail) = detail {
        return odd_answer(detail, "job", NO_SUCH_JOB);
    }
    let at = |at: OffsetDateTime| format_time(at, Duration::seconds(clock_offset_seconds));
    let mut refresh = Map::new();
    if !without_resource {
        let kind = match job.kind {
            RefreshKind::Datasource => "datasource",
            RefreshKind::Workbook => "workbook",
        };
        refresh.insert(kind.to_owned(), json!({ "id": job.luid, "name": job.name }));
    }
    let mut beside = Map::new();
    if let Some(reason) = &job.notes {
        let (member, value) = write_notes(reason, notes);
        let is_within = matches!(notes, NotesShape::Text | NotesShape::List);
        if is_within { &mut refresh } else { &mut beside }.insert(member.to_owned(), value);
    }
    let code = match job.outcome {
        // 0 would mean that a refresh via Bridge was handed over.
        RefreshOutcome::Succeeded if job.is_via_bridge => "3",
        RefreshOutcome::Succeeded => "0",
        RefreshOutcome::Failed => "1",
        RefreshOutcome::Cancelled => "2",
    };
    let mut answer = json!({
        "id": job.id,
        "mode": "Asynchronous",
        "type": job_type.as_deref().unwrap_or("RefreshExtract"),
        "progress": "100",
        "createdAt": at(job.started_at),
        "startedAt": at(job.started_at),
        "finishCode": finish_code.as_deref().unwrap_or(code),
        "extractRefreshJob": refresh,
    });
    if !without_end {
        answer["completedAt"] = json!(at(job.ended_at));
    }
    answer.as_object_mut().into_iter().for_each(|answer| answer.append(&mut beside));
    Ok(Reply::Body(200, json!({ "job": answer })))
}

/// Returns the notes of a job with the name of their member.
fn write_notes(reason: &str, shape: NotesShape) -> (&'static str, Value) {
    let note = json!({ "type": "message", "value": "", "text": reason });
    match shape {
        NotesShape::Text | NotesShape::Beside => ("notes", json!(reason)),
        NotesShape::List => ("notes", json!([reason])),
        NotesShape::StatusNotes => {
            let other = json!({ "type": "errorCode", "value": "1" });
            ("statusNotes", json!({ "statusNote": [other, note] }))
        }
        NotesShape::LoneStatusNote => ("statusNotes", json!({ "statusNote": note })),
        NotesShape::StatusValue => ("statusNotes", json!({ "statusNote": [{ "type": "message", "value": reason }] })),
    }
}

fn list_item(job: &Job, oddities: &JobOddities, clock: Duration) -> Value {
    match oddities.row {
        None | Some(OddRow::WithoutId) => {}
        Some(OddRow::Null) => return Value::Null,
        Some(OddRow::Number) => return json!(7),
        Some(OddRow::Text) => return json!(job.id),
    }
    let mut item = json!({
        "id": job.id,
        "status": status(job),
        "jobType": oddities.job_type.as_deref().unwrap_or(job_type(job)),
        "priority": "50",
        "createdAt": format_time(job.started_at, clock),
        "startedAt": format_time(job.started_at, clock),
        "title": job.name,
    });
    if !oddities.without_end {
        item["endedAt"] = json!(format_time(job.ended_at, clock));
    }
    if oddities.row.is_some() {
        // Also without the times, which tests move into the past.
        for member in ["id", "createdAt", "startedAt", "endedAt"] {
            item.as_object_mut().map(|item| item.remove(member));
        }
    }
    item
}

fn status(job: &Job) -> &'static str {
    match job.outcome {
        RefreshOutcome::Succeeded => "Success",
        RefreshOutcome::Failed => "Failed",
        RefreshOutcome::Cancelled => "Cancelled",
    }
}

fn job_type(job: &Job) -> &'static str {
    match (job.is_incremental, job.is_via_bridge) {
        (false, false) => "refresh_extracts",
        (true, false) => "increment_extracts",
        (false, true) => "refresh_extracts_via_bridge",
        (true, true) => "increment_extracts_via_bridge",
    }
}

/// Formats a time by the server's clock, to the second.
pub(crate) fn format_time(at: OffsetDateTime, clock: Duration) -> String {
    by_server_clock(at, clock).format(&Rfc3339).unwrap_or_default()
}

fn by_server_clock(at: OffsetDateTime, clock: Duration) -> OffsetDateTime {
    at.saturating_add(clock).to_offset(UtcOffset::UTC).truncate_to_second()
}

/// One part of a filter.
enum Condition {
    Type(Vec<String>),
    Status(String),
    Time { field: TimeField, operator: Operator, at: OffsetDateTime },
}

enum TimeField {
    Created,
    Started,
    Completed,
}

enum Operator {
    Eq,
    Gt,
    Gte,
    Lt,
    Lte,
}

/// Reads `field:operator:value,…`. A comma within brackets belongs to a value.
fn read_filter(filter: &str) -> Option<Vec<Condition>> {
    let mut is_within = false;
    let is_comma = |character| {
        match character {
            '[' => is_within = true,
            ']' => is_within = false,
            _ => {}
        }
        character == ',' && !is_within
    };
    filter.split(is_comma).map(read_condition).collect()
}

fn read_condition(text: &str) -> Option<Condition> {
    let [field, operator, value] = text.splitn(3, ':').collect::<Vec<_>>().try_into().ok()?;
    let is_type = |word: &&str| TYPES.contains(word);
    let field = match (field, operator) {
        ("jobType", "eq") => return Some(Condition::Type(vec![Some(value).filter(is_type)?.to_owned()])),
        ("jobType", "in") => {
            let words = value.strip_prefix('[')?.strip_suffix(']')?.split(',');
            let words = words.map(|word| Some(word).filter(is_type).map(str::to_owned));
            return words.collect::<Option<_>>().map(Condition::Type);
        }
        ("status", "eq") => return STATUSES.contains(&value).then(|| Condition::Status(value.to_owned())),
        ("createdAt", _) => TimeField::Created,
        ("startedAt", _) => TimeField::Started,
        ("completedAt", _) => TimeField::Completed,
        _ => return None,
    };
    let operator = match operator {
        "eq" => Operator::Eq,
        "gt" => Operator::Gt,
        "gte" => Operator::Gte,
        "lt" => Operator::Lt,
        "lte" => Operator::Lte,
        _ => return None,
    };
    Some(Condition::Time { field, operator, at: OffsetDateTime::parse(value, &Rfc3339).ok()? })
}

impl Condition {
    fn lets_through(&self, job: &Job, clock: Duration) -> bool {
        match self {
            Self::Type(types) => types.iter().any(|name| name == job_type(job)),
            Self::Status(name) => name == status(job),
            Self::Time { field, operator, at } => {
                let own = match field {
                    // The simulator's refreshes never wait.
                    TimeField::Created | TimeField::Started => job.started_at,
                    TimeField::Completed => job.ended_at,
                };
                let own = by_server_clock(own, clock);
                match operator {
                    Operator::Eq => own == *at,
                    Operator::Gt => own > *at,
                    Operator::Gte => own >= *at,
                    Operator::Lt => own < *at,
                    Operator::Lte => own <= *at,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_filter_is_not_read() {
        for good in [
            "jobType:eq:refresh_extracts",
            "jobType:in:[refresh_extracts,increment_extracts],status:eq:Failed",
            "jobType:in:[increment_extracts_via_bridge]",
            "completedAt:gte:2026-05-21T08:00:00Z,completedAt:lt:2026-05-21T10:00:00+02:00,startedAt:eq:2026-05-21T08:00:00Z",
        ] {
            assert!(read_filter(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "status",
            "status:eq",
            "status:eq:failed",
            "status:gt:Failed",
            "jobType:in:refresh_extracts",
            "jobType:in:[]",
            "jobType:eq:RefreshExtract",
            "jobType:in:[refresh_extracts,refresh_extracts_via_tunnel]",
            "jobType:in:[refresh_extracts,]",
            "jobType:has:extracts",
            "endedAt:gte:2026-05-21T08:00:00Z",
            "completedAt:gte:yesterday",
            "completedAt:has:2026-05-21T08:00:00Z",
            "status:eq:Failed,",
            "status:eq:Failed&",
        ] {
            assert!(read_filter(bad).is_none(), "{bad}");
        }
    }
}
