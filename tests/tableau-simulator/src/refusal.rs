//! Refusals of the REST API.

use std::borrow::Cow;

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::model::{ErrorShape, Oddities, RetryHint};

/// A refusal in Tableau's words.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: u32,
    pub(crate) summary: &'static str,
    pub(crate) detail: Cow<'static, str>,
    /// Whether an HTML page has the detail, too.
    pub(crate) has_detail_in_html: bool,
    pub(crate) is_html: bool,
    pub(crate) shape: ErrorShape,
    /// The `Retry-After` header.
    pub(crate) retry_after: Option<RetryAfter>,
}

/// When the client may retry.
#[derive(Debug)]
pub(crate) enum RetryAfter {
    /// After so many seconds.
    Seconds(u64),
    /// At a time.
    Date(OffsetDateTime),
}

impl Refusal {
    pub(crate) const fn new(status: u16, code: u32, summary: &'static str, detail: &'static str) -> Self {
        let (detail, shape) = (Cow::Borrowed(detail), ErrorShape::Usual);
        Self { status, code, summary, detail, has_detail_in_html: false, is_html: false, shape, retry_after: None }
    }

    /// Sets another detail, for an HTML page as well.
    pub(crate) fn with_detail(self, detail: String) -> Self {
        Self { detail: detail.into(), has_detail_in_html: true, ..self }
    }

    /// Makes it an HTML page.
    pub(crate) fn in_html(self) -> Self {
        Self { is_html: true, ..self }
    }

    /// Returns the HTML page, if it is one.
    pub(crate) fn html(&self) -> Option<String> {
        let Self { status, summary, detail, .. } = self;
        let detail = if self.has_detail_in_html { format!("<p>{detail}</p>") } else { String::new() };
        self.is_html
            .then(|| format!("<!DOCTYPE html>\n<html><body><h1>{status}</h1><p>{summary}</p>{detail}</body></html>"))
    }

    /// Returns the body, `None` if it is empty.
    pub(crate) fn body(&self) -> Option<Value> {
        let Self { code, summary, detail, .. } = self;
        let error = |code: Value| json!({ "error": { "summary": summary, "detail": detail, "code": code } });
        let usual = error(json!(format!("{code:06}")));
        match self.shape {
            ErrorShape::Usual => Some(usual),
            ErrorShape::NumericCode => Some(error(json!(code))),
            ErrorShape::Wrapped => Some(json!({ "tsResponse": [{ "status": "failed" }, usual] })),
            ErrorShape::Empty => None,
        }
    }

    /// Returns a 429 with its wait.
    pub(crate) fn too_many(Oddities { retry_hint, retry_after_seconds, .. }: &Oddities) -> Self {
        let seconds = retry_after_seconds.unwrap_or(30 * 60);
        let (detail, retry_after) = match retry_hint {
            RetryHint::Usual => (TOO_MANY.detail, retry_after_seconds.map(RetryAfter::Seconds)),
            RetryHint::OtherWords => (format!("Slow down. Please try again in {seconds} seconds.").into(), None),
            RetryHint::Date => {
                let then = OffsetDateTime::now_utc() + time::Duration::seconds(seconds.try_into().unwrap_or_default());
                ("Slow down.".into(), Some(RetryAfter::Date(then)))
            }
            RetryHint::Nowhere => ("Slow down.".into(), None),
        };
        Self { detail, retry_after, ..TOO_MANY }
    }
}

pub(crate) const MALFORMED: Refusal =
    Refusal::new(400, 400_000, "Bad Request", "Payload is either malformed or incomplete.");
pub(crate) const NO_SUCH_WEBHOOK: Refusal = Refusal::new(400, 400_113, "Bad Request", "There is no such webhook.");
pub(crate) const REASON_OF_ENABLED: Refusal =
    Refusal::new(400, 400_127, "Bad Request", "statusChangeReason is not allowed while isEnabled is true.");
pub(crate) const SIGN_IN_REFUSED: Refusal =
    Refusal::new(401, 401_001, "Signin Error", "Error signing in to Tableau Server or Tableau Cloud.");
pub(crate) const SESSION_GONE: Refusal =
    Refusal::new(401, 401_002, "Unauthorized Access", "Invalid authentication credentials.");
pub(crate) const NOT_AN_ADMINISTRATOR: Refusal =
    Refusal::new(403, 403_004, "Forbidden", "Only administrators may do this.");
pub(crate) const NO_SUCH_SITE: Refusal =
    Refusal::new(404, 404_000, "Resource Not Found", "The site could not be found.");
pub(crate) const NO_SUCH_PATH: Refusal =
    Refusal::new(404, 404_003, "Resource Not Found", "Unknown path or API version.");
pub(crate) const WEBHOOK_GONE: Refusal = Refusal::new(404, 400_113, "Resource Not Found", "There is no such webhook.");
pub(crate) const WRONG_METHOD: Refusal =
    Refusal::new(405, 405_000, "Method Not Allowed", "The path does not take this method.");
pub(crate) const TOO_MANY: Refusal =
    Refusal::new(429, 429_000, "Too Many Requests", "Too many requests, retry after 29 minutes.");
pub(crate) const INTERNAL: Refusal = Refusal::new(500, 500_000, "Internal Server Error", "Something went wrong.");
