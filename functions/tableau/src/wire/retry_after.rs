//! The wait that Tableau asks for when it limits requests: in a header, or only in the text of the answer.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc2822};

/// The most bytes of an answer in which a wait is searched.
const MAX_TEXT_BYTES: usize = 4096;

/// Words that announce a wait, and words that may stand between them and its length.
const WAITING: [&str; 5] = ["retry", "again", "wait", "after", "retryafter"];
const BETWEEN: [&str; 11] = ["in", "for", "at", "least", "about", "another", "the", "next", "until", "of", "minimum"];

/// Reads the wait from a header with seconds or a date, or else from the text. `now` is the server's time.
pub(crate) fn read_retry_after(header: Option<&str>, now: OffsetDateTime, body: &[u8]) -> Option<Duration> {
    let header = header.unwrap_or_default().trim();
    // A larger number could overflow the clock.
    let seconds = || header.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()));
    let date = || {
        let wait = OffsetDateTime::parse(header, &Rfc2822).ok()? - now;
        // A past date asks for no wait.
        Some(wait.try_into().unwrap_or_default())
    };
    let beginning = &body[..body.len().min(MAX_TEXT_BYTES)];
    seconds().or_else(date).or_else(|| read_wait(&String::from_utf8_lossy(beginning)))
}

/// Reads the wait from a text: "retry after 29 minutes", "please try again in 30s", `"retryAfter": 5`.
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
                // The unit may be attached, as in 30s, or missing. A digit after the number belongs to a date.
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

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_wait_is_read_from_texts() {
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
    fn a_wait_is_read_from_the_header_first_and_from_dates_by_the_servers_clock() {
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
}
