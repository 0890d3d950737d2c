//! Content of a message to a target: what templates can use.

use serde::Serialize;
use serde_json::Value;
use shared::{
    alerts::{
        data::{AlertData, AlertLink, AlertResource, Severity},
        text::plain,
    },
    targets::message::TargetMessage,
    timestamp::Timestamp,
};
use time::OffsetDateTime;
use url::Url;

use crate::render::{
    event::EventAlert,
    text::{plain_lines, truncate},
};

/// The most characters of a title: enough for a sentence, and more than the heading of any service shows.
const MAX_TITLE: usize = 250;

/// The most characters of a name, a label, or the names of all sites.
const MAX_NAME: usize = 255;

/// The most next steps, pages, and sites by name.
const MAX_STEPS: usize = 5;

const MAX_LINKS: usize = 4;

const MAX_SITES: usize = 5;

/// The most characters of an address of a page. A longer one is left out, since a part of it leads nowhere.
const MAX_URL: usize = 1000;

/// Content of a message, with bounded sizes. Its serialized form is the context of every template.
#[derive(Serialize)]
pub(crate) struct Content<'a> {
    /// Identifier of the message, the same in each repetition.
    id: &'a str,
    /// The CloudEvent, `None` for an alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a Value>,
    /// The alert, or the event in words.
    alert: AlertData,
    /// Type of the event, or else kind of the alert.
    event_type: String,
    /// `Resolved`, or the severity.
    status: &'static str,
    /// The alert's text and next steps, line by line.
    lines: Vec<String>,
    /// Site, resource, project and owner, each with its label.
    facts: Vec<String>,
    /// The sites.
    source: String,
    /// Name of the resource's owner. An alert has it in its text.
    owner: Option<String>,
    /// The owner's e-mail address, if the stack's `OwnerDetails` allows it.
    owner_email: Option<String>,
    /// Tableau's reason for a failure. An alert has it in its text.
    reason: Option<String>,
    /// When it happened, or else when it is sent, in RFC 3339.
    time: String,
}

impl<'a> Content<'a> {
    /// Returns the content of a message, with at most `max_text` characters in its texts.
    pub(crate) fn of(message: &'a TargetMessage, id: &'a str, now: OffsetDateTime, max_text: usize) -> Self {
        let (event, described) = match message {
            TargetMessage::Event(event) => (Some(event.json()), EventAlert::of(event.json(), id)),
            TargetMessage::Alert(alert) => (None, described(alert)),
        };
        let EventAlert { alert, event_type, time, owner, owner_email, reason } = described;
        let alert = bounded(alert, max_text);
        let source = sites(&alert.sites);
        let lines = [&alert.text].into_iter().chain(&alert.next_steps).flat_map(|text| text.lines());
        Self {
            id,
            event,
            status: status(&alert),
            lines: lines.filter(|line| !line.trim().is_empty()).map(str::to_owned).collect(),
            facts: facts(&alert, &source, owner.as_deref()),
            event_type: truncate(&event_type, MAX_NAME),
            time: format(time).or_else(|| format(Some(now))).unwrap_or_default(),
            source,
            owner,
            owner_email,
            reason: reason.map(|reason| truncate(&reason, max_text)),
            alert,
        }
    }
}

/// Returns an alert in the form of a described event.
fn described(alert: &AlertData) -> EventAlert {
    let kind = serde_json::to_value(alert.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
    EventAlert {
        alert: alert.clone(),
        event_type: kind.unwrap_or_default(),
        time: None,
        owner: None,
        owner_email: None,
        reason: None,
    }
}

/// Bounds each text of an alert, and removes pages that a service could take for something else.
fn bounded(alert: AlertData, max_text: usize) -> AlertData {
    let name = |text: &str| truncate(&plain(text), MAX_NAME);
    let or = |text: String, other: &str| if text.trim().is_empty() { other.to_owned() } else { text };
    let title = or(truncate(&plain(&alert.title), MAX_TITLE), "Tableau");
    let text = or(truncate(&plain_lines(&alert.text), max_text), &title);
    let resource = |resource: AlertResource| AlertResource {
        kind: name(&resource.kind),
        id: name(&resource.id),
        name: resource.name.as_deref().map(name),
        project: resource.project.as_deref().map(name),
    };
    let steps = alert.next_steps.iter().take(MAX_STEPS).map(|step| truncate(&plain_lines(step), max_text / MAX_STEPS));
    // A service may require one.
    let thread = or(plain(&alert.thread), &alert.event_id);
    let links = alert.links.into_iter().filter(|link| is_page(&link.url)).take(MAX_LINKS);
    AlertData {
        title,
        text,
        next_steps: steps.filter(|step| !step.trim().is_empty()).collect(),
        links: links.map(|link| AlertLink { label: or(name(&link.label), "Open"), ..link }).collect(),
        sites: alert.sites.iter().map(|site| name(site)).collect(),
        site: alert.site.as_deref().map(name),
        resource: alert.resource.map(resource),
        thread,
        ..alert
    }
}

/// Whether an address is one of a web page, and no character of it ends a link or is markup in any service.
fn is_page(url: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/#?=%.-_".contains(&byte);
    let is_web = Url::parse(url).is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    is_web && url.len() <= MAX_URL && url.bytes().all(is_plain)
}

fn status(alert: &AlertData) -> &'static str {
    match alert.severity {
        _ if alert.resolved => "Resolved",
        Severity::Error => "Error",
        Severity::Warning => "Warning",
        Severity::Info => "Information",
    }
}

fn sites(sites: &[String]) -> String {
    let more = sites.len().saturating_sub(MAX_SITES);
    let more = (more > 0).then(|| format!("and {more} more"));
    let names = sites.iter().take(MAX_SITES).filter(|site| !site.is_empty()).cloned().chain(more);
    let joined = names.reduce(|all, site| format!("{all}, {site}"));
    joined.map_or_else(|| "Tableau".to_owned(), |joined| truncate(&joined, MAX_NAME))
}

fn facts(alert: &AlertData, source: &str, owner: Option<&str>) -> Vec<String> {
    let site = Some(source).filter(|_| !alert.sites.is_empty());
    let resource = alert.resource.as_ref();
    let name = resource.and_then(|resource| Some((capitalized(&resource.kind), resource.name.as_deref()?)));
    let facts = [
        site.map(|site| (if alert.sites.len() > 1 { "Sites" } else { "Site" }.to_owned(), site)),
        name,
        resource.and_then(|resource| Some(("Project".to_owned(), resource.project.as_deref()?))),
        owner.map(|owner| ("Owner".to_owned(), owner)),
    ];
    facts.into_iter().flatten().map(|(label, value)| format!("{label}: {value}")).collect()
}

fn capitalized(word: &str) -> String {
    let mut characters = word.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

fn format(at: Option<OffsetDateTime>) -> Option<String> {
    Timestamp(at?).format()
}
