//! Messages on the alerts topic: one text for each protocol.

use serde_json::json;
use url::Url;

use crate::{
    alerts::{
        data::{AlertData, AlertKind, AlertLink, AlertResource, Severity},
        text::{MAX_NAME_CHARACTERS, Text, text, word},
    },
    registration::site_name::SiteName,
};

/// The most characters of a subject: SNS accepts fewer than 100 (Amazon SNS API reference, `Subject`).
const MAX_SUBJECT_CHARACTERS: usize = 99;

/// The most characters of a text message, so that a carrier sends a single one.
const MAX_SMS_CHARACTERS: usize = 140;

/// The most characters of a card's long texts. The limits of chat applications are not published; this is enough to read.
const MAX_CARD_CHARACTERS: usize = 1500;

/// The most characters of a card's title, and of identifiers of cards and threads.
const MAX_TITLE_CHARACTERS: usize = 250;

const MAX_THREAD_CHARACTERS: usize = 150;

/// The most sites that an alert as JSON names: 20 KiB.
const MAX_SITES: usize = 500;

/// A message for the alerts topic, with `MessageStructure` `json`.
///
/// ```
/// # use shared::registration::{claim::{Claim, Registration}, keyring::Keyring, signed_url::ReceiverUrl};
/// # let (keyring, receiver) = (Keyring::of([7; 32]), ReceiverUrl::parse("https://receiver.example").ok_or("")?);
/// # let registration = Registration { site: "marketing".parse()?, event: "WorkbookRefreshFailed".parse()? };
/// # let url = registration.signed_url(&receiver, &keyring);
/// # let claim = Claim::parse(url.expose().trim_start_matches("https://receiver.example")).ok_or("")?;
/// # let verified = claim.verify(&keyring).ok_or("")?;
/// use shared::{
///     alerts::{message::AlertMessage, selection::DeliveryAlerts},
///     events::delivery::Delivery,
/// };
///
/// let body = br#"{"resource_name":"Regional Sales","created_at":"2026-05-21T08:00:00Z"}"#;
/// let delivery = Delivery::read(&verified, body);
/// let alerts = DeliveryAlerts::default();
/// let alert = AlertMessage::of_delivery(&delivery, delivery.id("request-1"), &alerts);
///
/// let AlertMessage { subject, body } = alert.ok_or("not selected")?;
/// assert_eq!(subject, "Tableau marketing: workbook refresh failed: Regional Sales");
/// let texts: serde_json::Value = serde_json::from_str(&body)?;
/// assert_eq!(
///     texts["sms"],
///     "Tableau marketing: workbook refresh failed: Regional Sales on 2026-05-21 at 08:00 UTC"
/// );
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertMessage {
    /// Subject of the e-mail: printable ASCII of fewer than 100 characters.
    pub subject: String,
    /// A JSON object with a text for each protocol: `default` and `email` are sentences, `sms` is one line, `https` is a
    /// custom notification for Amazon Q Developer in chat applications, `sqs` and `lambda` are an [`AlertData`].
    pub body: String,
}

/// Returns the chat thread for alerts about one resource of a site.
pub(crate) fn thread(site: &SiteName, resource_luid: &str) -> String {
    format!("{site}/{}", word(resource_luid))
}

/// A page to open.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    label: String,
    link: Text,
    url: String,
}

impl Page {
    /// A page at an address; `None` if the address cannot be shown safely.
    pub(crate) fn new(label: impl Into<String>, url: &Url) -> Option<Self> {
        Some(Self { label: label.into(), link: Text::link(url)?, url: url.to_string() })
    }

    /// Returns label and address.
    pub(crate) fn line(&self) -> Text {
        text![self.label.clone(), ": ", self.link.clone()]
    }
}

/// The resource that an alert is about: one of Tableau by its names there, or a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Related {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) project: Option<String>,
}

/// Content of an alert, before it is truncated and made safe for each protocol.
pub(crate) struct AlertContent {
    /// Its subject.
    pub(crate) kind: AlertKind,
    /// How urgent it is.
    pub(crate) severity: Severity,
    /// Whether it says that the matter is over.
    pub(crate) resolved: bool,
    /// The names of all sites.
    pub(crate) sites: Vec<String>,
    /// Subject of the e-mail.
    pub(crate) subject: Text,
    /// The e-mail: sentences.
    pub(crate) email: Text,
    /// The text message, on one line.
    pub(crate) sms: Text,
    /// Identifier of the alert.
    pub(crate) id: String,
    /// Heading of the card.
    pub(crate) title: Text,
    /// Text of the card.
    pub(crate) description: Text,
    /// The next steps.
    pub(crate) next: Vec<Text>,
    /// The pages to open.
    pub(crate) pages: Vec<Page>,
    /// Keywords of the card.
    pub(crate) keywords: Vec<String>,
    /// Identifier of the chat thread.
    pub(crate) thread: String,
    /// The card in one plain sentence.
    pub(crate) summary: Text,
    /// Type of the event or problem, for machines.
    pub(crate) event_type: String,
    /// The resource, if the alert is about one.
    pub(crate) related: Option<Related>,
}

impl From<AlertContent> for AlertMessage {
    fn from(content: AlertContent) -> Self {
        let data = data_of(&content);
        let AlertContent {
            subject,
            email,
            sms,
            id,
            title,
            description,
            next,
            pages,
            keywords,
            thread,
            summary,
            event_type,
            related,
            ..
        } = content;
        let mut metadata = json!({
            "eventType": word(&event_type),
            "threadId": Text::from(thread).title(MAX_THREAD_CHARACTERS),
            "summary": summary.title(MAX_CARD_CHARACTERS),
        });
        if let Some(related) = related {
            metadata["relatedResources"] = json!([word(&related.id)]);
        }
        let steps = next.into_iter().chain(pages.iter().map(Page::line)).map(|step| step.markdown(MAX_CARD_CHARACTERS));
        let card = json!({
            "version": "1.0",
            "source": "custom",
            "id": Text::from(id).title(MAX_THREAD_CHARACTERS),
            "content": {
                "textType": "client-markdown",
                "title": title.title(MAX_TITLE_CHARACTERS),
                "description": description.markdown(MAX_CARD_CHARACTERS),
                "nextSteps": steps.collect::<Vec<_>>(),
                "keywords": keywords.iter().map(|keyword| word(keyword)).collect::<Vec<_>>(),
            },
            "metadata": metadata,
        });
        let email = email.mail();
        let body = json!({
            "default": email,
            "email": email,
            "sms": sms.line(MAX_SMS_CHARACTERS),
            "https": card.to_string(),
            "sqs": data,
            "lambda": data,
        });
        Self { subject: subject.subject(MAX_SUBJECT_CHARACTERS), body: body.to_string() }
    }
}

/// Returns the alert as JSON.
fn data_of(content: &AlertContent) -> String {
    let AlertContent { kind, severity, resolved, sites, id, title, description, next, pages, thread, related, .. } =
        content;
    let safe = |text: &str, characters| Text::from(text.to_owned()).title(characters);
    let name = |text: &String| safe(text, MAX_NAME_CHARACTERS);
    let link = |Page { label, url, .. }: &Page| AlertLink { label: name(label), url: url.clone() };
    let resource = |Related { kind, id, name: of_it, project }: &Related| AlertResource {
        kind: (*kind).to_owned(),
        id: word(id),
        name: of_it.as_ref().map(name),
        project: project.as_ref().map(name),
    };
    let data = AlertData {
        kind: *kind,
        severity: *severity,
        title: title.title(MAX_TITLE_CHARACTERS),
        text: description.lines(MAX_CARD_CHARACTERS),
        next_steps: next.iter().map(|step| step.lines(MAX_CARD_CHARACTERS)).collect(),
        links: pages.iter().map(link).collect(),
        site: sites.first().filter(|_| sites.len() == 1).map(|site| word(site)),
        sites: sites.iter().take(MAX_SITES).map(|site| word(site)).collect(),
        resource: related.as_ref().map(resource),
        thread: safe(thread, MAX_THREAD_CHARACTERS),
        resolved: *resolved,
        event_id: safe(id, MAX_THREAD_CHARACTERS),
    };
    json!(data).to_string()
}
