//! Alerts about events of the events topic, for targets that show them to people.

use serde_json::Value;
use shared::{
    alerts::{
        data::{AlertData, AlertKind, AlertLink, AlertResource, Severity},
        phrasing::{format_time, on_date, pluralize},
    },
    events::catalogue::Event,
    refreshes::{explanation::EXPLAINED, resolution::RESOLVED},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::render::text::inert;

/// The most characters of a name, and of a reason.
const MAX_NAME: usize = 80;

const MAX_REASON: usize = 1000;

/// The most characters of an e-mail address (RFC 5321).
const MAX_EMAIL: usize = 254;

const OPEN_JOBS: &str = "To see the reason, open the site in Tableau and choose Jobs.";

/// An event in words.
pub(crate) struct EventAlert {
    /// The alert.
    pub(crate) alert: AlertData,
    /// The event's type without its prefix, such as `WorkbookRefreshFailed`.
    pub(crate) event_type: String,
    /// When it happened.
    pub(crate) time: Option<OffsetDateTime>,
    /// Name of the resource's owner, or else the e-mail address.
    pub(crate) owner: Option<String>,
    /// The owner's e-mail address.
    pub(crate) owner_email: Option<String>,
    /// Tableau's reason for a failure.
    pub(crate) reason: Option<String>,
}

impl EventAlert {
    /// Describes an event. Every foreign text in it is inert.
    pub(crate) fn of(event: &Value, id: &str) -> Self {
        let parts = Parts::of(event);
        let links = parts.links();
        let reason = parts.text("/data/notes", MAX_REASON);
        let alert = AlertData {
            kind: parts.kind(),
            severity: if parts.is_failure() { Severity::Error } else { Severity::Info },
            title: parts.title(),
            text: parts.sentences(reason.as_deref()),
            next_steps: parts.next_steps(&links),
            links,
            site: Some(parts.site.clone()),
            sites: vec![parts.site.clone()],
            resource: parts.resource(),
            thread: format!("{}/{}", parts.site, parts.luid.as_ref().unwrap_or(&parts.event_type)),
            resolved: parts.event_type == RESOLVED,
            event_id: id.to_owned(),
        };
        let owner_email = event.pointer("/data/owner/email").and_then(Value::as_str).filter(|text| is_email(text));
        let owner_email = owner_email.map(str::to_owned);
        let owner = parts.text("/data/owner/name", MAX_NAME).or_else(|| owner_email.clone());
        Self { alert, time: parts.time("/time"), owner, owner_email, reason, event_type: parts.event_type }
    }
}

/// The parts of an event that its description needs.
struct Parts<'a> {
    event: &'a Value,
    site: String,
    event_type: String,
    /// Action on the resource, such as `refresh-failed`.
    action: Option<&'static str>,
    resource_kind: String,
    name: Option<String>,
    luid: Option<String>,
}

impl<'a> Parts<'a> {
    fn of(event: &'a Value) -> Self {
        let text =
            |pointer: &str| event.pointer(pointer).and_then(Value::as_str).and_then(|text| inert(text, MAX_NAME));
        let last = |pointer: &str, separator| Some(text(pointer)?.rsplit(separator).next()?.to_owned());
        let event_type = last("/type", '.').unwrap_or_else(|| "event".to_owned());
        let known: Option<Event> = event_type.parse().ok();
        let resource_kind = known.as_ref().and_then(Event::resource_type).map(str::to_owned);
        Self {
            event,
            site: last("/source", '/').unwrap_or_else(|| "Tableau".to_owned()),
            action: known.as_ref().and_then(Event::action),
            resource_kind: resource_kind
                .or_else(|| text("/data/resource_type"))
                .unwrap_or_else(|| "resource".to_owned()),
            name: text("/data/resource_name"),
            luid: text("/data/resource_luid").or_else(|| text("/subject")),
            event_type,
        }
    }

    fn text(&self, pointer: &str, max: usize) -> Option<String> {
        self.event.pointer(pointer)?.as_str().and_then(|text| inert(text, max))
    }

    fn time(&self, pointer: &str) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(self.event.pointer(pointer)?.as_str()?, &Rfc3339).ok()
    }

    fn number(&self, pointer: &str) -> Option<u64> {
        self.event.pointer(pointer)?.as_u64()
    }

    fn is_explained(&self) -> bool {
        self.event_type == EXPLAINED
    }

    fn is_failure(&self) -> bool {
        self.is_explained() || self.action == Some("refresh-failed")
    }

    fn kind(&self) -> AlertKind {
        match &*self.event_type {
            EXPLAINED => AlertKind::RefreshExplained,
            RESOLVED => AlertKind::RefreshResolved,
            "Test" => AlertKind::Test,
            _ if self.is_failure() => AlertKind::RefreshFailed,
            _ => AlertKind::Event,
        }
    }

    fn title(&self) -> String {
        let kind = &self.resource_kind;
        let headline = match (&*self.event_type, self.action) {
            (EXPLAINED, _) => format!("why the {kind} refresh failed"),
            (RESOLVED, _) => format!("{kind} refresh works again"),
            (_, Some(action)) => format!("{kind} {}", action.replace('-', " ")),
            (event_type, None) => event_type.to_owned(),
        };
        self.name.iter().fold(headline, |headline, name| format!("{headline}: {name}"))
    }

    /// Returns the resource for a sentence: kind and name, or else the identifier.
    fn subject(&self) -> Option<String> {
        // The payload names the labelled resource, not the label.
        let kind = if self.resource_kind == "label" { "labelled resource" } else { &self.resource_kind };
        let name = self.name.as_ref().map(|name| format!("the {kind} \"{name}\""));
        name.or_else(|| self.luid.as_ref().map(|luid| format!("the {kind} with the id {luid}")))
    }

    fn sentences(&self, reason: Option<&str>) -> String {
        if !self.is_explained() {
            return self.sentence();
        }
        let reason = format!("Tableau's reason: {}", reason.unwrap_or("no reason given"));
        let lines: Vec<_> = [self.sentence(), reason].into_iter().chain(self.repetition()).collect();
        lines.join("\n")
    }

    fn sentence(&self) -> String {
        let Self { site, event_type, resource_kind: kind, .. } = self;
        let subject = self.subject().unwrap_or_else(|| format!("a {kind}"));
        let when = self.time("/time").map(on_date).unwrap_or_default();
        if self.is_failure() {
            format!(
                "The extract refresh of {subject} failed on the Tableau site {site}{when}. The {kind} keeps the data of its \
                 last successful refresh."
            )
        } else if event_type == RESOLVED {
            let since = self.time("/data/resolved_at").and_then(format_time);
            let since = since.map(|at| format!(" since {at} UTC")).unwrap_or_default();
            let failures = self.number("/data/failures").and_then(|count| count.try_into().ok());
            let after = failures.map(|count| format!(", after {}", pluralize(count, "failure", "failures")));
            let after = after.unwrap_or_default();
            format!("The extract refresh of {subject} works again on the Tableau site {site}{since}{after}.")
        } else {
            let about = self.subject().map(|subject| format!(" about {subject}")).unwrap_or_default();
            format!("Tableau reported the event {event_type}{about} on the Tableau site {site}{when}.")
        }
    }

    /// Returns how often the resource failed, and when it runs next.
    fn repetition(&self) -> Option<String> {
        let in_a_row = self.number("/data/failures_in_a_row").filter(|count| *count > 1);
        let in_a_row = in_a_row.map(|count| format!("Failures in a row: {count}."));
        let is_suspended = self.event.pointer("/data/is_suspended").and_then(Value::as_bool) == Some(true);
        let suspension =
            is_suspended.then(|| "Tableau has suspended the refresh until somebody resumes it.".to_owned());
        let next = self.time("/data/next_run_at").and_then(format_time).map(|at| format!("Next run: {at} UTC."));
        [in_a_row, suspension, next].into_iter().flatten().reduce(|all, sentence| format!("{all} {sentence}"))
    }

    fn next_steps(&self, links: &[AlertLink]) -> Vec<String> {
        let step = match &*self.event_type {
            RESOLVED => Some("No action is needed."),
            _ if self.is_failure() && links.is_empty() => Some(OPEN_JOBS),
            _ => None,
        };
        step.map(str::to_owned).into_iter().collect()
    }

    fn links(&self) -> Vec<AlertLink> {
        let pages = [
            (format!("Open the {}", self.resource_kind), "/data/resource_url"),
            ("Refreshes of the site".to_owned(), "/data/history_url"),
        ];
        let link = |(label, pointer): (String, &str)| {
            Some(AlertLink { label, url: self.event.pointer(pointer)?.as_str()?.to_owned() })
        };
        pages.into_iter().filter_map(link).collect()
    }

    fn resource(&self) -> Option<AlertResource> {
        Some(AlertResource {
            kind: self.resource_kind.clone(),
            id: self.luid.clone()?,
            name: self.name.clone(),
            project: self.text("/data/project/name", MAX_NAME),
        })
    }
}

/// Whether a text is an e-mail address that no service takes for a mention or markup.
fn is_email(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-+".contains(&byte);
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(is_plain);
    let parts = text.split_once('@');
    text.len() <= MAX_EMAIL && parts.is_some_and(|(user, host)| user.split('_').all(is_word) && is_word(host))
}
