//! Messages on the alerts topic: one text for each protocol.

use serde_json::json;

use crate::{
    alerts::text::{Text, word},
    registration::site_name::SiteName,
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

/// What is published to the alerts topic, with `MessageStructure` `json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertMessage {
    /// Subject of the e-mail: printable ASCII, fewer than 100 characters.
    pub subject: String,
    /// A JSON object with a text for each protocol: `default` and `email` are sentences, `sms` is one line, `https` is
    /// the custom notification of Amazon Q Developer in chat applications.
    pub body: String,
}

/// What keeps together in a chat what is told of one resource of a site.
pub(crate) fn thread(site: &SiteName, resource_luid: &str) -> String {
    format!("{site}/{}", word(resource_luid))
}

/// What people are told, before it is cut to what each way to them takes, and made safe for it.
pub(crate) struct AlertContent {
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

impl From<AlertContent> for AlertMessage {
    fn from(words: AlertContent) -> Self {
        let AlertContent {
            subject,
            email,
            sms,
            id,
            title,
            description,
            next,
            keywords,
            thread,
            summary,
            event_type,
            related,
        } = words;
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
