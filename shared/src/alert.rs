//! From an event to what people read about it: an e-mail, a text message, a card in a chat.

use std::collections::BTreeSet;

use serde_json::json;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, macros::format_description};

use crate::{
    event::{Event, InvalidEvent},
    message::EventId,
    payload::Payload,
    registration::{Registration, SiteName},
    text::{NAME_CHARACTERS, Text, plain, shortened, text, word},
};

/// The most characters of a subject: SNS takes fewer than 100 (Amazon SNS API reference, `Subject`).
const SUBJECT_CHARACTERS: usize = 99;

/// The most characters of a text message, so that a carrier sends one and not several.
const SMS_CHARACTERS: usize = 140;

/// The most characters of a card's text where it may be long. What chats show is not published; this is what a person
/// reads.
const CARD_CHARACTERS: usize = 1500;

/// The most characters of a card's title, and of its identifier and the thread's.
const TITLE_CHARACTERS: usize = 250;
const THREAD_CHARACTERS: usize = 150;

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
    /// Reads what people write in a variable: `all` or `none` in any case, or names separated by commas.
    ///
    /// # Errors
    ///
    /// An item that is empty or not an event name.
    pub fn parse(text: &str) -> Result<Self, InvalidEvent> {
        match text.trim() {
            all if all.eq_ignore_ascii_case("all") => Ok(Self::All),
            none if none.eq_ignore_ascii_case("none") => Ok(Self::These(BTreeSet::new())),
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

    /// Returns the events among them that this release does not know: of tomorrow, or misspelt.
    pub fn unknown(&self) -> impl Iterator<Item = &Event> {
        let events = match self {
            Self::All => None,
            Self::These(events) => Some(events),
        };
        events.into_iter().flatten().filter(|event| !event.is_known())
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
        let (site_name, event_name) = (site.to_string(), event.to_string());
        let Wording { headline, before, after, next } = Wording::of(event);
        let named = Named::of(
            event.resource_type().unwrap_or("resource"),
            payload.resource_name.as_deref(),
            payload.resource_luid.as_deref(),
        );
        let at = payload.created_at.as_deref().and_then(utc);
        let when = at.map(|at| format!(" on {at} UTC")).unwrap_or_default();
        let short = text!["Tableau ", site_name.clone(), ": ", headline.clone(), ": ", named.bare()];
        let sentence =
            text![before, named.in_sentence(), after, " on the Tableau site ", site_name.clone(), when.clone(), "."];
        let words = Words {
            subject: short.clone(),
            email: text![
                sentence.clone(),
                "\n\n",
                next,
                "\n\nEvent ",
                event_name.clone(),
                ", id ",
                id.to_string(),
                "."
            ],
            sms: text![short, when],
            id: id.to_string(),
            title: text![headline, ": ", named.bare()],
            description: sentence.clone(),
            next: next.into(),
            keywords: vec![site_name, event_name.clone()],
            thread: thread(site, payload.resource_luid.as_deref().unwrap_or(event.as_str())),
            summary: sentence,
            event_type: event_name,
            related: payload.resource_luid.clone(),
        };
        words.into()
    }
}

/// What keeps together in a chat what is told of one resource of a site.
pub(crate) fn thread(site: &SiteName, resource_luid: &str) -> String {
    format!("{site}/{}", word(resource_luid))
}

/// What people are told, before it is cut to what each way to them takes, and made safe for it.
pub(crate) struct Words {
    /// Subject of the e-mail.
    pub(crate) subject: Text,
    /// The e-mail: sentences.
    pub(crate) email: Text,
    /// The text message, on one line.
    pub(crate) sms: Text,
    /// What tells this message from every other.
    pub(crate) id: String,
    /// Heading of the card.
    pub(crate) title: Text,
    /// Text of the card.
    pub(crate) description: Text,
    /// What to do next.
    pub(crate) next: Text,
    /// What the card can be found by.
    pub(crate) keywords: Vec<String>,
    /// Messages of one thread are shown together.
    pub(crate) thread: String,
    /// The card in one plain sentence.
    pub(crate) summary: Text,
    /// What happened, for machines.
    pub(crate) event_type: String,
    /// Identifier of the resource it happened to, if it is one.
    pub(crate) related: Option<String>,
}

impl From<Words> for AlertMessage {
    fn from(words: Words) -> Self {
        let Words { subject, email, sms, id, title, description, next, keywords, thread, summary, event_type, related } =
            words;
        let mut metadata = json!({
            "eventType": word(&event_type),
            "threadId": Text::from(thread).title(THREAD_CHARACTERS),
            "summary": summary.title(CARD_CHARACTERS),
        });
        if let Some(related) = related {
            metadata["relatedResources"] = json!([word(&related)]);
        }
        let card = json!({
            "version": "1.0",
            "source": "custom",
            "id": Text::from(id).title(THREAD_CHARACTERS),
            "content": {
                "textType": "client-markdown",
                "title": title.title(TITLE_CHARACTERS),
                "description": description.markdown(CARD_CHARACTERS),
                "nextSteps": [next.markdown(CARD_CHARACTERS)],
                "keywords": keywords.iter().map(|keyword| word(keyword)).collect::<Vec<_>>(),
            },
            "metadata": metadata,
        });
        let email = email.mail();
        let body = json!({
            "default": email,
            "email": email,
            "sms": sms.line(SMS_CHARACTERS),
            "https": card.to_string(),
        });
        Self { subject: subject.subject(SUBJECT_CHARACTERS), body: body.to_string() }
    }
}

/// How an event is told.
struct Wording {
    /// A few words.
    headline: String,
    /// What stands before the thing's name in a sentence.
    before: String,
    /// What stands after it.
    after: String,
    /// What to look at next.
    next: &'static str,
}

impl Wording {
    fn of(event: &Event) -> Self {
        let kind = event.resource_type().unwrap_or("resource");
        let happened =
            |headline: &str, verb: &str| (format!("{kind} {headline}"), format!("The {kind} "), format!(" {verb}"));
        let refresh = |outcome: &str| {
            (format!("{kind} refresh {outcome}"), format!("The extract refresh of the {kind} "), format!(" {outcome}"))
        };
        let (headline, before, after) = match event.action() {
            Some("refresh-failed") => refresh("failed"),
            Some("refresh-started") => refresh("started"),
            Some("refresh-succeeded") => refresh("succeeded"),
            Some("promoted") => happened("promoted", "was made an administrator"),
            Some("demoted") => happened("demoted", "is no longer an administrator"),
            Some(action) => happened(action, &format!("was {action}")),
            None => (event.to_string(), format!("Tableau reported the event {event} for "), String::new()),
        };
        // The name a label's event comes with is that of the thing it labels.
        let before = if kind == "label" { "A label of ".to_owned() } else { before };
        let next = match event.action() {
            Some("refresh-failed") => "The Jobs page of the site shows why: open the site in Tableau and choose Jobs.",
            Some("promoted" | "demoted") => "The Users page of the site shows who administers it.",
            _ => "Nothing needs to be done unless this is a surprise.",
        };
        Self { headline, before, after, next }
    }
}

/// What a thing is called.
pub(crate) struct Named {
    /// On one line, and short.
    text: String,
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

    /// As it stands by itself.
    pub(crate) fn bare(&self) -> Text {
        self.text.clone().into()
    }

    /// As it stands in a sentence.
    pub(crate) fn in_sentence(&self) -> Text {
        if self.is_name { Text::name(self.text.clone()) } else { self.bare() }
    }
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
    use proptest::{prelude::*, sample};
    use serde_json::Value;

    use super::*;
    use crate::{message::Delivery, text::hostile};

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
    fn a_name_becomes_no_markup_and_no_mention_anywhere_on_a_card() {
        let card = card(&alert("ViewDeleted", &failed("`*a*` <!channel> [x](https://evil.example) _b_ R&D")));
        let (content, metadata) = (&card["content"], &card["metadata"]);
        insta::assert_snapshot!(content["title"].as_str().expect("a text"), @"view deleted: '∗a∗' ‹!channel› ［x］(https://evil.example) ＿b＿ R＆D");
        insta::assert_snapshot!(content["description"].as_str().expect("a text"), @"The view `'*a*' ‹!channel› [x](https://evil.example) _b_ R＆D` was deleted on the Tableau site marketing on 2026-05-21 at 08:00 UTC.");
        insta::assert_snapshot!(metadata["summary"].as_str().expect("a text"), @r#"The view "'∗a∗' ‹!channel› ［x］(https://evil.example) ＿b＿ R＆D" was deleted on the Tableau site marketing on 2026-05-21 at 08:00 UTC."#);
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
        for all in ["all", " All", "ALL"] {
            assert_eq!(AlertEvents::parse(all), Ok(AlertEvents::All), "{all:?}");
        }
        assert!(AlertEvents::All.contains(&event("FlowRunFailed")));
        for none in ["none", "None ", "NONE"] {
            assert_eq!(AlertEvents::parse(none), Ok(AlertEvents::These(BTreeSet::new())), "{none:?}");
        }
        assert!(AlertEvents::parse("ViewDeleted").is_ok_and(|events| events.contains(&event("ViewDeleted"))));
        assert!(AlertEvents::parse("View-Deleted").is_err());
    }

    #[test]
    fn alert_events_that_nobody_knows_are_named() {
        let unknown = |text: &str| {
            let events = AlertEvents::parse(text).expect("names");
            events.unknown().map(Event::to_string).collect::<Vec<_>>()
        };
        let misspelt = unknown("ViewDeleted,WorkbookRefreshFaild,none");
        assert_eq!(misspelt, ["WorkbookRefreshFaild", "none"]);
        assert!(unknown("all").is_empty() && unknown("NONE").is_empty() && unknown("ViewDeleted").is_empty());
    }

    proptest! {
        #[test]
        fn whatever_a_payload_says_no_alert_about_it_has_markup_or_is_refused(
            name in hostile::any_text(),
            luid in hostile::any_text(),
            time in hostile::any_text(),
            event in prop_oneof![
                sample::select(Event::catalogue().map(|event| event.to_string()).collect::<Vec<_>>()),
                "[A-Za-z]{1,300}".prop_map(String::from),
            ],
            has_name: bool,
        ) {
            let mut payload = json!({ "resource_luid": luid, "created_at": time });
            if has_name {
                payload["resource_name"] = json!(name);
            }
            hostile::assert_safe(&alert(&event, &payload));
        }
    }
}
