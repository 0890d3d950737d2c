//! Tableau's JSON: what is written and, in every shape it has been seen in, what is read.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use reqwest::header::HeaderValue;
use serde_json::{Map, Value, json};
use shared::{
    events::catalogue::Event,
    redaction::known_secrets::KnownSecrets,
    refreshes::{
        job::{EndedJob, Refresh, RefreshOutcome, RefreshedKind, RefreshedResource},
        notes::Notes,
        state::MAX_ID_BYTES,
    },
    registration::signed_url::RegistrationUrl,
    sites::webhook::{DesiredWebhook, ObservedWebhook, OddName, OddWebhook},
};
use time::{
    OffsetDateTime, UtcOffset,
    format_description::well_known::{Rfc2822, Rfc3339},
};

use crate::{ApiVersion, answer};

/// What the jobs of extract refreshes are called, full and incremental.
pub(crate) const REFRESHES: [&str; 4] =
    ["refresh_extracts", "increment_extracts", "refresh_extracts_via_bridge", "increment_extracts_via_bridge"];

/// The most notes of a job that are read, and the most bytes of each; more than is kept of them all.
const MAX_NOTES: usize = 100;
const MAX_NOTES_BYTES: usize = 16_000;

/// What an answer lacks, in words that repeat nothing of it.
pub(crate) type Unreadable = &'static str;

/// One page of a list of webhooks.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) webhooks: Vec<Result<ObservedWebhook, OddWebhook>>,
    pub(crate) pagination: Option<Pagination>,
}

/// One page of a list of jobs.
#[derive(Debug)]
pub(crate) struct JobPage {
    pub(crate) rows: Vec<Job>,
    pub(crate) pagination: Option<Pagination>,
}

/// A job of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) id: String,
    /// What is to be known of it, or what is odd about it.
    pub(crate) ended: Result<Listed, Odd>,
}

/// What a list says of a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// It is a refresh that has ended.
    Ended(EndedJob),
    /// It has not ended.
    Running,
    /// It is no refresh.
    Other,
}

/// What makes a job one that cannot be told of, in words that repeat nothing of it.
pub(crate) type Odd = &'static str;

/// Which page it is, of how many things in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pagination {
    pub(crate) number: usize,
    pub(crate) size: usize,
    pub(crate) total: usize,
}

/// What a session needs of the answer to a sign-in.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) site_id: String,
    /// The session token, as the header that carries it. Marked sensitive, so that nothing shows it.
    pub(crate) token: HeaderValue,
}

/// The body of a sign-in.
pub(crate) fn sign_in(token_name: &str, token_secret: &str, content_url: &str) -> Value {
    json!({ "credentials": {
        "personalAccessTokenName": token_name,
        "personalAccessTokenSecret": token_secret,
        "site": { "contentUrl": content_url },
    } })
}

/// The body of a create and of an update, which may leave nothing out.
pub(crate) fn webhook(desired: &DesiredWebhook) -> Value {
    let DesiredWebhook { name, event, url } = desired;
    json!({ "webhook": {
        "name": name,
        "event": event,
        "isEnabled": true,
        "webhook-destination": { "webhook-destination-http": { "method": "POST", "url": url.expose() } },
    } })
}

pub(crate) fn read_credentials(answer: &Value) -> Result<Credentials, Unreadable> {
    let credentials = &answer["credentials"];
    let site_id = credentials["site"]["id"].as_str().ok_or("it names no site id")?.to_owned();
    let token = credentials["token"].as_str().ok_or("it holds no session token")?;
    let token = HeaderValue::from_str(token).ok().filter(|token| token.to_str().is_ok());
    let mut token = token.ok_or("its session token cannot be a header")?;
    token.set_sensitive(true);
    Ok(Credentials { site_id, token })
}

pub(crate) fn read_page(answer: &Value) -> Result<Page, Unreadable> {
    let webhooks = List {
        members: ["webhooks", "webhook"],
        other: "it is no list of webhooks",
        not_a_list: "its webhooks are no list",
    };
    let read = |webhook: &Value| Ok(read_webhook(webhook));
    Ok(Page { webhooks: webhooks.read(answer, read)?, pagination: read_pagination(answer)? })
}

pub(crate) fn read_jobs(answer: &Value) -> Result<JobPage, Unreadable> {
    let jobs = List {
        members: ["backgroundJobs", "backgroundJob"],
        other: "it is no list of jobs",
        not_a_list: "its jobs are no list",
    };
    Ok(JobPage { rows: jobs.read(answer, |row| Ok(read_job(row)))?, pagination: read_pagination(answer)? })
}

/// How a list is called, and what to say of an answer that is none.
struct List {
    /// The list's member, and within that an item's.
    members: [&'static str; 2],
    other: Unreadable,
    not_a_list: Unreadable,
}

impl List {
    fn read<T>(self, answer: &Value, read: fn(&Value) -> Result<T, Unreadable>) -> Result<Vec<T>, Unreadable> {
        let [list, item] = self.members;
        let members = answer.as_object().ok_or("it is no JSON object")?;
        if members.keys().any(|member| ![list, "pagination"].contains(&member.as_str())) {
            return Err(self.other);
        }
        // Seen for a list of none: no member, null, an empty object, an empty list, or one of these one level down.
        let items = match &answer[list] {
            Value::Object(list) => list.get(item).unwrap_or(&Value::Null),
            list => list,
        };
        match items {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => items.iter().map(read).collect(),
            Value::Object(_) => Ok(vec![read(items)?]),
            _ => Err(self.not_a_list),
        }
    }
}

/// Reads a row of a list of jobs.
fn read_job(job: &Value) -> Job {
    let text = |member: &str| job[member].as_str().filter(|text| !text.is_empty());
    let is_short = |id: &&str| {
        id.len() <= MAX_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    let Some(id) = text("id").filter(is_short) else {
        // So that it can be told from others, and is named once.
        let mut hasher = DefaultHasher::new();
        job.to_string().hash(&mut hasher);
        return Job { id: format!("unnamed-{:016x}", hasher.finish()), ended: Err("its row has no identifier") };
    };
    let ended = || {
        // Which was not asked for.
        if text("jobType").is_some_and(|kind| !REFRESHES.contains(&kind)) {
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
    Job { id: id.to_owned(), ended: ended() }
}

fn time_of(text: &str) -> Result<OffsetDateTime, Odd> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok();
    // Who shows it or reckons with it must not find that it is none here.
    time.and_then(|time| time.checked_to_offset(UtcOffset::UTC)).ok_or("it has a time that is none")
}

/// Reads what a job says in full.
pub(crate) fn read_refresh(answer: &Value, listed: &EndedJob) -> Result<Refresh, Odd> {
    let job = answer["job"].as_object().ok_or("Tableau's answer holds no job")?;
    let code = job.get("finishCode").filter(|code| !code.is_null()).map(number);
    let fits = match (code, listed.outcome) {
        // 0 says of one via Bridge that it was handed over, however it then ended.
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

/// Reads the notes of a job in all places and shapes that they were seen in: as a text, a list of texts, or status notes,
/// within the refresh or beside it.
fn read_notes(job: &Map<String, Value>, details: &Value) -> Option<Notes> {
    let mut notes = Vec::new();
    for member in ["notes", "statusNotes"] {
        add_notes(&details[member], &mut notes);
        add_notes(job.get(member).unwrap_or(&Value::Null), &mut notes);
    }
    // Together, since a secret may go over several of them.
    Notes::redacted(&notes.join("\n"))
}

fn add_notes(value: &Value, notes: &mut Vec<String>) {
    let text = |value: &Value| match value {
        Value::String(text) => {
            let text = text.trim();
            (!text.is_empty()).then(|| text[..text.floor_char_boundary(MAX_NOTES_BYTES)].to_owned())
        }
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let note = match value {
        Value::Array(values) => return values.iter().take(MAX_NOTES).for_each(|value| add_notes(value, notes)),
        Value::Object(members) => match members.get("statusNote") {
            Some(list) => return add_notes(list, notes),
            // One has the reason as its text, another as the value of the type `message`.
            None => text(&value["text"]).or_else(|| {
                let told = text(&value["value"])?;
                Some(text(&value["type"]).map(|kind| format!("{kind}: {told}")).unwrap_or(told))
            }),
        },
        value => text(value),
    };
    notes.extend(note.filter(|note| notes.len() < MAX_NOTES && !notes.contains(note)));
}

fn read_pagination(answer: &Value) -> Result<Option<Pagination>, Unreadable> {
    let pagination = &answer["pagination"];
    if pagination.is_null() {
        return Ok(None);
    }
    let number = |member: &str| number(&pagination[member]).ok_or("its pagination has no numbers");
    Ok(Some(Pagination { number: number("pageNumber")?, size: number("pageSize")?, total: number("totalAvailable")? }))
}

/// Tableau writes numbers as texts.
fn number(value: &Value) -> Option<usize> {
    value.as_str().map_or_else(|| value.as_u64()?.try_into().ok(), |text| text.parse().ok())
}

/// One whose name or identifier is missing, or whose state is none that is known, is odd: whose it is decides what that
/// means.
fn read_webhook(webhook: &Value) -> Result<ObservedWebhook, OddWebhook> {
    let text = |member: &str| webhook[member].as_str().filter(|text| !text.is_empty()).map(within_bounds);
    let id = text("id").or_else(|| webhook["id"].as_i64().map(|id| id.to_string()));
    let url = webhook["webhook-destination"]["webhook-destination-http"]["url"].as_str();
    let url = url.map(|url| RegistrationUrl::observed(url.to_owned()));
    let odd = |name, what| Err(OddWebhook { name, id: id.clone(), url: url.clone(), what });
    let name = match &webhook["name"] {
        _ if !webhook.is_object() => return odd(OddName::Unreadable, "may be ours"),
        Value::Null => return odd(OddName::None, "leads to our receiver"),
        Value::String(name) if name.is_empty() => return odd(OddName::None, "leads to our receiver"),
        Value::String(name) => within_bounds(name),
        Value::Number(_) | Value::Bool(_) => return odd(OddName::Text(webhook["name"].to_string()), "has no name"),
        Value::Array(_) | Value::Object(_) => return odd(OddName::Unreadable, "may be ours"),
    };
    let Some(is_enabled) = read_switch(&webhook["isEnabled"]) else {
        return odd(OddName::Text(name), "is neither enabled nor disabled");
    };
    if id.is_none() {
        return odd(OddName::Text(name), "has no id");
    }
    let source = webhook["webhook-source"].as_object().and_then(|source| source.keys().next());
    let event = match text("event") {
        Some(name) => name.parse().ok(),
        None => source.and_then(|element| Event::from_source_element(element)),
    };
    // Tableau's reason may quote the address, which is a secret and would be shown to people.
    let without_address = |reason: String| match &url {
        Some(url) => KnownSecrets::of_address(url).redacted(&reason).into_owned(),
        None => reason,
    };
    let status_change_reason = text("statusChangeReason").map(without_address);
    let updated_at = text("updatedAt");
    Ok(ObservedWebhook { id: id.unwrap_or_default(), name, event, url, is_enabled, status_change_reason, updated_at })
}

/// The most characters of a webhook's member that are kept. Ours have fewer, and others' are only shown.
const WEBHOOK_CHARACTERS: usize = 500;

/// A text, cut off where it is longer than any of ours, with a mark that none of ours has.
fn within_bounds(text: &str) -> String {
    match text.char_indices().nth(WEBHOOK_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What a row of a list of webhooks takes in memory.
pub(crate) fn size_of_row(row: &Result<ObservedWebhook, OddWebhook>) -> usize {
    let length = |text: Option<&String>| text.map_or(0, String::len);
    let url = |url: &Option<RegistrationUrl>| url.as_ref().map_or(0, |url| url.expose().len());
    let texts = match row {
        Ok(ObservedWebhook { id, name, event, url: to, is_enabled: _, status_change_reason: reason, updated_at }) => {
            let event = event.as_ref().map_or(0, |event| event.as_str().len());
            id.len() + name.len() + event + url(to) + length(reason.as_ref()) + length(updated_at.as_ref())
        }
        Err(OddWebhook { name, id, url: to, what: _ }) => {
            let name = match name {
                OddName::Text(name) => name.len(),
                OddName::None | OddName::Unreadable => 0,
            };
            name + length(id.as_ref()) + url(to)
        }
    };
    size_of_val(row) + texts
}

/// Whether something is switched on, `None` if that cannot be told. Left out by the versions that cannot switch off.
fn read_switch(value: &Value) -> Option<bool> {
    match value {
        Value::Null => Some(true),
        Value::Bool(is_on) => Some(*is_on),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// The newest version of the API that a server speaks.
pub(crate) fn read_version(answer: &Value) -> Result<ApiVersion, Unreadable> {
    let version = answer["serverInfo"]["restApiVersion"].as_str().and_then(|version| version.split_once('.'));
    let numbers = version.and_then(|(major, minor)| Some(ApiVersion(major.parse().ok()?, minor.parse().ok()?)));
    numbers.ok_or("it names no version of the REST API")
}

/// How long Tableau asks to wait: by a header with seconds or a date, or in the text. `now` is the server's time.
pub(crate) fn read_retry_after(header: Option<&str>, now: OffsetDateTime, body: &[u8]) -> Option<Duration> {
    let header = header.unwrap_or_default().trim();
    // No number that a header can hold is to be more than the clock can.
    let seconds = || header.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()));
    let date = || {
        let wait = OffsetDateTime::parse(header, &Rfc2822).ok()? - now;
        // A date that is past is no reason to wait.
        Some(wait.try_into().unwrap_or_default())
    };
    let beginning = &body[..body.len().min(LONGEST_WORDS)];
    seconds().or_else(date).or_else(|| read_wait(&String::from_utf8_lossy(beginning)))
}

/// How far into an answer it is looked for a wait.
const LONGEST_WORDS: usize = 4096;

/// AlertContent before a time to wait, and words that may stand between them and it.
const WAITING: [&str; 5] = ["retry", "again", "wait", "after", "retryafter"];
const BETWEEN: [&str; 11] = ["in", "for", "at", "least", "about", "another", "the", "next", "until", "of", "minimum"];

/// How long to wait by a text: "retry after 29 minutes", "please try again in 30s", `"retryAfter": 5`.
fn read_wait(text: &str) -> Option<Duration> {
    let text = text.to_ascii_lowercase();
    let mut words = text.split(|it: char| !it.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut is_about_waiting = false;
    while let Some(word) = words.next() {
        if WAITING.contains(&word) {
            is_about_waiting = true;
            continue;
        }
        let digits = word.trim_end_matches(|it: char| it.is_ascii_alphabetic());
        let number = match word {
            "a" | "an" | "one" => Some(1),
            _ => digits.parse::<u32>().ok(),
        };
        match number.filter(|_| is_about_waiting) {
            Some(number) => {
                // The unit may follow at once, as in 30s, or be left out; and what follows may be the rest of a date.
                let unit = Some(&word[digits.len()..]).filter(|unit| !unit.is_empty() && !digits.is_empty());
                let unit = unit.or_else(|| words.clone().next()).unwrap_or_default();
                let is_left_out = !digits.is_empty() && !unit.starts_with(|it: char| it.is_ascii_digit());
                let seconds = seconds_in(unit).or_else(|| is_left_out.then_some(1));
                return seconds.map(|seconds| Duration::from_secs(seconds) * number);
            }
            None if BETWEEN.contains(&word) => {}
            None => is_about_waiting = false,
        }
    }
    None
}

fn seconds_in(unit: &str) -> Option<u64> {
    match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => Some(1),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some(3600),
        "d" | "day" | "days" => Some(86400),
        _ => None,
    }
}

/// The HTTP status that the destination of a test answered with, `None` if it did not answer.
pub(crate) fn read_test(answer: &Value) -> Result<Option<u16>, Unreadable> {
    let result = answer["webhookTestResult"].as_object().ok_or("it holds no test result")?;
    // One account spells it the other way.
    let status = result.get("status").or_else(|| result.get("statusCode")).unwrap_or(&Value::Null);
    Ok(number(status).and_then(|status| status.try_into().ok()))
}

/// How much of what an error says is shown.
pub(crate) const ERROR_CHARACTERS: usize = 200;

/// What Tableau says of an error: its code, if there is one, and a text for people.
///
/// The body should be JSON and may be XML, an HTML page of something in between, or empty.
pub(crate) fn read_error(body: &str, secrets: &KnownSecrets) -> (Option<String>, String) {
    // Before anything is cut off.
    let shown = |text: &str| one_line(&secrets.redacted(text));
    if let Ok(answer) = answer::parse(body.as_bytes())
        && let Some((code, error)) = find_error(&answer, ERROR_DEPTH)
    {
        let text = |member: &str| shown(error[member].as_str().unwrap_or_default());
        return (Some(code), format!("{}: {}", text("summary"), text("detail")));
    }
    let xml_code = body.split_once("<error code=").and_then(|(_, rest)| rest.get(1..)?.split_once(['"', '\'']));
    let code = xml_code.map(|(code, _)| code.to_owned()).filter(|code| is_code(code));
    // Enough to recognise a page by.
    let text = shown(body);
    (code, if text.is_empty() { "no explanation".to_owned() } else { text })
}

/// How deep an error is looked for in what is wrapped around it.
const ERROR_DEPTH: usize = 4;

/// Finds an error with a code, which may be a number.
fn find_error(answer: &Value, depth: usize) -> Option<(String, &Value)> {
    let depth = depth.checked_sub(1)?;
    let code = match &answer["code"] {
        Value::String(code) => Some(code.trim().to_owned()),
        Value::Number(code) => Some(code.to_string()),
        _ => None,
    };
    match (code.filter(|code| is_code(code)), answer) {
        (Some(code), _) => Some((code, answer)),
        (None, Value::Object(members)) => members.values().find_map(|member| find_error(member, depth)),
        (None, Value::Array(items)) => items.iter().find_map(|item| find_error(item, depth)),
        (None, _) => None,
    }
}

/// Tableau's codes have six digits; whatever has another form is a code of somebody else's.
fn is_code(code: &str) -> bool {
    code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit())
}

/// The beginning of a text, on one line.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        let space = if line.is_empty() { "" } else { " " };
        line.extend(space.chars().chain(word.chars()).take(ERROR_CHARACTERS));
        if line.chars().count() >= ERROR_CHARACTERS {
            break;
        }
    }
    line.chars().take(ERROR_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn names(answer: &Value) -> Result<Vec<String>, Unreadable> {
        Ok(read_page(answer)?.webhooks.into_iter().flatten().map(|webhook| webhook.name).collect())
    }

    fn error(body: &str) -> (Option<String>, String) {
        read_error(body, &KnownSecrets::default())
    }

    fn one(webhook: &Value) -> Result<ObservedWebhook, Unreadable> {
        let page = read_page(&json!({ "webhooks": { "webhook": [webhook] } }))?;
        page.webhooks.into_iter().flatten().next().ok_or("none")
    }

    #[test]
    fn a_list_of_none_is_read_in_every_shape() {
        for answer in [
            json!({ "webhooks": {} }),
            json!({ "webhooks": { "webhook": null } }),
            json!({ "webhooks": { "webhook": [] } }),
            json!({ "webhooks": null }),
            json!({ "webhooks": [] }),
            json!({}),
            json!({ "pagination": { "pageNumber": "1", "pageSize": "100", "totalAvailable": "0" } }),
        ] {
            assert_eq!(names(&answer), Ok(Vec::new()), "{answer}");
        }
    }

    #[test]
    fn a_lone_webhook_is_a_list_of_one() {
        let webhook = json!({ "id": "1", "name": "n" });
        for answer in [
            json!({ "webhooks": { "webhook": webhook } }),
            json!({ "webhooks": { "webhook": [webhook] } }),
            json!({ "webhooks": [webhook] }),
        ] {
            assert_eq!(names(&answer), Ok(vec!["n".to_owned()]), "{answer}");
        }
    }

    #[test]
    fn what_is_no_whole_list_is_not_taken_for_one() {
        for answer in [
            json!(null),
            json!([]),
            json!({ "error": { "code": "500000" } }),
            json!({ "webhooks": "none" }),
            json!({ "webhooks": { "webhook": 1 } }),
            json!({ "webhooks": {}, "pagination": { "pageNumber": "one" } }),
        ] {
            assert!(names(&answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn a_webhook_is_switched_on_or_off_or_odd() {
        for (value, is_enabled) in [
            (json!(null), Some(true)),
            (json!(true), Some(true)),
            (json!("true"), Some(true)),
            (json!("True"), Some(true)),
            (json!(1), Some(true)),
            (json!("1"), Some(true)),
            (json!(false), Some(false)),
            (json!("FALSE"), Some(false)),
            (json!(0), Some(false)),
            (json!("0"), Some(false)),
            (json!(""), None),
            (json!("perhaps"), None),
            (json!(2), None),
            (json!(1.5), None),
            (json!([true]), None),
            (json!({}), None),
        ] {
            let webhook = read_webhook(&json!({ "id": 7, "name": "n", "isEnabled": value }));
            match (webhook, is_enabled) {
                (Ok(webhook), Some(is_enabled)) => {
                    assert_eq!((webhook.id.as_str(), webhook.is_enabled), ("7", is_enabled), "{value}");
                }
                (Err(odd), None) => assert_eq!(odd.what, "is neither enabled nor disabled", "{value}"),
                (webhook, _) => panic!("{value}: {webhook:?}"),
            }
        }
    }

    #[test]
    fn a_webhook_is_read_in_its_old_and_its_new_shape() -> Result<(), Unreadable> {
        let created: Option<Event> = "WorkbookCreated".parse().ok();
        let new = one(&json!({ "id": "1", "name": "n", "event": "WorkbookCreated", "isEnabled": "true",
            "statusChangeReason": "" }))?;
        assert_eq!((new.event, new.is_enabled, new.status_change_reason), (created.clone(), true, None));
        let old = one(&json!({ "id": "1", "name": "n",
            "webhook-source": { "webhook-source-event-workbook-created": {} } }))?;
        assert_eq!((old.event, old.is_enabled), (created, true));
        Ok(())
    }

    /// A job of a list, with a change.
    fn listed(change: &Value) -> Value {
        let mut job = json!({ "id": "j1", "status": "Failed", "jobType": "refresh_extracts", "priority": "50",
            "createdAt": "2026-05-21T08:00:00Z", "startedAt": "2026-05-21T08:00:01Z", "endedAt": "2026-05-21T08:03:00Z" });
        for (member, value) in change.as_object().into_iter().flatten() {
            job[member] = value.clone();
        }
        job
    }

    fn ended(change: &Value) -> Result<Result<Listed, Odd>, Unreadable> {
        let page = read_jobs(&json!({ "backgroundJobs": { "backgroundJob": [listed(change)] } }))?;
        page.rows.into_iter().next().map(|job| job.ended).ok_or("none")
    }

    #[test]
    fn a_list_of_jobs_is_read_in_every_shape_and_nothing_else_is_taken_for_one() {
        let ids = |answer: &Value| {
            let page = read_jobs(answer)?;
            Ok::<_, Unreadable>(page.rows.into_iter().map(|job| job.id).collect::<Vec<_>>())
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
            json!({ "backgroundJobs": { "backgroundJob": listed(&json!({})) } }),
            json!({ "backgroundJobs": [listed(&json!({}))] }),
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
    fn a_row_without_an_id_is_one_and_leaves_the_others_as_they_are() -> Result<(), Unreadable> {
        let without_id = |id: Value| listed(&json!({ "id": id }));
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
        ] {
            let jobs = [listed(&json!({})), odd.clone(), listed(&json!({ "id": "j3" }))];
            let page = read_jobs(&json!({ "backgroundJobs": { "backgroundJob": jobs } }))?;
            let [first, odd_row, last] = &page.rows[..] else { panic!("{odd}") };
            assert_eq!((&*first.id, &*last.id), ("j1", "j3"), "{odd}");
            assert!(odd_row.id.starts_with("unnamed-") && odd_row.ended.is_err(), "{odd_row:?}");
        }
        Ok(())
    }

    #[test]
    fn of_jobs_only_refreshes_that_ended_are_told_and_what_is_odd_is_named() {
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
    fn a_job_is_read_in_full_and_one_that_leaves_doubt_is_odd() {
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
    fn a_finish_code_fits_the_status_or_the_job_is_odd() {
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
                // 0 says of one via Bridge that it was handed over.
                let fits = fits || code == 0;
                assert_eq!(reads(&json!(code), status, "refresh_extracts_via_bridge"), fits, "{code} {status}");
            }
        }
    }

    /// The notes of a job that has these members, of which `notes` and `statusNotes` are also tried within the refresh.
    fn notes(members: &Value) -> [Option<String>; 2] {
        let Value::Object(beside) = members else { panic!("no members") };
        let within = read_notes(&Map::new(), members);
        [read_notes(beside, &Value::Null), within].map(|notes| notes.map(|notes| notes.as_str().to_owned()))
    }

    #[test]
    fn notes_are_found_in_every_place_and_shape() {
        for (members, found) in [
            (json!({ "notes": "Login failed." }), "Login failed."),
            (json!({ "notes": ["Login failed."] }), "Login failed."),
            (json!({ "notes": ["Login failed.", "", null, "At db.", "At db."] }), "Login failed.\nAt db."),
            (json!({ "notes": [{ "text": "Login failed." }] }), "Login failed."),
            (
                json!({ "statusNotes": { "statusNote": [{ "type": "a", "value": "b", "text": "Login failed." }] } }),
                "Login failed.",
            ),
            (
                json!({ "statusNotes": { "statusNote": { "type": "a", "value": "b", "text": "Login failed." } } }),
                "Login failed.",
            ),
            (json!({ "statusNotes": [{ "text": "Login failed." }, { "text": "At db." }] }), "Login failed.\nAt db."),
            (
                json!({ "statusNotes": { "statusNote": [{ "type": "errorCode", "value": 1 },
                    { "type": "message", "value": "Login failed." }] } }),
                "errorCode: 1\nmessage: Login failed.",
            ),
            (
                json!({ "notes": "Login failed.", "statusNotes": { "statusNote": { "text": "At db." } } }),
                "Login failed.\nAt db.",
            ),
            (
                json!({ "notes": "Login failed.", "statusNotes": { "statusNote": { "text": "Login failed." } } }),
                "Login failed.",
            ),
        ] {
            assert_eq!(notes(&members), [Some(found.to_owned()), Some(found.to_owned())], "{members}");
        }
        for members in [
            json!({}),
            json!({ "notes": null, "statusNotes": {} }),
            json!({ "notes": [" ", [], {}, true], "statusNotes": { "statusNote": null } }),
            json!({ "statusNotes": { "statusNote": [{ "type": "line" }] } }),
        ] {
            assert_eq!(notes(&members), [None, None], "{members}");
        }
    }

    #[test]
    fn no_secret_passes_and_no_flood_whatever_the_shape_of_the_notes() {
        let secret = "Zx9kQ2";
        for members in [
            json!({ "notes": format!("server=db;Pwd={secret};") }),
            json!({ "notes": ["Login failed.", format!("server=db;Pwd={secret};")] }),
            json!({ "notes": ["-----BEGIN PRIVATE KEY-----", secret, "-----END PRIVATE KEY-----"] }),
            json!({ "statusNotes": { "statusNote": { "type": "password", "value": secret } } }),
            json!({ "statusNotes": { "statusNote": [{ "text": format!("Authorization: Bearer {secret}") }] } }),
        ] {
            let found = notes(&members);
            assert!(found.iter().flatten().all(|text| !text.contains(secret)), "{members}: {found:?}");
            assert!(found.iter().all(Option::is_some), "{members}");
        }
        for flood in [
            json!("é".repeat(1_000_000)),
            json!(vec!["note"; 1_000_000]),
            json!((0..200_000).map(|number| format!("note {number}")).collect::<Vec<_>>()),
            json!(vec!["é".repeat(10_000); 200]),
        ] {
            for members in [json!({ "notes": flood }), json!({ "statusNotes": { "statusNote": flood } })] {
                let longest = notes(&members).iter().flatten().map(|text| text.chars().count()).max();
                assert!(longest.is_some_and(|characters| characters <= 4000), "{longest:?}");
            }
        }
    }

    #[test]
    fn a_reason_that_quotes_the_address_does_not_show_it() -> Result<(), Unreadable> {
        let webhook = one(&json!({ "id": "1", "name": "n", "isEnabled": false,
            "statusChangeReason": "4 attempts at https://receiver.example/hooks/a/B/c failed",
            "webhook-destination": { "webhook-destination-http": { "url": "https://receiver.example/hooks/a/B/c" } } }))?;
        assert_eq!(
            webhook.status_change_reason.as_deref(),
            Some("4 attempts at https://receiver.example[redacted] failed")
        );
        Ok(())
    }

    #[test]
    fn versions_are_compared_as_numbers_and_waits_are_found_in_texts() {
        let version = |text: &str| read_version(&json!({ "serverInfo": { "restApiVersion": text } })).ok();
        assert!(version("3.10") > version("3.9") && version("4.0") > version("3.27"));
        assert_eq!((version("3"), version("3.x"), read_version(&Value::Null).ok()), (None, None, None));
        for (text, seconds) in [
            ("Too many requests, retry after 29 minutes.", Some(29 * 60)),
            ("retry after 1 second", Some(1)),
            ("retry after 2 hours", Some(7200)),
            ("Retry After 30s.", Some(30)),
            ("RETRY-AFTER: 5", Some(5)),
            (r#"{"error":{"retryAfter":7,"code":"429000"}}"#, Some(7)),
            ("Limit of 100 requests in 60 seconds reached. Please try again in about 5 minutes.", Some(300)),
            ("You must wait at least 12 sec before another call", Some(12)),
            ("Wait an hour", Some(3600)),
            ("try again in one minute", Some(60)),
            ("retry after 3 days", Some(3 * 86400)),
            ("retry after 4294967295 days", Some(4_294_967_295 * 86400)),
            ("retry after 99999999999 seconds", None),
            ("retry after 2026-05-21T08:00:00Z", None),
            ("retry after a while", None),
            ("retry later, code 429000", None),
            ("429000: Too Many Requests", None),
            ("after all, wait", None),
            ("", None),
        ] {
            assert_eq!(read_wait(text), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_wait_is_read_from_the_header_first_and_as_a_date_by_the_servers_clock() {
        let now = datetime!(2026-05-21 08:00:00 UTC);
        let text = b"retry after 29 minutes";
        for (header, body, seconds) in [
            (Some("120"), &text[..], Some(120)),
            (Some(" 0 "), text, Some(0)),
            (Some("Thu, 21 May 2026 08:00:45 GMT"), text, Some(45)),
            (Some("Thu, 21 May 2026 07:00:00 GMT"), text, Some(0)),
            (Some("Fri, 31 Dec 9999 23:59:59 GMT"), text, Some(251_622_950_399)),
            (Some("soon"), text, Some(29 * 60)),
            (Some("-1"), text, Some(29 * 60)),
            (Some("99999999999"), text, Some(29 * 60)),
            (None, text, Some(29 * 60)),
            (Some("soon"), b"\xff\xfe", None),
            (None, b"", None),
        ] {
            assert_eq!(read_retry_after(header, now, body), seconds.map(Duration::from_secs), "{header:?}");
        }
    }

    #[test]
    fn an_error_is_read_from_whatever_the_body_is() {
        let json = r#"{"error":{"summary":"Resource Not Found","detail":"no such site","code":"404000"}}"#;
        assert_eq!(error(json), (Some("404000".to_owned()), "Resource Not Found: no such site".to_owned()));
        let xml = r#"<tsResponse><error code="401002"><summary>Unauthorized</summary></error></tsResponse>"#;
        assert_eq!(error(xml).0.as_deref(), Some("401002"));
        for json in [
            r#"{"error":{"summary":"S","detail":"D","code":404000}}"#,
            r#"{"error":{"summary":"S","detail":"D","code":" 404000 "}}"#,
            r#"{"tsResponse":{"error":{"summary":"S","detail":"D","code":"404000"}}}"#,
            r#"{"status":500,"errors":[{"code":"x"},{"summary":"S","detail":"D","code":"404000"}]}"#,
        ] {
            assert_eq!(error(json), (Some("404000".to_owned()), "S: D".to_owned()), "{json}");
        }
        let xml = "<error code='401002'/>";
        assert_eq!(error(xml).0.as_deref(), Some("401002"));
        for other in [
            r#"{"code":12}"#,
            r#"{"error":{"code":"ECONNREFUSED"}}"#,
            "<error code=\"",
            "<error code=",
            "<error code=é",
            r#"[[[[[{"code":"401002"}]]]]]"#,
        ] {
            assert_eq!(error(other), (None, other.to_owned()), "{other}");
        }
        let long = "ä ".repeat(100_000);
        assert_eq!(error(&long).1.chars().count(), ERROR_CHARACTERS);
        assert_eq!(error("<html>\n  Bad gateway"), (None, "<html> Bad gateway".to_owned()));
        assert_eq!(error(""), (None, "no explanation".to_owned()));
    }
}
