//! From an event to what people read about it: an e-mail, a text message, a card in a chat.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, macros::format_description};

use crate::{
    event::{Event, InvalidEvent},
    message::EventId,
    payload::Payload,
    registration::{Registration, SiteName},
};

/// The most characters of a subject: SNS takes fewer than 100 (Amazon SNS API reference, `Subject`).
const SUBJECT_CHARACTERS: usize = 99;

/// The most characters of a text message, so that a carrier sends one and not several.
const SMS_CHARACTERS: usize = 140;

/// The most characters of a card's text where it may be long. What chats show is not published; this is what a person
/// reads.
pub(crate) const CARD_CHARACTERS: usize = 1500;

/// The most characters of a name inside a sentence. Somebody typed it, and it may be a novel.
const NAME_CHARACTERS: usize = 80;

/// The events that people want to hear of at once, unless they say otherwise.
const DEFAULT: [&str; 2] = ["DatasourceRefreshFailed", "WorkbookRefreshFailed"];

/// Which events are alerts as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlertEvents {
    /// Every event, also one that this release does not know.
    All,
    /// These.
    These(BTreeSet<Event>),
}

impl AlertEvents {
    /// Reads what people write in a variable: `all`, `none`, or names separated by commas.
    ///
    /// # Errors
    ///
    /// An item that is empty or not an event name.
    pub fn parse(text: &str) -> Result<Self, InvalidEvent> {
        match text.trim() {
            "all" => Ok(Self::All),
            "none" => Ok(Self::These(BTreeSet::new())),
            names => Event::parse_list(names).map(Self::These),
        }
    }

    /// Whether the event is one of them.
    pub fn contains(&self, event: &Event) -> bool {
        match self {
            Self::All => true,
            Self::These(events) => events.contains(event),
        }
    }
}

impl Default for AlertEvents {
    fn default() -> Self {
        Self::These(DEFAULT.iter().filter_map(|name| name.parse().ok()).collect())
    }
}

/// What is published to the alerts topic, with `MessageStructure` `json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertMessage {
    /// Subject of the e-mail: printable ASCII, fewer than 100 characters.
    pub subject: String,
    /// A JSON object with a text for each protocol: `default` and `email` are sentences, `sms` is one line, `https` is
    /// the custom notification of Amazon Q Developer in chat applications.
    pub body: String,
}

impl AlertMessage {
    /// What to tell people about an event.
    pub fn about(registration: &Registration, payload: &Payload<'_>, id: EventId) -> Self {
        let Registration { site, event } = registration;
        let Wording { headline, what, next } = Wording::of(event);
        let named = Named::of(
            event.resource_type().unwrap_or("resource"),
            payload.resource_name.as_deref(),
            payload.resource_luid.as_deref(),
        );
        let at = payload.created_at.as_deref().and_then(utc);
        let when = at.as_ref().map(|at| format!(" on {at} UTC")).unwrap_or_default();
        let sentence = |name: &str| format!("{} on the Tableau site {site}{when}.", what.replace("{}", name));
        let mut metadata = Map::from_iter([("eventType".to_owned(), json!(event))]);
        if let Some(luid) = &payload.resource_luid {
            metadata.insert("relatedResources".to_owned(), related(luid));
        }
        let words = Words {
            subject: format!("Tableau {site}: {headline}: {}", named.text),
            email: format!("{}\n\n{next}\n\nEvent {event}, id {id}.", sentence(&named.quoted())),
            sms: format!("Tableau {site}: {headline}: {}{when}", named.text),
            id: id.to_string(),
            title: format!("{headline}: {}", named.text),
            description: sentence(&named.as_code()),
            next: next.to_owned(),
            keywords: vec![site.to_string(), event.to_string()],
            thread: thread(site, payload.resource_luid.as_deref().unwrap_or(event.as_str())),
            summary: sentence(&named.quoted()),
            metadata,
        };
        words.into()
    }
}

/// What keeps together in a chat what is told of one resource of a site.
pub(crate) fn thread(site: &SiteName, resource_luid: &str) -> String {
    format!("{site}/{}", identifier(resource_luid))
}

/// The resource that a message is about, as a card's metadata name it.
pub(crate) fn related(resource_luid: &str) -> Value {
    json!([identifier(resource_luid)])
}

/// An identifier of Tableau's, safe to show.
pub(crate) fn identifier(text: &str) -> String {
    shortened(&plain(text), NAME_CHARACTERS)
}

/// What people are told, before it is cut to what each way to them takes.
pub(crate) struct Words {
    /// Subject of the e-mail.
    pub(crate) subject: String,
    /// The e-mail: sentences.
    pub(crate) email: String,
    /// The text message, on one line.
    pub(crate) sms: String,
    /// What tells this message from every other.
    pub(crate) id: String,
    /// Heading of the card.
    pub(crate) title: String,
    /// Text of the card, in markdown.
    pub(crate) description: String,
    /// What to do next.
    pub(crate) next: String,
    /// What the card can be found by.
    pub(crate) keywords: Vec<String>,
    /// Messages of one thread are shown together.
    pub(crate) thread: String,
    /// The card in one plain sentence.
    pub(crate) summary: String,
    /// What else machines may want to know.
    pub(crate) metadata: Map<String, Value>,
}

impl From<Words> for AlertMessage {
    fn from(words: Words) -> Self {
        let Words { subject, email, sms, id, title, description, next, keywords, thread, summary, mut metadata } =
            words;
        metadata.insert("threadId".to_owned(), json!(thread));
        metadata.insert("summary".to_owned(), json!(summary));
        let card = json!({
            "version": "1.0",
            "source": "custom",
            "id": id,
            "content": {
                "textType": "client-markdown",
                "title": title,
                "description": description,
                "nextSteps": [next],
                "keywords": keywords,
            },
            "metadata": metadata,
        });
        let body = json!({
            "default": email,
            "email": email,
            "sms": shortened(&sms, SMS_CHARACTERS),
            "https": card.to_string(),
        });
        Self { subject: shortened_with(&ascii(&subject), SUBJECT_CHARACTERS, "..."), body: body.to_string() }
    }
}

/// How an event is told.
struct Wording {
    /// A few words.
    headline: String,
    /// A sentence's beginning, with `{}` for the thing's name.
    what: String,
    /// What to look at next.
    next: &'static str,
}

impl Wording {
    fn of(event: &Event) -> Self {
        let kind = event.resource_type().unwrap_or("resource");
        let happened = |headline: &str, verb: &str| (format!("{kind} {headline}"), format!("The {kind} {{}} {verb}"));
        let refresh = |outcome: &str| {
            (format!("{kind} refresh {outcome}"), format!("The extract refresh of the {kind} {{}} {outcome}"))
        };
        let (headline, what) = match event.action() {
            Some("refresh-failed") => refresh("failed"),
            Some("refresh-started") => refresh("started"),
            Some("refresh-succeeded") => refresh("succeeded"),
            Some("promoted") => happened("promoted", "was made an administrator"),
            Some("demoted") => happened("demoted", "is no longer an administrator"),
            Some(action) => happened(action, &format!("was {action}")),
            None => (event.to_string(), format!("Tableau reported the event {event} for {{}}")),
        };
        // The name a label's event comes with is that of the thing it labels.
        let what = if kind == "label" { what.replace("The label {}", "A label of {}") } else { what };
        let next = match event.action() {
            Some("refresh-failed") => "The Jobs page of the site shows why: open the site in Tableau and choose Jobs.",
            Some("promoted" | "demoted") => "The Users page of the site shows who administers it.",
            _ => "Nothing needs to be done unless this is a surprise.",
        };
        Self { headline, what, next }
    }
}

/// What a thing is called, safe to show.
pub(crate) struct Named {
    /// On one line, and short.
    pub(crate) text: String,
    is_name: bool,
}

impl Named {
    /// The thing by its name, else by its identifier, else by its kind.
    pub(crate) fn of(kind: &str, name: Option<&str>, luid: Option<&str>) -> Self {
        let shown = |text: Option<&str>| {
            let text = plain(text.unwrap_or_default());
            (!text.is_empty()).then(|| shortened(&text, NAME_CHARACTERS))
        };
        match (shown(name), shown(luid)) {
            (Some(text), _) => Self { text, is_name: true },
            (None, Some(luid)) => Self { text: format!("with the id {luid}"), is_name: false },
            (None, None) => Self { text: format!("({kind} without a name)"), is_name: false },
        }
    }

    /// As it stands in a sentence.
    pub(crate) fn quoted(&self) -> String {
        if self.is_name { format!("\"{}\"", self.text) } else { self.text.clone() }
    }

    /// As it stands in a sentence of a card: a code span, in which nothing is markdown.
    pub(crate) fn as_code(&self) -> String {
        if self.is_name { as_code(&self.text) } else { without_markup(&self.text) }
    }
}

/// A text as a code span, with nothing that could end it or start a mention.
pub(crate) fn as_code(text: &str) -> String {
    format!("`{}`", without_markup(text))
}

/// A text that can end no code span and start no mention.
pub(crate) fn without_markup(text: &str) -> String {
    text.replace('`', "'").replace('<', "‹").replace('>', "›")
}

/// A text on one line: white space and control characters become single spaces, and what could turn the direction of
/// the text around it is left out.
pub(crate) fn plain(text: &str) -> String {
    let turns = |character: char| matches!(character, '\u{200E}' | '\u{200F}' | '\u{061C}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let characters = text.chars().filter(|character| !turns(*character));
    let spaced: String = characters.map(|character| if character.is_control() { ' ' } else { character }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Printable ASCII: every other character becomes a question mark.
fn ascii(text: &str) -> String {
    text.chars().map(|character| if (' '..='~').contains(&character) { character } else { '?' }).collect()
}

pub(crate) fn shortened(text: &str, characters: usize) -> String {
    shortened_with(text, characters, "…")
}

fn shortened_with(text: &str, characters: usize, ellipsis: &str) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    let kept: String = text.chars().take(characters - ellipsis.chars().count()).collect();
    format!("{kept}{ellipsis}")
}

/// A timestamp of Tableau's as a person writes it, in UTC; `None` if it is none.
fn utc(text: &str) -> Option<String> {
    told(OffsetDateTime::parse(text, &Rfc3339).ok()?)
}

/// A time as a person writes it, in UTC; `None` if it is beyond what calendars hold.
pub(crate) fn told(at: OffsetDateTime) -> Option<String> {
    let at = at.checked_to_offset(UtcOffset::UTC)?;
    at.format(format_description!("[year]-[month]-[day] at [hour]:[minute]")).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::message::Delivery;

    fn alert(event: &str, payload: &Value) -> AlertMessage {
        let registration =
            Registration { site: "marketing".parse().expect("a site"), event: event.parse().expect("an event") };
        let verified = registration.clone().verified_in_tests();
        let body = payload.to_string();
        let id = Delivery::read(&verified, body.as_bytes()).id("request");
        AlertMessage::about(&registration, &Payload::parse(body.as_bytes()).expect("an object"), id)
    }

    fn texts(alert: &AlertMessage) -> Value {
        serde_json::from_str(&alert.body).expect("JSON")
    }

    fn card(alert: &AlertMessage) -> Value {
        serde_json::from_str(texts(alert)["https"].as_str().expect("a text")).expect("JSON")
    }

    fn failed(name: &str) -> Value {
        json!({ "resource_name": name, "resource_luid": "99", "created_at": "2026-05-21T10:00:00.5+02:00" })
    }

    #[test]
    fn a_failed_refresh_reads_well_at_seven_in_the_morning() {
        let alert = alert("DatasourceRefreshFailed", &failed("Umsätze \"Nord\" 📈"));
        let texts = texts(&alert);
        let shown = format!(
            "{}\n---\n{}\n---\n{}\n---\n{:#}",
            alert.subject,
            texts["email"].as_str().expect("a text"),
            texts["sms"].as_str().expect("a text"),
            card(&alert)
        );
        insta::assert_snapshot!(shown);
        assert_eq!(texts["default"], texts["email"]);
    }

    #[test]
    fn every_event_can_be_told() {
        let told = Event::catalogue().map(|event| {
            let alert = alert(event.as_str(), &failed("Sales"));
            let sms = texts(&alert)["sms"].as_str().expect("a text").to_owned();
            format!("{}\n  {sms}", card(&alert)["metadata"]["summary"].as_str().expect("a text"))
        });
        insta::assert_snapshot!(told.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn what_tableau_did_not_tell_is_not_invented() {
        let nameless = alert("WorkbookRefreshFailed", &json!({ "resource_luid": "99", "created_at": "yesterday" }));
        assert_eq!(
            card(&nameless)["metadata"]["summary"],
            "The extract refresh of the workbook with the id 99 failed on the Tableau site marketing."
        );
        let nothing = alert("FlowRunFailed", &json!({}));
        assert_eq!(
            card(&nothing)["metadata"]["summary"],
            "Tableau reported the event FlowRunFailed for (resource without a name) on the Tableau site marketing."
        );
        assert_eq!(card(&nothing)["metadata"]["threadId"], "marketing/FlowRunFailed");
    }

    #[test]
    fn a_name_cannot_become_markdown_or_a_mention() {
        let description =
            card(&alert("ViewDeleted", &failed("`*a*` <!channel> _b_")))["content"]["description"].clone();
        assert!(
            description.as_str().is_some_and(|text| text.starts_with("The view `'*a*' ‹!channel› _b_` was deleted")),
            "{description}"
        );
    }

    #[test]
    fn what_is_endless_is_shortened_everywhere() {
        let endless = "9".repeat(100_000);
        let alert = alert("WorkbookRefreshFailed", &json!({ "resource_name": endless, "resource_luid": endless }));
        assert!(alert.body.len() < 4 * 1024, "{} bytes", alert.body.len());
    }

    #[test]
    fn the_alert_events_are_two_unless_people_say_otherwise() {
        let event = |name: &str| name.parse::<Event>().expect("an event");
        let default = AlertEvents::default();
        assert!(default.contains(&event("DatasourceRefreshFailed")) && !default.contains(&event("WorkbookCreated")));
        assert!(AlertEvents::parse("all").is_ok_and(|events| events.contains(&event("FlowRunFailed"))));
        assert!(AlertEvents::parse("none").is_ok_and(|events| !events.contains(&event("WorkbookRefreshFailed"))));
        assert!(AlertEvents::parse("ViewDeleted").is_ok_and(|events| events.contains(&event("ViewDeleted"))));
        assert!(AlertEvents::parse("View-Deleted").is_err());
    }

    proptest! {
        #[test]
        fn no_name_breaks_a_subject_a_text_message_or_the_card(name: String, luid in ".*", event in "[A-Za-z]{1,40}") {
            let alert = alert(&event, &json!({ "resource_name": name, "resource_luid": luid }));
            prop_assert!(alert.subject.len() < 100 && alert.subject.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert!(alert.subject.starts_with("Tableau"));
            prop_assert!(alert.body.len() < 8 * 1024, "{} bytes", alert.body.len());
            let texts = texts(&alert);
            let sms = texts["sms"].as_str().expect("a text");
            prop_assert!(sms.chars().count() <= SMS_CHARACTERS && !sms.chars().any(char::is_control), "{}", sms);
            let card = card(&alert);
            let title = card["content"]["title"].as_str().expect("a title");
            prop_assert!(!title.is_empty() && !title.chars().any(char::is_control));
            prop_assert!(card["content"]["description"].as_str().is_some_and(|text| !text.is_empty()));
        }
    }
}
