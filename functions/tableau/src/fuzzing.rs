//! Entry point of the fuzz target `answer`: every reader of a server's answers in one call.

use std::collections::BTreeSet;

use serde_json::Value;
use shared::{
    redaction::known_secrets::KnownSecrets,
    refreshes::job::{EndedJob, RefreshOutcome, RefreshedKind},
    sites::sign_in,
};
use time::OffsetDateTime;
use url::Url;

use crate::{
    body::{self, LIST, SINGLE},
    rows::RowFilter,
    secrets,
    wire::{
        content::{MAX_TAGS, read_resource, read_user},
        errors::{MAX_ERROR_CHARACTERS, read_error},
        jobs::{JobRow, Listed, read_jobs, read_refresh},
        retry_after::read_retry_after,
        session::{read_credentials, read_version},
        tasks::read_tasks,
        tokens::read_token_end,
        webhooks::{read_test, read_webhooks, size_of_row},
    },
};

/// Reads the body of an answer with every reader.
pub fn read(body: &[u8]) {
    for is_error in [false, true] {
        let Ok(body) = body::decoded(body.to_vec(), LIST, is_error) else { continue };
        assert!(body.len() <= LIST);
        read_text(&String::from_utf8_lossy(&body));
        let _ = read_retry_after(None, OffsetDateTime::UNIX_EPOCH, &body);
        read_rows(&body);
        if let Ok(mut answer) = body::parse(&body) {
            secrets::hide(&mut answer, &mut KnownSecrets::default());
            read_value(&answer);
        }
    }
}

fn read_rows(body: &[u8]) {
    let wanted = BTreeSet::from(["w1".to_owned()]);
    let mut filter = RowFilter::new(&wanted, SINGLE);
    if filter.push(body).is_err() {
        return;
    }
    let kept = filter.kept();
    assert!(kept.len() <= SINGLE);
    // A replaced row may hold a defect, but no row makes one.
    if body::parse(body).is_ok() {
        assert!(body::parse(&kept).is_ok());
    }
}

fn read_text(text: &str) {
    let (code, words) = read_error(text, &KnownSecrets::default());
    assert!(code.is_none_or(|code| code.len() == 6) && words.chars().count() <= 2 * MAX_ERROR_CHARACTERS + 2);
    let _ = read_retry_after(Some(text), OffsetDateTime::UNIX_EPOCH, &[]);
    let server: Option<Url> = "https://10ax.online.tableau.com/".parse().ok();
    if let Some(Ok(to)) = server.map(|server| sign_in::redirected(&server, &server, text)) {
        assert!(to.scheme() == "https" && to.host_str().is_some_and(|host| host.ends_with(".online.tableau.com")));
    }
}

fn read_value(answer: &Value) {
    let _ = (read_credentials(answer), read_version(answer), read_test(answer), read_user(answer));
    let _ = read_token_end(answer, "fanout");
    let wanted = BTreeSet::from([(RefreshedKind::Workbook, "w1".to_owned())]);
    assert!(read_tasks(answer, &wanted).map_or(true, |tasks| tasks.len() <= wanted.len()));
    let resource = read_resource(answer, RefreshedKind::Workbook, &[Some("10ax.online.tableau.com".to_owned())]);
    assert!(resource.map_or(true, |resource| {
        resource.webpage_url.is_none_or(|url| url.host_str() == Some("10ax.online.tableau.com"))
            && resource.tags.len() <= MAX_TAGS
    }));
    if let Ok(page) = read_webhooks(answer) {
        let sizes = page.rows.iter().map(size_of_row);
        assert!(sizes.sum::<usize>() >= page.rows.len());
    }
    let sample = EndedJob {
        id: "job".to_owned(),
        outcome: RefreshOutcome::Failed,
        is_via_bridge: false,
        started_at: None,
        ended_at: OffsetDateTime::UNIX_EPOCH,
    };
    let _ = read_refresh(answer, &sample);
    for JobRow { job, .. } in read_jobs(answer).map(|page| page.rows).unwrap_or_default() {
        if let Ok(Listed::Ended(job)) = job {
            let _ = read_refresh(answer, &job);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn answers_of_every_kind_are_read() {
        let job =
            json!({ "id": "j", "status": "Failed", "jobType": "refresh_extracts", "endedAt": "2026-05-21T08:00:00Z" });
        for answer in [
            json!({ "webhooks": { "webhook": [{ "id": 1, "name": "n" }, null] } }),
            json!({ "backgroundJobs": { "backgroundJob": [job] } }),
            json!({ "tasks": { "task": [{ "extractRefresh": { "workbook": { "id": "w1" } } }, { "id": "w2" }, null] } }),
            json!({ "workbook": { "webpageUrl": "https://10ax.online.tableau.com/", "tags": { "tag": { "label": "t" } } } }),
            json!({ "user": { "name": "n", "fullName": 7 } }),
            json!({ "error": { "code": "401002", "summary": "s".repeat(1000), "detail": "d".repeat(1000) } }),
            json!({}),
        ] {
            super::read(answer.to_string().as_bytes());
        }
        super::read(b"https://dub01.online.tableau.com/api/3.27/auth/signin");
        super::read(b"\x1f\x8b\x08\xff");
        super::read(b"");
    }
}
